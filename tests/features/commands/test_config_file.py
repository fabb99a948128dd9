"""Options from a file: the command line wins, and each mistake is told as there."""

from __future__ import annotations

from pathlib import Path

import pytest

import framebank
from framebank import cli
from framebank.features.errors import UsageError

TRAIN = """
cache = "gs://b/cache"
questions = ["q.csv", "/abs/r.csv"]
model = "~/model"
model-kind = "lstm"
epochs = 30
dropout = 0
no_baselines = true
overwrite = false
group_by = "^(.*)_c"
"""
EXTRACT = """
inputs = ["clips", "more/*.mp4"]
cache = "cache"
sample = "fps=2"
backbone = ["inception_v3", "nets/mine.keras", "own.onnx"]
weights = "mine=w/mine.h5"
[beam]
runner = "PrismRunner"
experiments = ["a", "b"]
"""


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("HOME", "/home/of/mine")
    (tmp_path / "own.onnx").touch()
    (tmp_path / "train.toml").write_text(TRAIN)
    (tmp_path / "extract.toml").write_text(EXTRACT)
    return tmp_path


def test_a_file_gives_options_and_the_command_line_wins(folder: Path) -> None:
    config = ["--config", str(folder / "train.toml")]
    args = cli.command_parser("train").parse_args(config)
    assert (args.cache, args.model, args.epochs) == ("gs://b/cache", "/home/of/mine/model", 30)
    assert args.questions == [f"{folder}/q.csv", "/abs/r.csv"]
    assert (args.model_kind, args.dropout, args.group_by) == ("lstm", 0.0, "^(.*)_c")
    assert args.no_baselines and not args.overwrite and args.patience == 15
    assert args.typed[:2] == ["framebank", "train"] and "--epochs=30" in args.typed
    words = [*config, "--epochs", "3", "--labels", "x.csv", "--overwrite", "--cache=c"]
    args = cli.command_parser("train").parse_args(words)
    assert (args.epochs, args.questions, args.overwrite) == (3, ["x.csv"], True)
    assert (args.cache, args.model_kind) == ("c", "lstm")


def test_arguments_networks_and_beams_options_are_given_too(folder: Path) -> None:
    config = ["--config", str(folder / "extract.toml")]
    args, rest = cli.command_parser("extract").parse_known_args(config)
    assert args.inputs == [f"{folder}/clips", f"{folder}/more/*.mp4"]
    nets = ["inception_v3", f"{folder}/nets/mine.keras", f"{folder}/own.onnx"]
    assert (args.backbone, args.weights) == (nets, f"mine={folder}/w/mine.h5")
    assert rest == ["--runner=PrismRunner", "--experiments=a", "--experiments=b"]
    words = [*config, "--weights", "imagenet", "--runner", "DirectRunner"]
    args, rest = cli.command_parser("extract").parse_known_args(words)
    assert (args.weights, args.sample) == ("imagenet", "fps=2")
    assert args.inputs == [f"{folder}/clips", f"{folder}/more/*.mp4"]
    assert rest == ["--experiments=a", "--experiments=b", "--runner", "DirectRunner"]
    args, _ = cli.command_parser("extract").parse_known_args(["here", *config])
    assert args.inputs == ["here"]


def test_of_two_arguments_one_may_be_typed(folder: Path) -> None:
    path = folder / "ask.toml"
    path.write_text('model = "m"\nquestion = "what is - that?"\nchoice = ["a", "b"]\n')
    args = cli.command_parser("ask").parse_args(["clip.mp4", "--config", str(path)])
    assert (args.video, args.question, args.choices) == ("clip.mp4", "what is - that?", ["a", "b"])


def test_an_option_that_takes_many_values_at_once(tmp_path: Path) -> None:
    path = tmp_path / "browse.toml"
    path.write_text('questions = ["q.csv", "r.csv"]\nno_open = true\n')
    args = cli.command_parser("browse").parse_args(["cache", "--config", str(path)])
    assert (args.cache, args.questions) == ("cache", [f"{tmp_path}/q.csv", f"{tmp_path}/r.csv"])
    words = ["cache", "--config", str(path), "--questions", "s.csv", "t.csv"]
    assert cli.command_parser("browse").parse_args(words).questions == ["s.csv", "t.csv"]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("epoch = 3", r"unknown key[\s\S]*epoch\b[\s\S]*did you mean epochs"),
        ("epochs = 1.5", r"epochs cannot be used[\s\S]*1\.5[\s\S]*a whole number"),
        ("epochs = true", r"epochs cannot be used[\s\S]*true[\s\S]*a whole number"),
        ('epochs = "many"', r"epochs cannot be used[\s\S]*'many'[\s\S]*a whole number"),
        ("dropout = nan", r"dropout[\s\S]*no number that can be used"),
        ('model_kind = "gru"', r"model_kind[\s\S]*did you mean bigru[\s\S]*one of auto"),
        ('no_baselines = "yes"', r"no_baselines[\s\S]*'yes'[\s\S]*true or false"),
        ("no_baselines = 1", r"no_baselines[\s\S]*true or false"),
        ('cache = ["a", "b"]', r"cache[\s\S]*one value, no list"),
        ("questions = []", r"questions[\s\S]*at least one value"),
        ('cache = ""', r"cache[\s\S]*a text"),
        ('labels = "a"\nquestions = "b"', "labels and questions are one option"),
        ('config = "x"', "unknown key"),
        ("[beam]\nx = 1", "unknown key[\\s\\S]*beam"),
        ("epochs = 1\nepochs = 2", "gives a key or a table twice"),
        ("epochs =", "is not valid TOML"),
    ],
)
def test_mistakes(tmp_path: Path, text: str, said: str) -> None:
    path = tmp_path / "train.toml"
    path.write_text(text)
    with pytest.raises(UsageError, match=said) as told:
        cli.command_parser("train").parse_args(["--config", str(path)])
    assert "train.toml" in str(told.value) and told.value.exit_status == 2


def test_what_a_file_lacks_is_asked_for(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "e.toml").write_text('cache = "c"\n')
    assert framebank.main(["inspect", "--config", str(tmp_path / "none.toml")]) == 2
    with pytest.raises(SystemExit):
        framebank.main(["extract", "--config", str(tmp_path / "e.toml")])
    said = capsys.readouterr().err
    assert "no such config" in said and "required: INPUT" in said
