"""The candidate of a retraining: where it is trained, and the training.

A folder named by the key `work` keeps what a killed run had trained, and only a run of the same
making goes on from it: whatever else lies there is thrown away. Without that key everything is in a
temporary folder, which the next run removes if its own was killed.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import shutil
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

from framebank import __version__
from framebank.features.cache.reader import Cache
from framebank.features.errors import JobError
from framebank.features.questions.seen_videos import SEEN
from framebank.features.stop_signals import StopRequest
from framebank.features.stores import storage
from framebank.features.stores.temporary import live_folder
from framebank.train.data.joining import JoinedQuestions
from framebank.train.retrain.basis import Basis
from framebank.train.retrain.config import RetrainConfig
from framebank.train.workers.run import Run

Say = Callable[[str], None]


@contextlib.contextmanager
def work_folder(config: RetrainConfig) -> Iterator[Path]:
    """Give a folder to train in: `work`, held against other runs, or a temporary one.

    All temporary files of this process, TensorFlow's too, lie in the latter meanwhile.
    """
    with live_folder("framebank-retrain-") as temporary:
        before, tempfile.tempdir = tempfile.tempdir, temporary.path
        try:
            if config.work is None:
                yield Path(temporary.path)
            else:
                with _held(Path(storage.local_path(config.work))) as folder:
                    yield folder
        finally:
            tempfile.tempdir = before


@contextlib.contextmanager
def _held(folder: Path) -> Iterator[Path]:
    try:
        folder.mkdir(parents=True, exist_ok=True)
        lock = (folder / ".lock").open("w")
    except OSError as err:
        raise storage.storage_error(str(folder), err, "write") from err
    with lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as err:
            todo = "wait for it, or give each its own key work"
            raise JobError(f"another retraining is at work in {folder}", todo=todo) from err
        yield folder


def train_candidate(
    config: RetrainConfig,
    cache: Cache,
    learnt: JoinedQuestions,
    basis: Basis,
    work: Path,
    *,
    warm: str | None,
    stop: StopRequest,
    say: Say,
) -> Path:
    """Train in `work`, from where a killed run of the same making was; return the model's folder.

    `learnt` are no held questions; what the model has seen it keeps.
    """
    from framebank.features.tensorflow_import import import_tensorflow

    import_tensorflow()
    stop.listen()
    from framebank.train.fit.model_folder import ModelFolder
    from framebank.train.fit.training import TrainJob, train_model

    making = json.dumps([basis.to_json(), warm, __version__])
    made_before = work / "making.json"
    resumes = made_before.exists() and made_before.read_text() == making
    folder = ModelFolder(str(work / "candidate"))
    without_list = folder.finished and not (folder.path / SEEN).exists()  # of an older version
    if not resumes or without_list:
        shutil.rmtree(folder.path, ignore_errors=True)
        storage.write_atomic(str(made_before), making.encode())
    job = TrainJob(
        questions=learnt,
        set_name="plain",
        model=config.model,
        train=config.train,
        with_baselines=config.baselines,
        warm_start=warm,
        language=config.language,
        embeddings=config.embeddings,
    )
    train_model(job, cache, folder, Run(stop, say))
    return folder.path
