"""Weights: the random recipe, files of all layouts, hostile files, and fetching."""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import hashlib
import http.server
import io
import shutil
import socket
import struct
import subprocess
import sys
import threading
import zipfile
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest

from framebank.features.errors import JobError, UsageError
from framebank.features.network import hdf5_trial
from framebank.features.network import weights as weight_source
from framebank.features.network.backbones import BACKBONES, Backbone, named_layers
from framebank.features.network.weight_files import layer_arrays
from framebank.features.network.weights import (
    Weights,
    localise_weights,
    publish_weights,
    random_array,
    resolve_weights,
)
from framebank.features.stores import storage
from tests.servers.fake_bucket import serve_bucket

ROW = BACKBONES["mobilenet_v2"]
PAYLOAD = b"not really weights, but bytes with a hash" * 1000


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> tuple[Any, Path]:
    """A MobileNetV2 with random values everywhere, batch norm too, saved in all three layouts."""
    folder = tmp_path_factory.mktemp("saved")
    model = ROW.build()
    rng = np.random.default_rng(1)
    for variable in model.weights:
        variable.assign(rng.uniform(0.5, 1.5, variable.shape))
    model.save_weights(folder / "m.weights.h5")
    model.save(folder / "m.keras")
    model.save(folder / "m.h5")
    return model, folder


@functools.cache
def layers_of(name: str) -> dict[str, Any]:
    return named_layers(BACKBONES[name].build())


def read(path: Path, row: Backbone = ROW) -> dict[str, list[np.ndarray]]:
    """Read every layer of `row` from `path`."""
    layers = layers_of(row.name)
    needed = {name for name, layer in layers.items() if layer.weights}
    weights = resolve_weights(str(path), backbone=row.name)
    return layer_arrays(weights, backbone=row, layers=layers, needed=needed)


# random:SEED


def test_random_weights_are_the_same_on_every_machine() -> None:
    def digest(layer: str, weight: str, shape: tuple[int, ...]) -> str:
        array = random_array(BACKBONES["inception_v3"], 0, layer=layer, weight=weight, shape=shape)
        assert array.dtype == np.float32
        return hashlib.sha256(array.astype("<f4").tobytes()).hexdigest()[:16]

    assert digest("conv2d", "kernel", (3, 3, 3, 32)) == "9ddef84594884de3"
    assert digest("conv2d_93", "kernel", (1, 1, 2048, 192)) == "482280bb6d7ddc54"
    assert digest("conv2d", "depthwise_kernel", (3, 3, 7, 1)) == "cfff3e53e53eb977"


def test_random_kernels_fill_their_range() -> None:
    row = BACKBONES["inception_v3"]
    kernel = random_array(row, 0, layer="a", weight="kernel", shape=(3, 3, 200, 700))
    limit = np.sqrt(6 / 1800)
    assert abs(kernel.mean()) < limit / 500
    assert kernel.std() == pytest.approx(limit / np.sqrt(3), rel=0.01)
    assert -limit <= kernel.min() < -0.999 * limit < 0.999 * limit < kernel.max() <= limit * 1.0001
    other = random_array(row, 1, layer="a", weight="kernel", shape=(3, 3, 200, 700))
    assert abs(np.corrcoef(kernel.ravel(), other.ravel())[0, 1]) < 0.01
    longer = random_array(row, 0, layer="a", weight="kernel", shape=(3, 3, 200, 701))
    assert np.allclose(longer.ravel()[:99], kernel.ravel()[:99])  # the stream has no seams
    assert random_array(row, 0, layer="a", weight="gamma", shape=(2,)).tolist() == [1, 1]
    assert random_array(row, 0, layer="a", weight="bias", shape=(2,)).tolist() == [0, 0]


def test_random_weights_name_themselves() -> None:
    first = resolve_weights("random:07", backbone="vgg16")
    assert (first.name, first.seed, first.is_random) == ("random:7", 7, True)
    assert first.sha256 == resolve_weights("random:7", backbone="vgg16").sha256
    assert first.sha256 != resolve_weights("random:8", backbone="vgg16").sha256
    assert first.sha256 != resolve_weights("random:7", backbone="vgg19").sha256


@pytest.mark.parametrize("text", ["random", "random:", "random:x", "random:-1", "random:1.5"])
def test_random_needs_a_seed(text: str) -> None:
    with pytest.raises(UsageError, match=r"need a seed(.|\n)*random:0"):
        resolve_weights(text, backbone="vgg16")


# Files


