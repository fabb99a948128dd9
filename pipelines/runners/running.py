"""One job from its submission to its end: its server, its failure in few words, its cancelling."""

from __future__ import annotations

import contextlib
import functools
import logging
import os
import re
import secrets
import tempfile
import threading
import time
import traceback
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import wait

import apache_beam as beam
from apache_beam.options.pipeline_options import (
    FlinkRunnerOptions,
    GoogleCloudOptions,
    PortableOptions,
)
from apache_beam.runners.runner import PipelineResult

from framebank.features import threads
from framebank.features.errors import FramebankError, JobError
from framebank.features.progress import Source, show_progress
from framebank.features.stores import locks, temporary
from framebank.features.terminal import say
from framebank.pipelines.jobs import beam_options, environments, sampling_threads, worker_faults
from framebank.pipelines.jobs.servers import JobServer
from framebank.pipelines.runners import prism
from framebank.pipelines.runners.dataflow import job as dataflow_job
from framebank.pipelines.runners.dataflow import submission as dataflow
from framebank.pipelines.runners.flink import rest
from framebank.pipelines.runners.flink import submission as flink
from framebank.pipelines.runners.gate import Submission

NAMESPACE = "framebank"  # of every counter of ours
_CANCEL_S = 30.0
_LOOK_S = 5.0  # whether the work of a job is done
_END_S = 30.0  # that an engine has to end a job whose work is done
# What gRPC, in the runner, says when the process at the other end is gone.
_DEAD_WORKER = ("CANCELLED: client cancelled", "Socket closed", "Connection reset by peer")
_WORKER_THREADS = (
    "run_worker",
    "read_grpc_client_inputs",
    "wait_until_finish_read",
    "read_state",
)


