"""What is odd about the rows of question files that can be used all the same.

Published sets hold rows that repeat each other, contradict each other or break their own rules.
They are kept, for a figure on fewer rows is none of the published set, and named.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from framebank.features.questions.question import Question
from framebank.features.questions.reading import OddRow, QuestionFile
from framebank.features.questions.sets import SETS, QuestionSet
from framebank.features.questions.splits import split_of_name

_MOST_COUNTED = 10  # TGIF-QA counts to ten, which stands for ten or more

Oddity = tuple[str, str, str]  # what, got, expected


def find_odd_rows(file: QuestionFile) -> list[OddRow]:
    """Return all odd rows of a file: those that its reading refused, then those that are kept."""
    known = SETS.get(file.set_name)
    odd = list(file.odd)
    repeated = _repeats(file.questions, file.places)
    partly = known is not None and any(question.answer is not None for question in file.questions)
    for place, (question, where) in enumerate(zip(file.questions, file.places, strict=True)):
        found = list(_in_text(question))
        if place in repeated:
            found.append(repeated[place])
        if place in file.copies:
            found.append(("an id that another row has", file.copies[place], "ids of their own"))
        if known is not None:
            split = question.split or split_of_name(file.path)
            found += _against_set(question, known, file.set_name, split)
            if partly and question.answer is None:
                found.append(("no answer", "none", "an answer, as other rows of the file have"))
        odd += [
            OddRow(file.path, where, what, got, expected, kept=True)
            for what, got, expected in found
        ]
    return odd


def _repeats(questions: Sequence[Question], places: Sequence[str]) -> dict[int, Oddity]:
    """Return the places of questions that were asked of their video before."""
    first: dict[tuple[str, str], int] = {}
    found: dict[int, Oddity] = {}
    for place, question in enumerate(questions):
        before = first.setdefault((question.video_id, question.question), place)
        if before == place:
            continue
        earlier = questions[before]
        asked = f"{question.question!r} of {question.video_id}"
        if (earlier.answer, earlier.choices) == (question.answer, question.choices):
            found[place] = ("the same row again", asked, f"once, as in {places[before]}")
        elif earlier.answer != question.answer:
            got = f"{question.answer!r} to {asked}"
            expected = f"{earlier.answer!r}, as in {places[before]}"
            found[place] = ("the same question with another answer", got, expected)
    return found


def _in_text(question: Question) -> Iterator[Oddity]:
    for value in (question.question, question.answer or ""):
        if "\ufffd" in value:
            yield "characters that were lost", repr(value), "text without U+FFFD"
    if len(set(question.choices)) < len(question.choices):
        listed = " | ".join(question.choices)
        if question.answer is not None and question.choices.count(question.answer) > 1:
            yield "the true answer stands twice among the choices", listed, "choices that differ"
        else:
            yield "two choices are alike", listed, "choices that differ"


def _against_set(
    question: Question, known: QuestionSet, set_name: str, split: str | None
) -> Iterator[Oddity]:
    code = (question.type or "").split(" ", 1)[0]
    if known.types and code not in known.types:
        yield "a type that the set does not have", repr(code), " ".join(known.types)
    if known.yes_no is not None and question.answer is not None:
        says = question.answer in ("yes", "no")
        if says != (code == known.yes_no):
            what = "yes or no in another type" if says else "a binary question with another answer"
            got = f"{question.answer!r} to {question.question!r}, type {question.type}"
            yield what, got, f"yes and no in type {known.yes_no} and there alone"
    if set_name == "activitynet-qa":
        start = f"v_{question.video_id}_"
        if not question.question_id.startswith(start):
            yield "an id of another video", question.question_id, start + "N"
    if question.number is not None and question.number not in range(_MOST_COUNTED + 1):
        yield "a count out of range", str(question.answer), f"0 to {_MOST_COUNTED}"
    numbers = known.videos.get(split or "")
    if numbers is not None and not (
        question.video_id.isdecimal() and int(question.video_id) in numbers
    ):
        expected = f"{numbers.start} to {numbers.stop - 1} in {split}"
        yield "a video that is not of this split", question.video_id, expected
