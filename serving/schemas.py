"""What goes in and comes out, field by field: the OpenAPI document is made from it."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, ClassVar

from bentoml import IODescriptor
from bentoml.validators import ContentType
from pydantic import BaseModel, ConfigDict, Field, ValidationError
from starlette.requests import Request

from serving.http import read_files, read_json
from serving.refusals import Refused, shortened

PICTURE = "The picture, in any format that Pillow reads: drawn, scanned or photographed. Its first frame is looked at."
RECORDING = "The recording, in any format that libsndfile reads, as WAV, FLAC, OGG or MP3; its channels are averaged."
OBJECT = (
    "Which of the picture's objects is asked for, counted from 0, the largest first; empty: the largest. Where this "
    "field is given, the answer also lists the objects."
)
HEX = "0123456789abcdef"

Probability = Annotated[float, Field(ge=0, le=1, description="From 0 to 1, calibrated.", examples=[0.97])]
Probabilities = Annotated[
    dict[str, Probability],
    Field(
        description="The probability of every label the model knows; what they lack to 1 is that of none of them.",
        examples=[{"three": 0.02, "seven": 0.97}],
    ),
]
RequestId = Annotated[
    str,
    Field(
        pattern=r"^[0-9a-f]{32}$",
        description="The id of this answer, also in the header X-Request-ID; feedback refers to it.",
        examples=[2 * HEX],
    ),
]
Model = Annotated[
    str,
    Field(
        pattern=r"^[0-9a-f]{64}$",
        description="SHA-256 digest of the model that gave this answer.",
        examples=[4 * HEX],
    ),
]
Label = Annotated[str, Field(description="One of the labels that the model knows.", examples=["seven"])]
Start = Annotated[float, Field(ge=0, description="Seconds from the recording's start.", examples=[0.42])]
End = Annotated[float, Field(ge=0, description="Seconds from the recording's start, after start_s.", examples=[0.87])]
Pixel = Annotated[int, Field(ge=0)]


class FilesForm(IODescriptor):
    """A multipart form of files; each field arrives as its bytes, or as the Refused that says why not.

    Fields of `words` are text that need not be given.
    """

    words: ClassVar[tuple[str, ...]] = ()

    @classmethod
    async def from_http_request(cls, request: Request, serde) -> FilesForm:
        files = tuple(name for name in cls.model_fields if name not in cls.words)
        fields: dict[str, Any]
        try:
            fields = dict(await read_files(request, files, cls.words))
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
    object: str | None = Field(None, description=OBJECT)

    words = ("object",)


class Correction(BaseModel):
    """What an answer should have said. Fields of other names are refused."""

    model_config = ConfigDict(strict=True, extra="forbid")

    request_id: str = Field(
        pattern=r"^[0-9a-f]{32}$", description="The id of the answer that this corrects.", examples=[2 * HEX]
    )
    pictured: str | None = Field(
        None,
        min_length=1,
        max_length=100,
        description="What really is pictured.",
        examples=["one"],
    )
    heard: str | None = Field(None, min_length=1, max_length=100, description="What really is said.", examples=["one"])
    consent: bool = Field(description="Whether the correction may be used to train on.", examples=[True])


MAX_FEEDBACK_BYTES = 64_000  # it is parsed where every request is taken in, so it has to be quick


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
        where = shortened(".".join(str(part) for part in first["loc"]))
        raise Refused("bad_feedback", f"{where}: {first['msg'][:1].lower()}{first['msg'][1:]}") from None


class PicturedObject(BaseModel):
    """One thing in the picture."""

    label: Label
    probability: Probability
    box: tuple[Pixel, Pixel, Pixel, Pixel] = Field(
        description="x0, y0, x1, y1 in pixels of the picture as it was sent, turned upright; the last two exclusive.",
        examples=[[4, 2, 23, 26]],
    )


class PictureAnswer(IODescriptor):
    """What is pictured."""

    request_id: RequestId
    label: str | None = Field(description="What is pictured; null: nothing known.", examples=["seven"])
    probabilities: Probabilities
    objects: list[PicturedObject] = Field(description="What was found and where; empty where nothing is known.")
    model: Model


class Word(BaseModel):
    """One word in the recording."""

    label: Label
    probability: Probability
    start_s: Start
    end_s: End


class RecordingAnswer(IODescriptor):
    """What a recording says."""

    request_id: RequestId
    label: str | None = Field(description="What it says, as one word; null: it is silent.", examples=["seven"])
    probabilities: Probabilities
    words: list[Word] = Field(description="Every word found in it, in order of time.")
    model: Model


class Pictured(BaseModel):
    """What is pictured."""

    label: str | None = Field(description="What is pictured; null: nothing known.", examples=["seven"])
    probabilities: Probabilities


class Interval(BaseModel):
    """When the pictured word is said once."""

    start_s: Start
    end_s: End
    score: Probability


class Heard(BaseModel):
    """What the separated sound says."""

    label: Label
    probability: Probability


class ExtractionAnswer(IODescriptor):
    """The pictured word in the recording."""

    request_id: RequestId
    pictured: Pictured
    present: bool = Field(description="Whether the pictured word is said.", examples=[True])
    presence: Probability
    intervals: list[Interval] = Field(description="When it is said, in order of time; empty where it is not.")
    heard: Heard | None = Field(description="What the separated sound says; null where the word is absent.")
    audio_wav_base64: str = Field(
        description="A WAV file, in base64: the word's own sound, as long as the recording, aligned with it sample by "
        "sample and at its true level; silence where the word is absent.",
        examples=["UklGRiQAAABXQVZF…"],
    )
    sample_rate_hz: int = Field(ge=1, description="Of that sound; the recording's own.", examples=[8000])
    objects: list[PicturedObject] | None = Field(
        None, description="Everything found in the picture, the largest first; only where an object was asked for."
    )
    object: int | None = Field(None, ge=0, description="Which of them was asked for; null: nothing known was found.")
    model: Model


class FeedbackAnswer(IODescriptor):
    """The correction has been taken."""

    request_id: str = Field(pattern=r"^[0-9a-f]{32}$", description="The id of the answer that is corrected.")


class Fault(BaseModel):
    """What was wrong."""

    code: str = Field(pattern="^[a-z][a-z0-9_]*$", description="A short word for programs.", examples=["bad_content"])
    message: str = Field(
        description="One line for a person, naming what was wrong and what was expected.",
        examples=["image: cannot be decoded as a picture: it is empty"],
    )


class ErrorAnswer(BaseModel):
    """The form of every answer from 400 up."""

    error: Fault
