"""One extraction as a job: its plan files, its progress, its way out when it is stopped."""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

from framebank.features.cache import layout
from framebank.features.cache.sidecar import count_kept
from framebank.features.errors import FramebankError
from framebank.features.network.weights import publish_weights
from framebank.features.progress import Source
from framebank.features.stores import json_text, storage
from framebank.features.terminal import say
from framebank.pipelines.extract import cache_access
from framebank.pipelines.extract.plan import (
    ExtractConfig,
    RunFacts,
    ShardPlan,
    plan_paths,
    write_plan,
)
from framebank.pipelines.jobs.progress import CommittedShards, WorkerCounts
from framebank.pipelines.runners.gate import Submission

if TYPE_CHECKING:
    from framebank.pipelines.runners.running import Job

_COMMIT_S = 20.0  # how long the way out waits for a commit that is under way
_COUNTED_SHARDS = 100_000  # of a run with more, how many are safe is not counted on the way out


@dataclasses.dataclass(frozen=True)
class Extraction:
    """What is extracted, how and by whom; `facts` are what the run's summary repeats."""

    submission: Submission
    config: ExtractConfig
    facts: RunFacts
    shards: Sequence[ShardPlan]

    def run(self) -> dict[str, Any] | None:
        """Run the job to its end and return its summary; None where nobody waits for the end."""
        from framebank.pipelines.runners.running import Job

        cache, run_id = self.config.cache, self.config.run_id
        for text in (
            f"{self.facts.to_extract} videos in {len(self.shards)} shards to extract into {cache}",
            *self.submission.notes,
            self.facts.decoders,
        ):
            say(text)
        with Job(self.submission, name="framebank-extract") as job:
            self._submit(job)
            if not self.submission.waits:
                return None
            if again := job.counters().get("shards_already_committed"):
                say(f"parts of the job ran again; {again} of their shards were committed already")
        return json_text.read_object(layout.run_path(cache, run_id))

    def _submit(self, job: Job) -> None:
        from framebank.features.stop_signals import end_on_signals
        from framebank.pipelines.extract.pipeline import build_pipeline

        config = dataclasses.replace(self.config, progress_folder=job.progress_folder)
        if self.submission.workers_elsewhere and not self.submission.dry_run:
            weights = publish_weights(config.weights, config.cache)
            config = dataclasses.replace(config, weights=weights)
        with end_on_signals(lambda: self._end(job)), self._planned(job) as paths:
            job.run(
                lambda pipeline: build_pipeline(
                    pipeline, config, self.facts, plan_paths=paths, hints=self.submission.hints
                ),
                # FinishRun is through: its summary is there, and the plan is gone.
                finished=lambda: (
                    storage.exists(layout.run_path(config.cache, config.run_id))
                    and not storage.exists(paths[-1])
                ),
                source=self._progress(config.progress_folder),
            )

    @contextlib.contextmanager
    def _planned(self, job: Job) -> Iterator[list[str]]:
        """Write the plan, and remove it after the job, however that ended; yields its paths."""
        cache, run_id = self.config.cache, self.config.run_id
        if self.submission.dry_run:
            yield plan_paths(cache, run_id, self.shards)
            return
        try:
            yield write_plan(cache, run_id, self.shards)
        finally:
            if not job.goes_on:  # otherwise the job removes it
                cache_access.remove_plan(cache, run_id)

    def _progress(self, folder: str | None) -> Source:
        if folder is not None:
            return WorkerCounts(folder, total=self.facts.to_extract)
        return CommittedShards(self.config.cache, self._videos(), hint=self.submission.hint)

    def _end(self, job: Job) -> Iterator[str]:
        """Keep what is finished and end everything on the way out; yields what to say of it."""
        from framebank.pipelines.extract import shard_writer

        shard_writer.stop(wait_s=_COMMIT_S)
        yield from job.end(
            remove_plan=lambda: cache_access.remove_plan(self.config.cache, self.config.run_id),
            kept=lambda: f"; {self._kept()}. Run the same command again to go on from there.",
        )

    def _kept(self) -> str:
        if not self.submission.dry_run and len(self.shards) <= _COUNTED_SHARDS:
            with contextlib.suppress(FramebankError):  # the store may not answer any more
                committed = layout.committed_shards(self.config.cache)
                kept = count_kept(self.config.cache, committed, self._videos())
                return f"{kept} of {self.facts.to_extract} videos are done and kept"
        return "what was committed is kept"

    def _videos(self) -> dict[str, int]:
        return {shard.shard: len(shard.refs) for shard in self.shards}
