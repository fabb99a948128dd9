"""The one gate before a submission: what cannot work is refused here, in one message.

Nothing has been listed, written or started when `prepare` returns, and it takes seconds: addresses
are tried once, programs are looked for, and nothing is fetched.
"""

from __future__ import annotations

import argparse
import dataclasses
import functools
import importlib.util
import os
import secrets
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import wait
from typing import TYPE_CHECKING

from framebank.features import threads
from framebank.features.errors import FramebankError, UsageError
from framebank.features.stores import disk, storage
from framebank.pipelines.inputs.manifests import is_manifest
from framebank.pipelines.jobs import beam_options
from framebank.pipelines.jobs.beam_import import import_beam

if TYPE_CHECKING:
    from apache_beam.options.pipeline_options import PipelineOptions

    from framebank.pipelines.jobs.environments import Workers
    from framebank.pipelines.runners.flink.rest import Cluster

_LOCAL = ("direct", "fnapi", "switchingdirect", "bundlebaseddirect")
_PROBE_S = 6.0


@dataclasses.dataclass(frozen=True)
class Submission:
    """A job that may be submitted: how, where its workers are, and what to say about it.

    `kind` is local, prism, flink, dataflow, portable or other. `in_process`: the workers are
    threads of this process. `waits`: this process stays until the job has ended.
    """

    words: tuple[str, ...]
    kind: str = "local"
    workers_elsewhere: bool = False
    in_process: bool = True
    waits: bool = True
    notes: Sequence[str] = ()
    hints: dict[str, str] = dataclasses.field(default_factory=dict)
    dry_run: bool = False  # nothing is submitted: the job is only shown
    cluster: Cluster | None = None  # Flink's, where there is one by address
    tag: str = ""  # of the place that the job writes to
    staging: tuple[str, ...] = ()  # where this process puts what the workers need
    prepared: PipelineOptions | None = None

    @functools.cached_property
    def options(self) -> PipelineOptions:
        """Beam's options; made on first use, since importing Beam takes its time."""
        self.import_beam()
        if self.prepared is not None:
            return self.prepared
        return beam_options.build_options(self.words, runner=beam_options.LOCAL_RUNNER)

    @property
    def hint(self) -> str:
        """What to look at where nothing moves."""
        where = f"{self.cluster.url} (state, subtasks, restarts)" if self.cluster else "its page"
        return {
            "flink": f"look at {where} and at the log of each worker pool: Flink waits for ever "
            "for a worker that died before it was connected. Ctrl-C cancels the job; start the "
            "pools again, then run the same command again",
            "dataflow": "look at the job's page",
        }.get(self.kind, "look at the runner's log and at those of its workers")

    @property
    def runner(self) -> str:
        """The runner's name, as Beam has it."""
        options = self.options
        from apache_beam.options.pipeline_options import StandardOptions

        return str(options.view_as(StandardOptions).runner)

    def import_beam(self) -> None:
        """Import of Beam what this job needs, before whoever imports all of it."""
        import_beam(in_process=self.in_process)


def add_engine_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options of ours that are about the engine; all others of it are Beam's."""
    add = parser.add_argument
    add("--wait", action="store_true", help="on Dataflow: stay until the job has ended")
    add("--accelerator", metavar="TYPE[:COUNT]", help="on Dataflow: GPUs for each worker")
    add("--shared-disk", action="store_true",
        help="all workers see this machine's paths (a disk that each mounts)")  # fmt: skip


def prepare(
    args: argparse.Namespace,
    words: Sequence[str],
    *,
    places: Mapping[str, Sequence[str]],
    cache: str,
) -> Submission:
    """Check all that can be checked of a submission before it is made; raises UsageError.

    `args` has the options of `add_engine_arguments`, `words` are Beam's. `places` are the paths
    that the job touches, by where the user gave them ("INPUT", "--cache"...); `cache` is what it
    writes.
    """
    if importlib.util.find_spec("apache_beam") is None:  # said before anything is written
        raise ModuleNotFoundError("No module named 'apache_beam'", name="apache_beam")
    _check_words(words)
    submission = _prepare_runner(tuple(words), wait=args.wait, accelerator=args.accelerator)
    if args.accelerator and submission.kind != "dataflow":
        raise UsageError(
            "--accelerator is for Dataflow, which attaches one to each worker",
            got=f"--runner {beam_options.runner_word(words) or 'DirectRunner'}",
            todo="leave it out: a GPU that the workers have is used",
        )
    if submission.workers_elsewhere and not args.shared_disk:
        for role, paths in places.items():
            check_remote(role, paths)
    tag = disk.bytes_sha256(os.fsencode(storage.absolute(cache)))[:8]
    if submission.cluster is not None:
        from framebank.pipelines.runners.flink import rest

        rest.check_nobody_writes(submission.cluster.url, tag, place=cache)
    if not submission.dry_run:
        for place in dict.fromkeys((cache, *submission.staging)):
            check_writable(place)
    return dataclasses.replace(submission, tag=tag)


def _check_words(words: Sequence[str]) -> None:
    for option, value in beam_options.named_words(words):
        if option == "--streaming" and value.lower() not in ("false", "0"):
            raise UsageError(
                "--streaming is for jobs without an end", todo="leave it out: this one has an end"
            )
        if option.startswith("--s3_"):
            raise UsageError(
                f"{option} is for Beam's own file system, which Framebank does not use",
                todo="set AWS_ENDPOINT_URL, AWS_REGION, AWS_ACCESS_KEY_ID and so on, here and "
                "where the workers run",
            )
        if option == "--direct_num_workers" and value.startswith("-"):
            raise UsageError(
                f"{option} is out of range", got=value, expected="0 (all cores) or more"
            )


