"""MLflow's own client and loader, and Weights & Biases' own reader, show a run that was tracked."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import framebank
from framebank.features.cache.reader import open_cache
from framebank.features.stores import json_text
from framebank.train.retrain.registry import Registry
from framebank.train.tracking.trackers import TRACKED
from tests.made.made_questions import QUESTION, make_direction_cache, write_jsonl
from tests.train.finetune.test_finetune import pictures, words

pytest.importorskip("mlflow", reason="MLflow is not installed (the extra `mlflow`)")
pytest.importorskip("wandb", reason="Weights & Biases is not installed (the extra `wandb`)")


@pytest.fixture(scope="module")
def tracked(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A folder in which a training was told to both, to files of theirs beside it."""
    folder = tmp_path_factory.mktemp("tracked")
    write_jsonl(folder / "q.jsonl", make_direction_cache(str(folder / "cache"), pairs=10))
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)  # where MLflow keeps artifacts of a database
        patch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{folder}/mlflow.db")
        patch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
        patch.setenv("WANDB_MODE", "offline")
        for name in ("WANDB_DIR", "WANDB_DATA_DIR", "WANDB_CACHE_DIR", "WANDB_CONFIG_DIR"):
            patch.setenv(name, str(folder))
        assert train(folder, "--track", "mlflow", "--track", "wandb") == 0
        yield folder


def train(folder: Path, *words: str) -> int:
    given = ["train", "--cache", str(folder / "cache"), "--questions", str(folder / "q.jsonl")]
    small = ["--epochs", "2", "--projection", "8", "--frame-units", "8", "--dense-units", "8"]
    plain = ["--no-baselines", "--model-kind", "lstm"]
    return framebank.main([*given, "--model", str(folder / "model"), *small, *plain, *words])


def test_mlflows_client_shows_the_run_and_its_loader_the_model(tracked: Path) -> None:
    import mlflow
    import pandas

    client = mlflow.MlflowClient()
    ids = [client.get_experiment_by_name("framebank").experiment_id]
    (run,) = client.search_runs(ids, filter_string="tags.`framebank.backbone` = 'inception_v3'")
    metrics = json_text.read_object(str(tracked / "model" / "metrics.json"))
    assert (run.info.status, run.info.run_name) == ("FINISHED", "model")
    assert run.data.metrics["accuracy"] == metrics["accuracy"]
    majority = metrics["baselines"]["majority"]["accuracy"]
    assert run.data.metrics["baselines/majority/accuracy"] == majority
    history = client.get_metric_history(run.info.run_id, "lstm/val_loss")
    rows = [json.loads(line) for line in (tracked / "model/history.jsonl").open()]
    assert [(one.step, one.value) for one in history] == [(r["epoch"], r["val_loss"]) for r in rows]
    assert run.data.params["config.train.epochs"] == "2"
    made = json_text.read_object(str(tracked / "model" / "lineage.json"))
    told = {name: run.data.tags[f"framebank.{name}"] for name in ("fingerprint", "cache", "runs")}
    assert told == {"fingerprint": made["fingerprint"], "cache": made["cache"],
                    "runs": ", ".join(made["runs"])}  # fmt: skip
    assert run.data.tags["framebank.questions_sha256"] == made["questions_sha256"]
    model = mlflow.pyfunc.load_model(f"runs:/{run.info.run_id}/model")
    clip = open_cache(str(tracked / "cache"))["000-loading.mp4"].features
    table = pandas.DataFrame({"features": [clip, clip[:2]], "question": [QUESTION, QUESTION]})
    said = model.predict(table, params={"top": 1})
    assert set(said["answer"]) <= {"loading", "unloading"} and len(said["answers"][0]) == 1
    assert said["probability"][0] == pytest.approx(model.predict(table[:1])["probability"][0])


def test_wandbs_own_reader_shows_the_run(tracked: Path) -> None:
    from wandb.util import get_core_path

    (path,) = (tracked / "wandb").glob("offline-run-*/run-*.wandb")
    run = json_text.read_object(str(tracked / "model" / TRACKED))["wandb"]["run"]
    read = [get_core_path(), "leet", "inspect", "--json", "--no-observability", "--run-file"]

    def told(*more: str) -> str:
        words = [*read, str(path), *more]
        return subprocess.run(words, capture_output=True, text=True, check=True).stdout

    whole = json.loads(told("--summary"))
    metrics = json_text.read_object(str(tracked / "model" / "metrics.json"))
    assert (whole["run_id"], whole["state"], whole["exit_code"]) == (run, "finished", 0)
    assert whole["summary"]["accuracy"] == pytest.approx(metrics["accuracy"])
    assert whole["config"]["config"]["train"]["epochs"] == 2
    made = json_text.read_object(str(tracked / "model" / "lineage.json"))
    assert whole["config"]["lineage"]["fingerprint"] == made["fingerprint"]
    records: list[dict[str, Any]] = [json.loads(line) for line in told().splitlines()]
    items = [one["history"]["item"] for one in records if one["type"] == "history"]
    assert [item["lstm/epoch"] for item in items] == [1, 2]
    (artifact,) = [one["artifact"] for one in records if one["type"] == "artifact"]
    assert "model.keras" in json.dumps(artifact) and "lineage.json" in json.dumps(artifact)


