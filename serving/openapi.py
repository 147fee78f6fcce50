"""The OpenAPI document: every call, field, limit and error, made from the schemas that the service works by."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

import yaml
from pydantic import BaseModel
from pydantic.json_schema import models_json_schema

from ml.config import Serving
from serving import schemas

REF = "#/components/schemas/{model}"
JSON = "application/json"
ANSWERS: tuple[type[BaseModel], ...] = (
    schemas.PictureAnswer,
    schemas.RecordingAnswer,
    schemas.ExtractionAnswer,
    schemas.FeedbackAnswer,
    schemas.ErrorAnswer,
)
ERRORS = {
    400: "Something in the request cannot be used; the message says what.",
    401: "A token is needed and was not sent, or not the right one.",
    408: "The body did not come in time.",
    413: "The body is too large.",
    429: "Too many requests are waiting already.",
    500: "A fault of the service; its log says more under this request's id.",
    503: "The model is being loaded, or was not fit to answer.",
    504: "Its turn did not come within the deadline.",
}
FEEDBACK_ERRORS = {code: said for code, said in ERRORS.items() if code not in (429, 504)}  # it waits in no queue
FEEDBACK_ERRORS[503] = "No log is kept here that it could join."
TAGS = {
    "answers": "What the models say.",
    "feedback": "What they should have said.",
    "operation": "How the service is.",
}
RETRY = {"Retry-After": {"description": "Seconds to wait.", "schema": {"type": "integer", "minimum": 1}}}
CHALLENGE = {"WWW-Authenticate": {"description": "What is needed.", "schema": {"type": "string"}}}
ID = {"X-Request-ID": {"description": "This request's id.", "schema": {"type": "string", "pattern": "^[0-9a-f]{32}$"}}}


class Document(dict):
    """The document in the form that BentoML asks for."""

    def asdict(self) -> dict:
        return dict(self)


yaml.add_representer(Document, lambda dumper, document: dumper.represent_dict(document.asdict()))


def document(version: str, limits: Serving) -> Document:
    """The OpenAPI 3.1 document of a service of that version and those limits."""
    return Document(
        openapi="3.1.0",
        info={
            "title": "SeeHear",
            "version": version,
            "description": "Takes the word that a picture shows out of a recording. The page to try it on is at /app/.",
            "license": {"name": "MIT", "identifier": "MIT"},
        },
        servers=[{"url": "/"}],
        tags=[{"name": name, "description": said} for name, said in TAGS.items()],
        paths=_calls(limits) | _probes(),
        components={
            "schemas": _components(),
            "securitySchemes": {
                "token": {
                    "type": "http",
                    "scheme": "bearer",
                    "description": "Only where the service was started with SEEHEAR_TOKEN.",
                }
            },
        },
    )


def _components() -> dict:
    _, tree = models_json_schema([(model, "serialization") for model in ANSWERS], ref_template=REF)
    return tree["$defs"] | {"Correction": schemas.Correction.model_json_schema()}


def _calls(limits: Serving) -> dict:
    picture = f"{schemas.PICTURE} At most {limits.max_megapixels:g} megapixels."
    recording = f"{schemas.RECORDING} At most {limits.max_audio_s:g} s."
    image, audio = {"image": ("image/*", picture)}, {"audio": ("audio/*", recording)}
    size = f"The whole body is at most {limits.max_body_mb:g} MB."
    return {
        "/classify_image": _call("classify_image", "What is pictured.", _form(image, size), schemas.PictureAnswer),
        "/recognize_speech": _call(
            "recognize_speech",
            "Which word a recording says, and which words it holds and when.",
            _form(audio, size),
            schemas.RecordingAnswer,
        ),
        "/extract": _call(
            "extract",
            "Whether the pictured word is said, when, and its own sound, separated from everything else.",
            _form(image | audio, size, {"object": schemas.OBJECT}),
            schemas.ExtractionAnswer,
        ),
        "/feedback": _call(
            "feedback",
            "Correct an answer; the correction joins the prediction log by the answer's id.",
            {
                "required": True,
                "description": f"The whole body is at most {schemas.MAX_FEEDBACK_BYTES / 1e3:g} kB.",
                "content": _json("Correction"),
            },
            schemas.FeedbackAnswer,
            status=202,
        ),
    }


def _call(name: str, summary: str, body: dict, answer: type[BaseModel], status: int = 200) -> dict:
    errors = FEEDBACK_ERRORS if name == "feedback" else ERRORS
    good = {"description": (answer.__doc__ or "").strip(), "headers": ID, "content": _json(answer.__name__)}
    return {
        "post": {
            "summary": summary,
            "operationId": name,
            "tags": ["feedback" if name == "feedback" else "answers"],
            "security": [{}, {"token": []}],
            "requestBody": body,
            "responses": {str(status): good} | {str(code): _error(code, said) for code, said in errors.items()},
        }
    }


def _form(files: Mapping[str, tuple[str, str]], size: str, words: Mapping[str, str] = MappingProxyType({})) -> dict:
    properties = {
        name: {"type": "string", "format": "binary", "contentMediaType": kind, "description": said}
        for name, (kind, said) in files.items()
    }
    texts = {name: {"type": "string", "pattern": "^[0-9]{0,3}$", "description": said} for name, said in words.items()}
    schema = {"type": "object", "properties": properties | texts, "required": list(files)}
    encoding = {name: {"contentType": kind} for name, (kind, _) in files.items()}
    content = {"multipart/form-data": {"schema": schema, "encoding": encoding}}
    return {"required": True, "description": f"One file in each field. {size}", "content": content}


def _error(code: int, said: str) -> dict:
    headers = ID | (RETRY if code in (429, 503, 504) else {}) | (CHALLENGE if code == 401 else {})
    return {"description": said, "headers": headers, "content": _json("ErrorAnswer")}


def _json(model: str) -> dict:
    return {JSON: {"schema": {"$ref": REF.format(model=model)}}}


def _probes() -> dict:
    said = {
        "/livez": "Whether the process is alive.",
        "/readyz": "Whether requests are answered: 503 until the model has answered its golden requests, and again "
        "from the moment the service is told to end.",
        "/metrics": "Figures for Prometheus, the digest of the model among them.",
    }
    return {path: {"get": _probe(path[1:], summary)} for path, summary in said.items()}


def _probe(name: str, summary: str) -> dict:
    text = {"description": "It is so.", "headers": ID, "content": {"text/plain": {"schema": {"type": "string"}}}}
    failures = {"503": _error(503, ERRORS[503])} if name == "readyz" else {}
    return {
        "summary": summary,
        "operationId": name,
        "tags": ["operation"],
        "responses": {"200": text} | failures,
    }
