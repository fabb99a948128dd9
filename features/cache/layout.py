"""Where things lie in a cache, and its spec.json.

    CACHE/spec.json                   what every feature was made with, and the fingerprint of that
    CACHE/shards/<shard>-<hash>.tfrecord    one record per video
    CACHE/shards/<shard>.index.json   sidecar: a row per video; its existence commits the shard
    CACHE/catalog/<run>.parquet       rows of all shards of a run
    CACHE/runs/<run>.json             summary of a run, written last
    CACHE/faults.json                 the shards that `framebank verify` found damaged

A file of records has the hash of its bytes in its name, and the sidecar, which is only ever
created, names it. So two attempts at one shard never write over each other: the first sidecar
holds, and bytes that differ lie in another file, which nobody reads. `<shard>.part<number>` is a
shard too: what was finished of <shard> when its worker was stopped, or some seconds ago.

Names come from files that anybody may have changed, so they are checked before they become a path:
nothing lands, or is read, outside CACHE.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Collection, Iterable

from framebank.features.errors import CacheError, FramebankError, JobError, UsageError
from framebank.features.spec import FeatureSpec
from framebank.features.stores import json_text, storage

TFRECORD_SUFFIX = ".tfrecord"
SIDECAR_SUFFIX = ".index.json"
FOLDERS = ("shards", "catalog", "runs")
_FAULTS = "faults.json"
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,199}")
_HASH_DIGITS = 12
_HASH = re.compile(rf"-[0-9a-f]{{{_HASH_DIGITS}}}\Z")
_PART = re.compile(r"(.+)\.part\d+")


def check_name(name: object) -> str:
    """Return the name of a shard or run; raises CacheError when it is not safe as a file name."""
    if not isinstance(name, str) or not _NAME.fullmatch(name):
        raise CacheError(
            "not the name of a shard or run", got=repr(name), expected="letters, digits and ._-"
        )
    return name


def spec_path(cache: str) -> str:
    return storage.join(cache, "spec.json")


def shards_folder(cache: str) -> str:
    return storage.join(cache, "shards")


def file_name(shard: str, sha256: str) -> str:
    """Return what rows call the file of records of a shard, by the SHA-256 of its bytes."""
    return f"{shard}-{sha256[:_HASH_DIGITS]}"


def shard_of(name: str) -> str:
    """Return the shard of what `file_name` gave; a shard's own name is its own."""
    return _HASH.sub("", name)


def shard_of_file(path: str) -> str | None:
    """Return the shard whose records lie in the file at `path`, None where it is no such file."""
    name = path.rsplit("/", 1)[-1]
    if not name.endswith(TFRECORD_SUFFIX) or name.startswith("."):
        return None
    return shard_of(name.removesuffix(TFRECORD_SUFFIX))


def part_name(shard: str, number: int) -> str:
    """Return the name of the `number`-th part of `shard`, from 0."""
    return f"{shard}.part{number}"


def whole_of(shard: str) -> str | None:
    """Return the shard of which `shard` is a part, None where it is none."""
    match = _PART.fullmatch(shard)
    return match[1] if match else None


def tfrecord_path(cache: str, name: str) -> str:
    """Return where the records lie that rows say lie in `name`."""
    return storage.join(cache, "shards", check_name(name) + TFRECORD_SUFFIX)


def sidecar_path(cache: str, name: str) -> str:
    """Return where the sidecar of a shard lies, or that of the file `name` of one."""
    return storage.join(cache, "shards", shard_of(check_name(name)) + SIDECAR_SUFFIX)


def catalog_folder(cache: str) -> str:
    return storage.join(cache, "catalog")


def catalog_path(cache: str, run_id: str) -> str:
    return storage.join(cache, "catalog", check_name(run_id) + ".parquet")


def run_path(cache: str, run_id: str) -> str:
    return storage.join(cache, "runs", check_name(run_id) + ".json")


def committed_shards(cache: str) -> list[str]:
    """Return the names of all shards that have a sidecar, sorted."""
    return committed_among(file.path for file in storage.iter_files(shards_folder(cache)))


