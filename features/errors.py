"""The errors that cross Framebank's boundary, and the closed list of quarantine classes.

Every mistake a user can make ends in a `FramebankError`, which the command prints as one message
without a traceback. A video that cannot be used is no error of the job: it raises `VideoRejected`
inside the engine and becomes a quarantine row.
"""

from __future__ import annotations

import contextlib
import traceback
from collections.abc import Iterator
from pathlib import Path

from framebank.features.terminal import printable

STAGES = ("open", "probe", "decode", "infer", "write")

# The closed list of quarantine classes; infra/docs/reference/errors.md has more on some.
ERROR_CLASSES: dict[str, str] = {
    "missing": "the file or object does not exist",
    "forbidden": "the object store refuses this account (401 or 403)",
    "unreadable": "it exists but may not be read, or its storage failed again and again",
    "not_a_file": "a named pipe, device, socket, folder or a link to nowhere",
    "empty": "zero bytes",
    "not_a_video": "no demuxer on the allow-list recognises the bytes",
    "no_video_stream": "a media file, but it has no picture track",
    "encrypted": "the picture track is encrypted",
    "unsupported_codec": "FFmpeg has no decoder for the picture track",
    "truncated": "the clip ends long before its container's stated end, or inside a packet",
    "corrupt": "the demuxer or decoder reported errors",
    "no_frames": "a picture track from which no frame could be decoded",
    "no_keyframes": "no frame that is shown is a key frame, as --sample keyframes wants",
    "too_large": "over the limit on pixels per frame, bytes per file, rows per video, or memory",
    "bad_features": "the network gave values that are not finite",
    "hang": "the decoder did not finish within its time limit",
    "crash": "the decoder process died",
    "internal": "code of Framebank failed on it; to be reported",
}
# What a person can do about a clip of a class, where that is more than to leave it out.
REMEDIES: dict[str, str] = {
    "missing": "mend the manifest",
    "forbidden": "let the account read it, then --retry-quarantined",
    "unreadable": "mend the rights, then --retry-quarantined",
    "empty": "copy it again",
    "encrypted": "decrypt it",
    "unsupported_codec": "transcode it",
    "truncated": "copy it again, or keep what decodes with --allow-partial",
    "corrupt": "copy it again, or keep what decodes with --allow-partial",
    "no_keyframes": "sample by another rule",
    "too_large": "raise the limit, sample less, or give workers more memory",
    "bad_features": "look at the weights",
    "hang": "raise --decode-timeout, then --retry-quarantined",
    "crash": "report the clip to FFmpeg",
    "internal": "report it to Framebank, with the message",
}
_LIBRARIES = {  # that are not called as they are imported
    "apache_beam": "Apache Beam",
    "av": "PyAV",
    "google": "Google's client libraries",
    "google_crc32c": "google-crc32c",
    "jinja2": "Jinja2",
    "keras": "Keras",
    "mlflow": "MLflow",
    "openvino": "OpenVINO",
    "PIL": "Pillow",
    "tensorflow": "TensorFlow",
    "wandb": "Weights & Biases",
}
_ROOT = Path(__file__).resolve().parent.parent
_MESSAGE_CHARACTERS = 1000


class FramebankError(Exception):
    """A problem that a person can act on; `exit_status` is what the command ends with."""

    exit_status = 1

    def __init__(
        self, what: str, *, got: object = None, expected: object = None, todo: str | None = None
    ) -> None:
        """`what` went wrong; what was `got`; what was `expected`; `todo`: what to do next."""
        self.what, self.got, self.expected, self.todo = what, got, expected, todo
        told = {"got:": got, "expected:": expected, "to do:": todo or None}
        lines = [f"  {name:10}{value}" for name, value in told.items() if value is not None]
        super().__init__("\n".join([what, *lines]))


class UsageError(FramebankError):
    """A mistake in the command line or in what it names (exit status 2)."""

    exit_status = 2


class JobError(FramebankError):
    """The job failed (exit status 1)."""


class CacheError(FramebankError):
    """A cache that is damaged, incomplete or not a cache at all (exit status 1)."""


class SpecMismatchError(UsageError):
    """The features asked for were made in another way than those in the cache."""


@contextlib.contextmanager
def needing(what: str, *, extra: str) -> Iterator[None]:
    """Raise UsageError where `what` is done inside without a library that `extra` brings."""
    try:
        yield
    except ModuleNotFoundError as err:
        raise missing_library(what, err, extra=extra) from err


def missing_library(what: str, error: ModuleNotFoundError, *, extra: str) -> UsageError:
    """Return what is said where `what` lacks a library; raises `error` for a module of ours."""
    name = error.name or "framebank"
    if name.partition(".")[0] == "framebank":
        raise error
    needs = f"{what} needs {_LIBRARIES.get(name.partition('.')[0], name)}"
    todo = f'pip install "framebank[{extra}]"'
    return UsageError(f"{needs}, which this environment does not have", todo=todo)


class VideoRejected(Exception):
    """One video cannot be used: `stage` is one of STAGES, `error_class` one of ERROR_CLASSES."""

    def __init__(self, stage: str, error_class: str, message: str) -> None:
        if stage not in STAGES or error_class not in ERROR_CLASSES:
            raise ValueError(f"no such stage or class: {stage!r}, {error_class!r}")
        self.stage, self.error_class, self.message = stage, error_class, message
        super().__init__(f"{error_class} at {stage}: {message}")


def internal_rejection(stage: str, error: BaseException) -> VideoRejected:
    """Return the verdict on a clip on which code of ours failed, which no clip should ever get."""
    place = "a place unknown"
    for frame in traceback.extract_tb(error.__traceback__):
        path = Path(frame.filename)
        if _ROOT in path.parents and "site-packages" not in path.parts:
            place = f"{path.relative_to(_ROOT)}:{frame.lineno}"
    text = plain_text(f"{type(error).__name__}: {error}")
    return VideoRejected(stage, "internal", f"{text} at {place}; please report this to Framebank")


def plain_text(text: str) -> str:
    """Return `text` as it may stand in a message: of bounded length, printable, on one line."""
    return printable(text[:_MESSAGE_CHARACTERS])
