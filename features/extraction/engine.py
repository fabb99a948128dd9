"""The extraction engine: an iterator of videos in, an iterator of results out. It knows no Beam.

Frames of different videos, as decoder processes send them, are put together into batches
(`batches.py`); a picture that was seen before is not computed again (`seen.py`); a video's features
leave when its last frame is through the network. Who waits for whom is kept (`balance.py`).
"""

from __future__ import annotations

import contextlib
import dataclasses
import threading
import time
import weakref
from collections.abc import Callable, Hashable, Iterable, Iterator, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from framebank.features.decoders.pool import (
    ClipAgain,
    ClipDone,
    ClipRejected,
    DecoderPolicy,
    DecoderPool,
    Event,
    Frame,
    Lull,
)
from framebank.features.errors import VideoRejected, internal_rejection, plain_text
from framebank.features.extraction.balance import Balance
from framebank.features.extraction.batches import Assembly, Batches, FrameNetwork, NetworkThreads
from framebank.features.extraction.clip_windows import FrameSpool, clip_windows, place_windows
from framebank.features.extraction.seen import Row
from framebank.features.pictures import Pictures
from framebank.features.spec import FeatureSpec
from framebank.features.video import Extracted, Rejected, SourceInfo, VideoRef

Result = Extracted | Rejected


class Engine:
    """Extracts features of videos with one network, or with several from one decoding; keeps its
    decoder processes between runs."""

    def __init__(
        self,
        network: FrameNetwork,
        spec: FeatureSpec,
        policy: DecoderPolicy,
        *,
        also: Sequence[tuple[FrameNetwork, FeatureSpec]] = (),
    ) -> None:
        """`also` are further networks, whose specs sample the same frames."""
        self._members = [(network, spec), *also]
        if len({(each.sample, each.max_frames) for _, each in self._members}) > 1:
            raise ValueError("the networks of one engine see the same frames")
        self._pool = DecoderPool(
            spec,
            policy,
            feature_dim=_row_width(network, spec),
            batch_size=max(one.batch_size * each.clip_length for one, each in self._members),
            also=[(each, _row_width(one, each)) for one, each in also],
        )
        # Of the last run that came to its end; and of each network, with its own pictures.
        self.balance, self.balances = Balance(), [Balance() for _ in self._members]
        _LIVE.add(self)

    def run(
        self, refs: Iterable[VideoRef], *, on_frames: Callable[[int], None] = lambda count: None
    ) -> Iterator[Result]:
        """Yield exactly one result for each of `refs`, in the order in which they get done; tell
        `on_frames` how many frames of each batch went through. For an engine of one network."""
        for _, result in self.run_all(((ref,) for ref in refs), on_frames=on_frames):
            yield result

    def run_all(
        self,
        refs: Iterable[Sequence[VideoRef | None]],
        *,
        on_frames: Callable[[int], None] = lambda count: None,
        hurried: bool = False,
    ) -> Iterator[tuple[int, Result]]:
        """Yield (number of the network, result), exactly one for each ref.

        Of each video `refs` has one ref for each network, None where it need not see it, and at
        least one. The video is decoded once. `hurried`: somebody waits for each of them, so a batch
        that would complete a video is not kept for frames of others while none of them come.
        """
        self.balance = Balance()
        wanted: dict[int, Sequence[VideoRef | None]] = {}
        events = self._begin(refs, wanted, hurried=hurried)  # which a network may still be built in
        with NetworkThreads([network for network, _ in self._members]) as threads:
            lines = [
                _Line(spec, self._place(spec), Batches(network, spec, threads, on_frames=on_frames))
                for network, spec in self._members
            ]
            self._pool.spent.start()
            start_s, taker_s = time.monotonic(), 0.0
            for result in self._results(events, wanted, lines):
                given_s = time.monotonic()
                yield result
                taker_s += time.monotonic() - given_s
        wall_s, spent = time.monotonic() - start_s, self._pool.spent
        whole = Balance(
            wall_s=wall_s,
            network_s=threads.busy.seconds,
            taker_s=taker_s,
            decoders_s=wall_s * spent.decoders,
            decode_s=spent.decode_s,
            room_s=spent.room_s,
            fetch_s=spent.fetch_s,
        )
        counts = [(line.batches.pictures, line.batches.computed) for line in lines]
        self.balances = [
            dataclasses.replace(whole, pictures=pictures, computed=computed)
            for pictures, computed in counts
        ]
        pictures, computed = map(sum, zip(*counts, strict=True))
        self.balance = dataclasses.replace(whole, pictures=pictures, computed=computed)

    def _place(self, spec: FeatureSpec) -> int:
        return self._pool.pictures.index((spec.input_size, spec.resize))

    def _begin(
        self,
        refs: Iterable[Sequence[VideoRef | None]],
        wanted: dict[int, Sequence[VideoRef | None]],
        *,
        hurried: bool,
    ) -> Iterator[Event | Lull]:
        """Have the decoders begin; return what comes of them. `wanted` gets the refs of each clip,
        by its number, when it is begun."""

        def note() -> Iterator[VideoRef]:
            for clip, group in enumerate(refs):
                wanted[clip] = group
                yield next(ref for ref in group if ref is not None)

        return (self._pool.decode_hurried if hurried else self._pool.decode)(note())

    def _results(
        self,
        events: Iterator[Event | Lull],
        wanted: dict[int, Sequence[VideoRef | None]],
        lines: Sequence[_Line],
    ) -> Iterator[tuple[int, Result]]:
        for event in events:
            if isinstance(event, Lull):
                for number, line in enumerate(lines):
                    for result in line.flush() if line.owed else ():
                        yield number, result
                continue
            for number, ref in enumerate(wanted[event.clip]):
                if ref is not None:
                    for result in lines[number].take(event, ref):
                        yield number, result
            if not isinstance(event, Frame | ClipAgain):
                del wanted[event.clip]
        for number, line in enumerate(lines):
            for result in line.flush():
                yield number, result

    def close(self) -> None:
        """End the decoder processes."""
        self._pool.close()


