"""/extract of a 3 s recording: ours beside the Predictor called directly, LitServe, and FastAPI behind uvicorn.

The peers serve the same Predictor with the same decoding and the same answer, each in as many processes as ours, from
an environment of their own under var/bench that borrows torch and the rest from this one. All run at the same time and
are asked in turn, so that whatever else the machine does hits them alike.
"""

from __future__ import annotations

import http.client
import os
import statistics
import subprocess
import sys
import sysconfig
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from pathlib import Path

import numpy as np

from ml import media
from ml.config import Paths, UserError, load_settings
from ml.predictor import Predictor, read_goldens
from serving import client, packaging

PINNED = ("fastapi==0.165.0", "litserve==0.2.19", "annotated-doc==0.0.7")
PEERS = {"litserve": "LitServe", "fastapi": "FastAPI and uvicorn"}
RECORDING_S = 3.0
ONE_BY_ONE = 100
CLIENTS = 8
AT_ONCE_S = 4.0
ROUNDS = 5
START_S = 120.0

Ask = Callable[[], None]


def compare(paths: Paths) -> Iterator[tuple[str, str, str]]:
    """Rows (name, figure, ratio): milliseconds of one client, then answers a second of eight."""
    import torch

    torch.set_num_threads(1)  # as in every server: requests run beside each other, each on a core of its own
    tag = packaging.read_champion(paths).tag
    bundle, bento = packaging.stored_bundle(tag, paths), packaging.bento_of(tag, paths)
    python, workers = _environment(paths), load_settings(paths.root).serving.workers
    predictor, (picture, recording) = Predictor.load(bundle), _request(bundle)

    def direct() -> None:
        predictor.extract(media.decode_picture(picture), *media.decode_recording(recording))

    with ExitStack() as running:
        asks = {"direct": direct}
        log = running.enter_context(tempfile.TemporaryDirectory())  # answers are logged, but not among the real ones
        own = {"SEEHEAR_LOG": log, "SEEHEAR_DEVICE": "cpu"}  # as all others here
        url = running.enter_context(client.serve(bento, paths, env=own, workers=workers))
        asks["ours"] = _asker(url, picture, recording)
        for name in PEERS:
            url = running.enter_context(_peer(python, name, bundle, workers))
            asks[name] = _asker(url, picture, recording)
        yield from _latencies(_one_by_one(asks))
        yield from _throughputs(_at_once(asks))


def _latencies(taken_ms: dict[str, float]) -> Iterator[tuple[str, str, str]]:
    for name, found_ms in taken_ms.items():
        over = "" if name == "direct" else f"{found_ms - taken_ms['direct']:+.1f} ms"
        yield f"/extract of 3 s, one client: {_title(name)}", f"{found_ms:.1f} ms", over


def _throughputs(per_second: dict[str, list[float]]) -> Iterator[tuple[str, str, str]]:
    for name, found in per_second.items():
        ratio = f"{_of(found, per_second['direct'])} of direct"
        if name in PEERS:
            ratio += f"; ours is {_of(per_second['ours'], found)} of it"
        yield f"/extract of 3 s, {CLIENTS} clients: {_title(name)}", f"{_spread(found, '.1f')}/s", ratio


def _of(one: list[float], other: list[float]) -> str:
    """The ratio of two systems, round by round."""
    return _spread([a / b for a, b in zip(one, other, strict=True)], ".2f")


def _spread(found: list[float], form: str) -> str:
    return f"{statistics.median(found):{form}} ± {statistics.stdev(found):{form}}"


def _title(name: str) -> str:
    return {"ours": "ours", "direct": "the Predictor in threads"}.get(name) or PEERS[name]


def _request(bundle: Path) -> tuple[bytes, bytes]:
    """A golden picture, and a golden recording repeated to 3 s."""
    golden = read_goldens(bundle)[0]
    waveform, rate_hz = media.decode_recording(golden.recording)
    return golden.picture, media.encode_wav(np.resize(waveform, int(RECORDING_S * rate_hz)), rate_hz)


