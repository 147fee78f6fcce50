"""Users' own files as they come: any names and layouts, archives, and everything that can be wrong with them."""

import hashlib
import io
import os
import re
import resource
import socket
import stat
import struct
import subprocess
import sys
import tarfile
import threading
import tracemalloc
import unicodedata
import zipfile
import zlib
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import soundfile
from test_sources import REPOSITORY, command, own_files, project, rows

from data_checks.expectations.verdicts import Verdict, write_verdict
from data_checks.facts.__main__ import main as facts_main
from ml import media
from ml.config import Paths, UserError, load_settings
from ml.datasets import raw_digest
from ml.datasets.prepare import prepare
from ml.files import beside, whole_folder
from ml.sources import archives, folder
from ml.sources.__main__ import main as source_main
from ml.sources.shards import Item

LONGEST_S = 600  # of a recording in the data
KILLS = 4
PATTERN = r"^[^_]+_(?P<group>[^_]+)_"


def write(place: Path, *names: str) -> Path:
    """Files of these names, each with its name as its content."""
    for name in names:
        (place / name).parent.mkdir(parents=True, exist_ok=True)
        (place / name).write_bytes(name.encode())
    return place


def listed(place: Path, modality: str = "images", pattern: str | None = None) -> list[Item]:
    return list(folder.listing(str(place), modality, place, pattern).items)


def refusal(place: Path | None, modality: str = "images", pattern: str | None = None) -> str:
    """The one line that says why this folder is not taken."""
    with pytest.raises(UserError) as refused:
        list(folder.listing(place and str(place), modality, place or Path(), pattern).items)
    assert "\n" not in str(refused.value)
    return str(refused.value)


# ------------------------------------------------------------------------------------------------ labels and people


@pytest.mark.parametrize("modality", ["images", "audio"])
def test_a_folder_gives_labels_and_people_by_the_names_of_its_folders(tmp_path, modality):
    write(tmp_path / modality, "eins/x.wav", "eins/anna/y.flac", "zwölf herbs/берта/z.ogg", "eins/.hidden", "Thumbs.db")
    items = listed(tmp_path, modality)
    assert [(item.id, item.label, item.group) for item in items] == [
        ("eins/anna/y.flac", "eins", "anna"),
        ("eins/x.wav", "eins", None),
        ("zwölf herbs/берта/z.ogg", "zwölf herbs", "берта"),
    ]
    assert items[0].content == b"eins/anna/y.flac"


def test_two_spellings_of_an_accent_are_one_label_and_their_files_stay_two(tmp_path):
    composed, apart = "caf\u00e9", unicodedata.normalize("NFD", "caf\u00e9")
    write(tmp_path / "images", f"{composed}/0.png", f"{apart}/0.png", f"{apart}/1.png")
    items = listed(tmp_path)
    assert {item.label for item in items} == {composed}
    assert len({item.id for item in items}) == 3
    assert sum(item.id.startswith("café/0.png~") for item in items) == 2


def test_names_that_only_capitals_tell_apart_keep_ids_that_differ_everywhere(tmp_path, capsys):
    write(tmp_path / "images", "a/x.png", "a/X.png", "a/y.png", "A/y.png", "b/z.png")
    items = listed(tmp_path)
    assert len(items) == 5
    assert len({item.id.casefold() for item in items}) == 5
    assert {item.label for item in items} == {"A", "a", "b"}
    assert "b/z.png" in {item.id for item in items}
    assert [item.id for item in items] == [item.id for item in listed(tmp_path)]
    assert "note: A, a of images are labels of their own, though only capitals differ" in capsys.readouterr().err


def test_a_name_that_is_no_text_is_kept_and_escaped(tmp_path):
    label = tmp_path / "images" / "a"
    label.mkdir(parents=True)
    for name in (b"caf\xe9.png", b"two\nlines.png"):
        (label / os.fsdecode(name)).write_bytes(b"x")
    assert [item.id for item in listed(tmp_path)] == ["a/caf\\xe9.png", "a/two\\nlines.png"]


