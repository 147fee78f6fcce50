"""How often the answers of a window are right: estimated where labels are late, counted where corrections came."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import pandas as pd
from scipy import stats

from data_checks.drift.samples import from_known_models, like_endpoints
from ml.config import Monitoring

BINS = 5  # few, or chance alone would look like a bad calibration in the hundreds of answers that there are
SIDES = ("pictured", "heard")


@dataclass(frozen=True)
class Accuracy:
    """Shares of right answers, each None where it cannot be told; `why_not` says why. Intervals hold 95 %.

    expected: of the reference, whose labels are known. estimated: what the window's calibrated confidences promise
    (CBPE, confidence-based performance estimation). real: among the corrected and confirmed answers. real_at_best: if
    all others were right, too; only where even that lies below what is expected has real accuracy surely fallen, for
    people correct what is wrong more readily than they confirm what is right.
    """

    expected: float | None = None
    calibration_error: float | None = None
    estimated: float | None = None
    estimated_ci95: tuple[float, float] | None = None
    estimated_n: int = 0
    estimated_fell: bool = False
    real: float | None = None
    real_ci95: tuple[float, float] | None = None
    real_n: int = 0
    real_at_best: float | None = None
    real_fell: bool = False
    why_not: str = ""


def measure_accuracy(
    reference: pd.DataFrame, window: pd.DataFrame, monitoring: Monitoring, seed: int = 0
) -> dict[str, Accuracy]:
    """By side ("pictured", "heard"): what is expected, estimated and known of the named answers of a window.

    Only answers of the reference's model count, and endpoints are compared with themselves, as in `measure_drift`.

    reference, window: as `reference_from_evaluation` and `read_log` give them. An estimate is given only where the
    confidences of the reference are within monitoring.max_calibration_error of the truth, and its interval is as much
    wider. It knows nothing of a relation between input and label that changed: only corrections show that.
    """
    return {side: _of_side(side, reference, window, monitoring, seed) for side in SIDES}


def _of_side(side: str, reference: pd.DataFrame, window: pd.DataFrame, monitoring: Monitoring, seed: int) -> Accuracy:
    known = _named(reference, side)
    known = known.loc[known[f"corrected_{side}"].notna()] if f"corrected_{side}" in known else known.iloc[:0]
    rows = from_known_models(_named(window, side), reference)
    if len(rows):
        known, rows = like_endpoints(known, rows, np.random.default_rng(seed))
    real = _real(rows, side, monitoring.min_corrections)
    if len(known) < monitoring.min_window:
        least = f"expected at least {monitoring.min_window}"
        why = f"the reference holds {len(known)} labelled answers of like endpoints, {least}"
        return replace(real, why_not="; ".join(filter(None, (real.why_not, why))))
    right = (known[side] == known[f"corrected_{side}"]).to_numpy()
    error = calibration_error(known[f"{side}_confidence"].to_numpy(float), right)
    expected = float(right.mean())
    estimate = _estimate(rows[f"{side}_confidence"].to_numpy(float), error, monitoring)
    told = replace(
        estimate,
        expected=expected,
        calibration_error=error,
        estimated_fell=estimate.estimated_ci95 is not None and estimate.estimated_ci95[1] < expected,
        real=real.real,
        real_ci95=real.real_ci95,
        real_n=real.real_n,
        real_at_best=real.real_at_best,
        real_fell=real.real_at_best is not None and _wilson(real.real_at_best, len(rows))[1] < expected,
    )
    return replace(told, why_not="; ".join(filter(None, (estimate.why_not, real.why_not))))


def _named(frame: pd.DataFrame, side: str) -> pd.DataFrame:
    """The answers that name something, with a confidence."""
    if side not in frame:
        return pd.DataFrame(columns=[side, f"{side}_confidence", f"corrected_{side}", "model", "endpoint"])
    return frame.loc[frame[side].notna() & frame[f"{side}_confidence"].notna()].reset_index(drop=True)


def calibration_error(confidences: np.ndarray, right: np.ndarray) -> float:
    """Mean gap between confidence and accuracy over BINS bins of equally many answers, (n,) and (n,) bool."""
    order = np.array_split(np.argsort(confidences, kind="stable"), min(BINS, len(confidences)))
    gaps = [abs(confidences[rows].mean() - right[rows].mean()) * len(rows) for rows in order]
    return float(sum(gaps) / len(confidences))


def _estimate(confidences: np.ndarray, error: float, monitoring: Monitoring) -> Accuracy:
    n = len(confidences)
    if error > monitoring.max_calibration_error:
        most = monitoring.max_calibration_error
        why = f"no estimate: the confidences are {error:.3f} off on the reference, expected at most {most:g}"
        return Accuracy(estimated_n=n, why_not=why)
    if n < monitoring.min_window:
        return Accuracy(estimated_n=n, why_not=f"no estimate: {n} answers, expected at least {monitoring.min_window}")
    mean = float(confidences.mean())
    half = 1.96 * float(np.sqrt((confidences * (1 - confidences)).mean() / n)) + error
    return Accuracy(estimated=mean, estimated_ci95=(max(mean - half, 0.0), min(mean + half, 1.0)), estimated_n=n)


def _real(rows: pd.DataFrame, side: str, enough: int) -> Accuracy:
    if f"corrected_{side}" not in rows:
        return Accuracy(why_not="no corrections")
    judged = rows.loc[rows[f"corrected_{side}"].notna()]
    n = len(judged)
    if n < max(enough, 1):
        return Accuracy(real_n=n, why_not=f"{n} corrections or confirmations, expected at least {enough}")
    right = int((judged[side] == judged[f"corrected_{side}"]).sum())
    at_best = 1 - (n - right) / len(rows)
    return Accuracy(real=right / n, real_ci95=_wilson(right / n, n), real_n=n, real_at_best=at_best)


def _wilson(share: float, n: int) -> tuple[float, float]:
    """95 % interval of a share of n answers."""
    interval = stats.binomtest(round(share * n), n).proportion_ci(method="wilson")
    return float(interval.low), float(interval.high)
