"""The application: which routes there are, and what each takes and gives (`/openapi.json`)."""

from __future__ import annotations

from typing import Annotated, Any, cast

import fastapi
import pydantic
from fastapi.responses import JSONResponse, Response

import framebank
from framebank.features.browsing import http_errors
from framebank.features.browsing.http_errors import bad_request
from framebank.features.browsing.routes import cache_router
from framebank.features.browsing.views import CacheViews
from framebank.features.web.application import mount_pages
from framebank.train.serve import metrics, open_inference, uploads
from framebank.train.serve.asking import Service, model_words
from framebank.train.serve.gate import Gate
from framebank.train.serve.limits import BODY_BYTES, MIB
from framebank.train.serve.models import Models
from framebank.train.serve.schemas import (
    AskAnswer,
    AskBody,
    ClassifyBody,
    ErrorBody,
    ExplainAnswer,
    InferBody,
    NeighboursAnswer,
    NeighboursBody,
    ProtocolError,
    ScoreAnswer,
    ScoreBody,
    State,
)

_INFER_BYTES = 64 * MIB
_MOST_ANSWERS = 200  # that /api/about lists
_Path = Annotated[str, fastapi.Path(max_length=200)]


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
        redirect_slashes=False,
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
                service.check_questions(asked, model)
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
