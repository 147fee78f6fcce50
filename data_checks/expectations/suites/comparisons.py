"""What is expected of items beside each other: near copies, leakage, likely label errors, labels of both modalities."""

from __future__ import annotations

from data_checks.expectations.suites.expectation import NONE, Expectation, between, row


def _of_items(kind: str) -> tuple[Expectation, ...]:
    return (
        row(
            f"{kind}_no_near_copy",
            "near_copies",
            NONE,
            f"the same {kind} resized, encoded anew, made louder or shifted counts double; it is kept on one side",
            "warning",
        ),
        row(
            f"{kind}_near_label_agreed",
            "near_labels",
            NONE,
            f"near copies of one {kind} under two labels: one of the labels is wrong",
            "warning",
        ),
        row(
            f"{kind}_label_likely",
            "label_doubted",
            NONE,
            "a classifier that never saw it is sure of another label; look at it, and relabel it if that one is right",
            "warning",
        ),
    )


def _of_the_set(kind: str) -> tuple[Expectation, ...]:
    return (
        between(
            f"{kind}_no_near_leak",
            "Max",
            "splits_with_near_copy",
            {"max_value": 1},
            "near copies in the publisher's train and test make the test figure too good",
        ),
    )


def _of_the_prepared(kind: str) -> tuple[Expectation, ...]:
    return (
        between(
            f"prepared_{kind}_near_copies_together",
            "Max",
            "splits_with_near_copy",
            {"max_value": 1},
            "near copies on two sides of the split make the figures too good",
        ),
    )


IMAGES = (*_of_items("image"), *_of_the_set("image"))
AUDIO = (*_of_items("audio"), *_of_the_set("audio"))
PREPARED_IMAGES = _of_the_prepared("image")
PREPARED_AUDIO = _of_the_prepared("audio")
PAIRS = (
    Expectation(
        "pairs_label_in_both",
        "ExpectColumnValuesToBeBetween",
        "modalities",
        {"min_value": 2},
        "a label of pictures alone or of recordings alone can never be searched for in a recording",
        "warning",
        row_level=True,
    ),
    between(
        "pairs_two_shared_labels",
        "Max",
        "shared_labels",
        {"min_value": 2},
        "what is pictured is told from what is said by two labels at the least that both have",
    ),
)
