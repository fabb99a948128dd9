"""The trainer's environment with tensorflow-io: built by `make tfio`, trained in off real servers.

Building takes one to three minutes once; it stays in .venv-tfio.
"""

from __future__ import annotations

import contextlib
import functools
import http.server
import json
import os
import re
import shutil
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest
from packaging.requirements import Requirement

from framebank.features.cache import catalog, layout
from framebank.features.stores import storage
from tests import ROOT
from tests.infra.test_files import requirements, setup_words
from tests.made import built
from tests.made.made_cache import SPEC, make_extracted, make_shard
from tests.servers import bucket_servers

_BUILD_LIMIT_S = 600
# A part of what `make tfio-test` runs, for that takes minutes.
_TESTS = (
    "train/data/test_batches.py",
    "train/data/test_epoch_order.py",
    "train/data/test_splits.py",
    "train/fit/test_checkpoint.py",
    "train/model/test_network.py",
    "train/model/test_frames.py",
    "train/workers/test_cluster.py",
    "features/asking/test_trained_model.py",
    "features/cache/test_reader.py",
    "features/cache/test_record.py",
    "features/cache/test_tfrecord.py",
)


@pytest.fixture(scope="session")
def environment() -> Path:
    """Return the folder of the environment's programs."""
    return built.tfio() / "bin"


def make_questioned_cache(cache: str) -> list[dict[str, str]]:
    """Write three shards of eight clips; return a question about each."""
    layout.write_spec(cache, SPEC)
    rows, questions = [], []
    for number in range(3):
        names = [f"{number}-{clip}.mp4" for clip in range(8)]
        videos = [make_extracted(name) for name in names]
        rows += make_shard(cache, f"r1-{number}", videos, run_id="20261121-0100")
        questions += [
            {"video_id": name, "question": "what?", "answer": "ab"[place % 2]}
            for place, name in enumerate(names)
        ]
    catalog.write_catalog(cache, "20261121-0100", rows)
    return questions


def run_train(
    environment: Path, cache: str, folder: Path, *more: object, **variables: str
) -> subprocess.CompletedProcess[str]:
    words = ["--cache", cache, "--questions", folder / "q.jsonl", "--model", folder / "model"]
    words += ["--epochs", "2", "--no-baselines", "--model-kind", "lstm", *more]
    return subprocess.run(
        [str(environment / "framebank"), "train", *map(str, words)],
        cwd=folder, env=os.environ | variables, capture_output=True, text=True, timeout=300,
    )  # fmt: skip


def write_questions(folder: Path, questions: list[dict[str, str]]) -> None:
    (folder / "q.jsonl").write_text("".join(json.dumps(one) + "\n" for one in questions))


def losses(model: Path) -> list[float]:
    """Return the loss of each epoch that a training run kept."""
    paths = [*model.rglob("*.json"), *model.rglob("*.jsonl")]
    text = "".join(path.read_text() for path in sorted(paths))
    return [float(found) for found in re.findall(r'"loss": ([0-9.e-]+)', text)]


def test_the_environment_has_what_it_says(environment: Path) -> None:
    code = (
        "import importlib.util as u, tensorflow as tf, tensorflow_io as t; "
        "print(tf.__version__, t.__version__, u.find_spec('apache_beam'), u.find_spec('boto3'))"
    )
    done = subprocess.run(
        [environment / "python", "-c", code], capture_output=True, text=True, check=True
    )
    version, io_version, beam, boto3 = done.stdout.split()[-4:]
    assert version.startswith("2.16.") and io_version == "0.37.1"
    assert beam == boto3 == "None"


def test_what_needs_beam_says_so_in_one_message(environment: Path) -> None:
    words = ["extract", "--input", "clips", "--cache", "cache"]
    done = subprocess.run([environment / "framebank", *words], capture_output=True, text=True)
    assert done.returncode == 2 and "extract needs Apache Beam" in done.stderr
    assert "Traceback" not in done.stderr


def test_its_list_is_the_trainers() -> None:
    given = setup_words()
    extra = {one.name: one for one in map(Requirement, given["extras_require"]["tfio"])}
    trainer, ours = requirements("trainer.txt"), requirements("trainer-tfio.txt")
    assert {name: ours[name].specifier for name in extra} == {
        name: one.specifier for name, one in extra.items()
    }
    assert set(ours) == set(trainer) | {"tensorflow-io"}
    for name in set(trainer) - set(extra):
        assert set(trainer[name].specifier) <= set(ours[name].specifier)


