"""What a run has to do: inputs, less what is committed, dealt into shards.

The plan is made where the job is submitted, before any work: two videos with one id, a cache of
another spec or nothing left to do are told at once, and a run over an unchanged input starts no
engine at all. The shards of a plan go to the workers through files in the cache, so that a plan may
be larger than what a runner lets a submission carry. `infra/decisions/0001` says more.
"""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import json
import math
from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from framebank import __version__
from framebank.features.cache.known_videos import KnownVideos
from framebank.features.decoders.pool import DecoderPolicy
from framebank.features.errors import CacheError, FramebankError, JobError, UsageError
from framebank.features.network.weights import Weights
from framebank.features.spec import FeatureSpec
from framebank.features.stores import json_text, storage
from framebank.features.video import VideoRef, catalog_text

_SHARDS_PER_FILE = 1000
_SHARD_BYTES = 2**30  # of video: about what one worker gets through in some minutes
_MOST_VIDEOS = 64
# What is known of a clip before it is opened is its size. A second of two cores' work for each
# clip and for each MiB is what ordinary clips take at one frame a second; a GPU is far quicker.
_WORK_OF_A_CLIP_S = 1.0
_WORK_OF_A_MIB_S = 1.0
_SHARD_WORK_S = 30.0  # of a small input; of a large one a share, so that shards stay countable
_SHARDS_ENOUGH = 1000


@dataclasses.dataclass(frozen=True)
class ExtractConfig:
    """All that a worker needs to know; travels with the job."""

    cache: str
    run_id: str
    spec: FeatureSpec
    weights: Weights
    policy: DecoderPolicy
    batch_size: int = 32
    progress_folder: str | None = None
    framebank_version: str = __version__  # of the submitter: `dataclasses` takes it as a value


@dataclasses.dataclass(frozen=True)
class RunFacts:
    """What the submitter knows of a run and its summary repeats."""

    inputs: int
    already_done: int
    already_quarantined: int
    to_extract: int
    shards_planned: int
    recovered: int  # videos of shards that an interrupted run had committed without a catalog
    skipped_by_suffix: dict[str, int]
    started: str  # UTC, ISO 8601
    weights_path: str | None
    command: str
    runner: str
    max_bad_ratio: float | None = None  # where nobody waits who would judge it
    allowed_bad_ratio: float | None = None  # the same, whoever judges it
    unaccepted: int = 0  # of those already quarantined: what counts still (`unaccepted_runs`)
    judged_runs: tuple[str, ...] = ()  # whose quarantine this run accepts if it ends well
    decoders: str = ""  # what is out of their reach
    precision: dict[str, Any] = dataclasses.field(default_factory=dict)  # `Settled`, of an "auto"


@dataclasses.dataclass(frozen=True)
class ShardPlan:
    """One unit of work: a name that follows from the videos and the spec, and the videos.

    `place` is that in the order of the job; shards of several caches that are filled by one
    decoding have the same (`groups.py`).
    """

    shard: str
    refs: tuple[VideoRef, ...]
    place: int = 0

    @property
    def video_bytes(self) -> int:
        """The size of all its videos; those of unknown size count nothing."""
        return sum(max(0, ref.size_bytes) for ref in self.refs)

    @property
    def work_s(self) -> float:
        """The seconds of work that it is expected to be, for the order of shards alone."""
        return sum(map(_work_s, self.refs))

    @property
    def longest_s(self) -> float:
        """The same of the longest of its videos."""
        return max(map(_work_s, self.refs), default=0.0)

    @property
    def longest_first(self) -> list[VideoRef]:
        """The videos in the order in which decoders end most nearly at one time."""
        return sorted(self.refs, key=lambda ref: (-_work_s(ref), ref.video_id))


@dataclasses.dataclass(frozen=True)
class Todo:
    """The inputs, told apart by what the catalog says of them."""

    refs: tuple[VideoRef, ...]  # to extract now; `attempt` counts from the catalog
    already_done: int
    already_quarantined: int
    quarantined_by_run: Mapping[str, int] = dataclasses.field(default_factory=dict)
    unaccepted: int = 0  # of the quarantined, and whose they are
    judged_runs: tuple[str, ...] = ()


