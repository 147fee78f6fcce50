"""Ten times the data: bounded memory, all cores, and nothing lost when a stage is killed."""

import io
import json
import os
import signal
import subprocess
import sys
import threading
import zlib
from pathlib import Path

import numpy as np
import pytest
import soundfile
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays
from PIL import Image

from benchmarks import growth
from ml import media, workers
from ml.workers import in_order

CHECKOUT = Path(__file__).resolve().parents[1]
MEGABYTES_A_SHARD, FEW, MANY = 5, 2, 8

# One stage over pictures of 20 KB in shards of 5 MB, 1 MB at a time, in one process; prints the most MB that it held.
STAGE = """
import resource, sys
from pathlib import Path
import numpy as np
import data_checks.facts.shards
from benchmarks import growth
from ml import media, workers
from ml.config import Paths
from ml.datasets.prepare import pack_pictures
from ml.sources import shards
stage, root, count = sys.argv[1], Path(sys.argv[2]), int(sys.argv[3])
paths, rows = Paths(root, "folder"), count * 250
workers.PROCESSES_FROM_S, data_checks.facts.shards.BATCH_ROWS, shards.ROW_GROUP_BYTES = float("inf"), 50, 1 << 20
def items():
    for number in range(rows):
        pixels = np.random.default_rng(number).integers(0, 256, (64, 312), dtype=np.uint8)
        yield shards.Item(f"{number:06d}", media.encode_png(pixels), str(number % 2))
match stage:
    case "raw":
        shards.write_shards(paths.raw("images"), "folder", shards.Listing(items(), rows, ""), 250)
    case "facts":
        data_checks.facts.measure_shards(paths.raw("images"), "images", paths.facts("images"))
    case "prepared":
        batches = (batch for _, batch in shards.item_batches(paths, "images", ("id", "bytes"), 50))
        pack_pictures(root / "pixels.npy", batches, rows, 16, 1, "test")
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024)
"""


def run_python(*arguments: str, **named) -> subprocess.CompletedProcess:
    return subprocess.run([sys.executable, *arguments], cwd=CHECKOUT, capture_output=True, text=True, **named)


def test_what_a_stage_holds_in_memory_does_not_grow_with_the_number_of_shards(tmp_path):
    for stage in ("raw", "facts", "prepared"):
        held = [
            float(run_python("-c", STAGE, stage, str(tmp_path / str(count)), str(count), check=True).stdout.split()[-1])
            for count in (FEW, MANY)
        ]
        grown, more = held[1] - held[0], (MANY - FEW) * MEGABYTES_A_SHARD
        assert grown < more / 2, f"{stage} held {grown:.0f} MB more for {more} MB more of data"


def double(batch: list[int]) -> tuple[list[int], int]:
    return [2 * number for number in batch], os.getpid()


@pytest.mark.parametrize("processes_from_s", [0.0, float("inf")])
def test_results_come_in_order_whoever_worked_on_them(monkeypatch, processes_from_s):
    monkeypatch.setattr(workers, "PROCESSES_FROM_S", processes_from_s)
    batches = [list(range(at, at + 3)) for at in range(0, 60, 3)]
    done = list(in_order(double, batches, 60, "test"))
    assert [number for batch, _ in done for number in batch] == [2 * number for number in range(60)]
    elsewhere = {worker for _, worker in done} - {os.getpid()}
    assert bool(elsewhere) == (processes_from_s == 0.0 and workers.WORKERS > 1)


def test_only_a_few_batches_are_taken_before_their_results_are(monkeypatch):
    taken, ahead = threading.Semaphore(0), []

    def batches():
        for number in range(200):
            taken.release()
            yield [number]

    for _ in in_order(lambda batch: batch, batches(), 200, "test"):
        taken.acquire()
        ahead.append(taken._value)
    assert max(ahead) <= 2 * workers.WORKERS + 1


def test_a_fault_in_a_batch_is_raised_with_its_own_words():
    def refuse(batch: list[int]) -> None:
        if batch == [7]:
            raise ValueError("seven is damaged")

    with pytest.raises(ValueError, match="seven is damaged"):
        list(in_order(refuse, [[number] for number in range(20)], 20, "test"))


