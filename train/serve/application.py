"""The application: which routes there are, and what each takes and gives (`/openapi.json`)."""

from __future__ import annotations

from typing import Annotated, Any, cast

import fastapi
import pydantic
from fastapi.responses import JSONResponse, Response

import framebank
from framebank.features.browsing.routes import cache_router
from framebank.features.browsing.views import CacheViews
from framebank.features.web.application import mount_pages
from framebank.train.serve import http_errors, metrics, open_inference, uploads
from framebank.train.serve.asking import AskBody, ClassifyBody, ScoreBody, Service, model_words
from framebank.train.serve.gate import Gate
from framebank.train.serve.http_errors import bad_request
from framebank.train.serve.limits import BODY_BYTES, MIB
from framebank.train.serve.models import Models

_INFER_BYTES = 64 * MIB
_MOST_ANSWERS = 200  # that /api/about lists
_Path = Annotated[str, fastapi.Path(max_length=200)]


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


_ERRORS: dict[int | str, dict[str, Any]] = {
    status: {"model": ErrorBody}
    for status in (400, 401, 403, 404, 405, 408, 409, 413, 415, 421, 422, 429, 503)
}
_PROTOCOL_ERRORS: dict[int | str, dict[str, Any]] = {
    status: {"model": ProtocolError}
    for status in (400, 401, 403, 404, 405, 408, 409, 413, 415, 421, 422, 429, 503)
}


def _body(model: type[pydantic.BaseModel], *, with_clip: bool = True) -> dict[str, Any]:
    """Return what the OpenAPI document says of a body that is JSON or a form with a clip."""
    schema = model.model_json_schema()
    content: dict[str, Any] = {uploads.JSON: {"schema": schema}}
    if with_clip:
        fields = {
            name: one
            for name, one in schema["properties"].items()
            if name not in ("video_id", "uri")
        }
        texts = {"type": "array", "items": {"type": "string", "maxLength": 20_000}}
        for name in ("question", "questions", "choices"):
            if name in fields:
                fields[name] = texts
        fields["clip"] = {"type": "string", "format": "binary", "description": "a video or picture"}
        form = {"type": "object", "properties": fields, "required": ["clip"]}
        content[uploads.FORM] = {"schema": form}
    return {"requestBody": {"required": True, "content": content}}


def make_application(service: Service, models: Models, figures: metrics.Metrics) -> fastapi.FastAPI:
    """Return the application without its gate."""
    app = fastapi.FastAPI(
        title="Framebank",
        version=framebank.__version__,
        description="Asks a trained model about clips.",
        docs_url=None,  # these pages fetch scripts from elsewhere
        redoc_url=None,
    )
    http_errors.install(app)
    _add_asking(app, service, models)
    _add_protocol(app, service, models)
    if service.cache is not None:
        app.include_router(cache_router(cast(CacheViews, service.cache)))

    def about() -> dict[str, Any]:
        cache = {"address": service.cache.path} if service.cache is not None else None
        its = {"title": models.name, "version": framebank.__version__}
        return {**its, "model": about_model(models), "cache": cache}

    mount_pages(app, about)

    @app.get("/metrics", response_class=Response, responses={200: {"content": {"text/plain": {}}}})
    async def read_metrics() -> Response:
        """Figures for Prometheus."""
        return Response(figures.text(), media_type=metrics.CONTENT_TYPE)

    return app


def _add_asking(app: fastapi.FastAPI, service: Service, models: Models) -> None:
    of: dict[str, Any] = {"responses": _ERRORS, "response_model_exclude_none": True}

    @app.post("/v1/ask", response_model=AskAnswer, openapi_extra=_body(AskBody), **of)
    async def ask(request: fastapi.Request) -> dict[str, Any]:
        """Ask one question or several about a clip that is sent, or named."""
        with models.using() as model:
            async with service.read(request) as asked:
                return await service.answer(asked, model, await service.clip(asked, model))

    @app.post("/v1/classify", response_model=AskAnswer, openapi_extra=_body(ClassifyBody), **of)
    async def classify(request: fastapi.Request) -> dict[str, Any]:
        """Give a clip its labels, by a model that is asked nothing."""
        with models.using() as model:
            if model.model.head.asks:
                raise bad_request("the model is asked questions", expected="POST /v1/ask")
            async with service.read(request, ClassifyBody) as asked:
                return await service.answer(asked, model, await service.clip(asked, model))

    @app.post(
        "/v1/neighbours",
        response_model=NeighboursAnswer,
        openapi_extra=_body(NeighboursBody),
        responses=_ERRORS,
    )
    async def neighbours(request: fastapi.Request) -> dict[str, Any]:
        """Find the videos of the cache that are most like a clip."""
        with models.using() as model:
            async with service.read(request, NeighboursBody) as asked:
                return await service.neighbours(asked, model)

    @app.post(
        "/v1/score",
        response_model=ScoreAnswer,
        openapi_extra=_body(ScoreBody, with_clip=False),
        responses=_ERRORS,
    )
    async def score(request: fastapi.Request) -> dict[str, Any]:
        """Answer rows of a question file about videos of the cache."""
        _check_json(request)
        with models.using() as model:
            body = ScoreBody.model_validate(await uploads.read_json(request, BODY_BYTES))
            return await service.score(body.rows, model)

    @app.post(
        "/v1/explain",
        response_model=ExplainAnswer,
        response_model_exclude_none=True,
        openapi_extra=_body(AskBody),
        responses=_ERRORS,
    )
    async def explain(request: fastapi.Request) -> dict[str, Any]:
        """Say which frames of a clip an answer hangs on."""
        with models.using() as model:
            async with service.read(request) as asked:
                return await service.explained(asked, model)


