"""Training on a cache of pixels: through the same loop, and only by what reads pictures."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest

import framebank as fb
from framebank.features.asking.trained_model import load_model
from framebank.features.cache import catalog, layout
from framebank.features.cache.reader import open_cache
from framebank.features.errors import UsageError
from framebank.features.pictures import Pictures, encode_picture
from tests.made.made_cache import SPEC, make_cache, make_extracted, make_shard

SIDE, FRAMES, CLIPS = 16, 4, 48
PIXELS = dataclasses.replace(
    SPEC, backbone=f"pixels:{SIDE}", layer="picture", weights="none", input_size=SIDE,
    preprocessing="none", dtype="png",
)  # fmt: skip


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A cache of clips in which a bar goes right or left, and their labels; no frame tells."""
    folder = tmp_path_factory.mktemp("pixels")
    videos, rows = [], ["video_id,label,split"]
    for number in range(CLIPS):
        dice = np.random.default_rng(number // 2)
        frames = dice.integers(0, 60, (FRAMES, SIDE, SIDE, 3), np.uint8)
        start = int(dice.integers(0, 4))
        for place, frame in enumerate(frames):
            frame[:, start + 3 * place : start + 3 * place + 2] = 220
        moves = frames if number % 2 else frames[::-1]
        kept = Pictures([encode_picture(frame, "png") for frame in moves], "png", SIDE)
        name = f"{number}.mp4"
        videos.append(dataclasses.replace(make_extracted(name, rows=FRAMES), features=kept))
        split = "test" if number >= 36 else "val" if number >= 28 else "train"
        rows.append(f"{name},{'right' if number % 2 else 'left'},{split}")
    cache = str(folder / "cache")
    layout.write_spec(cache, PIXELS)
    shard = make_shard(cache, "s", videos, run_id="20261121-0100", spec=PIXELS)
    catalog.write_catalog(cache, "20261121-0100", shard)
    (folder / "labels.csv").write_text("\n".join(rows) + "\n")
    return folder


def test_a_network_learns_from_pixels_what_moves_where(made: Path) -> None:
    kind = "cnn3d"
    cache, model = str(made / "cache"), str(made / kind)
    metrics = fb.train(
        cache=cache, questions=str(made / "labels.csv"), model=model, model_kind=kind, epochs=8,
        batch_size=8, learning_rate=3e-3,
    )  # fmt: skip
    assert metrics["kind"] == kind and metrics["accuracy"] >= 0.9
    assert set(metrics["baselines"]) == {"majority"}
    assert metrics["parameters"] > 10_000
    record = open_cache(cache)["47.mp4"]
    assert record.pictures.shape == (FRAMES, SIDE, SIDE, 3)
    loaded = load_model(model)
    said = loaded.predict(record.features[None].astype(np.float32), [b""])
    assert loaded.head.best(said[0], top=1)[0]["answer"] == "right"


@pytest.mark.parametrize("kind", ["lstm", "probe", "vote"])
def test_what_reads_features_refuses_pictures(made: Path, tmp_path: Path, kind: str) -> None:
    with pytest.raises(UsageError, match=f"{kind} does not read pictures"):
        fb.train(
            cache=str(made / "cache"), questions=str(made / "labels.csv"),
            model=str(tmp_path / "m"), model_kind=kind,
        )  # fmt: skip


def test_what_reads_pictures_is_retrained_without_a_formula(made: Path, tmp_path: Path) -> None:
    config = tmp_path / "retrain.toml"
    config.write_text(
        f'registry = "{tmp_path}/registry"\ncache = "{made}/cache"\n'
        f'questions = ["{made}/labels.csv"]\nheld.share = 0.3\nheld.least = 5\n'
        'model.kind = "cnn3d"\ntrain.epochs = 1\ntrain.batch_size = 8\n'
    )
    assert fb.retrain(config=config).figures["held_questions"] >= 5


def test_what_reads_pictures_refuses_features(tmp_path: Path) -> None:
    make_cache(str(tmp_path / "cache"))
    rows = ["video_id,label,split", "a.mp4,x,train", "b.mp4,y,train", "d.mp4,x,test"]
    (tmp_path / "labels.csv").write_text("\n".join(rows) + "\n")
    with pytest.raises(UsageError, match="cnn3d does not read features"):
        fb.train(
            cache=str(tmp_path / "cache"), questions=str(tmp_path / "labels.csv"),
            model=str(tmp_path / "m"), model_kind="cnn3d",
        )  # fmt: skip


def test_an_export_of_pictures_is_refused(made: Path, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="holds pictures"):
        fb.export(str(made / "cache"), str(tmp_path / "out"), to="npz")


def test_a_sound_cache_of_pictures_is_sound(made: Path) -> None:
    assert fb.verify(str(made / "cache")).faults == []
