"""Every source writes whole, verified shards, and the same ones each time."""

import gzip
import hashlib
import json
import os
import resource
import shutil
import signal
import struct
import subprocess
import sys
import threading
import time
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
import yaml

from ml import media
from ml.config import Paths, UserError
from ml.sources import espeak, mnist_fsdd, starter
from ml.sources.downloads import ATTEMPTS, Published, obtain
from ml.sources.shards import SCHEMA, Item, Listing, shard_files, write_shards

REPOSITORY = Path(__file__).resolve().parents[1]
MIRROR = REPOSITORY.parent / "shared" / "data"
needs_mirror = pytest.mark.skipif(not MIRROR.is_dir(), reason="the mirror of MNIST and FSDD is not here")


def rows(place: Path) -> list[dict]:
    return [row for file in shard_files(place) for row in pq.read_table(file).to_pylist()]


def hashes(place: Path) -> dict[str, str]:
    return {file.name: hashlib.sha256(file.read_bytes()).hexdigest() for file in shard_files(place)}


def md5(file: Path) -> str:
    return hashlib.md5(file.read_bytes()).hexdigest()


def project(place: Path, **data) -> Path:
    """A project root of its own with the settings of this one."""
    settings = yaml.safe_load((REPOSITORY / "params.yaml").read_text())
    settings["data"] |= data
    place.mkdir(parents=True, exist_ok=True)
    (place / "params.yaml").write_text(yaml.safe_dump(settings))
    return place


def own_files(place: Path, count: int) -> Path:
    """A folder with pictures under the labels a and b."""
    for number in range(count):
        file = place / "images" / "ab"[number % 2] / f"{number:03d}.png"
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(media.encode_png(np.random.default_rng(number).integers(0, 256, (64, 64), dtype=np.uint8)))
    return place


# The C library's and NumPy's code for processors without vector and fused instructions
PLAIN_PROCESSOR = {
    "GLIBC_TUNABLES": "glibc.cpu.hwcaps=-AVX,-AVX2,-FMA,-FMA4,-AVX_Usable,-AVX2_Usable,-FMA_Usable",
    "NPY_DISABLE_CPU_FEATURES": "X86_V4 X86_V3",
}


def command(root: Path, source: str, modality: str, plain_processor: bool = False, **options) -> subprocess.Popen:
    environment = os.environ | {"SEEHEAR_ROOT": str(root)} | (PLAIN_PROCESSOR if plain_processor else {})
    line = [sys.executable, "-m", "ml.sources", source, modality]
    return subprocess.Popen(line, cwd=REPOSITORY, env=environment, stderr=subprocess.PIPE, text=True, **options)


# ---------------------------------------------------------------------------------------------------------- shards


def test_rows_have_the_columns_of_the_contract_and_untouched_bytes(tmp_path):
    items = [Item("one", b"\x00\xff", "a", "train", "ann"), Item("two", b"", "b")]
    write_shards(tmp_path / "raw", "folder", Listing(items, 2, "mine"), shard_rows=10)
    names = ["id", "bytes", "label", "source", "split", "group", "captured_at", "licence"]
    assert names == SCHEMA.names
    first, second = rows(tmp_path / "raw")
    assert list(first.values()) == ["one", b"\x00\xff", "a", "folder", "train", "ann", None, "mine"]
    assert (second["split"], second["group"]) == (None, None)


@pytest.mark.parametrize(("count", "size", "expected"), [(5, 2, [2, 2, 1]), (4, 2, [2, 2]), (1, 10, [1])])
def test_shards_hold_at_most_the_rows_that_are_set(tmp_path, count, size, expected):
    items = [Item(str(number), b"x", "a") for number in range(count)]
    write_shards(tmp_path / "raw", "folder", Listing(items, count, ""), size)
    assert [pq.read_metadata(file).num_rows for file in shard_files(tmp_path / "raw")] == expected
    assert [row["id"] for row in rows(tmp_path / "raw")] == [item.id for item in items]


def test_a_source_that_breaks_off_leaves_the_former_shards(tmp_path):
    def broken():
        yield Item("new", b"x", "a")
        raise UserError("out of items")

    write_shards(tmp_path / "raw", "folder", Listing([Item("old", b"x", "a")], 1, ""), 1)
    with pytest.raises(UserError, match="out of items"):
        write_shards(tmp_path / "raw", "folder", Listing(broken(), 2, ""), 1)
    assert [row["id"] for row in rows(tmp_path / "raw")] == ["old"]
    assert [entry.name for entry in tmp_path.iterdir()] == ["raw"]


