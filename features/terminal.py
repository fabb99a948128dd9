"""What a command prints, kept from doing anything but being read.

Names of files, tags of clips and answers of servers are written by others, and a terminal obeys
what some characters say: in what the standard streams get, whatever is no text becomes an escape.
Here is also what becomes of output that nobody takes: a reader that left, a full disk.
"""

from __future__ import annotations

import contextlib
import os
import re
import select
import sys
import threading
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, TextIO, cast

# Control characters but newline and tab; what reorders a line or breaks it (Unicode TR 36, 3.1);
# halves of surrogate pairs, which are bytes of a name that is no UTF-8.
_OBEYED = re.compile(
    "[\x00-\x08\x0b-\x1f\x7f-\x9f\u2028\u2029\u202a-\u202e\u2066-\u2069\ud800-\udfff]"
)


VERBOSITY = "FRAMEBANK_VERBOSITY"  # quiet, verbose or unset; processes that we start have it too


def is_quiet() -> bool:
    """Tell whether results, warnings and errors are all that is wanted."""
    return os.environ.get(VERBOSITY) == "quiet"


def is_verbose() -> bool:
    """Tell whether more is wanted than is usually said."""
    return os.environ.get(VERBOSITY) == "verbose"


@contextlib.contextmanager
def telling(how: str | None) -> Iterator[None]:
    """While inside, say as much as `how` has it: "quiet", "verbose", None for as before."""
    before = os.environ.get(VERBOSITY)
    if how is not None:
        os.environ[VERBOSITY] = how
    try:
        yield
    finally:
        if how is not None:
            os.environ.pop(VERBOSITY)
            os.environ.update({} if before is None else {VERBOSITY: before})


def say(text: str, who: str = "framebank") -> None:
    """Tell whoever runs the command `who` what is no result of it; when quiet, warnings alone."""
    if not is_quiet() or text.startswith("WARNING"):
        print(f"{who}: {text}", file=said_on(sys.stderr), flush=True)


def said_on(stream: TextIO | None) -> TextIO | None:
    """Return standard error, or what stands in for it where it is held back at the moment."""
    return _Aside.stream or stream


class _Aside:
    """Where `say` writes while file descriptor 2 is held back, from whatever thread."""

    stream: TextIO | None = None


@contextlib.contextmanager
def said_to(descriptor: int) -> Iterator[None]:
    """Have `say` write to `descriptor` while 2, where it writes else, is not for people."""
    try:
        if sys.stderr is None or sys.stderr.fileno() != 2:
            raise OSError("standard error is something else, which nobody holds back")
    except (OSError, ValueError):
        yield
        return
    with os.fdopen(os.dup(descriptor), "w", errors="backslashreplace") as stream:
        _Aside.stream = cast(TextIO, _Guarded(stream))
        try:
            yield
        finally:
            _Aside.stream = None


class _Unheld:
    """A stream that writes past a hold on file descriptor 2."""

    def __init__(self, stream: TextIO) -> None:
        self._of, self._isatty = stream, stream.isatty()

    def _now(self) -> TextIO:
        return self._of if _Aside.stream is None else bare(_Aside.stream)

    def isatty(self) -> bool:  # also while 2 is something else
        return self._isatty

    def write(self, text: str) -> int:
        return self._now().write(text)

    def flush(self) -> None:
        self._now().flush()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._of, name)


def unheld(stream: TextIO) -> TextIO:
    """Return standard error, bare, as a stream that people see also while `said_to` holds."""
    return cast(TextIO, _Unheld(bare(stream)))


@contextlib.contextmanager
def waiting(text: str) -> Iterator[None]:
    """Say what takes a while, at once; on a terminal the seconds are counted beside it."""
    say(text)
    if is_quiet() or sys.stderr is None or not sys.stderr.isatty():
        yield
        return
    stream, done = unheld(sys.stderr), threading.Event()

    def count() -> None:
        seconds = 0
        while not done.wait(1.0):
            seconds += 1
            stream.write(f"\r  {seconds} s ")
            stream.flush()
        if seconds:
            stream.write("\r\x1b[K")  # the line is gone with the block
            stream.flush()

    counting = threading.Thread(target=count, daemon=True)
    counting.start()
    try:
        yield
    finally:
        done.set()
        counting.join()


def printable(text: object) -> str:
    """Return `text` fit for one line of a terminal: what cannot be seen as escapes."""
    return "".join(char if char.isprintable() else _escaped(char) for char in str(text))


def _escaped(char: str) -> str:
    return char.encode("unicode_escape").decode()


def few(names: Sequence[str], most: int = 5) -> str:
    """Return the first of some names, and whether there are more."""
    return ", ".join(names[:most]) + (", ..." if len(names) > most else "")


def size_text(size_bytes: float) -> str:
    """Return a number of bytes for people."""
    for unit in ("bytes", "KiB", "MiB", "GiB"):
        if size_bytes < 1024:
            return f"{size_bytes:.0f} {unit}" if unit == "bytes" else f"{size_bytes:.1f} {unit}"
        size_bytes /= 1024
    return f"{size_bytes:.1f} TiB"


def time_text(seconds: float) -> str:
    """Return a time for people: the two units that tell most."""
    if seconds < 9.95 and seconds != int(seconds):
        return f"{seconds:.1f} s"
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    minutes, rest = divmod(whole, 60)
    if minutes < 60:
        return f"{minutes} min {rest} s"
    hours, minutes = divmod(round(seconds / 60), 60)
    return f"{hours} h {minutes} min"


class _Guarded:
    def __init__(self, stream: TextIO) -> None:
        self.bare = stream

    def write(self, text: str) -> int:
        self.bare.write(_OBEYED.sub(lambda match: _escaped(match[0]), text))
        return len(text)

    def writelines(self, lines: Iterable[str]) -> None:
        for line in lines:
            self.write(line)

    def __getattr__(self, name: str) -> Any:
        return getattr(self.bare, name)


@contextlib.contextmanager
def guarded() -> Iterator[None]:
    """While inside, what is printed holds no control characters but newline and tab."""
    out, err = (
        stream and cast(TextIO, _Guarded(bare(stream)))  # None: closed by the shell
        for stream in (sys.stdout, sys.stderr)
    )
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        yield


def bare(stream: TextIO) -> TextIO:
    """Return the stream under a guarded one, for what draws on a terminal."""
    return stream.bare if isinstance(stream, _Guarded) else stream


def flush() -> None:
    """Write out what is still held back; raises OSError where it cannot be."""
    for stream in (sys.stdout, sys.stderr):
        if stream is not None and not stream.closed:
            stream.flush()


def reader_left() -> bool:
    """Return whether standard output or error is a pipe that nobody reads any more."""
    return _is_broken(1) or _is_broken(2)


def _is_broken(number: int) -> bool:
    poll = select.poll()
    poll.register(number, 0)
    return any(events & select.POLLERR for _, events in poll.poll(0))


def drop_output() -> None:
    """Let what can be written nowhere go, so that Python does not try again while it ends."""
    null = os.open(os.devnull, os.O_WRONLY)
    for number, stream in ((1, sys.stdout), (2, sys.stderr)):
        try:
            if stream is not None:
                stream.flush()
            broken = _is_broken(number)
        except OSError:
            broken = True
        if broken:
            os.dup2(null, number)
    os.close(null)
