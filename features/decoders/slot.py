"""One decoder process, kept and watched by one thread of this process.

A child that says nothing for too long, or takes too long in all, is killed and its clip is rejected
as `hang`. One that dies has its clip tried once more (the kernel, short of memory, takes innocent
ones too), then rejected as `crash`.
"""

from __future__ import annotations

import dataclasses
import enum
import logging
import os
import queue
import threading
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from framebank.features.decoders import wire as wires
from framebank.features.decoders.clip_staging import ClipSource, StagedClip
from framebank.features.decoders.events import (
    ClipAgain,
    ClipDone,
    ClipProbed,
    ClipRejected,
    Event,
    Frame,
)
from framebank.features.decoders.film_cut import FilmCut
from framebank.features.decoders.policy import DecoderPolicy
from framebank.features.decoders.spent import Spent
from framebank.features.decoders.wire import ConfinedProcess, Garbled, Hang, Message, Wire
from framebank.features.decoding.container import NamelessFile
from framebank.features.errors import FramebankError, JobError, VideoRejected, internal_rejection
from framebank.features.spec import FeatureSpec

_ATTEMPTS = 2  # of a clip whose decoder dies
_PROBE_S = 15.0  # a clip that is silent for so long while it is probed, or planned ahead, hangs
_LAST_WORDS = (
    *(Message.DONE, Message.PROBED, Message.REJECTED),
    *(Message.SHARED, Message.DOUBTED, Message.PLANNED),
)
_log = logging.getLogger(__name__)
_told = threading.Lock()  # taken once, and kept: what holds of the decoders was logged


class _Share(enum.Enum):
    """How a share of a film ended, but for the first one where it is sound, or its plan."""

    SOUND = enum.auto()
    DOUBTED = enum.auto()
    PLANNED = enum.auto()  # a film that another decoder has


_LastWord = ClipDone | ClipProbed | _Share
Item = Event | ClipProbed | BaseException | None  # None: a slot has come to the end of the clips


@dataclasses.dataclass(frozen=True)
class Run:
    """One set of clips, and where what comes of them goes; `probe_s`: they are only probed.

    A frame is put once it has one of the places in `room`, which whoever takes it gives back.
    """

    source: ClipSource
    probe_s: Callable[[int], float] | None
    room: threading.Semaphore
    spent: Spent
    events: queue.SimpleQueue[Item] = dataclasses.field(default_factory=queue.SimpleQueue)