@pytest.mark.parametrize("name", ["m.weights.h5", "m.keras", "m.h5"])
def test_every_layout_gives_the_same_arrays(saved: tuple[Any, Path], name: str) -> None:
    model, folder = saved
    arrays = read(folder / name)
    for layer_name, layer in named_layers(model).items():
        if layer.weights:
            for array, variable in zip(arrays[layer_name], layer.weights, strict=True):
                np.testing.assert_array_equal(array, variable.numpy())


def test_resolving_needs_no_tensorflow(saved: tuple[Any, Path]) -> None:
    code = (
        "import sys; from framebank.features.network.weights import resolve_weights;"
        "print(resolve_weights(sys.argv[1], backbone='mobilenet_v2').sha256);"
        "resolve_weights('random:0', backbone='vgg16');"
        "assert not {'keras', 'tensorflow'} & set(sys.modules)"
    )
    path = saved[1] / "m.weights.h5"
    done = subprocess.run(
        [sys.executable, "-c", code, path], check=True, capture_output=True, text=True
    )
    assert done.stdout.strip() == hashlib.sha256(path.read_bytes()).hexdigest()


def test_a_classifier_on_top_is_left_out(tmp_path: Path) -> None:
    import keras

    model = keras.applications.MobileNetV2(weights=None, include_top=True)
    for name in ("top.weights.h5", "top.h5"):
        path = tmp_path / name
        (model.save_weights if "weights" in name else model.save)(path)
        arrays = read(path)
        np.testing.assert_array_equal(arrays["Conv_1"][0], model.get_layer("Conv_1").kernel.numpy())


@pytest.mark.parametrize("name", ["m.weights.h5", "m.keras", "m.h5"])
def test_another_network_is_refused_by_its_first_layer(saved: tuple[Any, Path], name: str) -> None:
    with pytest.raises(UsageError, match=r"do not fit resnet50(.|\n)*conv1_conv(.|\n)*7, 7, 3"):
        read(saved[1] / name, BACKBONES["resnet50"])


def test_too_many_layers_are_refused(tmp_path: Path, saved: tuple[Any, Path]) -> None:
    path = tmp_path / "more.weights.h5"
    shutil.copy(saved[1] / "m.weights.h5", path)
    with h5py.File(path, "a") as file:
        file["layers/conv2d_900/vars/0"] = np.zeros((3, 3, 8, 8), np.float32)
    with pytest.raises(UsageError, match="a further layer conv2d_900"):
        read(path)


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.h5", b"no hdf5 at all", "not readable as HDF5"),
        ("a.keras", b"", "not readable as HDF5"),
        ("a.keras", b"PK\x05\x06" + bytes(18), "a zip file without model.weights.h5"),
        ("a.ckpt", b"x", r"whose suffix is \.ckpt"),
        (None, b"", "does not exist"),
        (".", b"", "no plain file"),
        ("long", b"", "too long"),
    ],
)
def test_what_is_no_weight_file_is_said(
    tmp_path: Path, name: str | None, content: bytes, message: str
) -> None:
    path = tmp_path / (name or "missing.h5")
    if name == "long":
        path = tmp_path / ("x" * 300 + ".h5")
    elif name not in (None, "."):
        path.write_bytes(content)
    with pytest.raises(UsageError, match=message):
        read(path)


def test_strange_hdf5_is_said(tmp_path: Path) -> None:
    path = tmp_path / "strange.h5"
    for poison in ("empty", "dataset", "number", "bad names", "vars"):
        with h5py.File(path, "w") as file:
            if poison == "dataset":
                file["layers"] = np.zeros(3)
            elif poison == "number":
                file.attrs["layer_names"] = 5
            elif poison == "bad names":
                file.attrs["layer_names"] = [b"\xff", b"a/../b"]
            elif poison == "vars":
                file["layers/conv2d/vars"] = np.zeros(3)
        with pytest.raises(UsageError, match="do not fit mobilenet_v2"):
            read(path)


def test_a_truncated_file_is_refused(tmp_path: Path, saved: tuple[Any, Path]) -> None:
    path = tmp_path / "half.weights.h5"
    path.write_bytes((saved[1] / "m.weights.h5").read_bytes()[:100_000])
    with pytest.raises(UsageError, match=r"is damaged(.|\n)*truncated file"):
        read(path)


