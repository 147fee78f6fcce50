"""Data added later: one more shard in data/added/<source>/<modality>/, whose rows add, replace or remove items.

Nothing that is stored is ever rewritten. A shard counts once DVC tracks it (its .dvc file stands beside it), and what
reads the items reads them as the later shards amend the earlier ones (ml.sources.shards.item_batches).
"""

from __future__ import annotations

import hashlib
import json
import re
import shlex
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from tqdm import tqdm

from ml.config import MODALITIES, Paths, UserError
from ml.files import beside, sha256_of
from ml.sources import archives, folder
from ml.sources.shards import (
    BATCH_BYTES,
    BATCH_ROWS,
    SCHEMA,
    Item,
    added_shards,
    amended_batches,
    item_batches,
    last_rows,
    shard_files,
    table_of,
)

STAMP = "%Y%m%dT%H%M%SZ"
STAMPED = re.compile(r"(\d{8}T\d{6}Z)-")
FAULTS_SHOWN = 20
NOTHING = "nothing"  # the version where nothing was added
SOURCE = "folder"  # what is added comes as the source `folder` does, whatever the rest came from


class Refused(UserError):
    """Several faults, one line each; nothing was added."""

    def __init__(self, faults: Sequence[str]):
        more = [f"… and {len(faults) - FAULTS_SHOWN} more"] if len(faults) > FAULTS_SHOWN else []
        super().__init__("\n".join([*faults[:FAULTS_SHOWN], *more]))


@dataclass(frozen=True)
class Addition:
    """What one shard brings. `file` is None where everything was stored already; `labels` counts the new rows."""

    modality: str
    file: Path | None
    labels: Mapping[str, int] = field(default_factory=dict)
    removed: int = 0
    known: int = 0

    @property
    def rows(self) -> int:
        return sum(self.labels.values()) + self.removed


def version(paths: Paths, modality: str) -> str | None:
    """DVC's hash of a folder with the shards added so far; None where there are none."""
    files = _dvc_files(paths, modality)
    return version_of(files) if files else None


def version_of(tracked: Sequence[Path]) -> str:
    """DVC's hash of a folder with just the shards of these .dvc files."""
    return _folder_hash(_row(file) for file in tracked)


def tracked_at(paths: Paths, modality: str, dependency: str) -> list[Path]:
    """.dvc files of the shards that were there when DVC's hash of the folder, with the .dvc files, was `dependency`.

    Shards only ever come, so they are the first so many; all, where it is none of these states.
    """
    files = _dvc_files(paths, modality)
    own = {file: {"md5": hashlib.md5(file.read_bytes()).hexdigest(), "relpath": file.name} for file in files}
    for count in range(len(files), -1, -1):
        if _folder_hash(row for file in files[:count] for row in (_row(file), own[file])) == dependency:
            return files[:count]
    return files


def _dvc_files(paths: Paths, modality: str) -> list[Path]:
    return sorted(paths.added(modality).glob("*.parquet.dvc"))


def _row(tracked: Path) -> dict[str, str]:
    """What DVC lists of a shard."""
    import yaml

    out = yaml.safe_load(tracked.read_text())["outs"][0]
    return {"md5": out["md5"], "relpath": out["path"]}


def _folder_hash(rows: Iterable[Mapping[str, str]]) -> str:
    listing = sorted(rows, key=lambda row: row["relpath"])
    return hashlib.md5(json.dumps(listing, sort_keys=True).encode()).hexdigest() + ".dir"


def history(paths: Paths, modality: str) -> list[dict[str, str | int]]:
    """What every added shard did, oldest first: when, how many items it added, changed and removed, and its file."""
    told = []
    for file in added_shards(paths, modality):
        stamp = file.name.partition("-")[0]
        rows = pq.read_table(file, columns=["id", "label"]).to_pylist()
        removed = sum(row["label"] is None for row in rows)
        new = sum(row["id"].startswith(f"{stamp}/") for row in rows if row["label"] is not None)
        counts = {"added": new, "changed": len(rows) - new - removed, "removed": removed}
        told.append({"when": stamp, **counts, "file": file.name})
    return told


