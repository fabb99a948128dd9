"""What the INPUT arguments name: files, folders, globs, bucket prefixes and manifests.

Nothing is opened but manifests, and each file is looked at once (size and mtime). What is no
regular file (a named pipe, a link to nowhere) comes along, so that the job can quarantine it.

`video_id` is the path relative to the INPUT folder (to the fixed part of a glob, to the prefix in
a bucket), the file's name for a single file, and for a manifest what it says. Two videos with one
id are refused before any work.
"""

from __future__ import annotations

import dataclasses
import difflib
import glob
import os
import stat
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence

from framebank.features.errors import UsageError
from framebank.features.stores import objects, storage
from framebank.features.video import (
    PICTURE_SUFFIXES,
    UNLISTED,
    VIDEO_SUFFIXES,
    VideoRef,
    catalog_text,
)
from framebank.pipelines.inputs import manifests
from framebank.pipelines.inputs.matching import (
    compile_glob,
    fixed_part,
    names_suffix,
    suffix_of,
    unlisted_by,
    walk,
)

_MAX_ID_CHARS = 1024
_NOT_THERE = (-1, "")  # size_bytes and version
_STAT_ONE_BY_ONE = 8  # more objects of one folder than this are listed instead of asked for


@dataclasses.dataclass(frozen=True)
class InputListing:
    """The videos to account for, the files in folders that are none, and remarks for people."""

    refs: list[VideoRef]
    skipped_by_suffix: dict[str, int]
    notes: list[str]


def expand_inputs(inputs: Sequence[str], *, images: bool, cache: str | None = None) -> InputListing:
    """Return all videos that `inputs` name, each once, in the order of `inputs` and then of name.

    `images` takes picture suffixes from folders too; the folder `cache` is never walked.
    Raises UsageError for a path that does not exist, an INPUT that names no video, a manifest that
    cannot be used, and two videos with one id.
    """
    if not inputs:
        raise UsageError("no INPUT", expected="files, folders, globs, gs:// or manifests")
    expansion = _Expansion(images, cache)
    for text in inputs:
        expansion.add(text)
    return expansion.finish()


