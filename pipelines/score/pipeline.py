"""Scoring: a Beam job that answers a whole file of questions from cached features.

    ReadPlan ─► RunInference (reads features) ─► WriteAnswers ─► Tally ─► WriteSummary

The plan (which questions, about which records of which shards) is made where the job is submitted
and travels through OUT. One file of answers is one unit of work: what is written stays, whatever
ends the job. A record is read once, however many questions are asked about it. Every question ends
in exactly one row: answered, not_in_cache, quarantined, other_kind (it wants another kind of answer
than the model gives), not_a_question (the file's row is broken), or failed.

    OUT/_run.json                        what is being scored with what; written first
    OUT/answers-NNNNN-of-NNNNN.jsonl     rows in the order of the question file within each;
                                         .parquet where that was asked for
    OUT/_summary.json                    counts and accuracy; written last

OUT is a dataset as it stands: readers of a folder (Arrow, Spark) pass over names that begin with _.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterable, Iterator, Mapping
from types import MappingProxyType
from typing import Any

import apache_beam as beam
from apache_beam.ml.inference.base import RunInference

from framebank.features.stores import json_text, storage
from framebank.pipelines.jobs.worker_check import worker_check
from framebank.pipelines.jobs.worker_faults import told_to_client
from framebank.pipelines.score.answer_files import answers_path, write_answers
from framebank.pipelines.score.answer_handler import AnswerFile, AnswerModelHandler, FilePlan
from framebank.pipelines.score.answering import AnswerRow
from framebank.pipelines.score.feature_reading import RecordPlan
from framebank.pipelines.score.tally import Tally


@dataclasses.dataclass(frozen=True)
class ScoreConfig:
    """What a worker needs to know; travels with the job.

    `outputs` is the number of files, `kind` what they are; those in `kept` are there from a run
    that was killed, and hold the rows that `kept_tally` counts. The summary's headline is about the
    rows of `split`, as `score_tally.with_headline` takes it.
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
    progress_folder: str | None = None


def plan_path(out: str, output: int) -> str:
    return storage.join(out, f"_plan-{output:05d}.json")


def finished(config: ScoreConfig) -> bool:
    """Return whether WriteSummary is through: the summary is there, and the last plan is gone."""
    todo = [output for output in range(config.outputs) if output not in config.kept]
    summary = storage.join(config.out, "_summary.json")
    return storage.exists(summary) and not storage.exists(plan_path(config.out, todo[-1]))


def build_score(
    pipeline: beam.Pipeline,
    config: ScoreConfig,
    *,
    hints: Mapping[str, str] = MappingProxyType({}),
) -> None:
    """Put the whole job onto `pipeline`; `hints` are Beam's, for the step that runs the model."""
    todo = [output for output in range(config.outputs) if output not in config.kept]
    handler = AnswerModelHandler(
        config.model_dir, cache=config.cache, top=config.top, progress_folder=config.progress_folder
    )
    tallies = (
        pipeline
        | "CreateOutputs" >> beam.Create(todo, reshuffle=False)  # int
        | "CheckWorkers" >> beam.Map(worker_check())  # int
        | "SpreadOutputs" >> beam.Reshuffle()  # int
        | "ReadPlan" >> beam.ParDo(ReadPlan(config))  # FilePlan
        | "AnswerQuestions" >> RunInference(handler).with_resource_hints(**hints)  # AnswerFile
        | "WriteAnswers" >> beam.ParDo(WriteAnswers(config))  # Tally
    )
    (
        tallies
        | "AddTallies" >> beam.CombineGlobally(SumTallies())  # Tally
        | "WriteSummary" >> beam.ParDo(WriteSummary(config))
    )


class ReadPlan(beam.DoFn):  # type: ignore[misc]
    """Number of an answers file → what it is made from."""

    def __init__(self, config: ScoreConfig) -> None:
        self._config = config

    def process(self, output: int) -> Iterator[FilePlan]:
        with told_to_client():
            fields = json_text.read_object(plan_path(self._config.out, output))
        settled = [AnswerRow.of(output, number, row) for number, row in fields["settled"]]
        shards: dict[str, list[RecordPlan]] = {}
        for record in map(RecordPlan.from_json, fields["records"]):
            shards.setdefault(record.place.shard, []).append(record)
        yield FilePlan(output, settled, list(shards.values()))


class WriteAnswers(beam.DoFn):  # type: ignore[misc]
    """Lines of an answers file → their Tally, once the file is there."""

    def __init__(self, config: ScoreConfig) -> None:
        self._config = config

    def process(self, file: AnswerFile) -> Iterator[Tally]:
        config = self._config
        path = answers_path(config.out, file.output, config.outputs, kind=config.kind)
        with told_to_client():
            write_answers(path, file.lines, kind=config.kind)
        yield Tally.of(map(json_text.parse, file.lines))


class SumTallies(beam.CombineFn):  # type: ignore[misc]
    """The sum of tallies."""

    def create_accumulator(self) -> Tally:
        return Tally()

    def add_input(self, accumulator: Tally, tally: Tally) -> Tally:
        return accumulator + tally

    def merge_accumulators(self, accumulators: Iterable[Tally]) -> Tally:
        return sum(accumulators, Tally())

    def extract_output(self, accumulator: Tally) -> Tally:
        return accumulator


class WriteSummary(beam.DoFn):  # type: ignore[misc]
    """The job's Tally → OUT/_summary.json."""

    def __init__(self, config: ScoreConfig) -> None:
        self._config = config

    def process(self, tally: Tally) -> None:
        config = self._config
        count, kind = config.outputs, config.kind
        files = [answers_path("", n, count, kind=kind).lstrip("/") for n in range(count)]
        counts = (tally + config.kept_tally).to_json(split=config.split)
        fields = counts | config.about | {"files": files}
        path = storage.join(config.out, "_summary.json")
        with told_to_client():
            storage.write_atomic(path, json.dumps(fields, indent=2).encode() + b"\n")
            # Last, and here: where nobody waits for the job nobody else would. Before this, a part
            # done again needs them.
            for output in range(count):
                if output not in config.kept:
                    storage.delete(plan_path(config.out, output))
