"""/extract over HTTP beside the same decoding and the same Predictor called directly."""

import statistics
import time
from collections.abc import Callable, Iterator

import requests

from ml import media
from ml.config import Paths
from ml.predictor import Predictor, read_goldens
from serving import client, packaging

REQUESTS = 60


def compare(paths: Paths) -> Iterator[tuple[str, str, str]]:
    """Rows (name, median milliseconds of one client, overhead)."""
    tag = packaging.read_champion(paths).tag
    bundle = packaging.stored_bundle(tag, paths)
    golden, predictor = read_goldens(bundle)[0], Predictor.load(bundle)

    def direct() -> None:
        predictor.extract(media.decode_picture(golden.picture), *media.decode_recording(golden.recording))

    with client.serve(packaging.bento_of(tag, paths), paths) as url, requests.Session() as session:

        def served() -> None:
            files = {"image": ("picture", golden.picture), "audio": ("recording", golden.recording)}
            session.post(f"{url}/extract", files=files, timeout=60).raise_for_status()

        direct_ms, served_ms = _alternating(direct, served)
    yield "/extract, the Predictor called directly", f"{direct_ms:.1f} ms", ""
    yield "/extract, over HTTP (ours)", f"{served_ms:.1f} ms", f"{served_ms - direct_ms:+.1f} ms"


def _alternating(*calls: Callable[[], None]) -> list[float]:
    """Median milliseconds of each call, called in turn."""
    taken = [[] for _ in calls]
    for turn in range(REQUESTS + 5):  # the first five only warm up
        for times, call in zip(taken, calls, strict=True):
            start = time.perf_counter()
            call()
            if turn >= 5:
                times.append(1000 * (time.perf_counter() - start))
    return [statistics.median(times) for times in taken]
