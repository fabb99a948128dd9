"""The pictures of a clip's sampled frames and its contact sheet: made once, then kept.

Sources are decoded in the background, each kind of clip by decoders of its own: intact ones, of
which only what the rows need is decoded; those that were kept though damaged; quarantined ones, of
which every frame is tried, so that the last intact one can be shown. A cache of pixels has its
pictures in it.
"""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import io
import json
import queue
import re
import threading
import time
import zipfile
from collections.abc import Iterator, Mapping
from concurrent.futures import Future
from typing import Any

from framebank.features.browsing.beside import Beside
from framebank.features.browsing.missing import NoPicturesError
from framebank.features.browsing.thumbnails import (
    FRAMES,
    POLICY,
    Clip,
    Taken,
    find_source,
    shape_of,
    take_pictures,
    why_not_fetched,
)
from framebank.features.cache.reader import Cache
from framebank.features.errors import FramebankError
from framebank.features.pages.page import jpeg_bytes
from framebank.features.stores import json_text
from framebank.features.video import VideoRef

LONG_SIDE = 240  # pixels of a frame
MOST_FRAMES = 240  # of one clip that are kept; of more evenly spread ones

_IN_HAND = 2048  # while a clip is decoded
_SHEET_SIDE = 176  # of a frame in a contact sheet
_VERSION = "2"  # of what is kept
_IDLE_S = 5.0  # after which decoders end
_AGAIN_S = 60.0  # after which a clip without pictures is tried again
_FIRST_DAMAGE = re.compile(r"first: .* at (-?\d+\.\d+) s")
_MOST_FILES = MOST_FRAMES + 2
_MOST_FILE_BYTES = 4 << 20
_WHOLE = dataclasses.replace(POLICY, allow_partial=False, check="sampled", cut_pixels=2**62)


class Pictures:
    """The pictures of one clip: `sheet` and a JPEG for each of `rows`, whose times are `pts_ms`.

    `of` is how many rows there are, `duration_s` how long the frames last that could be decoded.
    """

    def __init__(self, about: Mapping[str, Any], files: Mapping[str, bytes]) -> None:
        """Take what `to_bytes` packs; raises ValueError, KeyError, TypeError where it is not so."""
        self.rows = [int(row) for row in about["rows"]]
        self.pts_ms = [int(pts) for pts in about["pts_ms"]]
        self.of, self.duration_s = int(about["of"]), float(about["duration_s"])
        self._files = dict(files)
        if len(self.rows) != len(self.pts_ms) or not self.rows:
            raise ValueError("rows and times are not the same number")
        if set(files) != {"sheet.jpg", *map(_file_of, self.rows)}:
            raise ValueError("pictures that nobody speaks of")

    @property
    def sheet(self) -> bytes:
        return self._files["sheet.jpg"]

    @property
    def sheet_frames(self) -> int:
        """How many frames lie side by side in the sheet."""
        return min(FRAMES, len(self.rows))

    def frame(self, row: int) -> bytes | None:
        """Return the JPEG of a row, None of one that was not kept."""
        return self._files.get(_file_of(row))

    def to_bytes(self) -> bytes:
        """Return a zip file of the pictures and about.json, the same for the same pictures."""
        about = {"rows": self.rows, "pts_ms": self.pts_ms, "of": self.of}
        about["duration_s"] = self.duration_s
        buffer = io.BytesIO()
        with zipfile.ZipFile(buffer, "w", zipfile.ZIP_STORED) as pack:
            pack.writestr(zipfile.ZipInfo("about.json"), json.dumps(about))
            for name, data in self._files.items():
                pack.writestr(zipfile.ZipInfo(name), data)
        return buffer.getvalue()

    @classmethod
    def from_bytes(cls, data: bytes) -> Pictures:
        """Return what `to_bytes` packed; raises ValueError for anything else."""
        try:
            with zipfile.ZipFile(io.BytesIO(data)) as pack:
                entries = pack.infolist()
                stored = all(one.compress_type == zipfile.ZIP_STORED for one in entries)
                if not stored or len(entries) > _MOST_FILES:
                    raise ValueError("another kind of zip file")
                if any(one.file_size > _MOST_FILE_BYTES for one in entries):
                    raise ValueError("too large a picture")
                files = {one.filename: pack.read(one) for one in entries}
            about = json_text.parse_object(files.pop("about.json"))
            if not all(data.startswith(b"\xff\xd8\xff") for data in files.values()):
                raise ValueError("a picture that is no JPEG")
            return cls(about, files)
        except (zipfile.BadZipFile, KeyError, TypeError, OverflowError, EOFError, OSError) as err:
            raise ValueError(f"no pictures of a clip: {err}") from err
        except (NotImplementedError, RuntimeError) as err:  # encrypted, of a later version
            raise ValueError(f"no pictures of a clip: {err}") from err


