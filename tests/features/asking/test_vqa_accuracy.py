"""Accuracy over ten people's answers: cases worked by hand from the published evaluator."""

from __future__ import annotations

import pytest

from framebank.features.asking.vqa_accuracy import normalise, vqa_accuracy


@pytest.mark.parametrize(
    ("agree", "accuracy"), [(0, 0), (1, 0.3), (2, 0.6), (3, 0.9), (4, 1), (9, 1)]
)
def test_accuracy_leaves_one_out(agree: int, accuracy: float) -> None:
    others = [f"other {letter}" for letter in "bcdefghijk"]
    given = ["cat"] * agree + others[: 10 - agree]
    assert vqa_accuracy("cat", given) == pytest.approx(accuracy)


def test_nothing_is_normalised_where_all_agree() -> None:
    assert vqa_accuracy("two", ["2"] * 10) == 0
    assert vqa_accuracy("two", ["2"] * 9 + ["3"]) == 1
    assert vqa_accuracy("Yes", ["yes"] * 10) == 0
    assert vqa_accuracy("yes.", ["yes"] * 10) == 0
    assert vqa_accuracy("Yes.", ["yes"] * 9 + ["no"]) == 1
    assert vqa_accuracy(" yes\n", ["yes"] * 10) == 1
    assert vqa_accuracy("Yes", ["yes", " yes\n"] * 5) == 0  # as one, when they are cleaned


@pytest.mark.parametrize(
    ("answer", "normal"),
    [
        ("none", "0"),
        ("Ten", "10"),
        ("1,000", "1000"),
        ("t-shirt", "t shirt"),
        ("$3.50.", "$3.50"),
        ("u.s.a.", "usa"),
        ("dont know", "don't know"),
        ("A man and the dog", "man and dog"),
        ("red, white", "red white"),
        ("red,white", "red white"),
        ("couldn'tve", "couldn't've"),
        ("couldntve", "couldntve"),
        ("somebody'd", "somebodyd"),
        ("shes", "shes"),
        ("yes!", "yes"),
        ("what?! ", "what"),
        ("7:30", "7:30"),
        ("a." * 40, "a" * 32 + "a." * 8),
        ("", ""),
    ],
)
def test_answers_are_normalised_as_published(answer: str, normal: str) -> None:
    assert normalise(answer) == normal


def test_one_person_alone_has_no_accuracy() -> None:
    with pytest.raises(ValueError, match="two are needed"):
        vqa_accuracy("cat", ["cat"])
