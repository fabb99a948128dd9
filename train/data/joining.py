"""Question files and a cache become the questions to train on, and a tally of the rest."""

from __future__ import annotations

import collections
import contextlib
import dataclasses
import gc
import hashlib
import json
from collections.abc import Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, Any

from framebank.features.errors import UsageError
from framebank.features.questions.files import QuestionFiles, file_hashes
from framebank.features.questions.known_sets import PLAIN
from framebank.features.questions.question import LABEL, SEGMENTS, Question, require_answers
from framebank.features.questions.reading import read_questions
from framebank.features.questions.splits import follow_videos, split_of_name
from framebank.features.questions.videos import ClipNames, join_questions
from framebank.features.terminal import few

if TYPE_CHECKING:
    from framebank.features.cache.reader import Cache

_NAMED = 5


@dataclasses.dataclass(frozen=True)
class JoinedQuestions:
    """`questions` have an answer and a video of the cache; the rest is counted.

    `file_hashes` are the SHA-256 of the `files` (and the mapping), in their order; `frames` maps
    the videos of `questions` to their number of rows; `cache_digest` changes with any video of the
    cache. `unmatched_videos` end with the quarantined ones; `hints` say of the first of them what
    may have been meant, "" where nothing comes near. `ignored_names` are splits that the files are
    named for, where these would leave nothing to train on.
    """

    questions: list[Question]
    files: QuestionFiles
    file_hashes: tuple[str, ...]
    frames: dict[str, int]
    cache_digest: str
    without_answer: int = 0
    unmatched: int = 0
    unmatched_videos: tuple[str, ...] = ()
    quarantined_videos: tuple[str, ...] = ()
    hints: tuple[str, ...] = ()
    ignored_names: tuple[str, ...] = ()

    def only(self, questions: Sequence[Question]) -> JoinedQuestions:
        """Return some of the questions, to be trained on as a plain file of them would be.

        Those without a split follow their video's, else they train. They are known by the SHA-256
        of that file.
        """
        kept = follow_videos(questions, "train")
        digest = hashlib.sha256()
        for line in question_lines(kept):
            digest.update(line)
        frames = {question.video_id: self.frames[question.video_id] for question in kept}
        hashes = (digest.hexdigest(),)
        files = QuestionFiles(self.files.paths, PLAIN)
        return JoinedQuestions(kept, files, hashes, frames, self.cache_digest)


def question_lines(questions: Iterable[Question]) -> Iterator[bytes]:
    """Yield questions as the lines of a plain question file."""
    for question in questions:
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
        if question.group is not None:
            fields["group"] = question.group
        if question.given:
            fields["answers"] = list(question.given)
        if question.segments:
            fields["segments"] = list(question.segments)
        yield json.dumps(fields, ensure_ascii=True).encode() + b"\n"


def videos_digest(cache: Cache, video_ids: Iterable[str] | None = None) -> str:
    """Return a hash of the features of `video_ids`, or of all done videos: of each one's key, which
    names its content and how it was made."""
    table = cache.done(["video_id", "key"], video_ids).sort_by("video_id")
    digest = hashlib.sha256()
    for batch in table.to_batches(max_chunksize=100_000):
        rows = zip(*(column.to_pylist() for column in batch.columns), strict=True)
        text = "".join(f"{video_id}\0{key}\0" for video_id, key in rows)
        digest.update(text.encode("utf-8", "surrogateescape"))
    return digest.hexdigest()[:32]


@contextlib.contextmanager
def _collector_paused() -> Iterator[None]:
    """Keep Python's garbage collector from walking a million living rows again and again."""
    ran = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if ran:
            gc.enable()


