"""A Flink session cluster on this machine: one job manager, task managers, a worker pool for each.

    python -m tests.servers.flink_cluster FOLDER            unpack Flink 1.20 there, from PyPI
    python -m tests.servers.flink_cluster FOLDER --start    and run a session cluster of it, until
    Ctrl-C

A worker pool must not be shared by two task managers, and a job names one address for all of them.
So, where this machine lets us (root and `ip netns`), each task manager lives with its pool in a
network namespace of its own, in which localhost:50000 is that pool, as in the manifests. Elsewhere
each task manager starts its SDK workers itself (environment PROCESS,
`tests/attackers/worker_boot.py`).

Everything listens on loopback or on a bridge that nobody else is on, and ends with this process.
"""

from __future__ import annotations

import contextlib
import ctypes
import dataclasses
import json
import os
import shlex
import shutil
import signal
import socket
import subprocess
import sys
import tarfile
import tempfile
import threading
import time
import urllib.request
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from tests import ROOT
from tests.attackers.killing import MarkedJob
from tests.servers.networks import MANAGER, Network, make_network, may_make_networks

DISTRIBUTION = "apache-flink-libraries==1.20.*"
POOL_PORT = 50000
SLOTS = 2
_FETCH_LIMIT_S = 600
_START_S = 60.0
_PACKAGES = "lang net io nio lang.reflect text time util util.concurrent util.concurrent.atomic"
# Of Flink's own default configuration, for Java 17.
_OPENS = [
    "--add-exports=java.base/sun.net.util=ALL-UNNAMED",
    "--add-opens=java.base/sun.nio.ch=ALL-UNNAMED",
    "--add-opens=java.base/java.util.concurrent.locks=ALL-UNNAMED",
    *(f"--add-opens=java.base/java.{name}=ALL-UNNAMED" for name in _PACKAGES.split()),
]
_METASPACE = "-XX:MaxMetaspaceSize=900m"  # every job loads the classes of Beam's runner anew
_ENTRY = "org.apache.flink.runtime"
_CONFIG = {
    "restart-strategy.type": "fixed-delay",
    "restart-strategy.fixed-delay.attempts": "10",
    "restart-strategy.fixed-delay.delay": "1 s",
    "taskmanager.numberOfTaskSlots": str(SLOTS),
    # What bin/taskmanager.sh would work out.
    "taskmanager.cpu.cores": "2.0",
    "taskmanager.memory.task.heap.size": "256m",
    "taskmanager.memory.task.off-heap.size": "0",
    "taskmanager.memory.managed.size": "128m",
    "taskmanager.memory.network.min": "64m",
    "taskmanager.memory.network.max": "64m",
    "taskmanager.memory.framework.heap.size": "128m",
    "taskmanager.memory.framework.off-heap.size": "128m",
    "taskmanager.memory.jvm-overhead.min": "192m",
    "taskmanager.memory.jvm-overhead.max": "192m",
    "taskmanager.memory.jvm-metaspace.size": "900m",
    # A task manager that was killed is missed within seconds.
    "heartbeat.interval": "1000",
    "heartbeat.timeout": "6000",
}
_LOGGING = """
rootLogger.level = INFO
rootLogger.appenderRef.console.ref = console
appender.console.name = console
appender.console.type = CONSOLE
appender.console.layout.type = PatternLayout
appender.console.layout.pattern = %d %-5p %c{1} - %m%n
"""


