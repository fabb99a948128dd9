"""Beam's own options behind Framebank's, and errors of ours on their way from worker to client.

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
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any, NoReturn

from framebank.features import errors
from framebank.features.commands.command_line import take_options_once
from framebank.features.errors import FramebankError, JobError, UsageError
from framebank.features.stores import json_text

if TYPE_CHECKING:
    from apache_beam.options.pipeline_options import PipelineOptions

LOCAL_RUNNER = "apache_beam.runners.portability.fn_api_runner.FnApiRunner"
# Of Beam's FlinkPipelineOptions: the job server knows them, Beam's Python side does not.
_FLINK_OPTIONS = (
    "allow_non_restored_state attached_mode auto_balance_write_files_sharding_enabled "
    "auto_watermark_interval checkpoint_timeout_millis checkpointing_interval checkpointing_mode "
    "disable_metrics enable_stable_input_drain execution_mode_for_batch execution_retry_delay "
    "externalized_checkpoints_enabled fail_on_checkpointing_errors faster_copy "
    "file_input_split_max_size_m_b finish_bundle_before_checkpointing flink_conf_dir "
    "force_slot_sharing_group force_unaligned_checkpoint_enabled job_check_interval_in_secs "
    "latency_tracking_interval max_bundle_size max_bundle_time_mills min_pause_between_checkpoints "
    "num_concurrent_checkpoints number_of_execution_retries object_reuse operator_chaining "
    "re_iterable_group_by_key_result report_checkpoint_duration "
    "retain_externalized_checkpoints_on_cancellation savepoint_path shutdown_sources_after_idle_ms "
    "state_backend state_backend_storage_path tolerable_checkpoint_failure_number "
    "unaligned_checkpoint_enabled use_data_stream_for_batch"
)
# The classes of Beam's options that a runner heeds, beside those that all do and S3Options, which
# the gate refuses. The others are of transforms, file systems, runners and tests not of ours.
HEEDED = {
    "local": "Direct",
    "prism": "Setup Profiling Portable PrismRunner",
    "flink": "Setup Profiling Portable JobServer FlinkRunner",
    "dataflow": "Setup Profiling GoogleCloud Worker",
}
FOR_ALL = "Standard Streaming Type Debug S3"
_HEEDED_ONES = {  # where it is not so for the whole class
    "dry_run job_name pickle_library max_cache_memory_usage_mb default_sdk_harness_log_level "
    "sdk_harness_log_level_overrides element_processing_timeout_minutes": " ".join(HEEDED),
    "resource_hint resource_hints dataflow_job_file number_of_worker_harness_threads": "dataflow",
    "sdk_container_image": "prism flink dataflow",
    "job_port": "prism flink",
    "no_wait_until_finish output_executable_path prism_beam_version_override": "",
}
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


@contextlib.contextmanager
def outside_notebooks() -> Iterator[None]:
    """While inside, Beam builds and runs a job in a notebook as it does elsewhere.

    In one it would import what lets people explore a pipeline, which fails beside pandas 3 (Beam
    2.77). A job of ours is not there to be explored.
    """
    from apache_beam import pipeline
    from apache_beam.runners.direct import direct_runner
    from apache_beam.utils import interactive_utils

    asking = (pipeline, direct_runner, interactive_utils)
    before = [module.is_in_ipython for module in asking]
    try:
        for module in asking:
            module.is_in_ipython = lambda: False
        yield
    finally:
        for module, function in zip(asking, before, strict=True):
            module.is_in_ipython = function


def _worth_saying(record: logging.LogRecord) -> bool:
    # The model manager of RunInference, and BigQuery.
    return not str(record.msg).startswith(("Resource module is not", "apitools not found"))


def check_beam_options(words: Sequence[str], *, own: Sequence[str] = ()) -> None:
    """Raise UsageError for words that are no option of Beam (a typo must not be ignored)."""
    runner = (runner_word(words) or "").lower()
    parser = _beam_parser(takes_flink=runner.startswith(("flink", "portable")))
    _, unknown = parser.parse_known_args(list(words))
    if not unknown:
        return
    known = [*own, *(text for action in parser._actions for text in action.option_strings)]
    close = difflib.get_close_matches(unknown[0].split("=")[0], known, n=1)
    advice = "name every INPUT before the first option"
    if unknown[0].startswith("-"):
        advice = "see --help, and Beam's pipeline options"
    raise UsageError(
        "unknown option or argument",
        got=" ".join(unknown),
        expected="an option of this command or of Beam",
        todo=f"did you mean {close[0]}?" if close else advice,
    )


def check_heeded(words: Sequence[str], kind: str) -> None:
    """Raise UsageError for an option that a job of ours on a runner of that kind (local, prism,
    flink, dataflow) would ignore in silence."""
    if not words or kind not in HEEDED:
        return
    actions = _beam_parser(takes_flink=False)._option_string_actions
    for option, value in named_words(words):
        owner = getattr(actions.get(option), "owner", "StandardOptions").removesuffix("Options")
        kinds = [one for one, its in HEEDED.items() if owner in f"{its} {FOR_ALL}".split()]
        ones = (its.split() for names, its in _HEEDED_ONES.items() if option[2:] in names.split())
        heeded = next(ones, kinds)
        if kind not in heeded:
            its = [f"{one.replace('local', 'direct').title()}Runner" for one in heeded]
            raise UsageError(
                f"{option} does nothing here",
                got=f"{option} {value} for --runner {runner_word(words) or 'DirectRunner'}",
                expected=f"it is for {', '.join(its) or 'no job of Framebank'}",
                todo="leave it out",
            )


def read_dry_run(value: object) -> bool:
    """Return what --dry_run is given: Beam takes any text for yes, "false" too."""
    if str(value).lower() not in ("true", "false"):
        raise UsageError("--dry_run is not right", got=value, expected="true or false")
    return str(value).lower() == "true"


def runner_word(words: Sequence[str]) -> str | None:
    """Return what --runner is given among the words; the last counts, None where it is not there.

    Found without Beam, so that a run that needs no engine need not import one.
    """
    return dict(named_words(words)).get("--runner") or None


def named_words(words: Sequence[str]) -> Iterator[tuple[str, str]]:
    """Yield (option, value) of `--option value` and `--option=value`; "" where none follows."""
    for word, after in zip(words, [*words[1:], "--"], strict=False):
        if word.startswith("--"):
            option, equals, value = word.partition("=")
            follows = "" if after.startswith("--") else after
            yield option, value if equals else follows


def build_options(words: Sequence[str], *, runner: str) -> PipelineOptions:
    """Return Beam's options for the runner of that name, LOCAL_RUNNER for one in this process."""
    from apache_beam.options.pipeline_options import PipelineOptions, StandardOptions

    options = PipelineOptions(list(words), pipeline_type_check=True)
    options.view_as(StandardOptions).runner = runner
    return options