def drop_done(
    refs: Sequence[VideoRef],
    known: KnownVideos,
    *,
    fingerprint: str,
    retry_quarantined: bool,
    lost: Collection[str] = (),
) -> Todo:
    """Return what is left to do: new videos, changed ones and, if asked for, quarantined ones.

    Those whose ids are `lost` have a row and no whole shard; they are done again, in a new one.

    Raises UsageError for an id that the cache holds from another file which still exists.
    """
    places = known.find([catalog_text(ref.video_id) for ref in refs])
    if not (places >= 0).any():
        return Todo(tuple(refs), 0, 0)
    keys = [
        ref.key(fingerprint) if place >= 0 else ""
        for ref, place in zip(refs, places.tolist(), strict=True)
    ]
    same = (places >= 0) & known.has_keys(np.maximum(places, 0), keys)
    again = np.zeros(len(known), bool)
    again[known.find(list(lost))] = True
    done = same & (known.is_text("state", "done") & ~again)[places]
    if retry_quarantined:
        again |= known.is_text("state", "quarantined")
    quarantined = same & ~done & ~again[places]
    todo = []
    left = np.flatnonzero(~done & ~quarantined)
    held = left[places[left] >= 0]
    uris, attempts = (iter(known.values(name, places[held])) for name in ("uri", "attempt"))
    for number in left.tolist():
        ref = refs[number]
        if places[number] >= 0:
            uri, attempt = next(uris), next(attempts)
            if same[number]:
                ref = dataclasses.replace(ref, attempt=attempt + 1)
            else:
                _check_same_origin(ref, uri)
        todo.append(ref)
    by_run = known.quarantined_by_run(places[quarantined])
    return Todo(tuple(todo), int(done.sum()), int(quarantined.sum()), by_run)


def _check_same_origin(ref: VideoRef, uri: str) -> None:
    """A moved file is extracted afresh; two files that share an id must not replace each other."""
    if uri != catalog_text(ref.uri) and storage.exists(uri):
        raise UsageError(
            f"two videos have the id {ref.video_id!r}",
            got=f"{catalog_text(ref.uri)}, and in the cache {uri}, which still exists",
            expected="one id for one video",
            todo="give ids of your own in a manifest (columns uri, video_id), or use another cache",
        )


def unaccepted_runs(
    cache: str, runs: Mapping[str, int], *, limit: float, whole: Mapping[str, int]
) -> tuple[int, list[str]]:
    """Return how many of the quarantined videos no run has accepted, and the runs to judge anew.

    A run that ends within its ratio accepts what it quarantined: a later one over a part of the
    same input has nothing new to complain of. A run that did not, or that never came to its end,
    accepts nothing, so the same command again fails again. What it left counts until a run whose
    input holds all of it ends within its ratio: those are to judge anew.

    `runs` counts the videos of this input by the run that quarantined them, `whole` those of the
    whole catalog.
    """
    if not runs:
        return 0, []
    accepted: set[str] = set()
    for path in summary_files(cache):
        with contextlib.suppress(FramebankError, KeyError, TypeError):  # nobody can read that run
            summary = json_text.read_object(path)
            bad = summary["quarantined"] + summary.get("unaccepted", summary["already_quarantined"])
            most = max(limit, summary.get("allowed_bad_ratio") or 0.0)
            if summary["run_id"] and bad <= most * summary["inputs"]:
                judged = summary.get("judged_runs") or ()
                accepted.update((str(summary["run_id"]), *map(str, judged)))
    left = {run: count for run, count in runs.items() if run not in accepted}
    return sum(left.values()), sorted(run for run in left if left[run] == whole.get(run))


def check_bad_ratio(bad: int, inputs: int, *, limit: float, cache: str) -> None:
    """Raise JobError where more than `limit` of the inputs are `bad`."""
    if bad > limit * inputs:
        raise JobError(
            "too many videos are quarantined; the features of the others are kept",
            got=f"{bad} of {inputs} ({bad / inputs:.0%})",
            expected=f"at most {limit:.0%} (--max-bad-ratio)",
            todo=f"see `framebank inspect {cache} --quarantined`",
        )


