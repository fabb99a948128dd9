"""The clip that a request is about: sent with it, below an allowed root, or a video of the cache.

What a request names is nothing that this server fetches or opens, but for files below the roots
that whoever started it allowed, and the cache's own videos, whose features are there already.
"""

from __future__ import annotations

import asyncio
import dataclasses
import os
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from typing import Any

from framebank.features.asking.command import as_cached
from framebank.features.browsing.http_errors import Refusal
from framebank.features.browsing.views import CacheViews
from framebank.features.cache import catalog
from framebank.features.cache.reader import NoSuchVideoError, check_finite
from framebank.features.cache.record import FeatureRecord
from framebank.features.errors import FramebankError, UsageError, VideoRejected
from framebank.features.extraction.live import Results
from framebank.features.extraction.one_clip import ref_of
from framebank.features.pictures import Pictures
from framebank.features.spec import check_same_spec
from framebank.features.stores import storage
from framebank.features.video import Extracted, Rejected, VideoRef
from framebank.train.serve.models import ModelInUse

_LOOK_AGAIN_S = 10.0  # at the catalog of a cache that grows
_CLOSED_AFTER_S = 60.0
_TODO = "use a model of the cache's own spec, or send the clip"


@dataclasses.dataclass(frozen=True)
class Clip:
    """A clip as a model sees it, what is said of it, and its frames' JPEGs where they were asked
    for and could be had."""

    record: FeatureRecord
    about: dict[str, Any]
    pictures: Sequence[bytes] | None = None


class CacheInUse:
    """The cache of a server and its views, opened again when its catalog has grown; any thread may
    use it. As `features.browsing.routes` see it, it is the views that are open now."""

    def __init__(self, path: str) -> None:
        """Raises UsageError, CacheError."""
        self.path = path
        self._lock = threading.Lock()
        self._views: CacheViews | None = None
        self._open()

    def _open(self) -> None:
        self._files = catalog.catalog_files(self.path)
        before, self._views = self._views, CacheViews.open(self.path)
        self._views.start()
        self._looked_s = time.monotonic()
        if before is not None:  # requests that are under way may still look into it
            ending = threading.Timer(_CLOSED_AFTER_S, before.close)
            ending.daemon = True
            ending.start()

    @property
    def views(self) -> CacheViews:
        """Return the views of the cache as it is now, or was some seconds ago."""
        with self._lock:
            if time.monotonic() - self._looked_s > _LOOK_AGAIN_S:
                self._looked_s = time.monotonic()
                if catalog.catalog_files(self.path) != self._files:
                    self._open()
            assert self._views is not None
            return self._views

    def __getattr__(self, name: str) -> Any:
        return getattr(self.views, name)

    def close(self) -> None:
        """Stop what works in the background."""
        if self._views is not None:
            self._views.close()

    def find(self, video_id: str) -> str:
        """Return the id of the video that is meant, as the id of a question finds it; raises
        NoSuchVideoError."""
        names = self.views.names
        if (found := names.find(video_id)) is not None:
            return found
        what = f"{video_id!r} is no video of the cache"
        raise NoSuchVideoError(what, todo=names.hint(video_id) or "see /api/cache/videos")

    def check_spec(self, model: ModelInUse) -> None:
        """Raise SpecMismatchError for a model of other features than the cache's."""
        where, owner = f"the cache {self.path}", "of the cache"
        its = self.views.cache.spec
        check_same_spec(its, model.lineage.spec, where=where, owner=owner, todo=_TODO)

    def read(self, video_id: str, model: ModelInUse) -> FeatureRecord:
        """Return a video as the model would see it; raises NoSuchVideoError, SpecMismatchError,
        CacheError."""
        found = self.find(video_id)
        self.check_spec(model)
        record = self.views.cache[found]
        check_finite(found, record.features)
        return record

    def source(self, video_id: str) -> tuple[str, str]:
        """Return where a video of the cache came from, and the SHA-256 that it had; "" where that
        is not known."""
        rows = self.views.cache.done(["uri", "content_sha256"], [video_id]).to_pylist()
        return (rows[0]["uri"] or "", rows[0]["content_sha256"] or "") if rows else ("", "")


