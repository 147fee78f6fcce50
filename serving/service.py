"""The BentoML service over `ml.predictor.Predictor`: the HTTP contract, the page at /app, the prediction log.

Every request is read, decoded and checked before any model sees it, so what a client sends wrong ends as one clear 400
and hurts nobody else. The model is an attribute of the service, so a built Bento and its container hold it.
"""

from __future__ import annotations

import base64
import json
import logging
import os
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import anyio
import anyio.to_thread
import bentoml
import numpy as np
from bentoml.models import BentoModel
from starlette.applications import Starlette
from starlette.background import BackgroundTask
from starlette.requests import Request
from starlette.responses import FileResponse, JSONResponse, RedirectResponse, Response
from starlette.routing import Mount, Route
from starlette.staticfiles import StaticFiles
from starlette.types import ASGIApp

from ml import media
from ml.config import UserError, load_paths, load_settings
from serving import schemas
from serving.answering import (
    extraction_answer,
    load_predictor,
    picture_answer,
    recognition_answer,
    wav_at_true_level,
)
from serving.capture import FEEDBACK_SCHEMA, PREDICTION_SCHEMA, RowLog, log_folders, measured
from serving.http import EXCHANGE, HttpLayer, Refused
from serving.packaging import BUNDLE, CODE, read_champion

if TYPE_CHECKING:
    from ml.predictor import Picture, Predictor

logger = logging.getLogger("seehear.service")
SETTINGS = load_settings(CODE)  # a Bento's own params.yaml, wherever it is served
LIMITS = SETTINGS.serving
WORKERS_AT_ONCE = max(2, os.cpu_count() or 1)
PAGE = Path(__file__).with_name("page")
SECURITY = "default-src 'self'; img-src 'self' blob: data:; media-src 'self' blob: data:; frame-ancestors 'self'"


def model_tag() -> str:
    """The model this service is for: in a Bento the one it was built with, else SEEHEAR_MODEL, else the champion.

    A Bento keeps the argument it was built with, so it never looks anything up.
    """
    built_with = getattr(bentoml.use_arguments(), "model", None)
    return built_with or os.environ.get("SEEHEAR_MODEL") or read_champion(load_paths()).tag


class ServiceInForm(bentoml.Service):
    """A BentoML service inside `HttpLayer`, which has to stand outside BentoML's own middleware."""

    def to_asgi(self, is_main: bool = True) -> ASGIApp:
        _log_as_json()
        return HttpLayer(super().to_asgi(is_main), int(LIMITS.max_body_mb * 1e6))


def _log_as_json() -> None:
    """Access lines are JSON already; they go to the standard output as they are."""
    handler = logging.StreamHandler(sys.stdout)
    handler.setFormatter(logging.Formatter("%(message)s"))
    access = logging.getLogger("seehear.access")
    access.handlers, access.propagate = [handler], False
    logging.getLogger("seehear").setLevel(logging.INFO)


class Metrics:
    """What /metrics shows beyond BentoML's own figures."""

    def __init__(self) -> None:
        counter, gauge = bentoml.metrics.Counter, bentoml.metrics.Gauge
        self.answers = counter("seehear_answers", "Answers given", ["endpoint", "model"])
        self.refused = counter("seehear_refused", "Requests refused", ["endpoint", "code"])
        self.log_dropped = counter("seehear_log_dropped_rows", "Rows of the prediction log or feedback that were lost")
        self.model = gauge("seehear_model_info", "The model that answers", ["digest"], multiprocess_mode="livemax")


def page_app() -> Starlette:
    """The static page and its ready examples, which are the golden requests of the model being served."""

    async def to_page(_: Request) -> Response:
        return RedirectResponse("/app/")

    routes = [
        Route("/examples", _examples),
        Route("/examples/{name}", _example),
        Mount("/", _Page(directory=PAGE, html=True)),
    ]
    return Starlette(routes=[Route("/", to_page), Route("/app", to_page), Mount("/app", routes=routes)])


