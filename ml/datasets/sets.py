"""Prepared sets as training and evaluation see them; what has not passed the checks is refused."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq

from ml.config import Paths, UserError
from ml.files import sha256_of


@dataclass(frozen=True)
class ImageSet:
    """Pictures with their labels and splits; `digest` names the content of the whole prepared set."""

    pixels: np.ndarray  # uint8 (n, height, width, channels), memory-mapped
    labels: np.ndarray  # int64 (n,), positions in classes
    split: np.ndarray  # str (n,): train, validation, gate or test
    group: np.ndarray  # str (n,): writer; "" where unknown
    ids: np.ndarray  # str (n,)
    classes: tuple[str, ...]
    digest: str

    def __len__(self) -> int:
        return len(self.labels)

    def where(self, *splits: str) -> ImageSet:
        """The rows of these splits. Copies their pixels."""
        return _rows(self, np.isin(self.split, splits), ("pixels", "labels", "split", "group", "ids"))


@dataclass(frozen=True)
class SpeechSet:
    """Recordings one behind the other, with their labels and splits."""

    samples: np.ndarray  # int16 (total,), memory-mapped
    offsets: np.ndarray  # int64 (n,), first sample of each clip
    lengths: np.ndarray  # int64 (n,), samples of each clip
    labels: np.ndarray  # int64 (n,), positions in classes
    split: np.ndarray  # str (n,): train, validation, gate or test
    group: np.ndarray  # str (n,): speaker; "" where unknown
    ids: np.ndarray  # str (n,)
    classes: tuple[str, ...]
    sample_rate_hz: int
    digest: str

    def __len__(self) -> int:
        return len(self.labels)

    def where(self, *splits: str) -> SpeechSet:
        """The rows of these splits, over the same samples."""
        return _rows(self, np.isin(self.split, splits), ("offsets", "lengths", "labels", "split", "group", "ids"))

    def of(self, group: str) -> SpeechSet:
        """The rows of one group (speaker), whatever their split."""
        return _rows(self, self.group == group, ("offsets", "lengths", "labels", "split", "group", "ids"))

    def clip(self, row: int) -> np.ndarray:
        """One recording as float32 (samples,) in [-1, 1)."""
        start = self.offsets[row]
        return self.samples[start : start + self.lengths[row]].astype(np.float32) / 32768


def _rows(whole, kept: np.ndarray, columns: tuple[str, ...]):
    return replace(whole, **{column: getattr(whole, column)[kept] for column in columns})


def extra_voices(paths: Paths, share: float) -> SpeechSet | None:
    """All clips of the starter's synthetic voices, for sources other than the starter; None for a share of 0."""
    if share == 0 or paths.source == "starter":
        return None
    return load_speech(replace(paths, source="starter"))


def joined(first: SpeechSet, second: SpeechSet) -> SpeechSet:
    """The clips of `first`, then those of `second` that say a class of `first`, in its numbering. Copies all samples.

    Raises UserError where the rates differ or no class is shared.
    """
    if first.sample_rate_hz != second.sample_rate_hz:
        raise UserError(f"extra voices: {second.sample_rate_hz} Hz: expected {first.sample_rate_hz} Hz as the others")
    number = np.array([first.classes.index(name) if name in first.classes else -1 for name in second.classes])
    second = _rows(second, number[second.labels] >= 0, ("offsets", "lengths", "labels", "split", "group", "ids"))
    if len(second) == 0:
        raise UserError(f"extra voices: they say none of {', '.join(first.classes)}")
    both = {
        column: np.concatenate((getattr(first, column), getattr(second, column)))
        for column in ("samples", "lengths", "split", "group", "ids")
    }
    return replace(
        first,
        **both,
        offsets=np.concatenate((first.offsets, second.offsets + len(first.samples))),
        labels=np.concatenate((first.labels, number[second.labels])),
        digest=f"{first.digest}+{second.digest}",
    )


