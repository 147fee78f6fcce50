"""Corrections on their way to the stored data: which may become items, who decides, and where they go.

Users correct answers; a person reviews the corrections (`seehear review`); what is accepted is added as labelled raw
items, as `seehear add` adds a folder. Only what was sent with consent and is still kept can become one.
"""

import fcntl
import json
import os
import shutil
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from data_checks import drift
from ml.config import MODALITIES, Paths, UserError
from ml.files import turn_at, whole_file
from ml.sources.folder import spelled
from orchestration.resources import now
from serving.keeping import MEDIA, KeptMedia

SIDES = {"images": "pictured", "audio": "heard"}
KINDS = {"images": "image", "audio": "audio"}  # of kept media
WAITING, ACCEPTED, REJECTED = "waiting", "accepted", "rejected"
REVIEW = ".review-"  # how the folder is named in which accepted corrections go to the stored data
ONE_WORD = "recognize_speech"  # what comes to the other endpoints may hold any words


@dataclass(frozen=True)
class Correction:
    """What one side of an answer should have said. state: WAITING, ACCEPTED, REJECTED, or why it cannot be accepted."""

    request_id: str
    modality: str
    answered: str | None
    label: str
    when: str
    state: str


def kept_media(paths: Paths) -> KeptMedia:
    """What the service keeps, to be read."""
    return KeptMedia(paths.prediction_log.parent / MEDIA)


class Corrections(list[Correction]):
    """unreadable: a line for every file of answers or corrections that could not be read."""

    unreadable: tuple[str, ...] = ()


def corrections(paths: Paths, media: KeptMedia, labels: Mapping[str, Sequence[str]]) -> Corrections:
    """Every correction with its state, oldest first. labels: those that are known, by modality."""
    decided = {(row["request_id"], row["modality"]): row["decision"] for row in _decisions(paths)}
    found, read = Corrections(), drift.read_corrections(paths.prediction_log)
    found.unreadable = read.attrs["unreadable"]
    for row in read.to_dict("records"):
        for modality, side in SIDES.items():
            if isinstance(row[side], str):
                state = decided.get((row["request_id"], modality)) or _state(row, modality, media, labels[modality])
                answered = row[f"answered_{side}"]
                answered = answered if isinstance(answered, str) else None
                when = row["time"].isoformat(timespec="seconds")
                found.append(Correction(row["request_id"], modality, answered, row[side], when, state))
    return found


def _state(row: Mapping, modality: str, media: KeptMedia, labels: Sequence[str]) -> str:
    if not isinstance(row["endpoint"], str):
        return "no such answer in the log"
    if row["consent"] is not True:
        return "no consent"
    if modality == "audio" and row["endpoint"] != ONE_WORD:
        return f"not one word: the recording came to /{row['endpoint']}"
    if modality == "images" and row["image_objects"] > 1:
        return f"not one thing: {row['image_objects']:.0f} were found in the picture"
    if row[SIDES[modality]] not in labels:
        return f"unknown label {row[SIDES[modality]]!r}"
    if KINDS[modality] not in media.find(row["request_id"]):
        return "what was sent is not kept"
    return WAITING


def remove_left(paths: Paths) -> None:
    """Remove the folders of people's voices and pictures that killed reviews left; those of living ones are locked."""
    for folder in paths.var.glob(f"{REVIEW}*"):
        with suppress(BlockingIOError, FileNotFoundError), _held(folder):
            shutil.rmtree(folder)


@contextmanager
def _held(folder: Path) -> Iterator[None]:
    """The folder locked, for nobody else to remove; the kernel frees the lock of a dead process."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        yield
    finally:
        os.close(handle)


@contextmanager
def as_folder(paths: Paths, media: KeptMedia, accepted: Sequence[Correction]) -> Iterator[Path]:
    """A folder laid out as `seehear add` takes it, with what was sent under its corrected label; gone afterwards.

    Raises UserError where something is no longer kept or a label cannot name a folder.
    """
    paths.var.mkdir(parents=True, exist_ok=True)
    folder = Path(tempfile.mkdtemp(prefix=REVIEW, dir=paths.var))
    try:
        with _held(folder):
            for one in accepted:
                content = media.find(one.request_id).get(KINDS[one.modality])
                if content is None:
                    raise UserError(f"{one.request_id}: what was sent is no longer kept")
                if one.label != spelled(one.label) or "/" in one.label or one.label.startswith("."):
                    raise UserError(f"{one.request_id}: {one.label!r} cannot be a label; expected a plain word")
                place = folder / one.modality / one.label
                place.mkdir(parents=True, exist_ok=True)
                (place / one.request_id).write_bytes(content)
            yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def decide(paths: Paths, decision: str, chosen: Sequence[Correction]) -> None:
    """Remember "accepted" or "rejected" in data/feedback/decisions.jsonl; the newest decision of a request counts."""
    told = {"decision": decision, "when": now()}
    about = [{"request_id": one.request_id, "modality": one.modality, "label": one.label, **told} for one in chosen]
    file = _file(paths)
    with turn_at(file.with_name(f".{file.name}.lock")), whole_file(file) as draft:
        draft.write_text("".join(json.dumps(row) + "\n" for row in [*_decisions(paths), *about]))


def _file(paths: Paths) -> Path:
    return paths.root / "data" / "feedback" / "decisions.jsonl"


def _decisions(paths: Paths) -> list[dict]:
    file = _file(paths)
    if not file.exists():
        return []
    lines = enumerate(file.read_text().splitlines(), 1)
    return [_decision(line, f"{file}, line {number}") for number, line in lines if line.strip()]


def _decision(line: str, where: str) -> dict:
    try:
        row = json.loads(line)
    except ValueError as fault:
        raise UserError(f"{where}: expected a JSON object: {fault}") from None
    if not (isinstance(row, dict) and {"request_id", "modality", "decision"} <= row.keys()):
        raise UserError(f"{where}: expected a JSON object with request_id, modality and decision")
    return row


def known_labels(paths: Paths, new: Sequence[str] = ()) -> dict[str, tuple[str, ...]]:
    """The labels of the prepared data, by modality, and those that are new on purpose."""
    known = {}
    for modality in MODALITIES:
        meta = paths.prepared(modality) / "meta.json"
        classes = json.loads(meta.read_text())["classes"] if meta.is_file() else []
        known[modality] = (*classes, *new)
    return known
