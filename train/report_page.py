"""The page of an evaluation: one report.html that opens without a network.

Styles, plots and pictures are inside the file; it asks for nothing else.
"""

from __future__ import annotations

import html
import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from features import storage
from train.demo_figures import Curve, line_chart
from train.demo_style import STYLE
from train.evaluating import Judged
from train.report_plot import calibration_plot
from train.report_strips import make_strips

if TYPE_CHECKING:
    from features.cache import Cache

_LABELS = {
    "order_blind": ("order-blind", "sees the mean of the frames"),
    "question_only": ("question only", "sees no video at all"),
    "majority_per_question": ("majority per question", "the commonest answer to the same question"),
    "majority_per_word": ("majority per question word", "the commonest answer to what, who, how …"),
    "majority": ("majority", "always the commonest answer"),
}
_MORE_STYLE = """
.figures { width:100%; font-size:.95rem; } .figures th, .figures td { padding:.35rem .4rem .35rem 0;
  border-top:1px solid var(--line); text-align:left; font-weight:400; vertical-align:top; }
.figures thead th { color:var(--soft); border-top:0; } .figures .number { text-align:right; }
.figures .range { color:var(--soft); font-size:.85rem; text-align:right; }
.tables { display:grid; grid-template-columns:repeat(auto-fit,minmax(min(100%,21rem),1fr));
  gap:1.25rem; } .tables figure { overflow-x:auto; }
.confusion td { text-align:right; font-variant-numeric:tabular-nums; }
.confusion { font-size:.85rem; border-collapse:separate; border-spacing:2px; }
.confusion th, .confusion td { padding:.3rem .5rem; font-weight:400; }
.confusion tbody th { text-align:right; } .confusion thead th { vertical-align:bottom; }
.confusion td { border-radius:4px; } .confusion .hit { outline:2px solid var(--mark); }
.cases { display:grid; grid-template-columns:repeat(auto-fit,minmax(min(100%,26rem),1fr));
  gap:1.25rem; } .case { background:var(--card); border:1px solid var(--line); border-radius:12px;
  padding:1.1rem; min-width:0; }
.gone { background:var(--track); color:var(--soft); border-radius:6px; padding:1.4rem 1rem;
  margin:0; text-align:center; font-size:.9rem; }
.scores small.range { white-space:nowrap; } .diagonal { stroke:var(--soft); stroke-dasharray:4 4; }
.spot { fill:var(--c0); } .case .facts { margin:.35rem 0; }
@media (max-width: 620px) { .scores .bar { display:none; } .scores th { width:auto; }
  .scores .number { width:6.5rem; } .chart text { font-size:18px; } }
"""


def write_report(out: Path, judged: Judged, cache: Cache, *, model_dir: str, examples: int) -> Path:
    """Write `out`/report.html; `examples` clips each are shown of the best and the worst."""
    cases = _cases(judged, examples)
    shown = {judged.questions[place].video_id for its in cases for place in its}
    strips = make_strips(cache, shown)
    page = out / "report.html"
    text = "".join(_page(judged, cases, strips, _history(model_dir)))
    storage.write_atomic(str(page), text.encode("utf-8", "backslashreplace"))
    return page


def _cases(judged: Judged, examples: int) -> tuple[list[int], list[int]]:
    """Return the surest right answers and the surest wrong ones, one of each video."""
    order = (-judged.answers.probability[:, 0]).argsort(kind="stable").tolist()
    found: tuple[list[int], list[int]] = ([], [])
    for right, its in ((True, found[0]), (False, found[1])):
        videos: set[str] = set()
        for place in order:
            video_id = judged.questions[place].video_id
            if (judged.answers.rank[place] == 0) == right and video_id not in videos:
                videos.add(video_id)
                its.append(place)
            if len(its) >= examples:
                break
        del its[examples:]
    return found


def _history(model_dir: str) -> list[dict[str, Any]]:
    try:
        text = storage.read_bytes(storage.join(model_dir, "history.jsonl")).decode()
    except storage.FileMissingError:
        return []
    return [json.loads(line) for line in text.splitlines()]