def test_a_file_that_changes_meanwhile_is_refused(tmp_path: Path, saved: tuple[Any, Path]) -> None:
    path = tmp_path / "m.weights.h5"
    shutil.copy(saved[1] / "m.weights.h5", path)
    weights = resolve_weights(str(path), backbone=ROW.name)
    with path.open("ab") as stream:
        stream.write(b"x")
    with pytest.raises(UsageError, match="changed while it was in use"):
        layer_arrays(weights, backbone=ROW, layers={}, needed=set())


# Hostile files


def test_code_in_a_keras_file_never_runs(tmp_path: Path, saved: tuple[Any, Path]) -> None:
    import keras

    path, witness = tmp_path / "evil.keras", tmp_path / "ran"
    code = f"lambda x: (__import__('pathlib').Path({str(witness)!r}).touch(), x)[1]"
    model = saved[0]
    hostile = keras.layers.Lambda(eval(code), name="hostile")
    keras.Model(model.inputs, hostile(model.output)).save(path)
    witness.unlink()
    keras.saving.load_model(path, safe_mode=False)
    assert witness.exists()  # the file is a live one: Keras, told to trust it, runs it
    witness.unlink()
    with zipfile.ZipFile(path, "a") as archive:
        archive.writestr("__init__.py", "raise SystemExit")
    arrays = read(path)  # its weights are fine, and all that is read
    np.testing.assert_array_equal(arrays["Conv1"][0], model.get_layer("Conv1").kernel.numpy())
    assert not witness.exists()


def _external_link(file: h5py.File, other: Path) -> None:
    file["layers/conv2d/vars/0"] = h5py.ExternalLink(str(other), "layers/conv2d/vars/0")


def _soft_link(file: h5py.File, other: Path) -> None:
    del other
    file["layers/conv2d/vars/0"] = h5py.SoftLink("/layers/conv2d_1/vars/0")


def _virtual(file: h5py.File, other: Path) -> None:
    layout = h5py.VirtualLayout((3, 3, 3, 32), "f4")
    layout[...] = h5py.VirtualSource(str(other), "layers/conv2d/vars/0", shape=(3, 3, 3, 32))
    file.create_virtual_dataset("layers/conv2d/vars/0", layout)


def _external_storage(file: h5py.File, other: Path) -> None:
    file.create_dataset(
        "layers/conv2d/vars/0", (3, 3, 3, 32), "f4", external=[(str(other), 0, 3456)]
    )


def _huge(file: h5py.File, other: Path) -> None:
    del other
    file.create_dataset("layers/conv2d/vars/0", (1 << 40,), "f4", chunks=True)


@pytest.mark.parametrize(
    ("poison", "message"),
    [
        (_external_link, "ExternalLink at 0"),
        (_soft_link, "SoftLink at 0"),
        (_virtual, "lie in another file"),
        (_external_storage, "lie in another file"),
        (_huge, "1099511627776"),
    ],
)
def test_hdf5_that_points_elsewhere_is_refused(
    tmp_path: Path, saved: tuple[Any, Path], poison: Any, message: str
) -> None:
    good, path = saved[1] / "m.weights.h5", tmp_path / "evil.weights.h5"
    shutil.copy(good, path)
    with h5py.File(path, "a") as file:
        del file["layers/conv2d/vars/0"]
        poison(file, good)
    with pytest.raises(UsageError, match=message):
        read(path)


def test_a_keras_file_cannot_unpack_to_much_more_than_its_size(tmp_path: Path) -> None:
    path = tmp_path / "bomb.keras"
    with (
        zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive,
        archive.open("model.weights.h5", "w") as member,
    ):
        for _ in range(160):
            member.write(bytes(1 << 20))
    with pytest.raises(UsageError, match=r"model\.weights\.h5 unpacks to"):
        read(path)


def test_a_file_over_which_hdf5_runs_in_circles_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "circle.weights.h5"
    with h5py.File(path, "w") as file:
        file.create_group("layers")
    data = bytearray(path.read_bytes())
    node = data.find(b"TREE")  # of the B-tree of a group: signature, 4 bytes, left, right sibling
    data[node + 16 : node + 24] = struct.pack("<Q", node)
    path.write_bytes(data)
    monkeypatch.setattr(hdf5_trial, "_MOST_SECONDS", 1)
    with pytest.raises(UsageError, match=r"is damaged(.|\n)*does not end within 1 s"):
        resolve_weights(str(path), backbone=ROW.name)