def add_folder(paths: Paths, place: Path, group_pattern: str | None = None) -> list[Addition]:
    """Write the items of a folder or archive that are not stored yet as one shard for each modality it holds.

    place: laid out as the source `folder` is; either modality may be absent. All is checked before any shard is in its
    place. Raises UserError where the layout is another; Refused, with a line for each, where files cannot be decoded or
    are stored under another label.
    """
    held = [modality for modality in MODALITIES if _holds(place, modality)]
    if not held:
        raise UserError(f"{place}: holds neither images/<label>/* nor audio/<label>/*")
    checks = {modality: _Check(paths, modality) for modality in held}

    def rows(modality: str, stamp: str) -> Iterator[pa.Table]:
        listing = folder.listing(str(place), modality, paths.root, group_pattern)
        seen = tqdm(listing.items, total=listing.total, desc=f"{modality} to add", unit="", disable=None)
        new = filter(checks[modality].is_new, seen)
        for items in _some(new):
            named = [Item(f"{stamp}/{item.id}", item.content, item.label, None, item.group) for item in items]
            yield table_of(named, SOURCE, listing.licence)

    written = _write(paths, held, rows, lambda: _refuse([line for check in checks.values() for line in check.faults]))
    return [_described(modality, file, checks[modality].known) for modality, file in written.items()]


def remove(paths: Paths, modality: str, ids: Sequence[str]) -> Addition:
    """Write a shard that takes these items out. Raises Refused, with a line for each that is not stored."""
    ids = list(dict.fromkeys(ids))
    _shards_of(paths, modality, ids)
    gone = {"id": ids, "source": [SOURCE] * len(ids)}
    columns = {name: gone.get(name, [None] * len(ids)) for name in SCHEMA.names}
    return _one(paths, modality, pa.table(columns, schema=SCHEMA))


def relabel(paths: Paths, modality: str, labels: Mapping[str, str]) -> Addition:
    """Write a shard that gives items (id → label) another label, all else as it is.

    Raises Refused, with a line for each that is not stored.
    """
    labels = {name: folder.spelled(label.strip()) for name, label in labels.items()}
    if unlabelled := [name for name, label in labels.items() if not label]:
        raise Refused([f"{name}: an empty label, expected a word" for name in unlabelled])
    holders = _shards_of(paths, modality, list(labels))
    base = [file for file in shard_files(paths.raw(modality)) if file.name in holders]
    wanted = pa.array(labels, pa.string())
    rows = [
        row
        for _, batch in amended_batches(base, added_shards(paths, modality))
        for row in batch.filter(pc.is_in(batch["id"], value_set=wanted)).to_pylist()  # type: ignore[attr-defined]
    ]
    changed = [row | {"label": labels[row["id"]]} for row in rows if row["label"] != labels[row["id"]]]
    if not changed:
        return Addition(modality, None, known=len(rows))
    return _one(paths, modality, pa.Table.from_pylist(changed, SCHEMA))


def unfinished(paths: Paths, modality: str) -> list[Path]:
    """Shards that were in their place when the addition was killed, and that DVC does not track yet."""
    files = sorted(paths.added(modality).glob("*.parquet"))
    return [f for f in files if not _tracked(f).exists() and f.stem.rpartition("-")[2] == sha256_of(f)[:12]]


def _tracked(shard: Path) -> Path:
    return shard.with_name(f"{shard.name}.dvc")


def _holds(place: Path, modality: str) -> bool:
    if archives.is_archive(place):
        return any(folder.modality_of(member.parts[:-1]) == modality for member in archives.members(place))
    return (place / modality).exists()


class _Check:
    """Tells what is new from what is stored, and collects what is wrong."""

    def __init__(self, paths: Paths, modality: str):
        self._decode = _DECODE[modality]
        self._modality = modality
        self._stored = _contents(paths, modality)
        self._new: set[str] = set()
        self.faults: list[str] = []
        self.known = 0

    def is_new(self, item: Item) -> bool:
        """Whether the item is to be stored; where its label contradicts a stored one, or it is damaged, a fault."""
        name = f"{self._modality}/{item.id}"
        mark = hashlib.sha256(item.content).hexdigest()
        if (stored := self._stored.get(mark)) is None:
            self._stored[mark] = (name, item.label)
            self._new.add(mark)
            self._decodes(item.content, name)
            return True
        self.known += 1
        if stored[1] != item.label:
            use = shlex.join(["seehear", "relabel", self._modality, stored[0], item.label])
            remedy = "keep one of them" if mark in self._new else f"use `{use}`"
            self.faults.append(f"{name}: the same bytes are {stored[0]}, labelled {stored[1]!r}; {remedy}")
        return False

    def _decodes(self, content: bytes, name: str) -> None:
        try:
            self._decode(content, name)
        except UserError as fault:
            self.faults.append(str(fault))


def _decode_picture(content: bytes, name: str) -> None:
    from ml import media

    media.decode_picture(content, name=name)


def _decode_recording(content: bytes, name: str) -> None:
    from ml import media

    media.decode_recording(content, name=name)


_DECODE: dict[str, Callable[[bytes, str], None]] = {"images": _decode_picture, "audio": _decode_recording}


