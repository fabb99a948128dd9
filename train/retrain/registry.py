"""A registry of models in a folder or bucket: its versions, which one is in use, what happened.

    REGISTRY/models/<version>/   a model folder with basis.json and seen.json.gz; verdict.json last
    REGISTRY/current.json        which version is in use, replaced by compare-and-swap
    REGISTRY/history.jsonl       a line per event, appended by compare-and-swap

`current.json` tells its own event, and a verdict says what shall become of its version. So a
process that dies between two writes loses nothing: the next one finishes what they say (`settle`).
A version without verdict.json is not whole; nothing ever points at it. Its first file says which
process writes it; where that one is gone, of another machine after a day, it belongs to nobody.
"""

from __future__ import annotations

import dataclasses
import datetime
import functools
import json
import re
import secrets
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from framebank.features.asking.trained_model import MODEL_FILES
from framebank.features.commands.command_line import near
from framebank.features.errors import CacheError, UsageError
from framebank.features.processes import is_gone, this_process
from framebank.features.questions.seen_videos import SEEN
from framebank.features.stores import json_text, storage

VERDICT, BASIS = "verdict.json", "basis.json"
_MAKER = "maker.json"
_WHOLE = (*MODEL_FILES, BASIS, SEEN, VERDICT)
_GONE_AFTER_S = 24 * 3600.0
_FIRST_FILE_S = 60.0  # within which a living process has written who it is
ROLLED_BACK = "rolled back to"  # the event by which a version came into use again
_VERSION = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}")
_MOVE = re.compile(r"move (\d+)")  # the id of an event by which a version came into use
_RESTORE = "restore it from a copy"
_REMEMBERED = 100  # versions to roll back to


@dataclasses.dataclass(frozen=True)
class Current:
    """What current.json says. `number` counts its changes; `before` are the versions that were in
    use before, the last one last; `generation` is of the file and not in it."""

    number: int = 0
    version: str | None = None
    before: tuple[str, ...] = ()
    event: str = ""
    reason: str = ""
    time: str = ""
    token: str = ""
    generation: str = storage.ABSENT

    def to_json(self) -> dict[str, Any]:
        fields = dataclasses.asdict(self)
        del fields["generation"]
        return fields


def now() -> str:
    return datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")


def new_version() -> str:
    """Return a name that no other process chooses and that sorts by time."""
    time = datetime.datetime.now(datetime.UTC)
    return f"{time:%Y%m%d-%H%M%S}-{secrets.token_hex(3)}"


