"""One extraction as a job: its plan files, its progress, its way out when it is stopped."""

from __future__ import annotations

import contextlib
import dataclasses
import datetime
import os
import sys
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

from framebank.features.cache import layout
from framebank.features.cache.sidecar import count_kept
from framebank.features.decoders.launch import confinement_here
from framebank.features.decoders.pool import DecoderPolicy
from framebank.features.errors import FramebankError
from framebank.features.network.weights import Weights
from framebank.features.progress import show_progress
from framebank.features.spec import FeatureSpec
from framebank.features.stores import json_text, locks, storage
from framebank.pipelines.extract import cache_access
from framebank.pipelines.extract.plan import ShardPlan, plan_paths, write_plan
from framebank.pipelines.jobs.progress import CommittedShards, WorkerCounts
from framebank.pipelines.runners.gate import Submission

if TYPE_CHECKING:
    from framebank.pipelines.extract.pipeline import RunFacts
    from framebank.pipelines.extract.shard import ExtractConfig
    from framebank.pipelines.runners.running import Job

_COMMIT_S = 20.0  # how long the way out waits for a commit that is under way
_COUNTED_SHARDS = 100_000  # of a run with more, how many are safe is not counted on the way out


@dataclasses.dataclass(frozen=True)
class Extraction:
    """What is extracted, into which cache, and how."""

    submission: Submission
    cache: str
    spec: FeatureSpec
    weights: Weights
    policy: DecoderPolicy
    batch_size: int

    def run(
        self, shards: Sequence[ShardPlan], facts: dict[str, Any], *, run_id: str
    ) -> dict[str, Any] | None:
        """Run the job to its end and return its summary; None where nobody waits for the end."""
        from framebank.pipelines.runners.running import Job

        _say(f"{facts['to_extract']} videos in {len(shards)} shards to extract into {self.cache}")
        for note in self.submission.notes:
            _say(note)
        facts = facts | {"decoders": self._confinement(), "shards_planned": len(shards)}
        _say(facts["decoders"])
        with Job(self.submission, name="framebank-extract") as job:
            counts = os.path.join(job.folder, "counts")
            os.mkdir(counts)
            config = self._config(run_id, counts if self.submission.in_process else None)
            self._submit(job, config, self._facts(facts), shards)
            if not self.submission.waits:
                return None
            if again := job.counters().get("shards_already_committed"):
                _say(f"parts of the job ran again; {again} of their shards were committed already")
        return json_text.read_object(layout.run_path(self.cache, run_id))

    def _config(self, run_id: str, progress_folder: str | None) -> ExtractConfig:
        from framebank.pipelines.extract.shard import ExtractConfig

        return ExtractConfig(
            cache=self.cache,
            run_id=run_id,
            spec=self.spec,
            weights=self._weights_for_workers(),
            policy=self.policy,
            batch_size=self.batch_size,
            progress_folder=progress_folder,
        )

    def _confinement(self) -> str:
        """Return what decoders cannot do where this job's workers are, as far as it is known."""
        if self.submission.workers_elsewhere:
            return "what decoders are shut in by stands in the workers' logs"
        return confinement_here().line()

    def _weights_for_workers(self) -> Weights:
        """Put a weight file where workers on other machines find it: into the cache."""
        if (
            not self.submission.workers_elsewhere
            or self.weights.local_path is None
            or self.submission.dry_run
        ):
            return self.weights
        from framebank.features.network.weights import publish_weights

        return publish_weights(self.weights, self.cache)

    def _facts(self, facts: dict[str, Any]) -> RunFacts:
        from framebank.pipelines.extract.pipeline import RunFacts

        if self.submission.waits:  # then the client judges it, with the runs before
            facts = facts | {"max_bad_ratio": None}
        return RunFacts(
            **facts,
            started=datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
            weights_path=self.weights.local_path,
            runner=self.submission.runner,
        )

    def _submit(
        self, job: Job, config: ExtractConfig, facts: RunFacts, shards: Sequence[ShardPlan]
    ) -> None:
        from framebank.features.stop_signals import end_on_signals
        from framebank.pipelines.extract.pipeline import build_pipeline

        hints = self.submission.hints
        with (
            end_on_signals(lambda: self._end(job, config.run_id, shards)),
            self._planned(job, config.run_id, shards) as paths,
            self._progress(config, shards),
        ):
            job.run(
                lambda pipeline: build_pipeline(
                    pipeline, config, facts, plan_paths=paths, hints=hints
                ),
                finished=lambda: self._finished(config.run_id, paths),
            )
            if not self.submission.waits:
                print(job.submitted_text())

    def _finished(self, run_id: str, plan: Sequence[str]) -> bool:
        """Return whether FinishRun is through: its summary is there, and the plan is gone."""
        path = layout.run_path(self.cache, run_id)
        return storage.exists(path) and not storage.exists(plan[-1])

    @contextlib.contextmanager
    def _planned(self, job: Job, run_id: str, shards: Sequence[ShardPlan]) -> Iterator[list[str]]:
        """Write the plan, and remove it after the job, however that ended; yields its paths."""
        if self.submission.dry_run:
            yield plan_paths(self.cache, run_id, shards)
            return
        try:
            yield write_plan(self.cache, run_id, shards)
        finally:
            if not job.goes_on:  # otherwise the job removes it
                cache_access.remove_plan(self.cache, run_id)

    def _progress(
        self, config: ExtractConfig, shards: Sequence[ShardPlan]
    ) -> contextlib.AbstractContextManager[None]:
        if not self.submission.waits:
            return contextlib.nullcontext()
        videos = _videos(shards)
        if config.progress_folder is not None:
            return show_progress(WorkerCounts(config.progress_folder, total=sum(videos.values())))
        hint = self.submission.hint
        return show_progress(CommittedShards(self.cache, videos=videos, hint=hint))

    def _end(self, job: Job, run_id: str, shards: Sequence[ShardPlan]) -> Iterator[str]:
        """Keep what is finished and end everything on the way out; yields what to say of it."""
        from framebank.pipelines.extract import shard

        shard.stop(wait_s=_COMMIT_S)
        ended, text = job.cancel()
        if text:
            yield text
        if ended:
            cache_access.remove_plan(self.cache, run_id)
        locks.release_all()
        job.close()
        yield f"stopped; {self._kept(shards)}. Run the same command again to go on from there."

    def _kept(self, shards: Sequence[ShardPlan]) -> str:
        """Return how many videos of the run are safe, in words."""
        if self.submission.dry_run or len(shards) > _COUNTED_SHARDS:
            return "what was committed is kept"
        try:
            kept = count_kept(self.cache, layout.committed_shards(self.cache), _videos(shards))
        except FramebankError:  # the store does not answer any more
            return "what was committed is kept"
        return f"{kept} of {sum(_videos(shards).values())} videos are done and kept"


def _videos(shards: Sequence[ShardPlan]) -> dict[str, int]:
    return {shard.shard: len(shard.refs) for shard in shards}


def _say(text: str) -> None:
    print(f"framebank: {text}", file=sys.stderr, flush=True)
