"""A question of VQA about a picture: the row of its questions file, joined with its annotation.

Source: the files of visualqa.org, versions 1 and 2 alike. A picture goes by the name that its set
gave it (COCO_train2014_000000123456), or by its number in 12 digits (COCO's files since 2017). What
ten people answered is kept, and judged as `features.asking.vqa_accuracy` says; `answer` is what
most of them said. A multiple choice is an open question whose answer is one of its choices.
"""

from __future__ import annotations

import functools
import sys
from collections.abc import Mapping
from typing import Any

from framebank.features.errors import UsageError
from framebank.features.questions.parsing import text
from framebank.features.questions.question import Question

_DIGITS = 12
_MOST_ANSWERS = 1000  # to one question
_TEXTS = (
    "question_id", "image_id", "question", "data_type", "data_subtype", "multiple_choice_answer",
    "answer_type",
)  # fmt: skip


def make_image_question(
    path: str, where: str, fields: Mapping[str, Any], *, set_name: str
) -> Question:
    """Return the question of one row; raises UsageError for a row that cannot be one."""

    def fault(what: str, got: object, expected: str) -> UsageError:
        return UsageError(f"{path} has {what}", got=f"{got} in {where}", expected=expected)

    def texts(name: str) -> tuple[str, ...]:
        listed = fields.get(name)
        # A person's answer that had other columns than the published ones is an object still.
        said = [one.get("answer") if type(one) is dict else one for one in listed or ()]
        if not {str, int}.issuperset(map(type, said)) or len(said) > _MOST_ANSWERS:
            expected = f"a list of at most {_MOST_ANSWERS} texts"
            raise fault(f"{name} that cannot be read", f"{listed!r:.60}", expected)
        return tuple(map(_plain, said))

    for name in _TEXTS:
        if isinstance(fields.get(name), list | dict):
            got = f"{name} {fields[name]!r:.60}"
            raise fault("a row with something else than text", got, "text or a number")
    for name in ("answers", "multiple_choices"):
        if not isinstance(fields.get(name), list | None):
            raise fault(f"{name} that cannot be read", f"{fields[name]!r:.60}", "a list of texts")
    asked, image = text(fields.get("question")), text(fields.get("image_id"))
    if not asked or not image:
        what = "question" if not asked else "picture"
        raise UsageError(f"{path} has a row without a {what}", got=where, expected="question_id, "
                         "image_id and question, as published")  # fmt: skip
    given, choices = texts("answers"), texts("multiple_choices")
    if len(given) == 1:
        raise fault("an annotation that holds one answer", repr(given[0]), "those of ten people")
    answer = text(fields.get("multiple_choice_answer")) or max(given, key=given.count, default="")
    names = picture_names(text(fields.get("data_type")), text(fields.get("data_subtype")), image)
    return Question(
        question_id=text(fields.get("question_id")),
        video_id=sys.intern(names[0]),
        question=asked,
        answer=sys.intern(answer) or None,
        type=sys.intern(text(fields.get("answer_type"))) or None,
        choices=choices,
        right=choices.index(answer) if answer in choices else None,
        aliases=names,
        given=given,
    )


@functools.lru_cache(maxsize=2**16)
def _plain(answer: str | int) -> str:
    return sys.intern(text(answer))  # the millions of answers are mostly a few thousand


def picture_names(data_type: str, subset: str, image_id: str) -> tuple[str, ...]:
    """Return the names that a picture may go by, without a suffix, the published one first."""
    number = image_id.rjust(_DIGITS, "0") if image_id.isdecimal() else image_id
    if not subset:
        return (number,)
    kind = "COCO" if data_type in ("", "mscoco") else data_type
    # The questions of test-dev2015 are about pictures of test2015.
    return f"{kind}_{subset.replace('test-dev', 'test')}_{number}", number
