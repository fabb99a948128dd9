"""The folder of a model: what is in it, when it counts as finished, and who may write there.

    model.keras  vocabulary.json  metrics.json  history.jsonl  judged.jsonl  seen.json.gz
    lineage.json (last)

While a run is under way `run.json` says what it is made from, and `checkpoints/` where it is. Only
a run of the same making goes on from those.
"""

from __future__ import annotations

import contextlib
import datetime
import json
import os
import platform
import shutil
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import framebank
from framebank.features.errors import JobError, UsageError
from framebank.features.questions.seen_videos import SEEN
from framebank.features.stores import disk, json_text, storage
from framebank.features.stores.temporary import at_fault, temporary_error
from framebank.train.judging.baselines import JUDGED_FILE
from framebank.train.tracking.trackers import TRACKED

if TYPE_CHECKING:
    import keras

    from framebank.features.cache.reader import Cache
    from framebank.train.data.joining import JoinedQuestions

_ASKED = ("model.keras", "vocabulary.json", "metrics.json", "history.jsonl")
MODEL_FILES = (*_ASKED, JUDGED_FILE, SEEN)
MARK = "lineage.json"
_FORMAT = 1  # of lineage.json
_RUN = "run.json"
_CHECKPOINTS = "checkpoints"
_LOCK = ".lock"
_OURS = (*MODEL_FILES, MARK, TRACKED, _RUN, _CHECKPOINTS, _LOCK)


class ModelFolder:
    """One model's folder on this machine."""

    def __init__(self, path: str) -> None:
        """Raises UsageError for a path that is a bucket, a file, or a folder of other things."""
        refusal = "a model is written to a local folder"
        self.path = storage.on_this_machine(path, refusal, todo="copy it after")
        if self.path.exists() and not self.path.is_dir():
            raise UsageError("--model is a file", got=path, expected="a new or empty folder")
        with _explained(self.path):
            names = sorted(os.listdir(self.path)) if self.path.exists() else []
        others = [name for name in names if name not in _OURS and not name.startswith(".")]
        if others and MARK not in names and _RUN not in names:
            raise UsageError(
                "--model is a folder with other things in it",
                got=f"{path} with {', '.join(others[:5])}",
                expected="a new or empty folder, or one that `framebank train` wrote",
            )

    @property
    def finished(self) -> bool:
        return (self.path / MARK).exists()

    @property
    def checkpoints(self) -> Path:
        return self.path / _CHECKPOINTS

    @contextlib.contextmanager
    def locked(self) -> Iterator[None]:
        """Hold the folder for this process; raises UsageError when another one trains there."""
        todo = "wait for it, or give another --model"
        busy = UsageError(f"another `framebank train` is at work in {self.path}", todo=todo)
        with contextlib.ExitStack() as held:
            with _explained(self.path):
                held.enter_context(disk.locked(self.path / _LOCK, otherwise=busy))
            yield
            with contextlib.suppress(OSError):
                (self.path / _LOCK).unlink()

    def claim(self, making: Mapping[str, Any], *, overwrite: bool) -> bool:
        """Make the folder ready for a run made from `making`; return whether it is finished.

        Raises UsageError when the folder holds (a start of) a model of another making. A start that
        came to no checkpoint, as when a file was found wanting, is none.
        """
        if overwrite:
            # First what says that the rest is good.
            self._remove(MARK, _RUN, TRACKED, *MODEL_FILES)
        found = self._making()
        if not self.finished and not any(self.checkpoints.glob("*/*")):
            found = None
            self._remove(TRACKED)  # of that start
        if found is not None and found != json_text.parse(json.dumps(making)):
            state = "a finished model" if self.finished else "an unfinished run"
            raise UsageError(
                f"{self.path} holds {state} that was made from something else\n"
                + "\n".join(_differences(found, making)),
                todo="give another --model, or --overwrite to throw away what is there",
            )
        if not self.finished:
            self.write_json(_RUN, making)
        return self.finished

    def _making(self) -> dict[str, Any] | None:
        for name, part in ((MARK, "making"), (_RUN, None)):
            try:
                fields = json_text.parse((self.path / name).read_text("utf-8"))
                return fields[part] if part else fields
            except FileNotFoundError:
                continue
            except (OSError, ValueError, KeyError, TypeError) as err:
                raise UsageError(
                    f"{self.path / name} cannot be read", got=err, todo="--overwrite starts afresh"
                ) from err
        return None

    def _remove(self, *names: str) -> None:
        """Remove files and all checkpoints."""
        with _explained(self.path):
            for name in names:
                (self.path / name).unlink(missing_ok=True)
            if self.checkpoints.exists():
                shutil.rmtree(self.checkpoints)

    def write_json(self, name: str, fields: Mapping[str, Any]) -> None:
        self.write_text(name, json.dumps(fields, indent=2, ensure_ascii=False) + "\n")

    def write_text(self, name: str, text: str) -> None:
        """Write a file whole or not at all; raises FramebankError when it cannot be written."""
        storage.write_atomic(str(self.path / name), text.encode("utf-8", "backslashreplace"))

    def read_json(self, name: str) -> dict[str, Any]:
        """Return a JSON file of the folder; raises UsageError when it is missing or damaged."""
        try:
            return dict(json_text.parse((self.path / name).read_text("utf-8")))
        except (OSError, ValueError) as err:
            raise UsageError(
                f"{self.path / name} cannot be read", got=err, todo="train again with --overwrite"
            ) from err

    def save_model(self, model: keras.Model) -> None:
        """Write model.keras whole or not at all."""
        temporary = self.path / ".part.keras"
        with _explained(self.path):
            model.save(temporary)
            with temporary.open("rb") as stream:
                os.fsync(stream.fileno())
            temporary.replace(self.path / "model.keras")

    def finish(self, lineage: Mapping[str, Any]) -> None:
        """Write the lineage, which makes the model count, and drop what a resume would need."""
        self.write_json(MARK, lineage)
        self._remove(_RUN)


