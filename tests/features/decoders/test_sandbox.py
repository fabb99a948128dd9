"""What a decoder that somebody took over can do: nothing but decode, on every kernel as far as it
goes. Real processes try it on the kernel at hand."""

from __future__ import annotations

import contextlib
import json
import os
import socket
import stat
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from framebank.features.decoders import sandbox, seccomp
from framebank.features.decoders.pool import DecoderPolicy
from framebank.features.decoders.wire import ConfinedProcess, opened_clip
from framebank.features.decoding.container import DecodeLimits
from framebank.features.extraction.engine import Engine
from tests import ROOT
from tests.clips.plain_clips import FakeNetwork, write_clip
from tests.features.extraction.test_engine import SPEC, decoder_pids, ref_of

pytestmark = pytest.mark.skipif(not seccomp.available(), reason="this kernel has no seccomp")
NEEDED = {"read its clip", "start a thread", "import a module late", "use its own memory"}
READING = {
    "read a secret", "read passwords", "list the home", "read the parent's environment",
    "read the parent's memory",
}  # fmt: skip
NETWORK = {"connect", "send a datagram", "connect by a file", "ask the kernel by a socket"}


@contextlib.contextmanager
def neighbours(folder: Path) -> Iterator[dict[str, Any]]:
    """Yield where a server, a socket and a file are that a decoder should not reach."""
    (folder / "there").write_text("secret")
    with (
        socket.create_server(("127.0.0.1", 0)) as server,
        socket.socket(socket.AF_UNIX) as local,
    ):
        local.bind(f"{folder}/socket")
        local.listen()
        yield {"port": server.getsockname()[1], "folder": str(folder)}


def attempts(folder: Path, missing: str = "") -> dict[str, Any]:
    """Return what a decoder in the wrong hands achieves on a kernel without `missing`."""
    clip = folder / "clip.mp4"
    clip.write_bytes(b"x" * 100)
    process = ConfinedProcess("tests.attackers.hostile_child", f"main({missing!r})")
    try:
        with neighbours(folder) as job, opened_clip(str(clip), DecodeLimits(), timeout_s=5) as file:
            process.send(job, file)
            with open(os.dup(process.output)) as answer:
                answered: dict[str, Any] = json.loads(answer.readline())
    finally:
        process.end()
    return answered


def done(answer: dict[str, Any]) -> set[str]:
    return {name for name, outcome in answer["found"].items() if outcome == "done"}


@pytest.mark.skipif(not sandbox.landlock_version(), reason="this kernel has no Landlock")
def test_a_decoder_can_read_its_clip_and_nothing_else(tmp_path: Path) -> None:
    answer = attempts(tmp_path)
    assert done(answer) == NEEDED
    assert (tmp_path / "there").read_text() == "secret"
    assert (tmp_path / "clip.mp4").read_bytes() == b"x" * 100
    assert sorted(path.name for path in tmp_path.iterdir()) == ["clip.mp4", "socket", "there"]
    assert answer["line"].startswith("decoders reach no network, write no file, read none but")
    assert answer["held"]["privileges"] is True


def test_without_landlock_files_can_be_read_and_it_says_so(tmp_path: Path) -> None:
    answer = attempts(tmp_path, "landlock")
    assert done(answer) - READING == NEEDED
    assert {"read a secret", "read passwords"} <= done(answer)
    assert "NOT fully confined here: they can read other files of this account" in answer["line"]


@pytest.mark.skipif(sandbox.landlock_version() < 6, reason="Landlock knows no signals here")
def test_without_seccomp_landlock_and_an_empty_network_hold(tmp_path: Path) -> None:
    answer = attempts(tmp_path, "seccomp")
    assert not done(answer) & READING
    assert not {"connect", "listen", "write a file", "write over a file", "remove a file"} & (
        done(answer)
    ) - ({"listen"} if answer["held"]["network"] else set())
    if answer["held"]["network"]:
        assert not done(answer) & (NETWORK - {"connect by a file", "ask the kernel by a socket"})
    assert "NOT fully confined" in answer["line"] and "start processes" in answer["line"]


