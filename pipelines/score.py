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

from features import json_text, storage
from pipelines.answer_files import answers_path, write_answers
from pipelines.answer_handler import AnswerFile, AnswerModelHandler, FilePlan
from pipelines.answering import AnswerRow
from pipelines.feature_reading import RecordPlan
from pipelines.worker_check import worker_check
from pipelines.worker_faults import told_to_client

STATUSES = ("answered", "not_in_cache", "quarantined", "other_kind", "not_a_question", "failed")


@dataclasses.dataclass(frozen=True)
class ScoreConfig:
    """What a worker needs to know; travels with the job.

    `outputs` is the number of files, `kind` what they are; those in `kept` are there from a run
    that was killed, and hold the rows that `kept_tally` counts.
    """

    cache: str
    model_dir: str
    out: str
    outputs: int
    top: int
    about: dict[str, Any]  # goes into _summary.json as it is
    kind: str = "jsonl"
    kept: frozenset[int] = frozenset()
    kept_tally: Tally = dataclasses.field(default_factory=lambda: Tally())


def plan_path(out: str, output: int) -> str:
    return storage.join(out, f"_plan-{output:05d}.json")


def build_score(
    pipeline: beam.Pipeline,
    config: ScoreConfig,
    *,
    hints: Mapping[str, str] = MappingProxyType({}),
) -> None:
    """Put the whole job onto `pipeline`; `hints` are Beam's, for the step that runs the model."""
    todo = [output for output in range(config.outputs) if output not in config.kept]
    handler = AnswerModelHandler(config.model_dir, cache=config.cache, top=config.top)
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


@dataclasses.dataclass(frozen=True)
class Tally:
    """Counts over answer rows. Laws: Tally() is that of none; a + b is that of both together.

    `by_type` maps a question's type to (judged, correct), `by_split` its split where the file gives
    one; judged are those answered whose true answer is known. `squares` is (counts judged, sum of
    their squared errors).
    """

    statuses: dict[str, int] = dataclasses.field(default_factory=dict)
    without_truth: int = 0
    by_type: dict[str, tuple[int, int]] = dataclasses.field(default_factory=dict)
    by_split: dict[str, tuple[int, int]] = dataclasses.field(default_factory=dict)
    squares: tuple[int, float] = (0, 0.0)

    @classmethod
    def of(cls, rows: Iterable[dict[str, Any]]) -> Tally:
        """Return the counts over `rows`, in time that grows with them alone."""
        statuses: dict[str, int] = {}
        by_type: dict[str, tuple[int, int]] = {}
        by_split: dict[str, tuple[int, int]] = {}
        without_truth, counts, squares = 0, 0, 0.0
        for row in rows:
            statuses[row["status"]] = statuses.get(row["status"], 0) + 1
            without_truth += row["truth"] is None
            if row["correct"] is None:
                continue
            _count_part(by_type, row["type"], row["correct"])
            if row["split"]:
                _count_part(by_split, row["split"], row["correct"])
            answers = row.get("answers")
            if answers and answers[0].get("number") is not None:
                counts += 1
                squares += (float(answers[0]["answer"]) - float(row["truth"])) ** 2
        return cls(statuses, without_truth, by_type, by_split, (counts, squares))

    def __add__(self, other: Tally) -> Tally:
        statuses = dict(self.statuses)
        for status, count in other.statuses.items():
            statuses[status] = statuses.get(status, 0) + count
        kinds = _add_parts(self.by_type, other.by_type)
        splits = _add_parts(self.by_split, other.by_split)
        squares = (self.squares[0] + other.squares[0], self.squares[1] + other.squares[1])
        return Tally(statuses, self.without_truth + other.without_truth, kinds, splits, squares)

    def to_json(self) -> dict[str, Any]:
        """Return the counts, and the accuracy (None where nothing could be judged)."""
        judged = sum(judged for judged, _ in self.by_type.values())
        correct = sum(correct for _, correct in self.by_type.values())
        counted, squares = self.squares
        error = {"mean_square_error": squares / counted} if counted else {}
        return {
            "questions": sum(self.statuses.values()),
            **{status: self.statuses.get(status, 0) for status in STATUSES},
            "without_truth": self.without_truth,
            "judged": judged,
            "correct": correct,
            "accuracy": correct / judged if judged else None,
            "measure": "mean square error" if counted else "accuracy",
            **error,
            "by_type": _describe_parts(self.by_type),
            "by_split": _describe_parts(self.by_split),
        }


def _count_part(parts: dict[str, tuple[int, int]], name: str, correct: bool) -> None:
    judged, right = parts.get(name, (0, 0))
    parts[name] = (judged + 1, right + int(correct))


def _add_parts(
    left: dict[str, tuple[int, int]], right: dict[str, tuple[int, int]]
) -> dict[str, tuple[int, int]]:
    total = dict(left)
    for name, (judged, correct) in right.items():
        before = total.get(name, (0, 0))
        total[name] = (before[0] + judged, before[1] + correct)
    return total


def _describe_parts(parts: dict[str, tuple[int, int]]) -> dict[str, dict[str, Any]]:
    return {
        name: {"judged": judged, "correct": correct, "accuracy": correct / judged}
        for name, (judged, correct) in sorted(parts.items())
    }


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
        fields = (tally + config.kept_tally).to_json() | config.about | {"files": files}
        path = storage.join(config.out, "_summary.json")
        with told_to_client():
            storage.write_atomic(path, json.dumps(fields, indent=2).encode() + b"\n")
            # Last, and here: where nobody waits for the job nobody else would. Before this, a part
            # done again needs them.
            for output in range(count):
                if output not in config.kept:
                    storage.delete(plan_path(config.out, output))
