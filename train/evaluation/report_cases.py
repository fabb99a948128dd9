"""Cases of the evaluation's page: the surest right and wrong answers with frames of their clips."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from framebank.train.evaluation.answers import NO_RANK
from framebank.train.evaluation.evaluating import Judged
from framebank.train.evaluation.report_frames import Thumbnails
from framebank.train.evaluation.report_text import bar, safe, short

_QUESTION, _ANSWER = 300, 60  # characters that are shown

_TITLES = (
    ("Best cases: right and sure", "The answers that it was surest of, of those that are right."),
    ("Worst cases: wrong and sure", "The answers that it was surest of, of those that are wrong."),
)
_COUNT_TITLES = (
    ("Best cases: exactly right", "Counts that are the true ones."),
    ("Worst cases: far off", "Counts that are the farthest from the true ones."),
)


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
    truths = np.array([question.number or 0.0 for question in judged.questions])
    return np.abs(judged.answers.best[:, 0] - truths)


def _spread(places: list[int], judged: Judged, most: int) -> list[int]:
    first: dict[str, int] = {}
    for place in places:
        first.setdefault(judged.questions[place].video_id, place)
    ones = set(first.values())
    more = [place for place in places if place not in ones]
    chosen = set([*first.values(), *more][:most])
    return [place for place in places if place in chosen]


def cases(
    judged: Judged, chosen: tuple[list[int], list[int]], frames: Mapping[str, Thumbnails]
) -> str:
    """Return the sections of best and worst cases; `frames` are by video_id."""
    sections = []
    titles = _COUNT_TITLES if judged.answers.head == "count" else _TITLES
    for (title, text), places in zip(titles, chosen, strict=True):
        if places:
            shown = "".join(_case(judged, place, frames) for place in places)
            sections.append(
                f"<section><h2>{title}</h2><p>{text}</p><div class=cases>{shown}</div></section>"
            )
    return "".join(sections)


def _case(judged: Judged, place: int, frames: Mapping[str, Thumbnails]) -> str:
    question = judged.questions[place]
    right = judged.answers.right[place]
    unknown = (
        " (not among the answers it can give)" if judged.answers.rank[place] == NO_RANK else ""
    )
    counted = judged.answers.head == "count"
    if counted:
        unknown = f"; it counted <b>{safe(judged.answers.texts(place)[0][0])}</b>"
    answers = "".join(
        f"<li{' class=truth' if answer == question.answer else ''}>"
        f"<span>{short(answer, _ANSWER)}</span>"
        f"{bar(probability)}<span class=number>{probability:.0%}</span></li>"
        for answer, probability in ([] if counted else judged.answers.texts(place))
    )
    verdict, mark = ("right", "✓ right") if right else ("wrong", "✗ wrong")
    return (
        f"<article class='card case'>{_frames(question.video_id, frames.get(question.video_id))}"
        f"<h3>{short(question.question, _QUESTION)}</h3><p class={verdict}>"
        f"<strong>{mark}</strong>: the truth is <b>{short(question.answer, _QUESTION)}</b>{unknown}"
        f"</p><ul class=answers>{answers}</ul></article>"
    )


def _frames(video_id: str, clip: Thumbnails | None) -> str:
    name = f"<p class=soft>{short(video_id, _QUESTION)}"
    if clip is None or not clip.pictures:
        reason = clip.reason if clip else "The source video is not there any more."
        return f"<p class=gone>{short(reason, _QUESTION)}</p>{name}</p>"
    width, height = clip.size
    pictures = "".join(
        f'<img src="{picture}" width={width} height={height} '
        f'alt="Frame at {pts_ms / 1000:.1f} s of {safe(video_id)}">'
        for picture, pts_ms in zip(clip.pictures, clip.pts_ms, strict=True)
    )
    first, last = clip.pts_ms[0] / 1000, clip.pts_ms[-1] / 1000
    when = f"frames from {first:.1f} s to {last:.1f} s" if last > first else f"at {first:.1f} s"
    return f"<div class=frames>{pictures}</div>{name}, {when}</p>"