def test_people_are_found_in_file_names_by_a_pattern(tmp_path, capsys):
    write(tmp_path / "audio", "one/1_ann_0.wav", "one/1_bob_1.wav", "one/carl/x.wav", "one/loose.wav")
    people = {item.id: item.group for item in listed(tmp_path, "audio", PATTERN)}
    assert people == {
        "one/1_ann_0.wav": "ann",
        "one/1_bob_1.wav": "bob",
        "one/carl/x.wav": "carl",
        "one/loose.wav": None,
    }
    said = capsys.readouterr().err
    assert said == (
        "note: 2 of 4 names of audio do not match data.group_pattern: one/carl/x.wav…; of 1 the speaker is unknown\n"
    )
    assert {item.group for item in listed(tmp_path, "audio")} == {None, "carl"}
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize("pattern", ["(?P<group>", "^(.*)_", "(?P<who>.*)_", "(?P<group>.)(?P<more>.)"])
def test_a_pattern_that_is_none_is_one_line_that_names_the_key(tmp_path, pattern):
    said = refusal(write(tmp_path, "images/a/x.png"), "images", pattern)
    assert said.startswith("data.group_pattern (GROUP_PATTERN=…): ")
    assert "expected a regular expression with one named group, such as ^[^_]+_(?P<group>[^_]+)_" in said


def test_the_pattern_comes_from_the_environment_and_through_make(tmp_path, monkeypatch):
    monkeypatch.setenv("SEEHEAR_GROUP_PATTERN", PATTERN)
    assert load_settings(REPOSITORY).data.group_pattern == PATTERN
    monkeypatch.delenv("SEEHEAR_GROUP_PATTERN")
    probe = tmp_path / "probe.mk"
    probe.write_text(f"include {REPOSITORY}/Makefile\nprobe: ; @printenv SEEHEAR_GROUP_PATTERN\n")
    pattern = r"^(?P<group>[a-z]+)\d$"
    made = subprocess.run(
        ["make", "-s", "-f", probe, "probe", f"GROUP_PATTERN={pattern}"], capture_output=True, text=True, check=True
    )
    assert made.stdout.strip() == pattern


# ---------------------------------------------------------------------------------------------------------- layouts


def test_a_relative_folder_starts_at_the_project_root(tmp_path):
    own_files(tmp_path / "own", 4)
    assert folder.listing("own", "images", tmp_path).total == 4


def test_a_folder_laid_out_otherwise_is_refused_by_name(tmp_path):
    assert "data.folder (FOLDER=…) is not set" in refusal(None)
    assert f"{tmp_path}/images: missing" in refusal(tmp_path)
    write(tmp_path, "images")
    assert f"{tmp_path}/images: is no folder" in refusal(tmp_path)
    (tmp_path / "images").unlink()
    (tmp_path / "images" / "a" / "nobody.png").mkdir(parents=True)
    assert "holds no files; expected images/<label>/*" in refusal(tmp_path)
    write(tmp_path, "images/loose.png")
    assert "loose.png: lies outside every label" in refusal(tmp_path)
    (tmp_path / "images" / "loose.png").unlink()
    for modality in ("images", "audio"):
        (tmp_path / modality / "a" / "ann" / "deeper.png").mkdir(parents=True)
        assert "ann/deeper.png: is no file" in refusal(tmp_path, modality)


def test_links_are_followed_out_of_the_folder_and_never_round_in_circles(tmp_path):
    elsewhere, own = write(tmp_path / "elsewhere", "1.png", "2.png"), write(tmp_path / "own", "images/a/0.png")
    (own / "images" / "a" / "one.png").symlink_to(elsewhere / "1.png")
    (own / "images" / "b").symlink_to(elsewhere)
    assert [(item.id, item.content) for item in listed(own)] == [
        ("a/0.png", b"images/a/0.png"),
        ("a/one.png", b"1.png"),
        ("b/1.png", b"1.png"),
        ("b/2.png", b"2.png"),
    ]
    for target in (own / "images", own / "images" / "a"):
        loop = own / "images" / "a" / "loop"
        loop.symlink_to(target)
        assert refusal(own) == f"{loop}: is a link to a folder around it and would never end; remove it"
        loop.unlink()


def test_the_state_of_a_folder_tells_every_change_and_nothing_else(tmp_path):
    def state() -> str:
        return folder.state("own", "images", tmp_path)

    seen = [folder.state(None, "images", tmp_path), state()]  # not there yet: the reason is its state
    own = write(tmp_path / "own" / "images", "a/0.png", "a/1.png", "b/0.png")
    seen.append(state())
    assert state() == state()
    write(tmp_path / "own", "audio/a/0.wav")
    assert state() == seen[-1]
    (own / "a" / "0.png").write_bytes(b"other")
    seen.append(state())
    (own / "a" / "1.png").rename(own / "b" / "1.png")
    seen.append(state())
    (own / "b" / "1.png").unlink()
    seen.append(state())
    assert len(set(seen)) == len(seen)


