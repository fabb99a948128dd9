"""framebank.train.workers.liveness: workers wait for those to come, and notice those
that hang."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from framebank.features.errors import JobError
from framebank.train.workers import liveness
from framebank.train.workers.cluster import local_cluster
from framebank.train.workers.liveness import meet
from tests.made import forked
from tests.made.made_cache import make_cache
from tests.made.made_questions import write_jsonl


def free_ports(count: int) -> list[int]:
    with contextlib.ExitStack() as stack:
        sockets = [
            stack.enter_context(socket.create_server(("127.0.0.1", 0))) for _ in range(count)
        ]
        return [each.getsockname()[1] for each in sockets]


def test_all_go_on_when_the_last_has_come() -> None:
    ports, gone_on = free_ports(3), []

    def be(index: int) -> None:
        meet(local_cluster(ports, index), check=lambda: None, say=print)
        # In place of TensorFlow's server, which comes next.
        with socket.create_server(("127.0.0.1", ports[index])):
            gone_on.append(index)
            time.sleep(1)

    threads = [threading.Thread(target=be, args=(index,)) for index in range(3)]
    threads[0].start()
    threads[1].start()
    time.sleep(0.4)
    assert not gone_on
    threads[2].start()
    for thread in threads:
        thread.join(10)
    assert sorted(gone_on) == [0, 1, 2]
    meet(local_cluster(ports[:1], 0), check=lambda: None, say=print)  # alone: nothing to wait for


def test_who_is_missing_is_said_and_a_stop_is_heard(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("framebank.train.workers.liveness._SAY_EVERY_S", 0.2)
    said: list[str] = []

    def check() -> None:
        if said:
            raise KeyboardInterrupt

    ports = free_ports(2)
    with pytest.raises(KeyboardInterrupt):
        meet(local_cluster(ports, 0), check=check, say=said.append)
    assert f"still missing: worker 1 at 127.0.0.1:{ports[1]}" in said[0]


def test_a_port_that_is_taken_is_told() -> None:
    with socket.create_server(("", 0)) as other:
        cluster = local_cluster([other.getsockname()[1], *free_ports(1)], 0)
        with pytest.raises(JobError, match=f"cannot listen at {cluster.members[0][1]}"):
            meet(cluster, check=lambda: None, say=print)


@contextlib.contextmanager
def served(greeting: bytes | None) -> Iterator[tuple[str, int]]:
    """Yield the address of a server that greets, or (None) of one whose process is stopped."""
    with socket.create_server(("127.0.0.1", 0)) as server:

        def greet() -> None:
            connection = server.accept()[0]
            with connection:
                connection.sendall(greeting or b"")

        if greeting is not None:
            threading.Thread(target=greet, daemon=True).start()
        yield server.getsockname()[:2]


def test_only_a_server_that_answers_is_alive(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(liveness, "_ANSWER_S", 0.3)
    with served(b"\0\0\0\4\0\0\0\0\0") as address:
        assert liveness.answers(address)
    assert not liveness.answers(address)  # nobody listens any more
    with served(None) as address:  # the kernel takes the connection
        assert not liveness.answers(address)


def test_a_signal_ends_a_worker_that_waits(tmp_path: Path) -> None:
    make_cache(str(tmp_path / "cache"))
    asked = [{"video_id": "a.mp4", "question": "what?", "answer": "a"}]
    words = ["--cache", str(tmp_path / "cache"), "--strategy", "multi_worker"]
    words += ["--questions", write_jsonl(tmp_path / "q.jsonl", asked)]
    environment = os.environ | {"TF_CONFIG": local_cluster(free_ports(2), 0).config}
    words += ["--model", str(tmp_path / "m")]
    run = forked.start("-m", "framebank", "train", *words, env=environment)
    assert run.stderr is not None
    with run.stderr as said:
        assert "waits for the others" in said.readline()
        run.send_signal(signal.SIGTERM)
        assert run.wait(30) == 128 + signal.SIGTERM
        assert "Traceback" not in said.read()
