"""Fits a probe: the moments of the training clips, gathered from all workers, and one formula."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
import tensorflow as tf
from numpy.typing import NDArray

from framebank.features.questions.question import Question
from framebank.features.questions.splits import video_place
from framebank.train.data.batches import QuestionTable
from framebank.train.data.prefetch import Prefetched
from framebank.train.fit.training_data import Material
from framebank.train.model.config import PROBE_BLIND, ModelConfig
from framebank.train.model.frames import frame_mask
from framebank.train.model.heads import CHOICE
from framebank.train.model.moments import MOMENTS, ORDER_BLIND, Scale, temporal_moments
from framebank.train.model.probe import Probe, Rows, fit_probe, word_shares
from framebank.train.workers.replicas import Workers
from framebank.train.workers.run import Run

# Clips that a probe is fitted to: of more, these are drawn. Their moments are held at once.
MOST_CLIPS = 3000
_MOST_CHOICES = 4096  # rows with candidates, whose word sets are wide


class Moments:
    """The moments of clips, each read and computed once whatever is fitted to them."""

    def __init__(self, material: Material, workers: Workers, run: Run, *, batch_size: int) -> None:
        self._material, self._workers, self._run = material, workers, run
        self._batch_size = batch_size
        self._known: dict[str, int] = {}
        self._held: dict[str, NDArray[np.float32]] = {}

    def of(self, video_ids: list[str]) -> dict[str, NDArray[np.float32]]:
        """Return the moments float32[clips, d] by name. Every worker asks for the same clips."""
        missing = [video_id for video_id in video_ids if video_id not in self._known]
        if missing:
            self._add(missing)
        places = [self._known[video_id] for video_id in video_ids]
        return {name: columns[places] for name, columns in self._held.items()}

    def scale(self) -> Scale:
        """Return the scale of the moments of the training clips."""
        questions = self._material.splits.train
        return Scale.of(self.of(sample_clips({q.video_id for q in questions}, seed=0)))

    def _add(self, video_ids: list[str]) -> None:
        features = self._material.features
        questions = [Question(video_id, video_id, "") for video_id in video_ids]
        none = np.zeros((len(questions), 1), np.int32)
        table = QuestionTable(questions, none, np.zeros(len(questions), np.int32))
        read = tf.function(
            lambda clips: temporal_moments(clips, frame_mask(clips)),
            input_signature=[tf.TensorSpec((None, None, features.width), tf.float32)],
        )
        sums = {name: np.zeros((len(questions), features.width)) for name in MOMENTS}
        with Prefetched(lambda: features.batches(table, batch_size=self._batch_size)) as batches:
            for batch in batches:
                self._run.stop.check()
                index = batch["index"].numpy()
                real = index >= 0
                if real.any():
                    for name, made in read(tf.cast(batch["features"], tf.float32)).items():
                        sums[name][index[real]] = made.numpy()[real]
        start = len(self._known)
        self._known |= {video_id: start + number for number, video_id in enumerate(video_ids)}
        for name, mine in sums.items():
            made = self._workers.sum(mine).astype(np.float32)
            held = self._held.get(name)
            self._held[name] = made if held is None else np.concatenate([held, made])


def sample_clips(video_ids: Iterable[str], *, seed: int) -> list[str]:
    """Return the clips in order, MOST_CLIPS of them at most."""
    names = sorted(video_ids)
    if len(names) > MOST_CLIPS:
        names = sorted(names, key=lambda name: video_place(name, seed=seed))[:MOST_CLIPS]
    return names


def fit_closed_form(
    config: ModelConfig, material: Material, table: QuestionTable, moments: Moments, *, seed: int
) -> Probe:
    """Return the probe of `config.kind` fitted to the rows of `table`."""
    video_ids = sample_clips({question.video_id for question in table.questions}, seed=seed)
    number = {video_id: place for place, video_id in enumerate(video_ids)}
    its = np.array([q.video_id in number for q in table.questions])
    rows = np.flatnonzero(its)
    if material.head.kind == CHOICE and len(rows) > _MOST_CHOICES:
        rows = np.sort(np.random.default_rng(seed).permutation(rows)[:_MOST_CHOICES])
    asked = [table.questions[row] for row in rows.tolist()]
    words = len(material.words)
    right = mean = None
    if table.choices is not None:
        shares = [word_shares(row, words) for row in table.choices[rows]]
        right = np.array([row[q.right] for row, q in zip(shares, asked, strict=True)])
        mean = np.array(
            [row[: len(q.choices)].mean(axis=0) for row, q in zip(shares, asked, strict=True)]
        )
    needed = ORDER_BLIND if config.kind == PROBE_BLIND else MOMENTS
    held = moments.of(video_ids)
    return fit_probe(
        config,
        {name: held[name] for name in needed},
        Rows(
            np.array([number[question.video_id] for question in asked]),
            table.words[rows],
            table.answer[rows],
            [question.source for question in asked],
            right,
            mean,
        ),
        material.head,
        words=words,
        seed=seed,
    )
