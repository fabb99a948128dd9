"""The held split of retraining: videos that judge models and that none of them has seen.

A video is held by a hash of its id alone, so it stays held whatever is added later, and whatever
its bytes become. A held video that a model has seen all the same
(`features.questions.seen_videos`), since another share was held then, or since a copy of it goes by
another id, judges nobody.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from framebank.features.questions.question import Question
from framebank.features.questions.seen_videos import Seen
from framebank.features.questions.splits import follow_videos


def is_held(video_id: str, *, share: float) -> bool:
    """Return whether a video is among the `share` that is held."""
    digest = hashlib.sha256(b"held\0" + video_id.encode("utf-8", "surrogateescape")).digest()
    return int.from_bytes(digest[:8], "big") < share * 2**64


def part_questions(
    questions: Sequence[Question], *, share: float
) -> tuple[list[Question], list[Question]]:
    """Return (questions to train on, held questions)."""
    held = {video for video in {q.video_id for q in questions} if is_held(video, share=share)}
    return (
        [question for question in questions if question.video_id not in held],
        [question for question in questions if question.video_id in held],
    )


def question_lines(questions: Iterable[Question]) -> Iterator[bytes]:
    """Yield questions to train on as lines of a plain question file.

    Those without a split follow their video's, else they train: the held split takes the place of
    a test split.
    """
    for question in follow_videos(list(questions), "train"):
        fields: dict[str, Any] = {
            "question_id": question.question_id,
            "video_id": question.video_id,
            "question": question.question,
            "answer": question.answer if question.right is None else question.right,
            "split": question.split,
            "type": question.type,
        }
        if question.head != "open":
            fields["head"] = question.head
        if question.choices:
            fields["choices"] = list(question.choices)
        yield json.dumps(fields, ensure_ascii=True).encode() + b"\n"


def seen_videos(questions: Iterable[Question]) -> set[str]:
    """Return the videos that a model trained on `questions` has seen: all but those of test."""
    dealt = follow_videos(list(questions), "train")
    return {question.video_id for question in dealt if question.split != "test"}


def seen_by(questions: Iterable[Question], contents: Mapping[str, str]) -> Seen:
    """Return what a model trained on `questions` has seen."""
    videos = seen_videos(questions)
    return Seen(frozenset(videos), frozenset(contents[name] for name in videos if name in contents))