def test_the_same_bytes_are_tried_once_on_a_machine(
    tmp_path: Path, saved: tuple[Any, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "kept"))
    tried: list[Path] = []

    def find_fault(path: Path) -> str:
        tried.append(path)
        return "" if path.name == "a.weights.h5" else "no good"

    monkeypatch.setattr(hdf5_trial, "find_fault", find_fault)
    one, same, other = (tmp_path / f"{name}.weights.h5" for name in "abc")
    one.write_bytes((saved[1] / "m.weights.h5").read_bytes())
    same.write_bytes(one.read_bytes())
    other.write_bytes(one.read_bytes() + b"more")
    found = {resolve_weights(str(path), backbone=ROW.name).sha256 for path in (one, same, one)}
    assert len(found) == 1 and tried == [one]
    for _ in range(2):  # a fault is not kept
        with pytest.raises(UsageError, match="no good"):
            resolve_weights(str(other), backbone=ROW.name)
    assert tried == [one, other, other]


def test_a_file_that_hdf5_dies_of_or_that_no_process_reads_is_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    dying = tmp_path / "python"
    dying.write_text("#!/bin/sh\nkill -SEGV $$\n")
    dying.chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(dying))
    assert hdf5_trial.find_fault(b"") == "HDF5's library crashes on it (signal 11)"
    monkeypatch.setattr(sys, "executable", str(tmp_path / "absent"))
    with pytest.raises(JobError, match="cannot be tried in a process"):
        hdf5_trial.find_fault(b"")


# Fetching


@contextlib.contextmanager
def server(status: int, body: bytes, *, length: int | None = None) -> Iterator[tuple[str, list]]:
    """Serve `body` to every GET; yields the base address and the paths asked for."""
    asked: list[str] = []

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            asked.append(self.path)
            self.send_response(status)
            self.send_header("Content-Length", str(len(body) if length is None else length))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *args: object) -> None:
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as httpd:
        thread = threading.Thread(target=httpd.serve_forever, args=(0.01,), daemon=True)
        thread.start()
        try:
            yield f"http://127.0.0.1:{httpd.server_port}/mirror", asked
        finally:
            httpd.shutdown()
            thread.join()