@contextlib.contextmanager
def _explained(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as err:
        if at_fault(str(path)):  # where Keras keeps a vocabulary while it saves a model
            raise temporary_error(err) from err
        raise JobError(
            f"cannot write to {path}",
            got=err.strerror or err,
            todo="make room or fix the permissions, then run the same command: it goes on",
        ) from err


def _differences(found: Mapping[str, Any], asked: Mapping[str, Any]) -> list[str]:
    lines = []
    for name in dict.fromkeys([*found, *asked]):
        old, new = found.get(name), json_text.parse(json.dumps(asked.get(name)))
        if isinstance(old, dict) and isinstance(new, dict):
            lines += _differences(old, new)
        elif old != new:
            lines.append(f"  * {name}: there {old}, asked for {new}")
    return lines


def run_making(cache: Cache, joined: JoinedQuestions, config: Mapping[str, Any]) -> dict[str, Any]:
    """Return what decides a run's result; an unfinished run goes on only under an equal one."""
    return {
        "format": _FORMAT,
        "cache_fingerprint": cache.fingerprint,
        "cache_videos": len(cache),
        "cache_digest": joined.cache_digest,
        "questions_sha256": list(joined.file_hashes),
        "config": dict(config),
    }


def make_lineage(
    cache: Cache, making: Mapping[str, Any], *, questions: Mapping[str, int], files: list[str]
) -> dict[str, Any]:
    """Return the fields of lineage.json; `questions` counts those of each split."""
    import keras
    import numpy as np
    import tensorflow as tf

    runs = cache.table(columns=["video_id", "run_id"]).column("run_id").unique().to_pylist()
    hashes = list(making["questions_sha256"])
    return {
        "format": _FORMAT,
        "fingerprint": cache.fingerprint,
        "spec": cache.spec.to_json(),
        "random_weights": cache.spec.random_weights,
        "cache": str(cache.path),
        "cache_videos": len(cache),
        "runs": sorted(runs),
        "questions_files": files,
        "questions_sha256": hashes[0] if len(hashes) == 1 else hashes,
        "questions": dict(questions),
        "seed": making["config"]["train"]["seed"],
        "making": dict(making),
        "time": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "versions": {
            "framebank": framebank.__version__,
            "python": platform.python_version(),
            "platform": sys.platform,
            "tensorflow": tf.__version__,
            "keras": keras.__version__,
            "numpy": np.__version__,
        },
    }
