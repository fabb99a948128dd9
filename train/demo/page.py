"""The demo's page: one index.html beside the clips that shows what was asked and answered.

Opens from disk without a network: styles, curves and frame strips are inside, clips beside it.
"""

from __future__ import annotations

import dataclasses
import html
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from framebank.features.asking.command import answer_lines
from framebank.features.errors import FramebankError
from framebank.features.stores import json_text
from framebank.train.demo.figures import Curve, frame_strip, line_chart
from framebank.train.demo.style import SCRIPT, STYLE

_MODELS = {"lstm": "model", "order_blind": "order-blind", "question_only": "question only"}
_BASELINES = {
    "order_blind": ("order-blind", "sees the mean of the frames"),
    "question_only": ("question only", "sees no clip at all"),
    "majority": ("majority", "always the commonest answer"),
}


@dataclasses.dataclass(frozen=True)
class DemoResult:
    """What the steps of a demo printed; `asked` also has the "truth", `seconds` a time a step."""

    metrics: Mapping[str, Any]
    summary: Mapping[str, Any]
    asked: Mapping[str, Any]
    weights: str
    seconds: Mapping[str, float]
    commands: list[str]

    @property
    def random_weights(self) -> bool:
        return self.weights.startswith("random:")


def write_page(out: Path, result: DemoResult) -> Path:
    """Write `out`/index.html from the folder of a demo; raises FramebankError."""
    from framebank.features.cache.reader import open_cache

    cache = open_cache(str(out / "cache"))
    page = out / "index.html"
    text = "".join(_page(out, result, cache, _held_out_rows(out)))
    try:
        partial = out / ".index.html.part"
        partial.write_text(text, "utf-8")
        partial.replace(page)
    except OSError as err:
        raise FramebankError(f"cannot write {page}", got=err.strerror, todo="make room") from err
    return page


def _held_out_rows(out: Path) -> dict[str, list[dict[str, Any]]]:
    """Return the answer rows of each held-out clip, by video_id in order of name."""
    asked = _read_lines([out / "questions.jsonl"])
    held_out = {row["video_id"] for row in asked if row["split"] == "test"}
    rows: dict[str, list[dict[str, Any]]] = {video_id: [] for video_id in sorted(held_out)}
    for row in _read_lines(sorted((out / "answers").glob("answers-*.jsonl"))):
        if row["video_id"] in rows and row["status"] == "answered":
            rows[row["video_id"]].append(row)
    return {video_id: its for video_id, its in rows.items() if its}


def _read_lines(paths: Iterable[Path]) -> list[dict[str, Any]]:
    lines = (line for path in paths for line in path.read_text("utf-8").splitlines())
    return [json_text.parse(line) for line in lines]


def _page(
    out: Path, result: DemoResult, cache: Any, rows: Mapping[str, list[dict[str, Any]]]
) -> Iterable[str]:
    yield (
        '<!doctype html><html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        '<meta name="color-scheme" content="light dark">'
        f"<title>Framebank demo</title><style>{STYLE}</style></head><body><main>"
    )
    yield from _head(result)
    yield _scores(result)
    yield _asked(out, result, cache)
    yield _held_out(out, cache, rows)
    yield _curves(out)
    yield _making(result, cache)
    yield f"</main><script>{SCRIPT}</script></body></html>\n"


def _head(result: DemoResult) -> Iterable[str]:
    yield (
        "<header><h1>Framebank demo</h1><p class=lead>Short films were made, each decoded once and "
        "seen once by a frozen image network. A small model learnt from those features to answer "
        "questions. Below are the films that it had never met.</p></header>"
    )
    if result.random_weights:
        yield (
            '<p class="note" role="note"><strong>Random weights.</strong> The image network '
            f"(InceptionV3, <code>{html.escape(result.weights)}</code>) has never been trained: "
            "the published weights could not be had, or others were asked for. It shows that the "
            "path works, not what a real network sees.</p>"
        )


def _scores(result: DemoResult) -> str:
    scores = result.metrics["baselines"]
    rows = [("model", "sees the frames in their order", result.metrics, "ours")]
    rows += [
        (label, text, scores[name], "") for name, (label, text) in _BASELINES.items()
        if name in scores
    ]  # fmt: skip
    lines = []
    for label, text, score, kind in rows:
        part = score["by_type"].get("direction")
        if part:
            lines.append(
                f'<tr class="{kind}"><th scope="row">{label}<small>{text}</small></th>'
                f"<td>{_bar(part['accuracy'])}</td>"
                f"<td class=number>{part['accuracy']:.0%}</td></tr>"
            )
    judged = result.metrics["by_type"].get("direction", {}).get("judged", 0)
    return (
        "<section><h2>Which way did it go?</h2><p>Every film has a twin with the same pictures in "
        "reverse order. So loading and unloading, left and right, opening and closing differ in "
        "nothing but the order of frames; who cannot see the order can only guess.</p>"
        f"<table class=scores><caption>Right answers to {judged} questions of direction about "
        f"held-out films</caption><tbody>{''.join(lines)}</tbody></table></section>"
    )


def _bar(share: float) -> str:
    return f'<span class="bar" aria-hidden="true"><i style="width:{share:.1%}"></i></span>'


