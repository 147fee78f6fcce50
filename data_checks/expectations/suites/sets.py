"""What is expected of a raw set as a whole, once the faulty items are set aside."""

from __future__ import annotations

from data_checks.expectations.suites.expectation import MAX_SHARE, Expectation, between


def _accounts(kind: str) -> tuple[Expectation, ...]:
    """That every item is named once, belongs to a known split, and that few are set aside."""
    return (
        between(
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
    )


def _classes(kind: str) -> tuple[Expectation, ...]:
    """That there are classes to tell apart, each with items enough."""
    return (
        between(
            f"{kind}_classes", "UniqueValueCount", "label", {"min_value": 2}, "one class leaves nothing to tell apart"
        ),
        between(
            f"{kind}_class_size",
            "Min",
            "class_rows",
            {"min_value": 4},
            "every class has to stand in train, validation, gate and test: add items until it has 4, or take it out",
            names="label",
        ),
        between(
            f"{kind}_class_size_useful",
            "Min",
            "class_rows",
            {"min_value": 20},
            "figures over a class of fewer than twenty items are mostly chance",
            "warning",
            names="label",
        ),
        between(
            f"{kind}_class_balance",
            "Min",
            "class_share_of_mean",
            {"min_value": 0.2},
            "a class five times rarer than the average is learnt badly and hardly counts in the accuracy",
            "warning",
            names="label",
        ),
    )


def _of_one_origin(kind: str) -> tuple[Expectation, ...]:
    """That the splits are apart, and that the items look as if they came from one source."""
    return (
        between(
            f"{kind}_no_leak",
            "Max",
            "splits_with_content",
            {"max_value": 1},
            "the same content in the publisher's train and test makes the test figure worthless",
        ),
        between(
            f"{kind}_channels_agree",
            "Mean",
            "has_common_channels",
            {"min_value": 0.9},
            "a mixture of grey and colour, or of mono and stereo, often means two sources in one",
            "warning",
        ),
    )


IMAGES = (
    *_accounts("image"),
    *_classes("image"),
    *_of_one_origin("image"),
    between(
        "image_brightness_varies_little",
        "Stdev",
        "brightness",
        {"min_value": 0, "max_value": 0.35},
        "half of the pictures negative, half positive: two polarities are mixed",
        "warning",
    ),
)

AUDIO = (
    *_accounts("audio"),
    *_classes("audio"),
    *_of_one_origin("audio"),
    between(
        "audio_one_rate",
        "Mean",
        "has_common_rate",
        {"min_value": 0.5},
        "without one sample rate that most recordings have, most of the set is resampled",
        "warning",
    ),
    between(
        "audio_band_filled",
        "Median",
        "bandwidth_share",
        {"min_value": 0.3},
        "a band mostly empty: recordings of a lower rate were saved at a higher one",
        "warning",
    ),
    between(
        "audio_speakers",
        "UniqueValueCount",
        "group",
        {"min_value": 2},
        "without two known speakers nothing can be said about a speaker never heard",
        "warning",
    ),
)