def _prepare_runner(words: tuple[str, ...], *, wait: bool, accelerator: str | None) -> Submission:
    named = beam_options.runner_word(words)
    kind = "local" if named is None else _kind(named)
    beam_options.check_heeded(words, kind)
    given = dict(beam_options.named_words(words))
    dry_run = beam_options.read_dry_run(given.get("--dry_run", False))
    if kind == "local":
        alone = given.get("--direct_running_mode") != "multi_processing"
        return Submission(words, dry_run=dry_run, waits=not dry_run, in_process=alone)
    if kind == "flink":
        from framebank.pipelines.runners.flink import submission as flink

        words = (*words, *flink.default_words(words))
    options = beam_options.build_options(words, runner=str(named))
    if kind == "dataflow":
        from framebank.pipelines.runners.dataflow import checks
        from framebank.pipelines.runners.dataflow import submission as dataflow

        return Submission(
            words,
            kind,
            workers_elsewhere=True,
            in_process=False,
            waits=wait,
            notes=dataflow.prepare(options, accelerator=accelerator, wait=wait),
            hints=dataflow.resource_hints(options, accelerator=accelerator),
            dry_run=dry_run,
            staging=checks.staging_places(options),
            prepared=options,
        )
    cluster: Cluster | None = None
    notes: Sequence[str] = ()
    if kind == "flink":
        workers, cluster, notes = flink.prepare(options, words)
    elif kind == "prism":
        from framebank.pipelines.runners import prism

        workers = prism.prepare(options)
    else:
        workers = _find_workers(kind, options)
    return Submission(
        words,
        kind,
        workers_elsewhere=workers.elsewhere,
        in_process=workers.in_process,
        waits=not dry_run,
        notes=notes,
        dry_run=dry_run,
        cluster=cluster,
        prepared=options,
    )


def _kind(named: str) -> str:
    """Return what a runner is to us; raises UsageError for a name that Beam does not know."""
    from apache_beam.options.pipeline_options import StandardOptions

    short = named.lower().rsplit(".", 1)[-1].removesuffix("runner")
    if short in _LOCAL:
        return "local"
    if short in ("prism", "flink", "dataflow", "portable"):
        return short
    known = {name.lower().removesuffix("runner") for name in StandardOptions.KNOWN_RUNNER_NAMES}
    if "." in named or short in known:
        return "other"
    raise UsageError(
        f"Unexpected pipeline runner: {named}",
        expected="DirectRunner, PrismRunner, FlinkRunner, DataflowRunner or PortableRunner",
    )


def _find_workers(kind: str, options: PipelineOptions) -> Workers:
    """A job server that somebody else started, or a runner that is not ours to know."""
    from apache_beam.options.pipeline_options import PortableOptions

    from framebank.pipelines.jobs import environments

    if kind == "other":
        elsewhere = environments.environment_type(options) != "LOOPBACK"
        return environments.Workers(elsewhere=elsewhere)
    endpoint = options.view_as(PortableOptions).job_endpoint
    if not endpoint:
        raise UsageError(
            "--runner PortableRunner needs the address of a job server",
            todo="give --job_endpoint=HOST:PORT",
        )
    here = endpoint == "embed" or environments.check_endpoint(endpoint)
    return environments.find_workers(options, runner_here=here)


def check_remote(role: str, paths: Iterable[str]) -> None:
    """Raise UsageError for a path of this machine, which workers elsewhere cannot see.

    A manifest may be local: it is read here; what it names is checked like any other path.
    """
    for path in paths:
        if storage.is_local(path) and not (role == "INPUT" and is_manifest(path)):
            raise UsageError(
                f"{role} is on this machine, and the workers are on others",
                got=path,
                expected="a path that every worker reaches, such as gs://BUCKET/NAME",
                todo="copy it to a bucket; or, where all workers mount the same disk at the same "
                "path, say so by --shared-disk",
            )


def check_writable(path: str) -> None:
    """Raise the FramebankError of a folder or prefix in which nothing can be written."""
    if storage.is_local(path):
        # Writes nothing: the nearest folder that is there must let us make files.
        folder = os.path.abspath(storage.local_path(path))
        while not os.path.lexists(folder):
            folder = os.path.dirname(folder)
        if os.path.isdir(folder) and (err := disk.why_unwritable(folder)):
            told = storage.storage_error(path, err, "write into")
            raise UsageError(told.what, got=f"{told.got}: {folder}", todo=told.todo)
        return
    # In a thread, since the clients of buckets try again and again for minutes.
    probing = threads.begin(lambda: _probe(path))
    if not wait([probing], timeout=_PROBE_S).done:
        raise UsageError(
            f"{path} does not answer",
            got=f"nothing within {_PROBE_S:.0f} s",
            todo="check the network and the address",
        )
    probing.result()


def _probe(path: str) -> None:
    """Write a small object and delete it."""
    probe = storage.join(path, f".framebank-probe-{secrets.token_hex(8)}")
    try:
        storage.write_atomic(probe, b"may this be written?\n")
        storage.delete(probe)
    except FramebankError as error:
        what = error.what.replace(probe, path)
        refusal = UsageError(what, got=error.got, expected=error.expected, todo=error.todo)
        raise refusal from error