def test_training_and_readers_pass_their_tests_in_it(environment: Path) -> None:
    there = " ".join(f"tests/{name}" for name in _TESTS)
    done = subprocess.run(
        ["make", "tfio-test", f"TFIO_TESTS={there}", "PYTEST_ARGS=-q -p no:cacheprovider"],
        cwd=ROOT, capture_output=True, text=True, timeout=_BUILD_LIMIT_S,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-1000:]
    assert "[100%]" in done.stdout


@pytest.mark.parametrize(
    "more",
    [(), ("--stage-dir", "staged", "--local-workers", "2")],
    ids=["direct", "staged by two workers"],
)
def test_a_training_run_off_s3(environment: Path, tmp_path: Path, more: tuple[str, ...]) -> None:
    with (
        bucket_servers.serve("moto", tmp_path / "server") as server,
        bucket_servers.environment(**server.environment),
    ):
        cache = f"{server.bucket}/cache"
        write_questions(tmp_path, make_questioned_cache(cache))
        done = run_train(environment, cache, tmp_path, *more)
        log = (tmp_path / "server" / "moto.log").read_text()
    assert done.returncode == 0, done.stdout + done.stderr
    assert (tmp_path / "model" / "model.keras").exists()
    assert "GET /clips/cache/shards/r1-2.tfrecord" in log
    assert ("GET /clips/cache/shards/r1-2.index.json" in log) == bool(more)
    if more:
        assert len(list((tmp_path / "staged").glob("*.staged"))) == 3
        return

    local = tmp_path / "local"
    (local / "server").mkdir(parents=True)
    write_questions(local, make_questioned_cache(str(local / "cache")))
    assert run_train(environment, str(local / "cache"), local).returncode == 0
    assert losses(local / "model") == losses(tmp_path / "model") != []


class RangeHandler(http.server.SimpleHTTPRequestHandler):
    """Files with byte ranges, as every web server but Python's own gives them."""

    def do_GET(self) -> None:
        path = Path(self.translate_path(self.path))
        span = re.fullmatch(r"bytes=(\d+)-(\d*)", self.headers.get("Range", ""))
        if span is None or not path.is_file():
            super().do_GET()
            return
        data, start = path.read_bytes(), int(span[1])
        part = data[start : int(span[2]) + 1 if span[2] else None]
        self.send_response(206 if part else 416)
        self.send_header("Content-Range", f"bytes {start}-{start + len(part) - 1}/{len(data)}")
        self.send_header("Content-Length", str(len(part)))
        self.end_headers()
        self.wfile.write(part)

    def log_message(self, *words: object) -> None:
        """Say nothing."""


@contextlib.contextmanager
def web_server(folder: Path) -> Iterator[str]:
    handler = functools.partial(RangeHandler, directory=str(folder))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()
        thread.join()


def test_a_training_run_off_http(environment: Path, tmp_path: Path) -> None:
    write_questions(tmp_path, make_questioned_cache(str(tmp_path / "web" / "cache")))
    with web_server(tmp_path / "web") as url:
        done = run_train(environment, f"{url}/cache", tmp_path)
    assert done.returncode == 0, done.stdout + done.stderr
    assert losses(tmp_path / "model")


@contextlib.contextmanager
def azurite(folder: Path) -> Iterator[dict[str, str]]:
    """Run Microsoft's Azure emulator on the port that its clients know; yield their variables."""
    program = azurite_program()
    with contextlib.closing(socket.socket()) as probe:
        if probe.connect_ex(("127.0.0.1", 10000)) == 0:
            pytest.skip("port 10000, where clients look for the Azure emulator, is in use")
    words = [program, "--silent", "--inMemoryPersistence", "--skipApiVersionCheck"]
    process = subprocess.Popen([*words, "--disableTelemetry"], cwd=folder)
    try:
        bucket_servers._wait_until_up("http://127.0.0.1:10000", process)
        yield {"TF_AZURE_USE_DEV_STORAGE": "1"}
    finally:
        process.kill()
        process.wait()