def _contents(paths: Paths, modality: str) -> dict[str, tuple[str, str]]:
    """SHA-256 of every stored item → its id and label: as measured, where it was, and as the added shards amend it."""
    base, added = sorted(paths.raw(modality).glob("*.parquet")), added_shards(paths, modality)
    found: dict[str, tuple[str, str]] = {}
    if paths.facts(modality).is_file():  # which spares reading every byte
        facts = pq.read_table(paths.facts(modality), columns=["sha256", "id", "label"])
        kept = facts.filter(pc.invert(pc.is_in(facts["id"], value_set=pa.array(last_rows(added), pa.string()))))  # type: ignore[attr-defined]
        base, found = [], dict(zip(kept["sha256"].to_pylist(), _pairs(kept), strict=True))
    for _, batch in amended_batches(base, added, ("id", "label", "bytes")):
        marks = [hashlib.sha256(content).hexdigest() for content in batch["bytes"].to_pylist()]
        found |= dict(zip(marks, _pairs(batch), strict=True))
    return found


def _pairs(rows: pa.Table | pa.RecordBatch) -> Iterator[tuple[str, str]]:
    return zip(rows["id"].to_pylist(), rows["label"].to_pylist(), strict=True)


def _shards_of(paths: Paths, modality: str, ids: Sequence[str]) -> set[str]:
    """Names of the shards that hold these items now. Raises Refused where some are nowhere."""
    wanted, seen, shards = pa.array(ids, pa.string()), set(), set()
    for shard, batch in item_batches(paths, modality, ("id",), 10_000):
        if found := batch["id"].filter(pc.is_in(batch["id"], value_set=wanted)).to_pylist():  # type: ignore[attr-defined]
            seen.update(found)
            shards.add(shard)
    _refuse([f"{name}: no such item among the {modality} of {paths.source}" for name in ids if name not in seen])
    return shards


def _refuse(faults: Sequence[str]) -> None:
    if faults:
        raise Refused(faults)


def _some(items: Iterable[Item]) -> Iterator[list[Item]]:
    """Items in lists of bounded length and size."""
    some, size = [], 0
    for item in items:
        some.append(item)
        size += len(item.content)
        if len(some) >= BATCH_ROWS or size >= BATCH_BYTES:
            yield some
            some, size = [], 0
    if some:
        yield some


def _one(paths: Paths, modality: str, rows: pa.Table) -> Addition:
    written = _write(paths, [modality], lambda *_: iter([rows]), lambda: None)
    return _described(modality, written[modality], 0)


def _write(
    paths: Paths,
    modalities: Sequence[str],
    rows: Callable[[str, str], Iterator[pa.Table]],
    check: Callable[[], None],
) -> dict[str, Path | None]:
    """One shard for each modality, in its place when all are written and `check` did not raise; None where no rows."""
    with ExitStack() as undo:
        new: dict[str, tuple[Path, str]] = {}
        for modality in modalities:
            stamp = _stamp(paths.added(modality))
            paths.added(modality).mkdir(parents=True, exist_ok=True)
            file = beside(paths.added(modality) / f"{stamp}.parquet")
            undo.callback(file.unlink, missing_ok=True)
            if _write_shard(file, rows(modality, stamp)):
                new[modality] = (file, stamp)
        check()
        placed: dict[str, Path | None] = dict.fromkeys(modalities)
        for modality, (file, stamp) in new.items():
            placed[modality] = file.rename(paths.added(modality) / f"{stamp}-{sha256_of(file)[:12]}.parquet")
        return placed


def _write_shard(file: Path, tables: Iterator[pa.Table]) -> int:
    rows = 0
    with pq.ParquetWriter(file, SCHEMA, compression="zstd", use_dictionary=False) as writer:
        for table in tables:
            writer.write_table(table)
            rows += len(table)
    return rows


def _stamp(place: Path) -> str:
    """The time of an addition, always after the last one's: their order decides what counts."""
    now = datetime.now(UTC).replace(microsecond=0)
    former = [found[1] for file in place.glob("*.parquet*") if (found := STAMPED.match(file.name))]
    if former:
        now = max(now, datetime.strptime(max(former), STAMP).replace(tzinfo=UTC) + timedelta(seconds=1))
    return now.strftime(STAMP)


def _described(modality: str, file: Path | None, known: int) -> Addition:
    if file is None:
        return Addition(modality, None, known=known)
    labels = Counter(pq.read_table(file, columns=["label"])["label"].to_pylist())
    removed = labels.pop(None, 0)
    return Addition(modality, file, dict(labels), removed, known)