# --------------------------------------------------------------------------------------------- decoding what we stored

pictures = st.sampled_from([1, 3]).flatmap(
    lambda channels: array_shapes(min_dims=2, max_dims=2, max_side=40).flatmap(
        lambda shape: arrays(np.uint8, (*shape, channels))
    )
)


@settings(max_examples=60, deadline=None)
@given(pictures)
def test_a_stored_picture_is_what_pillow_reads(pixels):
    content = media.encode_png(pixels)
    with Image.open(io.BytesIO(content)) as picture:
        expected = np.asarray(picture).reshape(pixels.shape)
    assert np.array_equal(media.stored_picture(content), expected)
    assert np.array_equal(media.decode_picture(content), expected)


@settings(max_examples=60, deadline=None)
@given(st.data(), st.integers(1, 5), st.sampled_from([1, 3]), array_shapes(min_dims=2, max_dims=2, max_side=40))
def test_stored_pictures_of_one_size_read_together_are_what_each_is_alone(data: st.DataObject, count, channels, shape):
    pixels = [data.draw(arrays(np.uint8, (*shape, channels))) for _ in range(count)]
    together = media.stored_pictures([media.encode_png(one) for one in pixels])
    assert together is not None
    assert together.tolist() == np.stack(pixels).tolist()


def test_stored_pictures_are_read_together_only_where_each_could_be_read_alone():
    pixels = np.random.default_rng(0).integers(0, 256, (3, 9, 7, 1), dtype=np.uint8)
    whole = [media.encode_png(pixels[number]) for number in range(3)]
    for place in range(len(whole[1])):
        damaged = bytearray(whole[1])
        damaged[place] ^= 1 + place % 255
        assert media.stored_pictures([whole[0], bytes(damaged), whole[2]]) is None
        assert media.stored_pictures([bytes(damaged), whole[0]]) is None
    assert media.stored_pictures([whole[0], media.encode_png(pixels[1, :8])]) is None
    assert media.stored_pictures([whole[0], whole[1][:-1]]) is None
    assert media.stored_pictures([]) is None
    assert media.stored_pictures([media.encode_png(np.zeros((300, 300), np.uint8))] * 2) is None, "of several blocks"
    large = whole[0][:45] + bytes(7) + whole[0][52:]
    assert media.stored_pictures([large]) is None


@settings(max_examples=60, deadline=None)
@given(arrays(np.int16, st.integers(1, 400)), st.integers(1, 50_000))
def test_a_stored_recording_is_what_libsndfile_reads(samples, rate_hz):
    content = media.encode_wav(samples / 32768, rate_hz)
    waveform, read_hz = media.stored_recording(content)
    expected, expected_hz = soundfile.read(io.BytesIO(content), dtype="float32")
    assert (read_hz, waveform.dtype) == (expected_hz, np.float32)
    assert np.array_equal(waveform, expected)


@settings(max_examples=150, deadline=None)
@given(st.integers(0, 10**6), st.integers(0, 255), st.booleans())
def test_a_damaged_byte_is_never_read_as_stored(place, value, picture):
    pixels = np.arange(35, dtype=np.uint8).reshape(5, 7)
    whole = media.encode_png(pixels) if picture else media.encode_wav(np.arange(50) / 100, 8000)
    damaged = bytearray(whole)
    damaged[place % len(whole)] = value
    if picture and bytes(damaged) != whole:
        assert media.stored_picture(bytes(damaged)) is None
    assert media.stored_picture(whole[:-1]) is None
    assert media.stored_recording(bytes(damaged[: len(whole) - 2])) is None


