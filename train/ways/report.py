"""What the ways came to: figures with intervals, what to choose when, and the page that shows them.

A way is called as good as the best where the 95 % interval of their difference on the same clips,
drawn by source, holds zero, or where there are too few of them to tell: on few clips many are.
"""

from __future__ import annotations

import argparse
import datetime
import json
import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from framebank.features.cache.reader import Cache, open_cache
from framebank.features.errors import JobError
from framebank.features.pages.page import curve_plot, day, facts_table, learning_curves, render
from framebank.features.questions.files import QuestionFiles
from framebank.features.questions.reading import read_questions
from framebank.features.questions.splits import SplitRule
from framebank.features.stores import json_text, storage
from framebank.features.terminal import few, size_text
from framebank.train.judging.baselines import JUDGED_FILE, read_rows
from framebank.train.judging.bootstrap import interval, paired_bootstrap
from framebank.train.ways.plan import CLIPS, FRAMES, PIXELS, WAYS, Way

if TYPE_CHECKING:
    from framebank.train.ways.ledger import Ledger

_TEMPLATE = Path(__file__).with_name("index.html.j2")
_FEWEST_SOURCES = 6  # that all go one way by chance in less than 5 of 100 cases: 2 · 0.5 ** 6
_CACHES = {
    FRAMES: "features of frames",
    PIXELS: "the frames themselves",
    CLIPS: "features of clips of 16 frames",
}


def write_report(
    folder: Path, args: argparse.Namespace, ledger: Ledger, *, typed: str
) -> dict[str, Any]:
    """Write index.html and report.json in `folder`; return what the latter holds."""
    caches = {name: open_cache(str(folder / "caches" / name)) for name in _CACHES}
    sources = _sources(args)
    rows = [_row(way, folder, caches[way.cache], ledger, sources, args.seed) for way in WAYS]
    judged = {row["name"]: row.pop("right") for row in rows}
    groups = {row["name"]: row.pop("groups") for row in rows}
    best = max((row for row in rows if row["number"]), key=lambda row: float(row["accuracy"]))
    majority = float(rows[0]["majority"])
    for row in rows:
        del row["majority"]
        row["behind_best"] = _behind(row["name"], best["name"], judged, groups, seed=args.seed)
    found = {
        "split": rows[0]["split"],
        "judged": rows[0]["judged"],
        "majority": majority,
        "ways": rows,
        "best": best["name"],
        "advice": advice(rows, best),
        "caches": {name: _cache(cache, ledger, name) for name, cache in caches.items()},
        "budget": {name: getattr(args, name) for name in ("epochs", "patience", "batch_size")},
        "seed": args.seed,
        "notes": _notes(rows, caches, majority),
        "command": typed,
        "time": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
    }
    text = json.dumps(found, indent=1, ensure_ascii=False) + "\n"
    storage.write_atomic(str(folder / "report.json"), text.encode())
    page = render(
        _TEMPLATE,
        found=found,
        facts=list(_first_facts(found, args)),
        curves=_curves(folder),
        caches=[
            (_CACHES[name], found["caches"][name], facts_table(cache.spec.to_json()))
            for name, cache in caches.items()
        ],
        size=size_text,
        took=took,
        count=_count,
    )
    storage.write_atomic(str(folder / "index.html"), page.encode())
    return found


def _first_facts(
    found: Mapping[str, Any], args: argparse.Namespace
) -> Iterator[tuple[str, str, str]]:
    """Yield what a reader wants to know before any figure: names, values, and a line more."""
    frames, clips = (found["caches"][name]["spec"] for name in (FRAMES, CLIPS))
    labels = ", ".join(os.path.basename(os.fspath(path)) for path in args.labels)
    yield "Data", labels, f"{found['caches'][FRAMES]['videos']} clips"
    for name, spec in (("Network of frames", frames), ("Network of clips", clips)):
        yield name, spec["backbone"], f"{spec['layer']}, weights {spec['weights']}"
    yield "Frames", frames["sample"], f"clips of 16 frames: {clips['sample']}"
    yield "Judged on", f"the split {found['split']}", f"{found['judged']} clips"
    yield "Trained", day(found["time"]), f"seed {found['seed']}"


def _sources(args: argparse.Namespace) -> dict[str, str]:
    """Return the source of each label, by its id."""
    questions = read_questions(QuestionFiles(args.labels), to_train=True)
    grouped = SplitRule(group_by=args.group_by).grouped(questions)
    return {question.question_id: question.source for question in grouped}