def build_home(target: Path) -> Path:
    """Unpack Flink into `target` unless it is there; skips the test where PyPI does not give it."""
    if (target / "conf").exists():
        return target
    target.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=target.parent) as name:
        command = ["pip", "download", "--quiet", "--no-deps", "--no-binary", ":all:"]
        made = subprocess.run(
            [sys.executable, "-m", *command, "--dest", name, DISTRIBUTION],
            capture_output=True,
            text=True,
            timeout=_FETCH_LIMIT_S,
        )
        archive = next(Path(name).glob("apache*flink*.tar.gz"), None)
        if archive is None:
            last = (made.stderr.strip().splitlines() or ["no archive"])[-1]
            pytest.skip(f"PyPI does not give {DISTRIBUTION}: {last}")
        with tarfile.open(archive) as file:
            file.extractall(name, filter="data")
        home = next(Path(name).glob("*/deps"))
        (home / "conf").mkdir()
        lines = [f"{key}: {value}\n" for key, value in _CONFIG.items()]
        (home / "conf" / "config.yaml").write_text("".join(lines))
        (home / "conf" / "log4j-console.properties").write_text(_LOGGING)
        shutil.rmtree(target, ignore_errors=True)
        home.replace(target)
    return target


@dataclasses.dataclass
class TaskManager:
    """One task manager, with its pool where it has a network of its own."""

    number: int
    process: subprocess.Popen[bytes]
    pool: subprocess.Popen[bytes] | None


class FlinkCluster:
    """A running session cluster; use `start_cluster`.

    `host` is this machine's address as the task managers see it: servers that SDK workers are to
    reach listen there. `url` is the REST address, `words` what a job needs to run here.
    At `bucket_address` the SDK workers look for a bucket emulator.
    """

    def __init__(
        self, home: Path, folder: Path, job: MarkedJob, network: Network | None, bucket_port: int
    ) -> None:
        self._home, self._folder, self._job, self._network = home, folder, job, network
        self.host = network.host if network else "127.0.0.1"
        self._manager_host = network.address(MANAGER) if network else "127.0.0.1"
        self._rpc, self._rest, self._blob = free_port(), free_port(), free_port()
        self.url = f"http://{self._manager_host}:{self._rest}"
        self.managers: list[TaskManager] = []
        self.bucket_address = (self.host, bucket_port)

    @property
    def words(self) -> list[str]:
        """Options of Beam for a job on this cluster."""
        where = ["--runner=FlinkRunner", f"--flink_master={self.url}"]
        if self._network:
            pool = f"--environment_config=localhost:{POOL_PORT}"
            return [*where, "--environment_type=EXTERNAL", pool]
        boot = json.dumps({"command": str(ROOT / "tests" / "worker_boot.py")})
        return [*where, "--environment_type=PROCESS", f"--environment_config={boot}"]

    def start(self, managers: int) -> None:
        """Start everything, and wait until all slots are there."""
        self._java(
            "jobmanager",
            f"{_ENTRY}.entrypoint.StandaloneSessionClusterEntrypoint",
            heap="512m",
            inside=self._network.enter(MANAGER) if self._network else [],
            # In a namespace that is nobody else's: it reaches its own files by "localhost".
            rest__bind_address="0.0.0.0" if self._network else "127.0.0.1",
            jobmanager__bind_host="0.0.0.0" if self._network else "127.0.0.1",
            rest__address=self._manager_host,
            rest__port=self._rest,
            blob__server__port=self._blob,
        )
        for number in range(managers):
            self.add_manager(number)
        self.wait_for(lambda told: told["slots-total"] == managers * SLOTS)

    def add_manager(self, number: int) -> TaskManager:
        """Start a task manager, and its pool unless that still runs."""
        inside = self._network.enter(number) if self._network else []
        host = self._network.address(number) if self._network else "127.0.0.1"
        old = next((one for one in self.managers if one.number == number), None)
        pool = old.pool if old else None
        if self._network and (pool is None or pool.poll() is not None):
            words = ["-m", "framebank.pipelines.jobs.worker_pool"]
            command = [*inside, sys.executable, *words, f"--service_port={POOL_PORT}"]
            pool = self._start(f"pool-{number}", command)
        process = self._java(
            f"taskmanager-{number}",
            f"{_ENTRY}.taskexecutor.TaskManagerRunner",
            heap="512m",
            inside=inside,
            taskmanager__host=host,
            taskmanager__bind_host=host,
            taskmanager__resource_id=f"tm-{number}-{time.monotonic_ns()}",
        )
        manager = TaskManager(number, process, pool)
        self.managers = [one for one in self.managers if one.number != number] + [manager]
        return manager

    def ask(self, path: str) -> Any:
        """Return what the REST API says at /v1/`path`."""
        with urllib.request.urlopen(f"{self.url}/v1/{path}", timeout=5) as answer:
            return json.load(answer)

    def wait_for(self, holds: Callable[[Any], bool], *, limit_s: float = _START_S) -> None:
        """Wait until the cluster's overview is such."""
        deadline = time.monotonic() + limit_s
        while True:
            with contextlib.suppress(OSError):
                if holds(self.ask("overview")):
                    return
            if time.monotonic() > deadline:
                logs = {p.name: p.read_text()[-800:] for p in self._folder.glob("*.log")}
                raise TimeoutError(f"the Flink cluster is not ready: {logs}")
            time.sleep(0.2)

    def _java(
        self, name: str, main: str, *, heap: str, inside: Sequence[str] = (), **settings: object
    ) -> subprocess.Popen[bytes]:
        data = self._folder / f"{name}-data"
        data.mkdir(exist_ok=True)
        settings |= {
            "jobmanager__rpc__address": self._manager_host,
            "jobmanager__rpc__port": self._rpc,
            "io__tmp__dirs": data,
        }
        conf = self._home / "conf"
        command = [*inside, "java", f"-Xmx{heap}", _METASPACE, *_OPENS]
        command += [f"-Dlog4j.configurationFile={conf / 'log4j-console.properties'}"]
        command += [f"-Djava.io.tmpdir={data}", "-cp", f"{self._home / 'lib'}/*", main]
        command += ["--configDir", str(conf)]
        for key, value in settings.items():
            command += ["-D", f"{key.replace('__', '.').replace('_', '-')}={value}"]
        return self._start(name, command)

    def _start(self, name: str, command: Sequence[str]) -> subprocess.Popen[bytes]:
        # A pool starts workers with the `python` that it finds.
        path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
        environment = self._job.environment | {"PYTHONPATH": str(ROOT), "PATH": path}
        environment["STORAGE_EMULATOR_HOST"] = "http://{}:{}".format(*self.bucket_address)
        with (self._folder / f"{name}.log").open("ab") as log:
            return subprocess.Popen(
                command,
                env=environment,
                cwd=ROOT,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
                preexec_fn=_end_with_parent,
            )


