"""The page of an evaluation: one report.html that opens without a network.

Styles, plots and pictures are inside the file; its content security policy forbids it to ask for
anything else, and it runs no script.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from framebank.features.browsing.thumbnails import Thumbnails, make_thumbnails
from framebank.features.pages.page import calibration_plot, render, training_plots
from framebank.features.stores import storage
from framebank.train.evaluation.answers import NO_RANK
from framebank.train.evaluation.evaluating import Judged
from framebank.train.judging.baselines import read_rows

if TYPE_CHECKING:
    from framebank.features.cache.reader import Cache

_TEMPLATE = Path(__file__).with_name("report.html.j2")
_LABELS = {
    "order_blind": ("order-blind", "trained alike, but sees only the mean of the frames"),
    "question_only": ("question only", "trained alike, but sees no video at all"),
    "probe": ("probe", "a closed formula of how the frames are and change"),
    "probe_blind": ("probe, order-blind", "a closed formula of the frames in any order"),
    "majority_per_question": ("majority per question", "the commonest answer to the same question"),
    "majority_per_word": ("majority per question word", "the commonest answer to what, who, how …"),
    "majority": ("majority", "always the commonest answer"),
}
_PARTS = {
    "by_type": ("By type of question", "type"),
    "by_question_length": ("By length of question", "words"),
    "by_video_length": ("By length of video", "seconds"),
}
_CASES = (
    ("Best cases: right and sure", "The answers that it was surest of, of those that are right."),
    ("Worst cases: wrong and sure", "The answers that it was surest of, of those that are wrong."),
)
_COUNT_CASES = (
    ("Best cases: exactly right", "Counts that are the true ones."),
    ("Worst cases: far off", "Counts that are the farthest from the true ones."),
)


def write_report(
    out: Path,
    judged: Judged,
    cache: Cache,
    *,
    model_dir: str,
    examples: int,
    say: Callable[[str], None] | None = None,
) -> Path:
    """Write `out`/report.html; `examples` clips each are shown of the best and the worst."""
    chosen = choose_cases(judged, examples)
    shown = {judged.answers.questions[place].video_id for its in chosen for place in its}
    frames = make_thumbnails(cache, shown, say=say)
    figures, history = judged.figures, read_rows(storage.join(model_dir, "history.jsonl"))
    counts = figures["head"] == "count"
    on = "in validation"
    if figures["epoch_chosen_on"] == "train":
        on = "to training questions (none was kept back)"
    cases = zip(_COUNT_CASES if counts else _CASES, chosen, strict=True)
    text = render(
        _TEMPLATE,
        name=figures["model"].rstrip("/").rpartition("/")[2] or figures["model"],
        verdict=verdict(figures),
        figures=figures,
        counts=counts,
        scores=list(_score_rows(figures, counts=counts)),
        tables=[(title, unit, figures[name]) for name, (title, unit) in _PARTS.items()],
        calibration="calibration" in figures and calibration_plot(figures["calibration"]["bins"]),
        curves=training_plots(history, right=f"Right answers {on}, by epoch"),
        history=history,
        sections=[(*told, [_case(judged, place, frames) for place in its]) for told, its in cases],
        about=list(about(figures)),
        percent=percent,
        span=span,
        many=many,
        name_pair=name_pair,
    )
    page = out / "report.html"
    storage.write_atomic(str(page), text.encode("utf-8", "backslashreplace"))
    return page


def summary(figures: Mapping[str, Any]) -> list[str]:
    """Return the lines that are printed: the model, what stands beside it, and leaks."""
    measure, value = _measured(figures)
    lines = [
        f"{measure} {value} on {many(figures['judged'], 'question')} about "
        f"{many(figures['videos'], 'video')} of {figures['split']}"
    ]
    for name, score in figures["baselines"].items():
        lines.append(f"  {name.replace('_', ' '):<24}{_measured(score)[1]}")
        if score["ahead"]["interval"][1] < 0:
            lines.append(f"WARNING: {name} answers better: the model is {_points(score['ahead'])}")
    if "vqa_accuracy" in figures:
        for kind, score in figures["by_type"].items():
            lines.append(f"  of {kind}: {_measured(score)[1]}")
    if careful := caution(figures):
        lines.append(f"NOTE: {careful}")
    if figures["flatters"]:
        lines.append(f"WARNING: {figures['flatters']}")
    leaks = len(figures["leaks"]["pairs"])
    if leaks:
        lines.append(
            f"WARNING: {leaks} pairs of videos on two sides of a split are the same or nearly"
        )
    return lines


def _measured(score: Mapping[str, Any]) -> tuple[str, str]:
    if "mean_square_error" in score:
        return "mean square error", square_error(score)
    if "vqa_accuracy" in score:
        return "VQA accuracy", (
            f"{score['vqa_accuracy']:.1%} ({span(score['vqa_accuracy_interval'])})"
        )
    return "accuracy", f"{score['accuracy']:.1%} ({span(score['interval'])})"


def verdict(figures: Mapping[str, Any]) -> str:
    """Say in one or two sentences how good the model is, and whether it beats its baselines."""
    text = (
        f"Right on {percent(figures['accuracy'])} ({span(figures['interval'])}) of "
        f"{many(figures['judged'], 'question')} about {many(figures['videos'], 'video')} of the "
        f"split {figures['split']}."
    )
    if figures["head"] == "count":
        text = f"Mean square error {square_error(figures)}, the lower the better. {text}"
    if "vqa_accuracy" in figures:
        text = f"VQA accuracy {_measured(figures)[1]}. {text}"
    beside = figures["baselines"]
    if careful := caution(figures):
        text = f"{text} {careful}"
    if not beside:
        return f"{text} Nothing stands beside it that would say whether this is much."
    if figures["videos"] < 2:
        return text
    if worse := [name for name in beside if beside[name]["ahead"]["interval"][1] < 0]:
        behind = (f"{_LABELS[name][0]}: {_points(beside[name]['ahead'])}" for name in worse)
        return f"{text} Worse than {'; '.join(behind)}."
    hardest = min(beside, key=lambda name: beside[name]["ahead"]["interval"][0])
    ahead = beside[hardest]["ahead"]
    label = _LABELS[hardest][0]
    if ahead["interval"][0] > 0:
        return f"{text} Better than every baseline: {_points(ahead)} of {label}."
    return f"{text} Not surely better than {label}: {_points(ahead)}."


def caution(figures: Mapping[str, Any]) -> str:
    """Return what an interval over videos cannot tell here; "" where it can."""
    videos = figures["videos"]
    if videos < 2:
        return "All are about one video, so no interval says how sure that is."
    if figures["correct"] in (0, figures["judged"]) and figures["head"] != "count":
        chance = 1 - 0.05 ** (1 / videos)
        return (
            f"All draws of videos are alike, so the interval says nothing; with {videos} videos "
            f"the true figure may be {100 * chance:.1f} points away."
        )
    return ""


def percent(share: float) -> str:
    return f"{share:.1%}"


def span(interval: Sequence[float]) -> str:
    """Return "41.0% to 53.2%"."""
    low, high = interval
    return f"{low:.1%} to {high:.1%}"


def square_error(score: Mapping[str, Any]) -> str:
    low, high = score["mean_square_error_interval"]
    return f"{_error(score['mean_square_error'])} ({_error(low)} to {_error(high)})"


def many(count: int, noun: str) -> str:
    return f"{count} {noun}" if count == 1 else f"{count} {noun}s"


def _error(value: float) -> str:
    """Return a square error; one of seven places or more in powers of ten, lest the page widens."""
    return f"{value:.2f}" if abs(value) < 1e6 else f"{value:.2e}"


def _points(ahead: Mapping[str, Any]) -> str:
    """Return a difference with its interval: "12.1 points (5.0 to 19.3) ahead"."""
    difference, (low, high) = ahead["difference"], ahead["interval"]
    where = "behind" if difference < 0 else "ahead"
    if difference < 0:
        low, high = -high, -low
    if ahead["measure"] == "mean square error":
        between = f"({_error(low)} to {_error(high)})".replace("-", "−")
        return f"{_error(abs(difference))} {between} of mean square error {where}"
    between = f"({100 * low:.1f} to {100 * high:.1f})".replace("-", "−")
    return f"{100 * abs(difference):.1f} points {between} {where}"


def _score_rows(figures: Mapping[str, Any], *, counts: bool) -> Iterator[dict[str, Any]]:
    """Yield what the kit's `score_row` takes, of the model and of each baseline."""
    beside = figures["baselines"]
    rows = [("this model", "sees question and frames", figures)]
    rows += [(*label, beside[name]) for name, label in _LABELS.items() if name in beside]
    measure, edges, end = "accuracy", "interval", 1.0
    if counts:
        measure, edges = "mean_square_error", "mean_square_error_interval"
        end = max(score[edges][1] for _, _, score in rows) or 1.0
    elif "vqa_accuracy" in figures:
        measure, edges = "vqa_accuracy", "vqa_accuracy_interval"
    for label, about, score in rows:
        low, high = score[edges]
        yield {
            "label": label,
            "about": f"{about}; exactly right on {percent(score['accuracy'])}" if counts else about,
            "share": score[measure] / end,
            "interval": (low / end, high / end),
            "number": _error(score[measure]) if counts else percent(score[measure]),
            "below": f"{_error(low)} to {_error(high)}" if counts else span((low, high)),
            "ours": "ahead" not in score,
            "ahead": f"the model is {_points(score['ahead'])}" if "ahead" in score else "",
        }


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


