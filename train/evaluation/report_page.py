"""The page of an evaluation: one report.html that opens without a network.

Styles, plots and pictures are inside the file; its content security policy forbids it to ask for
anything else, and it runs no script.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from framebank.features.stores import json_text, storage
from framebank.train.evaluation.evaluating import Judged
from framebank.train.evaluation.report_cases import cases, choose_cases
from framebank.train.evaluation.report_frames import make_thumbnails
from framebank.train.evaluation.report_plot import plots
from framebank.train.evaluation.report_style import STYLE
from framebank.train.evaluation.report_tables import LABELS, confusion, parts, scores
from framebank.train.evaluation.report_text import (
    caution,
    many,
    percent,
    points,
    safe,
    short,
    span,
    square_error,
)

if TYPE_CHECKING:
    from framebank.features.cache.reader import Cache

_POLICY = (
    "default-src 'none'; img-src data:; style-src 'unsafe-inline'; base-uri 'none'; "
    "form-action 'none'"
)
_MOST_LEAKS = 20
_PAIR = 400  # characters that are shown of two ids


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
    shown = {judged.questions[place].video_id for its in chosen for place in its}
    frames = make_thumbnails(cache, shown, say=say)
    figures = judged.figures
    text = "".join(
        (
            *_head(figures),
            scores(figures),
            parts(figures),
            plots(figures, read_history(model_dir)),
            confusion(figures["confusion"]),
            _leaks(figures["leaks"]),
            cases(judged, chosen, frames),
            _about(figures),
            "</main></body></html>\n",
        )
    )
    page = out / "report.html"
    storage.write_atomic(str(page), text.encode("utf-8", "backslashreplace"))
    return page


def read_history(model_dir: str) -> list[dict[str, Any]]:
    """Return the epochs of the model's training; none where the folder holds no history."""
    try:
        text = storage.read_bytes(storage.join(model_dir, "history.jsonl")).decode()
        return [dict(json_text.parse(line)) for line in text.splitlines()]
    except (storage.FileMissingError, ValueError, TypeError):
        return []  # the figures stand without it


def _head(figures: Mapping[str, Any]) -> Iterator[str]:
    name = figures["model"].rstrip("/").rpartition("/")[2] or figures["model"]
    yield (
        '<!doctype html><html lang="en"><head><meta charset="utf-8">'
        f'<meta http-equiv="Content-Security-Policy" content="{_POLICY}">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        '<meta name="color-scheme" content="light dark"><link rel="icon" href="data:,">'
        f"<title>Evaluation of {safe(name)}</title><style>{STYLE}</style></head><body><main>"
        f"<header><p class=kicker>Framebank evaluation</p><h1>{safe(name)}</h1>"
        f"<p class=verdict>{safe(verdict(figures))}</p></header>"
    )
    if figures["random_weights"]:
        yield (
            '<p class="note" role="note"><strong>Random weights.</strong> The image network was '
            "never trained: the figures show that the path works, not what can be reached.</p>"
        )
    if figures["flatters"]:
        yield (
            '<p class="note" role="note"><strong>Not a fair test.</strong> '
            f"{safe(figures['flatters'][0].upper() + figures['flatters'][1:])}.</p>"
        )


def verdict(figures: Mapping[str, Any]) -> str:
    """Say in one or two sentences how good the model is, and whether it beats its baselines."""
    text = (
        f"Right on {percent(figures['accuracy'])} ({span(figures['interval'])}) of "
        f"{many(figures['judged'], 'question')} about {many(figures['videos'], 'video')} of the "
        f"split {figures['split']}."
    )
    if figures["head"] == "count":
        text = f"Mean square error {square_error(figures)}, the lower the better. {text}"
    beside = figures["baselines"]
    if careful := caution(figures):
        text = f"{text} {careful}"
    if not beside:
        return f"{text} Nothing stands beside it that would say whether this is much."
    hardest = min(beside, key=lambda name: beside[name]["ahead"]["interval"][0])
    ahead = beside[hardest]["ahead"]
    label = LABELS[hardest][0]
    low, high = ahead["interval"]
    if figures["videos"] < 2:
        return text
    if low > 0:
        return f"{text} Better than every baseline: {points(ahead)} of {label}."
    if high < 0:
        return f"{text} Worse than {label}: {points(ahead)}."
    return f"{text} Not surely better than {label}: {points(ahead)}."


def _leaks(leaks: Mapping[str, Any]) -> str:
    pairs: Sequence[Mapping[str, Any]] = leaks["pairs"]
    what = f"{many(leaks['videos'], 'video')} of all splits were compared"
    if leaks["compared"] < leaks["videos"]:
        what += f" by content hash, and {leaks['compared']} of them, drawn by chance, by features"
    else:
        what += " by content hash and by features"
    alike = _alike(leaks["alike"])
    if not pairs:
        text = "No file is on both sides, nor features that are nearly equal (a cosine of 0.98)"
        return f"<section><h2>Leaks between splits</h2><p>{text}. {what}.</p>{alike}</section>"
    rows = "".join(f"<li>{short(_pair(pair), _PAIR)}</li>" for pair in pairs[:_MOST_LEAKS])
    found = ("at least " if leaks["capped"] else "") + many(len(pairs), "pair")
    left = len(pairs) - _MOST_LEAKS
    more = f"<p class=soft>{left} more are in evaluation.json.</p>" if left > 0 else ""
    return (
        "<section><h2>Leaks between splits</h2>"
        f'<p class="note"><strong>{found} of videos found on two sides of a split:</strong> what '
        f"was learnt from one is judged on the other, so the figures flatter.</p><p>{what}.</p>"
        f"<ul class=plain>{rows}</ul>{more}{alike}</section>"
    )


def _alike(pairs: Sequence[Mapping[str, Any]]) -> str:
    """Return what the search for leaks cannot tell by itself, and whom to look at."""
    text = (
        "A copy that was coded anew, trimmed or mirrored may differ as much as two clips of one "
        "scene do, and is not told from them."
    )
    if not pairs:
        return f"<p class=soft>{text} No other two are alike (a cosine of 0.9 of their means).</p>"
    rows = "".join(f"<li>{short(_pair(pair), _PAIR)}</li>" for pair in pairs)
    return f"<p class=soft>{text} Look at the most alike:</p><ul class=plain>{rows}</ul>"


def _pair(pair: Mapping[str, Any]) -> str:
    one, other = (
        f"{video} ({split})" for video, split in zip(pair["videos"], pair["splits"], strict=True)
    )
    sure = f" (cosine {pair['cosine']:.4f})" if "cosine" in pair else ""
    return f"{one} and {other}: {pair['why']}{sure}"


def _about(figures: Mapping[str, Any]) -> str:
    files = zip(figures["questions_files"], figures["questions_sha256"], strict=False)
    lines = [
        f"model: {figures['model']}",
        *(f"questions: {path} (sha256 {digest[:16]}…)" for path, digest in files),
        f"weights of the image network: {figures['weights']}",
        *figures["notes"],
    ]
    items = "".join(f"<li>{safe(line)}</li>" for line in lines)
    return f"<section><h2>What was judged</h2><ul class=plain>{items}</ul></section>"