def _row(
    way: Way, folder: Path, cache: Cache, ledger: Ledger, sources: Mapping[str, str], seed: int
) -> dict[str, Any]:
    """Return the figures of one way, with what is right, bool[q], and the groups of that."""
    model = folder / "models" / way.name
    metrics = json_text.read_object(str(model / "metrics.json"))
    lines = read_rows(str(model / JUDGED_FILE))
    if not lines:
        raise JobError(
            f"{model / JUDGED_FILE} is missing or damaged",
            todo=f"remove {model} and give the same command again",
        )
    right = np.array([line["answers"]["model"] == line["truth"] for line in lines])
    groups = [sources.get(line["question_id"], line["video_id"]) for line in lines]
    extracted, trained = ledger.step(f"extract {way.cache}"), ledger.step(f"train {way.name}")
    low, high = interval(right, groups, seed=seed)
    return {
        "name": way.name,
        "number": way.number,
        "title": way.title,
        "label": way.label,
        "about": way.about,
        "cache": way.cache,
        "split": metrics["split"],
        "judged": len(right),
        "accuracy": float(right.mean()),
        "interval": [low, high],
        "majority": metrics["baselines"]["majority"]["accuracy"],
        "extraction_s": extracted.seconds,
        "training_s": trained.seconds,
        "killed": {"extraction_s": extracted.killed, "training_s": trained.killed},
        "cache_bytes": _stored(cache),
        "worse_than_majority": "majority" in metrics.get("led_by", ()),
        "left_out": metrics["unmatched"],
        "left_out_videos": metrics["unmatched_videos"],
        "model_bytes": os.path.getsize(model / "model.keras"),
        "parameters": metrics["parameters"],
        "epochs": metrics["epochs"],
        "best_epoch": metrics["best_epoch"],
        "random_weights": cache.spec.random_weights,
        "right": right,
        "groups": groups,
    }


def _behind(
    name: str, best: str, judged: Mapping[str, Any], groups: Mapping[str, Any], *, seed: int
) -> dict[str, Any] | None:
    """Return by how much a way is behind the best one on the same clips; None of other clips."""
    if groups[name] != groups[best]:
        return None
    found = paired_bootstrap(judged[best], judged[name], groups[name], seed=seed)
    return {
        "difference": found.difference,
        "interval": [found.low, found.high],
        "surely": found.low > 0 and len(set(groups[name])) >= _FEWEST_SOURCES,
    }


def _stored(cache: Cache) -> int:
    return int(sum(cache.places.column("length").to_pylist()))


def _cache(cache: Cache, ledger: Ledger, name: str) -> dict[str, Any]:
    step = ledger.step(f"extract {name}")
    return {
        "videos": len(cache),
        "rows": int(sum(cache.places.column("rows").to_pylist())),
        "bytes": _stored(cache),
        "seconds": step.seconds,
        "killed": step.killed,
        "fingerprint": cache.fingerprint,
        "spec": cache.spec.to_json(),
    }


def _notes(
    rows: Sequence[Mapping[str, Any]], caches: Mapping[str, Cache], majority: float
) -> list[str]:
    notes = [
        f"The weights of {caches[name].spec.backbone} are RANDOM ({caches[name].spec.weights}): "
        f"what reads the {_CACHES[name]} shows that the path works, not what the network can see."
        for name in (FRAMES, CLIPS)
        if caches[name].spec.random_weights
    ]
    if max(float(row["accuracy"]) for row in rows) <= majority:
        notes.append(
            "Nothing here is right more often than the majority answer: these clips do not tell "
            "which way is better."
        )
    best = max((row for row in rows if row["number"]), key=lambda row: float(row["accuracy"]))
    formula = next(row for row in rows if not row["number"])
    if formula["accuracy"] > best["accuracy"]:
        notes.append(
            f"The baseline leads: a closed formula is right on {formula['accuracy']:.0%}, "
            f"{best['label']}, the best of the six, on {best['accuracy']:.0%}. Training is not "
            "worth its time here."
        )
    if worse := [str(row["label"]) for row in rows if row["worse_than_majority"]]:
        notes.append(f"Worse than the majority answer, with 95 % confidence: {', '.join(worse)}.")
    lacking: dict[str, list[str]] = {}
    for name, title in _CACHES.items():
        row = next(row for row in rows if row["cache"] == name)
        if row["left_out"]:
            told = f"{few(row['left_out_videos'])}, {row['left_out']} in all"
            lacking.setdefault(told, []).append(title)
    notes += [
        f"Labels were left out, as their clips were not found or are quarantined ({told}), in the "
        f"caches of {', '.join(titles)}."
        for told, titles in lacking.items()
    ]
    if len({row["judged"] for row in rows}) > 1:
        told = ", ".join(f"{row['title']} {row['judged']}" for row in rows)
        notes.append(
            f"Some clips are not in every cache, so the ways were not judged on the same: {told}."
        )
    if any(any(row["killed"].values()) for row in rows):
        notes.append(
            "Times marked ≈ are of steps that were killed and gone on with: of all their runs "
            "together, with what had to be done twice."
        )
    return notes