class Job:
    """A job of ours while this process looks after it; a context manager.

    Every temporary file of this process and of the servers that it starts lies in `folder`.
    """

    def __init__(self, submission: Submission, *, name: str) -> None:
        self._submission = submission
        self._name = name
        self._server: JobServer | None = None
        self._result: PipelineResult | None = None
        self._heard: list[str] = []
        self._cancelled = False
        self._quiet = contextlib.ExitStack()

    def __enter__(self) -> Job:
        self._quiet.enter_context(
            _heard_from_runner(self._heard, quiet=self._submission.kind != "dataflow")
        )
        self._excepthook, threading.excepthook = threading.excepthook, self._on_thread_failure
        self._outside = tempfile.gettempdir()
        self._live = temporary.live_folder()
        self.folder = tempfile.tempdir = self._live.path
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """End the servers of this job and remove its temporary files."""
        if self._server is not None:
            self._server.stop()
        tempfile.tempdir = self._outside
        self._live.close()
        threading.excepthook = self._excepthook
        self._quiet.close()

    @functools.cached_property
    def progress_folder(self) -> str | None:
        """Where workers of this process leave their counts; None where there are none."""
        if not self._submission.in_process:
            return None
        path = os.path.join(self.folder, "counts")
        os.mkdir(path)
        return path

    def _on_thread_failure(self, args: threading.ExceptHookArgs) -> None:
        """Keep what ends a thread of a worker in this process: the job's end cuts its calls off."""
        name = args.thread.name if args.thread else ""
        if name.startswith(_WORKER_THREADS):
            self._heard.append(f"{name}: {args.exc_type.__name__}: {args.exc_value}")
        else:
            self._excepthook(args)

    def run(
        self,
        build: Callable[[beam.Pipeline], object],
        *,
        finished: Callable[[], bool],
        source: Source,
    ) -> None:
        """Submit the pipeline that `build` makes, and wait for its end where the submission says,
        else print where it is. On a dry run Dataflow shows the job, and other runners do nothing.

        `finished` tells whether all that the job was for is written: an engine that does not end
        the job after that is not waited for. `source` tells meanwhile how far it is. Raises
        JobError, or the error of ours that a worker marked for the client.
        """
        waits = self._submission.waits
        if self._submission.dry_run and self._submission.kind != "dataflow":
            say("nothing was submitted and nothing written, for --dry_run")
            return
        what = self._name.removeprefix("framebank-")
        shown = show_progress(source, what=what) if waits else contextlib.nullcontext()
        try:
            with sampling_threads.none_left(), shown, beam_options.outside_notebooks():
                self._start_server()
                pipeline = beam.Pipeline(options=self._submission.options)
                build(pipeline)
                self._result = result = pipeline.run()
                state = self._wait(result, finished) if waits else None
        except FramebankError:
            raise
        except Exception as error:
            if self._cancelled:
                raise JobError("the job was cancelled") from error
            raise self._explained(error) from error
        if state not in (None, "DONE"):
            if self._submission.kind == "dataflow":
                raise self._explained(RuntimeError(state))
            raise JobError("the job failed", got=f"state {state}", expected="DONE")
        if not waits:
            print(dataflow_job.submitted_text(self._result))

    def _wait(self, result: PipelineResult, finished: Callable[[], bool]) -> str:
        if self._submission.kind in ("local", "dataflow"):
            return str(result.wait_until_finish())
        end = threads.begin(lambda: str(result.wait_until_finish()))
        since_s: float | None = None
        while not wait([end], timeout=_LOOK_S).done:
            if since_s is None:
                with contextlib.suppress(FramebankError):  # the store's trouble is told by workers
                    since_s = time.monotonic() if finished() else None
            elif time.monotonic() - since_s > _END_S:
                say(f"all is written, and the runner has not ended the job {_END_S:.0f} s later")
                _, text = self.cancel()
                self._result = None  # it has no counters any more
                say(text or "the job was ended")
                return "DONE"
        return end.result()

    def _start_server(self) -> None:
        kind, options = self._submission.kind, self._submission.options
        if kind == "dataflow":
            name = f"{self._name}-{secrets.token_hex(4)}"
            dataflow.name_job(options, name, command=self._name.removeprefix("framebank-"))
        if kind == "flink":
            # Unique, since it is by its name that the job is found on the cluster; and with the
            # tag of the place it writes to, by which the next run finds it.
            cloud = options.view_as(GoogleCloudOptions)
            name = cloud.job_name or self._name
            self._name = f"{name}-{self._submission.tag}-{secrets.token_hex(4)}"
            cloud.job_name = self._name
            if options.view_as(FlinkRunnerOptions).flink_submit_uber_jar:
                return
        if kind not in ("flink", "prism") or options.view_as(PortableOptions).job_endpoint:
            return
        self._server = (flink if kind == "flink" else prism).start(options, self.folder)
        options.view_as(PortableOptions).job_endpoint = self._server.endpoint

    def cancel(self) -> tuple[bool, str]:
        """End the job, from any thread; return whether it has ended, and what to say of it."""
        self._cancelled = True
        if self._submission.kind == "dataflow":
            text = "the submission was cut off: look whether the job is in Dataflow's list"
            if self._result is not None:
                told = dataflow_job.submitted_text(self._result)
                text = f"the job goes on without this command. It was {told}"
            return False, text
        if self._server is not None:  # first: what is being submitted must not reach the cluster
            self._server.stop()
        if cluster := self._submission.cluster:
            return rest.cancel_job(cluster.url, self._name, wait_s=_CANCEL_S)
        if self._server is None and self._submission.kind != "local" and self._result is not None:
            try:
                self._result.cancel()
            except Exception as error:  # noqa: BLE001 - whatever it is, we are on the way out
                return False, f"the job may still run: its server does not cancel it ({error})"
            return False, "the job's server was asked to cancel it"
        return True, ""

    def end(self, *, remove_plan: Callable[[], object], kept: Callable[[], str]) -> Iterator[str]:
        """End everything on the way out; yields what to say of it, `kept` at last."""
        ended, text = self.cancel()
        if text:
            yield text
        if ended:
            remove_plan()
        locks.release_all()
        self.close()
        yield f"stopped{kept()}"

    @property
    def goes_on(self) -> bool:
        """Whether the job was submitted and runs without this process (not so on --dry_run)."""
        return not self._submission.waits and hasattr(self._result, "job_id")

    def counters(self) -> dict[str, int]:
        """Return our counters by name, over all steps; {} from a runner that does not tell."""
        try:
            found = self._result.metrics().query()["counters"] if self._result else []
        except Exception:  # noqa: BLE001 - Flink's uber jar has none, and no job fails for that
            return {}
        total: Counter[str] = Counter()
        for metric in found:
            if metric.key.metric.namespace == NAMESPACE:
                value = metric.committed if metric.committed is not None else metric.attempted
                total[metric.key.metric.name] += value or 0
        return dict(total)

    def _explained(self, error: Exception) -> FramebankError:
        """Return what to tell of a failure: a worker's own words, which `mark_for_client` marks
        in a traceback, or the gist of the runner's."""
        texts = [str(error), *self._heard]
        if cluster := self._submission.cluster:
            texts.append(rest.last_exception(cluster.url, self._name))
        if self._server is not None:
            texts.append(self._server.log_tail())
        for text in texts:
            if told := beam_options.find_marked(text):
                return told
        if self._submission.kind == "dataflow":
            return dataflow_job.job_error(error, self._result)
        return self._unforeseen(error, texts)

    def _keep(self, texts: list[str]) -> str:
        """Write `texts` to a file that stays, and return where it is."""
        try:
            fd, path = tempfile.mkstemp(".txt", "framebank-error-", self._outside)
            with open(fd, "w", errors="backslashreplace") as file:
                file.writelines(texts)
        except OSError as fault:  # the failure is told all the same
            return f"not kept, as {self._outside} takes no file ({fault.strerror})"
        return path

    def _unforeseen(self, error: Exception, texts: list[str]) -> JobError:
        """Return what is told of a failure that nobody marked, with all that is known in a file."""
        told = gist(str(error)) or next(filter(None, map(gist, texts[1:])), "")
        got, expected, pool = told[:300], None, None
        if self._submission.kind not in ("local", "dataflow"):
            pool = environments.pool_address(self._submission.options)
        if pool is not None and names_pool(pool, texts):
            cluster = self._submission.cluster
            hosts = f" on {', '.join(sorted(set(cluster.hosts)))}" if cluster else ""
            address = f"{pool}, where --environment_config has the runner look"
            what = f"no worker pool answers at {address}"
            expected = f"one beside each of the runner's workers{hosts}"
            todo = (
                f"start `{environments.POOL_COMMAND}` there, in an environment that has "
                "Framebank; then run the same command again"
            )
        elif any(words in told for words in _DEAD_WORKER):
            what = "a worker of the job died, and the runner did not try again"
            todo = "see why (memory?), then run the same command again: what was committed is kept"
        elif worker_faults.lacks_memory(error) or told.startswith("MemoryError"):
            # Of Beam's own code: ours is marked.
            what, got = "a worker of the job has too little memory", told[:300] or "MemoryError"
            todo = worker_faults.MORE_MEMORY
        else:
            what, got = "the runner could not run the job", f"{type(error).__name__}: {told[:600]}"
            todo = "check the options of Beam (--runner and its own); what was committed is kept"
        kept = self._keep([*traceback.format_exception(error), *(f"\n{t}\n" for t in texts[1:])])
        todo += f". All that is known: {kept}"
        return JobError(what, got=got, expected=expected, todo=todo)


