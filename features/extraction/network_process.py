"""The network in a process of its own, which imports TensorFlow while this one imports Beam.

For a command whose workers are threads of its process: it is begun once it is known that there will
be something to compute, and ends with the command. int8 is calibrated there, or in one for that
alone. Pictures go there through shared memory. What is raised there is raised here. Reasons and
figures: infra/decisions/0020-start.md.
"""

from __future__ import annotations

import contextlib
import functools
import glob
import importlib.util
import mmap
import multiprocessing
import os
import queue
import subprocess
import sys
import threading
import traceback
from collections.abc import Callable, Collection, Hashable, Iterable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from multiprocessing.connection import Connection
from typing import Any

import numpy as np
from numpy.typing import NDArray

from framebank.features.errors import FramebankError, JobError
from framebank.features.extraction.calibration import Converted, Quantise
from framebank.features.extraction.one_clip import build_network, computing
from framebank.features.extraction.precision import Settled, measured
from framebank.features.machine import check_address_space
from framebank.features.network.backbones import BACKBONES
from framebank.features.network.int8 import import_openvino, streams
from framebank.features.network.keras_backends import keras_backend
from framebank.features.network.weights import Weights, localise_weights
from framebank.features.processes import end_with_parent, program
from framebank.features.spec import INT8, FeatureSpec, SpecChoice
from framebank.features.tensorflow_import import (
    collect_rarely,
    import_graphs,
    is_own_process,
    only_graphs,
    own_process,
)

_GPUS = ("/dev/nvidia[0-9]*", "/dev/kfd", "/dev/dxg")
_END_S = 5.0  # that the process has to be gone once its channel is closed at the other end


class NetworkProcess:
    """A process that builds networks and computes with them, for several threads at a time."""

    def __init__(self, *, int8: bool = False, environment: Mapping[str, str] | None = None) -> None:
        """`int8` tells what it is begun for; `environment` are variables of its own. Raises OSError
        where no process can be started."""
        count = streams() if int8 else 1
        with contextlib.ExitStack() as opened:
            lanes = [opened.enter_context(contextlib.closing(_Lane())) for _ in range(count)]
            self._lanes: queue.SimpleQueue[_Lane] = queue.SimpleQueue()
            theirs = []
            with contextlib.ExitStack() as there:  # closed here, or its end would not be noticed
                for lane in lanes:
                    self._lanes.put(lane)
                    theirs += [there.enter_context(lane.theirs).fileno(), lane.memory]
                self._process = subprocess.Popen(
                    program(__name__, f"main({os.getpid()}, {int8}, *{theirs})"),
                    env={**os.environ, **(environment or {})},
                    stdin=subprocess.DEVNULL,
                    stdout=subprocess.DEVNULL,
                    pass_fds=theirs,
                    start_new_session=True,  # the terminal's signals are for this process
                )
            opened.callback(self._process.wait)
            opened.callback(self._process.kill)
            self._coming: dict[Hashable, Future[Any]] = {}  # networks
            self._calls = opened.enter_context(ThreadPoolExecutor(count, "network-process"))
            opened.callback(self._process.kill)  # or the call under way would be waited for
            self._closing = threading.Event()
            opened.callback(self._closing.set)
            self.close = opened.pop_all().close

    @property
    def pid(self) -> int:
        return self._process.pid

    def settle(
        self, spec: FeatureSpec, weights: Weights, images: NDArray[np.uint8], *, batch_size: int
    ) -> Settled:
        """Return what `measured` does there; the network of what that settles on is kept for
        whoever builds it next."""
        found: Settled = self._begin("settle", images, spec, weights, batch_size).result()
        return found

    def quantising(self, spec: FeatureSpec, weights: Weights) -> Quantise:
        """Begin to build a network that is to be quantised; return what does that with frames, as
        `calibration.Converted` does there. The quantised network is kept for whoever builds it
        next."""
        built = self._begin("convert", None, spec, weights)

        def quantise(
            images: NDArray[np.uint8], clips: NDArray[np.int64], *, batch_size: int
        ) -> tuple[str, dict[str, Any]]:
            built.result()
            path, made = self._begin("quantise", images, clips, batch_size).result()
            return path, made

        return quantise

    def prepare(self, spec: FeatureSpec, weights: Weights, *, batch_size: int) -> None:
        """Begin to build a network that will be asked for."""
        call = self._begin("build", None, spec, weights, batch_size)
        self._coming[computing(spec), batch_size] = call

    def build(self, spec: FeatureSpec, weights: Weights, *, batch_size: int) -> RemoteNetwork:
        """Build a network there as `build_network` does, where it is not prepared; return what
        stands for it here."""
        if (computing(spec), batch_size) not in self._coming:
            self.prepare(spec, weights, batch_size=batch_size)
        number, *about = self._coming[computing(spec), batch_size].result()
        return RemoteNetwork(self._compute, number, *about)

    def _compute(self, number: int, images: NDArray[np.uint8]) -> NDArray[np.float32]:
        rows: NDArray[np.float32] = self._begin("compute", images, number).result()
        return rows

    def _begin(self, name: str, images: NDArray[np.uint8] | None, *args: object) -> Future[Any]:
        try:
            return self._calls.submit(self._call, name, images, *args)
        except RuntimeError as err:
            if not self._closing.is_set():
                raise
            # Another thread is still at work.
            raise JobError("the command ends, and its network with it") from err

    def _call(self, name: str, images: NDArray[np.uint8] | None, *args: object) -> Any:
        lane = self._lanes.get()
        try:
            answer, error = lane.call(name, images, *args)
        except (EOFError, OSError) as err:
            raise JobError(
                "the process that computes the network ended",
                got=self._ending(),
                todo="run the same command again; if it ends again, see whether memory was short "
                "(dmesg), and use fewer --decoders",
            ) from err
        finally:
            self._lanes.put(lane)
        if error is not None:
            raise error
        return answer

    def _ending(self) -> str:
        with contextlib.suppress(subprocess.TimeoutExpired):
            status = self._process.wait(_END_S)
            return f"signal {-status}" if status < 0 else f"status {status}"
        return "a process that goes on, and says nothing"


