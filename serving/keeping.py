"""Pictures and recordings as they were sent, kept only where serving.keep_media_days says so, and only that long.

They lie beside the prediction log as `media/date=YYYY-MM-DD/<request id>.image` and `.audio`, untouched, so that a
reviewed correction can become an item to train on. The service, and nobody who only reads, deletes the days that are
over, whether anything is kept today or not.
"""

from __future__ import annotations

import logging
import re
import threading
from collections.abc import Iterator, Mapping
from datetime import UTC, date, datetime, timedelta
from pathlib import Path

from ml.files import whole_file

logger = logging.getLogger("seehear.log")
MEDIA = "media"
KINDS = ("image", "audio")
REQUEST_ID = re.compile(r"[0-9a-f]{32}")
OURS = re.compile(r"[0-9a-f]{32}\.(image|audio)|\.[0-9a-f]{32}\.(image|audio)\.new")  # the latter: cut short by a kill


class KeptMedia:
    """What was sent, by request id.

    folder: where it lies; None keeps nothing. days: how long; 0 keeps nothing, and sweeping deletes what was kept.
    """

    def __init__(self, folder: Path | None, days: int = 0):
        self.folder, self.days = folder, days
        self._swept: date | None = None
        self._guard = threading.Lock()

    def keep(self, request_id: str, sent: Mapping[str, bytes]) -> None:
        """Write the files of a request: "image", "audio" or both. Raises OSError where that fails."""
        self.sweep()
        if self.folder is None or not self.days:
            return
        day = self.folder / f"date={_today()}"
        day.mkdir(parents=True, exist_ok=True)
        for kind, content in sent.items():
            with whole_file(day / f"{request_id}.{kind}") as draft:
                draft.write_bytes(content)

    def find(self, request_id: str) -> dict[str, bytes]:
        """The files of a request that are still kept, by kind."""
        if self.folder is None or not REQUEST_ID.fullmatch(request_id):
            return {}
        files = {kind: next(self.folder.glob(f"date=*/{request_id}.{kind}"), None) for kind in KINDS}
        return {kind: file.read_bytes() for kind, file in files.items() if file is not None}

    def sweep(self) -> None:
        """Delete the days that are over, once a day. A day from the future, left by a wrong clock, begins today."""
        with self._guard:
            if self._swept == _today():
                return
            self._swept = _today()
        try:
            self._delete_over()
        except OSError as fault:  # another worker may be at it, too
            logger.error("%s: not all that is over could be deleted: %s", self.folder, fault)

    def _delete_over(self) -> None:
        if self.folder is None:
            return
        today = _today()
        for folder, day in _days(self.folder):
            if day > today + timedelta(days=1):
                _merge(folder, self.folder / f"date={today}")
            elif day <= today - timedelta(days=self.days):
                for file in _ours(folder):
                    file.unlink(missing_ok=True)
                _remove_if_empty(folder)


def _today() -> date:
    return datetime.now(UTC).date()


def _days(folder: Path) -> Iterator[tuple[Path, date]]:
    for day in sorted(folder.glob("date=*")):
        try:
            yield day, date.fromisoformat(day.name.removeprefix("date="))
        except ValueError:
            continue  # not ours


def _merge(folder: Path, target: Path) -> None:
    target.mkdir(exist_ok=True)
    for file in _ours(folder):
        file.replace(target / file.name)
    _remove_if_empty(folder)


def _ours(folder: Path) -> list[Path]:
    """What was written here; whatever else somebody put into the folder stays as it is."""
    return [file for file in folder.iterdir() if OURS.fullmatch(file.name)]


def _remove_if_empty(folder: Path) -> None:
    if not any(folder.iterdir()):
        folder.rmdir()