def raw_digest(folder: Path, added: Sequence[Path] = ()) -> str:
    """SHA-256 over the names and SHA-256 of the Parquet shards of a raw folder, then of those added to it, in order."""
    files = sorted(folder.glob("*.parquet"))
    if not files:
        raise UserError(f"{folder}: holds no shards; run `dvc repro` for this source first")
    lines = (f"{sha256_of(file)}  {file.name}\n" for file in [*files, *added])
    return hashlib.sha256("".join(lines).encode()).hexdigest()


def require_validated(paths: Paths, modality: str, digest: str) -> None:
    """Refuse raw data of this digest unless its validation passed. Raises UserError saying what to do."""
    verdict = _read(paths.validated(modality) / "verdict.json", paths, modality)
    _require_passed(verdict, f"{paths.source} {modality}", paths)
    if verdict["raw_digest"] != digest:
        raise UserError(
            f"{paths.source} {modality}: this data has not been validated "
            f"(validated {verdict['raw_digest'][:12]}, here {digest[:12]}); run {_command(paths)}"
        )


def near_copies(paths: Paths, modality: str) -> dict[str, int]:
    """The cluster of every item that validation found to be a near copy of another, by id.

    Raises UserError where they were not sought.
    """
    file = paths.validated(modality) / "similar.parquet"
    if not file.is_file():
        raise UserError(f"{file}: expected the clusters of near copies, found none; run `dvc repro`")
    found = pq.read_table(file, columns=["id", "cluster"])
    return dict(zip(found["id"].to_pylist(), found["cluster"].to_pylist(), strict=True))


def load_images(paths: Paths) -> ImageSet:
    """The prepared pictures. Raises UserError unless they and the data they were made of passed their checks."""
    meta, index, digest = _verified(paths, "images")
    pixels = np.load(paths.prepared("images") / "pixels.npy", mmap_mode="r")
    common = _common(meta, index, digest)
    return ImageSet(pixels=pixels, **common)


def load_speech(paths: Paths) -> SpeechSet:
    """The prepared recordings. Raises UserError unless they and the data they were made of passed their checks."""
    meta, index, digest = _verified(paths, "audio")
    return SpeechSet(
        samples=np.load(paths.prepared("audio") / "samples.npy", mmap_mode="r"),
        offsets=np.asarray(index["offset"], np.int64),
        lengths=np.asarray(index["length"], np.int64),
        sample_rate_hz=meta["sample_rate_hz"],
        **_common(meta, index, digest),
    )


def _common(meta: dict, index: dict[str, list], digest: str) -> dict:
    position = {label: number for number, label in enumerate(meta["classes"])}
    return {
        "labels": np.array([position[label] for label in index["label"]], np.int64),
        "split": np.array(index["split"], str),
        "group": np.array([group or "" for group in index["group"]], str),
        "ids": np.array(index["id"], str),
        "classes": tuple(meta["classes"]),
        "digest": digest,
    }


def _verified(paths: Paths, modality: str) -> tuple[dict, dict[str, list], str]:
    folder = paths.prepared(modality)
    meta = _read(folder / "meta.json", paths, modality)
    require_validated(paths, modality, meta["raw_digest"])
    _require_passed(_read(folder / "verdict.json", paths, modality), f"{paths.source} prepared {modality}", paths)
    for name, expected in meta["digests"].items():
        if not (folder / name).is_file() or sha256_of(folder / name) != expected:
            raise UserError(f"{folder / name}: is not the file that was prepared; run {_command(paths)}")
    return meta, pq.read_table(folder / "index.parquet").to_pydict(), sha256_of(folder / "meta.json")


def _require_passed(verdict: dict, name: str, paths: Paths) -> None:
    if not verdict["passed"]:
        failed = [r["name"] for r in verdict["results"] if not r["success"] and r["severity"] == "error"]
        raise UserError(
            f"{name}: the data failed their checks ({', '.join(failed)}); "
            f"see reports/data_docs, put the data right and run {_command(paths)}"
        )


def _read(file: Path, paths: Paths, modality: str) -> dict:
    try:
        return json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        raise UserError(f"{file}: no such result for {paths.source} {modality}; run {_command(paths)}") from None


def _command(paths: Paths) -> str:
    return f"`.venv/bin/dvc repro {paths.pipeline.relative_to(paths.root)}`"