def test_mlflows_client_shows_what_was_judged(tracked: Path) -> None:
    import mlflow

    given = ["--cache", str(tracked / "cache"), "--questions", str(tracked / "q.jsonl")]
    plain = ["evaluate", "--model", str(tracked / "model"), *given, "--no-baselines"]
    assert framebank.main([*plain, "--out", str(tracked / "judged"), "--track", "mlflow"]) == 0
    run = run_named("judged")
    found = json_text.read_object(str(tracked / "judged" / "evaluation.json"))
    assert run.data.metrics["accuracy"] == pytest.approx(found["accuracy"])
    files = mlflow.MlflowClient().list_artifacts(run.info.run_id, "evaluation")
    assert "evaluation/evaluation.json" in [file.path for file in files]


def test_mlflows_client_shows_what_became_of_a_retraining(tracked: Path) -> None:
    import mlflow

    config = tracked / "retrain.toml"
    config.write_text(
        'registry = "retrained"\ncache = "cache"\nquestions = ["q.jsonl"]\n'
        "[held]\nshare = 0.3\nleast = 2\n[train]\nepochs = 1\n"
        '[model]\nkind = "lstm"\nprojection = 8\nframe_units = 8\ndense_units = 8\n'
    )
    assert framebank.main(["retrain", "--config", str(config), "--track", "mlflow"]) == 0
    (event,) = Registry(str(tracked / "retrained")).history()
    client = mlflow.MlflowClient()
    ids = [client.get_experiment_by_name("framebank").experiment_id]
    of_this = f"tags.`framebank.version` = '{event['version']}'"
    (run,) = client.search_runs(ids, filter_string=of_this)
    assert run.data.tags["framebank.event"] == event["event"]
    assert run.data.metrics["held/held_videos"] == 8 and run.info.status == "FINISHED"


def test_mlflows_client_shows_what_was_fine_tuned(tracked: Path) -> None:
    pytest.importorskip("apache_beam")
    pictures(tracked / "pictures", 24)
    for _ in range(2):  # the second time it is there already
        assert framebank.main([*words(tracked), "--track", "mlflow"]) == 0
        run = run_named("w.weights.h5")
        figures = json.loads((tracked / "w.json").read_text())
        told = run.data.metrics["accuracy/fine_tuned/train"]
        assert told == pytest.approx(figures["accuracy"]["fine_tuned"]["train"])
        assert run.data.tags["framebank.weights_sha256"] == figures["weights_sha256"]


def run_named(name: str) -> Any:
    """Return the latest run of that name."""
    import mlflow

    client = mlflow.MlflowClient()
    ids = [client.get_experiment_by_name("framebank").experiment_id]
    return client.search_runs(ids, filter_string=f"attributes.run_name = '{name}'")[0]


def test_what_a_server_did_not_get_it_gets_by_the_same_command(
    tracked: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tracked / "model" / TRACKED).unlink()
    with monkeypatch.context() as gone:
        gone.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:9")
        assert train(tracked, "--track", "mlflow") == 0
    said = capsys.readouterr().err
    assert "the run goes on" in said and "mlflow does not have all of this run" in said
    assert train(tracked, "--track", "mlflow") == 0
    assert "mlflow has this run" in capsys.readouterr().err
    assert train(tracked, "--track", "mlflow") == 0
    assert "mlflow knows this model" in capsys.readouterr().err


def test_a_version_of_a_registry_is_published_to_mlflows(
    tracked: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    import mlflow

    registry = Registry(str(tracked / "registry"))
    verdict = {"better": True, "reason": "r", "against_number": 0, "figures": {"accuracy": 0.5}}
    registry.publish("v1", tracked / "model", verdict)
    registry.settle("v1")
    uri = os.environ["MLFLOW_TRACKING_URI"]
    words = ["models", "publish", "--registry", registry.path, "--mlflow", uri, "--name", "ways"]
    for number in ("1", "2"):
        assert framebank.main([*words, "--json"]) == 0
        made = json.loads(capsys.readouterr().out)
        assert (made["version"], made["number"]) == ("v1", number)
    version = mlflow.MlflowClient().get_model_version("ways", "2")
    assert (
        version.run_id == json_text.read_object(str(tracked / "model" / TRACKED))["mlflow"]["run"]
    )
    assert version.tags["framebank.version"] == "v1"
    model = mlflow.pyfunc.load_model("models:/ways/2")
    clip = open_cache(str(tracked / "cache"))["000-loading.mp4"].features
    row = {"features": clip.tolist(), "question": QUESTION}
    assert model.predict([row])["answer"][0] in ("loading", "unloading")
    assert framebank.main([*words[:-1], "a/../b", "--json"]) == 1
    assert "did not take the model" in capsys.readouterr().err
