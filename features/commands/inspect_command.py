"""`framebank inspect CACHE`: what a cache holds, what was quarantined, what became of one video.

Reads the catalog only (seconds for a million videos), and with --video one record. With --json one
JSON document on stdout: a summary, with --quarantined a list of rows, with --video one row.
"""

from __future__ import annotations

import argparse
import json
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from framebank.features.cache import catalog, layout
from framebank.features.cache.reader import Cache, open_cache
from framebank.features.errors import ERROR_CLASSES, REMEDIES, FramebankError, UsageError
from framebank.features.questions.videos import ClipNames
from framebank.features.stores import storage
from framebank.features.terminal import printable, say, size_text

# What --quarantined --json gives of each row, in this order; the manifest's columns follow.
_QUARANTINE_FIELDS = (
    *("video_id", "uri", "stage", "error_class", "message", "attempt", "time", "size_bytes"),
    *("generation", "run_id", "shard", "key"),
)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("cache", metavar="CACHE", help="folder or gs://BUCKET/NAME of a cache")
    what = parser.add_mutually_exclusive_group()
    what.add_argument(
        "--quarantined", action="store_true", help="list the videos that could not be used, and why"
    )
    what.add_argument(
        "--video", dest="video_id", metavar="ID", help="show one video: its row and its frames"
    )
    parser.add_argument("--json", action="store_true", help="print one JSON document")


def run(args: argparse.Namespace, beam_args: list[str]) -> int:
    """Print what was asked for; returns 0. Raises UsageError, CacheError."""
    cache = open_cache(args.cache)
    found: Any
    lines_of: Callable[[Any], list[str]]
    if args.video_id is not None:
        found, lines_of = describe_video(cache, args.video_id), _video_lines
    elif args.quarantined:
        found, lines_of = quarantined_rows(cache), _quarantine_lines
    else:
        found, lines_of = summarise(cache), _summary_lines
    if args.json:  # NaN and infinity, of which JSON knows neither, become null
        found = json.loads(json.dumps(found), parse_constant=lambda name: None)
    print(json.dumps(found, indent=2) if args.json else "\n".join(lines_of(found)))
    if orphans := catalog.orphan_shards(args.cache, catalogued=cache.catalogued_files):
        say(
            f"{len(orphans)} committed shards are in no catalog yet (a run was "
            "interrupted); run the same extract command again to add them"
        )
    return 0


def summarise(cache: Cache) -> dict[str, Any]:
    """Return counts, size and spec of a cache; frames and videos are those that readers see."""
    table = cache.table(["state", "rows", "error_class", "partial", "capped"])
    done, bad = (catalog.where(table, "state", state) for state in ("done", "quarantined"))
    files = storage.list_files(layout.shards_folder(cache.path))
    committed = set(layout.committed_among(file.path for file in files))
    shards = [file for file in files if layout.shard_of_file(file.path) in committed]
    try:
        width = cache.feature_dim
    except FramebankError:  # a damaged record is for verify to name; the catalog can still be shown
        width = None
    return {
        "videos": {"done": len(done), "quarantined": len(bad)},
        "frames": sum(done.column("rows").to_pylist()),
        "shards": len(shards),
        "bytes": sum(file.size_bytes for file in shards),
        "fingerprint": cache.fingerprint,
        "spec": cache.spec.to_json(),
        "random_weights": cache.spec.random_weights,
        "feature_dim": width,
        "partial": sum(done.column("partial").to_pylist()),
        "capped": sum(done.column("capped").to_pylist()),
        "quarantined_by_class": dict(Counter(bad.column("error_class").to_pylist()).most_common()),
        "runs": len(catalog.catalog_files(cache.path)),
    }


def quarantined_rows(cache: Cache) -> list[dict[str, Any]]:
    """Return one dict per quarantined video, by class and id."""
    rows = catalog.catalog_rows(catalog.where(cache.table(), "state", "quarantined"))
    return [
        {name: getattr(row, name) for name in _QUARANTINE_FIELDS} | dict(row.columns)
        for row in sorted(rows, key=lambda row: (row.error_class, row.video_id))
    ]


