"""From what is said of rows to segments: windows, edges, filter, threshold, joining, length."""

from __future__ import annotations

import numpy as np
import pytest

from framebank.features.asking.segmenting import (
    SegmentRule,
    ask_rows,
    find_segments,
    row_classes,
    row_edges,
    smoothed,
    video_shares,
    window_starts,
)

EDGES = np.arange(11) * 0.5  # ten rows of half a second


def found(column: list[float], **rule: float) -> list[tuple[float, float, float]]:
    shares = np.array([column, [1 - one for one in column]], np.float32).T
    edges = np.arange(len(column) + 1) * 0.5
    its = find_segments(shares, edges, ["run"], SegmentRule(**rule), video_id="v")
    return [(one.start_s, one.end_s, round(one.score, 3)) for one in its]


def test_windows_overlap_by_half_and_end_with_the_video() -> None:
    assert window_starts(10, 4) == [0, 2, 4, 6]
    assert window_starts(11, 4) == [0, 2, 4, 6, 7]
    assert window_starts(4, 4) == window_starts(3, 4) == window_starts(1, 4) == [0]
    assert window_starts(3, 1) == [0, 1, 2]


@pytest.mark.parametrize("rows", [1, 3, 8, 9, 50, 333])
def test_every_row_is_asked_about_and_the_mean_of_windows_is_weighed(rows: int) -> None:
    features = np.arange(rows, dtype=np.float16)[:, None]
    asked: list[int] = []

    def call(windows: np.ndarray) -> np.ndarray:
        asked.append(len(windows))
        return np.concatenate([windows, np.ones_like(windows)], axis=2)  # says the row itself

    said = ask_rows(call, features, 8)
    np.testing.assert_allclose(said[:, 0], np.arange(rows), rtol=1e-6)
    assert sum(asked) == len(window_starts(rows, 8))
    assert max(asked) <= 16


def test_rows_in_the_middle_of_a_window_count_more() -> None:
    def call(windows: np.ndarray) -> np.ndarray:
        return np.repeat(np.arange(len(windows))[:, None, None], 4, axis=1).astype(np.float32)

    said = ask_rows(call, np.zeros((6, 1), np.float32), 4)
    # Windows [0, 4) and [2, 6) say 0 and 1; row 2 weighs 2 and 1, row 3 weighs 1 and 2.
    np.testing.assert_allclose(said[:, 0], [0, 0, 1 / 3, 2 / 3, 1, 1])


def test_a_row_stands_for_the_time_around_it() -> None:
    assert row_edges([0, 500, 1000], 1.2).tolist() == [0, 0.25, 0.75, 1.2]
    assert row_edges([0, 500, 1000], 9).tolist() == [0, 0.25, 0.75, 1.25]
    assert row_edges([0, 500, 1000], 0).tolist() == [0, 0.25, 0.75, 1.25]
    # Clips of 16 frames at 32 a second, by their middle.
    assert row_edges([250, 750, 1250], 1.5).tolist() == [0, 0.5, 1, 1.5]
    assert row_edges([0], 3).tolist() == [0, 3]
    assert row_edges([0], float("nan")).tolist() == [0, 0.5]


def test_rows_have_the_class_of_the_segment_that_they_lie_in() -> None:
    segments = [(0.5, 2.0, "run"), (1.0, 1.5, "jump"), (3.0, 4.0, "eat")]
    numbers = {"run": 0, "jump": 1}
    times = [0, 500, 1000, 1500, 2000, 3000, 4000]
    found = row_classes(times, segments, numbers, nothing=2, unknown=-1)
    assert found.tolist() == [2, 0, 1, 0, 2, -1, 2]


def test_filter_takes_the_mean_over_rows_and_fewer_at_the_ends() -> None:
    column = np.array([[0.0], [3.0], [6.0], [0.0]])
    assert smoothed(column, 1)[:, 0].tolist() == [0, 3, 6, 0]
    assert smoothed(column, 3)[:, 0].tolist() == [1.5, 3, 3, 3]
    assert smoothed(column, 2)[:, 0].tolist() == [1.5, 4.5, 3, 0]


def test_segments_by_threshold_joining_and_least_length() -> None:
    column = [0, 0.8, 0.8, 0.2, 0.6, 0, 0, 0, 0.9, 0]
    assert found(column) == [(4, 4.5, 0.9), (0.5, 1.5, 0.8), (2, 2.5, 0.6)]
    assert found(column, join_s=0.5) == [(4, 4.5, 0.9), (0.5, 2.5, 0.6)]
    assert found(column, join_s=0.5, least_s=1) == [(0.5, 2.5, 0.6)]
    assert found(column, threshold=0.85) == [(4, 4.5, 0.9)]
    # Means over three rows: 0.4, 0.53, 0.6, 0.53, 0.27 and less.
    assert found(column, filter_rows=3) == [(0.5, 2, 0.556)]
    assert found([0.0] * 4) == found([]) == []
    assert found([1.0] * 4) == [(0, 2, 1)]


def test_the_label_of_a_video_is_the_mean_of_its_rows_without_the_background() -> None:
    shares = np.array([[0.5, 0.0, 0.5], [0.1, 0.2, 0.7]], np.float32)
    np.testing.assert_allclose(video_shares(shares), [0.75, 0.25], rtol=1e-6)


@pytest.mark.parametrize(
    "fields",
    [
        None,
        {},
        {"window": 0, "filter_rows": 1, "threshold": 0.5, "join_s": 0, "least_s": 0},
        {"window": 8, "filter_rows": 1, "threshold": float("nan"), "join_s": 0, "least_s": 0},
        {"window": 8, "filter_rows": 1, "threshold": 0.5, "join_s": -1, "least_s": 0},
        {"window": "x", "filter_rows": 1, "threshold": 0.5, "join_s": 0, "least_s": 0},
    ],
)
def test_a_damaged_rule_is_refused(fields: object) -> None:
    with pytest.raises(ValueError, match="rule of segments"):
        SegmentRule.from_json(fields)


def test_a_rule_survives_its_json() -> None:
    rule = SegmentRule(filter_rows=5, threshold=0.3, join_s=1.5, least_s=0.7)
    assert SegmentRule.from_json(rule.to_json()) == rule


def test_segments_of_a_label_that_touch_are_parted_by_a_row() -> None:
    numbers, times = {"run": 0, "jump": 1}, [500 * row for row in range(12)]

    def classes(*segments: tuple[float, float, str]) -> list[int]:
        return row_classes(times, segments, numbers, nothing=9, unknown=-1).tolist()

    assert classes((0, 3, "run"), (3, 6, "run")) == [0] * 6 + [9] + [0] * 5
    assert classes((0, 3, "run"), (3.2, 6, "run")) == [0] * 6 + [9] * 2 + [0] * 4
    # Another label tells the two apart by itself, and of a short one no row is left over.
    assert classes((0, 3, "run"), (3, 6, "jump")) == [0] * 6 + [1] * 6
    assert classes((0, 3, "run"), (3, 4, "run")) == [0] * 8 + [9] * 4
    assert classes((0, 6, "run"), (2, 4, "run")) == [0] * 12
