"""One training run from cache and question files to a model folder.

The model and its trained baselines go through the same loop one after another, each with
checkpoints of its own, so a run that is killed anywhere goes on where it was.
"""

from __future__ import annotations

import contextlib
import dataclasses
import warnings
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import keras
import numpy as np
import tensorflow as tf

from framebank.features.asking.trained_model import check_weights
from framebank.features.errors import JobError
from framebank.features.questions.question import VQA_ACCURACY
from framebank.features.questions.seen_videos import NO_LIST, SEEN, Seen, content_hashes, find_seen
from framebank.features.stores import storage
from framebank.train.data.joining import JoinedQuestions, join_cache, remarks
from framebank.train.data.shard_files import shard_files
from framebank.train.data.splits import SPLITS, seen_by
from framebank.train.fit.closed_form import Moments
from framebank.train.fit.fits import Fits
from framebank.train.fit.model_folder import ModelFolder, make_lineage, run_making
from framebank.train.fit.segment_fits import SegmentFits
from framebank.train.fit.training_data import Material, TrainJob, gather
from framebank.train.workers.replicas import Workers
from framebank.train.workers.run import Run

if TYPE_CHECKING:
    from framebank.features.cache.reader import Cache

_ROOM_QUESTIONS = 4096  # that a batch has room for, however few there are


def train_model(
    job: TrainJob,
    cache: Cache,
    folder: ModelFolder,
    run: Run,
    *,
    overwrite: bool = False,
) -> dict[str, Any]:
    """Train, judge and save; return what metrics.json holds.

    An unfinished run goes on; a finished one of the same making is only reported. Of several
    workers only the chief touches `folder`. Raises FramebankError, and TrainingStopped (all done
    so far is saved).
    """
    config, workers, say = job.train, run.workers or Workers(), run.say
    joined = job.questions
    if not isinstance(joined, JoinedQuestions):
        joined = join_cache(
            joined,
            cache,
            max_unmatched_ratio=config.max_unmatched_ratio,
        )
    for remark in remarks(joined):
        say(remark)
    making = run_making(cache, joined, job.config())
    with contextlib.ExitStack() as held:

        def claim() -> bool:
            held.enter_context(folder.locked())
            finished = folder.claim(making, overwrite=overwrite)
            if finished:  # by an older version maybe, which saved what had diverged
                check_weights(str(folder.path))
            return finished

        if workers.do_on_chief(claim):
            say(f"{folder.path} is finished already and made from just this; nothing to do")
            run.track.whole_model(folder.path, making)
            if workers.is_chief and not (folder.path / SEEN).exists():
                say(f"NOTE: {NO_LIST}; --overwrite trains it again")
            return workers.do_on_chief(lambda: folder.read_json("metrics.json"))
        run.track.begin(folder.path.name, making, folder=folder.path)
        # Without this, sums over threads differ in their last bits from run to run.
        tf.config.experimental.enable_op_determinism()
        keras.utils.set_random_seed(config.seed)
        files = held.enter_context(contextlib.closing(shard_files(cache.path, job.staging)))
        material = gather(job, cache, joined, workers, run, files=files)
        size = min(config.batch_size, max(len(material.learnt), _ROOM_QUESTIONS))
        job = dataclasses.replace(job, train=dataclasses.replace(config, batch_size=size))
        with warnings.catch_warnings(), _memory_told():
            if len(material.head.answers) == 1:  # said in gather; Keras wonders at it in each graph
                warnings.simplefilter("ignore")
            moments = Moments(material, workers, run, batch_size=size)
            if material.videos is None:
                scale = None if material.pictures else moments.scale()
                fits = Fits(job, material, folder, run, workers, moments, scale)
                metrics = fits.train_all()
            else:
                fits = Fits(job, material, folder, run, workers, moments, None)
                metrics = SegmentFits(fits).train_all()
        metrics |= _accounting(cache, joined, material)
        if material.vectors is not None:
            metrics["embeddings"] = {"file": job.embeddings} | material.vectors.coverage
        if workers.is_chief:
            folder.write_json("metrics.json", metrics)
            counts = {name: len(material.splits.of(name)) for name in SPLITS}
            made = make_lineage(cache, making, questions=counts, files=list(joined.files.paths))
            if job.embeddings is not None:
                made["embeddings_file"] = job.embeddings
            seen = _seen(job, cache, material)
            storage.write_atomic(str(folder.path / SEEN), seen.to_bytes())
            folder.finish(made)
            run.track.model(folder.path)
    return metrics


@contextlib.contextmanager
def _memory_told() -> Iterator[None]:
    try:
        yield
    except (tf.errors.ResourceExhaustedError, MemoryError) as err:
        raise JobError(
            "the training does not fit into memory",
            got=str(err).split("}} ")[-1].split(" on /job")[0][:200],
            todo="a smaller --batch-size, or smaller layers (--frame-units, --dense-units, ...)",
        ) from err


def _seen(job: TrainJob, cache: Cache, material: Material) -> Seen:
    """Return what the model has seen: all videos but those of the test split, and what the model
    that it started from has seen."""
    splits = material.splits
    contents = content_hashes(cache, {q.video_id for q in (*splits.train, *splits.val)})
    seen = seen_by([*splits.train, *splits.val], contents)
    before = None if job.warm_start is None else find_seen(job.warm_start)
    return seen if before is None else seen | before


def _accounting(cache: Cache, joined: JoinedQuestions, material: Material) -> dict[str, Any]:
    table = material.tables[material.splits.judged_on]
    return {
        "answers": len(material.head.answers),
        "head": material.head.kind,
        "measure": VQA_ACCURACY
        if any(question.given for question in table.questions)
        else material.head.measure,
        "oov_answers": int(np.sum(~material.head.knows(table.answer))),
        "oov_train": len(material.splits.train) - len(material.learnt),
        "unmatched": joined.unmatched,
        "unmatched_videos": list(joined.unmatched_videos[:100]),
        "without_answer": joined.without_answer,
        "random_weights": cache.spec.random_weights,
        "remarks": list(material.splits.remarks),
    }
