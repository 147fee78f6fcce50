"""Models to promote, the processes of a server that a test started, and clients: patient, or many at once."""

from __future__ import annotations

import asyncio
import itertools
import json
import shutil
import threading
import time
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import aiohttp
import psutil
import requests
import tones

from ml.config import Paths
from ml.predictor import GoldenRequest, Predictor, write_bundle
from ml.predictor.bundle import PARTS, read_goldens
from serving import packaging

PICTURE, RECORDING = tones.png("down"), tones.wav("across", "down")
MB = 1 << 20
FILES = {"image": PICTURE, "audio": RECORDING}


def another_model(folder: Path, paths: Paths, temperature: float, fit: bool = True) -> packaging.Champion:
    """A stored model like that of `tones` but for its temperature; not fit: it misses its own golden requests."""
    parts = [shutil.copytree(tones.bundle() / part, folder / str(temperature) / part) for part in PARTS]
    card = parts[0] / "model.json"
    card.write_text(json.dumps(json.loads(card.read_text()) | {"temperature": temperature}))
    predictor = Predictor.from_models(*parts)
    goldens = [predictor.golden(golden.picture, golden.recording) for golden in read_goldens(tones.bundle())]
    if not fit:
        goldens = [_missed(golden) for golden in goldens]
    digest = write_bundle(folder / str(temperature) / "bundle", *parts, {}, goldens)
    return packaging.Champion(packaging.save_bundle_as_bento_model(folder / str(temperature) / "bundle", paths), digest)


def _missed(golden: GoldenRequest) -> GoldenRequest:
    presence = [1 - value for value in golden.expected["presence"]]
    return GoldenRequest(golden.picture, golden.recording, golden.expected | {"presence": presence})


def first_champion(paths: Paths) -> packaging.Champion:
    """The model of `tones`, stored and made the champion."""
    tag = packaging.save_bundle_as_bento_model(tones.bundle(), paths)
    champion = packaging.Champion(tag, json.loads((tones.bundle() / "manifest.json").read_text())["digest"])
    paths.champion.parent.mkdir(exist_ok=True)
    point_at(champion, paths)
    return champion


def point_at(champion: packaging.Champion, paths: Paths) -> None:
    """Make a stored model the champion, in one step."""
    draft = paths.champion.with_suffix(".part")
    draft.write_text(json.dumps({"tag": champion.tag, "digest": champion.digest, "previous": None}))
    draft.replace(paths.champion)


def supervisor_of(url: str) -> psutil.Process:
    """The process that this one started to serve at `url`; its children are the workers."""
    port = url.rsplit(":", 1)[1]
    (process,) = (child for child in psutil.Process().children() if port in child.cmdline())
    return process


def metric(url: str, name: str) -> dict[str, float]:
    """The samples of a metric by their labels, as text."""
    lines = requests.get(f"{url}/metrics", timeout=60).text.splitlines()
    samples = (line.rsplit(" ", 1) for line in lines if line.startswith(name))
    return {labels.removeprefix(name): float(value) for labels, value in samples}


def until(true, within_s: float) -> float:
    """Seconds until true() is, at most within_s."""
    start = time.monotonic()
    while not true():
        assert time.monotonic() - start < within_s, f"not within {within_s:g} s"
        time.sleep(0.02)
    return time.monotonic() - start


@dataclass(frozen=True)
class Asked:
    """One request: when it began and ended (time.monotonic), its status (None: no answer) and the answering model."""

    began: float
    ended: float
    status: int | None
    model: str | None


@dataclass
class Clients:
    """What clients who never stop asking have got."""

    asked: list[Asked] = field(default_factory=list)

    @property
    def longest_gap_s(self) -> float:
        """The longest time without a good answer."""
        good = sorted(one.ended for one in self.asked if one.status == 200)
        return max(later - earlier for earlier, later in itertools.pairwise(good))

    @property
    def failed(self) -> list[Asked]:
        return [one for one in self.asked if one.status != 200]