def _asked(out: Path, result: DemoResult, cache: Any) -> str:
    asked = result.asked
    video_id = Path(asked["video"]).name
    row = {
        "question": asked["question"], "answers": asked["answers"], "truth": asked["truth"],
        "correct": asked["answers"][0]["answer"] == asked["truth"],
    }  # fmt: skip
    typed = html.escape(result.commands[-1])
    printed = html.escape("\n".join(answer_lines(asked["answers"])))
    return (
        "<section><h2>Asked from the command line</h2><div class=asked>"
        f"{_clip(out, video_id, [row], cache)}"
        f'<div class="shell"><p>$ {typed}</p><pre tabindex="0">{printed}</pre></div>'
        "</div></section>"
    )


def _held_out(out: Path, cache: Any, rows: Mapping[str, list[dict[str, Any]]]) -> str:
    pairs: dict[str, list[str]] = {}
    for video_id in rows:
        pairs.setdefault(video_id.rsplit(".", 1)[0][:-1], []).append(video_id)
    cards = []
    for pair, video_ids in pairs.items():
        clips = "".join(_clip(out, video_id, rows[video_id], cache) for video_id in video_ids)
        scene = pair.split("-")[0]
        cards.append(f'<div class="pair" data-scene="{scene}">{clips}</div>')
    scenes = dict.fromkeys(pair.split("-")[0] for pair in pairs)
    buttons = "".join(
        f'<button type="button" data-filter="{scene}" aria-pressed="false">{scene}</button>'
        for scene in scenes
    )
    return (
        f"<section><h2>All {len(rows)} held-out films</h2><p>Twins stand side by side. Under each "
        "film are the eight frames that the network saw, and the model&rsquo;s likeliest answers."
        '</p><div class="tools" hidden><div role="group" aria-label="Show only one kind">'
        f'<button type="button" data-filter="" aria-pressed="true">all</button>{buttons}</div>'
        '<button type="button" data-play aria-pressed="false">play all</button></div>'
        f"<div class=pairs>{''.join(cards)}</div></section>"
    )


def _clip(out: Path, video_id: str, rows: list[dict[str, Any]], cache: Any) -> str:
    path = out / "clips" / video_id
    record = cache[video_id]
    strip = frame_strip(path, record.frame_index.tolist())
    questions = "".join(_question(row) for row in rows)
    name = html.escape(video_id)
    source = record.source
    return (
        f'<article class="clip"><video src="clips/{name}#t=0.001" controls loop muted playsinline '
        f'preload="metadata" aria-label="Film {name}"></video>'
        f'<img class="strip" src="{strip}" alt="The {len(record.frame_index)} frames of {name} '
        f'that the network saw, first to last"><p class="facts">{name} &middot; '
        f"{source.width}&times;{source.height} &middot; {source.rate_fps:.4g} frames/s &middot; "
        f"{source.duration_s:.1f} s</p>{questions}</article>"
    )


def _question(row: Mapping[str, Any]) -> str:
    right = row["correct"]
    # Not "right": that is an answer too.
    verdict = "correct" if right else "wrong"
    answers = "".join(
        f'<li class="{"true" if one["answer"] == row["truth"] else ""}">'
        f"<span>{html.escape(one['answer'])}</span>{_bar(one['probability'])}"
        f"<span class=number>{one['probability']:.0%}</span></li>"
        for one in row["answers"][:3]
    )
    return (
        f'<div class="question"><h3>{html.escape(row["question"])}</h3>'
        f'<p class="verdict {verdict}">'
        f"<strong>{'✓' if right else '✗'} {verdict}</strong> &mdash; the truth is "
        f"<em>{html.escape(str(row['truth']))}</em></p><ul>{answers}</ul></div>"
    )


def _curves(out: Path) -> str:
    rows = _read_lines([out / "model" / "history.jsonl"])
    charts = []
    for field, title, percent in (
        ("val_accuracy", "Right answers on the validation films", True),
        ("loss", "Loss in training", False),
    ):
        curves: dict[str, Curve] = {
            label: [(row["epoch"], row[field]) for row in rows if row["model"] == name]
            for name, label in _MODELS.items()
            if any(row["model"] == name and field in row for row in rows)
        }
        chart = line_chart(curves, title=title, percent=percent)
        charts.append(f"<figure>{chart}<figcaption>{title}, by epoch</figcaption></figure>")
    return (
        "<section><h2>Training</h2><p>All kinds of question together, those of colour too, which "
        f"need no order.</p><div class=charts>{''.join(charts)}</div></section>"
    )


def _making(result: DemoResult, cache: Any) -> str:
    steps = "".join(f"<li><code>{html.escape(typed)}</code></li>" for typed in result.commands)
    times = ", ".join(f"{name} {seconds:.0f} s" for name, seconds in result.seconds.items())
    spec = "".join(
        f"<tr><th scope=row>{html.escape(name)}</th><td>{html.escape(str(value))}</td></tr>"
        for name, value in cache.spec.to_json().items()
    )
    return (
        "<section><h2>How it was made</h2><p>Four commands, which work on your own films too.</p>"
        f"<ol class=steps>{steps}</ol><p class=facts>{times}</p>"
        f"<details><summary>What every feature was made with ({len(cache)} films, fingerprint "
        f"<code>{cache.fingerprint[:8]}</code>)</summary><div class=wide><table class=spec><tbody>"
        f"{spec}</tbody></table></div></details></section>"
    )