def allowed_ref(uri: str, roots: Sequence[str]) -> VideoRef:
    """Return the clip of this address; raises Refusal for one that is below no root, and
    VideoRejected where there is none. Links are followed before it is looked where they lead."""
    try:
        is_local = storage.is_local(uri)
    except UsageError:
        raise _not_allowed(roots) from None
    parts = uri.split("/")
    if "\0" in uri or ".." in parts or (not is_local and "" in parts[2:]):
        raise _not_allowed(roots)
    if is_local:
        path = os.path.realpath(storage.local_path(uri))
        if not os.path.isabs(storage.local_path(uri)) or not any(
            path.startswith(os.path.join(os.path.realpath(storage.local_path(root)), ""))
            for root in roots
            if storage.is_local(root)
        ):
            raise _not_allowed(roots)
        return ref_of(path)
    if not any(uri.startswith(root.rstrip("/") + "/") for root in roots):
        raise _not_allowed(roots)
    if (found := storage.find(uri)) is None:
        raise VideoRejected("open", "missing", "there is no such object")
    return VideoRef(parts[-1], uri, found.size_bytes, found.generation)


def _not_allowed(roots: Sequence[str]) -> Refusal:
    return Refusal(
        403,
        "not_allowed",
        "the uri is below no folder that this server may read",
        expected="an absolute path or address below one that was given as --allow"
        if roots
        else "no uri: the server was started without --allow",
        todo="send the clip itself, or name a video_id of the cache",
    )


class Decoding:
    """Has clips decoded for requests, so many at a time that their features fit into memory."""

    def __init__(self, most: int) -> None:
        self._places = asyncio.Semaphore(most)

    async def clip(
        self, ref: VideoRef, model: ModelInUse, about: dict[str, Any], *, pictures: bool = False
    ) -> Clip:
        """Return a clip decoded and through the network; raises VideoRejected, JobError."""
        engine = model.clips
        wants = [True, *([pictures] if engine.has_pictures else [])]
        async with self._places:
            found = await self._results(lambda: engine.live.submit(ref, wants))
            extracted = _sound(found[0], ref)
            record = await asyncio.to_thread(as_cached, extracted, model.lineage.spec)
        shown = _encoded(found[1]) if len(found) > 1 else None
        said = {"frames": len(record.features), "duration_s": record.source.duration_s}
        return Clip(record, {**about, **said}, shown)

    async def pictures(self, ref: VideoRef, model: ModelInUse) -> Extracted | None:
        """Return the frames of a clip as pictures, None where there are none to be had."""
        if not model.clips.has_pictures:
            return None
        async with self._places:
            try:
                found = await self._results(lambda: model.clips.live.submit(ref, [False, True]))
            except FramebankError:
                return None
        return found[1] if isinstance(found[1], Extracted) else None

    async def _results(self, submit: Callable[[], Future[Results]]) -> Results:
        outcome = await asyncio.to_thread(submit)
        try:
            return await asyncio.wrap_future(outcome)
        except asyncio.CancelledError:
            outcome.cancel()  # nobody waits any more: it need not begin
            raise


def _sound(result: Extracted | Rejected | None, ref: VideoRef) -> Extracted:
    """Return what was extracted; raises VideoRejected, which does not say where the clip lay."""
    if isinstance(result, Rejected):
        message = result.message.replace(ref.uri, "the clip")
        raise VideoRejected(result.stage, result.error_class, message)
    assert result is not None
    return result


def _encoded(result: Extracted | Rejected | None) -> Sequence[bytes] | None:
    if isinstance(result, Extracted) and isinstance(result.features, Pictures):
        return result.features.encoded
    return None


def pictures_of(extracted: Extracted | None, record: FeatureRecord) -> Sequence[bytes] | None:
    """Return the pictures of a cached video's frames, None where they are others than it had."""
    shown = _encoded(extracted)
    same = extracted is not None and extracted.frame_index.tolist() == record.frame_index.tolist()
    return shown if same else None
