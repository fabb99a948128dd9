"""locks on servers that speak the real protocols: live, stale, stolen, given back."""

from __future__ import annotations

import json
import subprocess
import sys
import threading
import time
from collections.abc import Iterator

import pytest

from framebank.features.errors import UsageError
from framebank.features.processes import this_process
from framebank.features.stores import locks, storage
from tests.servers import bucket_servers
from tests.servers.bucket_servers import environment, serve

HOLD = """
import sys, time
from framebank.features.stores import locks as lease
lease.RENEW_S = 0.3
with lease.held(sys.argv[1], what="writing"):
    print("held", flush=True)
    time.sleep(60)
"""


@pytest.fixture(scope="module", params=bucket_servers.KINDS)
def bucket(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[str]:
    folder = tmp_path_factory.mktemp(request.param)
    with serve(request.param, folder) as server, environment(**server.environment):
        yield server.bucket


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(locks, "RENEW_S", 0.3)
    monkeypatch.setattr(locks, "STALE_S", 2.0)
    monkeypatch.setattr(locks, "_POLL_S", 0.1)


def elsewhere(path: str, **changes: object) -> None:
    """Write the lease of a process of another machine."""
    fields = this_process() | {"machine": "another", "host": "far", "token": "t", "beat": 1}
    storage.write_atomic(locks.lease_path(path), json.dumps(fields | changes).encode())


def test_a_second_process_is_refused_until_the_first_gives_up(bucket: str) -> None:
    path = f"{bucket}/one"
    with locks.held(path, what="writing to it"):
        time.sleep(1.0)  # some renewals
        with pytest.raises(UsageError, match="another run is writing to it") as refused:
            locks.held(path, what="writing to it").__enter__()
        assert "process" in str(refused.value.got)
    assert not storage.exists(locks.lease_path(path))
    with locks.held(path, what="writing to it"):
        assert storage.exists(locks.lease_path(path))


def test_of_many_at_one_moment_one_gets_it(bucket: str) -> None:
    path, got, refused = f"{bucket}/many", [], []
    ready, end = threading.Barrier(5), threading.Event()

    def work(number: int) -> None:
        ready.wait()
        try:
            with locks.held(path, what="writing"):
                got.append(number)
                end.wait(20)
        except UsageError:
            refused.append(number)

    threads = [threading.Thread(target=work, args=(number,)) for number in range(5)]
    for thread in threads:
        thread.start()
    deadline = time.monotonic() + 20
    while len(got) + len(refused) < 5 and time.monotonic() < deadline:
        time.sleep(0.05)
    end.set()
    for thread in threads:
        thread.join()
    assert (len(got), len(refused)) == (1, 4)


def test_one_that_is_renewed_elsewhere_is_seen_to_live(bucket: str) -> None:
    path = f"{bucket}/far"
    elsewhere(path)
    ended = threading.Event()

    def renew() -> None:
        beat = 1
        while not ended.wait(0.5):
            beat += 1
            elsewhere(path, beat=beat)

    thread = threading.Thread(target=renew)
    thread.start()
    try:
        with pytest.raises(UsageError, match="another run"):
            locks.held(path, what="writing").__enter__()
    finally:
        ended.set()
        thread.join()


def test_a_stale_one_is_taken_over_and_its_holder_told(
    bucket: str, capsys: pytest.CaptureFixture[str]
) -> None:
    path = f"{bucket}/stale"
    elsewhere(path)
    start_s = time.monotonic()
    with locks.held(path, what="writing"):
        assert 2.0 <= time.monotonic() - start_s < 10
        assert "far, process" in capsys.readouterr().err
        elsewhere(path, token="thief")
        time.sleep(1.0)
        assert "another run took over" in capsys.readouterr().err
    assert storage.exists(locks.lease_path(path))  # the thief's stays


def test_a_killed_process_of_this_machine_blocks_nobody(bucket: str) -> None:
    path = f"{bucket}/killed"
    holder = subprocess.Popen([sys.executable, "-c", HOLD, path], stdout=subprocess.PIPE)
    try:
        assert holder.stdout is not None and holder.stdout.readline() == b"held\n"
        with pytest.raises(UsageError, match="another run"):
            locks.held(path, what="writing").__enter__()
    finally:
        holder.kill()
        holder.wait()
    start_s = time.monotonic()
    with locks.held(path, what="writing"):
        assert time.monotonic() - start_s < 2.0