class RemoteNetwork:
    """A `batches.FrameNetwork` whose work another process does."""

    def __init__(
        self,
        compute: Callable[[int, NDArray[np.uint8]], NDArray[np.float32]],
        number: int,
        batch_size: int,
        feature_dim: int,
        step: int,
        in_flight: int,
    ) -> None:
        self._compute, self._number = compute, number
        self.batch_size, self.feature_dim = batch_size, feature_dim
        self.step, self.in_flight = step, in_flight

    def __call__(self, images: NDArray[np.uint8]) -> NDArray[np.float32]:
        return self._compute(self._number, images)


class _Lane:
    """What one call at a time takes: a channel, of which the other end is `theirs`, and memory."""

    def __init__(self) -> None:
        with contextlib.ExitStack() as opened:
            self._channel, self.theirs = multiprocessing.Pipe()
            opened.enter_context(self._channel)
            self.memory = os.memfd_create("pictures")
            opened.callback(os.close, self.memory)
            self._pictures = _Pictures(self.memory)
            opened.callback(self._pictures.close)
            self.close = opened.pop_all().close

    def call(self, name: str, images: NDArray[np.uint8] | None, *args: object) -> Any:
        """Return what the call gave there and what it raised; raises EOFError or OSError where the
        process is gone."""
        shape = None if images is None else self._pictures.put(images)
        self._channel.send((name, shape, args))
        return self._channel.recv()