def test_a_full_disk_is_one_clear_line_and_leaves_the_former_shards(tmp_path):
    root = project(tmp_path / "root", folder=str(own_files(tmp_path / "own", 40)), shard_rows=20)
    place = Paths(root, "folder").raw("images")
    assert command(root, "folder", "images").wait() == 0
    former = hashes(place)
    own_files(tmp_path / "own", 80)
    limit = 40_000  # bytes in one file; a shard of 20 pictures needs about 80,000
    run = command(
        root, "folder", "images", preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))
    )
    _, said = run.communicate()
    assert run.returncode == 1
    assert said.count("\n") == 1
    assert said.startswith("seehear: the file is too large")
    assert hashes(place) == former
    assert [entry.name for entry in place.parent.iterdir()] == ["images"]
    assert command(root, "folder", "images").wait() == 0
    assert len(rows(place)) == 80


def test_a_killed_run_leaves_nothing_half_done_and_the_next_one_finishes_alike(tmp_path):
    root = project(tmp_path / "root", folder=str(own_files(tmp_path / "own", 300)), shard_rows=1)
    place = Paths(root, "folder").raw("images")
    run = command(root, "folder", "images")
    while not list(place.parent.glob(".images.new/shard-*")):
        assert run.poll() is None, run.communicate()
        time.sleep(0.001)
    os.kill(run.pid, signal.SIGKILL)
    assert run.wait() == -signal.SIGKILL
    assert not place.exists(), "the run was over before it could be killed"
    assert command(root, "folder", "images").wait() == 0
    untouched = project(tmp_path / "untouched", folder=str(tmp_path / "own"), shard_rows=1)
    assert command(untouched, "folder", "images").wait() == 0
    assert hashes(place) == hashes(Paths(untouched, "folder").raw("images"))
    assert [entry.name for entry in place.parent.iterdir()] == ["images"]


@pytest.mark.parametrize("words", [("nowhere", "images"), ("starter", "smells")])
def test_an_unknown_source_or_modality_is_one_line_that_says_what_is_expected(tmp_path, words):
    run = command(project(tmp_path), *words)
    _, said = run.communicate()
    assert run.returncode == 1
    assert said.count("\n") == 1
    assert "expected `python -m ml.sources starter|mnist-fsdd|folder images|audio`" in said


# --------------------------------------------------------------------------------------------------------- starter


@pytest.fixture(scope="module")
def spoken() -> list[Item]:
    return list(starter.recordings(("f1", "m3")).items)


def test_the_starter_has_the_digits_of_the_uci_set_in_full_contrast():
    items = list(starter.pictures().items)
    assert len(items) == 1797
    assert {item.label for item in items} == set("0123456789")
    pixels = np.stack([media.decode_picture(item.content) for item in items])
    assert pixels.shape == (1797, 8, 8, 1)
    assert (pixels.min(), pixels.max()) == (0, 255)
    assert len(np.unique(pixels)) == 17


def test_every_speaker_says_every_digit_in_every_manner(spoken):
    assert len(spoken) == 2 * len(starter.MANNERS) * 10
    assert {item.group for item in spoken} == {"f1", "m3"}
    assert len({item.id for item in spoken}) == len(spoken)
    assert len({item.content for item in spoken}) == len(spoken)
    waveforms = [media.decode_recording(item.content) for item in spoken]
    assert {rate_hz for _, rate_hz in waveforms} == {8000}
    durations_s = [len(waveform) / 8000 for waveform, _ in waveforms]
    assert 0.1 < min(durations_s) < max(durations_s) < 1.5
    assert all(0.05 < np.abs(waveform).max() < 1 for waveform, _ in waveforms)


def test_there_are_enough_clips_and_distinct_speakers():
    assert 2400 <= starter.recordings().total <= 3000
    assert len(set(starter.SPEAKERS)) == len(starter.SPEAKERS) >= 50


def test_the_synthetic_speech_is_the_same_every_time(spoken):
    assert [item.content for item in starter.recordings(("f1", "m3")).items] == [item.content for item in spoken]


@pytest.mark.parametrize("modality", ["images", "audio"])
def test_the_starter_made_anew_on_a_plainer_processor_has_the_hash_in_dvc_lock(tmp_path, modality):
    lock = yaml.safe_load((REPOSITORY / "dvc.lock").read_text())["stages"][f"raw@{modality}"]
    root = project(tmp_path)
    assert command(root, "starter", modality, plain_processor=True).wait() == 0
    files = [{"md5": md5(file), "relpath": file.name} for file in shard_files(Paths(root, "starter").raw(modality))]
    listed = json.dumps(files, sort_keys=True).encode()  # how DVC names the content of a folder
    assert f"{hashlib.md5(listed).hexdigest()}.dir" == lock["outs"][0]["md5"]


