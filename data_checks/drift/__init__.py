"""The prediction log beside its reference: what changed, how sure that is, and why in plain words."""

from data_checks.drift.log import LOG_SCHEMA, read_log, reference_from_evaluation
from data_checks.drift.report import read_drift_verdict, write_drift_report
from data_checks.drift.verdict import DriftVerdict, Finding, measure_drift

__all__ = [
    "LOG_SCHEMA",
    "DriftVerdict",
    "Finding",
    "measure_drift",
    "read_drift_verdict",
    "read_log",
    "reference_from_evaluation",
    "write_drift_report",
]
