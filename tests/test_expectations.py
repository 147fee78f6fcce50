"""Data is judged by what was measured: faulty items are set aside, a faulty set is refused, and it says why."""

import dataclasses
import json
import os
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from sklearn.datasets import load_digits

from data_checks.card import write_card
from data_checks.expectations import (
    SUITES,
    Verdict,
    docs_page,
    read_verdict,
    validate_pairs,
    validate_prepared,
    validate_raw,
)
from data_checks.expectations.__main__ import main
from data_checks.expectations.quarantine import preview, read_released, released_list
from data_checks.facts import measure_shards
from ml.config import SOURCES, Paths, UserError
from ml.datasets import near_copies, raw_digest
from ml.media import decode_picture, encode_png, encode_wav

CHECKOUT = Path(__file__).resolve().parents[1]
RATE_HZ = 8000
SHARE = 0.05
DIGITS = load_digits()
SPLITS = ("train", "validation", "gate", "test")


@dataclasses.dataclass
class Item:
    id: str
    content: bytes
    label: str | None
    split: str | None = None
    group: str | None = None


def clip(i: int, seconds: float = 0.3, rate_hz: int = RATE_HZ) -> np.ndarray:
    """A buzz with its own pitch and noise, so that no two are equal."""
    time_s = np.arange(int(seconds * rate_hz)) / rate_hz
    noise = np.random.default_rng(i).normal(size=len(time_s)) * 0.01
    return 0.3 * np.sin(2 * np.pi * (150 + 5 * i) * time_s) + noise


def recordings(count: int = 42) -> list[Item]:
    speakers, words = ("ann", "bob", "eve"), ("yes", "no")
    return [Item(f"clip_{i}", encode_wav(clip(i), RATE_HZ), words[i % 2], None, speakers[i % 3]) for i in range(count)]


def pictures(count: int = 60) -> list[Item]:
    grey = DIGITS.images[:count].astype(np.uint8) * 15
    return [Item(f"digit_{i}", encode_png(grey[i]), f"{i % 3}") for i in range(count)]


def write_raw(paths: Paths, modality: str, items: list[Item]) -> None:
    folder = paths.raw(modality)
    folder.mkdir(parents=True)
    columns: dict[str, list] = {
        name: [getattr(item, name) for item in items] for name in ("id", "label", "split", "group")
    }
    columns |= {"bytes": [item.content for item in items], "source": [paths.source] * len(items)}
    columns["licence"] = ["free of rights"] * len(items)
    kinds = {"bytes": pa.binary()}
    table = pa.table({name: pa.array(values, kinds.get(name, pa.string())) for name, values in columns.items()})
    pq.write_table(table, folder / "shard-00000.parquet")


def judge(root: Path, modality: str, items: list[Item], share: float = SHARE) -> tuple[Paths, Verdict]:
    paths = Paths(root, "folder")
    write_raw(paths, modality, items)
    measure_shards(paths.raw(modality), modality, paths.facts(modality))
    return paths, validate_raw(paths, modality, share)


def failed(verdict: Verdict) -> set[str]:
    return {result.name for result in verdict.results if not result.success}


def quarantine(paths: Paths, modality: str) -> dict[str, str]:
    rows = pq.read_table(paths.validated(modality) / "quarantine.parquet").to_pylist()
    return {row["id"]: row["reason"] for row in rows}


# The suites


def test_every_expectation_has_a_stable_name_of_its_own_and_a_reason():
    names = [expectation.name for suite in SUITES.values() for expectation in suite]
    assert len(set(names)) == len(names)
    assert all(re.fullmatch(r"[a-z][a-z0-9_]*", name) for name in names)
    assert all(e.reason and e.severity in ("error", "warning") for suite in SUITES.values() for e in suite)
    assert set(SUITES) == {"images", "audio", "prepared_images", "prepared_audio", "pairs"}


