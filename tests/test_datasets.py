"""Splits, packing, and the refusal of data that has not passed its checks."""

import dataclasses
import io
import json
import shutil
import subprocess
import sys
from collections import Counter, defaultdict
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import soundfile
from hypothesis import given, settings
from hypothesis import strategies as st

from data_checks.expectations import validate_prepared, validate_raw
from data_checks.facts import measure_shards
from ml import media
from ml.config import Data, Paths, UserError, load_settings
from ml.datasets import load_images, load_speech, raw_digest
from ml.datasets.prepare import ArrayFile, _recordings, prepare, publish_prepared
from ml.datasets.splits import MANY_GROUPS, MANY_OF_A_LABEL, SPLITS, Row, Shares, divide, draw
from ml.sources import folder
from ml.sources.shards import Item, Listing, write_shards

REPOSITORY = Path(__file__).resolve().parents[1]
DATA = load_settings(REPOSITORY).data
SHARES = Shares(validation=0.1, gate=0.1, test=0.15)
LABELS = ("ear", "öre", "耳")

# ---------------------------------------------------------------------------------------------------------- splits


def items(count: int, label: str = "a", start: int = 0) -> list[Row]:
    return [Row(f"{label}{n}", f"content-{label}{n}", label, None, None) for n in range(start, start + count)]


def spoken(groups: int, each: int = 5, start: int = 0) -> list[Row]:
    return [
        Row(f"g{g}-{n}", f"c{g}-{n}", "ab"[n % 2], None, f"g{g}")
        for g in range(start, start + groups)
        for n in range(each)
    ]


def by_id(rows: list[Row], seed: int = 0) -> dict[str, str]:
    return dict(zip((row.id for row in rows), divide(rows, SHARES, seed).splits, strict=True))


def fsdd() -> list[Row]:
    return [
        Row(f"{d}_{s}_{i}", f"{d}{s}{i}", str(d), "test" if i < 5 else "train", s)
        for d in range(10)
        for s in ("ann", "bob")
        for i in range(50)
    ]


@settings(max_examples=50, deadline=None)
@given(groups=st.integers(4, 80), seed=st.integers(0, 1000))
def test_nobody_is_on_two_sides_where_there_are_groups_enough(groups, seed):
    rows = spoken(groups)
    try:
        division = divide(rows, SHARES, seed)
    except UserError:
        assert groups >= MANY_GROUPS, "few groups are dealt out, so that no split is left empty"
        return
    sides = defaultdict(set)
    for row, split in zip(rows, division.splits, strict=True):
        sides[row.group].add(split)
    assert all(len(side) == 1 for side in sides.values())
    assert division.rule == "groups"
    assert set(division.splits) == set(SPLITS)


@settings(max_examples=50, deadline=None)
@given(count=st.integers(4, 60), seed=st.integers(0, 1000))
def test_every_label_stands_in_every_split_however_few_items_it_has(count, seed):
    rows = items(count, "a") + items(count, "b")
    division = divide(rows, SHARES, seed)
    for label in "ab":
        assert {s for r, s in zip(rows, division.splits, strict=True) if r.label == label} == set(SPLITS)
    assert division.rule == "items"


def test_an_item_keeps_its_split_when_others_arrive():
    before, after = items(MANY_OF_A_LABEL), items(3 * MANY_OF_A_LABEL) + items(50, "new")
    assert by_id(before).items() <= by_id(after).items()


def test_a_group_keeps_its_split_when_others_arrive():
    assert by_id(spoken(MANY_GROUPS)).items() <= by_id(spoken(2 * MANY_GROUPS)).items()
    known = spoken(8)
    assert by_id(known).items() <= by_id(known + items(200)).items()


def test_the_order_of_the_rows_does_not_matter():
    for rows in (spoken(12), spoken(40), items(40), items(400), fsdd()):
        assert by_id(rows) == by_id(rows[::-1])


def test_another_seed_draws_otherwise_and_the_same_seed_alike():
    rows = items(300)
    assert by_id(rows) == by_id(rows)
    assert by_id(rows, 1) != by_id(rows)


def test_the_shares_are_met_within_chance():
    counted = Counter(divide(items(20_000), SHARES, 0).splits)
    assert {split: round(count / 20_000, 2) for split, count in counted.items()} == {
        "train": 0.65,
        "validation": 0.1,
        "gate": 0.1,
        "test": 0.15,
    }


def test_equal_content_falls_on_one_side():
    rows = items(500)
    copies = [dataclasses.replace(row, id=f"copy of {row.id}") for row in rows]
    split_of = by_id(rows + copies)
    assert all(split_of[row.id] == split_of[f"copy of {row.id}"] for row in rows)