def test_other_pictures_and_recordings_are_left_to_the_libraries():
    pixels = np.random.default_rng(0).integers(0, 256, (20, 30), dtype=np.uint8)
    deflated = io.BytesIO()
    Image.fromarray(pixels).save(deflated, "PNG")
    assert np.array_equal(media.decode_picture(deflated.getvalue())[..., 0], pixels)
    assert media.stored_picture(media.encode_png(pixels), max_megapixels=1e-4) is None
    stereo = io.BytesIO()
    soundfile.write(stereo, np.zeros((10, 2)), 8000, format="WAV", subtype="PCM_16")
    assert media.stored_recording(stereo.getvalue()) is None
    assert media.stored_recording(media.encode_wav(np.zeros(10), 8000, "FLOAT")) is None


def test_filtered_rows_and_what_follows_them_are_left_to_pillow():
    pixels = np.arange(12, dtype=np.uint8).reshape(3, 4)
    content = media.encode_png(pixels)
    rows = zlib.decompress(content[41:-16])
    filtered = bytes([1]) + rows[1:]
    body = zlib.compress(filtered)
    idat = len(body).to_bytes(4) + b"IDAT" + body + zlib.crc32(b"IDAT" + body).to_bytes(4)
    other = content[:33] + idat + content[-12:]
    assert media.stored_picture(other) is None
    assert media.decode_picture(other)[0, :, 0].tolist() == [0, 1, 3, 6], "each adds to its left neighbour"


# ----------------------------------------------------------------------------------------------------- killed half-way

KILLED = """
import os, signal, sys
from pathlib import Path
from ml.config import Paths, load_settings
from ml.datasets import prepare
append = prepare.ArrayFile.append
def once_then_die(self, rows):
    append(self, rows)
    os.kill(os.getpid(), signal.SIGKILL)
prepare.ArrayFile.append = once_then_die
prepare.prepare(Paths(Path(sys.argv[1]), "starter"), "images", load_settings(Path(sys.argv[2])).data)
"""


def test_a_stage_killed_half_way_leaves_the_last_good_set_and_the_next_run_goes_through(tmp_path):
    from data_checks.expectations.verdicts import Verdict, write_verdict
    from data_checks.facts import measure_shards
    from ml.config import Paths, load_settings
    from ml.datasets import load_images, raw_digest
    from ml.datasets.prepare import prepare, publish_prepared
    from ml.sources import starter
    from ml.sources.shards import write_shards

    paths, data = Paths(tmp_path, "starter"), load_settings(CHECKOUT).data
    write_shards(paths.raw("images"), "starter", starter.pictures(), 500)
    measure_shards(paths.raw("images"), "images", paths.facts("images"))
    passed = Verdict(True, raw_digest(paths.raw("images")), (), 0, 1797)
    _accept_all(paths.validated("images"))
    write_verdict(paths.validated("images"), passed)

    def publish() -> str:
        write_verdict(prepare(paths, "images", data), passed)
        publish_prepared(paths, "images")
        return load_images(paths).digest

    digest = publish()
    killed = run_python("-c", KILLED, str(tmp_path), str(CHECKOUT))
    assert killed.returncode == -signal.SIGKILL, killed.stderr
    assert (paths.prepared("images").parent / ".images.new" / "pixels.npy").is_file(), "it died while it wrote"
    assert load_images(paths).digest == digest
    assert publish() == digest
    assert json.loads((paths.prepared("images") / "meta.json").read_text())["rows"]["train"] > 0


def _accept_all(folder: Path) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    folder.mkdir(parents=True)
    pq.write_table(pa.table({"id": pa.array([], pa.string())}), folder / "quarantine.parquet")
    pq.write_table(
        pa.table({"id": pa.array([], pa.string()), "cluster": pa.array([], pa.int64())}), folder / "similar.parquet"
    )


# --------------------------------------------------------------------------------------------------- ten times the data


@pytest.mark.slow  # about two minutes on two idle cores
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("modality", ["images", "audio"])
def test_ten_times_the_data_take_at_most_eleven_times_the_work_and_hardly_more_memory(modality):
    few, many = (growth.measure(modality, growth.ROWS[modality] * times) for times in (1, 10))
    assert sum(cost.cpu_s for cost in many.values()) <= 11 * sum(cost.cpu_s for cost in few.values())
    assert max(cost.peak_mb for cost in many.values()) <= 1.3 * max(cost.peak_mb for cost in few.values())
