from __future__ import annotations

import random
from fractions import Fraction

import numpy as np
import pytest

from framebank.features.decoding import sampling
from framebank.features.decoding.sampling import Shown
from framebank.features.errors import UsageError
from tests.clips.sampling_reference import reference_rows

RULES = (
    *("fps=1", "fps=2", "fps=7", "fps=25", "fps=1/2", "fps=30000/1001", "fps=90"),
    *("uniform=1", "uniform=2", "uniform=8", "uniform=97"),
    *("every=1", "every=3", "all", "keyframes"),
)


def select(
    sample: str,
    pts: list[int],
    *,
    last: int | None = None,
    time_base: Fraction = Fraction(1, 1000),
    keys: list[bool] | None = None,
    most: int | None = None,
) -> tuple[list[int], bool]:
    shown = Shown(np.arange(len(pts)), pts, last or 0, keys or [], time_base)
    return sampling.select_rows(sampling.parse_rule(sample), shown, max_frames=most)


@pytest.mark.parametrize("sample", RULES)
def test_rows_are_those_of_the_brute_force_reference(sample: str) -> None:
    chance = random.Random(sample)
    for _ in range(20):
        time_base = chance.choice([Fraction(1, 1000), Fraction(1, 90000), Fraction(1001, 30000)])
        pts = [chance.randrange(-5000, 5000)]
        for _ in range(chance.randrange(40)):
            pts.append(pts[-1] + chance.choice([0, 1, 1, 2, 33, 40, 700]))
        last = chance.choice([None, 0, 1, 40, 333])
        if len(pts) == 1 and not last:
            last = 1  # no duration at all is a case of its own, below
        keys = [chance.random() < 0.2 for _ in pts]
        most = chance.choice([None, None, 1, 5])
        end = pts[-1] + (last or pts[-1] - pts[-2])
        if end == pts[0]:
            continue
        expected = reference_rows(
            sample, [tick * time_base for tick in pts], end * time_base, keys, most
        )
        got, capped = select(sample, pts, last=last, time_base=time_base, keys=keys, most=most)
        assert got == expected
        everything, _ = select(sample, pts, last=last, time_base=time_base, keys=keys)
        assert capped == (len(everything) > len(expected))


def test_a_single_frame_counts_as_one() -> None:
    for last in (None, 0, 40):
        assert select("fps=1", [123], last=last) == ([0], False)
        assert select("uniform=4", [123], last=last) == ([0, 0, 0, 0], False)
        assert select("all", [123], last=last) == ([0], False)
    assert select("fps=100", [0], last=40) == ([0, 0, 0, 0], False)


def test_no_frames_give_no_rows() -> None:
    for sample in RULES:
        assert select(sample, []) == ([], False)


def test_frames_that_share_a_timestamp_show_the_last_of_them() -> None:
    assert select("fps=10", [0, 0, 0, 100, 100], last=100) == ([2, 4], False)
    assert select("fps=1", [7, 7, 7]) == ([2], False)


def test_a_target_exactly_on_a_frame_shows_that_frame() -> None:
    thirds = Fraction(1, 3)
    assert select("fps=1", [0, 1, 2, 3, 4, 5], time_base=thirds) == ([0, 3], False)
    # 30000/1001 fps on its own frames: floating point would slip, fractions do not.
    pts = list(range(0, 3003 * 400, 3003))
    got, _ = select("fps=30000/1001", pts, time_base=Fraction(1, 90000))
    assert got == list(range(400))


def test_max_frames_marks_only_what_it_cuts() -> None:
    assert select("all", [0, 1, 2], most=3) == ([0, 1, 2], False)
    assert select("all", [0, 1, 2], most=2) == ([0, 1], True)
    assert select("uniform=5", [0, 1, 2], most=5)[1] is False
    assert select("keyframes", [0, 1, 2], keys=[True, False, True], most=1) == ([0], True)


def test_rows_are_counted_without_being_made() -> None:
    far = 10**17
    rule = sampling.parse_rule("fps=30")
    time_base = Fraction(1, 90000)
    assert (
        sampling.count_rows(rule, frames=2, span=far, time_base=time_base) == far * 30 // 90000 + 1
    )
    for sample in RULES:
        rule = sampling.parse_rule(sample)
        pts = [0, 5, 90, 300, 2001]
        counted = sampling.count_rows(
            rule,
            frames=len(pts),
            span=sampling.shown_ticks(pts, 40),
            time_base=Fraction(1, 1000),
        )
        got, _ = select(sample, pts, last=40, keys=[True] * 5)
        assert counted == len(got)


@pytest.mark.parametrize(
    ("text", "canonical"),
    [
        ("fps=2", "fps=2"),
        ("fps=0.5", "fps=1/2"),
        ("fps=2/4", "fps=1/2"),
        ("fps=30000/1001", "fps=30000/1001"),
        ("fps=29.97", "fps=2997/100"),
        ("uniform=08", "uniform=8"),
        ("every=3", "every=3"),
        ("all", "every=1"),
        (" keyframes ", "keyframes"),
    ],
)
def test_a_rule_has_one_canonical_text(text: str, canonical: str) -> None:
    rule = sampling.parse_rule(text)
    assert rule.text == canonical
    assert sampling.parse_rule(rule.text) == rule


@pytest.mark.parametrize(
    "text",
    [
        *("", "fps", "fps=", "fps=0", "fps=-1", "fps=1/0", "fps=0/5", "fps=1e9", "fps=nan"),
        *("fps=1/2/3", "fps=1.5/2", "uniform=0", "uniform=2.5", "every=0", "every=-3", "all=2"),
        *("keyframes=1", "every=1_0", "fps=١", "fps = 1", "uniform=9999999999", "random"),
    ],
)
def test_nonsense_is_a_usage_error_that_lists_the_rules(text: str) -> None:
    with pytest.raises(UsageError, match="fps=R"):
        sampling.parse_rule(text)


def test_milliseconds_round_halves_to_even() -> None:
    assert [sampling.milliseconds(ticks, Fraction(1, 2000)) for ticks in (1, 3, 5)] == [0, 2, 2]
    assert sampling.milliseconds(1001, Fraction(1, 30000)) == 33
