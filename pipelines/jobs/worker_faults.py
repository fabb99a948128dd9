"""What goes wrong on a worker, in words that reach the client through any runner."""

from __future__ import annotations

import contextlib
import errno
import socket
from collections.abc import Callable, Iterator
from typing import Any

from framebank import __version__
from framebank.features.errors import FramebankError, JobError
from framebank.features.stores import storage
from framebank.features.stores.temporary import temporary_error
from framebank.pipelines.jobs.beam_options import mark_for_client

MORE_MEMORY = (
    "give workers more memory (ulimit -v, the container's limit), or fewer --decoders and a "
    "smaller --batch-size; then run the same command again"
)


@contextlib.contextmanager
def told_to_client() -> Iterator[None]:
    """Mark what ends the block for the client: our errors, a full disk, too little memory.

    The runner may still try the element again, here or elsewhere; what is marked is what the client
    shows when it gives up. Any other exception passes as it is.
    """
    try:
        yield
    except Exception as error:
        fault = error if isinstance(error, FramebankError) else _explain(error)
        if fault is None:
            raise
        raise mark_for_client(fault) from error


def _explain(error: Exception) -> FramebankError | None:
    if lacks_memory(error):
        return JobError(
            f"the worker {socket.gethostname()} has too little memory",
            got=f"{type(error).__name__}: {_first_line(error)}",
            todo=MORE_MEMORY,
        )
    if isinstance(error, OSError):  # storage explains its own
        if isinstance(error.filename, str):
            return storage.storage_error(error.filename, error, "use")
        return temporary_error(error)
    if isinstance(error, ImportError):
        return JobError(
            f"the worker {socket.gethostname()} cannot load a library that it needs",
            got=_first_line(error),
            todo="install Framebank with all it needs where the workers run, then run again",
        )
    return None


def lacks_memory(error: Exception) -> bool:
    """Return whether an error says that memory, or room for a thread, was not to be had."""
    if isinstance(error, MemoryError) or getattr(error, "errno", None) == errno.ENOMEM:
        return True
    # TensorFlow's own error; the loader's, of a library that finds no room; a thread's stack.
    return (
        type(error).__name__ == "ResourceExhaustedError"
        or "failed to map segment" in str(error)
        or "can't start new thread" in str(error)
    )


def _first_line(error: Exception) -> str:
    lines = str(error).strip().splitlines()
    return lines[0][:300] if lines else "no more is known"


def worker_check() -> Callable[[Any], Any]:
    """Return a function that hands its argument on, and fails on a worker that cannot do the job.

    The first step of a job. The function needs none of our code to be unpickled, raises
    RuntimeError with a text that `beam_options.find_marked` understands, and fails while it has an
    element: of a worker that fails before its first one Flink learns nothing, waits three minutes
    for it (Beam's GrpcDataService), and tries again. So a shuffle must follow, which keeps the
    steps that need our code out of the same bundle.
    """
    submitted = __version__

    def check(element: Any) -> Any:  # nested: it is pickled by value, with no module of ours
        import base64
        import importlib
        import json
        import socket

        fields = {
            "kind": "UsageError",
            "what": f"the worker {socket.gethostname()} has not the Framebank that this job needs",
            "expected": f"framebank {submitted}",
            "todo": "install that where the workers run (infra/docker has images), and start "
            "worker pools anew",
        }
        try:
            framebank = importlib.import_module("framebank")
            importlib.import_module("framebank.pipelines")
            found = framebank.__version__
            fields["got"] = f"framebank {found}"
        except ImportError as error:
            found, fields["got"] = None, f"{type(error).__name__}: {error}"
        if found == submitted:
            return element
        packed = base64.b64encode(json.dumps(fields).encode()).decode()
        raise RuntimeError(f"<framebank-error>{packed}</framebank-error>")

    return check
