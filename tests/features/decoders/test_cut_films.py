"""A film that is cut and decoded by several decoders gives what one decoder gives."""

from __future__ import annotations

import dataclasses
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest

from framebank.features.decoders import clip_staging, slot
from framebank.features.decoders.clip_staging import ClipSource, StagedClip
from framebank.features.decoders.film_cut import FilmCut
from framebank.features.decoders.pool import DecoderPolicy
from framebank.features.decoders.spent import Spent
from framebank.features.decoders.wire import ConfinedProcess
from framebank.features.errors import VideoRejected
from framebank.features.extraction.engine import Engine, Result
from framebank.features.video import Extracted, Rejected, VideoRef
from tests.attackers.lying_decoder import done, frame, message
from tests.clips.plain_clips import FakeNetwork
from tests.features.extraction.test_engine import SPEC, ref_of

RULES = ("fps=5", "every=1", "uniform=7", "keyframes")
CUT = DecoderPolicy(decoders=2, check="sampled", cut_pixels=1)


@pytest.fixture(scope="module")
def film(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return 120 frames in twelve groups, with B-frames, at 10 fps."""
    path = tmp_path_factory.mktemp("films") / "film.mp4"
    noise = np.random.default_rng(5).integers(0, 200, (48, 64, 3), np.uint8)
    with av.open(str(path), "w") as out:
        options = {"preset": "ultrafast", "g": "10", "bf": "2", "sc_threshold": "0"}
        stream = out.add_stream("libx264", rate=10, options=options)
        stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p"
        for number in range(120):
            image = np.roll(noise, 3 * number, axis=1) + np.uint8(number % 50)
            out.mux(stream.encode(av.VideoFrame.from_ndarray(image, format="rgb24")))
        out.mux(stream.encode())
    return path


@pytest.fixture(scope="module")
def whole(film: Path) -> Result:
    """Return what one decoder gives of the film."""
    (result,) = extract([ref_of(film)], DecoderPolicy(decoders=1))
    return result


@pytest.fixture
def cuts(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Return a list that gets the number of shares of each film that is cut."""
    found: list[int] = []
    offer = ClipSource.offer_shares

    def note(self: ClipSource, clip: Any, shares: int) -> FilmCut:
        found.append(shares)
        return offer(self, clip, shares)

    monkeypatch.setattr(ClipSource, "offer_shares", note)
    return found


def extract(refs: list[VideoRef], policy: DecoderPolicy, sample: str = "fps=5") -> list[Result]:
    engine = Engine(FakeNetwork(), dataclasses.replace(SPEC, sample=sample), policy)
    try:
        results = list(engine.run(refs))
    finally:
        engine.close()
    assert sorted(result.ref.uri for result in results) == sorted(ref.uri for ref in refs)
    return results


def said(result: Result) -> dict[str, Any]:
    """Return all that a result says but how it was reached."""
    fields = {
        field.name: getattr(result, field.name)
        for field in dataclasses.fields(result)
        if field.name != "checked"
    }
    return {name: getattr(value, "tolist", lambda v=value: v)() for name, value in fields.items()}


@pytest.mark.parametrize("sample", RULES)
def test_a_film_in_shares_gives_the_rows_of_one_decoder(
    film: Path, cuts: list[int], sample: str
) -> None:
    (whole,) = extract([ref_of(film)], DecoderPolicy(decoders=1), sample)
    assert not cuts
    (cut,) = extract([ref_of(film)], CUT, sample)
    assert cuts and cuts[0] > 1
    assert isinstance(cut, Extracted) and cut.checked == "sampled"
    assert said(cut) == said(whole)


def test_one_decoder_alone_cuts_nothing(film: Path, cuts: list[int]) -> None:
    (result,) = extract([ref_of(film)], dataclasses.replace(CUT, decoders=1))
    assert isinstance(result, Extracted) and not cuts


def test_a_film_that_is_damaged_in_a_late_share_has_the_verdict_of_one_decoder(
    film: Path, cuts: list[int], tmp_path: Path
) -> None:
    data = bytearray(film.read_bytes())
    place = data.index(b"mdat") + 8 + int(0.8 * (len(data) - data.index(b"mdat") - 3000))
    data[place : place + 200] = bytes(range(200))
    path = tmp_path / "damaged.mp4"
    path.write_bytes(data)
    (whole,) = extract([ref_of(path)], DecoderPolicy(decoders=1), "every=1")
    (cut,) = extract([ref_of(path)], CUT, "every=1")
    assert cuts
    assert isinstance(whole, Rejected)
    assert said(cut) == said(whole)


def liars_first(
    monkeypatch: pytest.MonkeyPatch, answer: Path, *, honest: int, liars: int, lies_each: int = 1
) -> list[int]:
    """Have the pool start so many honest decoders, then so many liars, then honest ones again."""
    started: list[int] = []
    real, lock = slot.spawn, threading.Lock()

    def spawn(memory_bytes: int) -> ConfinedProcess:
        with lock:
            started.append(1)
            lies = honest < len(started) <= honest + liars
        if lies:
            call = f"main({str(answer)!r}, {lies_each})"
            return ConfinedProcess("tests.attackers.lying_decoder", call)
        return real(memory_bytes)

    monkeypatch.setattr(slot, "spawn", spawn)
    return started


@pytest.mark.parametrize(
    "lie",
    [
        message(b"H"), message(b"?"), done(), message(b"C", (3).to_bytes(8, "little")),
        message(b"A"), b"?" * 5,
    ],
    ids=["soon-done", "in-doubt", "last-word", "cut-again", "again", "garbled"],
)  # fmt: skip
def test_a_decoder_that_lies_of_its_share_costs_at_most_the_film(
    film: Path, whole: Result, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, lie: bytes
) -> None:
    (tmp_path / "answer").write_bytes(lie)
    started = liars_first(monkeypatch, tmp_path / "answer", honest=1, liars=1)
    (result,) = extract([ref_of(film)], CUT)
    assert len(started) > 1
    if isinstance(result, Rejected):  # frames that were not sent are not made up
        assert (result.stage, result.error_class) in {("infer", "crash"), ("decode", "crash")}
    else:
        assert said(result) == said(whole)


def test_a_film_whose_decoders_die_is_rejected_once(
    film: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "answer").write_bytes(b"?" * 5)
    liars_first(monkeypatch, tmp_path / "answer", honest=1, liars=100)
    (result,) = extract([ref_of(film)], CUT)
    assert isinstance(result, Rejected) and result.error_class == "crash"


@pytest.fixture
def source(film: Path) -> Iterator[ClipSource]:
    closed = threading.Event()
    refs = [ref_of(film), dataclasses.replace(ref_of(film), video_id="second")]
    yield ClipSource(iter(refs), closed, downloads=2, max_size_bytes=2**30, cuts=True)
    closed.set()


@pytest.fixture
def taken(source: ClipSource) -> tuple[StagedClip, StagedClip]:
    """Return both clips of `source`, which are in hand."""
    first, second = source.take(), source.take()
    assert first is not None and second is not None
    return first, second


def test_a_film_is_cut_only_where_no_other_clip_waits(
    source: ClipSource, taken: tuple[StagedClip, StagedClip]
) -> None:
    first, second = taken
    for _ in range(100):  # the end of the clips is known a moment later
        if source.most_shares() > 1:
            break
        threading.Event().wait(0.05)
    assert source.most_shares() > 1
    cut = source.offer_shares(first, 3)
    shares = [source.take(), source.take()]
    assert [share and share.share for share in shares] == [1, 2]
    assert all(share is not None and share.cut is cut for share in shares)
    for share in (first, *shares, second):
        assert share is not None
        source.done(share)
    assert source.take() is None


@pytest.fixture
def plans(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Have small films planned ahead, before they are cut; return a list that gets the path of each
    that is."""
    found: list[str] = []
    take, offer = ClipSource.take, ClipSource.offer_shares

    def note(self: ClipSource) -> Any:
        clip = take(self)
        if clip is not None and clip.ahead:
            found.append(clip.path)
        return clip

    def offer_late(self: ClipSource, clip: Any, shares: int) -> FilmCut:
        for _ in range(200):
            if found:
                break
            threading.Event().wait(0.05)
        return offer(self, clip, shares)

    monkeypatch.setattr(clip_staging, "_PLANNED_BYTES", 0)
    monkeypatch.setattr(ClipSource, "take", note)
    monkeypatch.setattr(ClipSource, "offer_shares", offer_late)
    return found


def test_who_has_nothing_to_do_plans_the_film_before_it_is_cut(
    film: Path, whole: Result, plans: list[str]
) -> None:
    (result,) = extract([ref_of(film)], CUT)
    assert said(result) == said(whole)
    assert plans == [str(film)]


@pytest.mark.parametrize(
    "lie",
    [message(b"L"), b"?" * 5, done(), frame(0, 32), message(b"H"), message(b"?")],
    ids=["no-plan", "garbled", "last-word", "frame", "share", "in-doubt"],
)
def test_a_decoder_that_lies_of_a_plan_costs_nothing(
    film: Path,
    whole: Result,
    plans: list[str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    lie: bytes,
) -> None:
    (tmp_path / "answer").write_bytes(lie)
    started = liars_first(monkeypatch, tmp_path / "answer", honest=1, liars=1)
    (result,) = extract([ref_of(film)], CUT)
    assert plans and len(started) > 1
    assert said(result) == said(whole)


def test_a_machine_that_has_no_room_for_who_plans_goes_on_without(
    film: Path, whole: Result, plans: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    started: list[int] = []
    real = slot.spawn

    def spawn(memory_bytes: int) -> ConfinedProcess:
        started.append(1)
        if len(started) == 2:
            raise OSError("no more processes")
        return real(memory_bytes)

    monkeypatch.setattr(slot, "spawn", spawn)
    (result,) = extract([ref_of(film)], CUT)
    assert plans and len(started) > 1
    assert said(result) == said(whole)


def test_a_thread_plans_one_film_at_a_time_and_none_that_is_withdrawn(
    source: ClipSource, taken: tuple[StagedClip, StagedClip], plans: list[str]
) -> None:
    film, other = taken
    with ThreadPoolExecutor(2) as threads:
        threads.submit(source.offer_plan, film).result()
        ahead = source.take()
        assert ahead is not None and ahead.number == film.number
        threads.submit(source.offer_plan, other).result()
        again = threads.submit(source.take)  # by a thread that has planned neither, or one of them
        source.withdraw_plan(film)
        source.withdraw_plan(other)
        for clip in (film, other, ahead):
            source.done(clip)
        if (last := again.result()) is not None:
            source.done(last)
        assert source.take() is None


def test_a_film_is_there_until_it_is_planned_and_planned_once_by_each(
    source: ClipSource, taken: tuple[StagedClip, StagedClip], plans: list[str]
) -> None:
    film, other = taken
    source.offer_plan(film)
    with ThreadPoolExecutor(1) as idle:
        ahead = idle.submit(source.take).result()
        assert ahead is not None and ahead.ahead and ahead.number == film.number
        again = idle.submit(source.take)  # waits, for there is nothing but that film
        source.done(film)
        source.done(other)
        assert not again.done()  # what is planned may be a copy that goes with the last use of it
        source.done(ahead)
        assert again.result() is None


@pytest.mark.parametrize("end", [b"H", b"?"], ids=["sound", "in-doubt"])
def test_a_worn_decoder_gets_no_further_share(
    source: ClipSource, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, end: bytes
) -> None:
    (tmp_path / "answer").write_bytes(message(b"W") + message(end))
    started = liars_first(monkeypatch, tmp_path / "answer", honest=0, liars=9, lies_each=9)
    taken = [source.take(), source.take()]
    film = taken[0]
    assert film is not None
    source.offer_shares(film, 3)
    run = slot.Run(source, None, threading.Semaphore(8), Spent(1))
    one = slot.Slot(SPEC, CUT, [(32, "stretch")], threading.Event())
    try:
        one.work(run)
        for clip in taken:
            assert clip is not None
            source.done(clip)
        assert run.events.get(timeout=60) is None
    finally:
        one.close()
    assert len(started) == 2


def test_the_last_share_to_end_has_the_last_word() -> None:
    cut = FilmCut(3)
    assert not cut.end(fields={"tokens": [1]})
    assert not cut.end(rejected=VideoRejected("decode", "hang", "too long"))
    assert cut.end()
    assert cut.fields == {"tokens": [1]} and cut.rejected is not None and not cut.doubted
    assert (cut.note(0, 5), cut.note(1, 4), cut.note(0, 1)) == (5, 9, 5)
