"""What there is to tell of a run, as flat names and values: options, making, figures."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from framebank.features.stores import json_text

_MOST_NAMES = 24  # of runs or files that one value lists: all of them are in lineage.json
_MOST_FIGURES = 1000
# Of a model's folder; it has those of them that its command writes.
_FILES = (
    "model.keras", "vocabulary.json", "lineage.json", "metrics.json", "history.jsonl",
    "judged.jsonl", "seen.json.gz", "basis.json", "verdict.json",
)  # fmt: skip
_INTERVAL = ("low", "high")
_SPEC = ("backbone", "layer", "weights", "weights_sha256", "sample", "precision", "dtype")
_STRANGE = re.compile(r"[^\w./ -]")  # what MLflow takes in no name


def flat(fields: Mapping[str, Any], *, joint: str, above: str = "") -> Iterator[tuple[str, Any]]:
    """Yield the values of nested `fields` with their names, joined by `joint`; no None."""
    for name, value in fields.items():
        if isinstance(value, Mapping):
            yield from flat(value, joint=joint, above=f"{above}{name}{joint}")
        elif value is not None:
            yield f"{above}{name}", value


def figures(fields: Mapping[str, Any]) -> dict[str, float]:
    """Return the numbers of metrics.json or evaluation.json, by names such as
    "baselines/majority/accuracy"; an interval is two, and what is not finite is left out."""
    found: dict[str, float] = {}
    for name, value in flat(fields, joint="/"):
        ends = value if isinstance(value, list) and "interval" in name else ()
        told = {f"{name}/{end}": its for end, its in zip(_INTERVAL, ends, strict=False)}
        for one, number in (told or {name: value}).items():
            is_number = isinstance(number, int | float) and not isinstance(number, bool)
            if is_number and math.isfinite(number) and len(found) < _MOST_FIGURES:
                found[plain(one)] = float(number)
    return found


def lineage(fields: Mapping[str, Any]) -> dict[str, str]:
    """Return what lineage.json says a model comes from, as short texts."""
    making = fields.get("making") or {}
    told = {
        **{name: fields.get(name) for name in ("cache", "cache_videos", "fingerprint", "runs")},
        "cache_digest": making.get("cache_digest"),
        **{name: fields.get(name) for name in ("questions_files", "questions_sha256")},
        **{name: (fields.get("spec") or {}).get(name) for name in _SPEC},
        "random_weights": fields.get("random_weights"),
        "trained": fields.get("time"),
        "versions": fields.get("versions"),
    }
    return {name: text(value) for name, value in flat(told, joint=".")}


def text(value: Any) -> str:
    """Return a value as a tracker shows it: of a long list its last ones, and how many it has."""
    if isinstance(value, list | tuple):
        names, more = [str(one) for one in value[-_MOST_NAMES:]], len(value) - _MOST_NAMES
        return ", ".join(names) + (f" and {more} more" if more > 0 else "")
    return str(value).lower() if isinstance(value, bool) else str(value)


def plain(name: str) -> str:
    """Return a name that every tracker takes."""
    return _STRANGE.sub("_", name)[:250]


def read_history(folder: Path) -> list[dict[str, Any]]:
    """Return the rows of history.jsonl, each with "model" and "epoch"; raises ValueError."""
    path = folder / "history.jsonl"
    return json_text.parse_lines(path.read_bytes()) if path.exists() else []


def model_files(folder: Path) -> list[Path]:
    """Return the files of a model's folder that make it, none of a run under way."""
    return [path for name in _FILES if (path := folder / name).is_file()]
