"""Fine-tuning: from pictures and labels to weights that an extraction takes, and after a stop."""

from __future__ import annotations

import json
import signal
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
from PIL import Image

from framebank import cli
from framebank.features.errors import UsageError
from framebank.features.extraction.one_clip import build_network, make_spec
from framebank.features.network.backbones import BACKBONES, named_layers
from framebank.features.network.weight_files import LINEAGE
from framebank.features.network.weights import resolve_weights
from framebank.features.spec import FeatureSpec, SpecChoice
from framebank.train.finetune.networks import Head, Tuned, first_trained, load_backbone, train_from
from tests.made import forked

ROW = BACKBONES["mobilenet_v2"]
START = "block_16_project"


def pictures(folder: Path, count: int) -> Path:
    """Write pictures of two classes, a folder each: stripes that stand, and stripes that lie."""
    rng = np.random.default_rng(0)
    for number in range(count):
        name = ("lying", "standing")[number % 2]
        wave = 128 + 100 * np.sin(np.arange(96) * rng.uniform(0.2, 0.8) + rng.uniform(0, 6))
        image = np.broadcast_to(wave[:, None, None], (96, 96, 3)) + rng.normal(0, 20, (96, 96, 3))
        image = image.transpose(1, 0, 2) if number % 2 else image
        (folder / name).mkdir(parents=True, exist_ok=True)
        path = folder / name / f"{number}.png"
        Image.fromarray(np.clip(image, 0, 255).astype(np.uint8)).save(path)
    return folder


def words(folder: Path, **more: Any) -> list[str]:
    given = {
        "labels": folder / "pictures", "out": folder / "w.weights.h5", "backbone": ROW.name,
        "weights": "random:0", "from": START, "sample": "uniform=1", "batch-size": 4,
        "head-epochs": 8, "epochs": 1, "val-share": 0.2, **more,
    }  # fmt: skip
    options = [f"--{name}={value}" for name, value in given.items()]
    return ["finetune", "--images", *options, str(folder / "pictures")]


