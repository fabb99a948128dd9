"""Accuracy of an answer that ten people gave, as the authors of VQA define it.

Source: the published evaluator `vqaEval.py` of Antol et al. 2015, "VQA: Visual Question Answering",
arXiv:1505.00468, case by case: where all people agree nothing is normalised, of the full stops of a
text the first 32 go, and words of number include `none`. An answer's accuracy is the mean over the
people of min(matches among the others / 3, 1): of ten people 0, 1, 2, 3, 4 or more that agree are
worth 0, 0.3, 0.6, 0.9, 1.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

ENOUGH = 3  # of the others must say the same
_WORDS = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten")
_NUMBERS = {"none": "0"} | {word: str(number) for number, word in enumerate(_WORDS)}
_ARTICLES = ("a", "an", "the")
_PUNCTUATION = ';/[]"{}()=+\\_-><@`,?!'
_COMMA_IN_NUMBER = re.compile(r"\d,\d")
_FULL_STOP = re.compile(r"\.(?!\d)")
_MOST_FULL_STOPS = 32
# Each is found by its spellings that lack one apostrophe.
_CONTRACTED = """
'ow's'at 'twas ain't aren't can't could've couldn't couldn't've didn't doesn't don't hadn't
hadn't've hasn't haven't he'd he'd've he's how'd how'll how's isn't it'd it'd've it'll ma'am
might've mightn't mightn't've must've mustn't needn't not've o'clock oughtn't shan't she'd've
should've shouldn't shouldn't've somebody'd've somebody'll somebody's someone'd someone'd've
someone'll someone's something'd something'd've something'll that's there'd there'd've there're
there's they'd they'd've they'll they're they've wasn't we'd've we've weren't what'll what're
what's what've when's where'd where's where've who'd who'd've who'll who's who've why'll why're
why's won't would've wouldn't wouldn't've y'all y'all'd've y'all'll you'd you'd've you'll you're
you've
"""
_SPELLINGS = {
    word[:place] + word[place + 1 :]: word
    for word in _CONTRACTED.split()
    for place, letter in enumerate(word)
    if letter == "'"
} | {"somebody'd": "somebodyd"}


def normalise(answer: str) -> str:
    """Return the answer without articles and punctuation, numbers as digits, in lower case."""
    text = _clean(answer)
    in_number = _COMMA_IN_NUMBER.search(text) is not None
    without = text
    for mark in _PUNCTUATION:
        beside_space = f"{mark} " in text or f" {mark}" in text
        without = without.replace(mark, "" if beside_space or in_number else " ")
    without = _FULL_STOP.sub("", without, count=_MOST_FULL_STOPS)
    words = [_NUMBERS.get(word, word) for word in without.lower().split()]
    return " ".join(_SPELLINGS.get(word, word) for word in words if word not in _ARTICLES)


def vqa_accuracy(answer: str, given: Sequence[str]) -> float:
    """Return the accuracy in [0, 1] of `answer` where people gave the answers `given`.

    Raises ValueError for fewer than two of them: nothing is left when one is left out.
    """
    if len(given) < 2:
        raise ValueError(f"{len(given)} answers of people; two are needed at least")
    answer, given = _clean(answer), list(map(_clean, given))
    if len(set(given)) > 1:
        answer, given = normalise(answer), list(map(normalise, given))
    agree = sum(other == answer for other in given)
    # Leaving out one that agrees leaves agree - 1 of them, leaving out another all.
    of_agreeing, of_others = min((agree - 1) / ENOUGH, 1), min(agree / ENOUGH, 1)
    return (agree * of_agreeing + (len(given) - agree) * of_others) / len(given)


def _clean(answer: str) -> str:
    return answer.replace("\n", " ").replace("\t", " ").strip()
