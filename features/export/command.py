"""`framebank export CACHE --to FORMAT OUT`: the features of a cache as other libraries' files.

    framebank export cache --to webdataset features

FORMAT is npz, parquet, webdataset, tfds or yt8m; infra/docs/how-to/export.md says what their files
hold. The same cache gives the same bytes. OUT, a folder on this machine, is there whole or not at
all: files are made in OUT.partial, where the same command goes on after a run that was ended. About
as fast as the disk; memory holds one file. Exit status: 0, 1 when it failed, 2 for a mistake in the
command line.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from framebank.features import progress
from framebank.features.bounds import parse_size
from framebank.features.cache.reader import Cache, open_cache
from framebank.features.cache.record import FeatureRecord
from framebank.features.errors import UsageError
from framebank.features.export.formats import FORMATS, count_outside, tfds_files
from framebank.features.stores import json_text, locks, storage
from framebank.features.terminal import say

_ABOUT = "_export.json"
_VERSION = 1  # another one: other bytes of the same videos


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("cache", metavar="CACHE", help="folder or gs://BUCKET/NAME of a cache")
    add("out", metavar="OUT", help="a new folder on this machine")
    add("--to", required=True, choices=FORMATS, help="what the files are for")
    add("--file-bytes", type=parse_size, default=128 * 2**20, metavar="SIZE",
        help="of features in a file, about; a video is never parted")  # fmt: skip
    add("--json", action="store_true", help="print the summary as JSON")


def run(args: argparse.Namespace, beam_args: list[str]) -> int:
    """Export, print the summary and return the exit status."""
    found = execute(args, beam_args)
    if args.json:
        print(json.dumps(found))
    else:
        print(
            f"{found['videos']:,} videos, {found['frames']:,} frames in {found['files']:,} files "
            f"({found['bytes']:,} bytes) of {args.out}"
        )
    return 0


def execute(args: argparse.Namespace, beam_args: list[str]) -> dict[str, Any]:
    """Export; return the summary. Raises UsageError, CacheError, JobError."""
    if args.file_bytes < 1:
        raise UsageError("--file-bytes must be above 0", got=args.file_bytes)
    todo = "export to a folder, then copy that"
    out = storage.on_this_machine(args.out, "an export is written to a local folder", todo=todo)
    cache = open_cache(args.cache)
    if not len(cache):
        raise UsageError(f"the cache {args.cache} holds no features", todo="extract videos first")
    out = Path(os.path.realpath(out))  # a link may name the place
    if cache.spec.holds_pictures:
        raise UsageError(
            f"{args.cache} holds pictures, and exports are of features",
            got=f"--backbone {cache.spec.backbone}",
            todo="read them with open_cache(...): record.pictures, .dataset() or .torch()",
        )
    parts = list(_deal(cache, args.file_bytes))
    key = _key(cache, args.to, parts)
    if done := _find(out, key):
        say(f"{out} holds just this already; nothing was done", "export")
        return done
    if os.path.ismount(out):  # which no folder can take the place of
        todo = f"give a folder in it: {out}/{args.to}"
        raise UsageError(f"{out} is where a disk is mounted", todo=todo)
    partial = out.with_name(out.name + ".partial")
    partial.mkdir(parents=True, exist_ok=True)
    with locks.held(str(partial), what=f"exporting to {out}"):
        _find(partial, key)
        _write_json(partial / _ABOUT, {"key": key})
        _write_parts(cache, partial, args.to, parts)
        summary = _finish(cache, partial, args.to, parts)
        _write_json(partial / _ABOUT, {"key": key} | summary)
        partial.rename(out)
    return summary


def _deal(cache: Cache, file_bytes: int) -> Iterator[tuple[int, int]]:
    """Yield the videos [start, end) of each file, from the sizes in the catalog."""
    grows = 4 if cache.spec.dtype == "uint8" else 1  # what is read from it is float32
    start, held = 0, 0
    for number, size in enumerate(cache.places.column("length").to_pylist()):
        if held and held + size * grows > file_bytes:
            yield start, number
            start, held = number, 0
        held += size * grows
    yield start, len(cache)


def _key(cache: Cache, to: str, parts: list[tuple[int, int]]) -> str:
    """Return what names the bytes of an export."""
    digest = hashlib.sha256(f"{_VERSION} {to} {cache.fingerprint} {parts}".encode())
    for batch in cache.places.select(["video_id", "key"]).to_batches():
        digest.update(json.dumps(batch.to_pydict()).encode())
    return digest.hexdigest()[:32]


def _find(folder: Path, key: str) -> dict[str, Any] | None:
    """Return the summary of the export in `folder`, None of none; raises UsageError for another."""
    if not folder.exists() or (folder.is_dir() and not any(folder.iterdir())):
        return None
    path = folder / _ABOUT
    about = json_text.read_object(str(path)) if path.exists() else {}
    if about.pop("key", None) == key:
        return about
    held = "another export" if path.exists() else "other things"
    todo = "give a new OUT, or remove that"
    raise UsageError(f"{folder} is there already, with {held} in it", todo=todo)


def _write_parts(cache: Cache, folder: Path, to: str, parts: list[tuple[int, int]]) -> None:
    """Write the files that are not there; one that is there is whole."""
    outside = 0

    def records(start: int, end: int) -> Iterator[FeatureRecord]:
        nonlocal outside
        for done, video in enumerate(cache.read_places(np.arange(start, end)), start + 1):
            yield video
            outside += count_outside(video.features) if to == "yt8m" else 0
            bar.update(done, f"{done:,} of {len(cache):,} videos")

    for path in folder.iterdir():
        if storage.is_leftover(str(path)):
            path.unlink()
    with progress.Bar("export", total=len(cache)) as bar:
        for number, (start, end) in enumerate(parts):
            path = folder / FORMATS[to].name(number, len(parts))
            if not path.exists():
                with storage.open_atomic(str(path)) as stream:
                    FORMATS[to].write(stream, records(start, end), start)
    if outside:
        text = "features are outside what yt8m's bytes can say: they are its ends now"
        say(f"{outside:,} {text}", "export")


def _finish(cache: Cache, folder: Path, to: str, parts: list[tuple[int, int]]) -> dict[str, Any]:
    """Write what is beside the files of videos, and return the summary."""
    names = [FORMATS[to].name(number, len(parts)) for number in range(len(parts))]
    summary = {
        "format": to,
        "videos": len(cache),
        "frames": sum(cache.places.column("rows").to_pylist()),
        "files": len(parts),
        "bytes": sum((folder / name).stat().st_size for name in names),
        "fingerprint": cache.fingerprint,
        "spec": cache.spec.to_json(),
    }
    if to == "tfds":
        lengths = [end - start for start, end in parts]
        for name, fields in tfds_files(summary, width=cache.feature_dim, lengths=lengths).items():
            _write_json(folder / name, fields)
    return summary


def _write_json(path: Path, fields: dict[str, Any]) -> None:
    storage.write_atomic(str(path), json.dumps(fields, indent=2).encode() + b"\n")
