"""What comes from a decoder is doubted: lies cost its clip, and never the job or its memory."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, cast

import numpy as np
import pytest

from framebank.features.decoders import slot
from framebank.features.decoders import wire as decoder_wire
from framebank.features.decoders.clip_staging import StagedClip
from framebank.features.decoders.pool import DecoderPolicy
from framebank.features.decoders.wire import ConfinedProcess, Garbled, Message, Wire
from framebank.features.decoding.container import DecodeLimits
from framebank.features.errors import VideoRejected
from framebank.features.extraction.engine import Engine, Result
from framebank.features.video import Extracted, Rejected
from tests.attackers.lying_decoder import DONE, SOURCE, done, frame, frames_and, message
from tests.clips.plain_clips import FakeNetwork
from tests.features.extraction.test_engine import SPEC, ref_of


class Liar:
    """Makes the pool start liars first, and decoders after so many of them."""

    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self._folder, self._patch = folder, monkeypatch
        self._real = slot.spawn

    def results(self, clips: Path, answer: bytes, *, liars: int = 2) -> tuple[Result, Result]:
        """Return the results of two clips, the first of which meets liars."""
        (self._folder / "answer").write_bytes(answer)
        started: list[int] = []

        def spawn(memory_bytes: int) -> ConfinedProcess:
            started.append(1)
            if len(started) > liars:
                return self._real(memory_bytes)
            call = f"main({str(self._folder / 'answer')!r}, 1)"
            return ConfinedProcess("tests.attackers.lying_decoder", call)

        self._patch.setattr(slot, "spawn", spawn)
        policy = DecoderPolicy(decoders=1, timeout_s=10.0, limits=DecodeLimits(max_rows=10))
        engine = Engine(FakeNetwork(), SPEC, policy)
        try:
            first, second = engine.run([ref_of(clips / "a0.mp4"), ref_of(clips / "a1.mp4")])
        finally:
            engine.close()
        return first, second


@pytest.fixture
def liar(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Liar:
    return Liar(tmp_path, monkeypatch)


def verdict(**changes: Any) -> bytes:
    fields = {"stage": "decode", "error_class": "corrupt", "message": "x"} | changes
    return message(b"R", json.dumps(fields).encode())


LIES = {
    "no message": b"Traceback (most recent call last)",
    "an unknown kind": message(b"Z"),
    "four GiB": b"D\xff\xff\xff\xff",
    "a frame of another size": frame(0, 31),
    "a frame like the one before, of another size": message(b"=", b"x"),
    "a beat that says something": message(b"B", b"x"),
    "no JSON": message(b"D", b"{"),
    "no object": message(b"D", b"[1]"),
    "too deep": message(b"D", b"[" * 50_000),
    "no fields": message(b"D", b"{}"),
    "rows of two lengths": frames_and(done(pts_ms=[0])),
    "a number of a hundred bits": frames_and(done(pts_ms=[0, 2**100])),
    "a number that is none": frames_and(done(tokens=[0, "1"])),
    "half a frame": frames_and(done(frame_index=[0, 0.5])),
    "a width that is none": frames_and(done(source=SOURCE | {"width": float("nan")})),
    "a width below zero": frames_and(done(source=SOURCE | {"width": -1})),
    "an endless rate": frames_and(done(source=SOURCE | {"rate_fps": float("inf")})),
    "a codec that types": frames_and(done(source=SOURCE | {"codec": "h264\x1b[2J"})),
    "a codec of a megabyte": frames_and(done(source=SOURCE | {"codec": "h" * 50_000})),
    "a source with more": frames_and(done(source=SOURCE | {"more": 1})),
    "no hash": frames_and(done(sha256="x")),
    "a warning without words": frames_and(done(warning=1)),
    "a check that is none": frames_and(done(checked="half")),
    "no flag": frames_and(done(partial=1)),
    "an unknown class": verdict(error_class="fine"),
    "an unknown stage": verdict(stage="later"),
    "no words": verdict(message=None),
}


@dataclasses.dataclass
class Pipe:
    """A process of which only the output matters."""

    output: int


def heard(answer: bytes, *, asked: Message = Message.DONE) -> dict[str, Any]:
    """Return the last word in `answer` as the pool gets it."""
    read, write = os.pipe()
    os.write(write, answer)
    os.close(write)
    try:
        child = cast(ConfinedProcess, Pipe(read))
        wire = Wire(child, silence_s=5, limit_s=10, sizes=[32], max_rows=10, asked=asked)
        while True:
            kind, payload = wire.receive()
            if kind == Message.DONE:
                return decoder_wire.done_fields(payload, 10)
            if kind == Message.PROBED:
                return dataclasses.asdict(decoder_wire.probed(payload))
            if kind == Message.REJECTED:
                raise decoder_wire.rejection(payload)
    finally:
        os.close(read)


@pytest.mark.parametrize("lie", LIES.values(), ids=LIES)
def test_what_no_decoder_says_is_garbled(lie: bytes) -> None:
    with pytest.raises(Garbled) as caught:
        heard(lie)
    assert str(caught.value).isprintable() and len(str(caught.value)) < 1500


@pytest.mark.parametrize(
    "lie",
    [
        message(b"P", b"nonsense"),
        message(b"P", b'{"rows": -1}'),
        message(b"P", b'{"rows": 1.5}'),
        message(b"P", b'{"codec": "\\u001b[2J"}'),
        message(b"P", b'{"estimated": 1}'),
        message(b"P", b'{"decode_s": Infinity}'),
        message(b"P", b'{"error_class": "fine"}'),
        message(b"P", b'{"more": 1}'),
        frame(0, 32),
        done(),
    ],
)
def test_what_no_probe_says_is_garbled(lie: bytes) -> None:
    with pytest.raises(Garbled):
        heard(lie, asked=Message.PROBED)
    with pytest.raises(Garbled):  # and a decoder was not asked for a probe
        heard(message(b"P", b"{}"))
    assert heard(message(b"P", b'{"rows": 2}'), asked=Message.PROBED)["rows"] == 2


def test_what_decoders_say_is_heard() -> None:
    assert heard(frames_and(done())) == DONE
    with pytest.raises(VideoRejected, match="corrupt at decode: x"):
        heard(verdict())
    with pytest.raises(VideoRejected, match="no_keyframes"):
        heard(done(tokens=[], frame_index=[], pts_ms=[]))
    eleven = list(range(11))
    with pytest.raises(VideoRejected, match="too_large"):
        heard(done(tokens=eleven, frame_index=eleven, pts_ms=eleven))
    with pytest.raises(EOFError):
        heard(frame(0, 32))


def test_words_of_a_verdict_are_made_printable() -> None:
    with pytest.raises(VideoRejected) as caught:
        heard(verdict(message="\x1b]0;title\x07\n" + "long " * 5000))
    assert caught.value.message.startswith("\\x1b]0;title\\x07\\nlong")
    assert len(caught.value.message) < 2000


@pytest.mark.parametrize(
    ("answer", "error_class"),
    [
        (b"Traceback (most recent call last)", "crash"),
        (frames_and(done(tokens=[0, 7])), "crash"),  # a frame that it did not send
        (message(b"=", bytes(8)) + frames_and(done()), "crash"),  # like the one before the first
        (frame(1, 32) + message(b"A") + frame(0, 32) + done(), "crash"),  # one that it took back
        (frame(1, 32) + message(b"A") + message(b"=", bytes(8)) + done(), "crash"),
        (message(b"A") + message(b"A") + frames_and(done()), "crash"),  # no clip is begun thrice
        (b"".join(frame(number, 32) for number in range(12)), "too_large"),
        (done(tokens=[], frame_index=[], pts_ms=[]), "no_keyframes"),
    ],
)
def test_lies_cost_their_clip_only(
    clips: Path, liar: Liar, answer: bytes, error_class: str
) -> None:
    twice = (
        answer.startswith((b"Trace", b"=", b"A"))
        or message(b"A") + message(b"=", bytes(8)) in answer
    )
    bad, good = liar.results(clips, answer, liars=2 if twice else 1)
    assert isinstance(bad, Rejected) and isinstance(good, Extracted)
    assert bad.error_class == error_class, bad.message


def test_frames_that_a_decoder_takes_back_count_for_nothing(clips: Path, liar: Liar) -> None:
    white = message(b"F", bytes(8) + b"\xff" * 3 * 32 * 32)
    taken_back = white + b"".join(frame(number, 32) for number in range(1, 9)) + message(b"A")
    first, _ = liar.results(clips, taken_back + frames_and(done(checked="whole")), liars=1)
    assert isinstance(first, Extracted)
    assert not first.features.any() and first.checked == "whole"


def test_what_a_decoder_says_truly_is_taken(clips: Path, liar: Liar) -> None:
    first, _ = liar.results(clips, frames_and(done()), liars=1)
    assert isinstance(first, Extracted)
    assert first.features.shape == (2, 6)
    assert first.pts_ms.tolist() == DONE["pts_ms"]


@pytest.mark.parametrize("number", [signal.SIGRTMIN + 3, signal.SIGABRT])
def test_any_signal_that_ends_a_decoder_has_a_name(
    clips: Path, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    def spawn(_: int) -> ConfinedProcess:
        call = f"main; import os; os.kill(os.getpid(), {int(number)})"
        return ConfinedProcess("tests.attackers.lying_decoder", call)

    monkeypatch.setattr(slot, "spawn", spawn)
    engine = Engine(FakeNetwork(), SPEC, DecoderPolicy(decoders=1))
    try:
        (bad,) = engine.run([ref_of(clips / "a0.mp4")])
    finally:
        engine.close()
    assert isinstance(bad, Rejected)
    assert bad.error_class == "crash" and "was ended by" in bad.message


def test_a_fault_of_ours_over_one_clip_is_internal_and_names_its_place(
    clips: Path, monkeypatch: pytest.MonkeyPatch, expects_internal: list[str]
) -> None:
    real = StagedClip.check_unchanged

    def fails(clip: StagedClip, descriptor: int) -> None:
        if clip.ref.video_id == "a0.mp4":
            raise IndexError("list index out of range")
        real(clip, descriptor)

    monkeypatch.setattr(StagedClip, "check_unchanged", fails)
    engine = Engine(FakeNetwork(), SPEC, DecoderPolicy(decoders=1))
    try:
        bad, good = engine.run([ref_of(clips / "a0.mp4"), ref_of(clips / "a1.mp4")])
    finally:
        engine.close()
    assert isinstance(bad, Rejected) and isinstance(good, Extracted)
    assert (bad.stage, bad.error_class) == ("decode", "internal")
    assert "IndexError: list index out of range at tests/features/decoders/test_wire.py:" in (
        bad.message
    )
    assert "please report this" in bad.message
    assert len(expects_internal) == 1


def test_a_network_that_gives_one_clip_what_does_not_fit_costs_that_clip(
    clips: Path, expects_internal: list[str]
) -> None:
    class Odd(FakeNetwork):
        def __call__(self, images: np.ndarray) -> Any:
            rows = list(super().__call__(images))
            return [rows[0][:3], *rows[1:]] if self.calls == 1 else rows

    engine = Engine(Odd(), SPEC, DecoderPolicy(decoders=1))
    try:
        bad, good = engine.run([ref_of(clips / "a0.mp4"), ref_of(clips / "a1.mp4")])
    finally:
        engine.close()
    assert isinstance(bad, Rejected) and isinstance(good, Extracted)
    assert (bad.stage, bad.error_class) == ("infer", "internal")
    assert "at features/extraction/engine.py:" in bad.message


def test_no_memory_for_one_clip_is_too_large(clips: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(rows: Any, tokens: list[int]) -> Any:
        if len(tokens) == 4:
            raise MemoryError
        return np.zeros((len(tokens), 6), np.float32)

    monkeypatch.setattr("framebank.features.extraction.engine._in_order", full)
    engine = Engine(FakeNetwork(), dataclasses.replace(SPEC), DecoderPolicy(decoders=1))
    try:
        results = list(engine.run([ref_of(clips / "a0.mp4"), ref_of(clips / "a5.mp4")]))
    finally:
        engine.close()
    by_id = {result.ref.video_id: result for result in results}
    bad = by_id["a0.mp4"]
    assert isinstance(bad, Rejected) and isinstance(by_id["a5.mp4"], Extracted)
    assert (bad.stage, bad.error_class) == ("infer", "too_large")


@pytest.mark.parametrize(("takes_s", "told"), [(0.0, TimeoutError), (3.0, decoder_wire.Hang)])
def test_a_file_systems_own_time_out_is_no_hang(
    monkeypatch: pytest.MonkeyPatch, takes_s: float, told: type[Exception]
) -> None:
    @contextlib.contextmanager
    def open_file(path: str, limits: DecodeLimits) -> Iterator[Any]:
        time.sleep(takes_s)
        raise TimeoutError(110, "Connection timed out")
        yield

    monkeypatch.setattr(decoder_wire.container, "open_file", open_file)
    with (
        pytest.raises(told),
        decoder_wire.opened_clip("clip.mp4", DecodeLimits(), timeout_s=1.0),
    ):
        pass
