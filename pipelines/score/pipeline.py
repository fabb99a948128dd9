"""Scoring: a Beam job that answers a whole file of questions from cached features.

    ReadPlan ─► RunInference (reads features) ─► WriteAnswers ─► Tally ─► WriteSummary

The plan is made where the job is submitted and travels through OUT. An element is one file of
answers: what is written stays, whatever ends the job, no shuffle stands between the model and the
file, and memory holds one file's rows and a batch of features. A record is read once, however many
questions are asked about it. Every question ends in exactly one row, of one of tally.STATUSES.

    OUT/_run.json                        what is being scored with what; written first
    OUT/answers-NNNNN-of-NNNNN.jsonl     rows in the order of the question file within each;
                                         .parquet where that was asked for
    OUT/_submission.json                 of segments: what ActivityNet's evaluation takes
    OUT/_summary.json                    counts and accuracy; written last

OUT is a dataset as it stands: readers of a folder (Arrow, Spark) skip names that begin with _.
"""

from __future__ import annotations

import dataclasses
import itertools
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import apache_beam as beam
from apache_beam.ml.inference.base import ModelHandler, RunInference

from framebank.features.asking.trained_model import TrainedModel, load_model
from framebank.features.stores import json_text, storage
from framebank.pipelines.jobs.progress import CountsWriter
from framebank.pipelines.jobs.worker_faults import told_to_client, worker_check
from framebank.pipelines.score.answering import Example, answer_examples, read_examples
from framebank.pipelines.score.folder import answers_path, plain, write_answers
from framebank.pipelines.score.plan import FilePlan
from framebank.pipelines.score.submission import write_submission
from framebank.pipelines.score.tally import Tally

NAMESPACE = "framebank"
_BATCH = 128  # questions that are answered together


@dataclasses.dataclass(frozen=True)
class ScoreConfig:
    """What a worker needs to know; travels with the job.

    `outputs` is the number of files, `kind` what they are; those in `kept` are there from a run
    that was killed, and hold the rows that `kept_tally` counts. `split` is the summary's headline
    (`tally.with_headline`), and that of the file that a model of `segments` writes; how many
    questions are answered is told in `progress_folder`.
    """

    cache: str
    model_dir: str
    out: str
    outputs: int
    top: int
    about: dict[str, Any]  # goes into _summary.json as it is
    kind: str = "jsonl"
    kept: frozenset[int] = frozenset()
    kept_tally: Tally = dataclasses.field(default_factory=Tally)
    split: str | None = None
    segments: bool = False
    progress_folder: str | None = None

    @property
    def todo(self) -> list[int]:
        return [output for output in range(self.outputs) if output not in self.kept]


def plan_path(out: str, output: int) -> str:
    return storage.join(out, f"_plan-{output:05d}.json")


def finished(config: ScoreConfig) -> bool:
    """Return whether the summary is written and the last plan, which goes after it, is gone."""
    summary = storage.join(config.out, "_summary.json")
    return storage.exists(summary) and not storage.exists(plan_path(config.out, config.todo[-1]))


def build_score(pipeline: beam.Pipeline, config: ScoreConfig, *, hints: Mapping[str, str]) -> None:
    """Put the whole job onto `pipeline`; `hints` are Beam's, for the step that runs the model."""
    tallies = (
        pipeline
        | "CreateOutputs" >> beam.Create(config.todo, reshuffle=False)  # int
        | "CheckWorkers" >> beam.Map(worker_check())  # int
        | "SpreadOutputs" >> beam.Reshuffle()  # int
        | "ReadPlan" >> beam.Map(read_plan, config)  # FilePlan
        | "AnswerQuestions"
        >> RunInference(AnswerModelHandler(config)).with_resource_hints(**hints)  # AnswerFile
        | "WriteAnswers" >> beam.Map(write_file, config)  # Tally
    )
    (
        tallies
        | "AddTallies" >> beam.CombineGlobally(sum_tallies)  # Tally
        | "WriteSummary" >> beam.Map(write_summary, config)
    )


def read_plan(output: int, config: ScoreConfig) -> FilePlan:
    """Return what the answers file of this number is made from."""
    with told_to_client():
        fields = json_text.read_object(plan_path(config.out, output))
    return FilePlan.from_json(output, fields)


@dataclasses.dataclass(frozen=True)
class AnswerFile:
    """The rows of one answers file, in the order of the question file.

    Their texts are plain: Beam's coders refuse some that JSON takes.
    """

    output: int
    rows: list[dict[str, Any]]


class AnswerModelHandler(ModelHandler[FilePlan, AnswerFile, TrainedModel]):  # type: ignore[misc]
    """Answers questions; the model is loaded once per process, whatever threads and bundles that
    serves."""

    def __init__(self, config: ScoreConfig) -> None:
        super().__init__(min_batch_size=1, max_batch_size=1)
        self._config = config
        self._counts: CountsWriter | None = None  # a worker's own: made where it works

    def load_model(self) -> TrainedModel:
        with told_to_client():
            return load_model(self._config.model_dir, keep=True)

    def _count(self, answered: int, *, now: bool = False) -> None:
        if self._counts is None:
            self._counts = CountsWriter(self._config.progress_folder)
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
        return sum(record.place.length for plan in batch for record in plan.records)

    def get_metrics_namespace(self) -> str:
        return NAMESPACE

    def _answer_file(self, plan: FilePlan, model: TrainedModel) -> AnswerFile:
        rows = list(plan.settled)

        def whole() -> Iterator[Example]:
            for item in read_examples(self._config.cache, plan.records):
                if isinstance(item, Example):
                    yield item
                else:
                    rows.append(item)

        examples = whole()
        while batch := list(itertools.islice(examples, _BATCH)):
            rows += answer_examples(batch, model, top=self._config.top)
            self._count(len(batch))
        self._count(0, now=True)
        rows.sort(key=lambda row: row[0])
        return AnswerFile(plan.output, [plain(row) for _, row in rows])


def write_file(file: AnswerFile, config: ScoreConfig) -> Tally:
    """Write the rows of an answers file; return their counts."""
    path = answers_path(config.out, file.output, config.outputs, kind=config.kind)
    with told_to_client():
        write_answers(path, file.rows, kind=config.kind)
    return Tally.of(file.rows)


def sum_tallies(tallies: Iterable[Tally]) -> Tally:
    return sum(tallies, Tally())


def write_summary(tally: Tally, config: ScoreConfig) -> None:
    """Write OUT/_summary.json, and remove the plans."""
    count, kind = config.outputs, config.kind
    files = [answers_path("", n, count, kind=kind) for n in range(count)]
    counts = (tally + config.kept_tally).to_json(split=config.split)
    fields = counts | config.about | {"files": files}
    if config.segments:
        with told_to_client():
            fields |= write_submission(
                config.out, fields, kind=config.kind, split=config.split, top=config.top
            )
    path = storage.join(config.out, "_summary.json")
    with told_to_client():
        storage.write_atomic(path, json.dumps(fields, indent=2).encode() + b"\n")
        # Last, and here: where nobody waits for the job nobody else would. Before this, a part done
        # again needs them.
        for output in config.todo:
            storage.delete(plan_path(config.out, output))
