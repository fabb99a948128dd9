"""The views of a cache over HTTP: `GET /api/cache/…`, JSON and JPEGs.

What is not answered is refused as `http_errors` says, which whoever includes these routes
installs.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Annotated, Any

from fastapi import APIRouter, Query, Response
from fastapi.responses import JSONResponse

from framebank.features.browsing.http_errors import unavailable
from framebank.features.browsing.views import (
    LEAST_COSINE,
    MOST_COUNT,
    MOST_ROWS,
    CacheViews,
)

_PICTURE_S = 60.0  # that a request waits for one
_KEEP = {"Cache-Control": "private, max-age=600"}

VideoId = Annotated[str, Query(min_length=1, max_length=4096, description="as the catalog has it")]
Words = Annotated[str, Query(max_length=4096)]


@contextlib.contextmanager
def _made_in_time() -> Iterator[None]:
    try:
        yield
    except TimeoutError as error:
        todo = "ask again in a moment"
        raise unavailable("the pictures are being made", todo=todo, retry_s=5) from error


def cache_router(views: CacheViews) -> APIRouter:
    """Return the routes `/api/cache/…` of an open cache."""
    router = APIRouter(prefix="/api/cache", tags=["cache"])
    _add_tables(router, views)
    _add_pictures(router, views)
    _add_comparisons(router, views)
    return router


def _add_tables(router: APIRouter, views: CacheViews) -> None:
    @router.get("/about", summary="Counts, spec, runs and columns of the cache")
    def about() -> JSONResponse:
        return JSONResponse(views.about())

    @router.get("/videos", summary="Rows of the catalog for which all conditions hold")
    def videos(
        where: Annotated[list[Words] | None, Query(max_length=20)] = None,
        sort: Annotated[str | None, Query(max_length=1024)] = None,
        descending: bool = False,
        offset: Annotated[int, Query(ge=0, le=2**40)] = 0,
        limit: Annotated[int, Query(ge=0, le=MOST_ROWS)] = 60,
    ) -> JSONResponse:
        found = views.videos(
            where or [], sort=sort, descending=descending, offset=offset, limit=limit
        )
        return JSONResponse(found)

    @router.get("/video", summary="All that is known of one video")
    def video(video_id: VideoId) -> JSONResponse:
        return JSONResponse(views.video(video_id))


def _add_pictures(router: APIRouter, views: CacheViews) -> None:
    jpeg: dict[int | str, dict[str, Any]] = {
        200: {"content": {"image/jpeg": {}}, "description": "A JPEG"},
        404: {"description": "No such picture, with the reason in words"},
    }

    @router.get("/sheet", summary="A contact sheet", response_class=Response, responses=jpeg)
    def sheet(video_id: VideoId) -> Response:
        with _made_in_time():
            picture = views.sheet(video_id, wait_s=_PICTURE_S)
        frames = {"X-Sheet-Frames": str(views.sheet_frames(video_id))}
        return Response(picture, media_type="image/jpeg", headers=_KEEP | frames)

    @router.get("/frame", summary="One sampled frame", response_class=Response, responses=jpeg)
    def frame(video_id: VideoId, index: Annotated[int, Query(ge=0, le=2**40)]) -> Response:
        with _made_in_time():
            picture = views.frame(video_id, index, wait_s=_PICTURE_S)
        return Response(picture, media_type="image/jpeg", headers=_KEEP)


def _add_comparisons(router: APIRouter, views: CacheViews) -> None:
    @router.get("/neighbours", summary="The videos that are most like one")
    def neighbours(
        video_id: VideoId, count: Annotated[int, Query(ge=1, le=MOST_COUNT)] = 12
    ) -> JSONResponse:
        return JSONResponse(views.neighbours(video_id, count))

    @router.get("/duplicates", summary="Pairs of videos that are nearly the same")
    def duplicates(
        least: Annotated[float, Query(ge=LEAST_COSINE, le=1)] = 0.999,
        limit: Annotated[int, Query(ge=1, le=MOST_ROWS)] = 100,
    ) -> JSONResponse:
        return JSONResponse(views.duplicates(least, limit))

    @router.get("/map", summary="Where each video lies on a plane")
    def plane(colour: Annotated[str | None, Query(max_length=1024)] = None) -> JSONResponse:
        return JSONResponse(views.map(colour))