def _page(
    judged: Judged,
    cases: tuple[list[int], list[int]],
    strips: Mapping[str, str],
    history: Sequence[Mapping[str, Any]],
) -> Iterable[str]:
    figures = judged.figures
    yield (
        '<!doctype html><html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        '<meta name="color-scheme" content="light dark">'
        f"<title>Framebank evaluation</title><style>{STYLE}{_MORE_STYLE}</style></head><body><main>"
        f"<header><h1>Evaluation</h1><p class=lead>{figures['judged']} questions about "
        f"{figures['videos']} videos of the split {html.escape(figures['split'])}. Intervals are "
        "of 95 %, by drawing videos again and again.</p></header>"
    )
    if figures["random_weights"]:
        yield (
            '<p class="note" role="note"><strong>Random weights.</strong> The image network was '
            "never trained: the figures show that the path works, not what can be reached.</p>"
        )
    yield from (f"<p class=facts>{html.escape(note)}</p>" for note in figures["notes"])
    yield _scores(figures)
    yield _leaks(figures["leaks"])
    yield _parts(figures)
    yield _plots(figures, history)
    yield _confusion(figures["confusion"])
    titles = ("Best: right and sure", "Worst: wrong and sure")
    for title, its in zip(titles, cases, strict=True):
        if its:
            shown = "".join(_case(judged, place, strips) for place in its)
            yield f"<section><h2>{title}</h2><div class=cases>{shown}</div></section>"
    yield "</main></body></html>\n"


def _range(figures: Mapping[str, Any]) -> str:
    if "interval" not in figures:
        return ""
    low, high = figures["interval"]
    return f"{low:.1%} – {high:.1%}"


def _scores(figures: Mapping[str, Any]) -> str:
    rows: list[tuple[str, str, Mapping[str, Any], str]] = [
        ("this model", "sees question and frames", figures, "ours")
    ]
    rows += [
        (*label, figures["baselines"][name], "")
        for name, label in _LABELS.items()
        if name in figures["baselines"]
    ]
    lines = [
        f'<tr class="{kind}"><th scope=row>{label}<small>{text}</small></th>'
        f"<td>{_bar(score['accuracy'])}</td><td class=number>{score['accuracy']:.1%}"
        f"<small class=range>{_range(score)}</small></td></tr>"
        for label, text, score, kind in rows
    ]
    recall = ", ".join(
        f"{share:.1%} at {k}" for k, share in figures["recall_among_distractors"].items()
    )
    return (
        "<section><h2>Right answers</h2><table class=scores><tbody>"
        f"{''.join(lines)}</tbody></table><p>The truth is among the five likeliest answers to "
        f"{figures['top5']['accuracy']:.1%} ({_range(figures['top5'])}). Among 99 drawn "
        f"distractors (all other answers, where there are fewer) it is recalled: {recall}. "
        f"{figures['outside_vocabulary']} true answers are outside the vocabulary and count as "
        "wrong.</p></section>"
    )


def _bar(share: float) -> str:
    return f'<span class="bar" aria-hidden="true"><i style="width:{share:.1%}"></i></span>'


def _leaks(leaks: Sequence[Mapping[str, Any]]) -> str:
    if not leaks:
        text = "<p>No video, nor one with nearly equal features, stands on both sides.</p>"
    else:
        rows = "".join(
            "<li>" + html.escape(" and ".join(
                f"{video} ({split})"
                for video, split in zip(leak["videos"], leak["splits"], strict=True)
            ) + f": {leak['why']}") + "</li>"
            for leak in leaks[:20]
        )  # fmt: skip
        text = (
            f'<p class="note"><strong>{len(leaks)} pairs of videos stand on both sides of a split:'
            f"</strong> the figures flatter.</p><ul class=facts>{rows}</ul>"
        )
    return f"<section><h2>Leaks</h2>{text}</section>"


