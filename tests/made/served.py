"""Starts `framebank serve` for tests, with a registry of two small models, a cache and clips."""

from __future__ import annotations

import contextlib
import dataclasses
import os
import re
import signal
import threading
from collections.abc import Iterator
from pathlib import Path

from framebank.features.cache import catalog, layout
from framebank.features.extraction.one_clip import make_spec
from framebank.features.spec import FeatureSpec, SpecChoice
from framebank.train.retrain.registry import Registry
from tests.made import forked
from tests.made.made_cache import make_extracted, make_shard
from tests.made.made_model import make_model

WIDTH = 1280
VERSIONS = ("20260101-000000-aaaaaa", "20260102-000000-bbbbbb")
CACHED = ("a.mp4", "b/c.mp4", "long.mp4")
_START_S = 120


def served_spec() -> FeatureSpec:
    return make_spec(SpecChoice("uniform=4", "mobilenet_v2", weights="random:0"))[0]


def make_registry(folder: Path, spec: FeatureSpec) -> Registry:
    """Write a registry of two models that answer differently; the first one is in use."""
    registry = Registry(str(folder / "registry"))
    verdict = {"better": True, "reason": "made", "against_number": 0, "figures": {}}
    for seed, version in enumerate(VERSIONS):
        made = make_model(folder / version, spec, width=WIDTH, seed=seed)
        registry.publish(version, made, verdict)
    promote(registry, VERSIONS[0])
    return registry


def promote(registry: Registry, version: str) -> None:
    assert registry.move(registry.current(), version, event="promoted", reason="by hand")


def make_served_cache(path: str, spec: FeatureSpec) -> None:
    """Write a cache of made-up features."""
    layout.write_spec(path, spec)
    rows = [4, 4, 100]
    videos = [
        make_extracted(name, rows=n, width=WIDTH) for name, n in zip(CACHED, rows, strict=True)
    ]
    catalog.write_catalog(path, "r1", make_shard(path, "r1-0", videos, run_id="r1", spec=spec))


@dataclasses.dataclass
class Served:
    """A server that runs: where it is, and its process."""

    address: str
    process: forked.Forked
    log: list[str]

    @property
    def port(self) -> int:
        return int(self.address.rpartition(":")[2])

    def decoders(self) -> list[int]:
        """Return the pids of its decoder processes."""
        found = []
        for entry in Path("/proc").iterdir():
            with contextlib.suppress(OSError, IndexError):
                stat = (entry / "stat").read_text().rpartition(")")[2].split()
                words = (entry / "cmdline").read_bytes()
                if int(stat[1]) == self.process.pid and b"decoders.child" in words:
                    found.append(int(entry.name))
        return found

    def resident_bytes(self) -> int:
        pages = int(Path(f"/proc/{self.process.pid}/statm").read_text().split()[1])
        return pages * os.sysconf("SC_PAGE_SIZE")


@contextlib.contextmanager
def serving(*words: object) -> Iterator[Served]:
    """Start a server with these options; it is ended with the block."""
    process = forked.start("-m", "framebank", "serve", "--port", "0", *words, stdout=forked.DEVNULL)
    log: list[str] = []
    ready = threading.Event()

    def read() -> None:
        assert process.stderr is not None
        for line in process.stderr:
            log.append(line)
            if re.search(r"at http://", line):
                ready.set()
        ready.set()

    threading.Thread(target=read, daemon=True).start()
    try:
        assert ready.wait(_START_S) and process.poll() is None, "".join(log)
        (address,) = re.findall(r"at (http://\S+) until", "".join(log))
        yield Served(address, process, log)
    finally:
        process.send_signal(signal.SIGKILL)
        process.wait(30)