def test_the_published_test_set_stays_the_test_set():
    rows = [dataclasses.replace(row, published="test" if n % 7 == 0 else "train") for n, row in enumerate(items(700))]
    division = divide(rows, SHARES, 0)
    assert [split == "test" for split in division.splits] == [row.published == "test" for row in rows]
    assert division.about.startswith("the publisher's test")


def test_groups_shared_with_the_published_test_are_cut_by_recording_index():
    division = divide(fsdd(), SHARES, 0)
    indices = defaultdict(set)
    for row, split in zip(fsdd(), division.splits, strict=True):
        indices[split].add(int(row.id.split("_")[2]))
    assert indices["test"] == set(range(5))
    assert indices["validation"] == set(range(5, 9))
    assert indices["gate"] == set(range(9, 13))
    assert indices["train"] == set(range(13, 50))
    assert division.rule == "shared_groups"


def test_the_results_say_where_too_few_groups_had_to_be_shared():
    division = divide(spoken(2, each=200), SHARES, 0)
    assert division.rule == "shared_groups"
    assert "2 groups cannot fill four splits" in division.about


def test_a_set_too_small_to_split_is_refused():
    with pytest.raises(UserError, match="3 items leave the split gate empty; expected about 20 of every label"):
        divide(items(3), SHARES, 0)


@given(st.integers(0, 5), st.text(max_size=20))
def test_a_draw_lies_in_the_unit_interval(seed, key):
    assert 0 <= draw(seed, key) < 1


# -------------------------------------------------------------------------------------------------------- packing


def picture(number: int, side: int = 20, colour: bool = False) -> bytes:
    rng = np.random.default_rng(number)
    return media.encode_png(rng.integers(0, 256, (side, side, 3 if colour else 1), dtype=np.uint8))


def recording(number: int, rate_hz: int) -> bytes:
    rng = np.random.default_rng(number)
    seconds = np.arange(int(0.3 * rate_hz)) / rate_hz
    return media.encode_wav(
        0.3 * np.sin(2 * np.pi * rng.uniform(200, 900) * seconds) + rng.normal(0, 0.01, len(seconds)), rate_hz
    )


def write_own_files(place: Path) -> None:
    """72 pictures, one in colour and one twice as large; 90 recordings by five speakers, a third at another rate."""
    for number in range(72):
        file = place / "images" / LABELS[number % 3] / f"{number}.png"
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(picture(number, 40 if number == 5 else 20, colour=number == 7))
    (place / "images" / LABELS[0] / "damaged.png").write_bytes(b"no picture")
    for number in range(90):
        file = place / "audio" / LABELS[number % 3] / f"speaker{number // 3 % 5}" / f"{number}.wav"
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(recording(number, 11025 if number < 30 else 8000))


def make(paths: Paths, own: Path, modality: str, data: Data = DATA) -> None:
    """Everything the stages do, in order."""
    write_shards(paths.raw(modality), "folder", folder.listing(str(own), modality, paths.root), shard_rows=40)
    measure_shards(paths.raw(modality), modality, paths.facts(modality))
    assert validate_raw(paths, modality, 0.05).passed
    prepared = prepare(paths, modality, data)
    assert validate_prepared(paths, modality, prepared).passed
    publish_prepared(paths, modality)


@pytest.fixture(scope="module")
def made(tmp_path_factory) -> Paths:
    place = tmp_path_factory.mktemp("project")
    write_own_files(place / "own")
    paths = Paths(place, "folder")
    for modality in ("images", "audio"):
        make(paths, place / "own", modality)
    return paths


@pytest.fixture
def own_copy(made, tmp_path) -> Paths:
    """A copy to damage."""
    shutil.copytree(made.root / "data", tmp_path / "data")
    return Paths(tmp_path, "folder")


def test_pictures_come_back_as_they_were_stored_in_one_size(made):
    images = load_images(made)
    assert len(images) == 72
    assert images.pixels.shape == (72, 20, 20, 3), "one picture in colour makes three channels"
    assert images.classes == LABELS
    row = images.ids.tolist().index(f"{LABELS[1]}/1.png")
    assert np.array_equal(images.pixels[row], np.repeat(media.decode_picture(picture(1)), 3, axis=2))
    assert images.classes[images.labels[row]] == LABELS[1]


def test_what_was_set_aside_is_left_out(made):
    held = pq.read_table(made.validated("images") / "quarantine.parquet")["id"].to_pylist()
    assert held == [f"{LABELS[0]}/damaged.png"]
    assert held[0] not in load_images(made).ids


