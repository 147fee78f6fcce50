"""Every decision of the retraining policy, also "no": one line each in var/retraining/decisions-YYYY-MM.jsonl.

The same decision made again only moves the last line's `until` and counts, so that a year of quiet ticks stays short.
"""

from __future__ import annotations

import json
from contextlib import AbstractContextManager
from dataclasses import asdict
from datetime import datetime
from pathlib import Path

from ml.config import Paths
from ml.files import turn_at, whole_file
from orchestration.policy import Decision


def turn(paths: Paths) -> AbstractContextManager[None]:
    """One decision at a time, for sensor and schedule decide in processes of their own."""
    return turn_at(_folder(paths) / ".lock")


def record(paths: Paths, decision: Decision, now: datetime) -> bool:
    """Keep a decision, inside `turn`; whether it is another than the last one."""
    folder = _folder(paths)
    months = _months(folder)
    last = rows[-1] if months and (rows := _rows(months[-1])) else None
    if last and not decision.start and _same(last, decision):
        return _repeat(months[-1], now)
    file = folder / f"decisions-{now:%Y-%m}.jsonl"
    stamp = now.isoformat(timespec="seconds")
    row = {"at": stamp, "until": stamp, "times": 1, **asdict(decision)}
    _write(file, [*(_rows(file) if file.is_file() else []), row])
    return True


def newest(paths: Paths, count: int = 100) -> list[dict]:
    """The last decisions, the newest first."""
    rows: list[dict] = []
    for file in reversed(_months(_folder(paths))):
        rows += reversed(_rows(file))
        if len(rows) >= count:
            break
    return rows[:count]


def _repeat(file: Path, now: datetime) -> bool:
    rows = _rows(file)
    rows[-1] |= {"until": now.isoformat(timespec="seconds"), "times": rows[-1]["times"] + 1}
    _write(file, rows)
    return False


def _same(row: dict, decision: Decision) -> bool:
    return all(row.get(name) == getattr(decision, name) for name in ("start", "reason", "trigger"))


def _folder(paths: Paths) -> Path:
    return paths.var / "retraining"


def _months(folder: Path) -> list[Path]:
    return sorted(folder.glob("decisions-*.jsonl"))


def _rows(file: Path) -> list[dict]:
    return [json.loads(line) for line in file.read_text(encoding="utf-8").splitlines()]


def _write(file: Path, rows: list[dict]) -> None:
    with whole_file(file) as new:
        new.write_text("".join(f"{json.dumps(row, ensure_ascii=False)}\n" for row in rows), encoding="utf-8")