# Stops by itself in its second part, as if somebody had told it to.
STOPPED = """
import signal, sys
from framebank import cli
from framebank.train.finetune import command
say = command._say
def tell(text):
    say(text)
    if text.startswith("the head alone"):
        signal.raise_signal(signal.SIGTERM)
command._say = tell
sys.exit(cli.main(sys.argv[1:]))
"""


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run that was stopped in its second part, and then went on to its end; in processes of their
    own: in one that has loaded all that tests load, a signal did not fit on the stack that some
    library had put there for signals, and the kernel ended it."""
    pytest.importorskip("apache_beam")
    folder = tmp_path_factory.mktemp("finetune")
    pictures(folder / "pictures", 24)
    work = folder / "w.weights.h5.work" / "checkpoints" / "tune"
    stopped = forked.run("-c", STOPPED, *words(folder))
    assert stopped.returncode == 128 + signal.SIGTERM, stopped.stderr
    assert work.exists() and not (folder / "w.weights.h5").exists()
    ended = forked.run("-m", "framebank", *words(folder))
    assert ended.returncode == 0, ended.stderr
    return folder


def test_weights_and_figures_are_there_and_the_work_is_not(made: Path) -> None:
    figures = json.loads((made / "w.json").read_text())
    assert set(figures["accuracy"]) == {"head", "fine_tuned"}
    assert figures["accuracy"]["fine_tuned"]["train"] >= figures["accuracy"]["head"]["train"]
    assert figures["classes"] == ["lying", "standing"] and sum(figures["videos"].values()) == 24
    assert sorted(path.name for path in made.iterdir()) == ["pictures", "w.json", "w.weights.h5"]
    assert cli.main(words(made)) == 0  # there already


def test_what_lies_before_is_as_it_was_and_so_are_the_statistics(made: Path) -> None:
    before, _ = load_backbone(ROW, ROW.layer, resolve_weights("random:0", backbone=ROW.name))
    tuned = resolve_weights(str(made / "w.weights.h5"), backbone=ROW.name)
    after, _ = load_backbone(ROW, ROW.layer, tuned)
    number, changed = first_trained(ROW, before, START), 0
    for place, (was, layer) in enumerate(zip(before.layers, after.layers, strict=True)):
        for old, new in zip(was.weights, layer.weights, strict=True):
            same = np.array_equal(old.numpy(), new.numpy())
            changed += not same
            assert same or (place >= number and "moving" not in old.name), (layer.name, old.name)
    assert changed


def test_they_extract_under_a_fingerprint_and_a_lineage_of_their_own(made: Path) -> None:
    choice = SpecChoice(backbone=ROW.name, weights=str(made / "w.weights.h5"))
    spec, weights = make_spec(choice)
    plain, _ = make_spec(SpecChoice(backbone=ROW.name, weights="random:0"))
    assert spec.fingerprint != plain.fingerprint and "lineage" not in plain.to_json()
    assert spec.lineage is not None and not spec.random_weights
    assert spec.lineage["weights"] == "random:0" and spec.lineage["trained_from"] == START
    assert FeatureSpec.from_json(json.loads(json.dumps(spec.to_json()))) == spec
    images = np.random.default_rng(1).integers(0, 256, (2, 224, 224, 3), dtype=np.uint8)
    features = build_network(spec, weights, batch_size=2)(images)
    assert np.isfinite(features).all() and features.shape == (2, 1280)


def test_words_in_a_file_that_are_none_of_ours_are_told(made: Path, tmp_path: Path) -> None:
    path = tmp_path / "w.weights.h5"
    path.write_bytes((made / "w.weights.h5").read_bytes())
    with h5py.File(path, "r+") as file:
        file.attrs[LINEAGE] = "[1, 2"
    with pytest.raises(UsageError, match="says of itself"):
        make_spec(SpecChoice(backbone=ROW.name, weights=str(path)))


def test_the_backbone_in_training_gives_what_the_frozen_one_gives() -> None:
    weights = resolve_weights("random:0", backbone=ROW.name)
    spec, _ = make_spec(SpecChoice(backbone=ROW.name, weights="random:0"))
    images = np.random.default_rng(2).integers(0, 256, (2, 224, 224, 3), dtype=np.uint8)
    frozen = build_network(spec, weights, batch_size=2)(images)
    _, model = load_backbone(ROW, ROW.layer, weights)
    given = images.reshape(1, 2, -1).astype(np.float32)
    for training in (False, True):  # statistics of two frames would give something else
        tuned = np.asarray(Tuned(model, ROW)(given, training=training))[0]
        np.testing.assert_allclose(tuned, frozen, atol=1e-4 * np.abs(frozen).max())


def test_the_head_is_of_the_sizes_named() -> None:
    head = Head(5)
    network = head.network(2048)
    assert network.count_params() == 2048 * 1024 + 1024 + 1024 * 5 + 5
    padded = np.zeros((1, 3, 2048), np.float32)
    padded[0, :2] = np.random.default_rng(0).random((2, 2048))
    said = np.asarray(network({"features": padded}))
    np.testing.assert_allclose(said, np.asarray(network({"features": padded[:, :2]})), rtol=1e-5)


def test_where_to_begin_is_found_by_name_or_number() -> None:
    row = BACKBONES["inception_v3"]
    whole = row.build()
    assert first_trained(row, whole, "172") == 172
    name = list(named_layers(whole))[172]
    assert first_trained(row, whole, name) == 172
    train_from(whole, 172)
    assert [layer.trainable for layer in whole.layers] == [n >= 172 for n in range(312)]
    for wanted, told in (("mixed99", "no such layer"), ("400", "nothing to train"),
                         ("-1", "no such layer"), ("avg_pool", "nothing to train")):  # fmt: skip
        with pytest.raises(UsageError, match=told):
            first_trained(row, whole, wanted)


@pytest.mark.parametrize(
    ("more", "told"),
    [
        ({"out": "w.h5"}, "no weight file"),
        ({"backbone": "c3d"}, "is not fine-tuned"),
        ({"backbone": "pixels"}, "is not fine-tuned"),
        ({"backbone": "resnet50", "from": ""}, "where in resnet50"),
        ({"labels": "nowhere.csv"}, "no such question file"),
        ({"epochs": 0}, "--epochs"),
    ],
)
def test_mistakes_are_told_before_any_work(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], more: dict[str, Any], told: str
) -> None:
    pictures(tmp_path / "pictures", 4)
    more = {name: tmp_path / value if name in ("out", "labels") else value
            for name, value in more.items()}  # fmt: skip
    assert cli.main(words(tmp_path, **more)) == 2
    assert told in capsys.readouterr().err
    assert sorted(path.name for path in tmp_path.iterdir()) == ["pictures"]
