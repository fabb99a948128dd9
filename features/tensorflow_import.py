"""Imports TensorFlow without its greetings on stderr: a user cannot act on any of them.

They come from C++ before any log level counts, so for the length of the import standard error goes
to a file in memory; when the import fails, what the file holds is shown.
"""

from __future__ import annotations

import contextlib
import importlib.util
import os
import sys
import warnings
from collections.abc import Callable, Iterator


def import_tensorflow(*, wake: Callable[[], object] | None = None) -> None:
    """Import TensorFlow and Keras; what they print goes to stderr only when that fails. `wake` is
    for what must be set up before anything else wakes TensorFlow's runtime."""
    # 3, as 2 still shows oneDNN's note on masks on older processors; 0 or 1 is the user's own wish.
    if os.environ.get("TF_CPP_MIN_LOG_LEVEL") not in ("0", "1"):
        os.environ["TF_CPP_MIN_LOG_LEVEL"] = "3"
    if "tensorflow" in sys.modules or importlib.util.find_spec("tensorflow") is None:
        if wake is not None:
            with _held_stderr():
                wake()
        return  # Keras may run on another backend
    with _held_stderr():
        import keras  # noqa: F401
        import tensorflow as tf

        tf.get_logger().setLevel("ERROR")
        (wake or (lambda: tf.constant(0)))()  # the runtime, which greets as well


def quiet_google() -> None:
    """Leave out how long Google's packages will support this Python, said at their import."""
    warnings.filterwarnings("ignore", "You are using a.* Python version", FutureWarning)


@contextlib.contextmanager
def _held_stderr() -> Iterator[None]:
    """Hold back what is written to file descriptor 2 (TensorFlow's C++ side writes there)."""
    sys.stderr.flush()
    # In memory: a temporary folder that is full is no reason not to start.
    with os.fdopen(os.memfd_create("stderr"), "w+b") as held:
        before = os.dup(2)
        os.dup2(held.fileno(), 2)
        try:
            yield
        except Exception:
            held.seek(0)
            os.write(before, held.read())
            raise
        finally:
            os.dup2(before, 2)
            os.close(before)
