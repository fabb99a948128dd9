"""What a trained model finds in whole videos, and what stands beside it."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import TYPE_CHECKING

from framebank.features.asking.trained_model import TrainedModel
from framebank.features.cache.reader import check_finite
from framebank.features.errors import UsageError
from framebank.features.questions.question import SEGMENTS, Question
from framebank.features.video import catalog_text
from framebank.train.data.windows import Timeline
from framebank.train.judging.detections import Found
from framebank.train.workers.run import Run

if TYPE_CHECKING:
    from framebank.features.cache.reader import Cache

_SAY_EVERY_S = 10.0


def find_all(
    model: TrainedModel, cache: Cache, questions: Sequence[Question], run: Run
) -> tuple[list[Found], list[Timeline]]:
    """Return what is found in the video of each question, and when its rows are.

    Each shard is read forward, and one video held at a time. Raises UsageError where another kind
    of answer is asked for, CacheError, NotFiniteError, TrainingStopped.
    """
    head = model.head
    other = next((question for question in questions if question.head != SEGMENTS), None)
    if other is not None or head.rule is None:
        raise UsageError(
            "the model answers in another way than these questions ask",
            got=f"questions of the kind {other.head if other else SEGMENTS}",
            expected=f"questions of the kind {head.kind}",
            todo="give the files that the model is for",
        )
    by_video = {question.video_id: question for question in questions}
    found: dict[str, Found] = {}
    times: dict[str, Timeline] = {}
    said_s = time.monotonic()
    for record in cache.read(by_video):
        run.stop.check()
        check_finite(record.video_id, record.features)
        name = catalog_text(record.video_id)
        times[name] = timeline = Timeline.of(record)
        shares = model.ask_video(record.features)
        classes = timeline.classes(by_video[name], head)
        found[name] = Found.of(shares, timeline.edges_s, head.answers, head.rule, classes)
        if time.monotonic() - said_s >= _SAY_EVERY_S:
            run.say(f"{len(found)} of {len(by_video)} videos looked through")
            said_s = time.monotonic()
    names = [question.video_id for question in questions]
    return [found[name] for name in names], [times[name] for name in names]
