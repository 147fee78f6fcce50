"""What is expected of the data, as plain data: for each modality, of the raw facts and of the prepared set."""

from __future__ import annotations

from collections.abc import Mapping

from data_checks.expectations.suites import comparisons, items, prepared, sets
from data_checks.expectations.suites.expectation import KEPT_SHARE, MAX_SHARE, Expectation

SUITES: Mapping[str, tuple[Expectation, ...]] = {
    "images": (*items.IMAGES, *sets.IMAGES, *comparisons.IMAGES),
    "audio": (*items.AUDIO, *sets.AUDIO, *comparisons.AUDIO),
    "prepared_images": (*prepared.IMAGES, *comparisons.PREPARED_IMAGES),
    "prepared_audio": (*prepared.AUDIO, *comparisons.PREPARED_AUDIO),
    "pairs": comparisons.PAIRS,
}

__all__ = ["KEPT_SHARE", "MAX_SHARE", "SUITES", "Expectation"]