@pytest.mark.parametrize("voice", ["en-us+nobody", "xx-yy"])
def test_an_unknown_voice_is_refused_and_not_replaced_by_another(voice):
    with pytest.raises(UserError, match=r"starter audio: voice .*: RuntimeError: eSpeak NG"):
        starter.spoken(voice, ["160 50 one"])


def test_a_word_spoken_at_another_time_is_the_same():
    import espeakng_loader

    line = [sys.executable, "-I", "-S", espeak.__file__, espeakng_loader.get_library_path(), "en-us+f2"]
    once = subprocess.run(line, input=b"160 50 nine", capture_output=True, check=True).stdout
    assert struct.unpack_from("<I", once)[0] == (len(once) - 4) // 2 > 4000
    time.sleep(1.1)  # eSpeak NG seeds its breath by the second
    assert subprocess.run(line, input=b"160 50 nine", capture_output=True, check=True).stdout == once


# ------------------------------------------------------------------------------------------------------- downloads

CONTENT = np.random.default_rng(0).bytes(900_000)


def sha256(file: Path) -> str:
    return hashlib.sha256(file.read_bytes()).hexdigest()


def published(url: str, content: bytes = CONTENT) -> Published:
    return Published("set/part.bin", f"{url}/part.bin", hashlib.sha256(content).hexdigest(), sha256)


class Publisher(ThreadingHTTPServer):
    """A real server of one file that can break off, ignore ranges, or refuse; `asked` keeps the ranges it was asked."""

    def __init__(self):
        super().__init__(("127.0.0.1", 0), Answer)
        self.content, self.break_after, self.ranges, self.status = CONTENT, 0, True, 0
        self.asked: list[str | None] = []
        self.url = f"http://127.0.0.1:{self.server_port}"


class Answer(BaseHTTPRequestHandler):
    server: Publisher

    def do_GET(self):
        asked = self.headers.get("Range")
        self.server.asked.append(asked)
        if self.server.status:
            return self.send_error(self.server.status)
        start = int(asked[6:-1]) if asked and self.server.ranges else 0
        if start >= len(self.server.content):
            return self.send_error(416)
        body = self.server.content[start:]
        self.send_response(206 if start else 200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body[: self.server.break_after or None])
        return None

    def log_message(self, *_):
        """Tests read what was asked from the server itself."""


@contextmanager
def publishing():
    server = Publisher()
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield server
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def test_a_download_is_kept_and_not_fetched_again(tmp_path):
    with publishing() as server:
        place = obtain(published(server.url), None, tmp_path)
        assert place == tmp_path / "data" / "downloads" / "set" / "part.bin"
        assert place.read_bytes() == CONTENT
        assert obtain(published(server.url), None, tmp_path) == place
        assert server.asked == [None]


def test_a_transfer_that_breaks_off_goes_on_where_it_stopped(tmp_path):
    with publishing() as server:
        server.break_after = 300_000
        place = obtain(published(server.url), None, tmp_path, pause_s=0)
        assert place.read_bytes() == CONTENT
        assert server.asked == [None, "bytes=300000-", "bytes=600000-"]


def test_the_next_run_resumes_what_this_one_could_not_finish(tmp_path):
    with publishing() as server:
        server.break_after = 10_000
        with pytest.raises(UserError, match=r"cannot be fetched \(the connection closed after 50000 of 900000 bytes\)"):
            obtain(published(server.url), None, tmp_path, pause_s=0)
        assert len(server.asked) == ATTEMPTS
        assert not (tmp_path / "data" / "downloads" / "set" / "part.bin").exists()
        server.break_after = 0
        assert obtain(published(server.url), None, tmp_path).read_bytes() == CONTENT
        assert server.asked[-1] == "bytes=50000-"


def test_a_server_without_ranges_is_read_from_the_start(tmp_path):
    with publishing() as server:
        part = tmp_path / "data" / "downloads" / "set" / "part.bin.part"
        part.parent.mkdir(parents=True)
        part.write_bytes(CONTENT[:1000])
        server.ranges = False
        assert obtain(published(server.url), None, tmp_path).read_bytes() == CONTENT


@pytest.mark.parametrize("left", [b"of another version", CONTENT + b"too long", CONTENT])
def test_what_an_earlier_run_left_is_used_only_where_it_fits(tmp_path, left):
    with publishing() as server:
        part = tmp_path / "data" / "downloads" / "set" / "part.bin.part"
        part.parent.mkdir(parents=True)
        part.write_bytes(left)
        assert obtain(published(server.url), None, tmp_path, pause_s=0).read_bytes() == CONTENT
        assert not part.exists()


