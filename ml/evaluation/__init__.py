"""Metrics with intervals, the scene benchmark, the promotion gate, model cards, and the report of a run."""

from ml.evaluation.gate import GateAnswers, gate_answers
from ml.evaluation.model_card import card_text, model_card
from ml.evaluation.promotion import Decision, decide_promotion
from ml.evaluation.report import evaluate, golden_requests

__all__ = [
    "Decision",
    "GateAnswers",
    "card_text",
    "decide_promotion",
    "evaluate",
    "gate_answers",
    "golden_requests",
    "model_card",
]
