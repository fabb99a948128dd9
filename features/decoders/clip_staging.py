"""Brings clips of a bucket to a local disk, ahead of the decoders, and takes them away again.

Why they are copied: infra/decisions/0005. Each is pinned to the generation that was listed and held
against its checksum. What lies ahead is bounded in number and in bytes; the folder is one that the
next run removes should this one be killed.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import threading
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import BinaryIO, NamedTuple, cast

from framebank.features.decoders.film_cut import FilmCut
from framebank.features.errors import JobError, VideoRejected
from framebank.features.stores import storage
from framebank.features.stores.temporary import LiveFolder, live_folder
from framebank.features.video import VideoRef

_AHEAD_BYTES = 8 << 30
_SHARES_EACH = 4  # of a film, for each decoder: what one is late by is a share
_PLANNED_BYTES = 4 << 20  # of a clip; one of fewer is planned in no time
_ATTEMPTS = 3  # downloads of one clip whose bytes do not have their checksum


class StagedClip(NamedTuple):
    """A clip to decode: its number in the run, and a local path or the reason why there is none.

    One that is a share of a film has the film's `cut`, and which of its shares it is. One that is
    `ahead` another decoder has, which may cut it: there is nothing to do but to make its plan.
    """

    number: int
    ref: VideoRef
    path: str
    rejected: VideoRejected | None = None
    cut: FilmCut | None = None
    share: int = 0
    ahead: bool = False

    def check_unchanged(self, descriptor: int) -> None:
        """Raise VideoRejected where its bytes are no longer those that were listed.

        Its features would stand under the key of bytes that they are not of. A copy of a bucket's
        clip is our own.
        """
        ref = self.ref
        if not ref.generation or not storage.is_local(ref.uri):
            return
        status = os.fstat(descriptor)
        if (status.st_size, str(status.st_mtime_ns)) != (ref.size_bytes, ref.generation):
            message = f"{ref.uri} changed while the job ran; the next run takes it again"
            raise VideoRejected("open", "unreadable", message)


class ClipSource:
    """The clips of one run in their order, those of a bucket in a temporary folder.

    `take` gives the next one to a decoder, `done` takes it away again. A decoder that finds itself
    with a film while others have nothing to do cuts it into shares, which they `take` as well, and
    before that the film itself, to plan it while the first one does.
    """

    def __init__(
        self,
        refs: Iterable[VideoRef],
        closed: threading.Event,
        *,
        downloads: int,
        max_size_bytes: int,
        cuts: bool = False,
    ) -> None:
        """`downloads` at a time, as many as there are decoders, of clips up to `max_size_bytes`.

        With `cuts` films may be cut: who finds no clip left waits for a share of one.
        """
        self._closed, self._max_size_bytes = closed, max_size_bytes
        self._folder: LiveFolder | None = None  # made for the first clip
        self._shut = False
        self._refs = enumerate(refs)
        self._pulling = threading.Lock()
        self._changed = threading.Condition()
        self._ahead: list[StagedClip | BaseException] = []
        self._shares: list[StagedClip] = []  # of films that are being decoded
        self._uses: dict[int, int] = {}  # by number of a clip: what of it was taken or offered
        self._uncut: dict[int, tuple[StagedClip, set[int]]] = {}  # what may be cut, who planned it
        self._ahead_bytes = 0  # of clips that are on their way, waiting, or being decoded
        self._held = 0
        self._most = 2 * downloads
        self._cuts, self._takers = cuts, downloads
        self._fetching = 0
        self._ended = False
        for _ in range(downloads):
            threading.Thread(target=self._work, name="stage-clips", daemon=True).start()

    def take(self) -> StagedClip | None:
        """Return the next clip, None at the end; raises JobError where one cannot be brought."""
        with self._changed:
            while not self._closed.is_set():
                if self._shares:  # before other clips: until it is through, a film takes room
                    return self._shares.pop(0)
                if self._ahead:
                    item = self._ahead.pop(0)
                    if isinstance(item, BaseException):
                        raise item
                    return item
                if (film := self._unplanned()) is not None:
                    self._uses[film.number] = self._uses.get(film.number, 1) + 1
                    return film._replace(ahead=True)
                if self._ended and not self._fetching and not (self._cuts and self._held):
                    break
                self._changed.wait(timeout=0.5)
        return None

    def most_shares(self) -> int:
        """Return into how many shares a clip may be cut now: 1 while others are waiting."""
        with self._changed:
            alone = self._cuts and self._ended and not self._fetching and not self._ahead
            return _SHARES_EACH * self._takers if alone and self._takers > 1 else 1

    def _unplanned(self) -> StagedClip | None:
        """Return a clip that may be cut, if this thread has a plan of none: it keeps but one."""
        own = threading.get_ident()
        if not any(own in planned_by for _, planned_by in self._uncut.values()):
            for clip, planned_by in self._uncut.values():
                planned_by.add(own)
                return clip
        return None

    def offer_plan(self, clip: StagedClip) -> None:
        """Let others plan a clip that was taken, since it may be cut."""
        if clip.ref.size_bytes >= _PLANNED_BYTES:
            with self._changed:
                _, planned_by = self._uncut.setdefault(clip.number, (clip, set()))
                planned_by.add(threading.get_ident())
                self._changed.notify_all()

    def withdraw_plan(self, clip: StagedClip) -> None:
        """Let nobody else begin to plan a clip, which will not be cut."""
        with self._changed:
            self._uncut.pop(clip.number, None)

    def offer_shares(self, clip: StagedClip, shares: int) -> FilmCut:
        """Let others take shares of a clip that was taken, all but the first."""
        cut = FilmCut(shares)
        with self._changed:
            self._uncut.pop(clip.number, None)
            self._uses[clip.number] = self._uses.get(clip.number, 1) + shares - 1
            self._shares += [clip._replace(cut=cut, share=share) for share in range(1, shares)]
            self._changed.notify_all()
        return cut

    def done(self, clip: StagedClip) -> None:
        """Remove the copy of a clip that is through, of one that was cut with its last share."""
        with self._changed:
            if not clip.ahead:
                self._uncut.pop(clip.number, None)
            uses = self._uses.pop(clip.number, 1) - 1
            if uses:
                self._uses[clip.number] = uses
                return
        if clip.path and not storage.is_local(clip.ref.uri):
            with contextlib.suppress(FileNotFoundError):
                os.unlink(clip.path)
        with self._changed:
            self._held -= 1
            self._ahead_bytes -= _copied_bytes(clip.ref)
            self._changed.notify_all()
        self._close_when_through()

    def close(self) -> None:
        """Remove the folder with all that is in it, and make no other."""
        with self._changed:
            self._shut = True
            if self._folder is not None:
                self._folder.close()

    def _folder_path(self) -> str:
        """Return the folder's path; raises JobError where none can be made, RuntimeError late."""
        with self._changed:
            if self._shut:  # a download that nobody waits for any more
                raise RuntimeError("the run that this clip is for has ended")
            if self._folder is None:
                self._folder = live_folder()
            return self._folder.path

    def _close_when_through(self) -> None:
        """Remove the folder after the last clip: a runner may end this process without a word."""
        with self._changed:
            if self._ended and not self._held:
                self.close()

    def _work(self) -> None:
        for number, ref in self._admitted():
            try:
                item: StagedClip | BaseException = StagedClip(number, ref, self._fetch(number, ref))
            except VideoRejected as bad:
                item = StagedClip(number, ref, "", bad)
            except BaseException as error:  # noqa: BLE001 - raised again where it is taken
                item = error
            with self._changed:
                self._fetching -= 1
                self._ahead.append(item)
                self._changed.notify_all()

    def _fetch(self, number: int, ref: VideoRef) -> str:
        """Bring one clip to the folder; a local one is taken where it is. Raises JobError."""
        if why := ref.why_unlisted:
            text = f"a folder that cannot be listed ({why}): what is in it is not known"
            raise VideoRejected("open", "unreadable", text)
        if storage.is_local(ref.uri):
            return storage.local_path(ref.uri)
        if ref.size_bytes < 0:
            raise VideoRejected("open", "missing", f"{ref.uri} does not exist")
        if ref.size_bytes > self._max_size_bytes:
            text = f"{ref.size_bytes} bytes; the limit is {self._max_size_bytes}"
            raise VideoRejected("open", "too_large", text)
        path = os.path.join(self._folder_path(), f"clip-{number}-{threading.get_ident()}")
        try:
            self._copy(ref, path)
        except VideoRejected:
            with contextlib.suppress(FileNotFoundError):
                os.unlink(path)
            raise
        return path

    def _copy(self, ref: VideoRef, path: str) -> None:
        for attempt in range(1, _ATTEMPTS + 1):
            try:
                room_bytes = shutil.disk_usage(os.path.dirname(path)).free
                if room_bytes < ref.size_bytes:
                    raise OSError(f"{room_bytes} bytes are free, {ref.uri} has {ref.size_bytes}")
                with Path(path).open("wb", buffering=0) as file:
                    storage.download(ref.uri, cast(BinaryIO, file), generation=ref.generation)
                return
            except VideoRejected as bad:
                if attempt == _ATTEMPTS or "bytes that came have" not in bad.message:
                    raise
            except OSError as error:
                raise JobError(
                    "a clip cannot be copied to the temporary folder",
                    got=error,
                    todo="make room there or set TMPDIR, then run the same command again",
                ) from error

    def _admitted(self) -> Iterator[tuple[int, VideoRef]]:
        while not self._closed.is_set():
            with self._pulling:
                with self._changed:
                    while not self._closed.is_set() and self._is_full():
                        self._changed.wait(timeout=0.5)
                try:
                    taken = None if self._ended else next(self._refs, None)
                except BaseException as error:  # noqa: BLE001 - raised again where clips are taken
                    with self._changed:
                        self._ahead.append(error)
                        self._ended = True
                        self._changed.notify_all()
                    break
                with self._changed:
                    if taken is None:
                        self._ended = True
                        self._changed.notify_all()
                        break
                    self._fetching += 1
                    self._held += 1
                    self._ahead_bytes += _copied_bytes(taken[1])
            yield taken
        self._close_when_through()  # the last clip may have been done before its end was known

    def _is_full(self) -> bool:
        full = self._held >= self._most or self._ahead_bytes >= _AHEAD_BYTES
        return full and self._held > 0


def _copied_bytes(ref: VideoRef) -> int:
    return 0 if storage.is_local(ref.uri) else max(0, ref.size_bytes)
