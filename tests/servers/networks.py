"""Network namespaces on a bridge: each a machine of its own, as far as addresses and ports go."""

from __future__ import annotations

import contextlib
import dataclasses
import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

MANAGER = -1  # the job manager's place among the namespaces; task managers are 0, 1, …


@dataclasses.dataclass(frozen=True)
class Network:
    """A bridge with namespaces on it: 0, 1, … for task managers, MANAGER for the job manager."""

    prefix: str
    subnet: str

    @property
    def host(self) -> str:
        return f"{self.subnet}.1"

    def address(self, number: int) -> str:
        return f"{self.subnet}.{number + 3}"

    def enter(self, number: int) -> list[str]:
        """Return the words that run a command in namespace `number`."""
        return ["ip", "netns", "exec", self.space(number)]

    def space(self, number: int) -> str:
        return f"{self.prefix}-{number + 1}"


def may_make_networks() -> bool:
    """Return whether this process may make network namespaces."""
    if os.geteuid() != 0 or not shutil.which("ip"):
        return False
    name = f"fb{os.getpid()}-try"
    made = subprocess.run(["ip", "netns", "add", name], capture_output=True).returncode == 0
    return made and not subprocess.run(["ip", "netns", "del", name], capture_output=True).returncode


@contextlib.contextmanager
def make_network(managers: int) -> Iterator[Network]:
    """Make a bridge and the namespaces on it, with nothing but each other and us in reach."""
    _remove_dead_networks()
    pid = os.getpid()
    network = Network(f"fb{pid}", f"10.{213 + pid // 256 % 32}.{pid % 256}")
    bridge = network.prefix
    try:
        _ip("link", "add", bridge, "type", "bridge")
        _ip("addr", "add", f"{network.host}/24", "dev", bridge)
        _ip("link", "set", bridge, "up")
        for number in range(MANAGER, managers):
            space, outer = network.space(number), f"{bridge}v{number + 1}"
            _ip("netns", "add", space)
            _ip("link", "add", outer, "type", "veth", "peer", "name", "eth0", "netns", space)
            _ip("link", "set", outer, "master", bridge, "up")
            _ip("-n", space, "addr", "add", f"{network.address(number)}/24", "dev", "eth0")
            _ip("-n", space, "link", "set", "eth0", "up")
            _ip("-n", space, "link", "set", "lo", "up")
        yield network
    finally:
        _remove_network(bridge)


def _ip(*words: str) -> None:
    subprocess.run(["ip", *words], check=True, capture_output=True)


def _remove_network(prefix: str) -> None:
    told = subprocess.run(["ip", "netns", "list"], capture_output=True, text=True).stdout
    for line in told.splitlines():
        if line.split()[0].startswith(f"{prefix}-"):
            subprocess.run(["ip", "netns", "del", line.split()[0]], capture_output=True)
    subprocess.run(["ip", "link", "del", prefix], capture_output=True)


def _remove_dead_networks() -> None:
    """Remove what test runs left that were killed."""
    for path in Path("/sys/class/net").glob("fb*"):
        pid = path.name.removeprefix("fb")
        if pid.isdigit() and not _lives(pid):
            _remove_network(path.name)


def _lives(pid: str) -> bool:
    try:
        return bool(Path("/proc", pid, "cmdline").read_bytes())  # a zombie has none
    except OSError:
        return False