@contextmanager
def asking(url: str, clients: int = 3, pause_s: float = 0.0) -> Iterator[Clients]:
    """Clients who ask /extract one request after the other, each on a connection that it keeps."""
    seen, over = Clients(), threading.Event()

    def ask() -> None:
        with requests.Session() as session:
            while not over.wait(pause_s):
                seen.asked.append(_asked(session, url))

    threads = [threading.Thread(target=ask) for _ in range(clients)]
    for thread in threads:
        thread.start()
    try:
        yield seen
    finally:
        over.set()
        for thread in threads:
            thread.join()


def _asked(session: requests.Session, url: str) -> Asked:
    began = time.monotonic()
    try:
        answer = session.post(f"{url}/extract", files=FILES, timeout=60)
    except requests.RequestException:
        return Asked(began, time.monotonic(), None, None)
    return Asked(began, time.monotonic(), answer.status_code, answer.json().get("model"))


# Many at once


@dataclass(frozen=True)
class Reply:
    status: int  # 0: none came
    took_s: float
    body: bytes

    @property
    def json(self) -> dict:
        return json.loads(self.body)


Request = Callable[[aiohttp.ClientSession], Awaitable[Reply]]


def posted(address: str, content: bytes, kind: str, patience_s: float = 60) -> Request:
    async def request(session: aiohttp.ClientSession) -> Reply:
        start = time.perf_counter()
        try:
            patience = aiohttp.ClientTimeout(patience_s)
            async with session.post(address, data=content, headers={"Content-Type": kind}, timeout=patience) as answer:
                return Reply(answer.status, time.perf_counter() - start, await answer.read())
        except (aiohttp.ClientError, TimeoutError, ConnectionError):
            return Reply(0, time.perf_counter() - start, b"")

    return request


def form(**files: bytes) -> tuple[bytes, str]:
    """A multipart body and its content type."""
    parts = [
        b'--qqq\r\nContent-Disposition: form-data; name="%s"; filename="f"\r\n\r\n%s\r\n' % (name.encode(), file)
        for name, file in files.items()
    ]
    return b"".join(parts) + b"--qqq--\r\n", "multipart/form-data; boundary=qqq"


def ask_all(requests: Iterator[Request], at_once: int) -> list[Reply]:
    """The replies, in the order of the requests, `at_once` of them under way."""

    async def everything() -> list[Reply]:
        replies: dict[int, Reply] = {}
        numbered = enumerate(requests)

        async def client(session: aiohttp.ClientSession) -> None:
            for number, request in numbered:
                replies[number] = await request(session)

        async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0)) as session:
            await asyncio.gather(*(client(session) for _ in range(at_once)))
        return [replies[number] for number in sorted(replies)]

    return asyncio.run(everything())


def ask_at_rate(request: Request, per_s: float, seconds: float) -> list[Reply]:
    """The replies to requests that start at a rate, whether or not the earlier ones are answered."""

    async def everything() -> list[Reply]:
        async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0)) as session:
            start, under_way = time.perf_counter(), []
            for number in range(int(per_s * seconds)):
                await asyncio.sleep(max(0, start + number / per_s - time.perf_counter()))
                under_way.append(asyncio.ensure_future(request(session)))
            return list(await asyncio.gather(*under_way))

    return asyncio.run(everything())


def workers_of(url: str) -> list[psutil.Process]:
    return supervisor_of(url).children()


def resident_mb(url: str) -> float:
    return sum(worker.memory_info().rss for worker in workers_of(url)) / MB


@contextmanager
def peak_mb(url: str) -> Iterator[list[float]]:
    """The largest resident memory of the workers inside the block, in its first element afterwards."""
    peak, over = [resident_mb(url)], threading.Event()

    def watch() -> None:
        while not over.wait(0.02):
            peak[0] = max(peak[0], resident_mb(url))

    watcher = threading.Thread(target=watch)
    watcher.start()
    try:
        yield peak
    finally:
        over.set()
        watcher.join()
