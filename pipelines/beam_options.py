"""Beam's own options behind Framebank's: which exist, what the defaults are, how a job is run.

`DirectRunner` switches between engines by what it finds in a pipeline; a local run here is always
Beam's portable in-process runner, so that what ran yesterday runs the same way today.
"""

from __future__ import annotations

import argparse
import base64
import contextlib
import difflib
import json
import logging
import re
import tempfile
import traceback
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Any

from features import errors
from features.errors import FramebankError, JobError, UsageError

if TYPE_CHECKING:
    import apache_beam as beam
    from apache_beam.options.pipeline_options import PipelineOptions

LOCAL_RUNNER = "apache_beam.runners.portability.fn_api_runner.FnApiRunner"
_LOCAL_NAMES = ("DirectRunner", "FnApiRunner", LOCAL_RUNNER)
_MARK = re.compile(r"<framebank-error>([A-Za-z0-9+/=]+)</framebank-error>")


@contextlib.contextmanager
def quiet_beam() -> Iterator[None]:
    """While inside, Beam keeps to itself which of its optional parts are not installed."""
    root = logging.getLogger()
    root.addFilter(_worth_saying)
    try:
        yield
    finally:
        root.removeFilter(_worth_saying)


def _worth_saying(record: logging.LogRecord) -> bool:
    # The model manager of RunInference, and BigQuery.
    return not str(record.msg).startswith(("Resource module is not", "apitools not found"))


def check_beam_options(words: Sequence[str], *, own: Sequence[str] = ()) -> None:
    """Raise UsageError for words that are no option of Beam (a typo must not be ignored)."""
    parser = _beam_parser()
    try:
        _, unknown = parser.parse_known_args(list(words))
    except _ParserError as error:
        raise UsageError(f"an option of Beam is not right: {error}") from None
    if not unknown:
        return
    known = [*own, *(text for action in parser._actions for text in action.option_strings)]
    close = difflib.get_close_matches(unknown[0].split("=")[0], known, n=1)
    raise UsageError(
        "unknown option or argument",
        got=" ".join(unknown),
        expected="an option of this command or of Beam",
        todo=f"did you mean {close[0]}?" if close else _advice(unknown[0]),
    )


def _advice(word: str) -> str:
    if word.startswith("-"):
        return "see --help, and Beam's pipeline options"
    return "name every INPUT before the first option"


def build_options(words: Sequence[str]) -> PipelineOptions:
    """Return Beam's options; without --runner the job runs in this process."""
    from apache_beam.options.pipeline_options import PipelineOptions, StandardOptions

    options = PipelineOptions(list(words), pipeline_type_check=True)
    standard = options.view_as(StandardOptions)
    if standard.runner in (None, *_LOCAL_NAMES):
        standard.runner = LOCAL_RUNNER
    return options


def runs_here(options: PipelineOptions) -> bool:
    """Tell whether the job runs on this machine, in this process or its children."""
    from apache_beam.options.pipeline_options import StandardOptions

    return options.view_as(StandardOptions).runner == LOCAL_RUNNER


def run_pipeline(
    build: Callable[[beam.Pipeline], object], options: PipelineOptions
) -> beam.runners.runner.PipelineResult:
    """Build and run a pipeline to its end; raises JobError with what a worker said.

    An exception of ours inside a DoFn reaches the client as text inside a traceback, on every
    runner; `mark_for_client` marks it so that it can be taken out again. Any other one is told in a
    few lines, with its traceback in a file.
    """
    import apache_beam as beam

    if runs_here(options):  # what Beam logs of an exception here is what is raised below
        logging.getLogger("apache_beam").setLevel(logging.CRITICAL)
    try:
        pipeline = beam.Pipeline(options=options)
        build(pipeline)
        result = pipeline.run()
        state = result.wait_until_finish()
    except Exception as error:
        told = _find_marked(str(error))
        if told is not None:
            raise told from None
        raise _unforeseen(error) from error
    if state not in (None, "DONE"):
        raise JobError("the job did not end well", got=f"state {state}", expected="DONE")
    return result


def _unforeseen(error: Exception) -> JobError:
    """Return what to tell of a failure that is none of ours: a runner's, mostly of its options."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    if any(line.startswith("Traceback ") for line in lines):  # of a worker: its last line says it
        lines = lines[-1:]
    with tempfile.NamedTemporaryFile(
        "w", prefix="framebank-error-", suffix=".txt", delete=False, errors="backslashreplace"
    ) as file:
        file.writelines(traceback.format_exception(error))
    return JobError(
        "the runner could not run the job",
        got=f"{type(error).__name__}: {'; '.join(lines)[:600]}",
        todo="check the options of Beam (--runner and its own); what was committed is kept. "
        f"All that is known: {file.name}",
    )


class WorkerError(Exception):
    """A FramebankError on its way from a worker to the client, as text."""


def mark_for_client(error: FramebankError) -> WorkerError:
    """Wrap an error so that `run_pipeline` can show just its message."""
    fields = {
        "kind": type(error).__name__,
        "what": error.what,
        "got": None if error.got is None else str(error.got),
        "expected": None if error.expected is None else str(error.expected),
        "todo": error.todo,
    }
    packed = base64.b64encode(json.dumps(fields).encode()).decode()
    return WorkerError(f"<framebank-error>{packed}</framebank-error>")


def _find_marked(text: str) -> FramebankError | None:
    match = _MARK.search(text)
    if match is None:
        return None
    fields: dict[str, Any] = json.loads(base64.b64decode(match.group(1)))
    kind = getattr(errors, fields.pop("kind"), JobError)
    what = fields.pop("what")
    return (kind if issubclass(kind, FramebankError) else JobError)(what, **fields)


class _ParserError(Exception):
    pass


class _RaisingParser(argparse.ArgumentParser):
    def error(self, message: str):  # type: ignore[no-untyped-def]
        raise _ParserError(message)


def _beam_parser() -> argparse.ArgumentParser:
    """Return a parser that knows every option of every class of Beam's options."""
    from apache_beam.options import pipeline_options

    class Parser(_RaisingParser, pipeline_options._BeamArgumentParser):
        pass

    parser = Parser(allow_abbrev=False, add_help=False)
    for options in pipeline_options.PipelineOptions.__subclasses__():
        options._add_argparse_args(parser)
    return parser
