"""The page of a model that finds segments: figures, and time lines of what is true and was found.

It is `train.evaluation.report`'s page with other figures. A long video is drawn in strips of five
minutes, each under thumbnails of its frames; where the source is gone, ticks stand for the frames
that the network saw.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from framebank.features.asking.detection import Segment, right_of
from framebank.features.browsing.thumbnails import FRAMES, Thumbnails, make_thumbnails
from framebank.features.pages.page import render, training_plots
from framebank.features.questions.question import Question
from framebank.features.stores import storage
from framebank.train.data.windows import Timeline
from framebank.train.evaluation.about import first_facts, many, name_model
from framebank.train.evaluation.evaluating import Detected
from framebank.train.evaluation.report import (
    PAIRS,
    about,
    name_pair,
    percent,
    pictured_leaks,
    span,
)
from framebank.train.judging.baselines import read_rows
from framebank.train.judging.detections import LABELS, figure_lines, leading, true_segments

if TYPE_CHECKING:
    from framebank.features.cache.reader import Cache

_TEMPLATE = Path(__file__).with_name("segments.html.j2")
_STRIP_S = 300.0
_STRIPS = 12  # of one video
_TICKS = 200  # frames of a strip that are drawn
_OVERLAP = 0.5
_LEGEND = 24
_NICE_S = (1, 2, 5, 10, 15, 30, 60, 120)
_TEXTS = {
    "order_blind": "trained alike, but sees each row by itself",
    "probe": "a closed formula of a row, those around it and how they change",
    "probe_blind": "a closed formula of each row by itself",
    "majority": "every class over the whole of each video, by how common it is",
}


@dataclasses.dataclass(frozen=True)
class Guess:
    """A segment that was found and is drawn, and whether it is right at an overlap of 0.5."""

    segment: Segment
    right: bool


def write_segment_page(
    out: Path,
    detected: Detected,
    cache: Cache,
    *,
    model_dir: str,
    examples: int,
    say: Callable[[str], None] | None = None,
) -> Path:
    """Write `out`/report.html with the time lines of up to `examples` videos, half of them the
    worst and half the best."""
    figures = detected.figures
    cut, guesses = choose_cut(detected)
    shown = choose_videos(detected, guesses, examples)
    names = {detected.questions[place].video_id for place in shown}
    leaks = pictured_leaks(figures["leaks"], examples)
    frames = make_thumbnails(cache, leaks - names, say=say)
    frames |= make_thumbnails(cache, names, say=say, most=2 * FRAMES * _STRIPS)
    history = read_rows(storage.join(model_dir, "history.jsonl"))
    labels = sorted({one.label for one in true_segments(detected.questions)} |
                    {guess.segment.label for its in guesses for guess in its})  # fmt: skip
    hues = {label: round(number * 137.5) % 360 for number, label in enumerate(labels)}
    right = sum(guess.right for its in guesses for guess in its)
    text = render(
        _TEMPLATE,
        name=name_model(figures),
        facts=list(first_facts(figures)),
        verdict=verdict(figures),
        led=_lead_remark(figures),
        figures=figures,
        rows=list(_score_rows(figures)),
        cut=cut,
        precision=right / max(sum(map(len, guesses)), 1),
        recall=right / max(len(true_segments(detected.questions)), 1),
        curves=training_plots(history, right="Right rows in validation, by epoch"),
        history=history,
        calibration=None,
        legend=[(label, hues[label]) for label in labels[:_LEGEND]],
        unnamed=max(len(labels) - _LEGEND, 0),
        videos=[
            _draw(detected, place, guesses[place], frames, hues) for place in shown
        ],
        left_out=len(detected.questions) - len(shown),
        about=list(about(figures)),
        frames=frames,
        pictured=min(examples, PAIRS),
        percent=percent,
        span=span,
        many=many,
        name_pair=name_pair,
    )  # fmt: skip
    page = out / "report.html"
    storage.write_atomic(str(page), text.encode("utf-8", "backslashreplace"))
    return page


def segment_summary(figures: Mapping[str, Any]) -> list[str]:
    """Return the lines that are printed."""
    lines = [verdict(figures), *figure_lines(figures)]
    for name in leading(figures["baselines"]):
        lines.append(f"WARNING: {LABELS.get(name, name)} finds more than the model")
    if figures["flatters"]:
        lines.append(f"WARNING: {figures['flatters']}")
    if leaks := len(figures["leaks"]["pairs"]):
        lines.append(
            f"WARNING: {leaks} pairs of videos on two sides of a split are the same or nearly"
        )
    return lines


def verdict(figures: Mapping[str, Any]) -> str:
    """Say how much is found, and whether that is more than what is compared with it."""
    text = (
        f"Average mAP {percent(figures['average_map'])} ({span(figures['interval'])}), at an "
        f"overlap of a half {percent(figures['map']['0.50'])}, on "
        f"{many(figures['videos'], 'video')} of the split {figures['split']}."
    )
    if figures["videos"] < 2:
        return f"{text} It is one video, so no interval says how certain that is."
    beside = figures["baselines"]
    if not beside:
        return f"{text} There is no baseline to compare it with."
    hardest = min(beside, key=lambda name: beside[name]["ahead"]["interval"][0])
    low, high = beside[hardest]["ahead"]["interval"]
    label = LABELS.get(hardest, hardest)
    if low > 0:
        return f"{text} Better than every baseline."
    return f"{text} {'Worse' if high < 0 else 'Not better'} than {label}, with 95 % confidence."


def _lead_remark(figures: Mapping[str, Any]) -> str:
    leads = leading(figures["baselines"])
    if not leads:
        return ""
    name = max(leads, key=lambda name: leads[name][0])
    told = f"{LABELS.get(name, name)} ({_TEXTS[name]}) finds more"
    return f"{told}, by {100 * leads[name][0]:.1f} points: the model is not worth its training."


def choose_cut(detected: Detected) -> tuple[float, list[list[Guess]]]:
    """Return the score from which on segments are drawn, that of the best F1 at an overlap of 0.5,
    and by video those segments."""
    truth = true_segments(detected.questions)
    pairs = zip(detected.questions, detected.found, strict=True)
    found = [Segment(q.video_id, *one) for q, its in pairs for one in its.segments]
    ranked: list[Guess] = []
    for label in sorted({segment.label for segment in found}):
        its = sorted((one for one in found if one.label == label), key=lambda one: -one.score)
        right = right_of([one for one in truth if one.label == label], its, [_OVERLAP])[0]
        ranked += [Guess(one, bool(hit)) for one, hit in zip(its, right, strict=True)]
    ranked.sort(key=lambda guess: -guess.segment.score)
    hits = np.cumsum([guess.right for guess in ranked])
    score = 2 * hits / (np.arange(1, len(ranked) + 1) + len(truth))
    count = int(score.argmax()) + 1 if len(ranked) else 0
    by_video: dict[str, list[Guess]] = {q.video_id: [] for q in detected.questions}
    for guess in ranked[:count]:
        by_video[guess.segment.video_id].append(guess)
    cut = ranked[count - 1].segment.score if count else 1.0
    return cut, list(by_video.values())


def choose_videos(
    detected: Detected, guesses: Sequence[Sequence[Guess]], most: int
) -> list[int]:  # fmt: skip
    """Return the places of up to `most` videos, half the worst, half the best, worst first."""

    def quality(place: int) -> float:
        its, true = guesses[place], len(detected.questions[place].segments)
        return 2 * sum(guess.right for guess in its) / max(len(its) + true, 1)

    order = sorted(range(len(guesses)), key=lambda place: (quality(place), place))
    if len(order) <= most:
        return order
    return order[: most // 2] + order[len(order) - -(-most // 2) :]


def _draw(
    detected: Detected,
    place: int,
    guesses: Sequence[Guess],
    frames: Mapping[str, Thumbnails],
    hues: Mapping[str, int],
) -> dict[str, Any]:
    question, times = detected.questions[place], detected.times[place]
    gone = Thumbnails(reason="The source video is not there any more.")
    clip = frames.get(question.video_id, gone)
    edges = times.edges_s
    length_s = float(max([edges[-1], *(end for _, end, _ in question.segments)]))
    bounds = np.arange(0, length_s, _STRIP_S).tolist()
    if len(bounds) > 1 and length_s - bounds[-1] < _STRIP_S / 10:
        bounds.pop()  # no sliver of its own
    spans = list(zip(bounds, [*bounds[1:], length_s], strict=True))
    strips = [_strip(question, times, guesses, clip, hues, span=its) for its in spans[:_STRIPS]]
    right = sum(guess.right for guess in guesses)
    rows = sorted((*_told(question, guesses),), key=lambda row: (row["start_s"], row["what"]))
    return {
        "video_id": question.video_id,
        "clip": clip,
        "strips": strips,
        "left_out": len(spans) - len(strips),
        "said": f"{len(question.segments)} true, {len(guesses)} found, {right} of these right",
        "labels": detected.found[place].labels[:3],
        "rows": rows[:100],
        "more": max(len(rows) - 100, 0),
    }


def _told(question: Question, guesses: Sequence[Guess]) -> Iterator[dict[str, Any]]:
    for start_s, end_s, label in question.segments:
        yield {"what": "true", "label": label, "start_s": start_s, "end_s": end_s}
    for guess in guesses:
        its = guess.segment
        yield {
            "what": f"found, {'right' if guess.right else 'wrong'}, score {its.score:.2f}",
            "label": its.label,
            "start_s": its.start_s,
            "end_s": its.end_s,
        }


def _strip(
    question: Question,
    times: Timeline,
    guesses: Sequence[Guess],
    clip: Thumbnails,
    hues: Mapping[str, int],
    *,
    span: tuple[float, float],
) -> dict[str, Any]:
    """Return what is drawn of a `span` of seconds; places are shares of it."""
    start, length_s = span[0], span[1] - span[0]

    def bar(start_s: float, end_s: float, label: str, words: str) -> dict[str, Any] | None:
        left, right = ((at - start) / length_s for at in (start_s, end_s))
        left, right = max(left, 0.0), min(right, 1.0)
        if right <= left:
            return None
        title = f"{label}, {clock(start_s)} to {clock(end_s)}{words}"
        return {"left": left, "width": right - left, "hue": hues.get(label, 0), "title": title}

    true = [bar(*one, "") for one in question.segments]
    found = []
    for guess in guesses:
        its = guess.segment
        words = f", score {its.score:.2f}, {'right' if guess.right else 'wrong'}"
        if (drawn := bar(its.start_s, its.end_s, its.label, words)) is not None:
            found.append(drawn | {"right": guess.right})
    rows = (np.asarray(times.pts_ms) / 1000 - start) / length_s
    rows = rows[(rows >= 0) & (rows < 1)]
    step = next((s for s in _NICE_S if length_s / s <= 4), _NICE_S[-1])
    marks = np.arange(0, length_s, step)
    return {
        "from": clock(start),
        "to": clock(start + length_s),
        "true": [one for one in true if one is not None],
        "found": found,
        "rows": rows[:: max(-(-len(rows) // _TICKS), 1)].tolist(),
        "marks": [(at / length_s, clock(start + at)) for at in marks.tolist()],
        "pictures": _pictures(clip, start, length_s),
    }


def _pictures(clip: Thumbnails, start: float, length_s: float) -> list[tuple[int, str, str]]:
    """Return thumbnails near to evenly spread times: their column (from 1), and their own time in
    words."""
    at = np.array(clip.pts_ms, np.float64) / 1000
    inside: NDArray[np.int64] = np.flatnonzero((at >= start) & (at < start + length_s))
    chosen: dict[int, int] = {}
    for column in range(FRAMES if len(inside) else 0):
        wanted = start + (column + 0.5) * length_s / FRAMES
        chosen.setdefault(int(inside[np.abs(at[inside] - wanted).argmin()]), column + 1)
    return [(column, clip.pictures[place], clock(at[place])) for place, column in chosen.items()]


def clock(seconds: float) -> str:
    """Return "0:07.5", "12:30" or "1:02:05"."""
    whole, tenth = divmod(round(max(seconds, 0.0) * 10), 10)
    hours, rest = divmod(whole, 3600)
    minutes = f"{rest // 60:02d}" if hours else str(rest // 60)
    text = (f"{hours}:" if hours else "") + f"{minutes}:{rest % 60:02d}"
    return f"{text}.{tenth}" if tenth else text


def _score_rows(figures: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    """Yield what the kit's `score_row` takes, of the model and of each baseline."""
    for name, its in {"this model": figures, **figures["baselines"]}.items():
        ahead = ""
        if "ahead" in its:
            difference, (low, high) = its["ahead"]["difference"], its["ahead"]["interval"]
            where = "behind" if difference < 0 else "ahead"
            between = f" ({100 * low:+.1f} to {100 * high:+.1f})" if low < high else ""
            ahead = f"the model is {100 * abs(difference):.1f} points{between} {where}"
        yield {
            "label": LABELS.get(name, name),
            "about": _TEXTS.get(name, "sees the rows in their order"),
            "share": its["average_map"],
            "interval": tuple(its["interval"]),
            "number": percent(its["average_map"]),
            "below": span(its["interval"]),
            "ours": name == "this model",
            "ahead": ahead,
        }
