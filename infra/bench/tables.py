"""The tables of infra/bench/README.md, made from the JSON that the benches end in."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

Figures = dict[str, Any]


def spread_text(value: Any) -> str:
    """Return a median with its range, or whatever stands there."""
    if isinstance(value, dict) and {"median", "min", "max"} <= value.keys():
        low, high = value["min"], value["max"]
        return f"{value['median']:g}" + (f" ({low:g} to {high:g})" if low != high else "")
    if isinstance(value, dict):
        return ", ".join(f"{name} {spread_text(one)}" for name, one in value.items())
    return f"{value:g}" if isinstance(value, float) else str(value)


def rows_text(head: list[str], rows: list[list[Any]]) -> Iterator[str]:
    """Yield the lines of a markdown table."""
    yield "| " + " | ".join(head) + " |"
    yield "|" + " --- |" * len(head)
    for row in rows:
        yield "| " + " | ".join(spread_text(cell) for cell in row) + " |"


def comparison(figures: Figures) -> Iterator[str]:
    yield (
        f"{figures['clips']} clips at {figures['fps']} fps, {figures['backbone']}, "
        f"{figures['rounds']} rounds; cosine: the clips' mean features against our float32's, "
        "the least"
    )
    yield ""
    head = ["program", "frames", "seconds", "frames/s", "of plain", "of Ray Data", "cosine"]
    keys = ("frames", "seconds", "frames_per_s", "to_plain", "to_ray", "cosine")
    programs = figures["programs"].items()
    rows = [[name, *(row.get(key, "") for key in keys)] for name, row in programs]
    yield from rows_text(head, rows)
    for name, why in figures.get("failed", {}).items():
        yield f"\n{name}: nothing measured, {why}"


def limits(figures: Figures) -> Iterator[str]:
    head = ["frames/s of", *figures]
    names = {
        "decode": "decoding alone",
        "network": "the network alone",
        "write": "writing alone",
        "engine": "all together",
        "of_slower_stage": "… of the slower stage's own limit",
        "of_both_in_turns": "… of what both allow in turns on these cores",
    }
    rows = [[text, *(one.get(key, "") for one in figures.values())] for key, text in names.items()]
    yield from rows_text(head, rows)


def flat(figures: Figures, above: str = "") -> Iterator[list[Any]]:
    """Yield name and value of all figures, those within others by the names of both."""
    for name, value in figures.items():
        whole = f"{above}{name}".replace("_", " ")
        if isinstance(value, dict) and not {"median", "min", "max"} <= value.keys():
            yield from flat(value, f"{whole}: ")
        elif name != "bench":
            yield [whole, value]


def plain_table(figures: Figures) -> Iterator[str]:
    yield from rows_text(["what", "figure"], list(flat(figures)))


TITLES = {
    "machine": "Machine",
    "comparison": "Whole programs",
    "limits": "What each stage can do, and how near the whole comes",
    "ratios": "Framebank against itself",
    "growth": "What grows with what",
    "start": "Starting",
    "epoch": "An epoch from the cache against one with the network in it",
    "score": "Scoring",
    "failed": "What failed",
}
_TABLES = {"comparison": comparison, "limits": limits}


def render(result: Figures) -> list[str]:
    """Return the lines of all tables of a result, in the order of TITLES."""
    lines: list[str] = []
    for part, title in TITLES.items():
        if result.get(part):
            lines += [f"### {title}", "", *_TABLES.get(part, plain_table)(result[part]), ""]
    return lines