def _file_of(row: int) -> str:
    return f"{row:06d}.jpg"


def pictures_of(taken: Taken) -> Pictures:
    """Return what is kept of what was taken of a clip."""
    places = taken.spread(MOST_FRAMES)
    files = {"sheet.jpg": contact_sheet([taken.jpegs[place] for place in taken.spread(FRAMES)])}
    files |= {_file_of(taken.rows[place]): taken.jpegs[place] for place in places}
    about = {
        "rows": [taken.rows[place] for place in places],
        "pts_ms": [taken.pts_ms[place] for place in places],
        "of": taken.of,
        "duration_s": taken.duration_s,
    }
    return Pictures(about, files)


def intact(taken: Taken, message: str) -> Taken:
    """Return what was taken of a quarantined clip before the first damage of which its message
    tells: what follows may show what a decoder made up."""
    stated = _FIRST_DAMAGE.search(message)
    if stated is None or taken.reason:
        return taken
    until_ms = 1000 * float(stated[1])
    count = sum(pts < until_ms for pts in taken.pts_ms)
    if not count:
        return taken
    return dataclasses.replace(
        taken, jpegs=taken.jpegs[:count], rows=taken.rows[:count], pts_ms=taken.pts_ms[:count]
    )


def contact_sheet(jpegs: list[bytes]) -> bytes:
    """Return pictures of one size side by side, as a JPEG."""
    from PIL import Image

    with contextlib.ExitStack() as stack:
        opened = [
            stack.enter_context(Image.open(io.BytesIO(jpeg), formats=["JPEG"])) for jpeg in jpegs
        ]
        width, height = shape_of(*opened[0].size, long_side=_SHEET_SIDE)
        sheet = Image.new("RGB", (width * len(opened), height))
        for place, picture in enumerate(opened):
            sheet.paste(picture.resize((width, height)), (width * place, 0))
    buffer = io.BytesIO()
    sheet.save(buffer, "JPEG", quality=82)
    return buffer.getvalue()


class PictureMaker:
    """Gives the pictures of clips of one cache, from what is kept or from their sources."""

    def __init__(self, cache: Cache) -> None:
        self._cache = cache
        self._beside = Beside(cache.path, "thumbnails")
        self._lock = threading.Lock()
        self._waiting: dict[str, Future[Pictures]] = {}
        self._failed: dict[str, tuple[float, str]] = {}
        self._lines: dict[str, _Line] = {}
        self._last: dict[str, Pictures] = {}

    def get(self, row: Mapping[str, Any], *, wait_s: float | None = None) -> Pictures:
        """Return the pictures of the clip of a catalog's row; raises NoPicturesError with the
        reason, TimeoutError after `wait_s`: they are still being made then."""
        name = self._name(row)
        if (found := self.kept(row)) is not None:
            return found
        with self._lock:
            waiting = self._waiting.get(name)
            if waiting is None:
                waiting = self._begin(name, row)
        return waiting.result(wait_s)

    def kept(self, row: Mapping[str, Any]) -> Pictures | None:
        """Return the pictures of a clip where they were made before."""
        name = self._name(row)
        with self._lock:
            if (found := self._last.get(name)) is not None:
                return found
        if (data := self._beside.read(name)) is None:
            return None
        with contextlib.suppress(ValueError):
            return self._remembered(name, Pictures.from_bytes(data))
        return None

    def close(self) -> None:
        """Let go of the decoders; who waits for pictures is told that there are none."""
        with self._lock:
            for waiting in self._waiting.values():
                if not waiting.done():
                    waiting.set_exception(NoPicturesError("the cache is being closed"))
            for line in self._lines.values():
                line.close()

    def _name(self, row: Mapping[str, Any]) -> str:
        """Return the name of a clip's file: what the row says is never a path."""
        parts = (_VERSION, row["video_id"], row["key"], row["state"], self._cache.fingerprint)
        digest = hashlib.sha256("\0".join(parts).encode()).hexdigest()[:32]
        return f"{digest[:2]}/{digest}.zip"

    def _begin(self, name: str, row: Mapping[str, Any]) -> Future[Pictures]:
        waiting: Future[Pictures] = Future()
        when, why = self._failed.get(name, (-_AGAIN_S, ""))
        if time.monotonic() - when < _AGAIN_S:
            waiting.set_exception(NoPicturesError(why))
            return waiting
        self._waiting[name] = waiting
        kind = "partial" if row["partial"] else "intact"
        if row["state"] != "done":
            kind = "quarantined"
        elif self._cache.spec.holds_pictures:
            kind = "pixels"
        if kind not in self._lines:
            self._lines[kind] = _Line(self, kind)
        self._lines[kind].put((name, row))
        return waiting

    def _take(self, kind: str, clips: Iterator[Clip]) -> Iterator[tuple[Mapping[str, Any], Taken]]:
        if kind == "pixels":
            for row, _ in clips:
                yield row, self._from_record(row["video_id"])
            return
        spec, policy = self._cache.spec, _WHOLE if kind == "intact" else POLICY
        if kind == "quarantined":
            spec = dataclasses.replace(
                spec, sample="all", max_frames=None, clip_length=1, clip_stride=1
            )
        for row, taken in take_pictures(spec, policy, clips, long_side=LONG_SIDE, most=_IN_HAND):
            yield row, intact(taken, row["message"]) if kind == "quarantined" else taken

    def _from_record(self, video_id: str) -> Taken:
        record = self._cache[video_id]
        source = record.source
        width, height = shape_of(source.width, source.height, long_side=LONG_SIDE)
        jpegs = tuple(jpeg_bytes(rgb, width=width, height=height) for rgb in record.pictures)
        rows, pts_ms = tuple(range(len(jpegs))), tuple(record.pts_ms.tolist())
        return Taken(jpegs, rows, pts_ms, (width, height), len(rows), source.duration_s)

    def _settle(self, name: str, taken: Taken) -> None:
        """Tell whoever waits for a clip, and keep what there is of it."""
        try:
            found = None if taken.reason else pictures_of(taken)
        except (ValueError, OSError) as err:
            found, taken = None, Taken(reason=f"No picture can be made: {err}")
        if found is not None:  # before anybody is told: who asks next finds it
            self._beside.write(name, found.to_bytes())
            self._remembered(name, found)
        with self._lock:
            waiting = self._waiting.pop(name, None)
            if found is None:
                self._failed[name] = (time.monotonic(), taken.reason)
        if waiting is None or waiting.done():
            return
        if found is None:
            waiting.set_exception(NoPicturesError(taken.reason))
        else:
            waiting.set_result(found)

    def _remembered(self, name: str, found: Pictures) -> Pictures:
        with self._lock:
            self._last.pop(name, None)
            self._last[name] = found
            while len(self._last) > 64:  # some tens of MiB
                del self._last[next(iter(self._last))]
        return found


