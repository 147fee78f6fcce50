"""How far an item lies from the others of its set, where no fixed limit would suit every set.

A deviation is the distance from the median over the spread on that side: the distance from the median to the quartile
there, times 1.4826 as for a normal distribution (the double MAD: facts are seldom spread evenly), and no less than
a floor, below which differences are those of clean items. A quarter of the items may be faulty without moving it much.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

if TYPE_CHECKING:
    import pandas as pd

FEWEST_ROWS = 30  # with fewer items nothing is said of what is usual
QUARTILE_TO_SIGMA = 1.4826
NEARLY_ALL = 0.9  # this share of one sample rate makes the others unusual


class Compared(NamedTuple):
    """A column `name` of deviations of what `value` makes of the facts; `floor` is the least spread."""

    name: str
    needs: tuple[str, ...]
    floor: float
    value: Callable[[Any], Any]  # of a frame, a column; pandas' own stubs are too wide to say so


def _fact(column: str, floor: float) -> Compared:
    return Compared(f"{column}_deviation", (column,), floor, lambda frame: frame[column])


def _log_fact(column: str, floor: float) -> Compared:
    """Compared by ratio: half as much is as far off as twice as much."""
    return Compared(f"{column}_deviation", (column,), floor, lambda frame: np.log(frame[column].clip(lower=1e-4)))


def _detail(frame: pd.DataFrame) -> Any:
    """Decimal logarithm of the variance of the Laplacian over that of the grey levels, which `blur` is made of."""
    blur = frame["blur"].clip(1e-4, 1 - 1e-4)
    return np.log10(1 / blur - 1)


COMPARED = (
    _log_fact("contrast", 0.18),
    _fact("brightness", 0.066),
    _fact("bright_share", 0.1),
    _fact("dark_share", 0.1),
    _log_fact("sharpness", 0.06),
    _fact("information_bits", 0.42),
    Compared("detail_deviation", ("blur",), 0.14, _detail),
    _fact("loudness_db", 3.0),
    Compared(
        "bandwidth_share_deviation",
        ("bandwidth_hz", "sample_rate_hz"),
        0.06,
        lambda frame: frame["bandwidth_hz"] / (frame["sample_rate_hz"] / 2),
    ),
)


def with_outliers(frame: pd.DataFrame) -> pd.DataFrame:
    """The facts with a column of deviations for each of COMPARED that they allow, and `unusual_rate` for recordings."""
    made = {c.name: deviations(c.value(frame), c.floor) for c in COMPARED if set(c.needs) <= set(frame.columns)}
    if "sample_rate_hz" in frame:
        made["unusual_rate"] = _unusual(frame["sample_rate_hz"])
    return frame.assign(**made)


def deviations(values: pd.Series, floor: float) -> pd.Series:
    """Signed distance of each value from the median in robust standard deviations; null where there are too few."""
    known = values.dropna()
    if len(known) < FEWEST_ROWS:
        return values * np.nan
    low, middle, high = (float(known.quantile(share)) for share in (0.25, 0.5, 0.75))
    above = max(QUARTILE_TO_SIGMA * (high - middle), floor)
    below = max(QUARTILE_TO_SIGMA * (middle - low), floor)
    distance = values - middle
    return (distance / np.where(distance > 0, above, below)).astype(float)


def _unusual(values: Any) -> pd.Series:
    """1.0 where nearly all others share one value and this is another, else 0.0; null where there is none."""
    shares = values.value_counts(normalize=True)
    if len(values.dropna()) < FEWEST_ROWS or shares.iloc[0] < NEARLY_ALL:
        return (values * 0).astype(float)
    return (values != shares.index[0]).where(values.notna()).astype(float)