def _check_json(request: fastapi.Request) -> None:
    if uploads.kind_of(request)[0] != uploads.JSON:
        raise bad_request("this route takes JSON alone")


def _add_protocol(app: fastapi.FastAPI, service: Service, models: Models) -> None:
    of: dict[str, Any] = {"responses": _PROTOCOL_ERRORS}
    inference = {
        "requestBody": {
            "required": True,
            "content": {uploads.JSON: {"schema": InferBody.model_json_schema()}},
        }
    }

    @app.get("/v2", **of)
    async def server() -> dict[str, Any]:
        """What serves."""
        return {"name": "framebank", "version": framebank.__version__, "extensions": []}

    @app.get("/v2/models/{name}", **of)
    @app.get("/v2/models/{name}/versions/{version}", **of)
    async def about(name: _Path, version: str | None = None) -> dict[str, Any]:
        """The inputs and outputs of the model."""
        with models.using() as model:
            open_inference.check_name(model, name, version)
            return open_inference.metadata(model)

    @app.get("/v2/models/{name}/ready", **of)
    @app.get("/v2/models/{name}/versions/{version}/ready", **of)
    async def is_ready(name: _Path, version: str | None = None) -> dict[str, Any]:
        """Whether the model answers."""
        with models.using() as model:
            open_inference.check_name(model, name, version)
            return {"name": model.name, "ready": True}

    @app.post("/v2/models/{name}/infer", openapi_extra=inference, **of)
    @app.post("/v2/models/{name}/versions/{version}/infer", openapi_extra=inference, **of)
    async def infer(
        request: fastapi.Request, name: _Path, version: str | None = None
    ) -> dict[str, Any]:
        """Run the model on features."""
        _check_json(request)
        with models.using() as model:
            open_inference.check_name(model, name, version)
            body = await uploads.read_json(request, _INFER_BYTES)
            return await open_inference.infer(service.asker, model, body)


class InferBody(pydantic.BaseModel):
    """Tensors of the open inference protocol."""

    id: str | None = None
    inputs: list[dict[str, Any]]
    outputs: list[dict[str, Any]] | None = None
    parameters: dict[str, Any] | None = None


def add_probes(app: fastapi.FastAPI, gate: Gate) -> None:
    """Add the routes by which a service manager tells whether the server lives, and takes work."""

    @app.get("/healthz")
    async def lives() -> State:
        """Whether the process lives."""
        return State(status="alive")

    @app.get("/v2/health/live")
    async def is_live() -> dict[str, bool]:
        """Whether the process lives."""
        return {"live": True}

    @app.get("/readyz", responses={503: {"model": State}})
    async def is_ready() -> Any:
        """Whether it takes requests: not while it ends."""
        if gate.draining:
            return JSONResponse({"status": "ending"}, 503)
        return State(status="ready")

    @app.get("/v2/health/ready", responses={503: {"model": dict[str, bool]}})
    async def takes_work() -> Any:
        """Whether it takes requests."""
        return JSONResponse({"ready": not gate.draining}, 503 if gate.draining else 200)


def about_model(models: Models) -> dict[str, Any]:
    """Return what the page says of the model in use."""
    with models.using() as model:
        head, spec = model.model.head, model.lineage.spec
        return {
            **model_words(model),
            "head": head.kind,
            "kind": head.kind,
            "backbone": spec.backbone,
            "sampling": spec.sample,
            "answers": list(head.answers[:_MOST_ANSWERS]),
            "asks": head.asks,
            "trained_on": model.lineage.cache,
        }
