"""What people see of a cache: each view as the value that goes out as JSON, or as a JPEG.

`CacheViews.open` reads the catalog alone. Vectors and pictures come when they are first
asked for; `start` has vectors made in the background. Everything here may be called by several
threads at once. An id of a video is looked up in the catalog before anything is done with it.
"""

from __future__ import annotations

import contextlib
import functools
import json
import re
import threading
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from framebank.features.browsing.columns import VideoTable
from framebank.features.browsing.conditions import select_rows
from framebank.features.browsing.missing import NotFoundError
from framebank.features.browsing.moments import Moments, record_vector, unit
from framebank.features.browsing.neighbours import MOST_POINTS, Found, Neighbours
from framebank.features.cache import layout
from framebank.features.cache.reader import Cache, open_cache
from framebank.features.cache.record import FeatureRecord
from framebank.features.errors import FramebankError, UsageError
from framebank.features.stores import json_text, storage
from framebank.features.terminal import printable
from framebank.features.video import catalog_text

if TYPE_CHECKING:
    from framebank.features.browsing.asked import Asked
    from framebank.features.browsing.clip_pictures import PictureMaker, Pictures
    from framebank.features.questions.files import QuestionFiles
    from framebank.features.questions.videos import ClipNames

LEAST_COSINE = 0.9  # of near-duplicates that may be asked for
MOST_ROWS = 1000  # of one page
MOST_COUNT = 200  # neighbours
_MAP_COMPONENTS = 8  # of which the first two are shown; with a few more they settle sooner
_UMAP_COMPONENTS = 50
_GROUPS = 11  # of a map, beside "other"
_SOON_S = 3.0  # what is asked for may take, before it is told how far it is
_MOST_RUN_BYTES = 1 << 20
_STATED_S = re.compile(r"(?:it ends at|first: .* at) (\d+\.\d+) s")