class _Pictures:
    """Memory that both processes see, as large as the largest batch so far."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor
        self._mapped: mmap.mmap | None = None

    def put(self, images: NDArray[np.uint8]) -> tuple[int, ...]:
        """Write images there; return their shape. Raises ValueError for another dtype."""
        if images.dtype != np.uint8:
            raise ValueError(f"got images of {images.dtype}, expected uint8")
        if self._mapped is None or len(self._mapped) < images.nbytes:
            os.ftruncate(self._descriptor, images.nbytes)
        self.seen(images.shape)[...] = images
        return images.shape

    def seen(self, shape: tuple[int, ...]) -> NDArray[np.uint8]:
        """Return the images uint8[shape] that lie there, until the next ones do."""
        size = int(np.prod(shape))
        if self._mapped is None or len(self._mapped) < size:
            self.close()
            self._mapped = mmap.mmap(self._descriptor, size)
        return np.frombuffer(self._mapped, np.uint8, size).reshape(shape)

    def close(self) -> None:
        self._mapped = None  # it is unmapped with the last array of it


_BEGUN: list[NetworkProcess] = []  # one at most


def begin(held: contextlib.ExitStack, choices: Collection[SpecChoice | FeatureSpec]) -> None:
    """Start the process for what was chosen, where a command gains by it, until `held` is closed:
    not where a network has to be looked at here, and not beside a GPU, which takes two batches at a
    time."""
    if _BEGUN or not _is_a_gain(choices):
        return
    with contextlib.suppress(OSError):  # this process does it all
        process = NetworkProcess(int8=any(one.precision == INT8 for one in choices))
        held.callback(process.close)
        _BEGUN.append(process)
        held.callback(_BEGUN.clear)


def serving() -> NetworkProcess | None:
    """Return the process that was begun, if one was."""
    return _BEGUN[0] if _BEGUN else None


@contextlib.contextmanager
def to_quantise() -> Iterator[NetworkProcess]:
    """Have a process for quantising: the one that was begun, or one for that alone."""
    if (process := serving()) is not None:
        yield process
        return
    environment = {"KERAS_BACKEND": "tensorflow", "CUDA_VISIBLE_DEVICES": "-1"}
    try:
        process = NetworkProcess(int8=True, environment=environment)
    except OSError as err:
        raise JobError("int8 cannot be calibrated in a process", got=str(err)) from err
    with contextlib.closing(process):
        yield process


def _is_a_gain(choices: Iterable[SpecChoice | FeatureSpec]) -> bool:
    if not is_own_process() or "tensorflow" in sys.modules or any(map(glob.glob, _GPUS)):
        return False
    if keras_backend() != "tensorflow" or importlib.util.find_spec("tensorflow") is None:
        return False
    return all(
        (row := BACKBONES.get(one.backbone)) is not None and one.layer in (None, row.layer)
        for one in choices
    )


class _Served:
    """What the process does for the one that started it, for a thread of each lane."""

    def __init__(self) -> None:
        self._networks: list[Any] = []
        self._converted: Converted | None = None
        self._building = threading.Lock()

    def settle(
        self, images: NDArray[np.uint8], spec: FeatureSpec, weights: Weights, batch_size: int
    ) -> Settled:
        with self._building:
            return measured(spec, weights, images, batch_size=batch_size, keep=True)

    def convert(self, _: None, spec: FeatureSpec, weights: Weights) -> None:
        with self._building:
            self._converted = Converted(spec, localise_weights(weights))

    def quantise(
        self, images: NDArray[np.uint8], clips: NDArray[np.int64], batch_size: int
    ) -> tuple[str, dict[str, Any]]:
        with self._building:
            assert self._converted is not None
            converted, self._converted = self._converted, None
            return converted.quantise(images, clips, batch_size=batch_size)

    def build(
        self, _: None, spec: FeatureSpec, weights: Weights, batch_size: int
    ) -> tuple[int, int, int, int, int]:
        with self._building:
            network = build_network(spec, localise_weights(weights), batch_size=batch_size)
            self._networks.append(network)
            about = (network.batch_size, network.feature_dim, network.step, network.in_flight)
            return len(self._networks) - 1, *about

    def compute(self, images: NDArray[np.uint8], number: int) -> NDArray[np.float32]:
        rows: NDArray[np.float32] = self._networks[number](images)
        return rows


def main(parent: int, is_for_int8: bool, *lanes: int) -> None:
    """Serve the process `parent` until it closes its ends of the channels: `lanes` are descriptors,
    of each channel and its memory."""
    end_with_parent(parent)
    own_process()
    collect_rarely()
    only_graphs()
    networks, failed = _Served(), None
    try:
        check_address_space()
        if is_for_int8:
            with contextlib.suppress(ImportError):  # who needs it says so
                import_openvino()
        else:
            import_graphs()  # before it is known what for
    except Exception as error:  # noqa: BLE001 - told to the first that asks
        failed = _that_travels(error)
    first, *others = [
        functools.partial(_serve, networks, failed, channel, memory)
        for channel, memory in zip(lanes[::2], lanes[1::2], strict=True)
    ]
    for serve in others:
        threading.Thread(target=serve, daemon=True).start()
    first()


def _serve(networks: _Served, failed: Exception | None, channel: int, memory: int) -> None:
    """Answer the calls that come over a channel, until its other end is closed."""
    pictures = _Pictures(memory)
    with Connection(channel) as calls, contextlib.suppress(EOFError, OSError):  # it is gone
        while True:
            name, shape, args = calls.recv()
            answer: tuple[Any, Exception | None] = None, failed
            if failed is None:
                try:
                    images = None if shape is None else pictures.seen(shape)
                    answer = getattr(networks, name)(images, *args), None
                except Exception as error:  # noqa: BLE001 - it is raised where it was asked for
                    answer = None, _that_travels(error)
            calls.send(answer)


def _that_travels(error: Exception) -> Exception:
    """Return an error as it is, or what tells of one that only TensorFlow can read; of what is no
    FramebankError with the place where it was raised."""
    if isinstance(error, FramebankError):
        return error
    place = "".join(traceback.format_exception(error))
    if type(error).__module__ != "builtins":
        kind = MemoryError if type(error).__name__ == "ResourceExhaustedError" else RuntimeError
        # TensorFlow's own text goes on with where a node was made.
        error = kind(f"{type(error).__name__}: {getattr(error, 'message', error)}")
    error.add_note(place)
    return error