def test_a_damaged_download_is_fetched_again(tmp_path):
    with publishing() as server:
        place = obtain(published(server.url), None, tmp_path)
        place.write_bytes(CONTENT[:-1])
        assert obtain(published(server.url), None, tmp_path).read_bytes() == CONTENT


def test_other_content_than_expected_is_refused_with_both_digests(tmp_path):
    with publishing() as server:
        server.content = b"something else"
        with pytest.raises(UserError) as refused:
            obtain(published(server.url), None, tmp_path)
        got, expected = hashlib.sha256(b"something else").hexdigest(), hashlib.sha256(CONTENT).hexdigest()
        assert str(refused.value) == f"{server.url}/part.bin: content has digest {got}, expected {expected}"
        assert list((tmp_path / "data" / "downloads" / "set").iterdir()) == []


@pytest.mark.parametrize(("status", "asked"), [(404, 1), (503, ATTEMPTS)])
def test_a_server_that_refuses_is_asked_again_only_where_that_may_help(tmp_path, status, asked):
    with publishing() as server:
        server.status = status
        with pytest.raises(UserError, match=f"part.bin: .*{status}"):
            obtain(published(server.url), None, tmp_path, pause_s=0)
        assert len(server.asked) == asked


def test_no_network_says_how_to_use_a_mirror(tmp_path):
    with publishing() as server:
        url = server.url
    with pytest.raises(UserError, match=r"cannot be fetched \(.*refused\); .*set data\.mirror \(MIRROR=…\)"):
        obtain(published(url), None, tmp_path, pause_s=0)


def test_a_mirror_folder_is_read_where_it_lies_and_verified(tmp_path):
    file = tmp_path / "mirror" / "set" / "part.bin"
    with pytest.raises(UserError, match=r"mirror/set/part\.bin: missing; data\.mirror"):
        obtain(published("http://unused"), "mirror", tmp_path)
    file.parent.mkdir(parents=True)
    file.write_bytes(CONTENT)
    assert obtain(published("http://unused"), "mirror", tmp_path) == file
    file.write_bytes(CONTENT[1:])
    with pytest.raises(UserError, match=r"mirror/set/part\.bin: content has digest \w{64}, expected \w{64}"):
        obtain(published("http://unused"), "mirror", tmp_path)


# ------------------------------------------------------------------------------------------------------ mnist-fsdd


def test_an_idx_file_is_read_by_its_header_and_anything_else_refused(tmp_path):
    body = b"\x00\x00\x08\x03" + struct.pack(">3I", 2, 2, 3) + bytes(range(12))
    (tmp_path / "x.gz").write_bytes(gzip.compress(body))
    assert mnist_fsdd.read_idx(tmp_path / "x.gz").tolist() == np.arange(12).reshape(2, 2, 3).tolist()
    (tmp_path / "x.gz").write_bytes(gzip.compress(b"\x00\x00\x0d\x01" + body))
    with pytest.raises(UserError, match="starts with 00000d, expected an IDX file"):
        mnist_fsdd.read_idx(tmp_path / "x.gz")


@needs_mirror
def test_mnist_has_its_published_split_and_pictures():
    listing = mnist_fsdd.pictures(str(MIRROR), REPOSITORY)
    items = list(listing.items)
    assert len(items) == listing.total == 70_000
    assert [item.split for item in items] == ["train"] * 60_000 + ["test"] * 10_000
    assert [item.label for item in items[:5]] == list("50419")
    assert media.decode_picture(items[0].content).shape == (28, 28, 1)
    assert len({item.id for item in items}) == 70_000


@needs_mirror
def test_fsdd_has_its_official_test_set_and_untouched_recordings():
    listing = mnist_fsdd.recordings(str(MIRROR), REPOSITORY)
    items = list(listing.items)
    assert len(items) == listing.total == 3000
    test = [item for item in items if item.split == "test"]
    assert len(test) == 300
    assert {int(item.id.split("_")[2]) for item in test} == {0, 1, 2, 3, 4}
    assert len({item.group for item in items}) == 6
    assert all(item.content[:4] == b"RIFF" for item in items)


@needs_mirror
def test_a_mirror_without_a_file_is_one_line_that_names_it(tmp_path):
    shutil.copytree(MIRROR / "fsdd", tmp_path / "mirror" / "fsdd")
    (tmp_path / "mirror" / "mnist").mkdir()
    root = project(tmp_path / "root", mirror=str(tmp_path / "mirror"))
    run = command(root, "mnist-fsdd", "images")
    _, said = run.communicate()
    assert run.returncode == 1
    assert said == (
        f"seehear: {tmp_path}/mirror/mnist/train-images-idx3-ubyte.gz: missing; "
        "data.mirror (MIRROR=…) must name a folder that holds mnist/train-images-idx3-ubyte.gz\n"
    )
