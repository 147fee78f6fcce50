"""What is expected of a prepared set: its index and its packed array."""

from __future__ import annotations

from data_checks.expectations.suites.expectation import NONE, Expectation, between


def _divided(kind: str) -> tuple[Expectation, ...]:
    """That every item stands in one split under a known label, and no split lacks a class."""
    name = f"prepared_{kind}"
    return (
        Expectation(f"{name}_ids_unique", "ExpectColumnValuesToBeUnique", "id", {}, "an id names one item"),
        between(
            f"{name}_label_known", "Min", "label_known", {"min_value": 1}, "a label outside the classes of meta.json"
        ),
        between(
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
        between(
            f"{name}_classes_in_every_split",
            "Max",
            "classes_missing_in_split",
            {"max_value": 0},
            "a class that a split lacks is not judged there; too few people or items have it",
            "warning",
        ),
        between(
            f"{name}_classes_in_train",
            "Max",
            "classes_missing_in_train",
            {"max_value": 0},
            "a class that train lacks cannot be learnt",
        ),
    )


def _apart(kind: str) -> tuple[Expectation, ...]:
    """That nobody and nothing stands on two sides, and that index and array belong together."""
    name = f"prepared_{kind}"
    return (
        between(
            f"{name}_groups_apart",
            "Max",
            "splits_with_group",
            {"max_value": 1},
            "somebody on two sides makes the figures about a stranger too good",
        ),
        between(
            f"{name}_contents_apart",
            "Max",
            "splits_with_content",
            {"max_value": 1},
            "the same content on two sides of the split makes the figures too good",
        ),
        between(
            f"{name}_not_empty", "Min", "different_values", {"min_value": 2}, "a row of one single value says nothing"
        ),
        between(
            f"{name}_rows_accounted",
            "Max",
            "rows_unaccounted",
            {"min_value": 0, "max_value": 0},
            "index and packed array belong together row by row",
        ),
    )


IMAGES = (
    *_divided("image"),
    *_apart("image"),
    between("prepared_image_height", "Max", "height_surplus_px", NONE, "every picture has the side of meta.json"),
    between("prepared_image_width", "Max", "width_surplus_px", NONE, "every picture has the side of meta.json"),
    between("prepared_image_channels", "Max", "channels_surplus", NONE, "every picture has the channels of meta.json"),
)

AUDIO = (
    *_divided("audio"),
    *_apart("audio"),
    between("prepared_audio_duration_min", "Min", "duration_s", {"min_value": 0.05}, "shorter than any spoken word"),
    between("prepared_audio_duration_max", "Max", "duration_s", {"max_value": 30}, "30 s hold more than one word"),
    between("prepared_audio_offset_gap", "Max", "offset_gap_samples", NONE, "clips lie one behind the other"),
    between("prepared_audio_offset_overlap", "Min", "offset_gap_samples", NONE, "no clip runs into the next one"),
)