_LIVE: weakref.WeakSet[Engine] = weakref.WeakSet()


def close_all() -> None:
    """Close every engine of this process, for whoever ends it."""
    for engine in list(_LIVE):
        engine.close()


class SharedEngine:
    """The engine of a process: built when it is first needed, closed when its last user leaves.

    Runners have several instances of a DoFn in the threads of one process (Flink: one a slot). With
    an engine each, memory, decoders and what a dying worker costs would be multiplied by the slots;
    so they take turns, some shards at a time. One engine keeps all cores busy by itself.
    """

    def __init__(self) -> None:
        self._turn = threading.Lock()
        self._users: set[int] = set()
        self._engine: Engine | None = None
        self._made_for: Hashable = None

    def leave(self, user: object) -> None:
        """Have no more turns; the last user ends the decoder processes."""
        self._users.discard(id(user))
        if not self._users:
            with self._turn:
                self._close()

    def _close(self) -> None:
        if self._engine is not None:
            self._engine.close()
            self._engine = None

    @contextlib.contextmanager
    def turn(self, user: object, job: Hashable, build: Callable[[], Engine]) -> Iterator[Engine]:
        """Yield the engine to one thread at a time; `build` makes it for the first of a job. After
        an exception it is closed: its decoders may still be at the clips of that shard."""
        self._users.add(id(user))
        with self._turn:
            if self._made_for != job:
                self._close()
            if self._engine is None:
                self._engine, self._made_for = build(), job
            try:
                yield self._engine
            except BaseException:
                self._close()
                raise


class _Line:
    """One network's way from frames to results, in one run."""

    def __init__(self, spec: FeatureSpec, place: int, batches: Batches) -> None:
        """`place`: of this network's picture among those of a frame."""
        self._spec, self._place, self.batches = spec, place, batches
        self._clips: dict[int, Assembly] = {}
        self.owed = 0  # videos that are decoded, and wait for the network

    def take(self, event: Event, ref: VideoRef) -> Iterator[Result]:
        """Take what comes of a clip, which is `ref` to this network; yield what that completes."""
        clip = self._clips.setdefault(event.clip, Assembly())
        if isinstance(event, Frame) and self._spec.clip_length > 1:
            clip.frames = clip.frames or FrameSpool()
            clip.frames.add(event.token, event.pictures[self._place])
        elif isinstance(event, Frame):
            picture = event.pictures[self._place]
            yield from self._results(
                self.batches.add(clip, event.token, picture, same=event.same, share=event.share)
            )
        elif isinstance(event, ClipRejected | ClipAgain):
            clip.rejected = True  # what waits for the network reaches no row
            clip.rows.clear()  # pictures may keep the clip for a while
            if clip.frames is not None:
                clip.frames.close()
            del self._clips[event.clip]
            if isinstance(event, ClipRejected):
                reason = event.reason
                yield Rejected(ref, reason.stage, reason.error_class, reason.message)
        else:
            if clip.frames is not None:
                yield from self._results(self._add_windows(clip, event))
            clip.done = dataclasses.replace(event, ref=ref)
            del self._clips[event.clip]  # its pictures keep it as long as it waits
            if clip.waiting:
                self.owed += 1
            else:
                yield _assemble(clip, self._spec)

    def flush(self) -> Iterator[Result]:
        """Yield what a last batch completes, filled up as it may be."""
        yield from self._results(self.batches.flush())

    def _results(self, complete: Iterable[Assembly]) -> Iterator[Result]:
        for clip in complete:
            self.owed -= 1
            yield _assemble(clip, self._spec)

    def _add_windows(self, clip: Assembly, done: ClipDone) -> Iterator[Assembly]:
        """Give the batch the clips of a video whose frames are known; yield what that completes of
        others. Of one whose decoder names frames that it did not send nothing is given."""
        assert clip.frames is not None
        tokens, spec = done.fields["tokens"], self._spec
        with contextlib.closing(clip.frames) as frames:
            if frames.missing(tokens):
                return
            picture = np.empty((spec.clip_length, *_picture_shape(spec)), np.uint8)
            for number, window in enumerate(_windows(tokens, spec)):
                for image, row in zip(picture, window, strict=True):
                    frames.read(tokens[row], image)
                yield from self.batches.add(clip, number, picture)


