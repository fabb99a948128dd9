"""Measures of segments: cases worked by hand."""

from __future__ import annotations

import numpy as np
import pytest

from framebank.features.asking.detection import (
    Segment,
    average_precision,
    detection_precision,
    hit_at,
    overlaps,
    video_precision,
)


def test_overlap_is_shared_over_union() -> None:
    shares = overlaps(0, 10, [0, 5, 10, 20, 2], [10, 15, 20, 30, 4])
    np.testing.assert_allclose(shares, [1, 5 / 15, 0, 0, 0.2])


def test_a_segment_without_length_overlaps_itself_alone() -> None:
    assert overlaps(3, 3, [3, 4, 0], [3, 4, 10]).tolist() == [1, 0, 0]


def test_precision_is_interpolated() -> None:
    # Precisions 1, 1/2, 2/3, 2/4, 3/5: from each hit on the best are 1, 2/3, 3/5.
    assert average_precision([1, 0, 1, 0, 1], 4) == pytest.approx((1 + 2 / 3 + 3 / 5) / 4)
    # The later, better precision counts for the first hit too: 1/2, 2/3.
    assert average_precision([0, 1, 1], 2) == pytest.approx(2 / 3)
    assert average_precision([], 3) == 0


def test_a_second_prediction_of_a_segment_is_wrong() -> None:
    truth = [Segment("v", "run", 0, 10)]
    twice = [Segment("v", "run", 0, 9, 0.9), Segment("v", "run", 0, 10, 0.8)]
    (precision,) = detection_precision(truth, twice, [0.5]).values()
    assert precision.tolist() == [1]
    # At 0.95 the first is too short, so that the second takes the segment at precision 1/2.
    assert detection_precision(truth, twice, [0.95])["run"].tolist() == [0.5]


def test_a_prediction_takes_the_free_segment_that_it_overlaps_most() -> None:
    truth = [Segment("v", "run", 0, 10), Segment("v", "run", 4, 14)]
    both = [Segment("v", "run", 3, 13, 0.9), Segment("v", "run", 2, 12, 0.8)]
    # The first overlaps 9/11 with the second segment, the second then 8/12 with the first.
    assert detection_precision(truth, both, [0.6, 0.7])["run"].tolist() == [1, 0.5]


def test_of_segments_that_it_overlaps_alike_a_prediction_takes_the_last() -> None:
    truth = [Segment("v", "run", 0, 10), Segment("v", "run", 10, 20)]
    both = [Segment("v", "run", 0, 20, 0.9), Segment("v", "run", 0, 10, 0.8)]
    assert detection_precision(truth, both, [0.5])["run"].tolist() == [1]


def test_classes_and_videos_are_apart() -> None:
    truth = [Segment("v", "run", 0, 10), Segment("w", "jump", 0, 10)]
    said = [
        Segment("w", "run", 0, 10, 0.9),
        Segment("v", "run", 0, 10, 0.5),
        Segment("v", "eat", 0, 1),
    ]
    found = detection_precision(truth, said, [0.5])
    assert {label: its.tolist() for label, its in found.items()} == {"run": [0.5], "jump": [0]}


def test_equal_scores_keep_their_order() -> None:
    truth = [Segment("v", "run", 0, 10)]
    wrong, right = Segment("v", "run", 50, 60), Segment("v", "run", 0, 10)
    assert detection_precision(truth, [right, wrong], [0.5])["run"].tolist() == [1]
    assert detection_precision(truth, [wrong, right], [0.5])["run"].tolist() == [0.5]


def test_videos_are_named() -> None:
    truth = [("v", "run"), ("w", "run"), ("w", "jump"), ("v", "run")]
    scored = [("v", "run", 0.9), ("v", "run", 0.8), ("w", "run", 0.7), ("v", "jump", 0.6)]
    assert video_precision(truth, scored) == {"jump": 0, "run": pytest.approx((1 + 2 / 3) / 2)}
    assert hit_at(truth, scored, 1) == 1
    assert hit_at([*truth, ("x", "run")], scored, 3) == pytest.approx(2 / 3)
    assert hit_at([("v", "jump")], scored, 1) == 0
    assert hit_at([("v", "jump")], scored, 3) == 1