def plan_shards(
    refs: Sequence[VideoRef], *, fingerprint: str, videos_per_shard: int | None = None
) -> list[ShardPlan]:
    """Deal videos into shards in an order of hashes; heaviest shards first.

    A shard ends with `videos_per_shard` videos, or before 1 GiB of video (unless one alone has
    more). Without `videos_per_shard` it also ends at about half a minute of work, or a thousandth
    of all work where that is more, and with 64 videos at most. So a shard is a random sample of the
    input (long clips spread), and the same input is dealt in the same way everywhere, in whatever
    order it was listed and whatever the spec. Engines that deal shards in turn then give every
    worker the same bytes but for one shard's, and those that deal when a worker is free end with
    small ones.
    """
    keyed = sorted((ref.key(""), ref.video_id, ref) for ref in refs)  # of no spec
    shards = [
        ShardPlan(shard_name(group, fingerprint), group)
        for group in _groups([ref for _, _, ref in keyed], videos_per_shard)
    ]
    shards.sort(key=lambda shard: (-shard.work_s, shard.shard))
    return [dataclasses.replace(shard, place=place) for place, shard in enumerate(shards)]


def _work_s(ref: VideoRef) -> float:
    return _WORK_OF_A_CLIP_S + _WORK_OF_A_MIB_S * max(0, ref.size_bytes) / 2**20


def _groups(
    refs: Sequence[VideoRef], videos_per_shard: int | None
) -> Iterator[tuple[VideoRef, ...]]:
    most, most_s = videos_per_shard, math.inf
    if most is None:
        most = _MOST_VIDEOS
        most_s = max(_SHARD_WORK_S, sum(map(_work_s, refs)) / _SHARDS_ENOUGH)
    group: list[VideoRef] = []
    size_bytes, work_s = 0, 0.0
    for ref in refs:
        more, longer_s = max(0, ref.size_bytes), _work_s(ref)
        is_full = len(group) == most or size_bytes + more > _SHARD_BYTES
        if group and (is_full or work_s + longer_s > most_s):
            yield tuple(group)
            group, size_bytes, work_s = [], 0, 0.0
        group.append(ref)
        size_bytes += more
        work_s += longer_s
    if group:
        yield tuple(group)


def shard_name(refs: Sequence[VideoRef], fingerprint: str) -> str:
    text = "\n".join(f"{ref.key(fingerprint)} {ref.attempt} {ref.video_id}" for ref in refs)
    return hashlib.sha256(text.encode("utf-8", "surrogateescape")).hexdigest()[:20]


def write_plan(cache: str, run_id: str, shards: Sequence[ShardPlan]) -> list[str]:
    """Write the plan into the cache, some shards a file; return the paths."""
    paths = plan_paths(cache, run_id, shards)
    for number, path in enumerate(paths):
        some = shards[number * _SHARDS_PER_FILE :][:_SHARDS_PER_FILE]
        storage.write_atomic(path, (json.dumps(s, default=_fields).encode() + b"\n" for s in some))
    return paths


def _fields(record: Any) -> dict[str, Any]:
    """Return what `dataclasses.asdict` would, but for its copies: of a million videos they take
    longer than all else."""
    return {field.name: getattr(record, field.name) for field in dataclasses.fields(record)}


def plan_paths(cache: str, run_id: str, shards: Sequence[ShardPlan]) -> list[str]:
    return [
        storage.join(cache, "runs", f"{run_id}.plan-{number:05d}.jsonl")
        for number in range(-(-len(shards) // _SHARDS_PER_FILE))
    ]


def read_plan(path: str) -> Iterator[ShardPlan]:
    for number, line in enumerate(storage.read_bytes(path).splitlines(), start=1):
        try:
            fields = json_text.parse(line)
            refs = tuple(VideoRef(**ref) for ref in fields["refs"])
            shard = ShardPlan(fields["shard"], refs, fields["place"])
        except (ValueError, KeyError, TypeError) as err:
            raise CacheError(f"line {number} of the plan {path} is damaged", got=err) from err
        yield shard


def plan_files(cache: str) -> list[str]:
    """Return the paths of all plans in a cache (later on, of runs that ended before their end)."""
    return [path for path in _files_of_runs(cache, ".jsonl") if ".plan-" in path]


def summary_files(cache: str) -> list[str]:
    return [path for path in _files_of_runs(cache, ".json") if not storage.is_leftover(path)]


def _files_of_runs(cache: str, suffix: str) -> list[str]:
    files = storage.list_files(storage.join(cache, "runs"))
    return [file.path for file in files if file.path.endswith(suffix)]