class _Page(StaticFiles):
    async def get_response(self, path: str, scope) -> Response:
        response = await super().get_response(path, scope)
        response.headers["Content-Security-Policy"] = SECURITY
        response.headers["Cache-Control"] = "no-cache"
        return response


def _golden_rows() -> list[dict]:
    return json.loads((_bundle_folder() / "golden" / "golden.json").read_text())


def _examples(_: Request) -> Response:
    return JSONResponse(
        [{kind: f"examples/{row[kind]}" for kind in ("picture", "recording")} for row in _golden_rows()]
    )


def _example(request: Request) -> Response:
    name = request.path_params["name"]
    if name not in {row[kind] for row in _golden_rows() for kind in ("picture", "recording")}:
        return Refused("not_found", f"{name}: there is no such example", 404).response()
    return FileResponse(_bundle_folder() / "golden" / name)


def _bundle_folder() -> Path:
    return Path(SeeHear.inner.stored_model.resolve().path) / BUNDLE


@bentoml.asgi_app(page_app(), path="/")
@bentoml.service(
    name="seehear",
    service_class=ServiceInForm,
    workers=1,
    traffic={"timeout": 60},
    logging={"access": {"enabled": False}},
    envs=[{"name": "BENTOML_DO_NOT_TRACK", "value": "True"}],
)
class SeeHear:
    """Says what is pictured, whether and when a recording says that word, and gives back the word's own sound."""

    stored_model = BentoModel(model_tag())

    def __init__(self) -> None:
        self.metrics = Metrics()
        log, feedback = log_folders()
        dropped = self.metrics.log_dropped.inc
        self.predictions = RowLog(log, PREDICTION_SCHEMA, on_dropped=dropped)
        self.corrections = RowLog(feedback, FEEDBACK_SCHEMA, on_dropped=dropped)
        self._limiter = anyio.CapacityLimiter(WORKERS_AT_ONCE)
        self._predictor: Predictor | None = None
        self._fault: Exception | None = None
        threading.Thread(target=self._start, args=(Path(self.stored_model.path) / BUNDLE,), daemon=True).start()

    def _start(self, bundle: Path) -> None:
        """Load the model and let it answer its golden requests; ready only after that."""
        try:
            import torch

            torch.set_num_threads(1)  # requests run beside each other, each on a core of its own
            predictor = load_predictor(bundle, SETTINGS.training.device)
            predictor.check_golden()
        except Exception as fault:  # whatever it is, this process must say that it will never be ready
            logger.exception("the model is refused")
            self._fault = fault
            return
        self.metrics.model.labels(digest=predictor.digest).set(1)
        self._predictor = predictor
        logger.info("ready with model %s on %s", predictor.digest, predictor.device)

    async def __is_ready__(self) -> bool:
        try:
            self._ready()
        except Refused as refusal:
            raise refusal.as_http() from None
        return True

    def _ready(self) -> Predictor:
        if self._predictor is not None:
            return self._predictor
        if self._fault is not None:
            raise Refused("model_refused", f"the model is not fit to answer: {' '.join(str(self._fault).split())}", 503)
        raise Refused("starting", "the model is still being loaded", 503, retry_after_s=2)

    @bentoml.on_shutdown
    def close(self) -> None:
        self.predictions.close()
        self.corrections.close()

    @bentoml.api(route="/classify_image", input_spec=schemas.PictureForm, output_spec=schemas.PictureAnswer)
    async def classify_image(self, image) -> Response:
        """What is pictured."""
        return await self._answer("classify_image", _classify_image, image)

    @bentoml.api(route="/recognize_speech", input_spec=schemas.RecordingForm, output_spec=schemas.RecordingAnswer)
    async def recognize_speech(self, audio) -> Response:
        """Which word a recording says, and which words it holds and when."""
        return await self._answer("recognize_speech", _recognize_speech, audio)

    @bentoml.api(route="/extract", input_spec=schemas.PairForm, output_spec=schemas.ExtractionAnswer)
    async def extract(self, image, audio) -> Response:
        """Whether the pictured word is said, when, and its own sound, separated from everything else."""
        return await self._answer("extract", _extract, image, audio)

    @bentoml.api(route="/feedback", input_spec=schemas.FeedbackForm, output_spec=schemas.FeedbackAnswer)
    async def feedback(self, correction) -> Response:
        """Correct an answer; the correction joins the prediction log by the answer's id."""
        if isinstance(correction, Refused):
            return self._refuse("feedback", correction)
        self.corrections.record(correction.model_dump())
        return JSONResponse({"request_id": correction.request_id}, 202)

    async def _answer(self, endpoint: str, work: Callable, *files: bytes | Refused) -> Response:
        """Run decode, check and model in a worker thread; the log row is measured after the answer has gone out."""
        exchange = EXCHANGE.get()
        try:
            predictor = self._ready()
            given = [_usable(file) for file in files]
            body, row = await anyio.to_thread.run_sync(work, predictor, *given, limiter=self._limiter)
        except Refused as refusal:
            return self._refuse(endpoint, refusal)
        except UserError as fault:
            return self._refuse(endpoint, Refused("bad_content", str(fault)))
        response = JSONResponse({"request_id": exchange.request_id, **body, "model": predictor.digest})
        row |= {"request_id": exchange.request_id, "endpoint": endpoint, "model": predictor.digest}
        self.metrics.answers.labels(endpoint=endpoint, model=predictor.digest).inc()
        response.background = BackgroundTask(self._log, row, exchange.latency_ms)
        return response

    def _refuse(self, endpoint: str, refusal: Refused) -> Response:
        self.metrics.refused.labels(endpoint=endpoint, code=refusal.code).inc()
        return refusal.response()

    def _log(self, row: dict, latency_ms: float) -> None:
        pixels, waveform, rate_hz = row.pop("input")
        self.predictions.record(row | measured(pixels, waveform, rate_hz) | {"latency_ms": latency_ms})