def advice(rows: Sequence[Mapping[str, Any]], best: Mapping[str, Any]) -> list[dict[str, str]]:
    """Return what to choose when, as these figures have it: each has "when", "way" and "why"."""
    ways = [row for row in rows if row["number"]]
    good = [row for row in ways if row["behind_best"] and not row["behind_best"]["surely"]]
    fair = [row for row in good if not row["random_weights"]] or good
    quick = min(fair, key=lambda row: float(row["training_s"]))
    once = min(fair, key=lambda row: float(row["training_s"] + row["extraction_s"]))
    small = min(fair, key=lambda row: int(row["cache_bytes"]))
    shown = f"{best['accuracy']:.0%} right, {best['interval'][0]:.0%} to {best['interval'][1]:.0%}"
    others = [str(row["label"]) for row in good if row is not best]
    alike = f"; as good within the interval: {', '.join(others)}" if others else ""
    told = [
        ("What is right most often counts", best, f"{shown}{alike}"),
        (
            "You will train often: new labels, new questions, new heads",
            quick,
            f"what is cached stays; training takes {_time(quick, 'training_s')}",
        ),
        (
            "You train once, and want an answer soon",
            once,
            f"extraction and training take {_time(once, *once['killed'])}",
        ),
        (
            "Disk is what you lack",
            small,
            f"its cache has {size_text(small['cache_bytes'])} for these clips",
        ),
    ]
    said = [{"when": when, "way": str(row["label"]), "why": why} for when, row, why in told]
    probe = next(row for row in rows if not row["number"])
    if probe["accuracy"] >= best["accuracy"]:
        why = f"it is right on {probe['accuracy']:.0%}, and takes {_time(probe, 'training_s')}"
        first = {"when": "Clips are as few as these", "way": "the closed formula", "why": why}
        said.insert(0, first)
    return said


def _curves(folder: Path) -> list[tuple[str, str]]:
    """Return for each way that has epochs its name and a plot of what it got right."""
    found = []
    for way in WAYS:
        history = read_rows(str(folder / "models" / way.name / "history.jsonl"))
        curves = {
            name: curve
            for name, field in (("validation", "val_accuracy"), ("training", "accuracy"))
            for curve in learning_curves(history, field).values()
        }
        plot = curve_plot(curves, title=f"Right answers of {way.label}, by epoch", is_share=True)
        if plot:
            found.append((way.label, plot))
    return found


def _time(row: Mapping[str, Any], *names: str) -> str:
    return took(sum(row[name] for name in names), about=any(row["killed"][name] for name in names))


def took(seconds: float, *, about: bool = False) -> str:
    """Return a time as a person says it."""
    mark = "≈ " if about else ""
    if seconds < 90:
        return f"{mark}{seconds:.0f} s"
    return f"{mark}{seconds / 60:.1f} min" if seconds < 5400 else f"{mark}{seconds / 3600:.1f} h"


def _count(number: int) -> str:
    if number < 100_000:
        return f"{number:,}"
    return f"{number / 1e6:.2f} million"


def table(found: Mapping[str, Any]) -> str:
    """Return the figures as a person reads them: a line for each way."""
    head = f"accuracy, split {found['split']}"
    lines = [
        f"{head:30}{'':8}{'95 % interval':>16}{'extraction':>13}{'training':>11}{'cache':>11}"
        f"{'parameters':>14}"
    ]
    for row in found["ways"]:
        low, high = row["interval"]
        times = [_time(row, name) for name in row["killed"]]
        spread = f"{low:.0%} to {high:.0%}"
        lines.append(
            f"{row['number']:3}{row['title']:27}{row['accuracy']:>8.1%}{spread:>16}"
            f"{times[0]:>13}{times[1]:>11}{size_text(row['cache_bytes']):>11}"
            f"{row['parameters']:>14,}"
        )
    lines.append(f"{'':3}{'majority answer':27}{found['majority']:>8.1%}")
    lines += ["", f"{found['judged']} clips judged", *found["notes"], ""]
    lines += [f"{one['when']}: {one['way']} ({one['why']})" for one in found["advice"]]
    return "\n".join(lines)