# ------------------------------------------------------------------------------------------------- unreadable things


def dangling(place: Path) -> None:
    place.symlink_to(place.parent / "nowhere")


def circle(place: Path) -> None:
    place.symlink_to(place)


def pipe(place: Path) -> None:
    os.mkfifo(place)


def listener(place: Path) -> None:
    with socket.socket(socket.AF_UNIX) as opened:
        opened.bind(os.path.relpath(place))


def device(place: Path) -> None:
    place.symlink_to("/dev/zero")


def broken_disk(place: Path) -> None:
    place.symlink_to("/proc/self/mem")  # a regular file whose first bytes cannot be read, whoever asks


def endless(place: Path) -> None:
    with place.open("wb") as file:
        file.truncate(folder.LARGEST_FILE_BYTES + 1)


UNREADABLE = {
    dangling: "cannot be read: a link that leads nowhere",
    circle: "cannot be read: Too many levels of symbolic links",
    pipe: "is no file but a pipe, socket or device",
    listener: "is no file but a pipe, socket or device",
    device: "is no file but a pipe, socket or device",
    broken_disk: "cannot be read: Input/output error",
    endless: "536,870,913 bytes, expected at most 536,870,912 in one file",
}


@pytest.mark.timeout(20)
@pytest.mark.parametrize("make", UNREADABLE, ids=lambda make: make.__name__)
def test_what_cannot_be_read_is_named_at_once(tmp_path, make):
    own_files(tmp_path, 2)
    make(tmp_path / "images" / "a" / "bad.png")
    assert refusal(tmp_path).startswith(f"{tmp_path}/images/a/bad.png: {UNREADABLE[make]}")


def test_what_cannot_be_read_leaves_the_former_shards_and_ends_in_one_line(tmp_path):
    root = project(tmp_path / "root", folder=str(own_files(tmp_path / "own", 4)))
    assert command(root, "folder", "images").wait() == 0
    broken_disk(own_files(tmp_path / "own", 6) / "images" / "b" / "zz.png")
    run = command(root, "folder", "images")
    _, said = run.communicate()
    assert run.returncode == 1
    assert said.splitlines()[-1] == f"seehear: {tmp_path}/own/images/b/zz.png: cannot be read: Input/output error"
    place = Paths(root, "folder").raw("images")
    assert len(rows(place)) == 4
    assert [entry.name for entry in place.parent.iterdir()] == ["images"]


# --------------------------------------------------------------------------------------------------------- archives


def packed(place: Path, names: dict[str, bytes], suffix: str) -> Path:
    """An archive with these members."""
    archive = place / f"own{suffix}"
    if suffix == ".zip":
        with zipfile.ZipFile(archive, "w", zipfile.ZIP_DEFLATED) as opened:
            for name, content in names.items():
                opened.writestr(name, content)
        return archive
    with tarfile.open(archive, {".tar": "w", ".tar.gz": "w:gz", ".tgz": "w:gz"}[suffix]) as opened:
        for name, content in names.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            opened.addfile(info, io.BytesIO(content))
    return archive


OWN = {
    "images/a/1.png": b"one",
    "images/b/ann/2.png": b"two",
    "audio/c/3.wav": b"three",
    "images/audio/4.png": b"of a label that is called so",
    "images/.DS_Store": b"",
    "__MACOSX/images/a/._1.png": b"",
    "README": b"",
}


@pytest.mark.parametrize("suffix", archives.SUFFIXES)
@pytest.mark.parametrize("above", ["", "./", "my data/"])
def test_an_archive_is_read_as_the_folder_it_holds(tmp_path, suffix, above):
    archive = packed(tmp_path, {f"{above}{name}": content for name, content in OWN.items()}, suffix)
    got = [(item.id, item.label, item.group, item.content) for item in listed(archive)]
    alike = ("audio/4.png", "audio", None, b"of a label that is called so")
    assert sorted(got) == [("a/1.png", "a", None, b"one"), alike, ("b/ann/2.png", "b", "ann", b"two")]
    assert [item.content for item in listed(archive, "audio")] == [b"three"]
    assert [entry.name for entry in tmp_path.iterdir()] == [archive.name], "something was unpacked"