def _picture_shape(spec: FeatureSpec) -> tuple[int, int, int]:
    return (spec.input_size, spec.input_size, 3)


def _windows(tokens: Sequence[int], spec: FeatureSpec) -> list[list[int]]:
    return clip_windows(len(tokens), length=spec.clip_length, stride=spec.clip_stride)


def _row_width(network: FrameNetwork, spec: FeatureSpec) -> int:
    """Return how many floats a sampled frame comes to: a picture has a byte a value where it is
    read, and clips are fewer than frames."""
    return -(-network.feature_dim // (4 if spec.holds_pictures else spec.clip_stride))


def _assemble(clip: Assembly, spec: FeatureSpec) -> Result:
    assert clip.done is not None
    try:
        return _extracted(clip.done, clip.rows, spec)
    except VideoRejected as bad:
        reason = bad
    except MemoryError:
        rows = len(clip.done.fields["tokens"])
        reason = VideoRejected("infer", "too_large", f"no memory for the features of {rows} rows")
    except Exception as error:  # noqa: BLE001 - it becomes a quarantined one
        reason = internal_rejection("infer", error)
    clip.rows.clear()
    return Rejected(clip.done.ref, reason.stage, reason.error_class, reason.message)


def _extracted(done: ClipDone, rows: dict[int, Row], spec: FeatureSpec) -> Extracted:
    """Return the features of a video; empties `rows`. Raises VideoRejected, MemoryError."""
    fields, placed = done.fields, None
    tokens, pts_ms, frame_index = (fields[name] for name in ("tokens", "pts_ms", "frame_index"))
    if spec.clip_length > 1:
        windows = _windows(tokens, spec)
        placed = place_windows(windows, pts_ms, frame_index)
        pts_ms, frame_index = placed.pts_ms, placed.frame_index
        tokens = list(range(len(windows)))
    if strange := set(tokens) - rows.keys():
        text = f"its decoder names {len(strange)} frames that it did not send"
        raise VideoRejected("infer", "crash", text)
    features: NDArray[np.float32] | Pictures
    if spec.holds_pictures:
        files = [row for row in map(rows.get, tokens) if isinstance(row, bytes)]
        features = Pictures(files, spec.dtype, spec.input_size)
        rows.clear()
    else:
        features = _in_order(rows, tokens)
    if not isinstance(features, Pictures) and not np.isfinite(features).all():
        count = int((~np.isfinite(features)).any(axis=1).sum())
        text = f"the network gave values that are not finite for {count} of {len(features)} frames"
        raise VideoRejected("infer", "bad_features", text)
    return Extracted(
        ref=done.ref,
        features=features,
        pts_ms=np.array(pts_ms, np.int64),
        frame_index=np.array(frame_index, np.int64),
        span_ms=placed and placed.span_ms,
        source=SourceInfo(**fields["source"]),
        content_sha256=fields["sha256"],
        partial=fields["partial"],
        decode_errors=fields["decode_errors"],
        capped=fields["capped"],
        warning=plain_text(fields["warning"]),
        checked=fields["checked"],
    )


def _in_order(rows: dict[int, Any], tokens: Sequence[int]) -> NDArray[np.float32]:
    """Return float32[n, d], row i that of tokens[i]; empties `rows` on the way, so that an hour of
    features is not in memory twice."""
    last_use = {token: place for place, token in enumerate(tokens)}
    features = np.empty((len(tokens), len(rows[tokens[0]])), np.float32)
    for place, token in enumerate(tokens):
        features[place] = rows[token] if last_use[token] > place else rows.pop(token)
    rows.clear()
    return features
