"""Imports TensorFlow without its greetings on stderr: a user cannot act on any of them.

They come from C++ before any log level counts, so for the length of the import standard error goes
to a file in memory; when the import fails, what the file holds is shown. What we say ourselves
meanwhile is said. What nobody here asks for is not imported with it (`infra/decisions/0020`).
"""

from __future__ import annotations

import contextlib
import functools
import gc
import importlib.abc
import importlib.metadata
import importlib.util
import os
import sys
import threading
import types
import warnings
from collections.abc import Callable, Collection, Iterator
from typing import Any

from framebank.features import terminal

_importing = threading.RLock()  # one may be loading a network while another does something else
_own_process = threading.Event()  # set where a command runs, so that nobody else's code does
_only_graphs = threading.Event()  # set where graphs are run, and hardly anything else is done
_RARELY = (20_000, 20, 20)  # for gc.set_threshold
_LEAN_FROM = (2, 21)  # older ones were not tried without Keras


def import_tensorflow(*, wake: Callable[[], object] | None = None, keras: bool = True) -> None:
    """Import TensorFlow and Keras; what they print goes to stderr only when that fails. `wake` is
    for what must be set up before anything else wakes TensorFlow's runtime. Who can do without
    Keras says so: it is a part of what this takes."""
    _quiet()
    with _importing:
        if importlib.util.find_spec("tensorflow") is None:  # Keras may run on another backend
            if wake is not None:
                with _held_stderr():
                    wake()
            return
        imported = "tensorflow" in sys.modules
        if imported and wake is None and (not keras or "keras" in sys.modules):
            return
        # Keras imports some of TensorFlow's modules, which TensorFlow's own import cannot take
        # where others of them are there before.
        keras_first = keras and not _only_graphs.is_set()
        with _held_stderr():
            if keras_first:
                _import_keras()
            if not imported:
                lean = not keras_first and _can_be_lean()
                with absent("keras.src") if lean else contextlib.nullcontext():
                    import tensorflow as tf
            if keras:
                _import_keras()
            if not imported:
                tf.get_logger().setLevel("ERROR")
            if wake is not None:
                wake()
            elif not imported:
                tf.constant(0)  # the runtime, which greets as well


def import_graphs() -> Any:
    """Return `tensorflow.compat.v1`, for what it has to load graphs and run them. In a process of
    which `only_graphs` was said this is all of TensorFlow that is imported, a second sooner, while
    nothing else has asked for more."""
    with _importing:
        if _only_graphs.is_set() and "tensorflow" not in sys.modules:
            with contextlib.suppress(ImportError, AttributeError), _held_stderr():
                return _graph_parts()
        import_tensorflow(keras=False)
        import tensorflow as tf

        return tf.compat.v1


def computes_by_onednn() -> bool:
    """Return whether TensorFlow's convolutions are oneDNN's for x86, which give a picture the same
    bits at any place of a batch and by any number of threads; where it was told to be and is not,
    say so."""
    import_graphs()
    port = sys.modules.get("tensorflow.python.util._pywrap_util_port")
    if os.uname().machine != "x86_64" or port is None:
        return False
    found = bool(port.IsMklEnabled())
    if not found and os.environ.get("TF_ENABLE_ONEDNN_OPTS") == "1":
        _say_too_late()
    return found


@functools.cache
def _say_too_late() -> None:
    terminal.say(
        "TensorFlow was imported before framebank, without oneDNN: the last digits of features may "
        "differ from those of other processes. Import framebank first"
    )


def only_graphs() -> None:
    """Say that this process runs graphs, and can mostly do without the rest of TensorFlow."""
    _only_graphs.set()


def graph_message() -> Any:
    """Return the class `GraphDef`, for which a process of which `only_graphs` was said imports
    nothing else of TensorFlow."""
    with _importing:
        if _only_graphs.is_set() and "tensorflow" not in sys.modules:
            with contextlib.suppress(ImportError), _parts_of_tensorflow():
                from tensorflow.core.framework import graph_pb2

                return graph_pb2.GraphDef
        return import_graphs().GraphDef


def tensorflow_version() -> str:
    """Return the version of TensorFlow, which is not imported for it where it is called that."""
    with contextlib.suppress(importlib.metadata.PackageNotFoundError):
        return importlib.metadata.version("tensorflow")
    version: str = import_graphs().VERSION
    return version


