"""The model at work, and how a running worker changes to the champion without dropping a request.

A new model is loaded beside the old one, verified, asked its golden requests, and only then takes its place by one
assignment. Who asked before it keeps the model that he asked.
"""

from __future__ import annotations

import json
import os
import threading
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from ml.config import Paths, UserError
from serving.answering import load_predictor
from serving.packaging import Champion, read_champion, stored_bundle

if TYPE_CHECKING:
    from ml.predictor import Predictor

LOOK_S = 0.5  # how often the pointer is looked at


@dataclass(frozen=True)
class AtWork:
    """A model that answers, and the bundle it comes from."""

    predictor: Predictor
    bundle: Path

    @property
    def golden(self) -> Path:
        return self.bundle / "golden"


def take_up(bundle: Path, device: str, warm_up: Callable[[Predictor, bytes, bytes], object]) -> AtWork:
    """Load a bundle, every file of which is verified, let it answer its golden requests, and warm it up on them.

    warm_up: called with the predictor, a picture and a recording. Raises UserError where the model is not fit.
    """
    import torch  # seconds, which only those who answer need

    from ml.predictor import read_goldens

    torch.set_num_threads(1)  # requests run beside each other, each on a core of its own
    predictor = load_predictor(bundle, device)
    predictor.check_golden()
    for golden in read_goldens(bundle):
        warm_up(predictor, golden.picture, golden.recording)
    return AtWork(predictor, bundle)


class Champions:
    """The champion's pointer as a running service sees it."""

    def __init__(self, paths: Paths):
        self.paths = paths
        self._seen: tuple | None = None

    def changed(self) -> bool:
        """Whether the pointer has been replaced since this was last asked."""
        try:
            found = os.stat(self.paths.champion)
        except OSError:  # not there, or not to be read just now: the next look tells
            return False
        seen, self._seen = self._seen, (found.st_ino, found.st_mtime_ns, found.st_size)
        return self._seen != seen

    def bundle(self) -> Path:
        """The champion's bundle. Raises UserError where it is not there or not the model that the pointer names."""
        return self._stored(read_champion(self.paths))

    def bundles(self) -> list[Callable[[], Path]]:
        """What a starting worker tries in turn: the champion, then the one before it."""
        return [self.bundle, self._former]

    def _former(self) -> Path:
        former = json.loads(self.paths.champion.read_text()).get("previous")
        if not former:
            raise UserError(f"{self.paths.champion}: names no former champion")
        return self._stored(Champion(former["tag"], former["digest"]))

    def _stored(self, champion: Champion) -> Path:
        bundle = stored_bundle(champion.tag, self.paths)
        stated = json.loads((bundle / "manifest.json").read_text())["digest"]
        if stated != champion.digest:
            raise UserError(f"{bundle}: expected the model {champion.digest}, got {stated}")
        return bundle


class Follower:
    """Watches the pointer in a thread of its own and calls `change` with the bundle of every new champion.

    refuse: called with what went wrong where there is none, or `change` does not take it.
    """

    def __init__(self, champions: Champions, change: Callable[[Path], None], refuse: Callable[[Exception], None]):
        self._champions, self._change, self._refuse = champions, change, refuse
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._run, name="follower", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        self._over.set()

    def _run(self) -> None:
        while not self._over.wait(LOOK_S):
            if self._champions.changed():
                self._follow()

    def _follow(self) -> None:
        try:
            self._change(self._champions.bundle())
        except Exception as fault:  # whatever is wrong with a new model, the old one goes on answering
            self._refuse(fault)
