import argparse
import importlib
import shlex
from collections.abc import Iterator
from pathlib import Path

import pytest

import framebank
from framebank import cli
from framebank.features.bounds import exact_size, parse_size
from framebank.features.commands.command_line import PATHS, CommandParser
from framebank.features.errors import UsageError
from framebank.pipelines.jobs.beam_options import check_beam_options

# Options and arguments that take any text and are no path.
TEXTS = {
    *("sample", "clip_sample", "layer", "start", "accelerator", "question", "choices"),
    *("image", "where", "sort", "mlflow", "name", "host"),
    *("worker_image", "version", "video_id", "group_by"),
}


def parsers() -> Iterator[CommandParser]:
    """Yield the parser of each command, and those below them."""
    for name, command in cli.COMMANDS.items():
        parser = CommandParser(prog=name, allow_abbrev=False)
        importlib.import_module(command.module).add_arguments(parser)
        pending: list[argparse.ArgumentParser] = [parser]
        while pending:
            each = pending.pop()
            assert isinstance(each, CommandParser)
            yield each
            for action in each._actions:
                if isinstance(action, argparse._SubParsersAction):
                    pending += action.choices.values()


def test_every_option_that_takes_text_is_known_as_a_path_or_as_none() -> None:
    for parser in parsers():
        for action in parser._actions:
            if action.nargs != 0 and action.type is None and action.choices is None:
                assert (action.dest in PATHS) or (action.dest in TEXTS), (parser.prog, action.dest)


def test_help_shows_every_default() -> None:
    for parser in parsers():
        told = " ".join(parser.format_help().split())
        for action in parser._actions:
            default = action.default
            if action.nargs != 0 and default not in (None, argparse.SUPPRESS, [], ""):
                text = exact_size(default) if action.type is parse_size else str(default)
                assert f"default {text})" in told, action
        assert parser.format_help().count("(default") == told.count("(default")  # not one twice


def test_no_option_takes_a_number_that_is_nan_or_infinite() -> None:
    actions = [(each, one) for each in parsers() for one in each._actions if one.type is float]
    assert len({action.dest for _, action in actions}) > 9
    for parser, action in actions:
        assert parser._get_value(action, "0.5") == 0.5
        for text in ("nan", "inf", "-Infinity", "1e999"):
            with pytest.raises(argparse.ArgumentError, match="no number that can be used"):
                parser._get_value(action, text)


def small() -> CommandParser:
    parser = CommandParser(prog="framebank small")
    parser.add_argument("inputs", nargs="*")
    parser.add_argument("--sample", default="fps=1", help="of frames")
    parser.add_argument("--epochs", type=int)
    parser.add_argument("--out")
    parser.add_argument("--question")
    parser.add_argument("--questions", nargs="+", action="extend")
    parser.add_argument("--choice", action="append", dest="choices")
    parser.add_argument("--json", action="store_true")
    return parser


@pytest.mark.parametrize(
    ("words", "both"),
    [
        ("--sample fps=1 --sample fps=2", ("--sample", "fps=1", "fps=2")),
        ("--sample=fps=2 --sample fps=1", ("--sample", "fps=1", "fps=2")),
        ("--epochs 3 --json --epochs 4", ("--epochs", "3", "4")),
    ],
)
def test_an_option_with_two_values_is_refused_with_both(
    words: str, both: tuple[str, ...], capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as ended:
        small().parse_args(words.split())
    said = capsys.readouterr().err
    assert ended.value.code == 2
    assert all(part in said for part in both) and said.count("\n") == 2


def test_what_collects_values_goes_on_to_and_one_value_twice_is_one() -> None:
    parser = small()
    words = "--questions a --questions b c --choice x --choice y --json --json --sample all"
    args = parser.parse_args([*words.split(), "--sample=all"])
    assert (args.questions, args.choices, args.sample) == (["a", "b", "c"], ["x", "y"], "all")
    assert parser.parse_args(["--sample", "fps=9"]).sample == "fps=9"  # a parser may read again


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ("inspct", "no such command: 'inspct' (did you mean inspect?)"),
        ("models lst", "invalid choice: 'lst' (did you mean list?) (one of list, "),
        ("inspect c --quarantine", "does not take --quarantine (did you mean --quarantined?)"),
        ("models list --registry r --jsn", "does not take --jsn (did you mean --json?)"),
        ("train --modle m --cache c", "--model; --modle is not known (did you mean --model?)"),
        ("train --lr-schedule cosin", "'cosin' (did you mean cosine?) (one of constant, cosine"),
    ],
)
def test_what_is_mistyped_is_told_with_what_is_near(
    words: str, said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    try:
        assert framebank.main(words.split()) == 2
    except SystemExit as ended:
        assert ended.code == 2
    assert said in capsys.readouterr().err


def test_an_option_of_beam_with_two_values_is_refused_with_both() -> None:
    with pytest.raises(UsageError, match=r"--job_name.*one.*two"):
        check_beam_options(shlex.split("--job_name one --job_name=two"))
    check_beam_options(shlex.split("--experiments one --experiments=two --job_name x"))


def test_a_path_with_a_tilde_is_in_the_home_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    words = ["~/clips/*.mp4", "gs://b/~/x", "~", "--out=~/x", "--questions", "a", "~/q.csv"]
    args, rest = small().parse_known_args([*words, "--question=~/x?", "--prism_location=~/prism"])
    assert args.inputs == [f"{tmp_path}/clips/*.mp4", "gs://b/~/x", str(tmp_path)]
    assert (args.out, args.questions) == (f"{tmp_path}/x", ["a", f"{tmp_path}/q.csv"])
    assert args.question == "~/x?"
    assert rest == [f"--prism_location={tmp_path}/prism"]


def test_a_cache_is_made_in_the_home_folder_and_not_in_one_called_tilde(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.chdir(tmp_path)
    out = ["template", "build", "--image", "registry.io/a/b:1", "--out=~/x"]
    assert framebank.main(out) == 0
    assert (tmp_path / "home/x/extract/template.json").is_file()
    assert [path.name for path in tmp_path.iterdir()] == ["home"]
    assert str(tmp_path / "home/x") in capsys.readouterr().out


def test_sizes_are_given_in_bytes_or_with_a_unit() -> None:
    told = {"0": 0, "1000": 1000, "1KiB": 1024, "50 GiB": 50 * 2**30, "1.5 mib": 1572864}
    assert {text: parse_size(text) for text in told} == told
    assert [exact_size(size) for size in (0, 1000, 1536, 2**28)] == [
        *("0 bytes", "1000 bytes", "1536 bytes", "256 MiB"),
    ]
    assert (
        cli.command_parser("train")
        .parse_args(["--cache=c", "--questions=q", "--model=m", "--memory-bytes", "1GiB"])
        .memory_bytes
        == 2**30
    )
    for text in ("", "-1", "1.5", "1 MB", "nan", "1e9", "GiB"):
        with pytest.raises(argparse.ArgumentTypeError, match="is no size"):
            parse_size(text)