def _asker(url: str, picture: bytes, recording: bytes) -> Ask:
    """Asks on a connection of each thread's own. Raises UserError where the answer is not good."""
    edge = b'--edge\r\nContent-Disposition: form-data; name="%s"; filename="file"\r\n\r\n%s\r\n'
    body = edge % (b"image", picture) + edge % (b"audio", recording) + b"--edge--\r\n"
    headers = {"Content-Type": "multipart/form-data; boundary=edge"}
    connections = threading.local()

    def ask() -> None:
        if not hasattr(connections, "own"):
            connections.own = http.client.HTTPConnection(url.removeprefix("http://"), timeout=60)
        try:
            connections.own.request("POST", "/extract", body, headers)
            answer = connections.own.getresponse()
            content = answer.read()
        except (OSError, http.client.HTTPException):
            del connections.own
            raise
        if answer.status != 200 or b'"audio_wav_base64"' not in content:
            raise UserError(f"{url}/extract: {answer.status}: {content[:200]!r}")

    return ask


def _one_by_one(asks: dict[str, Ask]) -> dict[str, float]:
    """Median milliseconds of one call each, called in turn."""
    taken_ms = {name: [] for name in asks}
    for turn in range(ONE_BY_ONE + 10):  # the first ten only warm up
        for name, ask in asks.items():
            start = time.perf_counter()
            ask()
            if turn >= 10:
                taken_ms[name].append(1000 * (time.perf_counter() - start))
    return {name: statistics.median(found) for name, found in taken_ms.items()}


def _at_once(asks: dict[str, Ask]) -> dict[str, list[float]]:
    """Answers a second of each in every round; each round begins with another, so that none always comes first."""
    names, per_second = list(asks), {name: [] for name in asks}
    for turn in range(ROUNDS):
        for name in names[turn % len(names) :] + names[: turn % len(names)]:
            per_second[name].append(_per_second(asks[name]))
    return per_second


def _per_second(ask: Ask) -> float:
    """Answers a second that so many clients get who ask all the time."""
    with ThreadPoolExecutor(CLIENTS) as pool:
        list(pool.map(lambda _: ask(), range(2 * CLIENTS)))
        end, counts = time.monotonic() + AT_ONCE_S, [0] * CLIENTS

        def keep_asking(number: int) -> None:
            while time.monotonic() < end:
                ask()
                counts[number] += 1

        start = time.monotonic()
        list(pool.map(keep_asking, range(CLIENTS)))
        return sum(counts) / (time.monotonic() - start)


def _environment(paths: Paths) -> Path:
    """The interpreter of an environment that adds the pinned peers to this one."""
    folder = paths.var / "bench" / "-".join(pin.replace("==", "-") for pin in PINNED)
    python = folder / "bin" / "python"
    if not (folder / "ready").exists():
        subprocess.run([sys.executable, "-m", "venv", folder], check=True)
        (site,) = folder.glob("lib/python*/site-packages")
        (site / "borrowed.pth").write_text(sysconfig.get_path("purelib") + "\n")
        done = subprocess.run([python, "-m", "pip", "install", "--quiet", "--no-deps", *PINNED], check=False)
        if done.returncode:
            raise UserError(f"{' '.join(PINNED)}: cannot be installed; the comparison needs a package index")
        (folder / "ready").touch()
    return python


@contextmanager
def _peer(python: Path, name: str, bundle: Path, workers: int) -> Iterator[str]:
    """A peer's server in processes of its own; yields its address."""
    port = client.free_port()
    environment = {**os.environ, "BUNDLE": str(bundle), "PYTHONPATH": str(packaging.CODE), "OMP_NUM_THREADS": "1"}
    command = [python, "-m", f"benchmarks.peers.{name}", str(port), str(workers)]
    process = subprocess.Popen(
        command,
        env=environment,
        cwd=bundle,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    url = f"http://{client.HOST}:{port}"
    try:
        _await_answer(_asker(url, *_request(bundle)), process, name)
        yield url
    finally:
        client.end(process)


def _await_answer(ask: Ask, process: subprocess.Popen, name: str) -> None:
    deadline = time.monotonic() + START_S
    while True:
        try:
            ask()
            return
        except (OSError, http.client.HTTPException, UserError) as fault:
            if process.poll() is not None or time.monotonic() > deadline:
                raise UserError(f"{PEERS[name]}: does not answer: {fault}") from None
            time.sleep(0.3)