class CacheViews:
    """The views of one open cache."""

    def __init__(self, cache: Cache, asked: Asked | None = None) -> None:
        self.cache = cache
        self.asked = asked
        catalogued = cache.table()
        more = asked.columns(catalogued.column("video_id").to_pylist()) if asked else None
        self.table = VideoTable(catalogued, more=more)
        self.moments = Moments(cache)
        self.near = Neighbours(self.moments)
        self._lock = threading.Lock()
        self._started = False
        self._maker: PictureMaker | None = None
        self._plane: NDArray[np.float32] | None = None

    @classmethod
    def open(
        cls, path: str, *, questions: QuestionFiles | None = None, answers: str | None = None
    ) -> CacheViews:
        """Open a cache to look into; raises UsageError, CacheError."""
        cache = open_cache(path)
        asked = None
        if questions is not None or answers is not None:
            from framebank.features.browsing.asked import read_asked

            ids = cache.table(["video_id"]).column("video_id").to_pylist()
            asked = read_asked(ids, questions, answers)
        return cls(cache, asked)

    def start(self) -> None:
        """Have the vectors made, and of many an index and a better map, in the background; a
        second call does nothing."""
        with self._lock:
            if self._started:
                return
            self._started = True

        def work() -> None:
            with contextlib.suppress(FramebankError):
                self.moments.make()
                if not self.moments.is_closed:
                    self.near.make_index()
                    self._plane = self._by_umap()

        threading.Thread(target=work, name="views", daemon=True).start()

    def close(self) -> None:
        """Stop what works in the background."""
        with self._lock:
            if self._maker is not None:
                self._maker.close()
        self.near.close()
        self.moments.close()

    @property
    def _pictures(self) -> PictureMaker:
        """Who makes pictures: decoders take a while to import, and lists need none."""
        with self._lock:
            if self._maker is None:
                from framebank.features.browsing.clip_pictures import PictureMaker

                self._maker = PictureMaker(self.cache)
            return self._maker

    def about(self) -> dict[str, Any]:
        """Return what the cache is: counts, spec, runs, columns."""
        status, frames = self.table.columns["status"], self.table.columns["frames"]
        done = np.asarray([value == "done" for value in status.to_pylist()], bool)
        return {
            "address": self.cache.path,
            "spec": self.cache.spec.to_json(),
            "fingerprint": self.cache.fingerprint,
            "random_weights": self.cache.spec.random_weights,
            "counts": {
                "done": int(done.sum()),
                "quarantined": int((~done).sum()),
                "frames": int(frames.to_numpy()[done].sum()),
            },
            "runs": self.runs,
            "columns": self.table.described(),
            "colours": self.table.colours(),
            "questions": self.asked is not None,
            "vectors": {
                "done": self.moments.count,
                "of": len(self.moments),
                "complete": self.moments.complete.is_set(),
            },
        }

    @functools.cached_property
    def runs(self) -> list[dict[str, Any]]:
        """The summaries of all runs, the newest first; of one that cannot be read its name."""
        files = storage.list_files(storage.join(self.cache.path, "runs"))
        named = [file for file in files if file.path.endswith(".json")]
        found = []
        for file in sorted(named, key=lambda file: file.path, reverse=True):
            run_id = file.path.rsplit("/", 1)[-1].removesuffix(".json")
            about: dict[str, Any] = {}
            with contextlib.suppress(FramebankError, ValueError):
                if file.size_bytes <= _MOST_RUN_BYTES:
                    path = layout.run_path(self.cache.path, run_id)
                    about = json_text.parse_object(storage.read_bytes(path))
            about.pop("spec", None)  # the cache's own
            counts = {name: about.get(name) for name in ("done", "quarantined", "frames")}
            first: dict[str, Any] = {
                "run": run_id,
                "ended": about.get("finished", ""),
                "counts": counts,
            }
            found.append(first | about)
        return _plain(found)

    def videos(
        self,
        where: Sequence[str] = (),
        *,
        sort: str | None = None,
        descending: bool = False,
        offset: int = 0,
        limit: int | None = None,
    ) -> dict[str, Any]:
        """Return the rows for which all conditions hold, and how many they are; raises
        UsageError."""
        places = self.table.ordered(select_rows(self.table, where), sort, descending=descending)
        end = None if limit is None else offset + limit
        return {"total": len(places), "rows": self.table.rows(places[offset:end])}

    def row(self, video_id: str) -> dict[str, Any]:
        """Return one row; raises NotFoundError."""
        return self.table.rows(np.array([self._place(video_id)]))[0]

    def _place(self, video_id: str) -> int:
        place = self.table.find(catalog_text(video_id))
        if place is None:
            raise NotFoundError(
                f"no video {printable(video_id)!r} in {self.cache.path}",
                got=f"{len(self.table)} videos, none of that id",
                todo=self.names.hint(video_id) or None,
            )
        return place

    @functools.cached_property
    def names(self) -> ClipNames:
        """By which a video is found as that of a question is."""
        from framebank.features.questions.videos import ClipNames

        return ClipNames(self.table.columns["video_id"].to_pylist())

    def video(self, video_id: str) -> dict[str, Any]:
        """Return all that is known of one video; raises NotFoundError."""
        row = self.row(video_id)
        its = self._catalogued(video_id)
        found: dict[str, Any] = {
            "row": row,
            "frames": [],
            "questions": self.asked.by_video.get(video_id, []) if self.asked else [],
            "quarantine": None,
            "has_source": self._has_source(its),
        }
        if its["state"] == "done":
            found["frames"], found["damage"] = self._frames(its)
        else:
            kept = self._soon(its)
            found["quarantine"] = _quarantine(its, kept)
            if kept is not None:
                found["frames"] = _frames_of(kept.rows, kept.pts_ms)
        return found

    def _soon(self, its: Mapping[str, Any]) -> Pictures | None:
        """Return the pictures of a clip where there are some, or will be in a moment."""
        with contextlib.suppress(FramebankError, TimeoutError):
            return self._pictures.get(its, wait_s=_SOON_S)
        return None

    def _catalogued(self, video_id: str) -> dict[str, Any]:
        table = self.cache.table()
        row: dict[str, Any] = table.slice(self._place(video_id), 1).to_pylist()[0]
        return row

    def _has_source(self, its: Mapping[str, Any]) -> bool:
        """Return whether there are pictures to be had: from the source, or as they were kept."""
        if self._pictures.kept(its) is not None:
            return True
        if self.cache.spec.holds_pictures and its["state"] == "done":
            return True
        with contextlib.suppress(FramebankError):
            return bool(its["uri"]) and storage.exists(its["uri"])
        return False

    def _frames(self, its: Mapping[str, Any]) -> tuple[list[dict[str, Any]], str | None]:
        """Return the frames of a done video, of many as many as have pictures, and what is wrong
        with its record, which is read."""
        from framebank.features.browsing.clip_pictures import MOST_FRAMES

        try:
            record = self.cache[its["video_id"]]
        except FramebankError as error:
            return [], str(error)
        pts_ms = record.pts_ms.tolist()
        kept = self._pictures.kept(its)
        if kept is not None and len(pts_ms) > MOST_FRAMES:
            rows = [row for row in kept.rows if row < len(pts_ms)]
        else:
            places = np.linspace(0, len(pts_ms) - 1, min(MOST_FRAMES, len(pts_ms))).round()
            rows = [int(place) for place in places]
        return _frames_of(rows, [pts_ms[row] for row in rows]), None

    def sheet(self, video_id: str, *, wait_s: float | None = None) -> bytes:
        """Return the contact sheet of a video, a JPEG; raises NotFoundError, NoPicturesError, and
        TimeoutError after `wait_s`."""
        return self._pictures.get(self._catalogued(video_id), wait_s=wait_s).sheet

    def sheet_frames(self, video_id: str) -> int:
        """Return how many frames are in a contact sheet that was made, 0 where it was not."""
        kept = self._pictures.kept(self._catalogued(video_id))
        return 0 if kept is None else kept.sheet_frames

    def frame(self, video_id: str, index: int, *, wait_s: float | None = None) -> bytes:
        """Return the picture of a row of a video, a JPEG; raises as `sheet` does."""
        kept = self._pictures.get(self._catalogued(video_id), wait_s=wait_s)
        if (found := kept.frame(index)) is None:
            raise NotFoundError(
                f"no picture of frame {index} of {printable(video_id)!r} is kept",
                got=f"{len(kept.rows)} pictures of {kept.of} frames",
            )
        return found

    def neighbours(self, video_id: str, count: int) -> dict[str, Any]:
        """Return the videos that are most like one; raises NotFoundError, UsageError for one
        without features, CacheError."""
        place = self.check_done(video_id)
        self._wait()
        vector = self.moments.vector(place)
        return self._named(self.near.nearest(vector, count, but=place))

    def like(self, record: FeatureRecord, count: int) -> dict[str, Any]:
        """Return the videos that are most like a clip of the same spec; raises CacheError."""
        self._wait()
        return self._named(self.near.nearest(unit(record_vector(record)), count))

    def _wait(self) -> None:
        """Wait for what was kept of vectors, and a moment for what was not."""
        self.start()
        self.moments.loaded.wait(_SOON_S)
        self.moments.complete.wait(_SOON_S)
        if self.moments.error is not None:
            raise self.moments.error

    def check_done(self, video_id: str) -> int:
        """Return the place of a video in `cache.places`; raises NotFoundError, UsageError for one
        without features."""
        its = self._catalogued(video_id)
        if its["state"] != "done":
            raise UsageError(
                f"{printable(video_id)!r} has no features to compare",
                got=f"in quarantine as {its['error_class']}: {its['message']}",
            )
        return self.cache.place_of(video_id)

    def _named(self, found: Found) -> dict[str, Any]:
        ids = self.cache.places.column("video_id").take(np.array(found.places, np.int64))
        return {
            "method": found.method,
            "of": found.of,
            "complete": self.moments.complete.is_set(),
            "neighbours": [
                {"video_id": video_id, "cosine": round(cosine, 6)}
                for video_id, cosine in zip(ids.to_pylist(), found.cosines, strict=True)
            ],
        }

    def duplicates(self, least: float, limit: int) -> dict[str, Any]:
        """Return pairs of videos that are nearly the same, the nearest first, as far as they were
        found; raises UsageError, CacheError."""
        if not LEAST_COSINE <= least <= 1:
            raise UsageError("no cosine of near-duplicates", got=least, expected="0.9 to 1")
        self.start()
        pairs = self.near.duplicates(round(least, 6), wait_s=_SOON_S)
        if self.moments.error is not None:
            raise self.moments.error
        found = pairs.found[:limit]
        ids = self.cache.places.column("video_id")
        return {
            "least": least,
            "pairs": [
                {"a": ids[a].as_py(), "b": ids[b].as_py(), "cosine": round(cosine, 6)}
                for a, b, cosine in found
            ],
            "total": len(pairs.found),
            "complete": pairs.complete,
            "searching": not pairs.searched.is_set(),
        }

    def map(self, colour: str | None = None) -> dict[str, Any]:
        """Return where each video lies on a plane, and its group by a column; of many videos some,
        drawn by a seed. Raises UsageError."""
        name = None if colour is None else self.table.known(colour)
        self._wait()
        plane = self._plane
        method = "pca" if plane is None else "umap"
        there = self._drawn()
        if plane is None:
            plane = self.near.projected(there, _MAP_COMPONENTS)
        ids = self.cache.places.column("video_id").take(there)
        groups, numbers = ["all"], [0] * len(there)
        if name is not None:
            places = self.table.places_of(ids.combine_chunks())
            groups, numbers = self.table.grouped(name, places, most=_GROUPS)
        x, y = (_spread(plane[:, axis]) for axis in (0, 1 if plane.shape[1] > 1 else 0))
        return {
            "method": method,
            "colour": name,
            "points": [list(point) for point in zip(x, y, numbers, strict=True)],
            "video_ids": ids.to_pylist(),
            "groups": groups,
            "of": self.moments.count,
            "complete": self.moments.complete.is_set(),
        }

    def _drawn(self) -> NDArray[np.int64]:
        """Return the places of the videos on the map."""
        there = np.flatnonzero(self.moments.has)
        if len(there) > MOST_POINTS:
            dice = np.random.default_rng(0)
            there = np.sort(dice.choice(there, MOST_POINTS, replace=False))
        return there

    def _by_umap(self) -> NDArray[np.float32] | None:
        """Return float32[drawn, 2] of UMAP (McInnes and Healy 2018), None where it is not there."""
        there = self._drawn()
        if len(there) < 10:
            return None
        try:
            import umap
        except ImportError:
            return None
        rows = self.near.projected(there, _UMAP_COMPONENTS)
        found = umap.UMAP(n_components=2, random_state=0).fit_transform(rows)
        return np.asarray(found, np.float32)


def _plain(value: Any) -> Any:
    """Return a JSON value without NaN and infinity, of which JSON knows neither."""
    return json.loads(json.dumps(value), parse_constant=lambda name: None)


def _frames_of(rows: Sequence[int], pts_ms: Sequence[int]) -> list[dict[str, Any]]:
    return [{"index": row, "time_s": pts / 1000} for row, pts in zip(rows, pts_ms, strict=True)]


def _quarantine(its: Mapping[str, Any], kept: Pictures | None) -> dict[str, Any]:
    """Return why a video is in quarantine, and until when its frames are intact: as its source
    shows, else as the message says."""
    found = {"stage": its["stage"], "class": its["error_class"], "message": its["message"]}
    if kept is not None:
        return {**found, "last_intact_s": kept.pts_ms[-1] / 1000}
    stated = _STATED_S.search(its["message"])
    return {**found, "last_intact_s": float(stated[1]) if stated else None}


def _spread(values: NDArray[np.float32]) -> list[float]:
    """Return values stretched to -1 to 1, to four digits."""
    low, high = (float(values.min()), float(values.max())) if len(values) else (0.0, 0.0)
    wide = (high - low) / 2 or 1.0
    return [round((float(value) - low) / wide - 1, 4) for value in values]