def test_where_the_kernel_has_nothing_decoders_work_and_it_is_said_loudly(tmp_path: Path) -> None:
    answer = attempts(tmp_path, "landlock,seccomp,namespaces")
    assert done(answer) >= NEEDED | {"connect"}
    for gap in ("reach the network", "write files", "read other files", "start processes"):
        assert gap in answer["line"]
    assert answer["found"]["write to its clip"] == "OSError"  # it was opened for reading


def test_the_environment_is_a_list_of_what_is_allowed(monkeypatch: pytest.MonkeyPatch) -> None:
    secrets = ("AWS_SECRET_ACCESS_KEY", "GOOGLE_APPLICATION_CREDENTIALS", "HF_TOKEN", "HOME")
    for name in secrets:
        monkeypatch.setenv(name, "a secret")
    assert "a secret" not in sandbox.child_environment().values()
    assert "PATH" in sandbox.child_environment()


def test_the_decoders_of_an_engine_are_shut_in(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The very processes that decode, by what the kernel says of them."""
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "hunter2")
    clip = write_clip(tmp_path / "long.mp4", frames=200, size=(640, 480))
    engine = Engine(FakeNetwork(), SPEC, DecoderPolicy(decoders=1))
    results: list[object] = []
    run = threading.Thread(target=lambda: results.extend(engine.run([ref_of(clip)])))
    run.start()
    try:
        seen: dict[str, str] = {}
        deadline = time.monotonic() + 20
        while seen.get("Seccomp") != "2" and time.monotonic() < deadline:
            for pid in decoder_pids():
                with contextlib.suppress(OSError):
                    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
                    seen = dict(line.split(":\t", 1) for line in lines if ":\t" in line)
                    environment = Path(f"/proc/{pid}/environ").read_bytes()
        run.join(timeout=30)
    finally:
        engine.close()
    assert len(results) == 1
    assert seen["Seccomp"].strip() == "2" and seen["NoNewPrivs"].strip() == "1"
    assert int(seen["CapEff"], 16) == int(seen["CapPrm"], 16) == int(seen["CapInh"], 16) == 0
    assert b"hunter2" not in environment


def test_what_holds_here_can_be_asked_before_a_job(monkeypatch: pytest.MonkeyPatch) -> None:
    held = sandbox.confinement_here()
    assert held.network and held.writing and held.processes and held.privileges
    monkeypatch.setattr("sys.executable", "/bin/false")  # a child that says nothing says no good
    assert "NOT fully confined" in sandbox.confinement_here().line()


def test_a_clip_on_a_file_system_that_does_not_answer_is_a_hang(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = os.stat

    def slow(path: Any, *args: Any, **more: Any) -> os.stat_result:
        if str(path).endswith("stuck.mp4"):
            time.sleep(3)
        return real(path, *args, **more)

    clip = write_clip(tmp_path / "stuck.mp4")
    ref = ref_of(clip)
    monkeypatch.setattr(os, "stat", slow)
    engine = Engine(FakeNetwork(), SPEC, DecoderPolicy(decoders=1, timeout_s=0.5))
    try:
        (result,) = engine.run([ref])
    finally:
        engine.close()
    assert getattr(result, "error_class", "") == "hang"


def test_root_reads_the_clips_of_others_as_before(tmp_path: Path) -> None:
    """Decoders have no privileges, the one who opens the clip has."""
    if os.geteuid():
        pytest.skip("only root may give files away")
    clip = write_clip(tmp_path / "theirs.mp4")
    os.chown(clip, 12345, 12345)
    clip.chmod(stat.S_IRUSR)
    engine = Engine(FakeNetwork(), SPEC, DecoderPolicy(decoders=1))
    try:
        (result,) = engine.run([ref_of(clip)])
    finally:
        engine.close()
    assert not hasattr(result, "error_class")


def test_another_user_is_shut_in_as_well(tmp_path: Path) -> None:
    """No privilege is needed for any of it."""
    if os.geteuid():
        pytest.skip("only root may become another user")
    code = (
        "import os, sys; sys.path.insert(0, sys.argv[1]); "
        "from framebank.features.decoders import sandbox; os.setuid(12345); sandbox.main()"
    )
    root = str(ROOT)
    said = subprocess.run(
        [sys.executable, "-c", code, root],
        env=sandbox.child_environment(),
        capture_output=True,
        check=True,
    )
    held = sandbox.Confinement.from_json(said.stdout)
    assert held.network and held.writing and held.processes and held.privileges