def test_the_suites_can_be_read_without_loading_great_expectations_or_pandas():
    code = (
        "import data_checks.expectations as e, sys; print(sorted({'great_expectations', 'pandas'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=CHECKOUT, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


# Raw data


@pytest.fixture(scope="module")
def clean(tmp_path_factory) -> tuple[Paths, Verdict]:
    return judge(tmp_path_factory.mktemp("clean"), "audio", recordings())


def test_clean_recordings_pass_with_every_expectation_judged(clean):
    paths, verdict = clean
    assert verdict.passed, verdict.summary()
    assert [result.name for result in verdict.results] == [expectation.name for expectation in SUITES["audio"]]
    assert failed(verdict) == set()
    assert verdict.quarantined == 0
    assert verdict.rows == 42
    assert quarantine(paths, "audio") == {}
    assert verdict.raw_digest == raw_digest(paths.raw("audio"))
    assert {r.name: r.observed for r in verdict.results}["audio_speakers"] == 3


def test_the_verdict_reads_back_as_it_was_written(clean):
    paths, verdict = clean
    assert read_verdict(paths.validated("audio")) == verdict


def test_judging_the_same_data_again_writes_the_same_bytes(clean):
    paths, _ = clean
    files = [paths.validated("audio") / name for name in ("verdict.json", "quarantine.parquet")]
    before = [file.read_bytes() for file in files]
    validate_raw(paths, "audio", SHARE)
    assert [file.read_bytes() for file in files] == before


def test_the_data_docs_load_nothing_from_elsewhere(clean):
    paths, _ = clean
    pages = list(docs_page(paths, "audio").parent.rglob("*.html"))
    assert len(pages) == 5  # an index, and for items and set the suite and its validation
    for page in [*pages, paths.reports / "data_docs" / "index.html"]:
        text = page.read_text()
        assert not re.findall(r'(?:src|href)="https?://|url\(\W?https?://|@import', text), page
        for link in re.findall(r'href="([^"#]+\.html)"', text):
            if "/expectations/" not in link or page.name == "index.html":
                assert (page.parent / link).is_file(), f"{page}: {link}"
    assert "audio_not_clipped" in docs_page(paths, "audio").read_text()
    assert "nothing is heard in it" in next(p for p in pages if p.name == "audio_items.html").read_text()


FAULTS: dict[str, tuple[Callable[[], bytes], str]] = {
    "cut_off": (lambda: encode_wav(clip(90), RATE_HZ)[:3000], "audio_decodable"),
    "empty_file": (lambda: b"", "audio_decodable"),
    "silent": (lambda: encode_wav(np.zeros(2400), RATE_HZ), "audio_not_silent"),
    "overdriven": (lambda: encode_wav(np.clip(20 * clip(91), -1, 1), RATE_HZ), "audio_not_clipped"),
    "a_click": (lambda: encode_wav(clip(92, 0.02), RATE_HZ), "audio_duration"),
    "too_low_a_rate": (lambda: encode_wav(clip(93, 0.3, 2000), 2000), "audio_rate"),
}


def test_every_faulty_recording_is_set_aside_with_its_reason_and_no_other(tmp_path):
    items = recordings()
    items[5:5] = [Item(name, make(), "yes", None, "ann") for name, (make, _) in FAULTS.items()]
    items += [dataclasses.replace(items[0], id="a_copy"), dataclasses.replace(items[1], id="misnamed", label="yes")]
    items += [Item("unlabelled", encode_wav(clip(95), RATE_HZ), None, None, "ann")]
    paths, verdict = judge(tmp_path, "audio", items, share=0.3)
    found = quarantine(paths, "audio")
    assert verdict.passed, verdict.summary()
    assert set(found) == {*FAULTS, "a_copy", "misnamed", "clip_1", "unlabelled"}
    for name, (_, expectation) in FAULTS.items():
        assert expectation in found[name]
    assert "cut short" in found["cut_off"]
    assert "audio_not_a_copy" in found["a_copy"]
    assert "audio_label_agreed" in found["misnamed"]
    assert "audio_label_agreed" in found["clip_1"]
    assert "audio_labelled" in found["unlabelled"]
    by_name = {result.name: result for result in verdict.results}
    assert by_name["audio_decodable"].observed == {"failing_rows": 2, "of": 51, "examples": ["cut_off", "empty_file"]}
    assert by_name["audio_quarantine_share"].observed == pytest.approx(10 / 51, abs=1e-5)


def test_more_faulty_items_than_allowed_stop_everything(tmp_path):
    items = recordings() + [Item(f"bad_{i}", bytes([i]) * 9, "no", None, "bob") for i in range(5)]
    _, verdict = judge(tmp_path, "audio", items)
    assert not verdict.passed
    assert {"audio_decodable", "audio_quarantine_share"} <= failed(verdict)
    assert verdict.quarantined == 5
    assert len(verdict.summary().splitlines()) == 1
    assert "audio_quarantine_share (observed 0.106383)" in verdict.summary()


def test_a_set_in_which_nothing_can_be_decoded_is_judged_like_any_other(tmp_path):
    items = [dataclasses.replace(item, content=item.id.encode()) for item in pictures()]
    paths, verdict = judge(tmp_path, "images", items)
    assert not verdict.passed
    assert verdict.quarantined == 60
    assert {"image_decodable", "image_quarantine_share", "image_classes"} <= failed(verdict)
    assert all("image_decodable" in reason for reason in quarantine(paths, "images").values())


def test_the_same_recording_in_train_and_test_is_refused(tmp_path):
    items = [dataclasses.replace(item, split="train") for item in recordings()]
    items += [dataclasses.replace(items[3], id="leaked", split="test")]
    _, verdict = judge(tmp_path, "audio", items)
    assert not verdict.passed
    assert [result.name for result in verdict.failures] == ["audio_no_leak", "audio_no_near_leak"]


def test_an_id_used_twice_and_an_unknown_split_are_refused(tmp_path):
    items = recordings()
    items += [dataclasses.replace(items[0], content=encode_wav(clip(80), RATE_HZ))]
    items[8] = dataclasses.replace(items[8], split="dev")
    _, verdict = judge(tmp_path, "audio", items)
    assert [result.name for result in verdict.failures] == ["audio_ids_unique", "audio_split_known"]


def test_what_only_deserves_a_warning_does_not_stop(tmp_path):
    rates_hz = (8000, 11025, 16000)
    items = [
        Item(f"clip_{i}", encode_wav(clip(i, rate_hz=rates_hz[i % 3]), rates_hz[i % 3]), "abc"[i % 3])
        for i in range(45)
    ]
    _, verdict = judge(tmp_path, "audio", items)
    assert verdict.passed, verdict.summary()
    assert {"audio_one_rate", "audio_speakers", "audio_class_size_useful"} <= {r.name for r in verdict.warnings}


def test_faulty_pictures_are_set_aside_and_the_rest_passes(tmp_path):
    items = pictures()
    items[10] = dataclasses.replace(items[10], id="constant", content=encode_png(np.full((8, 8), 90, np.uint8)))
    items[11] = dataclasses.replace(items[11], id="tiny", content=encode_png(DIGITS.images[5][:4, :4].astype(np.uint8)))
    items[12] = dataclasses.replace(items[12], id="broken", content=items[12].content[:40])
    paths, verdict = judge(tmp_path, "images", items, share=0.1)
    found = quarantine(paths, "images")
    assert verdict.passed, verdict.summary()
    assert set(found) == {"constant", "tiny", "broken"}
    assert "image_not_constant" in found["constant"]
    assert "image_wide_enough" in found["tiny"]
    assert "image_decodable" in found["broken"]


def test_one_class_alone_is_refused_and_so_is_a_class_of_three(tmp_path):
    items = [dataclasses.replace(item, label="0") for item in pictures()]
    _, verdict = judge(tmp_path / "one", "images", items)
    assert [result.name for result in verdict.failures] == ["image_classes"]
    _, verdict = judge(tmp_path / "three", "images", [dataclasses.replace(i, label="1") for i in items[:3]] + items[3:])
    assert [result.name for result in verdict.failures] == ["image_class_size"]
    assert verdict.failures[0].observed == "1: 3"
    assert verdict.summary().endswith(
        'image_class_size (observed "1: 3"): every class has to stand in train, validation, gate and test: '
        "add items until it has 4, or take it out"
    )
    assert "image_class_balance" in {result.name for result in verdict.warnings}


def test_a_missing_column_is_a_failure_that_says_so(tmp_path):
    paths, _ = judge(tmp_path, "images", pictures())
    table = pq.read_table(paths.facts("images"))
    pq.write_table(table.drop_columns(["contrast", "channels"]), paths.facts("images"))
    verdict = validate_raw(paths, "images", SHARE)
    by_name = {result.name: result for result in verdict.results}
    assert not verdict.passed
    assert failed(verdict) == {"image_not_constant", "image_contrast_usual", "image_channels_agree"}
    assert "could not be judged" in by_name["image_not_constant"].reason
    assert "contrast" in by_name["image_not_constant"].reason
    assert verdict.quarantined == 0


def test_data_never_measured_and_never_judged_are_named(tmp_path):
    paths = Paths(tmp_path, "starter")
    with pytest.raises(UserError, match=r"audio\.parquet: expected measured facts"):
        validate_raw(paths, "audio", SHARE)
    with pytest.raises(UserError, match=r"verdict\.json: no verdict"):
        read_verdict(paths.validated("audio"))
    paths.validated("audio").mkdir(parents=True)
    (paths.validated("audio") / "verdict.json").write_text('{"passed": tr')
    with pytest.raises(UserError, match=r"verdict\.json: expected a verdict"):
        read_verdict(paths.validated("audio"))


# Items beside each other


def test_near_copies_across_the_publishers_split_stop_everything(tmp_path):
    items = [dataclasses.replace(item, split="train") for item in recordings()]
    waveform = np.concatenate([np.zeros(400), clip(3) * 0.5])
    items += [dataclasses.replace(items[3], id="leaked", content=encode_wav(waveform, RATE_HZ), split="test")]
    paths, verdict = judge(tmp_path, "audio", items)
    assert [result.name for result in verdict.failures] == ["audio_no_near_leak"]
    assert set(near_copies(paths, "audio")) == {"clip_3", "leaked"}


def test_near_copies_in_one_split_are_told_of_and_go_on(tmp_path):
    items = pictures()
    enlarged = np.repeat(np.repeat(DIGITS.images[4].astype(np.uint8) * 15, 3, 0), 3, 1)
    items += [dataclasses.replace(items[4], id="enlarged", content=encode_png(enlarged), label="0")]
    paths, verdict = judge(tmp_path, "images", items)
    by_name = {result.name: result for result in verdict.results}
    assert verdict.passed, verdict.summary()
    assert verdict.quarantined == 0
    assert by_name["image_no_near_copy"].observed["examples"] == ["enlarged"]
    assert set(by_name["image_near_label_agreed"].observed["examples"]) == {"digit_4", "enlarged"}
    assert set(near_copies(paths, "images")) == {"digit_4", "enlarged"}
    assert "digit_4, enlarged" in docs_page(paths, "images").read_text()


def test_a_label_that_is_likely_wrong_is_listed_with_the_one_that_is_likelier(tmp_path):
    grey = DIGITS.images[:300].astype(np.uint8) * 15
    items = [Item(f"digit_{i}", encode_png(grey[i]), str(DIGITS.target[i])) for i in range(300)]
    items[0] = dataclasses.replace(items[0], label="1")  # a clear zero
    paths, verdict = judge(tmp_path, "images", items)
    assert verdict.passed, verdict.summary()
    listed = pq.read_table(paths.validated("images") / "label_errors.parquet").to_pylist()
    assert (listed[0]["id"], listed[0]["label"], listed[0]["suggested"]) == ("digit_0", "1", "0")
    assert len(listed) <= 4


# Quarantine and release


def with_faulty_pictures() -> list[Item]:
    items = pictures()
    items[10] = dataclasses.replace(items[10], id="constant", content=encode_png(np.full((8, 8), 90, np.uint8)))
    items[12] = dataclasses.replace(items[12], id="broken", content=items[12].content[:40])
    return items


def release(root: Path, *lines: str) -> None:
    (root / "sources" / "folder").mkdir(parents=True)
    (root / "sources" / "folder" / "released.txt").write_text("# reviewed\n\n" + "\n".join(lines) + "\n")


def test_what_is_set_aside_is_listed_with_file_reason_preview_and_how_to_release_it(tmp_path):
    paths, _ = judge(tmp_path, "images", with_faulty_pictures())
    rows = {row["id"]: row for row in pq.read_table(paths.validated("images") / "quarantine.parquet").to_pylist()}
    assert rows["constant"]["shard"] == "shard-00000.parquet"
    assert decode_picture(rows["constant"]["preview"]).shape == (64, 64, 1)
    assert rows["broken"]["preview"] is None
    page = docs_page(paths, "images").read_text()
    assert page.count("data:image/png;base64,") == 1
    assert "images &lt;id&gt;  # why` to sources/folder/released.txt" in page


def test_the_preview_of_a_recording_is_its_spectrogram():
    low, high = (np.sin(2 * np.pi * hz * np.arange(4000) / RATE_HZ) for hz in (500, 3500))
    pixels = decode_picture(preview(encode_wav(0.5 * np.concatenate([low, high]), RATE_HZ), "audio") or b"")[..., 0]
    assert pixels[:, 5].argmax() > pixels[:, -5].argmax()  # low at the bottom on the left, high at the top on the right


def test_a_released_item_goes_on_although_it_fails(tmp_path):
    release(tmp_path, "images constant  # a blank page is wanted here", "audio elsewhere  # of the other modality")
    paths, verdict = judge(tmp_path, "images", with_faulty_pictures())
    assert set(quarantine(paths, "images")) == {"broken"}
    assert verdict.quarantined == 1
    (row,) = pq.read_table(paths.validated("images") / "released.parquet").to_pylist()
    assert (row["id"], row["review"]) == ("constant", "a blank page is wanted here")
    card = write_card(paths)
    assert "a blank page is wanted here" in card
    assert "broken" in card
    assert "| from the source | 60 |" in card
    assert (paths.reports / "data_card.md").read_text() == card
    paths.facts("images").unlink()
    assert "## images" not in write_card(paths), "as in a clone that pulled only the verdict"


def test_released_items_no_longer_count_against_the_share(tmp_path):
    items = pictures()
    for i in range(4):
        blank = encode_png(np.full((8, 8), 90 + i, np.uint8))
        items[i] = dataclasses.replace(items[i], content=blank)
    release(tmp_path, *(f"images digit_{i}  # wanted" for i in range(4)))
    _, verdict = judge(tmp_path, "images", items)
    assert verdict.passed, verdict.summary()


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("images constant", r"line 3: expected `images\|audio <id>  # reason`, got 'images constant'"),
        ("pictures constant  # why", r"line 3: expected `images\|audio"),
        ("images nobody  # why", "line 3: images nobody: no such item"),
        ("images broken  # why", "broken: cannot be released: image_decodable"),
    ],
)
def test_a_line_of_the_list_that_cannot_be_followed_is_named(tmp_path, line, said):
    release(tmp_path, line)
    with pytest.raises(UserError, match=said) as fault:
        judge(tmp_path, "images", with_faulty_pictures())
    assert len(str(fault.value).splitlines()) == 1


