"""One expectation as plain data, and the short ways to write one down."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

# Stand for numbers that come from params.yaml: the share of rows that may be set aside, and that must remain.
MAX_SHARE = "checks.max_quarantine_share"
KEPT_SHARE = "1 - checks.max_quarantine_share"

TRUE = {"value_set": [True]}
NONE = {"min_value": 0, "max_value": 0}
PRESENT: dict = {}


@dataclass(frozen=True)
class Expectation:
    """One thing expected of a table.

    name: unique among all suites. kind: the Great Expectations class. column: None where it is about the whole table.
    severity: "error" stops what follows, "warning" only tells. row_level: judged item by item; where its severity is
    "error", the items that fail are set aside (quarantined) and the expectation holds while few enough do.
    names: the column that says which rows are meant, where a figure of the whole column fails by some of them.
    """

    name: str
    kind: str
    column: str | None
    kwargs: Mapping[str, Any]
    reason: str
    severity: str = "error"
    row_level: bool = field(default=False)
    names: str | None = field(default=None)


def row(name: str, column: str, kwargs: Mapping, reason: str, severity: str = "error") -> Expectation:
    """Expected of the value of `column` of every item: TRUE, PRESENT, or a range. Only PRESENT minds nulls."""
    if kwargs is TRUE:
        kind = "ExpectColumnValuesToBeInSet"
    else:
        kind = "ExpectColumnValuesToBeBetween" if kwargs else "ExpectColumnValuesToNotBeNull"
    return Expectation(name, kind, column, {**kwargs, "mostly": KEPT_SHARE}, reason, severity, row_level=True)


def between(
    name: str,
    figure: str,
    column: str,
    kwargs: Mapping,
    reason: str,
    severity: str = "error",
    names: str | None = None,
) -> Expectation:
    """Expected of a figure (Min, Max, Mean, Median, Stdev, UniqueValueCount) of a whole column."""
    return Expectation(name, f"ExpectColumn{figure}ToBeBetween", column, kwargs, reason, severity, names=names)