def committed_among(paths: Iterable[str]) -> list[str]:
    """Return the names of the shards whose sidecars are among `paths`, sorted."""
    names = (path.rsplit("/", 1)[-1] for path in paths)
    return sorted(
        name.removesuffix(SIDECAR_SUFFIX)
        for name in names
        if name.endswith(SIDECAR_SUFFIX) and not name.startswith(".")
    )


def find_leftovers(cache: str) -> list[str]:
    """Return the paths that killed attempts left: temporary files, and shards without sidecar."""
    folders = (shards_folder(cache), cache, catalog_folder(cache), storage.join(cache, "runs"))
    shards, *others = ([file.path for file in storage.list_files(folder)] for folder in folders)
    found = [path for paths in (shards, *others) for path in paths if storage.is_leftover(path)]
    known = {None, *committed_among(shards)}
    return found + [path for path in shards if shard_of_file(path) not in known]


def write_spec(cache: str, spec: FeatureSpec, *, create_only: bool = True) -> bool:
    """Write spec.json; where it may only be created, returns False when there is one already."""
    return storage.write_atomic(spec_path(cache), _spec_bytes(spec), create_only=create_only)


def replace_spec(cache: str, spec: FeatureSpec) -> None:
    """Write another spec over one that nothing was made with; raises JobError if it changes."""
    before, generation = storage.read_with_generation(spec_path(cache))
    if before is None or not storage.replace_if(
        spec_path(cache), _spec_bytes(spec), generation=generation
    ):
        raise JobError(
            f"{spec_path(cache)} changed while it was looked at",
            got="another run, at work in the same place",
            todo="let one run at a time write to a cache, then run the same command again",
        )


def _spec_bytes(spec: FeatureSpec) -> bytes:
    fields = spec.to_json() | {"fingerprint": spec.fingerprint}
    return json.dumps(fields, indent=2).encode() + b"\n"


def read_spec(cache: str) -> FeatureSpec | None:
    """Return the spec of a cache, None where there is no spec.json.

    Raises CacheError for one that is damaged, UsageError for one of another version.
    """
    path = spec_path(cache)
    todo = "restore it, or extract into a new cache"
    try:
        fields = json_text.parse(storage.read_bytes(path))
        stated = fields.pop("fingerprint")
        text = json.dumps(fields, sort_keys=True, separators=(",", ":"))
    except storage.FileMissingError:
        return None
    except (ValueError, KeyError, TypeError, AttributeError) as err:
        got = f"{type(err).__name__}: {err}"
        raise CacheError(f"{path} is damaged", got=got, todo=todo) from err
    # Before anything else is believed: is it as it was written, by whatever version?
    fingerprint = hashlib.sha256(text.encode()).hexdigest()[:32]
    if stated != fingerprint:
        raise CacheError(
            f"{path} is damaged, or was changed by hand",
            got=f"fingerprint {stated}",
            expected=f"{fingerprint}, which is that of its fields",
            todo=todo,
        )
    try:
        return FeatureSpec.from_json(fields)
    except UsageError as err:
        raise UsageError(
            f"{path}: {err.what}", got=err.got, expected=err.expected, todo=err.todo
        ) from err


def damaged_shards(cache: str) -> frozenset[str]:
    """Return the shards at which the last `verify` found faults, for `extract` to make anew.

    None where that cannot be read: reading a whole cache back takes as long as its disk needs, so
    `extract` does not do it by itself; what can be told from names and sizes it sees all the same.
    """
    try:
        found = json_text.parse(storage.read_bytes(storage.join(cache, _FAULTS)))["damaged_shards"]
        return frozenset(map(check_name, found))
    except (FramebankError, ValueError, KeyError, TypeError, RecursionError):
        return frozenset()


def note_damaged(cache: str, shards: Collection[str]) -> None:
    """Note what is damaged, in place of what was noted before; raises as `storage` does."""
    path = storage.join(cache, _FAULTS)
    if shards:
        text = json.dumps({"damaged_shards": sorted(shards)}, indent=1)
        storage.write_atomic(path, text.encode() + b"\n")
    elif storage.exists(path):
        storage.delete(path)