def azurite_program() -> Path:
    """Return Azurite's blob server: FRAMEBANK_AZURITE, or installed by npm."""
    if found := built.given("FRAMEBANK_AZURITE"):
        return found
    folder = built.folder() / "azurite"
    path = folder / "node_modules" / ".bin" / "azurite-blob"
    if (npm := shutil.which("npm")) is None:
        pytest.skip("Azurite needs npm, which is not installed")
    with built.alone("azurite"):
        if not path.exists():
            words = [npm, "install", "--silent", "--prefix", folder, "azurite@3.35.0"]
            done = subprocess.run(words, capture_output=True, text=True, timeout=_BUILD_LIMIT_S)
            if done.returncode:
                pytest.skip(f"npm cannot install Azurite: {done.stderr[-200:]}")
    return path


def test_a_training_run_off_azure(environment: Path, tmp_path: Path) -> None:
    code = (
        "import pathlib, sys, tensorflow as tf, tensorflow_io\n"
        "source, target = pathlib.Path(sys.argv[1]), sys.argv[2]\n"
        "tf.io.gfile.makedirs(target.rpartition('/')[0])\n"
        "for path in filter(pathlib.Path.is_file, source.rglob('*')):\n"
        "    with tf.io.gfile.GFile(f'{target}/{path.relative_to(source)}', 'wb') as file:\n"
        "        file.write(path.read_bytes())\n"
    )
    source, target = tmp_path / "cache", "az://devstoreaccount1/clips/cache"
    write_questions(tmp_path, make_questioned_cache(str(source)))
    with azurite(tmp_path) as variables:
        words = [environment / "python", "-c", code, source, target]
        subprocess.run(words, env=os.environ | variables, check=True, timeout=120)
        done = run_train(environment, target, tmp_path, **variables)
    assert done.returncode == 0, done.stdout + done.stderr
    assert losses(tmp_path / "model")


@pytest.mark.parametrize(
    ("address", "says"),
    [
        ("s3://clips/none", "there is no cache at s3://clips/none"),
        ("s3://other/none", "no such bucket"),
        ("s3://silent/none", "Connection refused"),
        ("http://127.0.0.1:9/cache", "cannot"),
    ],
)
def test_mistakes_are_told_in_one_message(
    environment: Path, tmp_path: Path, address: str, says: str
) -> None:
    (tmp_path / "q.jsonl").write_text('{"video_id": "a", "question": "what?", "answer": "a"}\n')
    variables: Mapping[str, str] = {}
    with contextlib.ExitStack() as stack:
        if address.startswith("s3://silent"):
            variables = {"AWS_ENDPOINT_URL": "http://127.0.0.1:9"}
        elif address.startswith("s3://"):
            server = stack.enter_context(bucket_servers.serve("moto", tmp_path / "server"))
            variables = server.environment
        done = run_train(environment, address, tmp_path, **variables)
    assert done.returncode in (1, 2), done.stderr
    assert says in done.stderr and "Traceback" not in done.stderr


def test_without_tensorflow_io_and_boto3_one_line_says_what_to_install(
    tmp_path: Path,
) -> None:
    code = (
        "import sys, importlib.util as u\n"
        "found = u.find_spec\n"
        "away = ('boto3', 'tensorflow_io')\n"
        "u.find_spec = lambda name, *more: None if name in away else found(name, *more)\n"
        "sys.modules.update(boto3=None, tensorflow_io=None)\n"
        "import framebank; sys.exit(framebank.main(sys.argv[1:]))"
    )
    for address in ("s3://clips/cache", "az://a/b/cache"):
        words = ["train", "--cache", address, "--questions", "q", "--model", str(tmp_path / "m")]
        done = subprocess.run(
            [sys.executable, "-c", code, *words], cwd=ROOT, capture_output=True, text=True
        )
        assert done.returncode == 2 and "Traceback" not in done.stderr
        (line,) = (line for line in done.stderr.splitlines() if "to do:" in line)
        assert "make tfio" in line and ("framebank[s3]" in line) == address.startswith("s3")


def test_the_store_of_a_path_is_the_one_that_can_write(monkeypatch: pytest.MonkeyPatch) -> None:
    from framebank.features.stores import s3, tensorflow_files

    monkeypatch.setattr(tensorflow_files, "is_installed", lambda: True)
    assert storage.store_of("s3://a/b") is s3
    assert storage.store_of("az://a/b") is storage.store_of("https://a/b") is tensorflow_files
    assert not storage.is_local("az://a/b")
