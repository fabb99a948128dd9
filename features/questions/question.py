"""A question about a video: its record, and what measures its answer.

Question files are read by `features.questions.reading`; `features.questions.videos` finds the
clip that a question is about, `features.questions.splits` says what it is for.
"""

from __future__ import annotations

import collections
import dataclasses
import operator
from collections.abc import Iterable, Sequence

from framebank.features.errors import UsageError

# How a question is answered → the measure of its answers, as the published sets are judged.
HEADS = {
    "open": "accuracy",
    "choice": "accuracy",
    "count": "mean square error",
    "yes_no": "accuracy",
    "label": "accuracy",
    "segments": "mean average precision",
}
VQA_ACCURACY = "VQA accuracy"  # of an open answer that several people gave
# What a softmax over an answer vocabulary can learn and answer.
VOCABULARY_HEADS = ("open", "yes_no")
LABEL = "label"  # the class of a video: nothing is asked
SEGMENTS = "segments"  # what happens in a video, and when: nothing is asked either
YES_NO = ("yes", "no")
QUESTION_WORDS = ("what", "who", "how", "when", "where", "which", "why", "is", "are", "does", "do")


@dataclasses.dataclass(frozen=True, slots=True)
class Question:
    """One question about one video; `answer` is None where it is not known.

    `split` is "train", "val", "test" or None; `type` is the file's own, as text; `head` is one of
    HEADS. A multiple choice has its `choices`, `right` is the index of the true one (from 0) and
    `answer` its text. `aliases` are other names of the video, tried before `video_id`. `fault` says
    why a row cannot be asked; its texts are then what could be read of it. Such rows are kept for
    scoring alone. `group` names the source that the video was cut from, with others. A label of a
    video is the answer to the question "", which nobody has asked. So are its `segments`, of
    (start_s, end_s, label): there `answer` is the label that takes the most time, "" where nothing
    happens, and None where that is not known. `given` are the answers of several people, by which
    an answer is then judged; an open question with `choices` is answered with one of them.
    """

    question_id: str
    video_id: str
    question: str
    answer: str | None = None
    split: str | None = None
    type: str | None = None
    head: str = "open"
    choices: tuple[str, ...] = ()
    right: int | None = None
    aliases: tuple[str, ...] = ()
    fault: str | None = None
    group: str | None = None
    segments: tuple[tuple[float, float, str], ...] = ()
    given: tuple[str, ...] = ()

    @property
    def source(self) -> str:
        """Return what must stay on one side of a split: the group, else the video."""
        return self.video_id if self.group is None else self.group

    @property
    def measure(self) -> str:
        """Return what answers to this question are judged by."""
        return VQA_ACCURACY if self.given else HEADS[self.head]

    @property
    def number(self) -> float | None:
        """Return the true number of a counting question; None elsewhere or if not known."""
        return float(self.answer) if self.head == "count" and self.answer is not None else None

    @property
    def kind(self) -> str:
        """Return the type to report under: the file's own, else the question's first word."""
        if self.type is not None:
            return self.type
        if self.head in (LABEL, SEGMENTS):  # figures of each class
            return self.answer or "other"
        words = self.question.split(maxsplit=1)
        word = words[0].lower().strip("?!.,:;¿¡\"'") if words else ""
        return word if word in QUESTION_WORDS else "other"


_FIELDS = operator.attrgetter(*(field.name for field in dataclasses.fields(Question)))


def about(question: Question, video_id: str) -> Question:
    """Return the question about another video."""
    if question.video_id == video_id:
        return question
    question_id, _, *rest = _FIELDS(question)  # dataclasses.replace takes three times as long
    return Question(question_id, video_id, *rest)


def with_split(question: Question, split: str) -> Question:
    """Return the question with another split."""
    question_id, video_id, asked, answer, _, *rest = _FIELDS(question)
    return Question(question_id, video_id, asked, answer, split, *rest)


def with_group(question: Question, group: str | None) -> Question:
    """Return the question with another group."""
    return dataclasses.replace(question, group=group)


def require_answers(questions: Sequence[Question], *paths: str) -> list[Question]:
    """Return the questions that have an answer; raises UsageError when none has."""
    answered = [question for question in questions if question.answer is not None]
    if not answered:
        raise UsageError(
            f"{', '.join(paths)}: there are no answers to train on",
            got=f"{len(questions)} questions, none with an answer",
            expected='a column "answer", or the file that the set publishes its answers in',
            todo="give that file too, or join the answers; files without them can only be scored",
        )
    return answered


def head_kind(questions: Iterable[Question]) -> str:
    """Return the one way to answer that `questions` ask for: "open", "choice", "count", "label",
    "segments".

    Raises UsageError for several: no model learns them together.
    """
    counts: collections.Counter[str] = collections.Counter()
    first: dict[str, Question] = {}
    for question in questions:
        kind = "open" if question.head in VOCABULARY_HEADS else question.head
        counts[kind] += 1
        first.setdefault(kind, question)
    if len(counts) > 1:
        rare = min(counts, key=lambda kind: counts[kind])
        one = f"{first[rare].question!r:.60} of {first[rare].video_id}"
        raise UsageError(
            "one model cannot learn to answer in several ways",
            got=", ".join(f"{count} questions for {kind}" for kind, count in counts.most_common())
            + f" ({one} is for {rare})",
            expected="files that ask for one of open, choice, count, label, segments",
            todo="train a model for each (`framebank questions` shows what a file asks)",
        )
    return next(iter(counts), "open")
