"""Every data stage over some items and over ten times as many: time, and the most memory held.

The items are made up: pictures of 28 x 28 pixels and half seconds of sound, no two of them alike.
"""

import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import psutil

from ml import media
from ml.config import MODALITIES, Paths, UserError, project_root
from ml.files import beside
from ml.sources.shards import Item, Listing, write_shards

CODE = Path(__file__).resolve().parents[1]
ROWS = {"images": 7_000, "audio": 300}
TIMES, LABELS, SPEAKERS, RATE_HZ = 10, 10, 60, 8000
LOOK_EVERY_S = 0.02
SHARD_ROWS = 10_000


@dataclass(frozen=True)
class Cost:
    """What a stage took: wall_s and cpu_s in seconds, and the most MB that it and its workers held together."""

    wall_s: float
    cpu_s: float
    peak_mb: float


def compare(_: Paths) -> Iterator[tuple[str, str, str]]:
    """Rows (stage, seconds and MB, ratios to a tenth of the items)."""
    for modality in MODALITIES:
        few, many = (measure(modality, ROWS[modality] * times) for times in (1, TIMES))
        for stage, cost in many.items():
            figure = f"{cost.wall_s:.1f} s, {cost.peak_mb:.0f} MB"
            ratios = (
                f"{cost.wall_s / few[stage].wall_s:.1f}x the time, {cost.peak_mb / few[stage].peak_mb:.2f}x the memory"
            )
            yield f"{modality}, {TIMES * ROWS[modality]} items, {stage}", figure, f"{ratios} of {ROWS[modality]} items"


def measure(modality: str, rows: int) -> dict[str, Cost]:
    """The cost of each stage over this many made-up items, in a folder of its own. Raises UserError where one fails."""
    with tempfile.TemporaryDirectory(prefix="seehear-") as folder:
        root = Path(folder)
        shutil.copy(project_root() / "params.yaml", root)
        new = str(beside(Paths(root, "folder").prepared(modality)))
        stages = {
            "raw": ["benchmarks.growth", modality, str(rows)],
            "facts": ["data_checks.facts", "folder", modality],
            "validated": ["data_checks.expectations", "validate", "folder", modality],
            "prepared": ["ml.datasets", "prepare", "folder", modality],
            "prepared, checked": ["data_checks.expectations", "prepared", "folder", modality, "--folder", new],
        }
        return {stage: _cost([sys.executable, "-m", *command], root) for stage, command in stages.items()}


def _cost(command: list[str], root: Path) -> Cost:
    start, peak, cpu_s = time.monotonic(), 0, {}
    with tempfile.TemporaryFile() as said:
        process = subprocess.Popen(
            command, cwd=CODE, env={**os.environ, "SEEHEAR_ROOT": str(root)}, stdout=said, stderr=subprocess.STDOUT
        )
        while not (done := os.wait4(process.pid, os.WNOHANG))[0]:
            peak = max(peak, _held(process.pid, cpu_s))
            time.sleep(LOOK_EVERY_S)
        process.returncode = os.waitstatus_to_exitcode(done[1])
        if process.returncode:
            said.seek(0)
            raise UserError(f"{' '.join(command[2:])}: {said.read().decode(errors='replace').strip().splitlines()[-1]}")
    own_s = done[2].ru_utime + done[2].ru_stime  # with those workers that it waited for, but not with theirs
    return Cost(time.monotonic() - start, max(own_s, sum(cpu_s.values())), peak / 1e6)


def _held(pid: int, cpu_s: dict[int, float]) -> int:
    """Bytes that a process and its workers hold just now; what they share counts once where Linux tells it.

    Notes in `cpu_s` what each of them has worked so far, since some end before anybody waits for them.
    """
    held = 0
    try:
        process = psutil.Process(pid)
        for one in (process, *process.children(recursive=True)):
            memory = one.memory_full_info()
            held += getattr(memory, "pss", memory.rss)
            cpu_s[one.pid] = sum(one.cpu_times()[:2])
    except psutil.NoSuchProcess:  # one that ended while we looked holds nothing
        pass
    return held


def made_up(modality: str, rows: int) -> Listing:
    """Items no two of which are alike, of ten classes that can be told apart."""
    make = {"images": _picture, "audio": _recording}[modality]
    items = (
        Item(f"{number:07d}", make(number), str(number % LABELS), group=_speaker(number)) for number in range(rows)
    )
    return Listing(items, rows, "")


def _speaker(number: int) -> str:
    return f"speaker{number // LABELS % SPEAKERS:02d}"


def _picture(number: int) -> bytes:
    rng = np.random.default_rng(number)
    coarse = rng.integers(0, 200, (7, 7), dtype=np.uint8)
    pixels = np.kron(coarse, np.ones((4, 4), np.uint8)) + rng.integers(0, 20, (28, 28), dtype=np.uint8)
    pixels[2 * (number % LABELS) + 4] = 255
    return media.encode_png(pixels)


def _recording(number: int) -> bytes:
    rng = np.random.default_rng(number)
    seconds = np.arange(RATE_HZ // 2) / RATE_HZ
    pitch_hz, loud = rng.uniform(90, 250), np.interp(seconds, np.linspace(0, 0.5, 9), [0, *rng.uniform(0.2, 1, 7), 0])
    strengths = rng.uniform(0.1, 1, 12) * np.exp(-(((np.arange(12) - number % LABELS) / 3) ** 2))
    tones = [s * np.sin(2 * np.pi * pitch_hz * (k + 1) * seconds) for k, s in enumerate(strengths)]
    return media.encode_wav(0.2 * loud * np.sum(tones, axis=0) + rng.normal(0, 0.002, len(seconds)), RATE_HZ)


if __name__ == "__main__":
    asked, count = sys.argv[1], int(sys.argv[2])
    write_shards(Paths(project_root(), "folder").raw(asked), "folder", made_up(asked, count), SHARD_ROWS)
