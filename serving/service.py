"""The BentoML service over `ml.predictor.Predictor`: the HTTP contract, the page at /app, the prediction log.

Every request is read, decoded and checked before any model sees it, so what a client sends wrong ends as one clear 400
and hurts nobody else. The model is an attribute of the service, so a built Bento and its container hold it.
"""

from __future__ import annotations

import asyncio
import base64
import contextlib
import functools
import gc
import logging
import os
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import bentoml
import numpy as np
from _bentoml_impl.server.app import ServiceAppFactory
from bentoml.models import BentoModel
from starlette.background import BackgroundTask
from starlette.responses import JSONResponse, Response
from starlette.types import ASGIApp, Receive, Scope, Send

from ml import media
from ml.config import Paths, UserError, load_paths, load_settings, project_root
from serving import schemas
from serving.admission import Admission
from serving.answering import asked_object, extraction_answer, picture_answer, recognition_answer, wav_at_true_level
from serving.capture import FEEDBACK_SCHEMA, PREDICTION_SCHEMA, RowLog, log_folders, measured
from serving.following import AtWork, Champions, Follower, take_up
from serving.http import EXCHANGE, QUIET, Exchange, HttpLayer
from serving.keeping import MEDIA, KeptMedia
from serving.openapi import Document, document
from serving.packaging import BUNDLE, CODE, read_champion
from serving.refusals import Refused
from serving.site import page_app
from serving.spare import SpareTime
from serving.workers import Drain, Siblings, computed_at_once, cores, prepare_server, prepare_worker

if TYPE_CHECKING:
    from ml.predictor import Picture, Predictor

logger = logging.getLogger("seehear.service")
SETTINGS = load_settings(CODE)  # a Bento's own params.yaml, wherever it is served
LIMITS = SETTINGS.serving
SENT = {"classify_image": ("image",), "recognize_speech": ("audio",), "extract": ("image", "audio")}
QUEUED = ("/classify_image", "/recognize_speech", "/extract")
API = (*QUEUED, "/feedback")
INNER = (*API, *QUIET, "/docs.json", "/schema.json")
ENVIRONMENT = {
    "BENTOML_DO_NOT_TRACK": "True",
    "NVIDIA_VISIBLE_DEVICES": "all",  # torch brings CUDA with it, so one image does for both:
    "NVIDIA_DRIVER_CAPABILITIES": "compute,utility",  # started with `docker run --gpus all` it has the GPU
}


def model_tag() -> str:
    """The model this service is for: in a Bento the one it was built with, else SEEHEAR_MODEL, else the champion.

    A Bento keeps the argument it was built with, so it never looks anything up.
    """
    built_with = getattr(bentoml.use_arguments(), "model", None)
    return built_with or os.environ.get("SEEHEAR_MODEL") or read_champion(load_paths()).tag


class ServiceInForm(bentoml.Service):
    """A BentoML service inside `HttpLayer`, which has to stand outside BentoML's own middleware."""

    def to_asgi(self, is_main: bool = True) -> ASGIApp:
        prepare_worker()
        _log_as_json()
        self.inject_config()
        inner = ServiceAppFactory(self, is_main=is_main)
        inner.timeout = None  # it would leave a timer behind every request; the admission keeps the deadline
        return HttpLayer(
            _split(inner()),
            int(LIMITS.max_body_mb * 1e6),
            ADMISSION,
            token=_token(),
            guarded=API,
            queued=QUEUED,
            drain=Drain(),
            on_end=_count_refusals,
            caps={"/feedback": schemas.MAX_FEEDBACK_BYTES},
        )

    @property
    def openapi_spec(self) -> Document:
        return document((self.bento.tag.version if self.bento else None) or "unpackaged", LIMITS)


def _token() -> str | None:
    """Without the newline that ends a secret's file. Ends the process where it is blank: that would protect nothing."""
    token = os.environ.get("SEEHEAR_TOKEN")
    if token is not None and not token.strip():
        sys.exit("seehear: SEEHEAR_TOKEN: blank; expected a token, or the variable not set")
    return token and token.strip()


