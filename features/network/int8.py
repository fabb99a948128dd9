"""A network in int8: its quantised graph in one file, and how OpenVINO runs it.

The file is a zip of OpenVINO's graph, of the frames that it was calibrated with and of what that
cost in accuracy; its SHA-256 is in the spec, so whoever has it computes the same. It lies in the
cache (`graph_path`) and takes the place of the weights: who computes in int8 needs neither them nor
TensorFlow. The graph takes steps of a fixed number of images: a feature depends on its own frame
alone, to the last bit. How it is made is in `features.extraction.calibration`.
"""

from __future__ import annotations

import contextlib
import errno
import importlib
import io
import json
import os
import queue
import threading
import zipfile
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from framebank.features.errors import CacheError, UsageError, needing
from framebank.features.machine import usable_cores
from framebank.features.network.frozen_graph import Call, Features, Images
from framebank.features.network.weights import Weights, cache_folder
from framebank.features.spec import INT8, FeatureSpec
from framebank.features.stores import disk, json_text, storage
from framebank.features.tensorflow_import import absent

SUFFIX = ".int8.zip"
GRAPH, WEIGHTS, FRAMES, REPORT = "graph.xml", "graph.bin", "frames.npy", "report.json"
_MEMBERS = (GRAPH, WEIGHTS, FRAMES, REPORT)
_MOST_BYTES = 2**31  # of one member, unpacked
_MOST_STREAMS = 8  # each has its own memory for what layers hand on
_TIME = (1980, 1, 1, 0, 0, 0)  # of all members: the same content has the same hash
_TODO = "put the file back, or extract into another --cache"
_importing = threading.Lock()


def write_members(
    folder: Path, model: Any, images: NDArray[np.uint8], report: Mapping[str, Any]
) -> None:
    """Write what a file is packed of: OpenVINO's quantised model, the frames that it was calibrated
    with, and what `read_report` is to return."""
    import_openvino().save_model(model, str(folder / GRAPH), compress_to_fp16=False)
    np.save(folder / FRAMES, images)
    write_report(folder, report)


def write_report(folder: Path, report: Mapping[str, Any]) -> None:
    (folder / REPORT).write_text(json.dumps(report, sort_keys=True))


def pack(folder: Path, trial: Path | None = None) -> Path:
    """Put the members in `folder` into one file, kept in this user's cache under its SHA-256, or
    for a `trial` into that one; return its path. Raises UsageError where it cannot be kept."""
    data = io.BytesIO()
    with zipfile.ZipFile(data, "w") as archive:  # of what hardly becomes smaller
        for name in _MEMBERS:
            archive.writestr(zipfile.ZipInfo(name, _TIME), (folder / name).read_bytes())
    if trial is not None:
        trial.write_bytes(data.getbuffer())
        return trial
    target = _kept(disk.bytes_sha256(data.getvalue()))
    with _keeping(target), disk.replacing(target) as part:
        part.write_bytes(data.getbuffer())
    return target


def check_keeps() -> None:
    """Raise UsageError where no graph can be kept on this machine, before one is made."""
    place = _kept("").parent
    with _keeping(place):
        disk.make_folder(str(place))
        if not os.access(place, os.W_OK | os.X_OK):
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))


