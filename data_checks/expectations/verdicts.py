"""What validation found, in a form that later steps can read without the tool that found it."""

from __future__ import annotations

import dataclasses
import json
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ml.config import UserError

FILE = "verdict.json"


@dataclass(frozen=True)
class Result:
    """One expectation's outcome; `reason` says why it is expected, and why it could not be judged where that is so."""

    name: str
    success: bool
    observed: Any
    reason: str
    severity: str
    unexpected_count: int


@dataclass(frozen=True)
class Verdict:
    """passed: no expectation of severity "error" failed. raw_digest: of the raw shards it is about."""

    passed: bool
    raw_digest: str
    results: tuple[Result, ...]
    quarantined: int
    rows: int

    @property
    def failures(self) -> tuple[Result, ...]:
        return tuple(result for result in self.results if not result.success and result.severity == "error")

    @property
    def warnings(self) -> tuple[Result, ...]:
        return tuple(result for result in self.results if not result.success and result.severity != "error")

    def summary(self) -> str:
        """One line for a person."""
        said = "; ".join(f"{r.name} (observed {json.dumps(r.observed)}): {r.reason}" for r in self.failures)
        counts = f"{self.rows} rows, {self.quarantined} set aside, {len(self.warnings)} warnings"
        return f"passed: {counts}" if self.passed else f"failed: {counts}: {said}"


def write_verdict(folder: Path, verdict: Verdict) -> None:
    """Write folder/verdict.json in one step; the same findings give the same bytes."""
    text = json.dumps(dataclasses.asdict(verdict), indent=1, ensure_ascii=False, allow_nan=False)
    beside = folder / f"{FILE}.part"
    beside.write_text(text + "\n", encoding="utf-8")
    os.replace(beside, folder / FILE)


def read_verdict(folder: Path) -> Verdict:
    """The verdict in a folder; raises UserError naming the file where there is none, or it is damaged."""
    file = folder / FILE
    try:
        tree = json.loads(file.read_text(encoding="utf-8"))
        return Verdict(**{**tree, "results": tuple(Result(**result) for result in tree["results"])})
    except FileNotFoundError:
        raise UserError(f"{file}: no verdict: this data was never validated; run `dvc repro`") from None
    except (ValueError, TypeError, KeyError) as fault:
        raise UserError(f"{file}: expected a verdict, got something else ({' '.join(str(fault).split())})") from None
