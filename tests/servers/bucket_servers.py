"""Object stores on loopback that speak the real protocols, each a process or server of its own.

gcp-storage-emulator and fake-gcs-server speak Google's, moto speaks S3's. Nothing may depend on the
habits of one of them: the tests of `features/stores/storage.py` run against each.
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.made import built

BUCKET = "clips"
_START_S = 60.0


@dataclasses.dataclass(frozen=True)
class BucketServer:
    """A running server: where it listens, its one bucket, and what points clients at it."""

    url: str
    bucket: str  # gs://clips or s3://clips
    environment: dict[str, str]

    def through(self, proxy_url: str) -> BucketServer:
        """Return the same store reached through a proxy."""
        environment = {
            name: proxy_url if value == self.url else value
            for name, value in self.environment.items()
        }
        return BucketServer(proxy_url, self.bucket, environment)


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@contextlib.contextmanager
def environment(**values: str) -> Iterator[None]:
    """Set environment variables of this process for a while."""
    before = {name: os.environ.get(name) for name in values}
    os.environ.update(values)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value


@contextlib.contextmanager
def serve(kind: str, folder: Path) -> Iterator[BucketServer]:
    """Run the server `kind` with an empty bucket; `folder` takes its log and what it stores."""
    folder.mkdir(parents=True, exist_ok=True)
    port = free_port()
    url = f"http://127.0.0.1:{port}"
    log = (folder / f"{kind}.log").open("wb")
    process = subprocess.Popen(
        [str(word) for word in _COMMANDS[kind](port, folder)],
        stdout=log,
        stderr=subprocess.STDOUT,
        env=os.environ | {"AWS_ACCESS_KEY_ID": "a", "AWS_SECRET_ACCESS_KEY": "b"},
        cwd=folder,
    )
    try:
        _wait_until_up(url, process)
        _make_bucket(kind, url)
        yield BucketServer(url, *_reached_by(kind, url))
    finally:
        process.kill()
        process.wait()
        log.close()


def _reached_by(kind: str, url: str) -> tuple[str, dict[str, str]]:
    if kind != "moto":
        return f"gs://{BUCKET}", {"STORAGE_EMULATOR_HOST": url}
    keys = {"AWS_ACCESS_KEY_ID": "a", "AWS_SECRET_ACCESS_KEY": "b", "AWS_REGION": "us-east-1"}
    return f"s3://{BUCKET}", {"AWS_ENDPOINT_URL": url, "AWS_DEFAULT_REGION": "us-east-1", **keys}


def _gcp_storage_emulator(port: int, folder: Path) -> list[object]:
    pytest.importorskip("gcp_storage_emulator")
    # Its command wants a working directory of its own; in memory it keeps nothing on disk.
    code = (
        "from gcp_storage_emulator.server import create_server\n"
        f"create_server('127.0.0.1', {port}, in_memory=True, default_bucket=None).run()\n"
    )
    return [sys.executable, "-c", code]


def _fake_gcs_server(port: int, folder: Path) -> list[object]:
    where = f"127.0.0.1:{port}"
    return [
        built.fake_gcs_server(), "-scheme", "http", "-host", "127.0.0.1", "-port", port,
        "-backend", "memory", "-public-host", where, "-external-url", f"http://{where}",
    ]  # fmt: skip


def _moto(port: int, folder: Path) -> list[object]:
    pytest.importorskip("moto")
    pytest.importorskip("boto3")
    return [sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", port]


_COMMANDS = {
    "gcp-storage-emulator": _gcp_storage_emulator,
    "fake-gcs-server": _fake_gcs_server,
    "moto": _moto,
}
KINDS = tuple(_COMMANDS)


def _wait_until_up(url: str, process: subprocess.Popen[bytes]) -> None:
    deadline = time.monotonic() + _START_S
    while time.monotonic() < deadline:
        assert process.poll() is None, f"the server of {url} ended with {process.returncode}"
        try:
            urllib.request.urlopen(url, timeout=2).close()
            return
        except urllib.error.HTTPError:
            return
        except OSError:
            time.sleep(0.05)
    raise AssertionError(f"no server answers at {url}")


def _make_bucket(kind: str, url: str) -> None:
    if kind == "moto":
        request = urllib.request.Request(f"{url}/{BUCKET}", method="PUT")
    else:
        body = json.dumps({"name": BUCKET}).encode()
        head = {"Content-Type": "application/json"}
        request = urllib.request.Request(f"{url}/storage/v1/b?project=test", body, head)
    urllib.request.urlopen(request, timeout=10).close()