def _usable(file: bytes | Refused) -> bytes:
    if isinstance(file, Refused):
        raise file
    return file


def _picture(file: bytes) -> np.ndarray:
    return media.decode_picture(file, LIMITS.max_megapixels, "image")


def _recording(file: bytes) -> tuple[np.ndarray, int]:
    return media.decode_recording(file, LIMITS.max_audio_s, "audio")


def _classify_image(predictor: Predictor, image: bytes) -> tuple[dict, dict]:
    """The answer's own fields, and what the log keeps of it."""
    pixels = _picture(image)
    picture = predictor.classify_image(pixels)
    return picture_answer(picture), {"input": (pixels, None, 0), **_pictured(picture)}


def _recognize_speech(predictor: Predictor, audio: bytes) -> tuple[dict, dict]:
    waveform, rate_hz = _recording(audio)
    spoken = predictor.recognize_speech(waveform, rate_hz)
    row = {"input": (None, waveform, rate_hz), "speech_embedding": spoken.embedding.tolist()}
    row |= {"heard": spoken.label, "heard_confidence": max(spoken.probabilities.values(), default=None)}
    return recognition_answer(spoken), row


def _extract(predictor: Predictor, image: bytes, audio: bytes) -> tuple[dict, dict]:
    pixels = _picture(image)
    waveform, rate_hz = _recording(audio)
    found = predictor.extract(pixels, waveform, rate_hz)
    sound = base64.b64encode(wav_at_true_level(found.estimate, found.rate_hz)).decode()
    row = {"input": (pixels, waveform, rate_hz), **_pictured(found.pictured)}
    row |= {"presence": found.presence, "present": found.present}
    if found.heard:
        row |= {"heard": found.heard.label, "heard_confidence": found.heard.probability}
    return {**extraction_answer(found), "audio_wav_base64": sound, "sample_rate_hz": found.rate_hz}, row


def _pictured(picture: Picture) -> dict:
    return {
        "pictured": picture.label,
        "pictured_confidence": max(picture.probabilities.values(), default=None),
        "image_embedding": picture.embedding.tolist(),
    }
