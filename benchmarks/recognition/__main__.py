"""Trains and measures what is not measured yet, for as long as it may, then writes the page.

`python -m benchmarks recognition [--budget quick|medium|full] [--minutes 9] [--only grid final …]`; each piece is kept
under var/recognition as soon as it is done, and what it has learnt now and then, so the same command goes on where it
was stopped. `--pages` only writes docs/recognition.md and docs/recognition.zh-CN.md from docs/recognition.json.
"""

from __future__ import annotations

import argparse
import json
import time
from dataclasses import replace
from pathlib import Path

from benchmarks.recognition import plan
from ml.config import BUDGETS, Paths, Settings, load_paths, load_settings
from ml.files import write_json


def main(arguments: list[str]) -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks recognition", description=__doc__)
    parser.add_argument("--budget", choices=BUDGETS, default=None)
    parser.add_argument("--minutes", type=float, default=9.0, help="begin no piece after so many")
    parser.add_argument("--only", nargs="+", choices=plan.PARTS, default=plan.PARTS)
    parser.add_argument("--pages", action="store_true", help="train nothing, write the pages")
    asked = parser.parse_args(arguments)
    settings = load_settings()
    settings = replace(settings, training=replace(settings.training, budget=asked.budget or settings.training.budget))
    paths = replace(load_paths(settings), source="mnist-fsdd")
    if not asked.pages:
        train_missing(paths, settings, asked.minutes, asked.only)
        publish(paths, settings)
    from benchmarks.recognition import pages

    for page in pages.write(paths):
        print(page.relative_to(paths.root))


def store(paths: Paths) -> Path:
    return paths.var / "recognition"


def read_results(paths: Paths) -> dict[str, dict]:
    return {file.stem: json.loads(file.read_text()) for file in sorted(store(paths).glob("*.json"))}


def train_missing(paths: Paths, settings: Settings, minutes: float, only: list[str]) -> None:
    """Trains what is missing, in the order of the plan, and begins nothing after so many minutes."""
    from benchmarks.recognition.measure import measure

    until = time.monotonic() + 60 * minutes
    while piece := _next(settings, read_results(paths), only):
        if time.monotonic() > until:
            print(f"stopped after {minutes:g} minutes; the same command goes on")
            return
        key = piece.key(settings)
        keep = store(paths) / "models" / key if piece.part == "final" and piece.seed == 0 else None
        found = measure(piece, paths, settings, store(paths) / "checkpoints" / key, keep)
        write_json(store(paths) / f"{key}.json", {"budget": settings.training.budget, **found})
        seen = {name: round(found[name]["accuracy"], 4) for name in ("validation", "test", "unseen") if name in found}
        what = (piece.part, piece.kind, piece.optimizer, piece.learning_rate, piece.left_out, piece.changed)
        print(*filter(None, what), f"{found['cpu_s']:.0f} s", seen, flush=True)


def _next(settings: Settings, results: dict[str, dict], only: list[str]) -> plan.Piece | None:
    missing = (piece for piece in plan.pieces(settings, results) if piece.key(settings) not in results)
    return next((piece for piece in missing if piece.part in only), None)


def publish(paths: Paths, settings: Settings) -> None:
    """docs/recognition.json, which is all that the pages are written from: every piece of this plan that was measured.

    A piece that is not in the store stays as it was published, as long as it is of the present recipe. The figures stay
    as they are until every kind's grid is whole; those of another budget until this one has tested every kind once.
    """
    file, budget = paths.root / "docs" / "recognition.json", settings.training.budget
    before = json.loads(file.read_text()) if file.exists() else {"budget": budget, "pieces": {}}
    results = before["pieces"] | read_results(paths)
    keys = {piece.key(settings): piece for piece in plan.pieces(settings, results)}
    how = {kind: plan.chosen(results, kind, settings) for kind in plan.SPEECH_KINDS}
    tested = {keys[key].kind for key in keys if key in results and keys[key].part == "final"}
    if not all(how.values()) or (tested < set(plan.SPEECH_KINDS) and before["budget"] != budget):
        print(f"{file.name} stays as it is, of the budget {before['budget']}: trainings of {budget} are missing")
        return
    write_json(file, {"budget": budget, "chosen": how, "pieces": {key: results[key] for key in keys if key in results}})