def test_an_archive_in_any_order_is_read_whole(tmp_path):
    names = {f"images/{label}/{number}.png": bytes([number]) for number in (3, 1, 2) for label in "ba"}
    for suffix in archives.SUFFIXES:
        archive = packed(tmp_path, names, suffix)
        assert {f"images/{item.id}": item.content for item in listed(archive)} == names
        opened = archives.members(archive)
        assert {member.name: member.read() for member in reversed(opened)} == names


@pytest.mark.parametrize("suffix", [".zip", ".tar", ".tar.gz"])
@pytest.mark.parametrize(
    "name",
    ["../images/a/x.png", "images/a/../../../x.png", "/images/a/x.png", "C:/images/a/x.png", "..\\images\\x.png"],
)
def test_a_member_that_leads_out_of_the_archive_is_refused_by_name(tmp_path, suffix, name):
    said = refusal(packed(tmp_path, {"images/a/0.png": b"", name: b"x"}, suffix))
    assert said.startswith(f"{tmp_path}/own{suffix}: {name!r}: leads out of the archive")


@pytest.mark.parametrize("kind", [tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.CHRTYPE, tarfile.FIFOTYPE])
def test_a_member_of_a_tar_that_is_no_file_is_refused_by_name(tmp_path, kind):
    with tarfile.open(tmp_path / "own.tar", "w") as opened:
        info = tarfile.TarInfo("images/a/x.png")
        info.type, info.linkname = kind, "/etc/passwd"
        opened.addfile(info)
    assert "images/a/x.png: is a link or device" in refusal(tmp_path / "own.tar")


def test_a_link_in_a_zip_is_refused_by_name(tmp_path):
    with zipfile.ZipFile(tmp_path / "own.zip", "w") as opened:
        link = zipfile.ZipInfo("images/a/x.png")
        link.external_attr = (stat.S_IFLNK | 0o777) << 16
        opened.writestr(link, "/etc/passwd")
    assert "images/a/x.png: is a link or device" in refusal(tmp_path / "own.zip")


def test_bombs_are_refused_before_they_are_unpacked(tmp_path):
    zeros = bytes(archives.HARMLESS_BYTES + 1)
    for suffix, said in ((".zip", "images/a/x.bmp: "), (".tar.gz", "images/a/x.bmp: by here ")):
        assert said in (line := refusal(packed(tmp_path, {"images/a/x.bmp": zeros}, suffix)))
        assert "swell to 67,108,865" in line
    half = archives.HARMLESS_BYTES // 2 + 1
    many = packed(tmp_path, {f"images/a/{number}.bmp": zeros[:half] for number in range(2)}, ".zip")
    assert "images/a/1.bmp: by here" in refusal(many)
    with tarfile.open(tmp_path / "names.tar.gz", "w:gz") as opened:
        long = tarfile.TarInfo("images/a/x.png")
        long.pax_headers = {"comment": "x" * (archives.LARGEST_EXTENSION_BYTES + 1)}
        opened.addfile(long)
    assert "a header of 1,048,5" in refusal(tmp_path / "names.tar.gz")
    huge = tarfile.TarInfo("images/a/huge.bmp")
    huge.size = 4 << 30
    (tmp_path / "huge.tar").write_bytes(huge.tobuf() + bytes(1024))
    assert refusal(tmp_path / "huge.tar").endswith("declares 4,294,967,296 bytes, expected at most 536,870,912")


