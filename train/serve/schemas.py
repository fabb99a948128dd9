"""What requests hold and answers say, field by field, as `/openapi.json` has it."""

from __future__ import annotations

from typing import Annotated, Any

import pydantic

from framebank.features.browsing.views import MOST_COUNT

MOST_TOP = 100
MOST_CHOICES = 100
_Text = Annotated[str, pydantic.StringConstraints(max_length=20_000)]
_Name = Annotated[str, pydantic.StringConstraints(min_length=1, max_length=4096)]


class AskBody(pydantic.BaseModel):
    """A clip that is named, and what is asked about it."""

    model_config = pydantic.ConfigDict(extra="forbid", strict=True)

    video_id: _Name | None = pydantic.Field(None, description="a video of the server's cache")
    uri: _Name | None = pydantic.Field(None, description="a clip below a root that is allowed")
    question: _Text | None = None
    questions: list[_Text] | None = None
    choices: list[_Text] = pydantic.Field([], max_length=MOST_CHOICES)
    top: int = pydantic.Field(5, ge=1, le=MOST_TOP)


class ClassifyBody(pydantic.BaseModel):
    """A clip that is named, to be given its labels."""

    model_config = pydantic.ConfigDict(extra="forbid", strict=True)

    video_id: _Name | None = None
    uri: _Name | None = None
    top: int = pydantic.Field(5, ge=1, le=MOST_TOP)


class NeighboursBody(pydantic.BaseModel):
    """A clip that is named, whose like is looked for in the cache."""

    model_config = pydantic.ConfigDict(extra="forbid", strict=True)

    video_id: _Name | None = None
    uri: _Name | None = None
    count: int = pydantic.Field(12, ge=1, le=MOST_COUNT)


class ScoreBody(pydantic.BaseModel):
    """Rows of a question file, about videos of the cache."""

    model_config = pydantic.ConfigDict(extra="forbid", strict=True)

    rows: list[dict[str, Any]]


class InferBody(pydantic.BaseModel):
    """Tensors of the open inference protocol."""

    id: str | None = None
    inputs: list[dict[str, Any]]
    outputs: list[dict[str, Any]] | None = None
    parameters: dict[str, Any] | None = None


class Error(pydantic.BaseModel):
    """What is wrong, in words."""

    model_config = pydantic.ConfigDict(json_schema_extra={"additionalProperties": False})

    # `class` is Python's own word.
    class_: str = pydantic.Field(alias="class")
    message: str
    got: str | None
    expected: str | None
    todo: str | None


class ErrorBody(pydantic.BaseModel):
    """A refusal."""

    error: Error


class ProtocolError(pydantic.BaseModel):
    """A refusal of the open inference protocol."""

    error: str


class ModelWords(pydantic.BaseModel):
    """The model that answered; `version` is "" for one that is no version of a registry."""

    name: str
    version: str
    random_weights: bool = False


class Video(pydantic.BaseModel):
    """The clip; one of the cache has a `video_id`, another one a `name`."""

    video_id: str | None = None
    name: str | None = None
    frames: int
    duration_s: float


class Answer(pydantic.BaseModel):
    """An answer with its probability; a count has the number that it was rounded from."""

    answer: str
    probability: float | None = None
    number: float | None = None


class Segment(pydantic.BaseModel):
    """When something happens in a video."""

    start_s: float
    end_s: float
    label: str
    score: float


class Answers(pydantic.BaseModel):
    """The likeliest answers to one question, the best first."""

    question: str
    answers: list[Answer]
    unknown_words: list[str]
    warnings: list[str]
    segments: list[Segment] | None = None


class AskAnswer(pydantic.BaseModel):
    """Answers to all questions about a clip, in their order."""

    model: ModelWords
    video: Video
    answers: list[Answers]


class ScoreAnswer(pydantic.BaseModel):
    """The rows, each with its answer and confidence, or its error."""

    model: ModelWords
    rows: list[dict[str, Any]]


class FrameWeight(pydantic.BaseModel):
    """What the answer loses without a frame."""

    index: int
    time_s: float
    weight: float


class ExplainAnswer(pydantic.BaseModel):
    """An answer, the weights of the frames in it, and their pictures as data: addresses."""

    model: ModelWords
    video: Video
    question: str
    answer: str
    probability: float | None = None
    number: float | None = None
    frames: list[FrameWeight]
    pictures: list[str | None]


class Neighbour(pydantic.BaseModel):
    """A video of the cache, and how near it is."""

    video_id: str
    cosine: float


class NeighboursAnswer(pydantic.BaseModel):
    """The nearest videos, the nearest first, of how many that were compared; not all of them are
    until it is `complete`."""

    method: str
    of: int
    complete: bool
    neighbours: list[Neighbour]


class State(pydantic.BaseModel):
    """Whether the server lives, or takes requests."""

    status: str
