"""The submitter's hold on a cache: open it for one run, recover what an interrupted run left.

On a file system a lock on the folder keeps two runs apart; the kernel drops it with the process,
so a killed run blocks nobody.
"""

from __future__ import annotations

import contextlib
import datetime
import fcntl
import os
import secrets
import sys
from collections.abc import Iterator, Mapping

from features import layout, storage
from features.catalog import (
    catalog_files,
    catalog_rows,
    catalogued_shards,
    orphan_shards,
    read_catalog,
    write_catalog,
)
from features.errors import CacheError, UsageError
from features.sidecar import CatalogRow, read_sidecar
from features.spec import FeatureSpec, check_same_spec
from pipelines.plan import is_plan


@contextlib.contextmanager
def open_for_extraction(path: str, spec: FeatureSpec) -> Iterator[str]:
    """Make or open the cache and yield its absolute path, held against other runs.

    Raises SpecMismatchError for a cache of another spec, UsageError for a place that is taken by
    something else or by another run.
    """
    local = storage.is_local(path)
    cache = os.path.abspath(storage.local_path(path)) if local else path.rstrip("/")
    if local and os.path.lexists(cache) and not os.path.isdir(cache):
        raise UsageError(f"{cache} is a file", expected="a folder", todo="give another --cache")
    if layout.read_spec(cache) is None:
        check_empty(cache)
        layout.write_spec(cache, spec)
    with _locked(cache) if local else contextlib.nullcontext():
        cached = layout.read_spec(cache)
        if cached != spec and not _holds_features(cache):
            storage.delete(layout.spec_path(cache))  # of a run that ended before its first shard
            layout.write_spec(cache, spec)
        elif cached is not None:
            check_same_spec(cached, spec, where=cache)
        yield cache


@contextlib.contextmanager
def open_for_dry_run(path: str, spec: FeatureSpec) -> Iterator[str]:
    """Yield what `open_for_extraction` does, and raise what it does, but write nothing."""
    cache = os.path.abspath(storage.local_path(path)) if storage.is_local(path) else path
    cache = cache.rstrip("/")
    cached = layout.read_spec(cache)
    if cached is None:
        check_empty(cache)
    elif cached != spec and _holds_features(cache):
        check_same_spec(cached, spec, where=cache)
    yield cache


@contextlib.contextmanager
def _locked(cache: str) -> Iterator[None]:
    try:
        handle = os.open(cache, os.O_RDONLY)
    except OSError as error:
        raise storage.storage_error(cache, error, "open") from error
    try:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise UsageError(
                f"another run is writing to {cache}",
                todo="wait until it ends, then run the same command again",
            ) from None
        yield
    finally:
        os.close(handle)


def _holds_features(cache: str) -> bool:
    return bool(layout.committed_shards(cache) or catalog_files(cache))


def check_empty(cache: str) -> None:
    """A new cache begins in an empty place; files of other things are left alone."""
    if not storage.is_local(cache):
        taken = storage.folder_exists(cache)
    else:
        try:
            names = os.listdir(cache) if os.path.isdir(cache) else []
        except OSError as error:
            raise storage.storage_error(cache, error, "list") from error
        taken = not all(map(storage.is_leftover, names))  # of a run killed while it wrote spec.json
    if taken and layout.committed_shards(cache):
        raise CacheError(
            f"{layout.spec_path(cache)} is missing",
            got="shards that nobody can say how they were made",
            todo="restore it, or give another --cache",
        )
    if taken:
        raise UsageError(
            f"{cache} is no cache of Framebank, and it is not empty",
            got="no spec.json in it",
            expected="an empty or new folder, or a cache",
            todo="give another --cache",
        )