def test_a_damaged_archive_is_one_line_that_names_what_is_damaged(tmp_path):
    content = np.random.default_rng(0).bytes(5000)
    for suffix in archives.SUFFIXES:
        archive = packed(tmp_path, {f"images/a/{number}.png": content for number in range(3)}, suffix)
        archive.write_bytes(archive.read_bytes()[: 2 * archive.stat().st_size // 3])
        assert refusal(archive).startswith(f"{archive}: ")
        archive.write_bytes(b"no archive")
        assert "cannot be read as an archive" in refusal(archive)
    archive = packed(tmp_path, {"images/a/0.png": content}, ".zip")
    body = bytearray(archive.read_bytes())
    body[2000] ^= 1
    archive.write_bytes(body)
    assert "images/a/0.png: cannot be read as an archive: " in refusal(archive)


def test_an_archive_whose_names_are_no_text_or_whose_bytes_no_lzma_is_one_line(tmp_path):
    archive = packed(tmp_path, {"images/a/ä.png": b"1"}, ".zip")
    archive.write_bytes(archive.read_bytes().replace("ä".encode(), b"\xe4a"))
    assert "cannot be read as an archive: " in refusal(archive)
    with zipfile.ZipFile(tmp_path / "own.zip", "w", zipfile.ZIP_LZMA) as opened:
        opened.writestr("images/a/0.png", np.random.default_rng(0).bytes(5000))
    body = bytearray((tmp_path / "own.zip").read_bytes())
    body[60:100] = bytes(40)
    (tmp_path / "own.zip").write_bytes(body)
    assert "images/a/0.png: cannot be read as an archive: " in refusal(tmp_path / "own.zip")


def test_a_home_of_nobody_is_one_line(tmp_path):
    with pytest.raises(UserError, match=r"data\.folder \(FOLDER=…\): ~nobody at all/x: .*; expected a path"):
        folder.listing("~nobody at all/x", "images", tmp_path)


def test_a_name_that_is_in_an_archive_twice_is_refused(tmp_path):
    with tarfile.open(tmp_path / "own.tar", "w") as opened:
        for _ in range(2):
            opened.addfile(tarfile.TarInfo("images/a/x.png"))
    assert "images/a/x.png: is in the archive twice" in refusal(tmp_path / "own.tar")


# ------------------------------------------------------------------------------------------- damaged among good ones


def wave(declared: int, form: bytes = b"RIFF", samples: int = 800) -> bytes:
    """A WAV of 0.1 s whose data chunk declares another number of bytes."""
    whole = media.encode_wav(np.random.default_rng(1).uniform(-0.5, 0.5, samples), 8000)
    return (
        form
        + struct.pack("<I", min(declared + 36, 0xFFFFFFFF))
        + whole[8:40]
        + struct.pack("<I", declared)
        + whole[44:]
    )


def pixel_bomb() -> bytes:
    """A PNG of 12,000 x 12,000 points in 18 kB."""
    row = zlib.compressobj(9)
    body = b"".join(row.compress(bytes(1501) * 100) for _ in range(120)) + row.flush()
    chunks = ((b"IHDR", struct.pack(">IIBBBBB", 12_000, 12_000, 1, 0, 0, 0, 0)), (b"IDAT", body), (b"IEND", b""))
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(part)) + kind + part + struct.pack(">I", zlib.crc32(kind + part)) for kind, part in chunks
    )


def text_bomb() -> bytes:
    """A PNG of 4 x 4 points with 100 MB of text in it."""
    packer = zlib.compressobj(9)
    text = b"zip\0\0" + b"".join(packer.compress(bytes(1 << 20)) for _ in range(100)) + packer.flush()
    whole = media.encode_png(np.zeros((4, 4), np.uint8))
    chunk = struct.pack(">I", len(text)) + b"zTXt" + text + struct.pack(">I", zlib.crc32(b"zTXt" + text))
    return whole[:33] + chunk + whole[33:]


def long_silence() -> bytes:
    """A FLAC of 20 minutes of nothing in 35 kB."""
    out = io.BytesIO()
    with soundfile.SoundFile(out, "w", 8000, 1, format="FLAC") as file:
        for _ in range(20):
            file.write(np.zeros(60 * 8000, np.int16))
    return out.getvalue()


DAMAGED = {
    "images": {
        "nothing.png": (lambda: b"", "cannot be decoded as a picture"),
        "text.png": (lambda: b"not a picture", "cannot be decoded as a picture"),
        "cut.png": (lambda: media.encode_png(np.zeros((64, 64), np.uint8))[:2000], "cannot be decoded as a picture"),
        "bomb.png": (pixel_bomb, "12000 x 12000 pixels, expected at most 25 megapixels"),
        "words.png": (text_bomb, "cannot be decoded as a picture"),
    },
    "audio": {
        "nothing.wav": (lambda: b"", "cannot be decoded as a recording"),
        "text.wav": (lambda: b"not a recording", "cannot be decoded as a recording"),
        "cut.wav": (lambda: wave(1600)[:700], "cut short: 1600 bytes of sound declared, 656 there"),
        "two_gigabytes.wav": (lambda: wave(2_000_000_000), "cut short: 2000000000 bytes of sound declared, 1600 there"),
        "silent.wav": (lambda: wave(0, samples=0), "holds no sound"),
        "hours.flac": (long_silence, "longer than the 600 s that are allowed"),
    },
}
CASES = [(modality, name) for modality, cases in DAMAGED.items() for name in cases]


