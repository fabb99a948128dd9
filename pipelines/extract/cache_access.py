"""The submitter's hold on a cache: open it for one run, recover what an interrupted run left.

A lock or a lease keeps two runs apart (`features/stores/locks.py`).
"""

from __future__ import annotations

import contextlib
import dataclasses
import datetime
import itertools
import os
import secrets
from collections.abc import Iterator

import numpy as np

from framebank.features.cache import layout
from framebank.features.cache.catalog import (
    DamagedCatalogError,
    catalog_files,
    catalog_text,
    catalogued_shards,
    orphan_shards,
    read_catalog,
    read_file,
    write_catalog,
)
from framebank.features.cache.known_videos import KnownVideos
from framebank.features.cache.sidecar import CatalogRow, read_sidecar, remove_shard
from framebank.features.cache.tfrecord import MOST_FRAME_BYTES
from framebank.features.errors import CacheError, FramebankError, UsageError
from framebank.features.spec import PRECISIONS, FeatureSpec, check_same_spec
from framebank.features.stores import json_text, locks, storage
from framebank.features.terminal import say
from framebank.pipelines.extract.plan import plan_files, summary_files

_ASKED_SHARDS = 1000


@contextlib.contextmanager
def open_for_extraction(path: str, spec: FeatureSpec, *, dry_run: bool = False) -> Iterator[str]:
    """Make or open the cache and yield its absolute path, held against other runs.

    A `dry_run` raises the same, and writes and holds nothing.
    Raises SpecMismatchError for a cache of another spec, UsageError for a place that is taken by
    something else or by another run.
    """
    cache = storage.absolute(path)
    if os.path.lexists(cache) and not os.path.isdir(cache):
        raise UsageError(f"{cache} is a file", expected="a folder", todo="give another --cache")
    if not dry_run:
        _mend_spec(cache, spec)
    cached = layout.read_spec(cache)
    if cached is None:
        check_empty(cache)
    elif dry_run and cached != spec and is_in_use(cache):
        check_same_spec(cached, spec, where=cache)
    if dry_run:
        yield cache
        return
    if cached is None:
        storage.make_folder(cache)
    with locks.held(cache, what=f"writing to {cache}"):
        if not layout.write_spec(cache, spec):
            cached = layout.read_spec(cache)
            if cached != spec and not is_in_use(cache):  # of a run that ended before its first
                layout.replace_spec(cache, spec)
            elif cached is not None:
                check_same_spec(cached, spec, where=cache)
        yield cache


def _mend_spec(cache: str, spec: FeatureSpec) -> None:
    """Write spec.json anew where it is lost or damaged and the shards say that it was `spec`."""
    with contextlib.suppress(CacheError):
        if layout.read_spec(cache) is not None:
            return
    if _fingerprints(cache) == {spec.fingerprint}:
        layout.write_spec(cache, spec, create_only=False)
        say(f"{layout.spec_path(cache)} was lost or damaged and is written anew, by its shards")


def _fingerprints(cache: str) -> set[str]:
    """Return what the shards of a cache say they were made with."""
    made = set()
    for name in itertools.islice(layout.committed_shards(cache), _ASKED_SHARDS):
        with contextlib.suppress(CacheError):
            made.add(read_sidecar(cache, name).fingerprint)
    return made


def computed_in(path: str, spec: FeatureSpec) -> FeatureSpec | None:
    """Return `spec` in the precision of the cache at `path`, by the cache's spec or, where that is
    lost or damaged, by its shards; None where there is none, or none that `spec` could be of."""
    cache = storage.absolute(path)
    with contextlib.suppress(CacheError):
        if (cached := layout.read_spec(cache)) is not None:
            return dataclasses.replace(spec, precision=cached.precision, quantised=cached.quantised)
    made = _fingerprints(cache)
    for precision in PRECISIONS:
        could_be = dataclasses.replace(spec, precision=precision)
        if made == {could_be.fingerprint}:
            return could_be
    return None


def is_new(path: str) -> bool:
    """Tell whether there is no cache yet, of which a run lacks everything."""
    with contextlib.suppress(FramebankError):  # which opening it will raise
        return layout.read_spec(storage.absolute(path)) is None
    return False


def was_made_by(path: str, spec: FeatureSpec) -> bool:
    """Tell whether there is a cache of `spec`, in whatever precision, which was then found to be
    one that computes."""
    with contextlib.suppress(FramebankError):
        if (cached := layout.read_spec(storage.absolute(path))) is not None:
            precision, quantised = spec.precision, spec.quantised
            return dataclasses.replace(cached, precision=precision, quantised=quantised) == spec
    return False


