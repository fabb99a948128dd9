"""Tables of the evaluation's page: the model beside its baselines, parts, confusion."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from framebank.train.evaluation.report_text import bar, error, percent, points, safe, short, span

LABELS = {
    "order_blind": ("order-blind", "trained alike, but sees only the mean of the frames"),
    "question_only": ("question only", "trained alike, but sees no video at all"),
    "majority_per_question": ("majority per question", "the commonest answer to the same question"),
    "majority_per_word": ("majority per question word", "the commonest answer to what, who, how …"),
    "majority": ("majority", "always the commonest answer"),
}
_PARTS = {
    "by_type": ("By type of question", "type"),
    "by_question_length": ("By length of question", "words"),
    "by_video_length": ("By length of video", "seconds"),
}
_MOST_PARTS = 20
_NAME = 40  # characters that are shown of an answer or a type


def scores(figures: Mapping[str, Any]) -> str:
    """Return the model's figure beside those of its baselines, as bars with their intervals."""
    beside = figures["baselines"]
    rows = [("this model", "sees question and frames", figures)]
    rows += [(*label, beside[name]) for name, label in LABELS.items() if name in beside]
    title, text, end = "Right answers", "Bars run from 0 to 100 %", 1.0
    if figures["head"] == "count":
        title, text = "Mean square error", "The lower the better; bars begin at 0"
        end = max(score["mean_square_error_interval"][1] for _, _, score in rows) or 1.0
    lines = "".join(_score_row(label, about, score, end=end) for label, about, score in rows)
    note = "" if beside else "<p>No baseline stands beside the model.</p>"
    return (
        f"<section><h2>{title}</h2><p class=soft>{text}; the whisker is the interval that 95 % of "
        f"2000 draws of videos fall into.</p><table class=scores><tbody>{lines}</tbody></table>"
        f"{note}{_tiles(figures)}</section>"
    )


def _score_row(label: str, about: str, score: Mapping[str, Any], *, end: float) -> str:
    value, interval = score["accuracy"], score["interval"]
    shown, small = percent(value), span(interval)
    if "mean_square_error" in score:
        value, interval = score["mean_square_error"], score["mean_square_error_interval"]
        shown, small = error(value), f"{error(interval[0])} to {error(interval[1])}"
        about = f"{about}; exactly right on {percent(score['accuracy'])}"
    ahead = f"<small>the model is {points(score['ahead'])}</small>" if "ahead" in score else ""
    return (
        f"<tr{'' if ahead else ' class=ours'}><th scope=row>{safe(label)}"
        f"<small>{safe(about)}</small></th>"
        f"<td class=bars>{bar(value / end, [edge / end for edge in interval])}{ahead}</td>"
        f"<td class=number><b>{shown}</b><small>{small}</small></td></tr>"
    )


def _tiles(figures: Mapping[str, Any]) -> str:
    if figures["head"] == "count":
        return ""  # a count is a number, not a share of each answer
    top5 = figures["top5"]
    recall = figures["recall_among_distractors"]
    outside = figures["outside_vocabulary"]
    tiles = [
        (
            "The truth is among the five likeliest answers",
            percent(top5["accuracy"]),
            span(top5["interval"]),
        ),
        (
            f"Expected calibration error of {figures['judged']} answers",
            percent(figures["calibration"]["expected_error"]),
            "0 % would be a model that is as sure as it is right",
        ),
        (
            f"The truth is among the 5 likeliest of itself and {figures['distractors']} drawn "
            "answers",
            percent(recall["5"]),
            f"recall at 1: {percent(recall['1'])}, at 10: {percent(recall['10'])}",
        ),
        (
            "True answers that the model cannot give",
            percent(outside / figures["judged"]),
            f"counted as wrong, not in its vocabulary: {outside}",
        ),
    ]
    shown = "".join(
        f"<div class=card><dt>{safe(name)}</dt><dd><b>{value}</b><small>{safe(more)}</small></dd>"
        "</div>"
        for name, value, more in tiles
    )
    return f"<dl class=tiles>{shown}</dl>"


def parts(figures: Mapping[str, Any]) -> str:
    """Return a table each by type, by length of question and by length of video."""
    tables = "".join(
        _part_table(title, unit, figures[name]) for name, (title, unit) in _PARTS.items()
    )
    return f"<section><h2>Where it is right</h2><div class=grid>{tables}</div></section>"


def _part_table(title: str, unit: str, scores: Mapping[str, Any]) -> str:
    rows = "".join(
        f"<tr><th scope=row>{short(part, _NAME)}</th><td class=number>{score['judged']}</td>"
        f"<td class=number>{percent(score['accuracy'])}"
        f"<small>{span(score['interval'])}</small></td></tr>"
        for part, score in list(scores.items())[:_MOST_PARTS]
    )
    left = len(scores) - _MOST_PARTS
    more = f"<p class=soft>{left} smaller ones are in evaluation.json.</p>" if left > 0 else ""
    return (
        f"<figure><h3>{title}</h3><div class=scroll><table class=figures><thead><tr>"
        f"<th scope=col>{unit}</th><th scope=col class=number>asked</th>"
        f"<th scope=col class=number>right</th></tr></thead><tbody>{rows}</tbody></table></div>"
        f"{more}</figure>"
    )


def confusion(table: Mapping[str, Any]) -> str:
    """Return what was answered where the truth is one of the commonest answers."""
    names = table["answers"]
    head = "".join(f"<th scope=col>{short(name, _NAME)}</th>" for name in (*names, "any other"))
    rows = []
    for place, (name, counts) in enumerate(zip(names, table["rows"], strict=True)):
        total = max(sum(counts), 1)
        cells = "".join(
            f'<td class="{"hit" if column == place else "none" if not count else ""}" '
            f'style="background:color-mix(in srgb, var(--mark) {50 * count / total:.0f}%, '
            f'transparent)">{count}</td>'
            for column, count in enumerate(counts)
        )
        rows.append(f"<tr><th scope=row>{short(name, _NAME)}</th>{cells}</tr>")
    return (
        "<section><h2>What is taken for what</h2><p>A line for each of the commonest true answers: "
        "how often which answer was given to it. Framed is what is right.</p>"
        "<figure><div class=scroll tabindex=0 role=region aria-label='Confusion table'>"
        f"<table class=confusion><thead><tr><td></td>{head}</tr></thead>"
        f"<tbody>{''.join(rows)}</tbody></table></div></figure></section>"
    )