def decoded(modality: str, content: bytes, name: str) -> None:
    if modality == "images":
        media.decode_picture(content, name=name)
    else:
        media.decode_recording(content, LONGEST_S, name)


@pytest.mark.timeout(30)
@pytest.mark.parametrize(("modality", "name"), CASES, ids=[name for _, name in CASES])
def test_a_damaged_file_is_kept_as_it_is_and_says_what_is_wrong_with_it(tmp_path, modality, name):
    make, said = DAMAGED[modality][name]
    content = make()
    write(tmp_path / modality, "a/good.bin")
    (tmp_path / modality / "a" / name).write_bytes(content)
    assert {item.id: item.content for item in listed(tmp_path, modality)}[f"a/{name}"] == content
    tracemalloc.start()
    try:
        with pytest.raises(UserError, match=f"^{name}: .*{re.escape(said)}") as refused:
            decoded(modality, content, name)
        assert "\n" not in str(refused.value)
        assert tracemalloc.get_traced_memory()[1] < 60e6, "it was unpacked after all"
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize("declared", [0xFFFFFFFF, 4_000_000_000])
def test_a_wave_that_declares_four_gigabytes_is_what_is_there(declared):
    """Programs that write into a pipe cannot know the length and declare the most there is."""
    tracemalloc.start()
    waveform, rate_hz = media.decode_recording(wave(declared))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert (len(waveform), rate_hz) == (800, 8000)
    assert peak < 10e6


# --------------------------------------------------------------------------------------------------- killed, and full


def test_a_folder_is_replaced_without_a_moment_in_which_it_is_not_there(tmp_path):
    place, missed, over = tmp_path / "place", [], threading.Event()

    def watch() -> None:
        while not over.is_set():
            try:
                os.stat(place / "file")
            except FileNotFoundError as fault:
                missed.append(fault)

    def replace() -> None:
        with whole_folder(place) as new:
            (new / "file").touch()

    replace()
    watcher = threading.Thread(target=watch)
    watcher.start()
    for _ in range(500):
        replace()
    over.set()
    watcher.join()
    assert missed == []
    assert [entry.name for entry in tmp_path.iterdir()] == ["place"]


KILLER = f"""
import os, random, signal, sys, time
from pathlib import Path
sys.path[:0] = [{str(REPOSITORY)!r}, {str(REPOSITORY / "tests")!r}]
import data_checks.facts.__main__, ml.datasets.prepare, ml.sources.__main__, ml.sources.folder, test_folder
from ml.config import Paths, load_settings
paths, rng = Paths(Path(os.environ["SEEHEAR_ROOT"]), "folder"), random.Random(0)
data = load_settings(paths.root).data
def raw():
    ml.sources.__main__.main("folder", "images")
def facts():
    data_checks.facts.__main__.main(["folder", "images"])
def prepared():
    folder = ml.datasets.prepare.prepare(paths, "images", data)
    (folder / "verdict.json").write_text("{{}}")
    ml.datasets.prepare.publish_prepared(paths, "images")
def once(stage, limit_s=None):
    child = os.fork()
    if not child:
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        stage()
        os._exit(0)
    if limit_s is not None:
        time.sleep(limit_s)
        os.kill(child, signal.SIGKILL)
    return os.waitpid(child, 0)[1]
for stage in (raw, facts, prepared):
    start = time.monotonic()
    assert once(stage) == 0
    took, died = time.monotonic() - start, 0
    for _ in range({KILLS}):
        died += once(stage, rng.uniform(0, took)) == signal.SIGKILL
        print("killed", stage.__name__, flush=True)
        sys.stdin.readline()
    assert died, "every run was over before it could be killed"
    assert once(stage) == 0
    print("ended", stage.__name__, flush=True)
    if stage is facts:
        test_folder.pass_validation(paths)
"""