def is_in_use(cache: str) -> bool:
    """Tell whether somebody made features by its spec, or may be about to.

    Of a run whose plan lies there nobody knows in a bucket whether it lives. On a disk the lock
    tells, and Flink itself is asked for jobs that outlived their client.
    """
    if layout.committed_shards(cache) or catalog_files(cache):
        return True
    return not storage.is_local(cache) and bool(plan_files(cache))


def check_empty(cache: str) -> None:
    """A new cache begins in an empty place; files of other things are left alone."""
    # The lease may be of a run that begins at this moment.
    if storage.is_empty(cache, but=locks.lease_path(cache)):
        return
    if layout.committed_shards(cache):
        raise CacheError(
            f"{layout.spec_path(cache)} is missing",
            got="shards that nobody can say how they were made",
            todo="restore it, or give another --cache",
        )
    raise UsageError(
        f"{cache} is no cache of Framebank, and it is not empty",
        got="no spec.json in it",
        expected="an empty or new folder, or a cache",
        todo="give another --cache",
    )


@dataclasses.dataclass(frozen=True)
class Recovery:
    """What was found of interrupted runs and of damage.

    `shards` committed shards with `videos` videos had no catalog, and have one now; the `removed`
    can be of no use to anybody. `lost` are the ids of videos whose features cannot be read.
    """

    videos: int = 0
    shards: int = 0
    removed: tuple[str, ...] = ()  # what, and why
    known: KnownVideos = dataclasses.field(default_factory=lambda: KnownVideos.of(()))
    lost: frozenset[str] = frozenset()


def recover(cache: str, spec: FeatureSpec, *, dry_run: bool = False) -> Recovery:
    """Take stock of a cache before a run: mend what can be mended from what is there.

    In a `dry_run` nothing is changed, and a catalog that cannot be read raises.

    A catalog that cannot be read is put aside (`damaged/`), and its shards are put into a new one;
    committed shards that are in no catalog get one, unless other shards have all of their videos.
    """
    removed = [] if dry_run else [*_remove_damaged_summaries(cache)]
    try:
        known = KnownVideos.read(cache)
    except DamagedCatalogError:
        if dry_run:
            raise
        removed += _remove_damaged_catalogs(cache)
        known = KnownVideos.read(cache)
    found: list[CatalogRow] = []
    shards = 0
    for name, why, some in _orphans(cache, spec, known):
        if not why:
            shards += 1
            found += some
        elif not dry_run:
            remove_shard(cache, name)
            removed.append(f"shard {name}: {why}")
    if found:
        known = known.with_rows(found)
        if not dry_run:
            write_catalog(cache, f"{_stamp()}-recovered", found)
    lost = lost_videos(cache, known, fingerprint=spec.fingerprint)
    return Recovery(len(found), shards, tuple(removed), known, lost)


def _remove_damaged_catalogs(cache: str) -> Iterator[str]:
    for path in catalog_files(cache):
        try:
            read_file(path, None)
        except DamagedCatalogError as error:
            _put_aside(cache, path)
            yield f"{path}, which cannot be read ({error.got}); its shards are kept"


def _remove_damaged_summaries(cache: str) -> Iterator[str]:
    for path in summary_files(cache):
        try:
            json_text.parse(storage.read_bytes(path))
        except ValueError as error:
            _put_aside(cache, path)
            yield f"{path}, which is no JSON ({error})"


def _put_aside(cache: str, path: str) -> None:
    """Move a damaged file to where nobody reads it; raises where its bytes cannot even be read."""
    name = path.rsplit("/", 1)[-1]
    storage.write_atomic(storage.join(cache, "damaged", name), storage.read_bytes(path))
    storage.delete(path)


def _orphans(
    cache: str, spec: FeatureSpec, known: KnownVideos
) -> Iterator[tuple[str, str, list[CatalogRow]]]:
    """Yield (shard, why it is of no use or "", its rows that count) of shards in no catalog."""
    names = orphan_shards(cache)
    if not names:
        return
    sizes, noted = _file_sizes(cache), layout.damaged_shards(cache)
    names.sort(key=lambda name: layout.whole_of(name) is not None)  # wholes before their parts
    made = zip(known.values("run_id"), known.values("time"), strict=True)
    taken = dict(zip(known.values("video_id"), made, strict=True))
    good = set(layout.committed_among(sizes)) - noted
    for name in names:
        if layout.whole_of(name) in good:
            yield name, "it is part of one that is whole by now", []
            continue
        try:
            found = read_sidecar(cache, name)
        except CacheError as error:
            good.discard(name)
            yield name, f"{error.got}", []
            continue
        path = layout.tfrecord_path(cache, found.file)
        if found.fingerprint != spec.fingerprint:
            yield name, f"it was made with another spec, {found.fingerprint}", []
        elif sizes.get(path) != found.tfrecord_bytes or name in noted:
            good.discard(name)
            yield name, f"{path} is missing or damaged", []
        else:
            new = []
            for row in found.rows:
                before = taken.get(catalog_text(row.video_id))
                if before is None or before < (row.run_id, row.time):
                    new.append(row)
            taken |= {catalog_text(row.video_id): (row.run_id, row.time) for row in new}
            yield name, "" if new else "other shards have its videos", new


