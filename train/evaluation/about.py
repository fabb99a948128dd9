"""What a reader wants to know of an evaluation before any figure: the model, its data, the day."""

from __future__ import annotations

import datetime
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

from framebank.features.pages.page import day
from framebank.features.stores import json_text, storage

if TYPE_CHECKING:
    from framebank.features.cache.reader import Cache


def about_model(model_dir: str, cache: Cache) -> dict[str, Any]:
    """Return what a person wants to know of a model first: its kind, when it was trained, and which
    features of which videos it reads."""
    made = json_text.read_object(storage.join(model_dir, "lineage.json"))
    kind, parameters = (
        (made.get("making") or {}).get("config", {}).get("model", {}).get("kind"),
        None,
    )
    path = storage.join(model_dir, "metrics.json")
    if storage.exists(path):  # an imported model has none
        metrics = json_text.read_object(path)
        kind, parameters = metrics.get("kind", kind), metrics.get("parameters")
    spec = cache.spec
    return {
        "kind": kind,
        "parameters": parameters,
        "trained": made.get("time"),
        "framebank": (made.get("versions") or {}).get("framebank"),
        "backbone": spec.backbone,
        "layer": spec.layer,
        "sample": spec.sample,
        "cache": str(cache.path),
        "cache_videos": len(cache),
    }


def name_model(figures: Mapping[str, Any]) -> str:
    return str(figures["model"].rstrip("/").rpartition("/")[2] or figures["model"])


def first_facts(figures: Mapping[str, Any]) -> Iterator[tuple[str, str, str]]:
    """Yield what a reader wants to know before any figure: names, values, and a line more."""
    made = figures["made"]
    size = f"{made['parameters']:,} parameters" if made["parameters"] else ""
    yield "Model", str(made["kind"] or "not known"), size
    by = f"by Framebank {made['framebank']}" if made["framebank"] else ""
    yield "Trained", day(made["trained"]), by
    weights = figures["weights"]
    weights = "weights of a file" if weights == "file" else f"weights {weights}"
    yield "Network", made["backbone"], f"{made['layer']}, {weights}"
    yield "Frames", made["sample"], "the sampling rule"
    files = ", ".join(path.rpartition("/")[2] for path in figures["questions_files"])
    yield "Data", files, f"{many(made['cache_videos'], 'video')} in {made['cache']}"
    asked = f"{many(figures['judged'], 'question')} about " if "judged" in figures else ""
    told = f"{asked}{many(figures['videos'], 'video')}, {day(datetime.datetime.now().isoformat())}"
    yield "Judged on", f"the split {figures['split']}", told


def many(count: int, noun: str) -> str:
    return f"{count} {noun}" if count == 1 else f"{count} {noun}s"