def test_a_list_that_is_no_text_is_named(tmp_path):
    release(tmp_path, "images broken  # größe")
    file = tmp_path / "sources" / "folder" / "released.txt"
    file.write_bytes(file.read_text("utf-8").encode("latin-1"))
    with pytest.raises(UserError, match=r"released\.txt: .*; expected text in UTF-8"):
        judge(tmp_path, "images", with_faulty_pictures())


@pytest.mark.parametrize("source", SOURCES)
def test_every_source_has_a_list_that_can_be_read(source):
    paths = Paths(CHECKOUT, source)
    assert released_list(paths).is_file()
    assert read_released(paths, "images", set()) == {}


# Both modalities


@pytest.mark.parametrize(
    ("pictured", "said", "failing", "passed"),
    [
        (["a", "b"], ["a", "b"], set(), True),
        (["a", "b", "x"], ["a", "b"], {"pairs_label_in_both"}, True),
        (["a", "x"], ["a", "y"], {"pairs_label_in_both", "pairs_two_shared_labels"}, False),
    ],
)
def test_labels_of_one_modality_only_are_named_and_two_have_to_be_shared(tmp_path, pictured, said, failing, passed):
    paths = Paths(tmp_path, "folder")
    for modality, classes in (("images", pictured), ("audio", said)):
        paths.prepared(modality).mkdir(parents=True)
        (paths.prepared(modality) / "meta.json").write_text(json.dumps({"classes": classes}))
    verdict = validate_pairs(paths)
    assert failed(verdict) == failing
    assert verdict.passed == passed
    if failing:
        assert "x" in next(r for r in verdict.results if r.name == "pairs_label_in_both").observed["examples"]
    assert "pairs_label_in_both" in docs_page(paths, "pairs").read_text()


