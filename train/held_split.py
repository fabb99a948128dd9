"""The held split of retraining: videos that judge models and that none of them has seen.

A video is held by a hash of its id alone, so it stays held whatever is added later. What a model
has seen (trained on, or chose its best epoch by) is kept beside it; a held video that a model has
seen all the same, since it came from elsewhere or another share was held then, judges nobody.
"""

from __future__ import annotations

import gzip
import hashlib
import json
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

from features import storage
from features.errors import CacheError
from features.questions import Question

SEEN = "seen.json.gz"


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
    questions = list(questions)
    splits = {q.video_id: q.split for q in questions if q.split is not None}
    for question in questions:
        fields: dict[str, Any] = {
            "question_id": question.question_id,
            "video_id": question.video_id,
            "question": question.question,
            "answer": question.answer,
            "split": question.split or splits.get(question.video_id, "train"),
            "type": question.type,
        }
        if question.head != "open":
            fields["head"] = question.head
        if question.choices:
            fields["choices"] = list(question.choices)
        yield json.dumps(fields, ensure_ascii=True).encode() + b"\n"


def seen_videos(questions: Iterable[Question]) -> set[str]:
    """Return the videos that a model trained on `questions` has seen: all but those of test."""
    questions = list(questions)
    splits = {q.video_id: q.split for q in questions if q.split is not None}
    return {q.video_id for q in questions if (q.split or splits.get(q.video_id, "train")) != "test"}


def seen_bytes(video_ids: Iterable[str]) -> bytes:
    """Return the content of seen.json.gz."""
    return gzip.compress(json.dumps(sorted(video_ids)).encode(), mtime=0)


def read_seen(model_dir: str) -> set[str]:
    """Return the videos that a version of a registry has seen; raises CacheError."""
    path = storage.join(model_dir, SEEN)
    try:
        return set(json.loads(gzip.decompress(storage.read_bytes(path))))
    except (OSError, EOFError, ValueError, TypeError) as err:
        raise CacheError(f"{path} is damaged", got=err, todo="restore it from a copy") from err
