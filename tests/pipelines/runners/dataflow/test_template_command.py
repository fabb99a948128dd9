"""`framebank template build`: nothing forgotten, patterns that hold, and the way back."""

from __future__ import annotations

import argparse
import importlib
import json
import re
from pathlib import Path
from typing import Any

import pytest

import framebank
from framebank.pipelines.runners.dataflow.flex_launcher import COMMANDS, build_command_line
from framebank.pipelines.runners.dataflow.template_command import build_metadata
from tests.pipelines.runners.dataflow.test_submission import CLOUD

LAUNCHER = "europe-docker.pkg.dev/project-1/images/launcher:0.1.0"
GOOD: dict[str, list[str]] = {
    "inputs": ["gs://b0b/clips", "gs://b0b/a*.mp4 gs://b0b/list.csv"],
    "cache": ["gs://b0b/cache", "gs://b0b"],
    "sample": ["fps=2", "fps=0.5", "uniform=8", "every=10", "all", "keyframes"],
    "backbone": ["inception_v3"],
    "layer": ["mixed10", "block5_pool/relu"],
    "weights": ["imagenet", "random:7", "gs://b0b/weights.h5"],
    "accelerator": ["nvidia-tesla-t4", "nvidia-l4:2"],
    "model": ["gs://b0b/model"],
    "questions": ["gs://b0b/q.jsonl", "gs://b0b/q.csv gs://b0b/r.json"],
    "mapping": ["gs://b0b/mapping.txt"],
    "out": ["gs://b0b/out"],
}
BAD: dict[str, list[str]] = {
    "inputs": ["", "clips", "/tmp/a.mp4", "gs://b0b/a /tmp/b"],
    "cache": ["cache", "s3://b0b/c", "gs://", "gs://B/c"],
    "sample": ["fps", "fps=", "fps=-1", "uniform=0", "uniform=2.5", "some"],
    "backbone": ["Inception V3", ""],
    "layer": ["a b", "$(x)"],
    "weights": ["/root/w.h5", "random", "random:x", "Imagenet"],
    "accelerator": ["t4", "nvidia-l4:0", "nvidia-l4;count:1"],
    "model": ["model", "gs://b"],
    "questions": ["q.jsonl", "gs://b0b/q.json q.csv"],
    "mapping": ["", "mapping.txt"],
    "out": ["", "out"],
}


def fits(parameter: dict[str, Any], value: str) -> bool:
    return all(re.fullmatch(pattern, value) for pattern in parameter["regexes"])


@pytest.mark.parametrize("command", COMMANDS)
def test_every_argument_is_a_described_parameter(command: str) -> None:
    parser = argparse.ArgumentParser()
    importlib.import_module(COMMANDS[command]).add_arguments(parser)
    wanted = {action.dest for action in parser._actions} - {"help", "json", "wait", "shared_disk"}
    parameters = build_metadata(command)["parameters"]
    assert {parameter["name"] for parameter in parameters} == wanted
    for parameter in parameters:
        assert parameter["label"] and len(parameter["helpText"]) > 4, parameter
        assert "%(" not in parameter["helpText"]
    required = {each["name"] for each in parameters if not each["isOptional"]}
    assert (
        required
        == {
            "extract": {"inputs", "cache"},
            "score": {"model", "cache", "questions", "out"},
        }[command]
    )


@pytest.mark.parametrize("command", COMMANDS)
def test_patterns_take_the_good_and_leave_the_bad(command: str) -> None:
    parser = argparse.ArgumentParser()
    importlib.import_module(COMMANDS[command]).add_arguments(parser)
    actions = {action.dest: action for action in parser._actions}
    for parameter in build_metadata(command)["parameters"]:
        name = parameter["name"]
        action = actions[name]
        if action.nargs == 0:
            good, bad = ["true", "false"], ["", "yes", "1"]
        elif action.choices is not None:
            good, bad = list(action.choices), ["", "other", f"{next(iter(action.choices))}x"]
        elif action.type in (int, float):
            good, bad = ["1", "64"], ["", "-1", "x", "1e9"]
        else:
            good, bad = GOOD[name], BAD[name]
        assert [value for value in good if not fits(parameter, value)] == [], name
        assert [value for value in bad if fits(parameter, value)] == [], name
        if action.default not in (None, False) and action.nargs != "+":
            assert fits(parameter, str(action.default)), name  # who repeats it is not refused