def pass_validation(paths: Paths) -> None:
    """What the validation of these shards leaves where nothing is wrong with them."""
    place = paths.validated("images")
    place.mkdir(parents=True, exist_ok=True)
    write_verdict(place, Verdict(True, raw_digest(paths.raw("images")), (), 0, 120))
    nobody = pa.array([], pa.string())
    pq.write_table(pa.table({"id": nobody}), place / "quarantine.parquet")
    pq.write_table(pa.table({"id": nobody, "cluster": pa.array([], pa.int64())}), place / "similar.parquet")


def tree(place: Path) -> dict[str, str]:
    """What a reader can see: every file that is not hidden, by its digest."""
    files = [place] if place.is_file() else sorted(file for file in place.rglob("*") if file.is_file())
    return {file.name: hashlib.sha256(file.read_bytes()).hexdigest() for file in files}


@pytest.mark.timeout(120)
def test_killed_at_any_moment_every_stage_leaves_the_last_good_output_and_ends_alike(tmp_path):
    root = project(tmp_path / "root", folder=str(own_files(tmp_path / "own", 120)), shard_rows=5, source="folder")
    paths = Paths(root, "folder")
    places = {"raw": paths.raw("images"), "facts": paths.facts("images"), "prepared": paths.prepared("images")}
    seen = {f"{what} {stage}": [] for stage in places for what in ("killed", "ended")}
    with subprocess.Popen(
        [sys.executable, "-c", KILLER],
        env=os.environ | {"SEEHEAR_ROOT": str(root)},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        bufsize=1,
    ) as run:
        assert run.stdin
        assert run.stdout
        for line in run.stdout:
            what, stage = line.split()
            seen[f"{what} {stage}"].append(tree(places[stage]))
            if what == "killed":
                run.stdin.write("\n")
        _, said = run.communicate()
    assert run.returncode == 0, said
    for stage, place in places.items():
        assert seen[f"killed {stage}"] == seen[f"ended {stage}"] * KILLS, f"{stage} was seen half done"
        assert [entry.name for entry in place.parent.iterdir() if entry.name.startswith(f".{place.name}")] == []


@pytest.mark.parametrize(
    ("stage", "limit_bytes"), [("data_checks.facts", 6_000), ("ml.datasets prepare", 100_000)], ids=lambda one: str(one)
)
def test_a_full_disk_is_one_clear_line_and_leaves_the_former_output(tmp_path, monkeypatch, stage, limit_bytes):
    root = project(tmp_path / "root", folder=str(own_files(tmp_path / "own", 120)), source="folder")
    paths = Paths(root, "folder")
    monkeypatch.setenv("SEEHEAR_ROOT", str(root))
    source_main("folder", "images")
    facts_main(["folder", "images"])
    pass_validation(paths)
    place = paths.facts("images")
    if stage != "data_checks.facts":
        prepare(paths, "images", load_settings(root).data)
        place = beside(paths.prepared("images")).rename(paths.prepared("images"))
    former = tree(place)
    run = subprocess.run(
        [sys.executable, "-m", *stage.split(), "folder", "images"],
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (limit_bytes, limit_bytes)),
        cwd=REPOSITORY,
        capture_output=True,
        text=True,
    )
    assert run.returncode == 1, run.stdout
    assert run.stderr.splitlines()[-1].startswith("seehear: the file is too large")
    assert "Traceback" not in run.stderr
    assert tree(place) == former


@pytest.fixture
def small_disk(tmp_path):
    """A disk of 1 MB, where this machine lets us have one."""
    place = tmp_path / "disk"
    place.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", place], capture_output=True)
    if mounted.returncode:
        pytest.skip("no disk can be mounted here")
    yield place
    subprocess.run(["umount", place], check=True)


def test_a_disk_that_is_really_full_is_one_clear_line_too(tmp_path, small_disk):
    root = project(small_disk / "root", folder=str(own_files(tmp_path / "own", 40)))
    assert command(root, "folder", "images").wait() == 0
    place = Paths(root, "folder").raw("images")
    former = tree(place)
    own_files(tmp_path / "own", 400)
    run = command(root, "folder", "images")
    _, said = run.communicate()
    assert run.returncode == 1
    assert said.splitlines()[-1].startswith("seehear: the disk is full")
    assert "Traceback" not in said
    assert tree(place) == former
    assert [entry.name for entry in place.parent.iterdir()] == ["images"]
