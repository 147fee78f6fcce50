"""The data card: what a source's data are, whose, what is wrong with them, and how they came to be what they are."""

from __future__ import annotations

from collections import Counter, defaultdict
from pathlib import Path

import pyarrow.parquet as pq

from data_checks.expectations.quarantine import QUARANTINE, RELEASED
from data_checks.expectations.verdicts import read_verdict
from ml.config import MODALITIES, Paths
from ml.files import whole_file
from ml.sources.shards import added_shards, item_batches, rows_of, shard_files

NAMED = 50  # items named in one list
MEASURED = {"images": ("width_px", "height_px", "channels"), "audio": ("sample_rate_hz", "channels")}


def card_file(paths: Paths) -> Path:
    return paths.reports / "data_card.md"


def write_card(paths: Paths) -> str:
    """Write reports/data_card.md about every modality that is stored, measured and validated; return its text.

    Raises UserError where shards or a verdict cannot be read.
    """
    made = [modality for modality in MODALITIES if _is_there(paths, modality)]
    text = "\n".join([f"# Data card: {paths.source}", *(_section(paths, modality) for modality in made)]) + "\n"
    with whole_file(card_file(paths)) as new:
        new.write_text(text, encoding="utf-8")
    return text


def _is_there(paths: Paths, modality: str) -> bool:
    """A clone may have pulled some of it."""
    released, facts = paths.validated(modality) / RELEASED, paths.facts(modality)
    return released.is_file() and facts.is_file() and any(paths.raw(modality).glob("*.parquet"))


def _section(paths: Paths, modality: str) -> str:
    parts = (
        ("Origin", _origin(paths, modality)),
        ("Items of each label and split", _counts(paths, modality)),
        ("Shapes and rates", _shapes(paths, modality)),
        ("Known defects", _defects(paths, modality)),
        ("Set aside", _named(paths, modality, QUARANTINE, ("id", "shard", "reason"))),
        ("Released after review", _named(paths, modality, RELEASED, ("id", "reason", "review"))),
        ("History", _history(paths, modality)),
    )
    return "\n".join([f"\n## {modality}", *(f"\n### {title}\n\n{body}" for title, body in parts)])


def _origin(paths: Paths, modality: str) -> str:
    counted: Counter[tuple[str, str]] = Counter()
    groups: set[str | None] = set()
    for _, batch in item_batches(paths, modality, ("source", "licence", "group")):
        counted.update(zip(batch["source"].to_pylist(), batch["licence"].to_pylist(), strict=True))
        groups.update(batch["group"].to_pylist())
    rows = [(source, licence or "not stated", count) for (source, licence), count in sorted(counted.items(), key=str)]
    people = {"images": "writers", "audio": "speakers"}[modality]
    return f"{_table(('source', 'licence', 'items'), rows)}\n\n{len(groups - {None}) or 'No'} known {people}."


def _counts(paths: Paths, modality: str) -> str:
    """By the split of the prepared set where there is one, else by the publisher's."""
    prepared = paths.prepared(modality) / "index.parquet"
    table = pq.read_table(prepared if prepared.is_file() else paths.facts(modality), columns=["label", "split"])
    counts: dict[str, Counter[str]] = defaultdict(Counter)
    for label, split in zip(table["label"].to_pylist(), table["split"].to_pylist(), strict=True):
        counts[label or "none"][split or "unsplit"] += 1
    splits = sorted({split for own in counts.values() for split in own})
    return _table(("label", *splits), [(label, *(counts[label][s] for s in splits)) for label in sorted(counts)])


def _shapes(paths: Paths, modality: str) -> str:
    columns = pq.read_table(paths.facts(modality), columns=list(MEASURED[modality])).to_pydict()
    counted = Counter(zip(*columns.values(), strict=True))
    rows = [(*shape, count) for shape, count in counted.most_common(10)]
    more = f"\n\nand {len(counted) - 10} more" if len(counted) > 10 else ""
    return _table((*columns, "items"), rows) + more


def _defects(paths: Paths, modality: str) -> str:
    verdict = read_verdict(paths.validated(modality))
    rows = [
        (result.name, result.severity, result.unexpected_count, result.reason)
        for result in verdict.results
        if result.unexpected_count or not result.success
    ]
    return _table(("expectation", "severity", "items", "why it is expected"), rows)


def _named(paths: Paths, modality: str, file: str, columns: tuple[str, ...]) -> str:
    rows = pq.read_table(paths.validated(modality) / file, columns=list(columns)).to_pylist()
    more = f"\n\nand {len(rows) - NAMED} more" if len(rows) > NAMED else ""
    return _table(columns, [tuple(row.values()) for row in rows[:NAMED]]) + more


def _history(paths: Paths, modality: str) -> str:
    base = sum(rows_of(file) for file in shard_files(paths.raw(modality)))
    added = [(file.stem, rows_of(file)) for file in added_shards(paths, modality)]
    return _table(("shard", "rows"), [("from the source", base), *added])


def _table(columns: tuple[str, ...], rows: list[tuple]) -> str:
    if not rows:
        return "none"
    lines = [columns, ("---",) * len(columns), *rows]
    return "\n".join("| " + " | ".join(str(cell).replace("|", "\\|") for cell in line) + " |" for line in lines)