def _end_with_parent() -> None:
    ctypes.CDLL(None).prctl(1, signal.SIGKILL)  # PR_SET_PDEATHSIG; survives exec


@contextlib.contextmanager
def start_cluster(
    home: Path, folder: Path, *, job: MarkedJob, bucket_port: int, managers: int = 2
) -> Iterator[FlinkCluster]:
    """Run a session cluster whose logs are in `folder`; its processes carry the mark of `job`."""
    with contextlib.ExitStack() as stack:
        network = stack.enter_context(make_network(managers)) if may_make_networks() else None
        stack.callback(job.kill_all)
        cluster = FlinkCluster(home, folder, job, network, bucket_port)
        cluster.start(managers)
        yield cluster


def free_port() -> int:
    """Return a port that nobody listens on now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def run_by_hand(home: Path) -> None:
    """Run a session cluster of one task manager, and say how a job gets there, until Ctrl-C."""
    ended = threading.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: ended.set())
    with tempfile.TemporaryDirectory(prefix="flink-") as name:
        port, job = free_port(), MarkedJob()
        with start_cluster(home, Path(name), job=job, bucket_port=port, managers=1) as cluster:
            print(f"a Flink session cluster runs at {cluster.url}; its logs are in {name}")
            print("framebank extract CLIPS --cache CACHE --shared-disk", shlex.join(cluster.words))
            sys.stdout.flush()
            ended.wait()


if __name__ == "__main__":
    try:
        home = build_home(Path(sys.argv[1]).absolute())
    except pytest.skip.Exception as reason:
        sys.exit(str(reason))
    if "--start" in sys.argv[2:]:
        run_by_hand(home)
    else:
        print(home)