def test_near_copies_fall_on_one_side(own_copy):
    images = load_images(own_copy)
    near = [images.ids[images.split == split][0] for split in SPLITS]
    table = pa.table({"id": near, "cluster": pa.array([0] * len(near), pa.int64())})
    pq.write_table(table, own_copy.validated("images") / "similar.parquet")
    index = pq.read_table(prepare(own_copy, "images", DATA) / "index.parquet").to_pylist()
    assert len({row["split"] for row in index if row["id"] in near}) == 1


def test_recordings_come_back_as_they_were_at_the_commonest_rate(made):
    speech = load_speech(made)
    assert speech.sample_rate_hz == 8000
    assert speech.samples.dtype == np.int16
    assert set(speech.group) == {f"speaker{n}" for n in range(5)}
    for number in (3, 45):  # at 11,025 Hz and at 8,000 Hz
        row = speech.ids.tolist().index(f"{LABELS[0]}/speaker{number // 3 % 5}/{number}.wav")
        stored, rate_hz = media.decode_recording(recording(number, 11025 if number < 30 else 8000))
        expected = media.resample(stored, rate_hz, 8000)
        assert np.abs(speech.clip(row) - expected).max() <= 1 / 32768
        assert speech.clip(row).dtype == np.float32


@pytest.mark.parametrize("peak", [0.5, 1.0, 4.0, 32768.0])
def test_floats_beyond_full_scale_are_turned_down_and_not_clipped(peak):
    sound = peak * np.sin(np.arange(800) / 5)
    buffer = io.BytesIO()
    soundfile.write(buffer, sound, 8000, format="WAV", subtype="FLOAT")
    batch = pa.RecordBatch.from_pydict({"id": ["loud"], "bytes": [buffer.getvalue()]})
    samples, _ = _recordings(batch, 8000)
    assert np.abs(samples / 32768 - sound / max(1.0, np.abs(sound).max())).max() < 1e-4


def test_the_clips_lie_one_behind_the_other(made):
    speech = load_speech(made)
    assert speech.offsets.tolist() == np.cumsum([0, *speech.lengths[:-1]]).tolist()
    assert speech.lengths.sum() == len(speech.samples)


def test_some_splits_are_their_rows_and_no_others(made):
    images, speech = load_images(made), load_speech(made)
    for whole in (images, speech):
        parts = [whole.where(split) for split in SPLITS]
        assert sum(map(len, parts)) == len(whole)
        assert all(set(part.split) == {split} for part, split in zip(parts, SPLITS, strict=True))
        both = whole.where("gate", "train")
        assert set(both.ids) == {*whole.where("gate").ids, *whole.where("train").ids}
    gate = speech.where("gate")
    assert np.array_equal(gate.clip(0), speech.clip(speech.ids.tolist().index(gate.ids[0])))
    row = images.ids.tolist().index(images.where("test").ids[0])
    assert np.array_equal(images.where("test").pixels[0], images.pixels[row])


def test_the_splits_of_speech_are_by_speaker_and_the_set_says_so(made):
    meta = json.loads((made.prepared("audio") / "meta.json").read_text())
    assert meta["split_rule"] == "groups"
    assert sum(meta["rows"].values()) == 90


def test_size_and_rate_can_be_set(own_copy, made):
    data = dataclasses.replace(DATA, image_side=12, sample_rate_hz=4000)
    assert np.load(prepare(own_copy, "images", data) / "pixels.npy").shape == (72, 12, 12, 3)
    meta = json.loads((prepare(own_copy, "audio", data) / "meta.json").read_text())
    assert meta["sample_rate_hz"] == 4000


def test_the_same_data_gives_the_same_bytes_and_other_data_another_digest(own_copy, made):
    for modality, load in (("images", load_images), ("audio", load_speech)):
        again = prepare(own_copy, modality, DATA)
        for name in ("meta.json", "index.parquet", {"images": "pixels.npy", "audio": "samples.npy"}[modality]):
            assert (again / name).read_bytes() == (made.prepared(modality) / name).read_bytes()
        former = load(own_copy).digest
        prepare(own_copy, modality, dataclasses.replace(DATA, seed=5))
        shutil.copy(made.prepared(modality) / "verdict.json", again)
        publish_prepared(own_copy, modality)
        assert load(own_copy).digest != former


