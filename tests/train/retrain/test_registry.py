"""registry, retraining.py and models_command.py without training: two at
once, kills at any moment, and what is left after them, on a disk and in a bucket.
"""

from __future__ import annotations

import contextlib
import json
import os
import random
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import framebank
from framebank.features.errors import CacheError, UsageError
from framebank.features.processes import this_process
from framebank.features.stores import storage
from framebank.train.retrain.registry import Registry, new_version
from tests.made import forked
from tests.made.made_cache import SPEC
from tests.made.made_model import make_model, spoil_weights
from tests.made.made_questions import make_direction_cache, write_jsonl
from tests.servers.bucket_servers import environment, serve

KILLS = 20
MODEL_FILES = ("model.keras", "vocabulary.json", "lineage.json", "metrics.json", "history.jsonl")


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("made")
    make_model(folder / "model", SPEC, width=24)
    rows = make_direction_cache(str(folder / "cache"), pairs=20)
    for row in rows:
        del row["split"]
    write_jsonl(folder / "q.jsonl", rows)
    return folder


@pytest.fixture(params=["local", "fake-gcs-server"])
def place(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    if request.param == "local":
        yield str(tmp_path / "registry")
        return
    with contextlib.ExitStack() as held:
        server = held.enter_context(serve(request.param, tmp_path))
        held.enter_context(environment(**server.environment))
        yield storage.join(server.bucket, "registry")


class Retrains:
    """Starts retrainings of one registry, each after another change to the question file."""

    def __init__(self, registry: str, made: Path, folder: Path) -> None:
        self.registry = Registry(registry)
        self._made, self._folder, self._rows = made, folder, (made / "q.jsonl").read_text()
        self._changes = 0
        self._config = folder / "retrain.toml"
        self._config.write_text(
            f'registry = "{registry}"\ncache = "{made}/cache"\nquestions = ["{folder}/q.jsonl"]\n'
        )
        self.change()

    def change(self) -> None:
        self._changes += 1
        row = {"video_id": "000-loading.mp4", "question": f"{self._changes}?", "answer": "yes"}
        self._folder.joinpath("q.jsonl").write_text(self._rows + json.dumps(row) + "\n")

    def start(self, *words: str, wait_s: float = 0.0) -> forked.Forked:
        told = [self._config, self._made / "model", wait_s, *words]
        environment = os.environ | {"TMPDIR": str(self._folder)}
        return forked.start("-m", "tests.made.retrain_driver", *told, env=environment)

    def run(self, *words: str) -> str:
        said, log = (process := self.start(*words)).communicate(timeout=60)
        assert process.returncode == 0, log
        return log + said


def models(registry: Registry, *words: str) -> int:
    action, *rest = words
    return framebank.main(["models", action, "--registry", registry.path, *rest])


def check_usable(registry: Registry) -> str:
    """Fail unless the version in use is there whole; return its name."""
    version = registry.current().version
    assert version is not None
    for name in ("model.keras", "vocabulary.json", "lineage.json"):
        data = storage.read_bytes(storage.join(registry.folder(version), name))
        assert len(data) == storage.find(storage.join(registry.folder(version), name)).size_bytes
    return version


def test_promoted_kept_aside_nothing_new(
    place: str, made: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    retrains = Retrains(place, made, tmp_path)
    registry = retrains.registry
    assert "promoted" in retrains.run()
    first = check_usable(registry)
    assert f"nothing new: {first}, in use" in retrains.run()
    retrains.change()
    before = registry.history()
    assert framebank.main(["retrain", "--config", str(tmp_path / "retrain.toml"), "--dry-run"]) == 0
    assert capsys.readouterr().out == "something new: 1 question files of 1\n"
    assert registry.history() == before
    said = retrains.run("worse")
    assert "new: 1 question files of 1" in said and "kept aside" in said
    assert registry.current().version == first
    assert "not in use, was made from just this" in retrains.run()  # not every night again
    retrains.change()
    assert "promoted" in retrains.run()
    third = check_usable(registry)
    second = next(v for v in registry.versions() if v not in (first, third))
    assert models(registry, "list") == 0
    shown = capsys.readouterr().out
    assert f"* {third}" in shown and f"  {second}  kept aside" in shown
    assert models(registry, "rollback") == 0 and registry.current().version == first
    assert models(registry, "rollback") == 2 and "no version was in use" in capsys.readouterr().err
    assert "nothing new" in retrains.run()  # what was rolled back from does not come back
    assert models(registry, "promote", second) == 0 and registry.current().version == second
    assert models(registry, "rollback") == 0 and registry.current().version == first
    assert models(registry, "promote", "20260101-000000-000000") == 2
    assert models(registry, "show", second, "--json") == 0
    shown = capsys.readouterr().out.splitlines()[-1]
    events = [event["event"] for event in json.loads(shown)["events"]]
    assert events == ["kept aside", "promoted"]
    assert models(registry, "show", "current") == 0
    shown = capsys.readouterr().out
    assert "rolled back to: by hand" in shown and "made from" in shown
    numbers = [row["id"] for row in registry.history() if row["id"].startswith("move")]
    assert numbers == [f"move {number}" for number in range(1, 6)]


def test_of_two_at_once_one_wins_and_the_other_says_why(
    place: str, made: Path, tmp_path: Path
) -> None:
    retrains = Retrains(place, made, tmp_path)
    retrains.run()
    for _ in range(2 if storage.is_local(place) else 1):
        retrains.change()
        running = [retrains.start(wait_s=1.0) for _ in range(2)]
        said = sorted(process.communicate(timeout=60)[0] for process in running)
        assert [process.returncode for process in running] == [0, 0]
        winner = check_usable(retrains.registry)
        assert said[1].startswith(f"promoted {winner}")
        assert said[0].startswith("kept aside") and f"{winner} came into use" in said[0]
    events = [row["event"] for row in retrains.registry.history()]
    assert events.count("promoted") == events.count("kept aside") + 1


def test_two_in_one_work_folder(made: Path, tmp_path: Path) -> None:
    retrains = Retrains(str(tmp_path / "registry"), made, tmp_path)
    config = tmp_path / "retrain.toml"
    config.write_text(config.read_text() + f'work = "{tmp_path}/work"\n')
    running = [retrains.start(wait_s=1.5) for _ in range(2)]
    logs = [process.communicate(timeout=60)[1] for process in running]
    assert sorted(process.returncode for process in running) == [0, 1]
    assert sum("another retraining is at work" in log for log in logs) == 1
    check_usable(retrains.registry)


def test_kills_leave_the_model_in_use_and_the_next_run_tidies_up(
    made: Path, tmp_path: Path
) -> None:
    retrains = Retrains(str(tmp_path / "registry"), made, tmp_path)
    retrains.run()
    retrains.change()
    started = time.monotonic()
    retrains.run()
    takes_s = time.monotonic() - started
    dice, ended = random.Random(5), 0
    for _ in range(KILLS):
        retrains.change()
        process = retrains.start()
        try:
            # Most of them while something is written, which is near the end.
            process.wait(timeout=takes_s * dice.uniform(0.3, 1.15))
            ended += 1
        except subprocess.TimeoutExpired:
            process.kill()
        process.communicate()
        check_usable(retrains.registry)
    assert ended < KILLS
    for version, names in retrains.registry.files().items():
        if "maker.json" not in names:  # such a one is left alone for a minute: it is over now
            older = f"20260101-000000{version[15:]}"
            os.rename(tmp_path / "registry/models" / version, tmp_path / "registry/models" / older)
    retrains.change()
    assert "promoted" in retrains.run()
    registry = retrains.registry
    check_usable(registry)
    assert set(registry.versions()) == set(registry.files())
    told = [row["version"] for row in registry.history()]
    assert set(told) == set(registry.versions()) and len(told) == len(set(told))
    left = [str(path) for path in tmp_path.rglob("*") if storage.is_leftover(path.name)]
    assert not left and not list(tmp_path.glob("framebank-retrain-*"))


def test_what_a_living_process_writes_is_left_alone(place: str, tmp_path: Path) -> None:
    registry = Registry(place)
    ours, gone, elsewhere, old = new_version(), new_version(), new_version(), "20260101-000000-0"
    machine = this_process() | {"machine": "another one"}
    for version, maker in (
        (ours, this_process()),
        (gone, this_process() | {"started": "1"}),
        (elsewhere, machine),
        (old, machine),
    ):
        path = storage.join(registry.folder(version), "maker.json")
        storage.write_atomic(path, json.dumps(maker).encode())
        storage.write_atomic(storage.join(registry.folder(version), "model.keras"), b"half")
    assert sorted(registry.remove_leftovers()) == sorted([gone, old])
    assert sorted(registry.files()) == sorted([ours, elsewhere]) and not registry.versions()


@pytest.mark.parametrize("step", ["verdict", "pointer"])
def test_what_a_dead_run_decided_is_done_by_the_next(
    made: Path, tmp_path: Path, step: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    retrains = Retrains(str(tmp_path / "registry"), made, tmp_path)
    retrains.run()
    registry = retrains.registry
    first, before = registry.current(), registry.history()
    retrains.change()
    retrains.run()
    second = registry.current().version
    assert second is not None
    (tmp_path / "registry/history.jsonl").write_text(
        "".join(json.dumps(row) + "\n" for row in before)
    )
    if step == "verdict":
        fields = json.dumps(first.to_json())
        (tmp_path / "registry/current.json").write_text(fields)
    assert "nothing new" in retrains.run()
    assert registry.current().version == second and len(registry.history()) == 2


def test_damage_is_named(tmp_path: Path) -> None:
    registry = Registry(str(tmp_path))
    with pytest.raises(UsageError, match="not the name of a version"):
        registry.folder("../x")
    assert models(registry, "show", "current") == 2
    for name, read in (("current.json", registry.current), ("history.jsonl", registry.history)):
        whole: Any = read
        (tmp_path / name).write_text('{"half')
        with pytest.raises(CacheError, match=name):
            whole()
        assert models(registry, "list") == 1


@pytest.mark.parametrize(("name", "text"), [("verdict.json", "{}"), ("basis.json", '{"a": 1}')])
def test_a_damaged_version_is_named(made: Path, tmp_path: Path, name: str, text: str) -> None:
    retrains = Retrains(str(tmp_path / "registry"), made, tmp_path)
    retrains.run()
    registry = retrains.registry
    version = str(registry.current().version)
    Path(registry.folder(version), name).write_text(text)
    if name == "verdict.json":
        assert models(registry, "show", version) == 1
        return
    process = retrains.start()
    assert "basis.json is damaged" in process.communicate(timeout=60)[1]
    assert process.returncode == 1


def test_a_model_of_nan_is_not_promoted_by_hand_and_gives_way(
    made: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    retrains = Retrains(str(tmp_path / "registry"), made, tmp_path)
    registry = retrains.registry
    retrains.run()
    first = check_usable(registry)
    retrains.change()
    retrains.run()
    second = check_usable(registry)
    spoil_weights(Path(registry.folder(first)))
    for words in (("rollback",), ("promote", first)):
        assert models(registry, *words) == 1
        assert "weights that are not finite" in capsys.readouterr().err
    assert registry.current().version == second
    spoil_weights(Path(registry.folder(second)))
    retrains.change()
    said = retrains.run()
    assert "WARNING" in said and "the new model is compared with none" in said
    assert check_usable(registry) not in (first, second)


def test_a_registry_that_cannot_be_written_is_told_before_the_training(
    made: Path, tmp_path: Path
) -> None:
    process = Retrains("/proc/registry", made, tmp_path).start(wait_s=50)
    assert "cannot write /proc/registry" in process.communicate(timeout=40)[1]
    assert process.returncode == 1


def test_a_model_in_use_that_is_not_whole_stops_a_retraining_before_it_trains(
    made: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    retrains = Retrains(str(tmp_path / "registry"), made, tmp_path)
    retrains.run()
    first = check_usable(retrains.registry)
    config = ["retrain", "--config", str(tmp_path / "retrain.toml")]
    seen = tmp_path / "registry/models" / first / "seen.json.gz"
    data = seen.read_bytes()
    seen.unlink()
    for words in (config, ["models", "list", "--registry", str(tmp_path / "registry")]):
        assert framebank.main(words) == 1  # though nothing is new
        said = capsys.readouterr().err
        assert f"{first}, which is in use" in said and "no seen.json.gz" in said
    seen.write_bytes(data)

    (tmp_path / "registry/current.json").unlink()
    assert framebank.main(config) == 1
    said = capsys.readouterr().err
    assert "its history tells of one" in said and f"promoted {first}" in said
    assert models(retrains.registry, "promote", first) == 0
    assert framebank.main(config) == 0
    assert [row["id"] for row in retrains.registry.history()] == ["move 1", "move 2"]