def _case(judged: Judged, place: int, frames: Mapping[str, Thumbnails]) -> dict[str, Any]:
    question = judged.answers.questions[place]
    gone = Thumbnails(reason="The source video is not there any more.")
    clip, when = frames.get(question.video_id, gone), ""
    if clip.pictures:
        first, last = clip.pts_ms[0] / 1000, clip.pts_ms[-1] / 1000
        when = f", at {first:.1f} s"
        if last > first:
            when = f", frames from {first:.1f} s to {last:.1f} s"
    return {
        "question": question,
        "clip": clip,
        "when": when,
        "right": judged.answers.right[place],
        "unknown": judged.answers.rank[place] == NO_RANK,
        "answers": judged.answers.texts(place),
    }


def name_pair(pair: Mapping[str, Any]) -> str:
    """Return two videos that are alike, and why they are thought so, in words."""
    one, other = (
        f"{video} ({split})" for video, split in zip(pair["videos"], pair["splits"], strict=True)
    )
    sure = f" (cosine {pair['cosine']:.4f})" if "cosine" in pair else ""
    return f"{one} and {other}: {pair['why']}{sure}"


def about(figures: Mapping[str, Any]) -> Iterator[str]:
    """Yield what was judged, a line each."""
    yield f"model: {figures['model']}"
    files = zip(figures["questions_files"], figures["questions_sha256"], strict=False)
    for path, digest in files:
        yield f"questions: {path} (sha256 {digest[:16]}…)"
    yield f"weights of the image network: {figures['weights']}"
    yield from figures["notes"]
