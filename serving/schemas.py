"""What goes in and comes out, field by field: the OpenAPI document is made from it."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

from bentoml import IODescriptor
from bentoml.validators import ContentType
from pydantic import BaseModel, ConfigDict, Field, ValidationError
from starlette.requests import Request

from serving.http import Refused, read_files, read_json

PICTURE = "The picture, in any format that Pillow reads."
RECORDING = "The recording, in any format that libsndfile reads; several channels are averaged."

Probabilities = Annotated[dict[str, float], Field(description="Of every label; what they lack to 1: none of them.")]
RequestId = Annotated[str, Field(description="Also in the header X-Request-ID; feedback refers to it.")]
Model = Annotated[str, Field(description="Digest of the model that answered.")]
Probability = Annotated[float, Field(ge=0, le=1)]


class FilesForm(IODescriptor):
    """A multipart form of files; each field arrives as its bytes, or as the Refused that says why not."""

    @classmethod
    async def from_http_request(cls, request: Request, serde) -> FilesForm:
        fields: dict[str, Any]
        try:
            fields = dict(await read_files(request, tuple(cls.model_fields)))
        except Refused as refusal:
            fields = dict.fromkeys(cls.model_fields, refusal)
        return cls.model_construct(**fields)


class PictureForm(FilesForm):
    image: Annotated[Path, ContentType("image/*")] = Field(description=PICTURE)


class RecordingForm(FilesForm):
    audio: Annotated[Path, ContentType("audio/*")] = Field(description=RECORDING)


class PairForm(FilesForm):
    image: Annotated[Path, ContentType("image/*")] = Field(description=PICTURE)
    audio: Annotated[Path, ContentType("audio/*")] = Field(description=RECORDING)


class Correction(BaseModel):
    """What an answer should have said."""

    model_config = ConfigDict(strict=True, extra="forbid")

    request_id: str = Field(pattern=r"^[0-9a-f]{32}$", description="The id of the answer that this corrects.")
    pictured: str | None = Field(None, min_length=1, max_length=100, description="What really is pictured.")
    heard: str | None = Field(None, min_length=1, max_length=100, description="What really is said.")
    consent: bool = Field(description="Whether the correction may be used to train on.")


class FeedbackForm(IODescriptor):
    """A JSON object; arrives as the Correction, or as the Refused that says why not."""

    correction: Correction

    @classmethod
    def model_json_schema(cls, *args, **kwargs) -> dict:
        return Correction.model_json_schema(*args, **kwargs)

    @classmethod
    async def from_http_request(cls, request: Request, serde) -> FeedbackForm:
        try:
            return cls.model_construct(correction=correction_of(await read_json(request)))
        except Refused as refusal:
            return cls.model_construct(correction=refusal)


def correction_of(value: dict) -> Correction:
    """The correction in a JSON object. Raises Refused (400) naming the field that is wrong."""
    try:
        return Correction.model_validate(value)
    except ValidationError as fault:
        first = fault.errors(include_url=False, include_input=False, include_context=False)[0]
        where = ".".join(str(part) for part in first["loc"])
        raise Refused("bad_feedback", f"{where}: {first['msg'][:1].lower()}{first['msg'][1:]}") from None


class PicturedObject(BaseModel):
    label: str
    probability: Probability
    box: tuple[int, int, int, int] = Field(description="x0, y0, x1, y1 in pixels; the last two exclusive.")


class PictureAnswer(IODescriptor):
    request_id: RequestId
    label: str | None = Field(description="What is pictured; null: nothing known.")
    probabilities: Probabilities
    objects: list[PicturedObject]
    model: Model


class Word(BaseModel):
    label: str
    probability: Probability
    start_s: float
    end_s: float


class RecordingAnswer(IODescriptor):
    request_id: RequestId
    label: str | None = Field(description="The word that the recording says; null: it is silent.")
    probabilities: Probabilities
    words: list[Word]
    model: Model


class Pictured(BaseModel):
    label: str | None = Field(description="What is pictured; null: nothing known.")
    probabilities: Probabilities


class Interval(BaseModel):
    start_s: float
    end_s: float
    score: float


class Heard(BaseModel):
    label: str
    probability: Probability


class ExtractionAnswer(IODescriptor):
    request_id: RequestId
    pictured: Pictured
    present: bool = Field(description="Whether the pictured word is said.")
    presence: Probability
    intervals: list[Interval] = Field(description="When it is said, in order of time.")
    heard: Heard | None = Field(description="What the separated sound says; null where the word is absent.")
    audio_wav_base64: str = Field(description="The word's own sound, as long as the recording and aligned with it.")
    sample_rate_hz: int
    model: Model


class FeedbackAnswer(IODescriptor):
    request_id: RequestId