def _parts(figures: Mapping[str, Any]) -> str:
    tables = []
    for name, title in (
        ("by_type", "By type of question"),
        ("by_question_length", "By length of question"),
        ("by_video_length", "By length of video"),
    ):
        rows = "".join(
            f"<tr><th scope=row>{html.escape(part)}</th><td class=number>{score['judged']}</td>"
            f"<td class=number>{score['accuracy']:.1%}</td>"
            f"<td class=range>{_range(score)}</td></tr>"
            for part, score in list(figures[name].items())[:20]
        )
        tables.append(
            f"<figure><h3>{title}</h3><table class=figures><thead><tr><th></th>"
            "<th class=number>asked</th><th class=number>right</th><th class=range>95 %</th></tr>"
            f"</thead><tbody>{rows}</tbody></table></figure>"
        )
    return f"<section><h2>Where it is right</h2><div class=tables>{''.join(tables)}</div></section>"


def _plots(figures: Mapping[str, Any], history: Sequence[Mapping[str, Any]]) -> str:
    error = figures["calibration"]["expected_error"]
    parts = [
        f"<figure>{calibration_plot(figures['calibration']['bins'])}<figcaption>Calibration: share "
        f"of right answers by how sure the model was; expected calibration error {error:.1%}"
        "</figcaption></figure>"
    ]
    names = list(dict.fromkeys(row["model"] for row in history))[:3]
    for field, title, percent in (
        ("val_accuracy", "Right answers in validation", True),
        ("loss", "Loss in training", False),
    ):
        curves: dict[str, Curve] = {
            name.replace("_", " "): [
                (row["epoch"], row[field])
                for row in history
                if row["model"] == name and field in row
            ]
            for name in names
        }
        if chart := line_chart(curves, title=title, percent=percent):
            parts.append(f"<figure>{chart}<figcaption>{title}, by epoch</figcaption></figure>")
    return (
        f"<section><h2>Sureness and training</h2><div class=charts>{''.join(parts)}</div></section>"
    )


def _confusion(table: Mapping[str, Any]) -> str:
    names = table["answers"]
    head = "".join(f"<th scope=col>{html.escape(name)}</th>" for name in (*names, "other"))
    rows = []
    for place, (name, counts) in enumerate(zip(names, table["rows"], strict=True)):
        total = max(sum(counts), 1)
        cells = "".join(
            f'<td class="{"hit" if column == place else ""}" style="background:color-mix(in srgb, '
            f'var(--mark) {60 * count / total:.0f}%, transparent)">{count}</td>'
            for column, count in enumerate(counts)
        )
        rows.append(f"<tr><th scope=row>{html.escape(name)}</th>{cells}</tr>")
    return (
        "<section><h2>What is taken for what</h2><p>The commonest true answers, a line each, and "
        "what was answered.</p><div class=wide><table class=confusion><thead><tr><td></td>"
        f"{head}</tr></thead><tbody>{''.join(rows)}</tbody></table></div></section>"
    )


def _case(judged: Judged, place: int, strips: Mapping[str, str]) -> str:
    question = judged.questions[place]
    name = html.escape(question.video_id)
    strip = strips.get(question.video_id)
    picture = (
        f'<img class="strip" src="{strip}" alt="Frames of {name} that the network saw">'
        if strip
        else "<p class=gone>The source video is not there any more.</p>"
    )
    right = judged.answers.rank[place] == 0
    answers = "".join(
        f'<li class="{"true" if answer == question.answer else ""}">'
        f"<span>{html.escape(answer)}</span>{_bar(probability)}"
        f"<span class=number>{probability:.0%}</span></li>"
        for answer, probability in judged.answers.texts(place)
    )
    return (
        f'<article class="case">{picture}<p class=facts>{name}</p><div class="question">'
        f"<h3>{html.escape(question.question)}</h3>"
        f'<p class="verdict {"correct" if right else "wrong"}"><strong>'
        f"{'✓ correct' if right else '✗ wrong'}</strong> &mdash; the truth is "
        f"<em>{html.escape(str(question.answer))}</em></p><ul>{answers}</ul></div></article>"
    )
