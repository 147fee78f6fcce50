"""Whether data is fit for use: Great Expectations over the tables of measured facts.

`SUITES` is plain data and costs nothing to import; Great Expectations and pandas are loaded when data is validated.
"""

from __future__ import annotations

from data_checks.expectations.suites import SUITES, Expectation
from data_checks.expectations.validation import docs_page, validate_pairs, validate_prepared, validate_raw
from data_checks.expectations.verdicts import Result, Verdict, read_verdict

__all__ = [
    "SUITES",
    "Expectation",
    "Result",
    "Verdict",
    "docs_page",
    "read_verdict",
    "validate_pairs",
    "validate_prepared",
    "validate_raw",
]