def _split(inner: ASGIApp) -> ASGIApp:
    """BentoML's own app for its own paths, the page for all others.

    BentoML keeps figures for every path that it is ever asked for, so it must not see those that anybody makes up.
    """

    async def by_path(scope: Scope, receive: Receive, send: Send) -> None:
        theirs = scope["type"] != "http" or scope["path"] in INNER
        await (inner if theirs else PAGES)(scope, receive, send)

    return by_path


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
        self.models_refused = counter("seehear_models_refused", "Champions that were not fit to take over")
        self.model = gauge("seehear_model_info", "Workers that answer with it", ["digest"], multiprocess_mode="livesum")


@functools.cache
def metrics() -> Metrics:
    """Those of this process, which may be registered only once."""
    return Metrics()


def _count_refusals(path: str, exchange: Exchange) -> None:
    if exchange.code is not None and path in API:
        metrics().refused.labels(endpoint=path[1:], code=exchange.code).inc()


ADMISSION = Admission(computed_at_once(cores(), LIMITS.workers), LIMITS.max_waiting, LIMITS.deadline_s)
PAGES = page_app()


@bentoml.service(
    name="seehear",
    service_class=ServiceInForm,
    workers=LIMITS.workers,
    tracing={"excluded_urls": ".*"},  # spans that nobody collects cost a millisecond a request
    logging={"access": {"enabled": False}},
    envs=[{"name": name, "value": value} for name, value in ENVIRONMENT.items()],
)
class SeeHear:
    """Says what is pictured, whether and when a recording says that word, and gives back the word's own sound."""

    stored_model = BentoModel(model_tag())

    def __init__(self) -> None:
        log, feedback = log_folders()
        dropped = metrics().log_dropped.inc
        self.predictions = RowLog(log, PREDICTION_SCHEMA, on_dropped=dropped)
        self.corrections = RowLog(feedback, FEEDBACK_SCHEMA, on_dropped=dropped)
        self.media = KeptMedia(log and log.parent / MEDIA, LIMITS.keep_media_days)
        self.media.sweep()
        self._spare = SpareTime(ADMISSION.idle)
        logger.info("prediction log: %s", log or "none is kept; SEEHEAR_LOG or SEEHEAR_ROOT would name its place")
        self._at_work: AtWork | None = None
        self._fault: Exception | None = None
        self._started = asyncio.Event()
        self._siblings = Siblings()
        self._follower: Follower | None = None
        self._own = Path(self.stored_model.path) / BUNDLE
        PAGES.state.golden = self._own / "golden"
        start = threading.Thread(target=self._start, args=(asyncio.get_running_loop(),), daemon=True)
        start.start()
        if self._siblings.answer():  # no request may wait here that another worker would answer at once
            start.join()

    @bentoml.on_deployment
    def prepare() -> None:
        _token()
        prepare_server()

    def _start(self, loop: asyncio.AbstractEventLoop) -> None:
        """Take up the champion, or the model this service was packaged with; ready only after that."""
        champions = Champions(Paths(project_root(), SETTINGS.data.source)) if os.environ.get("SEEHEAR_FOLLOW") else None
        if champions:
            champions.changed()  # from here on
        for bundle in [*(champions.bundles() if champions else []), lambda: self._own]:
            try:
                self._change(bundle())
                self._siblings.join()
                break
            except Exception as fault:  # whatever it is, the next one is tried, and the last one is said on /readyz
                self._refuse_model(fault)
        gc.collect()
        gc.freeze()  # what is here now stays; to look through it again and again would hold up every answer
        loop.call_soon_threadsafe(self._started.set)
        if champions:
            self._follower = Follower(champions, self._change, self._refuse_model)
            self._follower.start()

    def _change(self, bundle: Path) -> None:
        """Let the model of a bundle answer from now on. Raises UserError where it is not fit."""
        new, old = take_up(bundle, SETTINGS.training.device, _warm_up), self._at_work
        self._at_work = new
        PAGES.state.golden = new.golden
        if old and old.predictor.digest != new.predictor.digest:
            metrics().model.labels(digest=old.predictor.digest).set(0)
        metrics().model.labels(digest=new.predictor.digest).set(1)
        logger.info("model %s answers, on %s", new.predictor.digest, new.predictor.device)

    def _refuse_model(self, fault: Exception) -> None:
        self._fault = fault
        metrics().models_refused.inc()
        logger.error("a model is refused: %s", _one_line(fault), exc_info=not isinstance(fault, UserError))

    async def __is_ready__(self) -> bool:
        try:
            self._ready()
        except Refused as refusal:
            raise refusal.as_http() from None
        return True

    def _ready(self) -> Predictor:
        if self._at_work is not None:
            return self._at_work.predictor
        if self._started.is_set():
            raise Refused("model_refused", f"the model is not fit to answer: {_one_line(self._fault)}", 503)
        raise Refused("starting", "the model is still being loaded", 503, retry_after_s=2)

    async def _ready_in_time(self, exchange: Exchange) -> Predictor:
        """The model; whoever asks while it is being loaded waits for it."""
        if not self._started.is_set():
            with contextlib.suppress(TimeoutError):  # then _ready says that it is still being loaded
                await asyncio.wait_for(self._started.wait(), exchange.left_s)
        return self._ready()

    @bentoml.on_shutdown
    def close(self) -> None:
        if self._follower:
            self._follower.stop()
        self._spare.close()
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
    async def extract(self, image, audio, object=None) -> Response:
        """Whether the pictured word is said, when, and its own sound, separated from everything else."""
        return await self._answer("extract", functools.partial(_extract, asked=object), image, audio)

    @bentoml.api(route="/feedback", input_spec=schemas.FeedbackForm, output_spec=schemas.FeedbackAnswer)
    async def feedback(self, correction) -> Response:
        """Correct an answer; the correction joins the prediction log by the answer's id."""
        if isinstance(correction, Refused):
            return correction.response()
        if self.corrections.folder is None:
            message = "no log is kept here; SEEHEAR_LOG would name its folder"
            return Refused("not_kept", message, 503).response()
        self.corrections.record(correction.model_dump())
        return JSONResponse({"request_id": correction.request_id}, 202)

    async def _answer(self, endpoint: str, work: Callable, *files: bytes | Refused) -> Response:
        """Run decode, check and model in a worker thread; the answer is logged when it has gone out."""
        exchange = EXCHANGE.get()
        try:
            given = [_usable(file) for file in files]
            predictor = await self._ready_in_time(exchange)
            body, row = await exchange.admission.compute(exchange, work, predictor, *given)
        except Refused as refusal:
            return refusal.response()
        except UserError as fault:
            return Refused("bad_content", str(fault)).response()
        response = JSONResponse({"request_id": exchange.request_id, **body, "model": predictor.digest})
        row |= {"request_id": exchange.request_id, "endpoint": endpoint, "model": predictor.digest}
        row |= {"latency_ms": exchange.latency_ms}
        metrics().answers.labels(endpoint=endpoint, model=predictor.digest).inc()
        sent = dict(zip(SENT[endpoint], given, strict=True)) if self.media.days else {}
        response.background = BackgroundTask(self._log_soon, row, predictor, sent)
        return response

    async def _log_soon(self, row: dict, predictor: Predictor, sent: dict[str, bytes]) -> None:
        """Have an answer that has gone out logged when there is time."""
        pixels, waveform, rate_hz = row.pop("input")
        held_bytes = sum(map(len, sent.values())) + sum(one.nbytes for one in (pixels, waveform) if one is not None)
        self._spare.take(functools.partial(self._log, row, predictor, (pixels, waveform, rate_hz), sent), held_bytes)

    def _log(self, row: dict, predictor: Predictor, asked: tuple, sent: dict[str, bytes], in_time: bool) -> None:
        """Log an answer, measured where there is time for it; whatever fails here is counted and hurts nobody."""
        try:
            self.predictions.record(row | (_measured(row["endpoint"], predictor, *asked) if in_time else {}))
            self.media.keep(row["request_id"], sent)
        except Exception as fault:
            metrics().log_dropped.inc()
            logger.error("an answer is not logged whole: %s", _one_line(fault), exc_info=not isinstance(fault, OSError))