class _Line:
    """The clips of one kind that wait, and the thread that has them decoded."""

    def __init__(self, maker: PictureMaker, kind: str) -> None:
        self._maker, self._kind = maker, kind
        self._queue: queue.SimpleQueue[tuple[str, Mapping[str, Any]] | None] = queue.SimpleQueue()
        self._hand: dict[str, str] = {}  # by video_id: name of those that are being decoded
        self._closed = False
        threading.Thread(target=self._work, name=f"pictures-{kind}", daemon=True).start()

    def put(self, item: tuple[str, Mapping[str, Any]]) -> None:
        self._queue.put(item)

    def close(self) -> None:
        self._closed = True
        self._queue.put(None)

    def _work(self) -> None:
        while not self._closed:
            first = self._queue.get()
            if first is None:
                return
            try:
                for row, taken in self._maker._take(self._kind, self._clips(first)):
                    if (name := self._hand.pop(row["video_id"], None)) is not None:
                        self._maker._settle(name, taken)
                reason = "The decoders ended before it was decoded."
            except FramebankError as error:
                reason = why_not_fetched(error)
            except Exception as error:  # noqa: BLE001 - whoever waits is told, and the next one served
                reason = f"No picture can be made: {type(error).__name__}: {error}"
            for name in list(self._hand.values()):
                self._maker._settle(name, Taken(reason=reason))
            self._hand.clear()

    def _clips(self, first: tuple[str, Mapping[str, Any]]) -> Iterator[Clip]:
        """Yield clips as they are asked for, until nobody has asked for a while."""
        item: tuple[str, Mapping[str, Any]] | None = first
        idle_s = time.monotonic()
        while not self._closed:
            if item is not None:
                name, row = item
                if isinstance(clip := self._found(row), str):
                    self._maker._settle(name, Taken(reason=clip))
                else:
                    self._hand[row["video_id"]] = name
                    yield clip
                idle_s = time.monotonic()
            try:
                item = self._queue.get(timeout=0.25)
                if item is None:
                    return
            except queue.Empty:
                item = None
                if self._hand:
                    idle_s = time.monotonic()
                elif time.monotonic() - idle_s > _IDLE_S:
                    return

    def _found(self, row: Mapping[str, Any]) -> Clip | str:
        try:
            if self._kind == "pixels":
                return row, VideoRef(row["video_id"], row["uri"], 0, "")
            found = find_source(row)
        except FramebankError as error:
            return why_not_fetched(error)
        if self._kind != "quarantined" or isinstance(found, str):
            return found
        now = (found[1].size_bytes, found[1].generation)
        if now != (row["size_bytes"], row["generation"]):
            return f"The source video has changed since it was quarantined: {row['uri']}"
        return found
