"""One job from its submission to its end: an engine that does not end what is done."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import Any

import pytest

from framebank.features.errors import JobError
from framebank.pipelines.runners import running
from framebank.pipelines.runners.gate import Submission


class Result:
    """What an engine says of a job: it ends when it is told to, or with an error."""

    def __init__(self, error: Exception | None = None) -> None:
        self.over, self.cancelled, self._error = threading.Event(), False, error

    def wait_until_finish(self) -> str:
        if self._error is not None:
            raise self._error
        assert self.over.wait(60)
        return "DONE"

    def cancel(self) -> None:
        self.cancelled = True


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(running, "_LOOK_S", 0.05)
    monkeypatch.setattr(running, "_END_S", 0.3)


def job_of(result: Result) -> running.Job:
    job = running.Job(Submission((), kind="portable", in_process=False), name="test")
    vars(job)["_result"] = result
    return job


def test_a_job_that_hangs_after_its_summary_is_ended(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    summary, result = tmp_path / "summary", Result()
    threading.Timer(0.2, summary.touch).start()
    assert job_of(result)._wait(result, summary.exists) == "DONE"  # type: ignore[arg-type]
    assert result.cancelled and not result.over.is_set()
    assert "all is written, and the runner has not ended the job" in capsys.readouterr().err


def test_a_job_that_ends_by_itself_is_not_cancelled(capsys: pytest.CaptureFixture[str]) -> None:
    result, asked = Result(), []

    def finished() -> bool:
        asked.append(True)
        if len(asked) == 1:
            raise JobError("the store does not answer")  # it may the next time
        result.over.set()
        return True

    assert job_of(result)._wait(result, finished) == "DONE"  # type: ignore[arg-type]
    assert not result.cancelled and capsys.readouterr().err == ""


REFUSED = """Caused by: org.apache.beam.vendor.grpc.v1p69p0.io.grpc.StatusRuntimeException: \
UNAVAILABLE: io exception
\tat org.apache.beam.runners.fnexecution.environment.ExternalEnvironmentFactory.createEnvironment
Caused by: io.netty.channel.AbstractChannel$AnnotatedConnectException: \
Connection refused: localhost/127.0.0.1:50001
"""


def test_a_pool_that_is_not_there_is_named_with_its_address(tmp_path: Path) -> None:
    words = ("--environment_type=EXTERNAL", "--environment_config=localhost:50001")
    submission = Submission(words, kind="flink", in_process=False)
    job = running.Job(submission, name="test")
    vars(job)["_outside"] = str(tmp_path)
    told = job._unforeseen(RuntimeError("job failed"), ["", REFUSED])
    assert len(list(tmp_path.iterdir())) == 1
    assert "no worker pool answers at localhost:50001" in told.what
    assert "framebank.pipelines.jobs.worker_pool" in str(told.todo)
    for text in ("Connection refused: localhost/127.0.0.1:9999", "UNAVAILABLE", "a port :50001"):
        assert not running.names_pool("localhost:50001", [text])


@pytest.mark.parametrize(
    "error",
    [
        MemoryError(),
        RuntimeError("can't start new thread"),
        RuntimeError("Traceback (most recent call last):\n  File x\nMemoryError\n"),
    ],
)
def test_memory_that_beams_own_code_lacks_is_told(tmp_path: Path, error: Exception) -> None:
    job = running.Job(Submission((), kind="local", in_process=True), name="test")
    vars(job)["_outside"] = str(tmp_path)
    told = job._unforeseen(error, [str(error)])
    assert "too little memory" in told.what and "--decoders" in str(told.todo)


def test_what_the_engine_raises_is_raised_here() -> None:
    result: Any = Result(RuntimeError("no slots"))
    with pytest.raises(RuntimeError, match="no slots"):
        job_of(result)._wait(result, lambda: False)