def _one_line(fault: Exception | None) -> str:
    return " ".join(str(fault).split()) or type(fault).__name__


def _measured(endpoint: str, predictor: Predictor, pixels, waveform, rate_hz: int) -> dict:
    """The columns of the log that are measured on what was asked."""
    columns = measured(pixels, waveform, rate_hz)
    if endpoint == "extract":  # all that was sent, as in the reference, not the sound found in it
        columns |= {"speech_embedding": predictor.embed_recording(waveform, rate_hz)}
    return columns


def _warm_up(predictor: Predictor, picture: bytes, recording: bytes) -> None:
    """Everything that a first request would otherwise wait for."""
    _recognize_speech(predictor, recording)
    _, row = _extract(predictor, picture, recording)
    _measured("extract", predictor, *row["input"])


def _usable(file: bytes | Refused) -> bytes:
    if isinstance(file, Refused):
        raise file
    return file


def _picture(file: bytes) -> np.ndarray:
    return media.decode_picture(file, LIMITS.max_megapixels, "image")


def _recording(file: bytes) -> tuple[np.ndarray, int]:
    return media.decode_recording(file, LIMITS.max_audio_s, "audio", heard=True)


def _classify_image(predictor: Predictor, image: bytes) -> tuple[dict, dict]:
    """The answer's own fields, and what the log keeps of it."""
    pixels = _picture(image)
    picture = predictor.classify_image(pixels)
    return picture_answer(picture), {"input": (pixels, None, 0), **_pictured(picture)}


