"""The page, served over a small cache of real clips, and a model whose answers are known.

The clips, the cache, its pictures and its routes are real; only the network is a few sums of
pixels, and what the model says stands here.
"""

from __future__ import annotations

import asyncio
import base64
import contextlib
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import fastapi
import uvicorn

from framebank.features.cache import catalog, layout
from framebank.features.decoders.pool import DecoderPolicy
from framebank.features.extraction.engine import Engine
from framebank.features.video import VideoRef
from framebank.features.web.application import mount_pages
from tests.clips.plain_clips import FakeNetwork, write_clip
from tests.made.made_cache import SPEC, make_shard

HOSTILE = (
    "<img src=x onerror=alert(1)>.mp4",  # what a page must not run
    "\u202egpj.mp4",  # what turns the text around it
    "שלום <b>.mp4",
)
PLAIN = ("street/a0.mp4", "street/a1.mp4", "street/a2.mp4", "yard/b0.mp4", "yard/b1.mp4")
BROKEN = "yard/broken.mp4"
ANSWER = "<b>loading</b> a truck"
ANSWERS = [(ANSWER, 0.81), ("unloading", 0.12), ("\u202ewalking", 0.04), ("standing", 0.0004)]
WEIGHTS = (0.02, 0.31, -0.04)
_RUN = "20261129T1000"
_WAIT_S = 20.0


def make_site_cache(folder: Path) -> str:
    """Write clips of hostile and plain names, one broken, and return the cache made of them."""
    refs = []
    for number, name in enumerate((*PLAIN, *HOSTILE, BROKEN)):
        path = folder / "clips" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        # The first two are one clip, twice.
        write_clip(path, frames=12 + number, seed=max(number, 1), size=(96, 64))
        if name == BROKEN:
            path.write_bytes(path.read_bytes()[:300])
        columns = {"label": ("loading", "unloading")[number % 2], "split": "train"}
        status = path.stat()
        generation = str(status.st_mtime_ns)
        refs.append(VideoRef(name, str(path), status.st_size, generation, columns=columns))
    cache = str(folder / "cache")
    # Three rows each, whatever the length: the network is small, and so are the pictures.
    spec = SPEC.__class__(**(vars(SPEC) | {"sample": "uniform=3", "input_size": 32}))
    with contextlib.closing(Engine(FakeNetwork(), spec, DecoderPolicy(decoders=2))) as engine:
        results = list(engine.run(refs))
    layout.write_spec(cache, spec)
    rows = make_shard(cache, "s0", results, run_id=_RUN, spec=spec)
    catalog.write_catalog(cache, _RUN, rows)
    return cache


def model_routes(picture: bytes) -> fastapi.APIRouter:
    """Return the routes of a model that knows its answers; `picture` is every frame's, a JPEG."""
    router = fastapi.APIRouter(prefix="/v1")

    async def read(request: fastapi.Request) -> tuple[dict[str, Any], str]:
        if not request.headers["content-type"].startswith("multipart"):
            asked = await request.json()
            return {"video_id": asked["video_id"]}, asked.get("question", "")
        form = await request.form()
        clip = form["clip"]
        assert not isinstance(clip, str)
        if not (await clip.read()).strip(b"\0 \n"):
            raise fastapi.HTTPException(422)
        await asyncio.sleep(0.2)  # long enough for the page to say what it waits for
        return {"name": clip.filename}, str(form.get("question", ""))

    @router.post("/ask")
    @router.post("/classify")
    async def ask(request: fastapi.Request) -> Any:
        try:
            video, question = await read(request)
        except fastapi.HTTPException:
            error = {
                "class": "UsageError", "message": "the clip cannot be used: empty",
                "got": "0 bytes", "expected": "a video", "todo": "look at <i>the file</i>",
            }  # fmt: skip
            return fastapi.responses.JSONResponse({"error": error}, 422)
        rows = [{"answer": answer, "probability": share} for answer, share in ANSWERS]
        said = {"question": question, "answers": rows, "unknown_words": ["<i>zebra</i>"]}
        video |= {"frames": len(WEIGHTS), "duration_s": 1.2}
        return {"model": {"name": "made", "version": "v1"}, "video": video, "answers": [said]}

    @router.post("/explain")
    async def explain(request: fastapi.Request) -> Any:
        await read(request)
        frames = [
            {"index": number, "time_s": number * 0.4, "weight": weight}
            for number, weight in enumerate(WEIGHTS)
        ]
        address = f"data:image/jpeg;base64,{base64.b64encode(picture).decode()}"
        return {"answer": ANSWER, "frames": frames, "pictures": [address, address, None]}

    return router


def make_site(views: Any, picture: bytes) -> fastapi.FastAPI:
    """Return the application: the page, the cache's own routes, the made-up model's."""
    from framebank.features.browsing.routes import cache_router

    app = fastapi.FastAPI(docs_url=None, redoc_url=None)
    app.include_router(cache_router(views))
    app.include_router(model_routes(picture))
    model = {
        "name": "made", "version": "v1", "head": "open", "kind": "lstm", "backbone": "pixels",
        "sampling": "uniform=3", "answers": [answer for answer, _ in ANSWERS], "asks": True,
        "trained_on": "12 questions",
    }  # fmt: skip
    cache = {"address": views.cache.path}
    mount_pages(app, lambda: {"title": "Made", "version": "1", "model": model, "cache": cache})
    return app


@contextlib.contextmanager
def serving(app: fastapi.FastAPI) -> Iterator[str]:
    """Serve an application on a free port of this machine; yields its address."""
    config = uvicorn.Config(app, host="127.0.0.1", port=0, log_level="warning", lifespan="off")
    server = uvicorn.Server(config)
    thread = threading.Thread(target=server.run, daemon=True)
    thread.start()
    last_s = time.monotonic() + _WAIT_S
    while not server.started:
        assert time.monotonic() < last_s, "the server does not start"
        time.sleep(0.02)
    try:
        yield f"http://127.0.0.1:{server.servers[0].sockets[0].getsockname()[1]}"
    finally:
        server.should_exit = True
        thread.join(_WAIT_S)
