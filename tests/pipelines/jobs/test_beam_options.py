"""Beam's options: typos are refused, Flink's own pass; errors of ours come back as they were."""

from __future__ import annotations

import pytest

from framebank.features.errors import CacheError, JobError, UsageError
from framebank.pipelines.jobs import beam_options
from framebank.pipelines.runners import running


def test_a_typo_is_told_with_what_was_meant() -> None:
    beam_options.check_beam_options(["--runner=PrismRunner", "--prism_location=x"])
    with pytest.raises(UsageError, match="did you mean --prism_location"):
        beam_options.check_beam_options(["--prism_locatoin=x"])
    with pytest.raises(UsageError, match="before the first option"):
        beam_options.check_beam_options(["--runner=DirectRunner", "stray"])


def test_options_of_the_job_server_are_flinks_alone() -> None:
    words = ["--execution_mode_for_batch=PIPELINED", "--object_reuse"]
    for runner in ("FlinkRunner", "flink", "PortableRunner"):
        beam_options.check_beam_options(["--runner", runner, *words])
    for runner in ("PrismRunner", "DirectRunner", "DataflowRunner"):
        with pytest.raises(UsageError, match="execution_mode_for_batch"):
            beam_options.check_beam_options(["--runner", runner, *words])


@pytest.mark.parametrize(
    ("kind", "option", "its"),
    [
        ("local", "--num_workers=4", "DataflowRunner"),
        ("local", "--setup_file=setup.py", "PrismRunner, FlinkRunner, DataflowRunner"),
        ("local", "--environment_type=DOCKER", "PrismRunner, FlinkRunner"),
        ("prism", "--parallelism=4", "FlinkRunner"),
        ("prism", "--template_location=gs://a/b", "DataflowRunner"),
        ("prism", "--artifacts_dir=a", "FlinkRunner"),
        ("prism", "--prism_beam_version_override=v2", "no job of Framebank"),
        ("flink", "--direct_num_workers=2", "DirectRunner"),
        ("flink", "--resource_hints=min_ram=4GB", "DataflowRunner"),
        ("flink", "--output_executable_path=a.jar", "no job of Framebank"),
        ("dataflow", "--job_endpoint=localhost:1", "PrismRunner, FlinkRunner"),
        ("dataflow", "--on_success_matcher=x", "no job of Framebank"),
        ("dataflow", "--wait_until_finish_duration=9", "no job of Framebank"),
    ],
)
def test_what_a_runner_would_pass_over_is_refused(kind: str, option: str, its: str) -> None:
    with pytest.raises(UsageError) as caught:
        beam_options.check_heeded(["--job_name=x", option], kind)
    assert str(caught.value).splitlines()[0] == f"{option.split('=')[0]} does nothing here"
    assert caught.value.expected == f"it is for {its}"
    beam_options.check_heeded(["--runner=PrismRunner", "--job_port=8099"], "prism")
    for other in ("portable", "other"):  # what those heed is not ours to know
        beam_options.check_heeded([option], other)


def test_every_class_of_beams_options_is_known() -> None:
    from apache_beam.options.pipeline_options import PipelineOptions

    found = {options.__name__ for options in PipelineOptions.__subclasses__()}
    ours = " ".join([beam_options.FOR_ALL, *beam_options.HEEDED.values()]).split()
    none = "CrossLanguage Azure HadoopFileSystem KafkaStreamsRunner SparkRunner Test TestDataflow"
    assert {f"{name}Options" for name in [*ours, *none.split()]} == found


def test_the_last_runner_counts() -> None:
    assert beam_options.runner_word(["--runner", "a", "--x", "--runner=b"]) == "b"
    assert beam_options.runner_word(["--streaming", "--runner"]) is None


def test_an_error_comes_back_from_any_traceback() -> None:
    error = CacheError("shard x is damaged", got="3 rows", expected="4", todo="run verify")
    text = f"java.lang.RuntimeException: Traceback\n{beam_options.mark_for_client(error)} [while"
    told = beam_options.find_marked(text)
    assert isinstance(told, CacheError) and str(told) == str(error)
    assert beam_options.find_marked("Traceback: nothing of ours") is None


def test_the_gist_of_a_failure() -> None:
    python = 'Error: Traceback (most recent call last):\n  File "a.py"\n    f()\nValueError: no\n\n'
    assert running.gist(python + "\tat org.apache.Flink.run\n") == "ValueError: no"
    java = "RuntimeException: outer\n\tat a.b\nCaused by: java.io.IOException: refused\n\tat c.d\n"
    assert running.gist(java) == "java.io.IOException: refused"
    assert running.gist("one\n\ntwo\n") == "one; two"
    assert running.gist("") == ""


def test_an_unknown_kind_of_error_is_one_of_the_job() -> None:
    marked = str(beam_options.mark_for_client(UsageError("x")))
    assert isinstance(beam_options.find_marked(marked), UsageError)
    marked = str(beam_options.mark_for_client(type("Own", (JobError,), {})("x")))
    assert type(beam_options.find_marked(marked)) is JobError