class WorkerError(Exception):
    """A FramebankError on its way from a worker to the client, as text."""


def mark_for_client(error: FramebankError) -> WorkerError:
    """Wrap an error so that the client can show just its message (`running.Job`)."""
    fields = {
        "kind": type(error).__name__,
        "what": error.what,
        "got": None if error.got is None else str(error.got),
        "expected": None if error.expected is None else str(error.expected),
        "todo": error.todo,
    }
    packed = base64.b64encode(json.dumps(fields).encode()).decode()
    return WorkerError(f"<framebank-error>{packed}</framebank-error>")


def find_marked(text: str) -> FramebankError | None:
    """Return the error of ours that a text of a worker holds, None where there is none."""
    match = _MARK.search(text)
    if match is None:
        return None
    fields: dict[str, Any] = json_text.parse(base64.b64decode(match.group(1)))
    kind = getattr(errors, fields.pop("kind"), JobError)
    what = fields.pop("what")
    return (kind if issubclass(kind, FramebankError) else JobError)(what, **fields)


def _beam_parser(*, takes_flink: bool) -> argparse.ArgumentParser:
    """Return a parser that knows every option of every class of Beam's options."""
    from apache_beam.options import pipeline_options

    class Parser(pipeline_options._BeamArgumentParser):  # type: ignore[misc]
        def error(self, message: str) -> NoReturn:
            raise UsageError(f"an option of Beam is not right: {message}") from None

    parser = Parser(allow_abbrev=False, add_help=False)
    take_options_once(parser)
    for options in pipeline_options.PipelineOptions.__subclasses__():
        known = len(parser._actions)
        options._add_argparse_args(parser)
        for action in parser._actions[known:]:
            action.owner = options.__name__
    for name in _FLINK_OPTIONS.split() if takes_flink else ():
        with contextlib.suppress(argparse.ArgumentError):  # Beam has come to know it
            parser.add_argument(f"--{name}", nargs="?")
    return parser
