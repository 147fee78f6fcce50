"""What is expected of the data, as plain data: for each modality, of the raw facts and of the prepared set."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

# Stand for numbers that come from params.yaml: the share of rows that may be set aside, and that must remain.
MAX_SHARE = "checks.max_quarantine_share"
KEPT_SHARE = "1 - checks.max_quarantine_share"

TRUE = {"value_set": [True]}
NONE = {"min_value": 0, "max_value": 0}


@dataclass(frozen=True)
class Expectation:
    """One thing expected of a table.

    name: unique among all suites. kind: the Great Expectations class. column: None where it is about the whole table.
    severity: "error" stops what follows, "warning" only tells. row_level: judged item by item; where its severity is
    "error", the items that fail are set aside (quarantined) and the expectation holds while few enough do.
    """

    name: str
    kind: str
    column: str | None
    kwargs: Mapping[str, Any]
    reason: str
    severity: str = "error"
    row_level: bool = field(default=False)


def _row(name: str, column: str, kwargs: Mapping, reason: str, severity: str = "error") -> Expectation:
    if kwargs is TRUE:
        kind = "ExpectColumnValuesToBeInSet"
    else:
        kind = "ExpectColumnValuesToBeBetween" if kwargs else "ExpectColumnValuesToNotBeNull"
    return Expectation(name, kind, column, {**kwargs, "mostly": KEPT_SHARE}, reason, severity, row_level=True)


def _between(name: str, figure: str, column: str, kwargs: Mapping, reason: str, severity: str = "error") -> Expectation:
    return Expectation(name, f"ExpectColumn{figure}ToBeBetween", column, kwargs, reason, severity)


def _of_items(kind: str, item: str) -> tuple[Expectation, ...]:
    """What every item of either modality has to be."""
    return (
        _row(f"{kind}_decodable", "decodable", TRUE, f"{item} that cannot be decoded can neither be learnt nor judged"),
        _row(f"{kind}_labelled", "label", {}, f"{item} without a label teaches nothing"),
        _row(f"{kind}_label_agreed", "other_labels", NONE, f"the same {kind} under two labels contradicts itself"),
        _row(f"{kind}_not_a_copy", "earlier_copies", NONE, "a copy would stand on two sides of a random split"),
    )


def _of_the_set(kind: str) -> tuple[Expectation, ...]:
    """What a whole raw set of either modality has to be, once the faulty items are set aside."""
    return (
        _between(
            f"{kind}_quarantine_share",
            "Mean",
            "set_aside",
            {"min_value": 0, "max_value": MAX_SHARE},
            "so many faulty items point at a fault of the source, not of single items",
        ),
        Expectation(
            f"{kind}_ids_unique", "ExpectColumnValuesToBeUnique", "id", {}, "an id names one item in every later step"
        ),
        Expectation(
            f"{kind}_split_known",
            "ExpectColumnValuesToBeInSet",
            "split",
            {"value_set": ["train", "test"]},
            "a publisher's split is train or test; anything else would be dropped unseen",
        ),
        _between(
            f"{kind}_classes", "UniqueValueCount", "label", {"min_value": 2}, "one class leaves nothing to tell apart"
        ),
        _between(
            f"{kind}_class_size",
            "Min",
            "class_rows",
            {"min_value": 4},
            "every class has to stand in train, validation, gate and test",
        ),
        _between(
            f"{kind}_class_size_useful",
            "Min",
            "class_rows",
            {"min_value": 20},
            "figures over a class of fewer than twenty items are mostly chance",
            "warning",
        ),
        _between(
            f"{kind}_class_balance",
            "Min",
            "class_share_of_mean",
            {"min_value": 0.2},
            "a class five times rarer than the average is learnt badly and hardly counts in the accuracy",
            "warning",
        ),
        _between(
            f"{kind}_no_leak",
            "Max",
            "splits_with_content",
            {"max_value": 1},
            "the same content in the publisher's train and test makes the test figure worthless",
        ),
        _between(
            f"{kind}_channels_agree",
            "Mean",
            "has_common_channels",
            {"min_value": 0.9},
            "a mixture of grey and colour, or of mono and stereo, often means two sources in one",
            "warning",
        ),
    )


IMAGES = (
    *_of_items("image", "a picture"),
    _row("image_wide_enough", "width_px", {"min_value": 8, "max_value": 20000}, "under 8 pixels no shape is left"),
    _row("image_high_enough", "height_px", {"min_value": 8, "max_value": 20000}, "under 8 pixels no shape is left"),
    _row("image_not_constant", "contrast", {"min_value": 0.01}, "a picture of one grey level shows nothing"),
    _row("image_informative", "information_bits", {"min_value": 0.1}, "under 0.1 bit a pixel only specks are left"),
    _row(
        "image_aspect",
        "aspect",
        {"min_value": 0.25, "max_value": 4},
        "a picture four times longer than wide is mostly padding once it is square",
        "warning",
    ),
    *_of_the_set("image"),
    _between(
        "image_brightness_varies_little",
        "Stdev",
        "brightness",
        {"min_value": 0, "max_value": 0.35},
        "half of the pictures negative, half positive: two polarities are mixed",
        "warning",
    ),
)

AUDIO = (
    *_of_items("audio", "a recording"),
    _row("audio_whole", "missing_samples", NONE, "fewer samples than its header declares: the file was cut off"),
    _row(
        "audio_duration",
        "duration_s",
        {"min_value": 0.05, "max_value": 30},
        "a spoken word lasts longer than 0.05 s, and 30 s hold more than one",
    ),
    _row("audio_rate", "sample_rate_hz", {"min_value": 4000, "max_value": 192000}, "speech needs 4 kHz at the least"),
    _row("audio_not_silent", "loudness_db", {"min_value": -70}, "nothing is heard in it"),
    _row(
        "audio_not_clipped",
        "clipping_share",
        {"max_value": 0.05},
        "one sample in twenty in a flat top: the recorder was overdriven beyond use",
    ),
    _row("audio_hardly_clipped", "clipping_share", {"max_value": 0.005}, "flat tops are heard as crackling", "warning"),
    _row(
        "audio_dc_offset",
        "dc_offset",
        {"min_value": -0.05, "max_value": 0.05},
        "an offset is a fault of the recorder and costs headroom",
        "warning",
    ),
    _row(
        "audio_mostly_sound",
        "silence_share",
        {"max_value": 0.9},
        "nine tenths of silence: the word should be cut out closer",
        "warning",
    ),
    *_of_the_set("audio"),
    _between(
        "audio_one_rate",
        "Mean",
        "has_common_rate",
        {"min_value": 0.5},
        "without one sample rate that most recordings have, most of the set is resampled",
        "warning",
    ),
    _between(
        "audio_band_filled",
        "Median",
        "bandwidth_share",
        {"min_value": 0.3},
        "a band mostly empty: recordings of a lower rate were saved at a higher one",
        "warning",
    ),
    _between(
        "audio_speakers",
        "UniqueValueCount",
        "group",
        {"min_value": 2},
        "without two known speakers nothing can be said about a speaker never heard",
        "warning",
    ),
)


def _of_the_prepared(kind: str) -> tuple[Expectation, ...]:
    name = f"prepared_{kind}"
    return (
        Expectation(f"{name}_ids_unique", "ExpectColumnValuesToBeUnique", "id", {}, "an id names one item"),
        _between(
            f"{name}_label_known", "Min", "label_known", {"min_value": 1}, "a label outside the classes of meta.json"
        ),
        _between(
            f"{name}_splits_present",
            "Min",
            "splits_present",
            {"min_value": 4, "max_value": 4},
            "train, validation, gate and test each have their own use",
        ),
        Expectation(
            f"{name}_split_known",
            "ExpectColumnValuesToBeInSet",
            "split",
            {"value_set": ["train", "validation", "gate", "test"]},
            "a row of an unknown split is never used",
        ),
        _between(
            f"{name}_classes_in_every_split",
            "Max",
            "classes_missing_in_split",
            {"max_value": 0},
            "a class that a split lacks cannot be learnt or judged there",
        ),
        _between(
            f"{name}_groups_apart",
            "Max",
            "splits_with_group",
            {"max_value": 1},
            "somebody on two sides makes the figures about a stranger too good",
        ),
        _between(
            f"{name}_contents_apart",
            "Max",
            "splits_with_content",
            {"max_value": 1},
            "the same content on two sides of the split makes the figures too good",
        ),
        _between(
            f"{name}_not_empty", "Min", "different_values", {"min_value": 2}, "a row of one single value says nothing"
        ),
        _between(
            f"{name}_rows_accounted",
            "Max",
            "rows_unaccounted",
            {"min_value": 0, "max_value": 0},
            "index and packed array belong together row by row",
        ),
    )


PREPARED_IMAGES = (
    *_of_the_prepared("image"),
    _between("prepared_image_height", "Max", "height_surplus_px", NONE, "every picture has the side of meta.json"),
    _between("prepared_image_width", "Max", "width_surplus_px", NONE, "every picture has the side of meta.json"),
    _between("prepared_image_channels", "Max", "channels_surplus", NONE, "every picture has the channels of meta.json"),
)

PREPARED_AUDIO = (
    *_of_the_prepared("audio"),
    _between("prepared_audio_duration_min", "Min", "duration_s", {"min_value": 0.05}, "shorter than any spoken word"),
    _between("prepared_audio_duration_max", "Max", "duration_s", {"max_value": 30}, "30 s hold more than one word"),
    _between("prepared_audio_offset_gap", "Max", "offset_gap_samples", NONE, "clips lie one behind the other"),
    _between("prepared_audio_offset_overlap", "Min", "offset_gap_samples", NONE, "no clip runs into the next one"),
)

SUITES: Mapping[str, tuple[Expectation, ...]] = {
    "images": IMAGES,
    "audio": AUDIO,
    "prepared_images": PREPARED_IMAGES,
    "prepared_audio": PREPARED_AUDIO,
}