class _Expansion:
    """Collects refs; one method per kind of INPUT."""

    def __init__(self, images: bool, cache: str | None) -> None:
        self._suffixes = VIDEO_SUFFIXES | PICTURE_SUFFIXES if images else VIDEO_SUFFIXES
        local = cache is not None and storage.is_local(cache)
        self._cache = os.path.realpath(storage.local_path(cache)) if local and cache else None
        self._refs: dict[str, VideoRef] = {}
        self._skipped: Counter[str] = Counter()
        self._notes: list[str] = []
        self._unlisted: list[str] = []
        self._repeated = 0

    def finish(self) -> InputListing:
        if self._repeated:
            self._notes.append(
                f"{self._repeated} videos were named more than once; each counts once"
            )
        if self._unlisted:
            some = ", ".join(self._unlisted[:3]) + (", …" if len(self._unlisted) > 3 else "")
            self._notes.append(
                f"folders that cannot be listed, so that what is in them is not known: "
                f"{len(self._unlisted)}, each quarantined as unreadable ({some})"
            )
        if doubled := self._doubled():
            self._notes.append(f"{doubled} files come in under more than one video_id")
        skipped = dict(sorted(self._skipped.items()))
        return InputListing(list(self._refs.values()), skipped, self._notes)

    def _doubled(self) -> int:
        """Return how many files have more than one id."""
        if len({ref.uri for ref in self._refs.values()}) == len(self._refs):  # as nearly always
            return 0
        ids_of = Counter(ref.uri for ref in self._refs.values())
        return sum(count > 1 for count in ids_of.values())

    def add(self, text: str) -> None:
        before = len(self._refs) + self._repeated
        skipped = self._skipped.copy()
        if not text:
            raise UsageError("an empty INPUT", expected="files, folders, globs, gs:// or manifests")
        if storage.is_local(text):
            self._add_local(storage.local_path(text))
        else:
            self._add_bucket(text)
        if len(self._refs) + self._repeated == before:
            others = self._skipped - skipped
            pictures = not PICTURE_SUFFIXES.isdisjoint(others)
            raise UsageError(
                f"no video in {text}",
                got=f"only other files: {by_suffix(others)}" if others else "nothing at all",
                expected="at least one video",
                todo="add --images to take pictures" if pictures else "check the path",
            )

    # Local paths

    def _add_local(self, path: str) -> None:
        if os.path.isdir(path):
            if self._cache is not None and os.path.realpath(path) == self._cache:
                raise UsageError(
                    "an INPUT is the cache itself", got=path, expected="a folder of clips"
                )
            base = os.path.abspath(path)
            for found in self._walk(base, base):
                self._add_found(found.path, base, found)
        elif os.path.lexists(path):
            self._add_named(os.path.abspath(path), os.path.basename(path))
        elif glob.has_magic(path):
            self._add_glob(path)
        else:
            raise _no_such_path(path)

    def _add_named(self, path: str, video_id: str) -> None:
        """Add a file that was named outright: always tried."""
        if manifests.is_manifest(path) and os.path.isfile(path):
            self._add_manifest(path)
        else:
            self._put(VideoRef(video_id, path, *_local_facts(path)))

    def _walk(self, folder: str, base: str) -> Iterator[os.DirEntry[str]]:
        return walk(folder, self._cache, lambda path, err: self._add_unlisted(path, base, err))

    def _add_unlisted(self, path: str, base: str, err: OSError) -> None:
        """Put a folder that cannot be listed in the place of what is in it.

        Raises UsageError where it is what the INPUT names.
        """
        if os.path.abspath(path) == os.path.abspath(base):
            raise storage.storage_error(path, err, "list") from err
        why = f"{UNLISTED}{err.strerror}"
        self._put(VideoRef(os.path.relpath(path, base), os.path.abspath(path), -1, why))
        self._unlisted.append(path)

    def _add_found(self, path: str, base: str, entry: os.DirEntry[str] | None = None) -> None:
        """Add a file from a folder if its suffix is right, else count it."""
        suffix = suffix_of(path)
        if suffix not in self._suffixes:
            self._skipped[catalog_text(suffix)] += 1
            return
        # Below it is all but what globs with `..` find.
        video_id = _below(base, path) or os.path.relpath(path, base)
        self._put(VideoRef(video_id, path, *_local_facts(entry or path)))

    def _add_glob(self, pattern: str) -> None:
        base = os.path.abspath(fixed_part(pattern))
        named = names_suffix(pattern)
        for path in sorted(self._matches(pattern, base)):
            if named and not os.path.isdir(path):
                self._add_named(path, os.path.relpath(path, base))
            else:
                if os.path.isdir(path):
                    for found in self._walk(path, base):
                        self._add_found(found.path, base, found)
                else:
                    self._add_found(path, base)

    def _matches(self, pattern: str, base: str) -> Iterator[str]:
        if "**" not in pattern:
            for folder, err in unlisted_by(pattern):
                self._add_unlisted(folder, base, err)
            return (os.path.abspath(path) for path in glob.iglob(pattern))
        # The library's own `**` runs in circles where a link leads back, ours sees a folder once.
        whole = os.path.join(glob.escape(base), pattern[len(fixed_part(pattern)) :])
        compiled = compile_glob(whole)
        found = self._walk(base, base) if os.path.isdir(base) else ()
        return (entry.path for entry in found if compiled.fullmatch(entry.path))

    # Buckets

    def _add_bucket(self, path: str) -> None:
        store = storage.store_of(path)
        holder, name = objects.split(path)
        found = store.stat(path)
        if found is not None:
            if manifests.is_manifest(path):
                self._add_manifest(path)
            else:
                self._put(VideoRef(name.rsplit("/", 1)[-1], path, *found))
            return
        if glob.has_magic(name):
            root = f"{path.partition('://')[0]}://{holder}/"
            base, pattern = root + fixed_part(name), compile_glob(name)
            self._add_listed(
                (row for row in store.list_objects(base) if pattern.fullmatch(row[0][len(root) :])),
                base,
                named=names_suffix(name),
            )
            return
        folder = path.rstrip("/") + "/"
        seen = self._add_listed(store.list_objects(folder), folder)
        if not seen and not path.endswith("/"):  # a prefix that ends within a name
            base = path[: path.rindex("/") + 1]
            seen = self._add_listed(store.list_objects(path), base)
        if not seen:
            raise UsageError(f"no object {path}, and none under it", todo="check the name")

    def _add_listed(
        self, objects: Iterator[tuple[str, int, str]], base: str, *, named: bool = False
    ) -> int:
        """Add objects as they are listed; return how many there were."""
        seen = 0
        for path, size_bytes, generation in objects:
            seen += 1
            suffix = suffix_of(path)
            if named or suffix in self._suffixes:
                self._put(VideoRef(path[len(base) :], path, size_bytes, generation))
            else:
                self._skipped[suffix] += 1
        return seen

    # Manifests

    def _add_manifest(self, path: str) -> None:
        folder = os.path.dirname(path)
        rows = list(manifests.read_manifest(path))
        uris = [_absolute(row, folder, path) for row in rows]
        facts = _bucket_facts(uri for uri in uris if not storage.is_local(uri))
        missing = 0
        for row, uri in zip(rows, uris, strict=True):
            video_id = row.video_id or _below(folder, uri) or uri.rsplit("/", 1)[-1]
            found = _local_facts(uri) if storage.is_local(uri) else facts.get(uri, _NOT_THERE)
            missing += found == _NOT_THERE
            ref = VideoRef(video_id, uri, *found, columns=row.columns)
            self._put(ref, f"manifest {path}, {row.place}")
        if missing:
            self._notes.append(f"{missing} videos of {path} do not exist; they will be quarantined")

    def _put(self, ref: VideoRef, where: str = "") -> None:
        video_id = catalog_text(ref.video_id)
        if not video_id.strip() or len(video_id) > _MAX_ID_CHARS:
            raise UsageError(
                f"{where or ref.uri}: not a video_id",
                got=repr(video_id[:80]),
                expected=f"1 to {_MAX_ID_CHARS} characters, not only blanks",
            )
        if video_id != ref.video_id:
            ref = dataclasses.replace(ref, video_id=video_id)
        known = self._refs.setdefault(video_id, ref)
        if known is ref:
            return
        if known.uri != ref.uri:
            raise UsageError(
                f"two videos have the video_id {video_id!r}",
                got=f"{catalog_text(known.uri)}\n            {catalog_text(ref.uri)}",
                expected="each id once",
                todo="name the folder that holds both, or give ids in a manifest",
            )
        self._repeated += 1


