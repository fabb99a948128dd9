"""What every command says beside its result: how long it took, what comes next, of which versions.

A command's module may have `next_command(args) -> str | None`: what people mostly do after it; ""
where nothing at all is to be said. Both go to stderr, so that what a command prints stays as it is;
steps of another command leave it to that one.
"""

from __future__ import annotations

import argparse
import contextlib
import os
from collections.abc import Iterator
from typing import Any

from framebank.features import terminal
from framebank.features.errors import FramebankError

STEP = "FRAMEBANK_STEP"  # is set where the process is a step of another command
_SHORT_S = 1.0  # a look at something, of which nobody asks how long it took
# By the names that PyPI has; what FFmpeg is comes with PyAV.
_DISTRIBUTIONS = {
    "TensorFlow": ("tensorflow", "tensorflow-cpu"),
    "Keras": ("keras",),
    "Apache Beam": ("apache-beam",),
    "PyAV": ("av",),
    "NumPy": ("numpy",),
    "PyArrow": ("pyarrow",),
}


def say_end(module: Any, args: argparse.Namespace, seconds: float) -> None:
    """Say how long a command of `module` took, and which one comes next."""
    after = getattr(module, "next_command", lambda args: None)(args)
    if os.environ.get(STEP) or after == "" or (after is None and seconds < _SHORT_S):
        return
    told = f"{terminal.time_text(seconds)}." + (f" Next: {after}" if after else "")
    terminal.say(told)


@contextlib.contextmanager
def telling(args: argparse.Namespace) -> Iterator[None]:
    """While inside, say as much as the options in `args` want."""
    with terminal.telling(getattr(args, "verbosity", None)):
        if not terminal.is_verbose():
            yield
            return
        for line in versions(verbose=True):
            terminal.say(line)
        try:
            with _logs_said():
                yield
        except FramebankError as error:
            if error.__cause__ is not None:
                import traceback

                terminal.say(f"the error comes from\n{''.join(traceback.format_exception(error))}")
            raise


@contextlib.contextmanager
def _logs_said() -> Iterator[None]:
    """While inside, say what our modules log."""
    import logging

    class Said(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            terminal.say(record.getMessage())

    ours, handler = logging.getLogger("framebank"), Said()
    before = ours.level
    ours.addHandler(handler)
    ours.setLevel(logging.INFO)
    try:
        yield
    finally:
        ours.removeHandler(handler)
        ours.setLevel(before)


def versions(*, verbose: bool) -> Iterator[str]:
    """Yield which Framebank this is; if `verbose` what it works with too, none of it imported."""
    from framebank import __version__

    yield f"framebank {__version__}"
    if verbose:
        import platform

        found = {name: _version(names) for name, names in _DISTRIBUTIONS.items()}
        told = [f"{name} {version}" for name, version in found.items() if version]
        told += [f"FFmpeg's libavcodec {codec}"] if (codec := _libavcodec()) else []
        yield ", ".join([f"Python {platform.python_version()}", *told])


def _version(names: tuple[str, ...]) -> str | None:
    import importlib.metadata

    for name in names:
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):
            return importlib.metadata.version(name)
    return None


def _libavcodec() -> str | None:
    """Return the version of FFmpeg's library that PyAV brings, as its file is called."""
    import importlib.util
    import re
    from pathlib import Path

    found = importlib.util.find_spec("av")
    if found is None or found.origin is None:
        return None
    for path in Path(found.origin).parent.parent.glob("av.libs/libavcodec*"):
        if match := re.search(r"(\d+\.\d+\.\d+)(\.dylib)?$", path.name):
            return match[1]
    return None  # FFmpeg of the system