def _recognize_speech(predictor: Predictor, audio: bytes) -> tuple[dict, dict]:
    waveform, rate_hz = _recording(audio)
    spoken = predictor.recognize_speech(waveform, rate_hz)
    row = {"input": (None, waveform, rate_hz), "speech_embedding": spoken.embedding}
    row |= {"heard": spoken.label, "heard_confidence": max(spoken.probabilities.values(), default=None)}
    row |= {"heard_probabilities": list(spoken.probabilities.items())}
    return recognition_answer(spoken), row


def _extract(predictor: Predictor, image: bytes, audio: bytes, asked: str | None = None) -> tuple[dict, dict]:
    """asked: the form's field `object`; the answer lists the objects where it is given."""
    pixels = _picture(image)
    waveform, rate_hz = _recording(audio)
    found = predictor.extract(pixels, waveform, rate_hz, _number(asked))
    sound = base64.b64encode(wav_at_true_level(found.estimate, found.rate_hz)).decode()
    row = {"input": (pixels, waveform, rate_hz), **_pictured(found.pictured)}
    row |= {"presence": found.presence, "present": found.present}
    if found.heard:
        row |= {"heard": found.heard.label, "heard_confidence": found.heard.probability}
        row |= {"heard_probabilities": list(found.heard.probabilities.items())}
    answer = {**extraction_answer(found), "audio_wav_base64": sound, "sample_rate_hz": found.rate_hz}
    return answer | ({} if asked is None else asked_object(found.pictured)), row


def _number(asked: str | None) -> int | None:
    if not asked:
        return None
    if not (asked.isascii() and asked.isdigit() and len(asked) < 4):
        raise Refused("bad_object", "object: expected the number of one of the picture's objects, counted from 0")
    return int(asked)


def _pictured(picture: Picture) -> dict:
    return {
        "pictured": picture.label,
        "pictured_confidence": max(picture.probabilities.values(), default=None),
        "pictured_probabilities": list(picture.probabilities.items()),
        "image_objects": len(picture.objects),
        "image_embedding": picture.embedding,
    }
