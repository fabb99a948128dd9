"""Which answers a page shows: the surest right and wrong ones, and one of each common mistake."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from framebank.features.browsing.thumbnails import Thumbnails
from framebank.train.evaluation.answers import NO_RANK
from framebank.train.evaluation.evaluating import Judged

_TYPES = 6  # of question, the commonest, that are shown with their mistakes
_LISTED = 5  # mistakes of each
_TWICE = 2  # one made once is chance


def choose_mistakes(
    judged: Judged, most: int, *, shown: Collection[int]
) -> tuple[list[dict[str, Any]], list[int]]:
    """Return the types of question with the mistakes that were made more than once, each with the
    "place" of the surest answer that makes it, and those of the places, `most` of them, that are
    not `shown` already. A mistake beyond has the place None."""
    questions, said = judged.answers.questions, judged.answers.chosen()
    surest: dict[tuple[str, str, str], int] = {}
    order = (-_weights(judged)).argsort(kind="stable").tolist()
    for place in sorted(order, key=lambda place: place not in shown):
        key = questions[place].kind, questions[place].answer or "", said[place]
        surest.setdefault(key, place)
    kinds: list[dict[str, Any]] = []
    more: list[int] = []
    for kind, its in list(judged.figures["mistakes_by_type"].items())[:_TYPES]:
        rows = []
        for one in [one for one in its["mistakes"] if one["count"] >= _TWICE][:_LISTED]:
            place = surest[kind, one["truth"], one["said"]]
            if most and place not in shown and place not in more:
                if len(more) == most:
                    rows.append(one | {"place": None})
                    continue
                more.append(place)
            rows.append(one | {"place": place if most else None})
        kinds.append({"kind": kind, **its, "mistakes": rows})
    return kinds, more


def choose_cases(judged: Judged, most: int) -> tuple[list[int], list[int]]:
    """Return up to `most` surest right answers and as many wrong ones, surest first.

    A second question about one video comes in only where there are not enough videos.
    """
    order = (-_weights(judged)).argsort(kind="stable").tolist()
    right = judged.answers.right
    return (
        _spread([place for place in order if right[place]], judged, most),
        _spread([place for place in order if not right[place]], judged, most),
    )


def _weights(judged: Judged) -> NDArray[np.float64]:
    """Return float64[q]: how sure each answer is; of a count, how far off."""
    if judged.answers.head != "count":
        return judged.answers.probability[:, 0]
    truths = np.array([question.number or 0.0 for question in judged.answers.questions])
    return np.abs(judged.answers.best[:, 0] - truths)


def _spread(places: list[int], judged: Judged, most: int) -> list[int]:
    questions = judged.answers.questions
    firsts = set({questions[place].video_id: place for place in reversed(places)}.values())
    chosen = set(sorted(places, key=lambda place: place not in firsts)[:most])
    return [place for place in places if place in chosen]


def case(judged: Judged, place: int, frames: Mapping[str, Thumbnails]) -> dict[str, Any]:
    """Return what the page shows of the answer at `place`."""
    question = judged.answers.questions[place]
    gone = Thumbnails(reason="The source video is not there any more.")
    clip, when = frames.get(question.video_id, gone), ""
    if clip.pictures:
        first, last = clip.pts_ms[0] / 1000, clip.pts_ms[-1] / 1000
        when = f", at {first:.1f} s"
        if last > first:
            when = f", frames from {first:.1f} s to {last:.1f} s"
    return {
        "place": place,
        "question": question,
        "clip": clip,
        "when": when,
        "right": judged.answers.right[place],
        "unknown": judged.answers.rank[place] == NO_RANK,
        "answers": judged.answers.texts(place),
    }