def remove_leftovers(cache: str) -> int:
    """Remove what killed attempts left and nobody reads; return how many files.

    In a bucket no lock tells that nobody else is at work: a shard without a sidecar may be one that
    another run is about to commit. There only the plans of runs that have ended are removed.
    """
    plans = plan_files(cache)
    if not storage.is_local(cache):
        ended = {path.removesuffix(".json") for path in summary_files(cache)}
        run_of = {path: path.rsplit(".plan-", 1)[0] for path in plans}
        for run in sorted(set(run_of.values()) - ended):
            _say_unended(cache, run.rsplit("/", 1)[-1])
        return sum(storage.delete(path) for path, run in run_of.items() if run in ended)
    paths = layout.find_leftovers(cache) + plans
    if not paths:  # as nearly always: the catalogs need not be read a second time
        return 0
    # A shard that a catalog knows is no leftover: its sidecar was lost, readers still read it.
    kept = {layout.tfrecord_path(cache, shard) for shard in catalogued_shards(cache)}
    return sum(storage.delete(path) for path in paths if path not in kept)


def _say_unended(cache: str, run_id: str) -> None:
    stamp = run_id.split("-", 1)[0]
    try:
        since = datetime.datetime.strptime(stamp[:15], "%Y%m%dT%H%M%S").isoformat(" ") + " UTC"
    except ValueError:
        since = stamp
    say(
        f"run {run_id} of {cache}, begun {since}, has not ended: it was stopped, or it is still at "
        "work; two runs at once do videos twice"
    )


def remove_plan(cache: str, run_id: str) -> None:
    for path in plan_files(cache):
        if run_id in path:
            storage.delete(path)


def lost_videos(cache: str, known: KnownVideos, *, fingerprint: str) -> frozenset[str]:
    """Return the ids of catalog rows whose features cannot be read, or are of another spec.

    Their shard is missing, cut short or without its sidecar, or `framebank verify` has noted it;
    or their record is larger than what readers take.
    """
    if not len(known):
        return frozenset()
    sizes, noted = _file_sizes(cache), layout.damaged_shards(cache)

    def readable_bytes(file: str) -> int:
        committed = layout.sidecar_path(cache, file) in sizes
        whole = committed and layout.shard_of(file) not in noted
        return sizes.get(layout.tfrecord_path(cache, file), -1) if whole else -1

    most = np.array([readable_bytes(file) for file in known.texts("shard")], np.int64)
    length = known.numbers("length")
    whole = most[known.numbers("shard")] - length >= known.numbers("offset")
    whole &= length <= MOST_FRAME_BYTES
    whole &= known.is_text("fingerprint", "") | known.is_text("fingerprint", fingerprint)
    return frozenset(known.values("video_id", np.flatnonzero(~whole)))


def remove_lost_shards(cache: str, before: Recovery) -> list[str]:
    """Remove the damaged shards whose videos all lie in others by now; return those that stay."""
    files = set(before.known.values("shard", before.known.find(list(before.lost))))
    shards = set(map(layout.shard_of, files)) | layout.damaged_shards(cache)
    if not shards:
        return []
    newest = read_catalog(cache, columns=["shard"])
    live = set(map(layout.shard_of, newest.column("shard").unique().to_pylist()))
    for name in sorted(shards - live):
        remove_shard(cache, name)
    for file in sorted(files):  # whose sidecar, which named it, may be lost or damaged
        if layout.shard_of(file) not in live:
            storage.delete(layout.tfrecord_path(cache, file))
    layout.note_damaged(cache, shards & live)
    return sorted(shards & live)


def _file_sizes(cache: str) -> dict[str, int]:
    files = storage.iter_files(layout.shards_folder(cache))
    return {file.path: file.size_bytes for file in files}


def new_run_id(latest: str) -> str:
    """Return an id that sorts after the `latest` of all earlier runs, whatever the clock says."""
    stamp = _stamp()
    if stamp <= latest:
        stamp = latest.rsplit("-", 1)[0] + "0"  # one digit more: it sorts right behind
    return f"{stamp}-{secrets.token_hex(2)}"


def _stamp() -> str:
    return datetime.datetime.now(datetime.UTC).strftime("%Y%m%dT%H%M%S%f")