class Slot:
    """One thread and the decoder process it owns.

    The thread lives as long as the slot: the kernel ends a child when the *thread* that made it
    ends (see prctl(2), PR_SET_PDEATHSIG).
    """

    def __init__(
        self,
        spec: FeatureSpec,
        policy: DecoderPolicy,
        pictures: Sequence[tuple[int, str]],
        closed: threading.Event,
    ) -> None:
        self._spec, self._policy, self._closed = spec, policy, closed
        self._pictures, self._sizes = pictures, [size for size, _ in pictures]
        self._child: ConfinedProcess | None = None
        self._cut: FilmCut | None = None  # of the clip in hand
        self._check = policy.check  # of the clip in hand
        self._runs: queue.SimpleQueue[Run | None] = queue.SimpleQueue()
        self.work = self._runs.put
        self._thread = threading.Thread(target=self._run, name="decoder-slot", daemon=True)
        self._thread.start()

    def close(self) -> None:
        self._runs.put(None)
        if (child := self._child) is not None:
            child.kill()  # also ends a stopped one
        if self._thread is not threading.current_thread():
            self._thread.join(timeout=5)
        if not self._thread.is_alive():
            self._end_child()

    def _run(self) -> None:
        for run in iter(self._runs.get, None):
            try:
                while not self._closed.is_set() and (clip := self._take(run)) is not None:
                    try:
                        with run.spent.decoding():
                            self._serve(clip, run)
                    finally:
                        run.source.done(clip)
                run.events.put(None)
            except BaseException as error:  # noqa: BLE001 - handed to whoever reads the queue
                run.events.put(error)

    def _take(self, run: Run) -> StagedClip | None:
        with run.spent.fetching():
            return run.source.take()

    def _serve(self, clip: StagedClip, run: Run) -> None:
        """Have a clip or a share of one decoded, and put the last word on it, once there is one."""
        self._cut, self._check = clip.cut, self._policy.check
        last = self._last_word(clip, run)
        if clip.ahead:
            return  # what is wrong with it whoever decodes it says
        if (cut := self._cut) is not None and last is not None:
            last = self._film_word(cut, clip, run, last)
        if isinstance(last, VideoRejected):
            run.events.put(ClipRejected(clip.number, clip.ref, last))
        elif isinstance(last, ClipDone | ClipProbed):
            run.events.put(last)

    def _film_word(
        self, cut: FilmCut, clip: StagedClip, run: Run, last: _LastWord | VideoRejected
    ) -> _LastWord | VideoRejected | None:
        """Return the last word on a film where this was its last share, decoding it wholly where
        the shares are in doubt."""
        is_last = cut.end(
            fields=last.fields if isinstance(last, ClipDone) else None,
            rejected=last if isinstance(last, VideoRejected) else None,
            doubted=last is _Share.DOUBTED,
        )
        if not is_last:
            return None
        if cut.doubted:
            run.events.put(ClipAgain(clip.number, clip.ref))
            self._cut, self._check = None, "whole"
            return self._last_word(clip, run)
        return cut.rejected or ClipDone(clip.number, clip.ref, cut.fields)

    def _last_word(self, clip: StagedClip, run: Run) -> _LastWord | VideoRejected | None:
        """Pass on what a child says of a clip until its last word, whatever goes wrong with it."""
        try:
            return clip.rejected or self._try(clip, run)
        except VideoRejected as bad:
            return bad
        except FramebankError:  # of this machine, not of the clip
            if clip.ahead:
                return None
            raise
        except MemoryError:
            self._end_child()  # half a message may have been read
            return VideoRejected("decode", "too_large", "no memory for what its decoder sent")
        except Exception as error:  # noqa: BLE001 - it costs this clip only
            self._end_child()
            return internal_rejection("decode", error)

    def _try(self, clip: StagedClip, run: Run) -> _LastWord | None:
        """Have a child see to the clip, twice where it dies; return its last word.

        None where the pool was closed meanwhile.
        """
        for attempt in range(1, _ATTEMPTS + 1):
            try:
                return self._attempt(clip, run)
            except (EOFError, BrokenPipeError, ConnectionResetError, Garbled) as error:
                assert self._child is not None
                text = self._child.describe_death(error)
                self._end_child()
                if attempt < _ATTEMPTS and self._closed.is_set():
                    return None
        raise VideoRejected("decode", "crash", f"{text}; it was tried {_ATTEMPTS} times")

    def _attempt(self, clip: StagedClip, run: Run) -> _LastWord:
        """Have the child see to one clip; return its last word.

        A second attempt gives the frames of the first once more: the same ones, by their tokens.
        """
        policy = self._policy
        probe_s = None if run.probe_s is None else run.probe_s(clip.number)
        if probe_s is None:
            silence_s, limit_s = policy.timeout_s, policy.time_limit_s(clip.ref.size_bytes)
        else:
            silence_s = limit_s = _PROBE_S + probe_s
        try:
            with wires.opened_clip(clip.path, policy.limits, timeout_s=silence_s) as file:
                child = self._ready_child()
                asked = Message.DONE if probe_s is None else Message.PROBED
                wire = Wire(
                    child,
                    silence_s=min(silence_s, _PROBE_S) if clip.ahead else silence_s,
                    limit_s=limit_s,
                    sizes=self._sizes,
                    max_rows=policy.limits.max_rows,
                    asked=Message.PLANNED if clip.ahead else asked,
                )
                once = self._cut or clip.ahead or self._check == "whole"
                most = 1 if once else run.source.most_shares()
                if most > 1:
                    run.source.offer_plan(clip)
                elif not once:
                    run.source.withdraw_plan(clip)
                share = self._cut and [clip.share, self._cut.shares]
                cut = most, policy.cut_pixels
                job = {"probe_s": probe_s, "share": share, "cut": cut, "ahead": clip.ahead}
                child.send(self._job() | job, file)
                return self._listen(clip, file, wire, run, most_shares=most)
        except Hang as hang:
            self._end_child()
            raise VideoRejected("decode", "hang", str(hang)) from hang

    def _listen(
        self, clip: StagedClip, file: NamelessFile, wire: Wire, run: Run, *, most_shares: int
    ) -> _LastWord:
        """Pass frames on until the child's last word; raises VideoRejected as it says."""
        limit, frames, again = self._policy.limits.max_rows, 0, False
        pictures: tuple[NDArray[np.uint8], ...] = ()
        while True:
            kind, payload = wire.receive()
            if kind in _LAST_WORDS and wire.is_worn:
                self._end_child()
            if kind in (Message.FRAME, Message.SAME):
                if not frames and most_shares > 1 and not self._cut:
                    run.source.withdraw_plan(clip)
                frames += 1
                if (self._cut.note(clip.share, frames) if self._cut else frames) > limit:
                    self._end_child()  # it would go on to the end of the clip
                    text = f"{self._spec.sample} asks for more rows than {limit}, the limit here"
                    raise VideoRejected("decode", "too_large", text)
                same = kind == Message.SAME
                if same and not pictures:
                    raise Garbled("a frame like the one before, and there was none")
                if same:
                    token = wires.number_of(payload)
                else:
                    token, pictures = wires.frame_of(payload, self._sizes)
                if not run.room.acquire(blocking=False):
                    self._wait_for_room(run)
                run.events.put(Frame(clip.number, token, pictures, same, clip.share))
            elif kind == Message.AGAIN:
                if again or self._cut:
                    raise Garbled("that a clip is decoded again, which it is")
                again, frames, pictures = True, 0, ()
                run.events.put(ClipAgain(clip.number, clip.ref))
            elif kind == Message.CUT:
                shares = wires.number_of(payload)
                if self._cut or frames or again or not 1 < shares <= most_shares:
                    raise Garbled(f"that a film is cut into {shares}")
                self._cut = run.source.offer_shares(clip, shares)
            elif kind in (Message.SHARED, Message.DOUBTED):
                if not self._cut or (kind == Message.SHARED and not clip.share):
                    raise Garbled("the end of a share that was not asked for")
                clip.check_unchanged(file.descriptor)
                return _Share.SOUND if kind == Message.SHARED else _Share.DOUBTED
            elif kind == Message.DONE:
                if clip.share:
                    raise Garbled("the last word on a film from a later share of it")
                fields = wires.done_fields(payload, limit)
                clip.check_unchanged(file.descriptor)
                return ClipDone(clip.number, clip.ref, fields)
            elif kind == Message.PLANNED:
                return _Share.PLANNED
            elif kind == Message.PROBED:
                return ClipProbed(clip.number, clip.ref, wires.probed(payload))
            elif kind == Message.REJECTED:
                raise wires.rejection(payload)
            elif kind == Message.CONFINED:
                held = wires.confinement(payload)
                if _told.acquire(blocking=False):
                    level = logging.WARNING if held.gaps else logging.INFO
                    _log.log(level, "%s", held.line())

    def _wait_for_room(self, run: Run) -> None:
        with run.spent.waiting():
            while not run.room.acquire(timeout=0.5) and not self._closed.is_set():
                pass

    def _job(self) -> dict[str, Any]:
        (size, resize), *also = self._pictures
        return {
            "sample": self._spec.sample,
            "max_frames": self._spec.max_frames,
            "size": size,
            "resize": resize,
            "also": also,
            "allow_partial": self._policy.allow_partial,
            "strict": self._policy.strict,
            "check": self._check,
            "limits": dataclasses.asdict(self._policy.limits),
        }

    def _ready_child(self) -> ConfinedProcess:
        if self._child is None or not self._child.is_running:
            self._end_child()
            try:
                self._child = spawn(self._policy.memory_bytes or 0)
            except OSError as error:
                raise JobError(
                    "cannot start a decoder process",
                    got=error,
                    todo="check memory, processes and open files (ulimit -n -u) and room in the "
                    "temporary folder (TMPDIR), or give fewer --decoders; then run again",
                ) from error
            if self._closed.is_set():
                self._child.kill()
        return self._child

    def _end_child(self) -> None:
        child, self._child = self._child, None
        if child is not None:
            child.end()


def spawn(memory_bytes: int) -> ConfinedProcess:
    return ConfinedProcess(
        "framebank.features.decoders.child", f"main({os.getpid()}, {memory_bytes})"
    )