@contextlib.contextmanager
def _parts_of_tensorflow() -> Iterator[None]:
    """Have the block import modules of TensorFlow without what it imports of itself: hundreds of
    modules of public names. Raises ImportError where there is none."""
    found = importlib.util.find_spec("tensorflow")
    if found is None or found.submodule_search_locations is None:
        raise ImportError("no package tensorflow")
    package = types.ModuleType("tensorflow")
    package.__path__ = list(found.submodule_search_locations)
    sys.modules["tensorflow"] = package
    try:
        yield
    finally:
        del sys.modules["tensorflow"]  # whoever wants the rest imports it as ever


@functools.cache
def _graph_parts() -> types.SimpleNamespace:
    """Return the same objects under the same names from the modules that they are made in. Raises
    ImportError or AttributeError where a TensorFlow has them elsewhere."""
    _quiet()
    with _parts_of_tensorflow():
        from tensorflow.core.framework import graph_pb2
        from tensorflow.core.protobuf import config_pb2, rewriter_config_pb2  # noqa: F401
        from tensorflow.python.client import session
        from tensorflow.python.framework import config, dtypes, importer, ops, versions
        from tensorflow.python.platform import tf_logging
        from tensorflow.python.util import _pywrap_util_port  # noqa: F401  computes_by_onednn
    tf_logging.get_logger().setLevel("ERROR")
    return types.SimpleNamespace(
        Graph=ops.Graph,
        GraphDef=graph_pb2.GraphDef,
        Session=session.Session,
        ConfigProto=config_pb2.ConfigProto,
        RunOptions=config_pb2.RunOptions,
        RunMetadata=config_pb2.RunMetadata,
        import_graph_def=importer.import_graph_def,
        config=types.SimpleNamespace(list_physical_devices=config.list_physical_devices),
        float32=dtypes.float32,
        bfloat16=dtypes.bfloat16,
        VERSION=versions.VERSION,
    )


def own_process() -> None:
    """Say that this process is a command's: nobody else's code imports anything in it."""
    _own_process.set()


def is_own_process() -> bool:
    return _own_process.is_set()


def collect_rarely() -> None:
    """In a process that is a command's, look for circles among objects rarely: imports make
    hundreds of thousands that stay, and looking every 700 is a fifth of what they take. Not for
    what goes on for days, whose circles may hold arrays."""
    if _own_process.is_set():
        gc.set_threshold(*_RARELY)


def _import_keras() -> None:
    # Keras wraps scikit-learn where it is installed: importing that takes longer than Keras.
    with absent("sklearn") if _own_process.is_set() else contextlib.nullcontext():
        import keras  # noqa: F401


def _can_be_lean() -> bool:
    """Return whether TensorFlow takes it that Keras, which it imports at its end, is not there: it
    finds it later when it is asked for it."""
    if "keras" in sys.modules:
        return False
    with contextlib.suppress(importlib.metadata.PackageNotFoundError, ValueError):
        major, minor = importlib.metadata.version("tensorflow").split(".")[:2]
        return (int(major), int(minor)) >= _LEAN_FROM
    return False


@contextlib.contextmanager
def absent(*names: str) -> Iterator[None]:
    """Have imports of modules by this thread fail as if they were not installed, but for those that
    are imported already."""
    hiding = _Hiding(names)
    sys.meta_path.insert(0, hiding)
    try:
        yield
    finally:
        sys.meta_path.remove(hiding)


class _Hiding(importlib.abc.MetaPathFinder):
    """Finds nothing, and lets nobody else find what is hidden from the thread that made it."""

    def __init__(self, names: Collection[str]) -> None:
        self._names, self._thread = names, threading.get_ident()

    def find_spec(self, name: str, path: object, target: object = None) -> None:
        if name in self._names and threading.get_ident() == self._thread:
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)


def _quiet() -> None:
    # 3, as 2 still shows oneDNN's note on masks on older processors; 0 or 1 is the user's own wish.
    if os.environ.get("TF_CPP_MIN_LOG_LEVEL") not in ("0", "1"):
        os.environ["TF_CPP_MIN_LOG_LEVEL"] = "3"


def quiet_google() -> None:
    """Leave out how long Google's packages will support this Python, said at their import."""
    warnings.filterwarnings("ignore", "You are using a.* Python version", FutureWarning)


@contextlib.contextmanager
def _held_stderr() -> Iterator[None]:
    """Hold back what is written to file descriptor 2 (TensorFlow's C++ side writes there)."""
    if sys.stderr is not None:
        sys.stderr.flush()
    # In memory: a temporary folder that is full is no reason not to start.
    with os.fdopen(os.memfd_create("stderr"), "w+b") as held:
        before = os.dup(2)
        os.dup2(held.fileno(), 2)
        try:
            with terminal.said_to(before):
                yield
        except Exception:
            held.seek(0)
            os.write(before, held.read())
            raise
        finally:
            os.dup2(before, 2)
            os.close(before)