@pytest.fixture
def row(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Backbone:
    """A backbone whose published file is PAYLOAD, and empty caches."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setenv("KERAS_HOME", str(tmp_path / "keras"))
    monkeypatch.setenv("no_proxy", "*")
    row = dataclasses.replace(ROW, weights_md5=hashlib.md5(PAYLOAD).hexdigest())
    monkeypatch.setitem(BACKBONES, row.name, row)
    return row


def test_imagenet_is_fetched_once(row: Backbone, monkeypatch: pytest.MonkeyPatch) -> None:
    with server(200, PAYLOAD) as (url, asked):
        monkeypatch.setenv(weight_source.MIRROR_VARIABLE, url + "/")
        first = resolve_weights("imagenet", backbone=row.name)
        again = resolve_weights("imagenet", backbone=row.name)
    assert asked == [f"/mirror/{row.weights_file}"]
    digest = hashlib.sha256(PAYLOAD).hexdigest()
    assert first == again == Weights("imagenet", digest, "imagenet", local_path=first.local_path)
    assert Path(first.local_path or "").read_bytes() == PAYLOAD
    assert [path.name for path in weight_source.cache_folder().iterdir()] == [row.weights_file]


def test_a_damaged_cached_file_is_fetched_again(
    row: Backbone, monkeypatch: pytest.MonkeyPatch
) -> None:
    target = weight_source.cache_folder() / row.weights_file
    target.parent.mkdir(parents=True)
    target.write_bytes(PAYLOAD[:-1])
    with server(200, PAYLOAD) as (url, _):
        monkeypatch.setenv(weight_source.MIRROR_VARIABLE, url)
        assert weight_source.fetch_imagenet(row).read_bytes() == PAYLOAD


def test_a_file_that_keras_fetched_is_used(row: Backbone, tmp_path: Path) -> None:
    kept = tmp_path / "keras" / "models" / row.weights_file
    kept.parent.mkdir(parents=True)
    kept.write_bytes(PAYLOAD)
    assert weight_source.fetch_imagenet(row) == kept


@pytest.mark.parametrize(
    ("status", "body", "length", "reason"),
    [
        (200, b"something else", None, "14 bytes came with MD5"),
        (404, b"", None, "answered 404"),
        (503, b"", None, "answered 503"),
        (200, PAYLOAD[:100], len(PAYLOAD), "100 bytes came|Incomplete"),
    ],
    ids=["wrong hash", "not found", "overloaded", "cut off"],
)
def test_what_was_tried_is_said(
    row: Backbone,
    monkeypatch: pytest.MonkeyPatch,
    status: int,
    body: bytes,
    length: int | None,
    reason: str,
) -> None:
    with server(status, body, length=length) as (url, _):
        monkeypatch.setenv(weight_source.MIRROR_VARIABLE, url)
        with pytest.raises(UsageError, match=reason) as caught:
            resolve_weights("imagenet", backbone=row.name)
    text = str(caught.value)
    assert f"{url}/{row.weights_file}" in text and "--weights PATH" in text and "random:0" in text
    assert not list(weight_source.cache_folder().iterdir())  # nothing half fetched stays


def test_no_connection_and_no_answer(row: Backbone, monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        port = listener.getsockname()[1]
        monkeypatch.setenv(weight_source.MIRROR_VARIABLE, f"http://127.0.0.1:{port}")
        with pytest.raises(UsageError, match="no connection"):
            weight_source.fetch_imagenet(row)
        listener.listen()
        with pytest.raises(UsageError, match=r"no answer within 0\.2 s|timed out"):
            weight_source.fetch_imagenet(row, timeout_s=0.2)
    monkeypatch.setenv(weight_source.MIRROR_VARIABLE, "file:///etc")
    with pytest.raises(UsageError, match="no web address"):
        weight_source.fetch_imagenet(row)


def test_without_a_published_hash_nothing_is_fetched() -> None:
    with pytest.raises(UsageError, match=r"publishes no hash(.|\n)*--weights PATH"):
        weight_source.fetch_imagenet(dataclasses.replace(ROW, weights_md5=None))


def test_a_file_in_a_bucket_is_staged(
    row: Backbone, monkeypatch: pytest.MonkeyPatch, saved: tuple[Any, Path]
) -> None:
    data = (saved[1] / "m.weights.h5").read_bytes()
    monkeypatch.setattr(storage, "read_bytes", lambda uri: data)
    weights = resolve_weights("gs://bucket/some/m.weights.h5", backbone=row.name)
    assert weights.source == "gs://bucket/some/m.weights.h5"
    assert weights.sha256 == hashlib.sha256(data).hexdigest()
    assert io.BytesIO(Path(weights.local_path or "").read_bytes()).getvalue() == data


def test_weights_travel_through_the_cache(
    row: Backbone, tmp_path: Path, saved: tuple[Any, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    mine = resolve_weights(str(saved[1] / "m.weights.h5"), backbone=row.name)
    with serve_bucket("b") as bucket:
        sent = publish_weights(mine, "gs://b/cache")
        assert sent.source == f"gs://b/cache/weights/{mine.sha256}.h5"
        (before,) = bucket.objects.items()
        assert publish_weights(mine, "gs://b/cache") == sent
        assert list(bucket.objects.items()) == [before]  # written once
        assert localise_weights(sent) == sent  # this very machine has the file
        # A worker elsewhere: no such path, an empty cache; four processes' worth of threads.
        far = dataclasses.replace(sent, local_path="/nowhere/m.weights.h5")
        reads: list[str] = []
        read = storage.open_read
        monkeypatch.setattr(storage, "open_read", lambda path: reads.append(path) or read(path))
        with ThreadPoolExecutor(4) as threads:
            found = list(threads.map(localise_weights, [far] * 4))
        assert reads == [sent.source]
    assert len({weights.local_path for weights in found}) == 1
    staged = Path(found[0].local_path or "")
    assert staged.read_bytes() == (saved[1] / "m.weights.h5").read_bytes()
    assert [path.name for path in staged.parent.iterdir() if path.suffix == ".tmp"] == []
    assert localise_weights(far).local_path == str(staged)  # and no bucket to ask any more


def test_other_weights_than_the_submitters_are_refused(row: Backbone, tmp_path: Path) -> None:
    with serve_bucket("b") as bucket:
        bucket.put("w.h5", b"other bytes")
        with pytest.raises(UsageError, match="not the one that the job was submitted with"):
            localise_weights(Weights("file", "0" * 64, "gs://b/w.h5"))
    assert list((tmp_path / "cache" / "framebank" / "weights" / "staged").glob("*.h5")) == []
    here = tmp_path / "w.h5"
    here.write_bytes(b"changed since")
    with pytest.raises(UsageError, match="not on this worker"):
        localise_weights(Weights("file", "0" * 64, str(here), local_path=str(here)))


def test_random_weights_need_no_way() -> None:
    weights = resolve_weights("random:3", backbone="mobilenet_v2")
    assert publish_weights(weights, "gs://nowhere/cache") is weights
    assert localise_weights(weights) is weights
