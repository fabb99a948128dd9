"""The trained model as a Beam `ModelHandler`: the plan of an answers file in, its rows out.

An element is a whole file, and its features are read where they are answered from. So no shuffle
stands between the model and the file: each is written as soon as its questions are answered, a run
that is killed keeps it, and memory holds one file's rows and a batch of features. The model is
loaded once per process, whatever threads and bundles that serves.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

from apache_beam.ml.inference.base import ModelHandler

from framebank.features.asking.trained_model import TrainedModel, load_model
from framebank.pipelines.jobs.progress import CountsWriter
from framebank.pipelines.jobs.worker_faults import told_to_client
from framebank.pipelines.score.answering import AnswerRow, Example, answer_examples
from framebank.pipelines.score.feature_reading import RecordPlan, read_examples

NAMESPACE = "framebank"
_BATCH = 128


@dataclasses.dataclass(frozen=True)
class FilePlan:
    """What one answers file is made from: rows that need no features, and records by shard."""

    output: int
    settled: list[AnswerRow]
    shards: list[list[RecordPlan]]


@dataclasses.dataclass(frozen=True)
class AnswerFile:
    """The lines of one answers file, in the order of the question file."""

    output: int
    lines: list[bytes]


class AnswerModelHandler(ModelHandler[FilePlan, AnswerFile, TrainedModel]):  # type: ignore[misc]
    """Answers questions with the model in `model_dir`, keeping the `top` likeliest answers each.

    How many are answered is told in `progress_folder`, where there is one.
    """

    def __init__(
        self, model_dir: str, *, cache: str, top: int, progress_folder: str | None = None
    ) -> None:
        super().__init__(min_batch_size=1, max_batch_size=1)
        self._model_dir, self._cache, self._top = model_dir, cache, top
        self._progress_folder = progress_folder
        self._counts: CountsWriter | None = None  # a worker's own: made where it works

    def load_model(self) -> TrainedModel:
        with told_to_client():
            return load_model(self._model_dir)

    def _count(self, answered: int, *, now: bool = False) -> None:
        if self._counts is None:
            self._counts = CountsWriter(self._progress_folder)
        self._counts.counts.done += answered
        self._counts.write(now=now)

    def run_inference(
        self,
        batch: Sequence[FilePlan],
        model: TrainedModel,
        inference_args: dict[str, Any] | None = None,
    ) -> list[AnswerFile]:
        """Return the rows of each file; raises FramebankError, marked for the client."""
        with told_to_client():
            return [self._answer_file(plan, model) for plan in batch]

    def get_num_bytes(self, batch: Sequence[FilePlan]) -> int:
        shards = [shard for plan in batch for shard in plan.shards]
        return sum(record.place.length for shard in shards for record in shard)

    def get_metrics_namespace(self) -> str:
        return NAMESPACE

    def _answer_file(self, plan: FilePlan, model: TrainedModel) -> AnswerFile:
        rows = list(plan.settled)
        examples: list[Example] = []

        def answer() -> None:
            rows.extend(answer_examples(examples, model, top=self._top))
            self._count(len(examples))
            examples.clear()

        for shard in plan.shards:
            for item in read_examples(self._cache, plan.output, shard):
                if isinstance(item, AnswerRow):
                    rows.append(item)
                    continue
                examples.append(item)
                if len(examples) == _BATCH:
                    answer()
        if examples:
            answer()
        self._count(0, now=True)
        rows.sort(key=lambda row: row.number)
        return AnswerFile(plan.output, [row.line for row in rows])