def names_pool(address: str, texts: Iterable[str]) -> bool:
    """Return whether a runner tells in `texts` that it did not reach the pool at `address`."""
    _, _, port = address.rpartition(":")
    unreached = ("UNAVAILABLE", "Connection refused", "UnknownHostException")
    place = re.compile(rf":{port}\b|ExternalEnvironmentFactory|BeamFnExternalWorkerPool")
    return any(place.search(text) and any(one in text for one in unreached) for text in texts)


def gist(text: str) -> str:
    """Return the line that says it, of a failure with tracebacks of Python or Java in it."""
    lines = [line.rstrip() for line in text.splitlines() if line.strip()]
    starts = [number for number, line in enumerate(lines) if "Traceback (most recent" in line]
    if starts:  # of a worker: the first line after its frames
        after = lines[starts[-1] + 1 :]
        return next((line.strip() for line in after if not line.startswith((" ", "\t"))), "")
    causes = [line.strip() for line in lines if line.strip().startswith("Caused by:")]
    if causes:
        return causes[-1].removeprefix("Caused by:").strip()
    frames = ("\tat ", "    at ", "\t... ")
    return "; ".join(line.strip() for line in lines if not line.startswith(frames))


@contextlib.contextmanager
def _heard_from_runner(heard: list[str], *, quiet: bool) -> Iterator[None]:
    """Keep what a runner's job server says, and show none of it: a failure is told once, by us."""

    def keep(record: logging.LogRecord) -> bool:
        if record.module != "portable_runner":
            return not quiet or record.module != "subprocess_server"
        if record.levelno >= logging.WARNING:
            heard.append(record.getMessage())
        return False

    root, beams = logging.getLogger(), logging.getLogger("apache_beam")
    before = beams.level
    root.addFilter(keep)
    if quiet:  # what Beam logs of an exception in this process is what is raised
        beams.setLevel(logging.CRITICAL)
    try:
        yield
    finally:
        root.removeFilter(keep)
        beams.setLevel(before)