def describe_video(cache: Cache, video_id: str) -> dict[str, Any]:
    """Return a video's row, and for a done one its frames' times and numbers; it is found as that
    of a question is. Raises UsageError with near matches."""
    table = cache.table()
    names = ClipNames(table.column("video_id").to_pylist())
    found_id = names.find(video_id)
    if found_id is None:
        raise UsageError(
            f"no video {printable(video_id)!r} in {cache.path}",
            got=f"{len(table)} videos, none of that id",
            todo=names.hint(video_id)
            or "`framebank inspect CACHE --json` counts them, the catalog/*.parquet lists them",
        )
    row = next(catalog.catalog_rows(catalog.where(table, "video_id", found_id)))
    found = row.to_json()
    found |= found.pop("columns")
    if row.state == "done":
        record = cache[found_id]
        found["features"] = {"shape": list(record.features.shape), "dtype": record.dtype}
        found["pts_ms"] = record.pts_ms.tolist()
        found["frame_index"] = record.frame_index.tolist()
        if record.span_ms is not None:
            found["span_ms"] = record.span_ms.tolist()
    return found


def _summary_lines(found: Mapping[str, Any]) -> list[str]:
    videos = found["videos"]
    width = "" if found["feature_dim"] is None else f" of {found['feature_dim']} features"
    facts = [
        ("videos", f"{videos['done']:,} done, {videos['quarantined']:,} quarantined"),
        ("frames", f"{found['frames']:,}{width}"),
        ("shards", f"{found['shards']:,}, {size_text(found['bytes'])}"),
        ("runs", f"{found['runs']:,}"),
        ("fingerprint", found["fingerprint"]),
    ]
    facts += [(name, f"{found[name]:,} videos") for name in ("partial", "capped") if found[name]]
    lines = [f"{name:16}{value}" for name, value in facts]
    lines += ["", "spec"]
    lines += [f"  {name:16}{printable(value)}" for name, value in found["spec"].items()]
    if found["random_weights"]:
        lines += ["", "RANDOM weights: these features are for trying things out, they mean nothing"]
    if found["quarantined_by_class"]:
        lines += ["", "quarantined (--quarantined lists them)"]
        lines += [
            f"  {name:18}{count:>8,}  {ERROR_CLASSES.get(name, '')}"
            for name, count in found["quarantined_by_class"].items()
        ]
    return lines


def _quarantine_lines(rows: Sequence[Mapping[str, Any]]) -> list[str]:
    if not rows:
        return ["no video is quarantined"]
    lines = []
    for error_class, count in Counter(row["error_class"] for row in rows).most_common():
        todo = f"; to do: {REMEDIES[error_class]}" if error_class in REMEDIES else ""
        lines.append(f"{error_class} ({count:,}): {ERROR_CLASSES.get(error_class, '')}{todo}")
        for row in (row for row in rows if row["error_class"] == error_class):
            tries = f", attempt {row['attempt']}" if row["attempt"] > 1 else ""
            told = f"at {row['stage']}{tries}, {row['time']}: {printable(row['message'])}"
            lines += [f"  {printable(row['video_id'])}", f"      {told}"]
        lines.append("")
    return lines[:-1]


def _video_lines(found: Mapping[str, Any]) -> list[str]:
    facts = dict(found)
    if found["state"] == "done":
        for name in ("stage", "error_class", "message"):  # of a quarantined one
            del facts[name]
        made = found["features"]
        facts["features"] = f"{made['dtype']}{made['shape']}"
        facts |= {name: _shortened(found[name]) for name in ("pts_ms", "frame_index")}
        if "span_ms" in found:
            facts["span_ms"] = _shortened([f"{start}-{end}" for start, end in found["span_ms"]])
    return [f"{name:20}{printable(value)}" for name, value in facts.items()]


def _shortened(values: Sequence[object]) -> str:
    if len(values) <= 12:
        return " ".join(map(str, values))
    start, end = " ".join(map(str, values[:6])), " ".join(map(str, values[-3:]))
    return f"{start} … {end} ({len(values)} in all)"