# Prepared data


def prepared_pictures(folder: Path, **changed) -> Path:
    folder.mkdir(parents=True)
    count = 80
    index = {
        "id": [f"digit_{i}" for i in range(count)],
        "label": ["ab"[i % 2] for i in range(count)],
        "split": [SPLITS[i // 2 % 4] for i in range(count)],
        "group": [None] * count,
    }
    pixels = changed.pop("pixels", (DIGITS.images[:count].astype(np.uint8) * 15)[..., None])
    meta = {"classes": ["a", "b"], "side": 8, "channels": 1, "raw_digest": "f" * 64, "split_rule": "items"}
    meta |= changed.pop("meta", {})
    np.save(folder / "pixels.npy", pixels)
    return written(folder, {**index, **changed}, meta)


def prepared_clips(folder: Path, **changed) -> Path:
    folder.mkdir(parents=True)
    count = 40
    clips = [(clip(i) * 32767).astype(np.int16) for i in range(count)]
    length = [len(one) for one in clips]
    index = {
        "id": [f"clip_{i}" for i in range(count)],
        "label": ["ab"[i % 2] for i in range(count)],
        "split": [SPLITS[i // 2 % 4] for i in range(count)],
        "group": [f"speaker_{i // 2 % 4}" for i in range(count)],
        "offset": np.cumsum([0, *length[:-1]]).tolist(),
        "length": length,
    }
    meta = {"classes": ["a", "b"], "sample_rate_hz": RATE_HZ, "raw_digest": "f" * 64, "split_rule": "groups"}
    meta |= changed.pop("meta", {})
    np.save(folder / "samples.npy", np.concatenate(clips))
    return written(folder, {**index, **changed}, meta)


def written(folder: Path, index: dict, meta: dict) -> Path:
    table = pa.table({**index, "group": pa.array(index["group"], pa.string())})
    pq.write_table(table, folder / "index.parquet")
    (folder / "meta.json").write_text(json.dumps(meta))
    return folder


def test_a_sound_prepared_set_passes_and_carries_the_digest_of_its_raw_data(tmp_path):
    paths = Paths(tmp_path, "folder")
    for modality, make in (("images", prepared_pictures), ("audio", prepared_clips)):
        folder = make(tmp_path / modality)
        verdict = validate_prepared(paths, modality, folder)
        assert verdict.passed, verdict.summary()
        assert verdict.raw_digest == "f" * 64
        assert read_verdict(folder) == verdict
        assert [r.name for r in verdict.results] == [e.name for e in SUITES[f"prepared_{modality}"]]


EVERYBODY = [f"speaker_{i % 2}" for i in range(40)]
LABELS_WITHOUT_B_IN_TEST = ["a" if i // 2 % 4 == 3 else "ab"[i % 2] for i in range(40)]


@pytest.mark.parametrize(
    ("changed", "expected"),
    [
        ({"group": EVERYBODY}, {"prepared_audio_groups_apart"}),
        ({"group": EVERYBODY, "meta": {"split_rule": "shared_groups"}}, set()),
        ({"label": LABELS_WITHOUT_B_IN_TEST}, {"prepared_audio_classes_in_every_split"}),
        ({"meta": {"classes": ["a", "c"]}}, {"prepared_audio_label_known"}),
        ({"offset": [2400 * max(i - 1, 0) for i in range(40)]},
         {"prepared_audio_offset_overlap", "prepared_audio_rows_accounted"}),
        ({"split": [("train", "validation", "gate")[i // 2 % 3] for i in range(40)], "group": [None] * 40},
         {"prepared_audio_splits_present"}),
    ],
    ids=["a speaker on two sides", "shared on purpose", "a class absent", "unknown label", "offsets", "no test"],
)  # fmt: skip
def test_a_faulty_prepared_set_fails_where_the_fault_is(tmp_path, changed, expected):
    folder = prepared_clips(tmp_path / "audio", **changed)
    verdict = validate_prepared(Paths(tmp_path, "folder"), "audio", folder)
    assert failed(verdict) == expected


def test_equal_pictures_on_two_sides_and_a_wrong_side_are_found(tmp_path):
    pixels = np.repeat((DIGITS.images[:40].astype(np.uint8) * 15)[..., None], 2, axis=0)[:, :, :6]
    split = [SPLITS[(i + 1) // 2 % 4] for i in range(80)]
    folder = prepared_pictures(
        tmp_path / "images", pixels=pixels, split=split, label=["ab"[i // 8 % 2] for i in range(80)]
    )
    verdict = validate_prepared(Paths(tmp_path, "folder"), "images", folder)
    assert failed(verdict) == {"prepared_image_contents_apart", "prepared_image_width"}


def test_the_command_refuses_a_faulty_prepared_set_in_one_line(tmp_path):
    pixels = np.zeros((80, 8, 8, 1), np.uint8)
    folder = prepared_pictures(tmp_path / "data" / "new", pixels=pixels)
    command = [sys.executable, "-m", "data_checks.expectations", "prepared", "folder", "images", "--folder", folder]
    environment = {**os.environ, "SEEHEAR_ROOT": str(tmp_path)}
    done = subprocess.run(command, cwd=CHECKOUT, env=environment, capture_output=True, text=True)
    assert done.returncode == 1
    assert len(done.stderr.splitlines()) == 1, done.stderr
    assert "prepared_image_not_empty" in done.stderr
    assert not read_verdict(folder).passed


def test_the_command_judges_faulty_raw_data_without_failing(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("SEEHEAR_ROOT", str(tmp_path))
    (tmp_path / "params.yaml").write_bytes((CHECKOUT / "params.yaml").read_bytes())
    paths = Paths(tmp_path, "folder")
    write_raw(paths, "images", pictures()[:3])
    measure_shards(paths.raw("images"), "images", paths.facts("images"))
    assert main(["validate", "folder", "images"]) == 0
    assert capsys.readouterr().out.startswith("folder images failed: 3 rows, 0 set aside")
    assert not read_verdict(paths.validated("images")).passed


def test_a_folder_that_is_no_prepared_set_is_named(tmp_path):
    with pytest.raises(UserError, match=r"cannot be read as prepared audio: FileNotFoundError"):
        validate_prepared(Paths(tmp_path, "folder"), "audio", tmp_path)
