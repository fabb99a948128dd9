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
    """What is extracted, how and by whom: of each cache that is filled its `configs`, `facts` (what
    the run's summary repeats) and `shards`."""

    submission: Submission
    configs: Sequence[ExtractConfig]
    facts: Sequence[RunFacts]
    shards: Sequence[Sequence[ShardPlan]]

    def run(self) -> list[dict[str, Any]] | None:
        """Run the job to its end and return its summaries; None where nobody waits for the end."""
        from framebank.pipelines.runners.running import Job

        for config, facts, shards in zip(self.configs, self.facts, self.shards, strict=True):
            videos = f"{facts.to_extract} videos in {len(shards)} shards"
            say(f"{videos} to extract into {config.cache}")
        if len(self.configs) > 1:
            say(f"each video is decoded once for {len(self.configs)} networks")
        for text in (*self.submission.notes, self.facts[0].decoders):
            say(text)
        with Job(self.submission, name="framebank-extract") as job:
            self._submit(job)
            if not self.submission.waits:
                return None
            if again := job.counters().get("shards_already_committed"):
                say(f"parts of the job ran again; {again} of their shards were committed already")
        return [json_text.read_object(path) for path in self._summaries]

    @property
    def _summaries(self) -> list[str]:
        return [layout.run_path(config.cache, config.run_id) for config in self.configs]

    def _submit(self, job: Job) -> None:
        from framebank.features.stop_signals import end_on_signals
        from framebank.pipelines.extract.pipeline import build_pipeline

        folder = job.progress_folder
        configs = [dataclasses.replace(one, progress_folder=folder) for one in self.configs]
        if self.submission.workers_elsewhere and not self.submission.dry_run:
            configs = [
                dataclasses.replace(one, weights=publish_weights(one.weights, one.cache))
                for one in configs
            ]
        with end_on_signals(lambda: self._end(job)), self._planned(job) as paths:
            job.run(
                lambda pipeline: build_pipeline(
                    pipeline,
                    configs,
                    self.facts,
                    plan_paths=paths,
                    hints=self.submission.hints,
                    alone=self.submission.in_process,
                ),
                # FinishRun is through: its summaries are there, and the plan is gone.
                finished=lambda: (
                    all(map(storage.exists, self._summaries)) and not storage.exists(paths[-1][-1])
                ),
                source=self._progress(folder),
            )

    @contextlib.contextmanager
    def _planned(self, job: Job) -> Iterator[list[list[str]]]:
        """Write the plans, and remove them after the job, however that ended; yields their paths by
        cache."""
        planned = list(zip(self.configs, self.shards, strict=True))
        if self.submission.dry_run:
            yield [plan_paths(config.cache, config.run_id, shards) for config, shards in planned]
            return
        try:
            yield [write_plan(config.cache, config.run_id, shards) for config, shards in planned]
        finally:
            if not job.goes_on:  # otherwise the job removes it
                self._remove_plans()

    def _remove_plans(self) -> None:
        for config in self.configs:
            cache_access.remove_plan(config.cache, config.run_id)

    def _progress(self, folder: str | None) -> Source:
        if folder is not None:
            return WorkerCounts(folder, total=self._videos)
        return CommittedShards(dict(self._by_cache()), hint=self.submission.hint)

    def _end(self, job: Job) -> Iterator[str]:
        """Keep what is finished and end everything on the way out; yields what to say of it."""
        from framebank.pipelines.extract import shard_writer

        shard_writer.stop(wait_s=_COMMIT_S)
        yield from job.end(
            remove_plan=self._remove_plans,
            kept=lambda: f"; {self._kept()}. Run the same command again to go on from there.",
        )

    def _kept(self) -> str:
        if not self.submission.dry_run and sum(map(len, self.shards)) <= _COUNTED_SHARDS:
            with contextlib.suppress(FramebankError):  # the store may not answer any more
                kept = sum(
                    count_kept(cache, layout.committed_shards(cache), videos)
                    for cache, videos in self._by_cache()
                )
                return f"{kept} of {self._videos} videos are done and kept"
        return "what was committed is kept"

    @property
    def _videos(self) -> int:
        """How many there are to extract, counted for each cache."""
        return sum(facts.to_extract for facts in self.facts)

    def _by_cache(self) -> Iterator[tuple[str, dict[str, int]]]:
        """Yield each cache with the videos of its shards by their names."""
        for config, shards in zip(self.configs, self.shards, strict=True):
            yield config.cache, {shard.shard: len(shard.refs) for shard in shards}
