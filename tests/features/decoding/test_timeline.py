from __future__ import annotations

from fractions import Fraction

import pytest

from framebank.features.decoding.sampling import BestTimestamp, Timeline

MILLISECONDS = Fraction(1, 1000)


def timeline(*stamps: int | None, rate: Fraction = Fraction(25)) -> Timeline:
    made = Timeline(MILLISECONDS, rate)
    for stamp in stamps:
        made.add(stamp, 40, False)
    return made


def seconds(made: Timeline) -> list[Fraction]:
    return [ticks * made.time_base for ticks in made.pts]


def test_frames_come_out_in_order_of_presentation() -> None:
    made = Timeline(MILLISECONDS, Fraction(25))
    for pts, key in ((80, True), (0, False), (40, True), (40, False)):
        made.add(pts, pts + 1, key)
    shown = made.shown()
    assert shown.numbers.tolist() == [1, 2, 3, 0]
    assert list(shown.pts) == [0, 40, 40, 80]
    assert list(shown.keyframes) == [0, 1, 0, 1]
    assert (shown.last_duration, shown.ticks) == (81, 161)
    assert shown.milliseconds(3) == 80


def test_absent_timestamps_follow_the_nominal_rate() -> None:
    assert list(timeline(100, None, None, 300).pts) == [100, 140, 180, 300]
    assert list(timeline(None, None, 500, None).pts) == [420, 460, 500, 540]
    assert list(timeline(None, None, None).pts) == [0, 40, 80]


def test_a_rate_that_is_no_whole_number_of_ticks_stays_exact() -> None:
    made = timeline(0, None, None, None, 200, rate=Fraction(30000, 1001))
    frame = Fraction(1001, 30000)
    assert seconds(made) == [0, frame, 2 * frame, 3 * frame, Fraction(1, 5)]
    shown = made.shown()
    assert shown.ticks * shown.time_base == Fraction(1, 5) + Fraction(40, 1000)
    made = timeline(None, None, 1000, rate=Fraction(30000, 1001))
    assert seconds(made) == [1 - 2 * frame, 1 - frame, 1]


def test_the_rate_is_the_mean_of_what_was_shown() -> None:
    assert timeline(0, 20, 60, 100).shown().rate_fps(Fraction(7)) == pytest.approx(30)
    assert timeline(5).shown().rate_fps(Fraction(7)) == 7


def test_the_best_timestamp_is_the_stated_one_while_it_makes_sense() -> None:
    best = BestTimestamp()
    assert [best(pts, dts) for pts, dts in ((0, 0), (3, 1), (1, 2), (2, 3))] == [0, 3, 2, 3]
    best = BestTimestamp()
    assert [best(None, dts) for dts in (5, 6, None)] == [5, 6, None]
    best = BestTimestamp()
    assert [best(pts, None) for pts in (5, 4, 6)] == [5, 4, 6]


def test_timestamps_past_64_bits_are_an_error() -> None:
    made = timeline(0, None, rate=Fraction(30000, 1001))
    with pytest.raises(OverflowError):
        made.add(1 << 62, 1, False)
