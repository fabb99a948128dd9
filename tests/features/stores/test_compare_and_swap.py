"""storage.replace_if: of all who replace one generation exactly one wins, wherever the file is."""

from __future__ import annotations

import contextlib
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from framebank.features.stores import storage
from tests import ROOT
from tests.servers.bucket_servers import environment, serve

# Adds one to the number in a file, again and again.
COUNTER = """
import secrets, sys
from framebank.features.stores import storage as pointer
path, times = sys.argv[1], int(sys.argv[2])
for _ in range(times):
    while True:
        data, generation = pointer.read_with_generation(path)
        number = int((data or b"0").split()[0]) + 1
        text = f"{number} {secrets.token_hex(4)}".encode()
        if pointer.replace_if(path, text, generation=generation):
            break
"""


@pytest.fixture(params=["local", "fake-gcs-server", "moto"], scope="module")
def place(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[str]:
    folder = tmp_path_factory.mktemp("place")
    if request.param == "local":
        yield str(folder)
        return
    with contextlib.ExitStack() as held:
        server = held.enter_context(serve(request.param, folder))
        held.enter_context(environment(**server.environment))
        yield server.bucket


def test_only_the_generation_that_was_read_is_replaced(place: str) -> None:
    path = storage.join(place, "registry", "pointer.json")
    assert storage.read_with_generation(path) == (None, storage.ABSENT)
    assert storage.replace_if(path, b"one", generation=storage.ABSENT)
    assert not storage.replace_if(path, b"other", generation=storage.ABSENT)
    data, first = storage.read_with_generation(path)
    assert data == b"one"
    assert storage.replace_if(path, b"two", generation=first)
    assert not storage.replace_if(path, b"three", generation=first)
    data, second = storage.read_with_generation(path)
    assert data == b"two" and second != first


def test_no_increment_is_lost(place: str) -> None:
    path = storage.join(place, "counter")
    command = [sys.executable, "-c", COUNTER, path, "5"]
    running = [subprocess.Popen(command, cwd=ROOT) for _ in range(4)]
    assert [process.wait(timeout=60) for process in running] == [0] * 4
    assert storage.read_bytes(path).split()[0] == b"20"


def test_a_killed_writer_holds_nobody_up_and_is_cleaned_up_after(tmp_path: Path) -> None:
    path = str(tmp_path / "counter")
    for wait_s in (0.1, 0.15, 0.2, 0.25, 0.3):
        process = subprocess.Popen([sys.executable, "-c", COUNTER, path, "1000000"], cwd=ROOT)
        deadline = time.monotonic() + 30
        while not storage.exists(path):
            assert time.monotonic() < deadline
        time.sleep(wait_s)
        process.kill()
        process.wait()
        assert len(storage.read_bytes(path).split()) == 2
    (tmp_path / ".counter.1-0123abcd.tmp").write_bytes(b"half")
    generation = storage.read_with_generation(path)[1]
    assert storage.replace_if(path, b"0", generation=generation)
    assert {found.name for found in tmp_path.iterdir()} == {"counter", ".counter.lock"}
