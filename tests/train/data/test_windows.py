"""Windows of long videos, and what is said of segments that none can hold."""

from __future__ import annotations

import numpy as np

from framebank.features.questions.question import SEGMENTS, Question
from framebank.train.data.windows import Timeline, beyond_ends


def test_segments_after_the_end_of_their_video_are_told() -> None:
    times = {"v": Timeline(np.arange(20) * 500, 10.0)}

    def told(*starts_s: float) -> list[str]:
        segments = tuple((start, start + 5, "run") for start in starts_s)
        return beyond_ends([Question("v", "v", "", "", head=SEGMENTS, segments=segments)], times)

    assert told() == told(0, 9) == []
    (said,) = told(3, 10, 250)
    assert "2 of 3 segments" in said and "'run' at 10 s of v, whose rows end at 9.75 s" in said
