"""`framebank ls CACHE`: the videos of a cache, filtered and sorted by any column of its catalog.

    framebank ls cache --where status=quarantined
    framebank ls cache --where 'duration_s>10' --where 'video_id~truck' --sort duration_s --limit 20

A condition is COLUMN OPERATOR VALUE, with one of = != < <= > >= and ~ (text that contains VALUE);
several hold together. Quote < and >, which shells take for themselves. Columns are those of the
catalog, a manifest's too, with `status`, `duration_s`, `frames` and `folder` (what is before the
last slash of the id). Reads the catalog alone: seconds for a million videos.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from framebank.features.errors import UsageError
from framebank.features.terminal import printable, say

if TYPE_CHECKING:
    from framebank.features.browsing.columns import VideoTable

_SHOWN = ("video_id", "status", "frames", "duration_s")
_WIDEST = 60
_BATCH_ROWS = 10_000


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("cache", metavar="CACHE", help="folder or gs://BUCKET/NAME of a cache")
    add("--where", action="append", default=[], metavar="CONDITION",
        help="such as 'duration_s>10'; give it once for each")  # fmt: skip
    add("--sort", metavar="COLUMN", help="in the order of this column (default the catalog's)")
    add("--descending", action="store_true", help="the largest or last first")
    add("--limit", type=int, metavar="N", help="the first N rows alone")
    add("--json", action="store_true", help="print one JSON document, with all columns")


def next_command(args: argparse.Namespace) -> str:
    """Return what comes next: nothing is said at the end of a look."""
    return ""


def run(args: argparse.Namespace, beam_args: list[str]) -> int:
    """Print the rows; returns 0. Raises UsageError, CacheError."""
    if args.json:
        found = execute(args, beam_args)
        print(json.dumps(found, ensure_ascii=False))
        return 0
    table, places = _selected(args)
    shown = places if args.limit is None else places[: args.limit]
    names = _columns(table, args)
    for start in range(0, len(shown), _BATCH_ROWS):
        rows = table.rows(shown[start : start + _BATCH_ROWS])
        print("\n".join(_lines(rows, names, header=not start)))
    if len(shown) < len(places):
        say(f"the first {len(shown):,} of {len(places):,} videos")
    elif len(places) < len(table) or not len(places):
        say(f"{len(places):,} of {len(table):,} videos")
    return 0


def execute(args: argparse.Namespace, beam_args: list[str]) -> dict[str, Any]:
    """Return how many rows there are, and those that were asked for."""
    table, places = _selected(args)
    shown = places if args.limit is None else places[: args.limit]
    return {"total": len(places), "rows": table.rows(shown)}


def _selected(args: argparse.Namespace) -> tuple[VideoTable, Any]:
    from framebank.features.browsing.columns import VideoTable
    from framebank.features.browsing.conditions import select_rows
    from framebank.features.cache.reader import open_cache

    if args.limit is not None and args.limit < 0:
        raise UsageError("--limit must not be below 0", got=args.limit)
    table = VideoTable(open_cache(args.cache).table())
    places = select_rows(table, args.where)
    return table, table.ordered(places, args.sort, descending=args.descending)


def _columns(table: VideoTable, args: argparse.Namespace) -> list[str]:
    """Return what is shown: a few columns, and those that were asked about."""
    from framebank.features.browsing.conditions import read_condition

    asked = [read_condition(table, words).column for words in args.where]
    if args.sort is not None:
        asked.append(table.known(args.sort))
    if "quarantined" in "".join(args.where):
        asked += ["error_class", "message"]
    return list(dict.fromkeys([*_SHOWN, *asked]))


def _lines(
    rows: Sequence[Mapping[str, Any]], names: Sequence[str], *, header: bool
) -> Iterator[str]:
    cells = [[_cell(row[name]) for name in names] for row in rows]
    if header:
        cells.insert(0, list(names))
    widths = [min(_WIDEST, max(map(len, column))) for column in zip(*cells, strict=True)]
    for row in cells:
        padded = (cell.ljust(width) for cell, width in zip(row, widths, strict=True))
        yield "  ".join(padded).rstrip()


def _cell(value: Any) -> str:
    if value is None:
        return ""
    if isinstance(value, float):
        return f"{value:.2f}"
    return printable(str(value).lower() if isinstance(value, bool) else value)