def recover_shards(cache: str, spec: FeatureSpec) -> tuple[int, int]:
    """Put committed shards that are in no catalog into one; return how many videos and shards."""
    orphans = orphan_shards(cache)
    rows: list[CatalogRow] = []
    for name in orphans:
        sidecar = read_sidecar(cache, name)
        if sidecar.fingerprint != spec.fingerprint:
            raise CacheError(
                f"shard {name} of {cache} was made in another way than the rest",
                got=f"fingerprint {sidecar.fingerprint}",
                expected=spec.fingerprint,
                todo=f"move shards/{name}.* out of the cache",
            )
        rows += sidecar.rows
    if rows:
        write_catalog(cache, f"{_stamp()}-recovered", rows)
    return len(rows), len(orphans)


def remove_leftovers(cache: str) -> int:
    """Remove what killed attempts left and nobody reads; return how many files.

    In a bucket no lock tells that nobody else is at work: a shard without a sidecar may be one that
    another run is about to commit. There only the plans of runs that have ended are removed.
    """
    runs = [file.path for file in storage.list_files(storage.join(cache, "runs"))]
    plans = [path for path in runs if is_plan(path)]
    if not storage.is_local(cache):
        ended = {path.removesuffix(".json") for path in runs if path.endswith(".json")}
        for run in sorted({path.rsplit(".plan-", 1)[0] for path in plans} - ended):
            _say_unended(cache, run.rsplit("/", 1)[-1])
        return sum(storage.delete(path) for path in plans if path.rsplit(".plan-", 1)[0] in ended)
    paths = layout.find_leftovers(cache) + plans
    if not paths:  # as nearly always: the catalogs need not be read a second time
        return 0
    # A shard that a catalog knows is no leftover: its sidecar was lost, readers still read it.
    kept = {layout.tfrecord_path(cache, shard) for shard in catalogued_shards(cache)}
    return sum(storage.delete(path) for path in paths if path not in kept)


def _say_unended(cache: str, run_id: str) -> None:
    """Name a run that has a plan and no summary: no lock tells whether it lives."""
    stamp = run_id.split("-", 1)[0]
    try:
        since = datetime.datetime.strptime(stamp[:15], "%Y%m%dT%H%M%S").isoformat(" ") + " UTC"
    except ValueError:
        since = stamp
    print(
        f"framebank: run {run_id} of {cache}, begun {since}, has not ended: it was stopped, or it "
        "is still at work; two runs at once do videos twice",
        file=sys.stderr,
        flush=True,
    )


def remove_plan(cache: str, run_id: str) -> None:
    """Remove the plan files of one run."""
    for file in storage.list_files(storage.join(cache, "runs")):
        if run_id in file.path and is_plan(file.path):
            storage.delete(file.path)


def rows_by_video(cache: str) -> dict[str, CatalogRow]:
    """Return the newest row of each video of the catalog; an empty one for a new cache."""
    if not catalog_files(cache):
        return {}
    return {row.video_id: row for row in catalog_rows(read_catalog(cache))}


def lost_videos(cache: str, rows: Mapping[str, CatalogRow]) -> set[str]:
    """Return the ids of catalog rows whose shard is missing, cut short, or without its sidecar."""
    files = storage.list_files(layout.shards_folder(cache)) if rows else []
    sizes = {file.path: file.size_bytes for file in files}

    def is_whole(row: CatalogRow) -> bool:
        size_bytes = sizes.get(layout.tfrecord_path(cache, row.shard), -1)
        committed = layout.sidecar_path(cache, row.shard) in sizes
        return committed and size_bytes >= row.offset + row.length

    return {video_id for video_id, row in rows.items() if not is_whole(row)}


def new_run_id(rows: Mapping[str, CatalogRow]) -> str:
    """Return an id that sorts after those of all earlier runs, whatever the clock says."""
    latest = max((row.run_id for row in rows.values()), default="")
    stamp = _stamp()
    if stamp <= latest:
        stamp = latest.rsplit("-", 1)[0] + "0"  # one digit more: it sorts right behind
    return f"{stamp}-{secrets.token_hex(2)}"


def _stamp() -> str:
    return datetime.datetime.now(datetime.timezone.utc).strftime("%Y%m%dT%H%M%S%f")