def by_suffix(counts: Mapping[str, int]) -> str:
    return ", ".join(f"{count} {suffix or '(no suffix)'}" for suffix, count in counts.items())


def _local_facts(path: str | os.DirEntry[str]) -> tuple[int, str]:
    """Return (size_bytes, mtime in ns) of a file without opening it."""
    try:
        status = os.stat(path)
        size_bytes = status.st_size if stat.S_ISREG(status.st_mode) else 0
    except OSError:
        try:  # a link to nowhere is there, and is no file
            status, size_bytes = os.lstat(path), 0
        except OSError:
            return _NOT_THERE
    return size_bytes, str(status.st_mtime_ns)


def _no_such_path(path: str) -> UsageError:
    folder, name = os.path.split(os.path.abspath(path))
    try:
        near = difflib.get_close_matches(name, os.listdir(folder), n=3)
    except OSError:
        near = []
    known = ", ".join(catalog_text(os.path.join(os.path.dirname(path), match)) for match in near)
    return UsageError(
        f"no such file or folder: {catalog_text(path)}",
        todo=f"did you mean {known}?" if near else "check the path",
    )


def _absolute(row: manifests.ManifestRow, folder: str, path: str) -> str:
    """Return the uri of a manifest's row as an absolute path or an object's address."""
    try:
        if not storage.is_local(row.uri):
            return row.uri
        local = os.path.expanduser(storage.local_path(row.uri))
    except UsageError as err:
        raise UsageError(
            f"manifest {path}, {row.place}: {err.what}", got=err.got, expected=err.expected
        ) from err
    if storage.is_local(folder):
        return os.path.normpath(os.path.join(folder, local))
    return local if os.path.isabs(local) else f"{folder}/{local}"


def _below(folder: str, path: str) -> str:
    start = folder.rstrip("/") + "/"
    return path[len(start) :] if path.startswith(start) else ""


def _bucket_facts(uris: Iterator[str]) -> dict[str, tuple[int, str]]:
    """Return (size_bytes, generation) of each object that exists, by few calls."""
    folders: dict[str, set[str]] = {}
    for uri in uris:
        folders.setdefault(uri[: uri.rindex("/") + 1], set()).add(uri)
    facts: dict[str, tuple[int, str]] = {}
    for folder, wanted in folders.items():
        if len(wanted) > _STAT_ONE_BY_ONE:
            for path, size_bytes, generation in storage.store_of(folder).list_objects(folder):
                if path in wanted:
                    facts[path] = (size_bytes, generation)
        else:
            for path in wanted:
                if (found := storage.store_of(path).stat(path)) is not None:
                    facts[path] = found
    return facts
