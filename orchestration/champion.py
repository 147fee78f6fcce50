"""The champion: the pointer that names it, its whole history, and the way back to a former one.

models/champion.json is replaced in one step. models/history.jsonl only ever grows: one line for every promotion, every
challenger that was kept out, and every rollback; a line that a kill cut short is skipped.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from contextlib import AbstractContextManager
from pathlib import Path
from uuid import uuid4

from ml.config import Paths, UserError
from ml.files import turn_at
from orchestration.resources import now
from serving import packaging

PROMOTED, KEPT, ROLLED_BACK = "promoted", "kept", "rolled_back"
CARRIED = ("tag", "digest", "metrics", "reference", "data", "added", "weights", "made_of")  # by pointer and history


def usable_pointer(paths: Paths) -> dict:
    """The pointer. Raises UserError in one line where it is gone, or names a model whose files are gone."""
    pointer = packaging.read_pointer(paths)
    if pointer is None:
        way_back = ", or `seehear rollback` to take up the last one" if history(paths) else ""
        raise UserError(f"{paths.champion}: there is no champion; run `make run`{way_back}")
    try:
        packaging.stored_bundle(pointer["tag"], paths)
    except UserError:
        gone = f"{paths.champion}: its model {pointer['tag']} is gone from {paths.bentoml}"
        raise UserError(
            f"{gone}; `seehear rollback` takes up a former one, the service goes on with what it has"
        ) from None
    return pointer


def is_whole(paths: Paths) -> bool:
    """Whether there is a champion whose every file has the bytes that it was stored with."""
    try:
        bundle = packaging.stored_bundle(usable_pointer(paths)["tag"], paths)
    except UserError:
        return False
    return packaging.is_whole(bundle)


def reference_file(paths: Paths) -> Path:
    """What drift is measured against: the champion's own answers about validation and gate.

    Raises UserError where there is no champion yet.
    """
    pointer = packaging.read_pointer(paths)
    if pointer is None:
        raise UserError(f"{paths.champion}: there is no champion yet; run `make run` first")
    return paths.champion.parent / "references" / pointer["reference"]


def one_at_a_time(paths: Paths) -> AbstractContextManager[None]:
    """Hold the champion still from looking at it to replacing it."""
    return turn_at(paths.champion.with_name(f".{paths.champion.name}.lock"))


def appoint(
    paths: Paths, model: Mapping, event: str, reason: str, run: str, former: Mapping | None, at: str | None = None
) -> dict:
    """Point at a stored model that was verified, and keep that in the history; returns the pointer.

    model: the fields CARRIED. former: whom a service falls back to that cannot load this one. at: ISO 8601; None: now.
    """
    left = present(paths)
    fields = {name: model.get(name) for name in CARRIED}
    pointer = {**fields, "since": at or now(), "reason": reason, "run": run, "previous": _bare(former)}
    paths.champion.parent.mkdir(parents=True, exist_ok=True)
    keep(paths, {"at": pointer["since"], "event": event, "reason": reason, "run": run, "left": _named(left), **fields})
    write_pointer(paths, pointer)
    return pointer


def _named(pointer: Mapping | None) -> dict | None:
    return {name: pointer.get(name) for name in ("tag", "digest", "weights", "made_of")} if pointer else None


def _bare(pointer: Mapping | None) -> dict | None:
    return {name: pointer.get(name) for name in (*CARRIED, "since", "reason")} if pointer else None


def write_pointer(paths: Paths, pointer: Mapping) -> None:
    """Replace the pointer in one step."""
    draft = paths.champion.with_name(f".{paths.champion.name}.{uuid4().hex}.part")
    try:
        with draft.open("w") as file:
            json.dump(pointer, file, indent=1)
            file.flush()
            os.fsync(file.fileno())
        draft.replace(paths.champion)
    finally:
        draft.unlink(missing_ok=True)


# ------------------------------------------------------------------------------------------------------------ history


def history_file(paths: Paths) -> Path:
    return paths.champion.with_name("history.jsonl")


def keep(paths: Paths, row: Mapping) -> None:
    """Append one event to the history."""
    file = history_file(paths)
    file.parent.mkdir(parents=True, exist_ok=True)
    rows = [row] if file.is_file() else [*_remembered(paths), row]
    torn = file.is_file() and not file.read_bytes().endswith(b"\n")
    with file.open("a", encoding="utf-8") as out:
        out.write("\n" * torn + "".join(f"{json.dumps(one, ensure_ascii=False)}\n" for one in rows))
        out.flush()
        os.fsync(out.fileno())


def history(paths: Paths) -> list[dict]:
    """Every event, the oldest first; before the first one kept, what the pointer itself remembers."""
    file = history_file(paths)
    rows = []
    for line in file.read_text(encoding="utf-8").splitlines() if file.is_file() else ():
        try:
            rows.append(json.loads(line))
        except ValueError:  # cut short by a kill
            continue
    return rows or _remembered(paths)


def _remembered(paths: Paths) -> list[dict]:
    try:
        pointer = packaging.read_pointer(paths)
    except UserError:
        return []
    told = [one for one in ((pointer or {}).get("previous"), pointer) if one]
    return [{"at": one.get("since"), "event": PROMOTED, "left": None, **one} for one in told]


def _changes(paths: Paths) -> list[dict]:
    """The events that made another model champion, the oldest first.

    A kill between the history's line and the pointer leaves a line of a model that never reigned: what comes next (the
    next change, for the last one the pointer) has left another.
    """
    rows = [row for row in history(paths) if row["event"] != KEPT]
    left = [row.get("left") for row in [*rows, {"left": present(paths)}][1:]]
    return [row for row, gone in zip(rows, left, strict=True) if not gone or gone["digest"] == row["digest"]]


def withdrawn(paths: Paths) -> list[dict]:
    """The models that were rolled back and not taken up since: as `left` names them, with `at` and `reason`."""
    out: dict[str, dict] = {}
    for row in _changes(paths):
        if row["event"] == ROLLED_BACK and row.get("left"):
            out[row["left"]["digest"]] = {**row["left"], "at": row["at"], "reason": row["reason"]}
        out.pop(row["digest"], None)
    return list(out.values())


def reigns(paths: Paths) -> list[dict]:
    """Who was champion since when, until when, on which data, and why; the newest first."""
    rows = _changes(paths)
    ends = [row["at"] for row in rows[1:]] + [""]
    return [
        {
            "champion": row["tag"],
            "since": row["at"] or "not known",
            "until": end,
            "by": row["event"],
            "why": row["reason"],
            "data": ", ".join(f"{name} {version[:8]}" for name, version in sorted((row.get("data") or {}).items())),
        }
        for row, end in zip(rows, ends, strict=True)
    ][::-1]


# ----------------------------------------------------------------------------------------------------------- rollback


def roll_back(paths: Paths, reason: str, to: str | None = None, run: str = "", at: str | None = None) -> dict:
    """Take up a former champion, loaded and verified before anything changes; returns the pointer.

    to: its version, tag, or the beginning of its digest; None: the one before the present. Raises UserError where the
    reason is empty, there is no such champion, or its files are not whole.
    """
    if not reason.strip():
        raise UserError("a rollback needs a reason, which the history keeps")
    with one_at_a_time(paths):
        now_at_work = present(paths)
        digest = now_at_work["digest"] if now_at_work else None
        target = _named_in(champions(paths), to) if to else _before(paths, digest)
        if target["digest"] == digest and _stands(paths):
            raise UserError(f"{target['tag']}: is the champion already")
        verify(paths, target["tag"], target["digest"])
        former = _fallback(paths, {target["digest"], digest})
        return appoint(paths, target, ROLLED_BACK, reason.strip(), run, former, at)


def champions(paths: Paths) -> list[dict]:
    """Every model that was ever promoted, the oldest first, each once."""
    return list({row["digest"]: row for row in history(paths) if row["event"] == PROMOTED}.values())


def present(paths: Paths) -> dict | None:
    """The champion as its pointer names it; where that is gone or says nothing, as the history does."""
    try:
        if pointer := packaging.read_pointer(paths):
            return pointer
    except UserError:
        pass
    return next((row for row in reversed(history(paths)) if row["event"] != KEPT), None)


def _stands(paths: Paths) -> bool:
    try:
        return bool(usable_pointer(paths))
    except UserError:
        return False


def _before(paths: Paths, digest: str | None) -> dict:
    """The last champion before the one of this digest; that itself where no pointer names it any more."""
    if found := _fallback(paths, {digest} if _names_one(paths) else set()):
        return found
    raise UserError("there is no former champion to go back to")


def _names_one(paths: Paths) -> bool:
    try:
        return packaging.read_pointer(paths) is not None
    except UserError:
        return False


def _fallback(paths: Paths, but: set[str | None]) -> dict | None:
    """The last champion but for these, and for those that were rolled back."""
    out = but | {row["digest"] for row in withdrawn(paths)}
    rows = [row for row in _changes(paths) if row["digest"] not in out]
    return rows[-1] if rows else None


def _named_in(former: list[dict], to: str) -> dict:
    known = [row for row in former if to in (row["tag"], row["tag"].partition(":")[2]) or row["digest"].startswith(to)]
    if len(known) != 1:
        named = ", ".join(row["tag"] for row in former) or "none"
        raise UserError(f"{to}: expected one of the former champions, got {len(known)} of them; they are {named}")
    return known[0]


def verify(paths: Paths, tag: str, digest: str) -> None:
    """Load a stored model, all files checked, and ask it its golden requests. Raises UserError where it is unfit."""
    from ml.predictor import Predictor

    predictor = Predictor.load(packaging.stored_bundle(tag, paths))
    if predictor.digest != digest:
        raise UserError(f"{tag}: expected the model {digest}, got {predictor.digest}")
    predictor.check_golden()