@contextlib.contextmanager
def _keeping(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as err:
        raise UsageError(
            "the quantised graph cannot be kept on this machine",
            got=f"{path}: {err.strerror or err}",
            todo="set XDG_CACHE_HOME to a folder that can be written and has room",
        ) from err


def graph_path(cache: str, sha256: str) -> str:
    return storage.join(cache, "weights", sha256 + SUFFIX)


def _kept(sha256: str) -> Path:
    return cache_folder() / "int8" / (sha256 + SUFFIX)


def kept_graph(sha256: str) -> Path | None:
    """Return the file of that hash in this user's cache, None where it is not there or damaged."""
    path = _kept(sha256)
    return path if path.is_file() and disk.file_hash(path) == sha256 else None


def find_graph(cache: str, spec: FeatureSpec) -> Weights:
    """Return the graph of `spec`, which has one, as it lies in its cache or, of a run that ended
    before it lay there, in this user's; raises CacheError where it is in neither."""
    sha256 = _sha256(spec)
    path, kept = graph_path(cache, sha256), str(_kept(sha256))
    found = next((place for place in (path, kept) if storage.exists(place)), None)
    if found is None:
        raise CacheError("the quantised graph of an int8 cache is missing", got=path, todo=_TODO)
    local = storage.local_path(found) if storage.is_local(found) else None
    return Weights(INT8, sha256, path, local_path=local)


def given_graph(path: str, spec: FeatureSpec) -> Weights:
    """Return the file at `path` as the graph of `spec`; raises UsageError where it is another."""
    sha256 = _sha256(spec)
    local = Path(storage.local_path(path)) if storage.is_local(path) else None
    found = disk.file_hash(local) if local is not None and local.is_file() else "no such file"
    if local is not None and found != sha256:
        raise UsageError(
            "this is not the quantised graph that the features were made with",
            got=f"{path} ({found})",
            expected=f"the file of SHA-256 {sha256}, in the cache's folder weights",
        )
    return Weights(INT8, sha256, path, local_path=None if local is None else str(local))


def _sha256(spec: FeatureSpec) -> str:
    sha256 = (spec.quantised or {}).get("sha256")
    if not isinstance(sha256, str) or len(sha256) != 64 or not sha256.isalnum():
        raise CacheError("the spec names no quantised graph", got=sha256, todo=_TODO)
    return sha256


def publish_graph(graph: Weights, cache: str) -> Weights:
    """Put the graph into the cache, where every worker and every later run finds it."""
    target = graph_path(cache, graph.sha256)
    if not storage.exists(target) and graph.local_path is not None:
        storage.write_atomic(target, Path(graph.local_path).read_bytes(), create_only=True)
    return Weights(INT8, graph.sha256, target, local_path=graph.local_path)


def read_report(graph: Weights) -> Mapping[str, Any]:
    """Return what quantising cost, as `calibration` measured it; {} of a graph that is not here."""
    if graph.local_path is None:
        return {}
    return json_text.parse_object(_member(graph, REPORT))


def _member(graph: Weights, name: str) -> bytes:
    try:
        with zipfile.ZipFile(str(graph.local_path)) as archive:
            size = archive.getinfo(name).file_size
            if size > _MOST_BYTES:
                raise ValueError(f"{name} of {size} bytes")
            return archive.read(name)
    except (OSError, ValueError, KeyError, zipfile.BadZipFile) as err:
        raise CacheError("a quantised graph cannot be read", got=str(err), todo=_TODO) from err


def import_openvino(name: str = "openvino") -> Any:
    """Import OpenVINO, or what goes with it, and return the module. Each of them would tell its
    maker of every use, unless the user has found out how to forbid it, and fork this process to do
    so: it does not where the package for that is missing."""
    with _importing, absent("openvino_telemetry"):
        module = importlib.import_module(name)
        # Its table of types is made when it is first asked for one. Two threads that ask at once,
        # as those of a network do, wait for ever: one makes the table and wants Python's lock.
        importlib.import_module("openvino").Type.u8.to_dtype()
    return module


def load_int8(weights: Weights, *, size: int) -> tuple[Call, int, int]:
    """Return the graph as a function uint8[step, size, size, 3] → float32[step, d], step and d.

    Raises UsageError for weights that are no such graph or another one than they were, and where
    OpenVINO is not installed.
    """
    if weights.name != INT8 or weights.local_path is None:
        raise UsageError(
            "int8 needs frames to be calibrated with",
            got="the weights alone",
            todo="extract into a cache with --precision int8; or use float32 or bfloat16",
        )
    weights.unchanged("the quantised graph")
    with needing("--precision int8", extra="openvino"):
        openvino = import_openvino()
    graph, values = _member(weights, GRAPH), _member(weights, WEIGHTS)
    try:
        model = openvino.Core().read_model(graph, values)
        shape = tuple(model.input(0).shape)
        call = run_model(model)
        dim = int(model.output(0).shape[1])
    except RuntimeError as err:
        raise UsageError(
            "OpenVINO cannot read a quantised graph",
            got=str(err).strip().split("\n", 1)[0][:300],
            todo="use the version of openvino that made it, or a newer one",
        ) from err
    if shape[1:] != (size, size, 3):
        expected = f"pictures of {size} x {size}"
        raise UsageError("a quantised graph of another network", got=shape, expected=expected)
    return call, shape[0], dim


def streams() -> int:
    """Return how many calls of a graph are computed at a time: each has its own cores, since one
    step spread over several leaves them idle half of the time."""
    return min(usable_cores(), _MOST_STREAMS)


def _compiled(model: Any, precision: str) -> Any:
    settings = {
        "INFERENCE_NUM_THREADS": usable_cores(),
        "NUM_STREAMS": streams(),
        "INFERENCE_PRECISION_HINT": precision,
        "ENABLE_CPU_PINNING": False,  # decoders want the cores too
    }
    return import_openvino().Core().compile_model(model, "CPU", settings)


def run_model(model: Any) -> Call:
    """Return a function that runs an OpenVINO model on the processor, for any threads, `streams()`
    of them at a time: int8 where it is quantised, float32 elsewhere, whatever else the processor
    may prefer."""
    runs = _compiled(model, "f32")
    free: queue.SimpleQueue[Any] = queue.SimpleQueue()
    for _ in range(streams()):
        free.put(runs.create_infer_request())

    def call(images: Images) -> Features:
        request = free.get()
        try:
            found: NDArray[np.float32] = request.infer([images], share_inputs=True)[0]
            return found.copy()
        finally:
            free.put(request)

    return call


def outputs_of(
    model: Any, images: NDArray[np.uint8], *, precision: str = "f32"
) -> list[NDArray[np.float32]]:
    """Return each output float32[n, ...] of an OpenVINO model of images uint8[n, h, w, c=3], which
    it takes in steps of a fixed number; computed in `precision`, as OpenVINO calls it. The last
    step is filled up with images once more, which stay in outputs that have no row for each."""
    runs, step = _compiled(model, precision), model.input(0).shape[0]
    filled = np.resize(images, (-(-len(images) // step) * step, *images.shape[1:]))

    def compute(at: int) -> list[NDArray[np.float32]]:
        found = runs.create_infer_request().infer([filled[at : at + step]])
        values = (found[number] for number in range(len(model.outputs)))
        return [np.array(one, np.float32, ndmin=1) for one in values]

    with ThreadPoolExecutor(streams()) as threads:
        steps = list(threads.map(compute, range(0, len(filled), step)))
    found = [np.concatenate(parts) for parts in zip(*steps, strict=True)]
    return [rows[: len(images)] if len(rows) == len(filled) else rows for rows in found]