@_collector_paused()
def join_cache(
    files: QuestionFiles, cache: Cache, *, max_unmatched_ratio: float, to_train: bool = True
) -> JoinedQuestions:
    """Read the question files and keep what the cache can answer.

    `to_train` says that they are to be trained on, or that the model which is asked was.

    Raises UsageError when more than `max_unmatched_ratio` of the questions have no video there, and
    where none of all files has an answer.
    """
    asked = read_questions(files, to_train=to_train)
    questions = require_answers(asked, *files.paths)
    names = ClipNames(cache.table(["video_id"]).column("video_id").to_pylist())
    done = cache.done(["video_id", "rows"]).to_pydict().values()
    frames = dict(zip(*done, strict=True))
    known, unknown = join_questions(questions, names)
    matched = [question for question in known if question.video_id in frames]
    quarantined = [question for question in known if question.video_id not in frames]
    missing = {question.video_id: question.aliases for question in unknown}
    joined = JoinedQuestions(
        questions=matched,
        files=files,
        file_hashes=tuple(file_hashes(files)),
        without_answer=len(asked) - len(questions),
        unmatched=len(questions) - len(matched),
        unmatched_videos=tuple(dict.fromkeys([*missing, *(q.video_id for q in quarantined)])),
        quarantined_videos=tuple(dict.fromkeys(q.video_id for q in quarantined)),
        hints=tuple(names.hint(*wanted) for wanted in list(missing.items())[:_NAMED]),
        frames={question.video_id: frames[question.video_id] for question in matched},
        cache_digest=videos_digest(cache),
        ignored_names=_ignored_names(files.paths, questions),
    )
    _check_segments(matched)
    _check_ratio(joined, total=len(questions), cached=frames, limit=max_unmatched_ratio)
    return joined


def _check_segments(questions: Sequence[Question]) -> None:
    """Raise UsageError where two files tell of the segments of one video: each would lack some."""
    about = collections.Counter(q.video_id for q in questions if q.head == SEGMENTS)
    twice = [name for name, count in about.items() if count > 1]
    if twice:
        raise UsageError(
            "the segments of a video are in several places",
            got=f"{few(twice, _NAMED)} in several files, or under several names",
            expected="all segments of a video in one file, under one name",
        )


def _ignored_names(paths: Sequence[str], questions: Sequence[Question]) -> tuple[str, ...]:
    """Return the splits of the files' names where rows have none for all that."""
    named = [split for path in paths if (split := split_of_name(path)) is not None]
    if len(paths) < 2 or len(named) < len(paths):
        return ()
    loose = any(question.split is None for question in questions)
    return tuple(dict.fromkeys(named)) if loose else ()


def remarks(joined: JoinedQuestions) -> list[str]:
    """Return a line for each kind of question that was left out, or that contradicts another."""
    said = []
    if joined.ignored_names:
        names = " and ".join(joined.ignored_names)
        said.append(
            f"the files are named for {names}, which would leave nothing to train on: "
            "rows without a split are split by video"
        )
    if joined.without_answer:
        said.append(f"{joined.without_answer} questions have no answer and were left out")
    if joined.unmatched:
        said.append(f"{joined.unmatched} questions were left out: " + _describe_unmatched(joined))
    labels: dict[str, set[str | None]] = {}
    for question in joined.questions:
        if question.head == LABEL:
            labels.setdefault(question.video_id, set()).add(question.answer)
    if several := sorted(video_id for video_id, its in labels.items() if len(its) > 1):
        said.append(
            f"WARNING: {len(several)} videos have several labels, of which a model can say one: "
            f"{few(several)}"
        )
    return said


def _describe_unmatched(joined: JoinedQuestions) -> str:
    videos, quarantined = joined.unmatched_videos, joined.quarantined_videos
    text = f"{len(videos)} videos are not in the cache ({few(videos)})"
    if quarantined:
        text += f"; {len(quarantined)} of them are quarantined ({few(quarantined)})"
    hints = [f"{name!r}: {hint}" for name, hint in zip(videos, joined.hints, strict=False) if hint]
    return text + "".join(f"; {hint}" for hint in hints)


def _check_ratio(
    joined: JoinedQuestions, *, total: int, cached: dict[str, int], limit: float
) -> None:
    if joined.questions and joined.unmatched <= limit * total:
        return
    what = "too many questions are about videos that the cache does not have"
    if not joined.questions:
        what = "not one question is about a video of the cache"
    raise UsageError(
        what,
        got=f"{joined.unmatched} of {total} questions: {_describe_unmatched(joined)}; "
        f"the cache has for example {few(list(cached)) or 'no video at all'}",
        expected=f"at most {limit:.0%} of the questions",
        todo="extract those videos, name them in the questions as the cache does (see "
        "`framebank inspect`), or raise --max-unmatched-ratio",
    )
