"""From windows to an alarm: one window that differs may be chance or a bad day, two of three are a change."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace

import pandas as pd

from data_checks.drift.verdict import DriftVerdict, measure_drift
from ml.config import Monitoring

WINDOWS, NEEDED = 3, 2
LEANS = 0.05  # a window leans the way of a pooled finding where its own p-value, unadjusted, is at or below this
TOGETHER = 0.2  # of alpha, for windows together: most of what a day looks at, the day before has looked at, too
Pooled = Callable[[Sequence[str]], DriftVerdict]


def with_alarm(day: str, verdict: DriftVerdict, former: Mapping[str, DriftVerdict], pooled: Pooled) -> DriftVerdict:
    """The verdict of a day with `alarm`, `alarm_reason`, `recent`, and the causes where there is an alarm.

    former: verdicts of the days before; of those with enough data the last two count, however many days between were
    without. pooled: `measure_together` of the answers of several days. An alarm is raised where this window and one
    of the two before it drifted, or where the three together did and at least two of them lean the same way: a change
    that is too small for one day shows over three, and one bad day alone never does.
    """
    judged = [(name, one) for name, one in sorted(former.items()) if name < day and one.state != "not_enough_data"]
    if verdict.state == "not_enough_data":
        return replace(verdict, alarm_reason="not enough data in this window", recent=((day, verdict.state),))
    recent = [*judged[len(judged) - min(len(judged), WINDOWS - 1) :], (day, verdict)]
    seen = replace(verdict, recent=tuple((name, one.state) for name, one in recent))
    drifted = [name for name, one in recent if one.state == "drift"]
    if verdict.state == "drift" and len(drifted) >= NEEDED:
        together = pooled(drifted)
        causes = together.causes if together.state == "drift" else verdict.causes
        return replace(seen, alarm=True, alarm_reason=_count(len(drifted), len(recent)), causes=causes)
    return _together(seen, recent, pooled)


def measure_together(
    reference: pd.DataFrame, windows: pd.DataFrame, monitoring: Monitoring, seed: int = 0
) -> DriftVerdict:
    """`measure_drift` of several windows in one frame, as `with_alarm` wants it of them."""
    return measure_drift(reference, windows, replace(monitoring, alpha=TOGETHER * monitoring.alpha), seed)


def _together(seen: DriftVerdict, recent: Sequence[tuple[str, DriftVerdict]], pooled: Pooled) -> DriftVerdict:
    if len(recent) >= NEEDED:
        together = pooled([name for name, _ in recent])
        found = [one.feature for one in together.findings if one.drifted]
        lasting = [name for name in found if sum(_leans(one, name) for _, one in recent) >= NEEDED]
        if lasting:
            reason = f"the last {len(recent)} windows together differ in {', '.join(lasting)}"
            return replace(seen, alarm=True, alarm_reason=reason, causes=together.causes)
    drifted = sum(one.state == "drift" for _, one in recent)
    return replace(seen, alarm_reason=f"{_count(drifted, len(recent))}, an alarm takes {NEEDED} of {WINDOWS}")


def _leans(verdict: DriftVerdict, feature: str) -> bool:
    return any(one.feature == feature and one.p_value <= LEANS for one in verdict.findings)


def _count(drifted: int, windows: int) -> str:
    return f"{drifted} of the last {windows} windows with enough data drifted"
