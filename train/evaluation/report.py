"""The page of an evaluation: one report.html that opens without a network.

Styles, plots and pictures are inside the file; its content security policy forbids it to ask for
anything else, and it runs no script.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from framebank.features.browsing.thumbnails import make_thumbnails
from framebank.features.pages.page import calibration_plot, render, training_plots
from framebank.features.stores import storage
from framebank.train.evaluation.about import first_facts, many, name_model
from framebank.train.evaluation.cases import case, choose_cases, choose_mistakes
from framebank.train.evaluation.evaluating import Judged
from framebank.train.judging.baselines import read_rows

if TYPE_CHECKING:
    from framebank.features.cache.reader import Cache

PAIRS = 6  # of leaks, and of those alike, that are shown with pictures
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
_MISTAKES = ("Common mistakes", "An example of each that is listed above and not among the worst.")
_CASES = (
    ("Worst cases: wrong and confident", "Of the wrong answers those of the highest confidence."),
    _MISTAKES,
    ("Best cases: right and confident", "Of the right answers those of the highest confidence."),
)
_COUNT_CASES = (
    ("Worst cases: far off", "Counts that are the farthest from the true ones."),
    _MISTAKES,
    ("Best cases: exactly right", "Counts that are the true ones."),
)
_LEAD = {  # what it says of the model where one of these leads with 95 % confidence
    "order_blind": "the order of the frames is not what it answers by",
    "question_only": "it would answer as well without looking at a video",
    "probe": "a formula that takes seconds to fit is the better model here",
    "probe_blind": "a formula that takes seconds to fit, and sees no order, is the better model",
    "majority_per_question": "it has learnt less than the commonest answer to each question",
    "majority_per_word": "it has learnt less than the commonest answer to each kind of question",
    "majority": "it has learnt less than the commonest answer",
}


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
    right, wrong = choose_cases(judged, examples)
    kinds, others = choose_mistakes(judged, examples, shown=wrong)
    chosen = (wrong, others, right)
    shown = {judged.answers.questions[place].video_id for its in chosen for place in its}
    leaks = pictured_leaks(judged.figures["leaks"], examples)
    frames = make_thumbnails(cache, shown | leaks, say=say)
    figures, history = judged.figures, read_rows(storage.join(model_dir, "history.jsonl"))
    counts = figures["head"] == "count"
    on = "in validation"
    if figures["epoch_chosen_on"] == "train":
        on = "to training questions (none was kept back)"
    cases = zip(_COUNT_CASES if counts else _CASES, chosen, strict=True)
    text = render(
        _TEMPLATE,
        name=name_model(figures),
        facts=list(first_facts(figures)),
        verdict=verdict(figures),
        led=lead_remark(figures),
        figures=figures,
        counts=counts,
        scores=list(_score_rows(figures, counts=counts)),
        tables=[(title, unit, figures[name]) for name, (title, unit) in _PARTS.items()],
        calibration="calibration" in figures and calibration_plot(figures["calibration"]["bins"]),
        curves=training_plots(history, right=f"Right answers {on}, by epoch"),
        history=history,
        kinds=kinds,
        sections=[(*told, [case(judged, place, frames) for place in its]) for told, its in cases],
        about=list(about(figures)),
        frames=frames,
        pictured=min(examples, PAIRS),
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
        if name in leading(figures):
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
        return f"{text} There is no baseline to compare it with."
    if figures["videos"] < 2:
        return text
    if worse := leading(figures):
        behind = (f"{_LABELS[name][0]}: {_points(beside[name]['ahead'])}" for name in worse)
        return f"{text} Worse than {'; '.join(behind)}."
    hardest = min(beside, key=lambda name: beside[name]["ahead"]["interval"][0])
    ahead = beside[hardest]["ahead"]
    label = _LABELS[hardest][0]
    if ahead["interval"][0] > 0:
        return f"{text} Better than every baseline: {_points(ahead)} of {label}."
    return f"{text} Not better than {label} with 95 % confidence: {_points(ahead)}."


def leading(figures: Mapping[str, Any]) -> list[str]:
    """Return the baselines that answer better than the model with 95 % confidence."""
    beside = figures["baselines"]
    return [name for name in beside if beside[name]["ahead"]["interval"][1] < 0]


def lead_remark(figures: Mapping[str, Any]) -> str:
    """Return what it says of the model that a baseline leads, that by the most of several; "" where
    none does."""
    beside, names = figures["baselines"], leading(figures)
    if not names:
        return ""
    first, *others = sorted(names, key=lambda name: beside[name]["ahead"]["difference"])
    label, about = _LABELS[first]
    also = f" Also ahead: {'; '.join(_LABELS[name][0] for name in others)}." if others else ""
    behind = _points(beside[first]["ahead"])
    return f"{label} ({about}) answers better, the model is {behind}: {_LEAD[first]}.{also}"


def caution(figures: Mapping[str, Any]) -> str:
    """Return what an interval over videos cannot tell here; "" where it can."""
    videos = figures["videos"]
    if videos < 2:
        return "All are about one video, so no interval says how certain that is."
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


def name_pair(pair: Mapping[str, Any]) -> str:
    """Return two videos that are alike, and why they are thought so, in words."""
    one, other = (
        f"{video} ({split})" for video, split in zip(pair["videos"], pair["splits"], strict=True)
    )
    sure = f" (cosine {pair['cosine']:.4f})" if "cosine" in pair else ""
    return f"{one} and {other}: {pair['why']}{sure}"


def pictured_leaks(leaks: Mapping[str, Any], most: int) -> set[str]:
    """Return the videos of the pairs that are alike which the page shows with pictures."""
    pairs = [pair for name in ("pairs", "alike") for pair in leaks[name][: min(most, PAIRS)]]
    return {video for pair in pairs for video in pair["videos"]}


def about(figures: Mapping[str, Any]) -> Iterator[str]:
    """Yield what was judged, a line each."""
    yield f"model: {figures['model']}"
    yield f"cache: {figures['made']['cache']}"
    files = zip(figures["questions_files"], figures["questions_sha256"], strict=False)
    for path, digest in files:
        yield f"questions: {path} (sha256 {digest[:16]}…)"
    yield f"weights of the image network: {figures['weights']}"
    yield from figures["notes"]
