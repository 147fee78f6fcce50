"""Metrics with intervals, the scene benchmark, the promotion gate, and the report of a run."""

from ml.evaluation.promotion import Decision, decide_promotion
from ml.evaluation.report import evaluate, gate_figures, golden_requests

__all__ = ["Decision", "decide_promotion", "evaluate", "gate_figures", "golden_requests"]