def test_build_writes_what_gcloud_would(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for command in COMMANDS:
        assert framebank.main([
            "template", "build", "--command", command, "--image", LAUNCHER, "--out", str(tmp_path),
            "--worker-image", "gcr.io/p/worker@sha256:" + 64 * "0",
        ]) == 0  # fmt: skip
        metadata = json.loads((tmp_path / command / "metadata.json").read_text())
        spec = json.loads((tmp_path / command / "template.json").read_text())
        assert spec == {
            "image": LAUNCHER,
            "metadata": metadata,
            "sdkInfo": {"language": "PYTHON"},
            "defaultEnvironment": {"sdkContainerImage": "gcr.io/p/worker@sha256:" + 64 * "0"},
        }
        assert metadata["streaming"] is False and metadata["name"].startswith("framebank ")
    assert "template.json" in capsys.readouterr().out


@pytest.mark.parametrize("image", ["launcher", "gcr.io/p/x", "gcr.io/P/x:1", "gcr.io/p/x:1 y"])
def test_an_image_without_a_tag_is_refused(
    image: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert framebank.main(["template", "build", "--image", image, "--out", str(tmp_path)]) == 2
    assert "no image" in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


def test_parameters_become_the_command_line() -> None:
    words = build_command_line([
        *CLOUD, "--runner=DataflowRunner", "--job_name=j", "--experiments=a", "--experiments=b",
        "--inputs=gs://b0b/a gs://b0b/b", "--cache=gs://b0b/c", "--allow_partial=true",
        "--images=false", "--max_frames=5", "--layer=", "--sample", "uniform=2",
    ])  # fmt: skip
    assert words[:3] == ["extract", "gs://b0b/a", "gs://b0b/b"]
    assert set(words[3:]) == {
        "--cache=gs://b0b/c", "--allow-partial", "--max-frames=5", "--sample=uniform=2", *CLOUD,
        "--runner=DataflowRunner", "--job_name=j", "--experiments=a", "--experiments=b",
    }  # fmt: skip
    scoring = {
        "model": "gs://b0b/m",
        "cache": "gs://b0b/c",
        "questions": "gs://b0b/q.csv gs://b0b/r.json",
    }
    words = build_command_line(
        [*(f"--{name}={value}" for name, value in scoring.items()), "--out=gs://b0b/o"]
    )
    at = words.index("--questions")
    assert words[at + 1 : at + 3] == ["gs://b0b/q.csv", "gs://b0b/r.json"]
    assert words[0] == "score" and words[-1] == "--runner=DataflowRunner"


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["--cache=gs://b0b/c"], "of no template"),
        (["--inputs=gs://b0b/a", "--cache=gs://b0b/c", "--images=yes"], "images is not right"),
        (["extract", "--cache=gs://b0b/c"], "no parameter"),
    ],
)
def test_a_launcher_refuses_in_one_message(
    words: list[str], told: str, capsys: pytest.CaptureFixture[str]
) -> None:
    from framebank.pipelines.runners.dataflow import flex_launcher

    assert flex_launcher.main(words) == 2
    assert told in capsys.readouterr().err


def test_the_launcher_calls_framebank(capsys: pytest.CaptureFixture[str]) -> None:
    from framebank.pipelines.runners.dataflow import flex_launcher

    words = ["--inputs=gs://b0b/a", "--cache=gs://b0b/c", "--no_auth", "--project=my-project-1"]
    assert flex_launcher.main(words) == 2
    assert "DataflowRunner needs --region" in capsys.readouterr().err