@settings(max_examples=30, deadline=None)
@given(st.lists(st.integers(1, 50), max_size=10))
def test_an_array_written_bit_by_bit_is_the_whole_array(tmp_path_factory, sizes):
    file = tmp_path_factory.mktemp("array") / "a.npy"
    parts = [np.random.default_rng(n).integers(0, 256, (size, 3, 2), dtype=np.uint8) for n, size in enumerate(sizes)]
    with file.open("wb") as stream:
        array = ArrayFile(stream, np.uint8, (3, 2))
        for part in parts:
            array.append(part)
        array.finish()
    expected = np.concatenate([np.zeros((0, 3, 2), np.uint8), *parts])
    assert np.array_equal(np.load(file, mmap_mode="r" if sizes else None), expected)


# -------------------------------------------------------------------------------------------------------- refusals


def test_a_flipped_byte_in_the_prepared_set_is_refused(own_copy):
    for modality, name, load in (("images", "pixels.npy", load_images), ("audio", "index.parquet", load_speech)):
        file = own_copy.prepared(modality) / name
        content = bytearray(file.read_bytes())
        content[-1] ^= 1
        file.write_bytes(content)
        with pytest.raises(
            UserError, match=rf"{name}: is not the file that was prepared; run `\.venv/bin/dvc repro sou"
        ):
            load(own_copy)


def test_a_set_whose_raw_data_failed_validation_is_refused(own_copy):
    file = own_copy.validated("images") / "verdict.json"
    verdict = json.loads(file.read_text())
    assert verdict["passed"]
    verdict["passed"] = verdict["results"][0]["success"] = False
    file.write_text(json.dumps(verdict))
    expected = f"the data failed their checks ({verdict['results'][0]['name']})"
    for refused in (lambda: load_images(own_copy), lambda: prepare(own_copy, "images", DATA)):
        with pytest.raises(UserError) as fault:
            refused()
        assert expected in str(fault.value)


def test_raw_data_that_changed_after_validation_is_refused(own_copy):
    listing = Listing([Item("new", picture(0), "ear")], 1, "")
    write_shards(own_copy.raw("images"), "folder", listing, 1)
    with pytest.raises(UserError, match="this data has not been validated"):
        prepare(own_copy, "images", DATA)


def test_a_set_prepared_from_other_raw_data_than_was_validated_is_refused(own_copy):
    file = own_copy.validated("audio") / "verdict.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | {"raw_digest": "0" * 64}))
    with pytest.raises(UserError, match="this data has not been validated"):
        load_speech(own_copy)


def test_a_prepared_set_that_was_not_checked_or_failed_is_refused(own_copy):
    file = own_copy.prepared("images") / "verdict.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | {"passed": False}))
    with pytest.raises(UserError, match="prepared images: the data failed their checks"):
        load_images(own_copy)
    file.unlink()
    with pytest.raises(UserError, match=r"verdict\.json: no such result for folder images; run"):
        load_images(own_copy)


def test_an_unchecked_set_is_not_published(own_copy):
    former = load_images(own_copy).digest
    with pytest.raises(UserError, match="no checked set to publish"):
        publish_prepared(own_copy, "images")
    prepare(own_copy, "images", dataclasses.replace(DATA, seed=3))
    with pytest.raises(UserError, match="no checked set to publish"):
        publish_prepared(own_copy, "images")
    assert load_images(own_copy).digest == former


def test_facts_of_other_items_than_the_shards_hold_are_refused(own_copy):
    facts = pq.read_table(own_copy.facts("audio"))
    pq.write_table(facts.take(pa.array(range(len(facts) - 1, -1, -1))), own_copy.facts("audio"))
    with pytest.raises(UserError, match=r"audio\.parquet: its rows are not those of the shards"):
        prepare(own_copy, "audio", DATA)


def test_nothing_prepared_says_what_to_run(tmp_path):
    with pytest.raises(
        UserError, match=r"meta\.json: no such result for starter images; run `\.venv/bin/dvc repro dvc\.yaml`"
    ):
        load_images(Paths(tmp_path, "starter"))
    with pytest.raises(UserError, match="holds no shards"):
        raw_digest(tmp_path)


def test_the_raw_digest_depends_on_names_and_bytes(tmp_path):
    (tmp_path / "a.parquet").write_bytes(b"1")
    first = raw_digest(tmp_path)
    (tmp_path / "a.parquet").write_bytes(b"2")
    second = raw_digest(tmp_path)
    (tmp_path / "a.parquet").rename(tmp_path / "b.parquet")
    assert len({first, second, raw_digest(tmp_path)}) == 3


def test_loading_needs_neither_torch_nor_pillow_nor_yaml():
    line = "import sys, ml.datasets; print(sorted({'torch', 'PIL', 'yaml', 'scipy', 'soundfile'} & set(sys.modules)))"
    said = subprocess.run([sys.executable, "-c", line], cwd=REPOSITORY, capture_output=True, text=True, check=True)
    assert said.stdout.strip() == "[]"