class Registry:
    """The registry at `path`; a folder that does not exist is an empty one."""

    def __init__(self, path: str) -> None:
        storage.is_local(path)  # refuses an unknown scheme
        self.path = path

    def folder(self, version: str) -> str:
        """Return where a version lies; raises UsageError for what cannot be one's name."""
        if not _VERSION.fullmatch(version):
            raise UsageError("not the name of a version", got=repr(version))
        return storage.join(self.path, "models", version)

    # Which one is in use

    def current(self) -> Current:
        """Return what is in use; `version` is None where nothing is, and `number` is then the last
        one that history tells of. Raises CacheError."""
        path = storage.join(self.path, "current.json")
        data, generation = storage.read_with_generation(path)
        if data is None:
            moves = [_MOVE.fullmatch(str(row.get("id"))) for row in self.history()]
            return Current(number=max((int(one[1]) for one in moves if one), default=0))
        try:
            found = Current(**json_text.parse(data), generation=generation)
            found = dataclasses.replace(found, before=tuple(found.before), number=int(found.number))
            for version in (found.version, *found.before):
                if not _VERSION.fullmatch("x" if version is None else version):
                    raise ValueError(f"{version!r} is not the name of a version")
            return found
        except (ValueError, TypeError, OverflowError) as err:
            raise damaged(path, err) from err

    def move(self, seen: Current, version: str, *, event: str, reason: str) -> bool:
        """Make `version` the one in use, if that is still as `seen`; return whether it was done."""
        before = seen.before
        if event == ROLLED_BACK:
            before = before[:-1]
        elif seen.version is not None:
            before = (*before, seen.version)[-_REMEMBERED:]
        moved = Current(
            number=seen.number + 1,
            version=version,
            before=before,
            event=event,
            reason=reason,
            time=now(),
            token=secrets.token_hex(8),
        )
        path = storage.join(self.path, "current.json")
        if not storage.replace_if(path, _json(moved.to_json()), generation=seen.generation):
            return False
        self._record_move(moved)
        return True

    # Versions

    def files(self) -> dict[str, list[str]]:
        """Return the files of every version, whole or not, by its name."""
        found: dict[str, list[str]] = {}
        top = storage.join(self.path, "models") + "/"
        for file in storage.iter_files(top, deep=True):
            version, slash, name = file.path[len(top) :].partition("/")
            if slash and _VERSION.fullmatch(version):
                found.setdefault(version, []).append(name)
        return dict(sorted(found.items()))

    def versions(self, files: Mapping[str, Sequence[str]] | None = None) -> list[str]:
        """Return the names of all whole versions, the oldest first; `files` as `files()` gives."""
        found = self.files() if files is None else files
        return [version for version, names in found.items() if VERDICT in names]

    def read_json(self, version: str, name: str) -> dict[str, Any]:
        """Return a JSON file of a version; raises UsageError where there is none, CacheError."""
        path = storage.join(self.folder(version), name)
        try:
            return json_text.read_object(path, todo=_RESTORE)
        except storage.FileMissingError as err:
            meant = near(version, self.versions()).strip(" ()")
            raise UsageError(
                f"there is no version {version} in {self.path}",
                got=f"no {path}",
                todo=meant or "see `framebank models list`",
            ) from err

    def verdict(self, version: str) -> dict[str, Any]:
        """Return what was judged of a whole version; raises UsageError, CacheError."""
        fields = self.read_json(version, VERDICT)
        kinds = {"better": bool, "reason": str, "against_number": int, "figures": dict}
        wrong = [name for name, kind in kinds.items() if not isinstance(fields.get(name), kind)]
        if wrong:
            path = storage.join(self.folder(version), VERDICT)
            raise damaged(path, f"no fitting {', '.join(wrong)}")
        return fields

    def check_in_use(self, current: Current, files: Mapping[str, Sequence[str]]) -> None:
        """Raise CacheError where a file of the version in use is gone, or what says which it is;
        `files` as `files()` gives them."""
        if current.version is None:
            if current.number:
                events = [f"{row['event']} {row['version']}" for row in self.history()]
                raise CacheError(
                    f"no model is in use in {self.path}, though its history tells of one",
                    got=f"no current.json; {current.number} changes of it, the last events: "
                    + ", ".join(events[-3:]),
                    todo="restore current.json, or `framebank models promote` a version",
                )
            return
        missing = [name for name in _WHOLE if name not in files.get(current.version, ())]
        if missing:
            others = [name for name in self.versions(files) if name != current.version]
            raise CacheError(
                f"{current.version}, which is in use in {self.path}, is not there whole",
                got=f"no {', '.join(missing)}; other versions: {', '.join(others[-5:]) or 'none'}",
                todo="restore its folder, or `framebank models promote` another one",
            )

    # New versions

    def publish(self, version: str, folder: Path, verdict: Mapping[str, Any]) -> None:
        """Copy the files of `folder` to `version`; `verdict` comes last and makes it whole."""
        target = self.folder(version)
        write_json(storage.join(target, _MAKER), this_process())
        for path in sorted(folder.iterdir()):
            if path.is_file() and not path.name.startswith("."):
                with path.open("rb") as file:
                    chunks = iter(functools.partial(file.read, 1 << 20), b"")
                    storage.write_atomic(storage.join(target, path.name), chunks)
        write_json(storage.join(target, VERDICT), verdict)

    def check_writable(self) -> None:
        """Raise FramebankError if nothing can be written: better before a training than after."""
        folder = self.folder(new_version())
        write_json(storage.join(folder, _MAKER), this_process())
        self._remove(folder, [_MAKER])

    def remove_leftovers(self) -> list[str]:
        """Remove the versions that dead processes left half-written; return their names."""
        removed = []
        for version, names in self.files().items():
            if VERDICT not in names and self._is_abandoned(version, names):
                self._remove(self.folder(version), names)
                removed.append(version)
        return removed

    def _is_abandoned(self, version: str, names: Sequence[str]) -> bool:
        if _MAKER not in names:  # killed before its first file was whole
            return _age_s(version) > _FIRST_FILE_S
        gone = is_gone(self.read_json(version, _MAKER))
        return _age_s(version) > _GONE_AFTER_S if gone is None else gone

    def _remove(self, folder: str, names: Sequence[str]) -> None:
        for name in sorted(names, key=lambda name: name == _MAKER):  # who wrote it goes last
            storage.delete(storage.join(folder, name))
        storage.remove_folder(folder)

    # History

    def history(self) -> list[dict[str, Any]]:
        """Return all events, the oldest first; raises CacheError."""
        return self._read_history()[0]

    def _read_history(self) -> tuple[list[dict[str, Any]], bytes, str]:
        path = storage.join(self.path, "history.jsonl")
        data, generation = storage.read_with_generation(path)
        rows = []
        for number, line in enumerate((data or b"").splitlines(), start=1):
            try:
                rows.append(dict(json_text.parse(line)))
            except (ValueError, TypeError) as err:
                todo = "take that line out, or restore the file: it only tells what happened"
                raise CacheError(f"line {number} of {path} is damaged", got=err, todo=todo) from err
        return rows, data or b"", generation

    def _record(self, event_id: str, event: str, version: str, reason: str, time: str) -> None:
        """Append an event, once: one whose "id" is there already is left out."""
        fields = {"id": event_id, "event": event, "version": version, "reason": reason}
        line = json.dumps(fields | {"time": time}, ensure_ascii=False).encode() + b"\n"
        while True:
            rows, data, generation = self._read_history()
            if any(row.get("id") == event_id for row in rows):
                return
            path = storage.join(self.path, "history.jsonl")
            if storage.replace_if(path, data + line, generation=generation):
                return

    def _record_move(self, moved: Current) -> None:
        version = moved.version or ""
        self._record(f"move {moved.number}", moved.event, version, moved.reason, moved.time)

    # What verdicts say

    def settle(self, version: str) -> tuple[bool, str]:
        """Do with a whole version what its verdict says, unless it was done before; return whether
        it is the one in use now, and why (not)."""
        verdict = self.verdict(version)
        current, reason = self.current(), str(verdict["reason"])
        if current.version == version:
            self._record_move(current)
            return True, reason
        if verdict["better"]:
            unchanged = current.number == verdict["against_number"]
            if unchanged and self.move(current, version, event="promoted", reason=reason):
                return True, reason
            current = self.current()
            if current.version == version:  # another process has settled it just now
                return True, reason
            reason = (
                f"while it was trained and judged against {verdict.get('against') or 'none'}, "
                f"{current.version} came into use ({current.event} {current.time})"
            )
        self._record(f"aside {version}", "kept aside", version, reason, now())
        return False, reason

    def finish_interrupted(self) -> list[str]:
        """Finish what dead processes began; return the versions that were settled now."""
        current = self.current()
        if current.version is not None:
            self._record_move(current)
        told = {row.get("version") for row in self.history()}
        left = [version for version in self.versions() if version not in told]
        for version in left:
            self.settle(version)
        return left


def write_json(path: str, fields: Mapping[str, Any]) -> None:
    """Write a JSON file whole or not at all."""
    storage.write_atomic(path, _json(fields))


def _json(fields: Mapping[str, Any]) -> bytes:
    text = json.dumps(fields, indent=2, ensure_ascii=False) + "\n"
    return text.encode("utf-8", "backslashreplace")


def _age_s(version: str) -> float:
    """Return for how long a version has been called so; 0 for a name that tells no time."""
    try:
        made = datetime.datetime.strptime(version[:15], "%Y%m%d-%H%M%S")
    except ValueError:
        return 0.0
    made = made.replace(tzinfo=datetime.UTC)
    return (datetime.datetime.now(datetime.UTC) - made).total_seconds()


def damaged(path: str, err: object) -> CacheError:
    return CacheError(f"{path} is damaged", got=err, todo=_RESTORE)
