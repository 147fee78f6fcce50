"""The prediction log beside its reference: what changed, how sure that is, and why in plain words."""

from data_checks.drift.accuracy import Accuracy, measure_accuracy
from data_checks.drift.alarm import measure_together, with_alarm
from data_checks.drift.daily import judge_day
from data_checks.drift.log import LOG_SCHEMA, read_corrections, read_log, reference_from_evaluation
from data_checks.drift.report import in_words, read_drift_verdict, write_drift_report
from data_checks.drift.verdict import DriftVerdict, Finding, measure_drift

__all__ = [
    "LOG_SCHEMA",
    "Accuracy",
    "DriftVerdict",
    "Finding",
    "in_words",
    "judge_day",
    "measure_accuracy",
    "measure_drift",
    "measure_together",
    "read_corrections",
    "read_drift_verdict",
    "read_log",
    "reference_from_evaluation",
    "with_alarm",
    "write_drift_report",
]
