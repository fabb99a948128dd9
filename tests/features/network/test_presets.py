"""KerasHub's presets, made here with random weights: CLIP, SigLIP and DINOv2 image towers."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from framebank.features.errors import UsageError
from framebank.features.extraction.one_clip import build_network, feature_width
from framebank.features.network.weights import localise_weights, publish_weights
from tests.features.network.test_own_files import (  # noqa: F401
    build,
    choose,
    own_cache,
    pictures,
)

keras_hub = pytest.importorskip("keras_hub", reason="the extra kerashub is not installed")
SIDE = 28
TOWER: dict[str, Any] = {
    "patch_size": 14, "hidden_dim": 32, "num_layers": 2, "num_heads": 2, "intermediate_dim": 64,
    "image_shape": (SIDE, SIDE, 3),
}  # fmt: skip
TEXT: dict[str, Any] = {
    "vocabulary_size": 64, "embedding_dim": 32, "hidden_dim": 32, "num_layers": 1, "num_heads": 2,
    "intermediate_dim": 64, "max_sequence_length": 8,
}  # fmt: skip


@pytest.fixture(scope="module")
def presets(tmp_path_factory: pytest.TempPathFactory) -> Path:
    import keras

    keras.utils.set_random_seed(0)
    hub, root = keras_hub.models, tmp_path_factory.mktemp("presets")
    clip = hub.CLIPBackbone(hub.CLIPVisionEncoder(**TOWER), hub.CLIPTextEncoder(**TEXT), 24)
    siglip = hub.SigLIPBackbone(hub.SigLIPVisionEncoder(**TOWER), hub.SigLIPTextEncoder(**TEXT))
    dino = hub.DINOV2Backbone(**TOWER, position_embedding_shape=(SIDE, SIDE, 3))
    swin = hub.SwinTransformerBackbone(
        image_shape=(SIDE, SIDE, 3), patch_size=7, embed_dim=8, depths=(2,), num_heads=(2,),
        window_size=2,
    )  # fmt: skip
    named = (("clip", clip), ("siglip", siglip), ("dino", dino), ("swin", swin))
    for name, backbone in named:
        backbone.save_to_preset(str(root / name))
    scale, offset = [1 / 70, 1 / 60, 1 / 50], [-1.8, -1.7, -1.4]
    size = (SIDE, SIDE)
    keras_hub.layers.CLIPImageConverter(size, scale, offset).save_to_preset(str(root / "clip"))
    keras_hub.layers.SigLIPImageConverter(size, 1 / 127.5, -1.0).save_to_preset(
        str(root / "siglip")
    )
    return root


def expected(folder: Path, images: np.ndarray) -> np.ndarray:
    """What KerasHub itself gives."""
    backbone = keras_hub.models.Backbone.from_preset(str(folder))
    if folder.name == "swin":
        return np.asarray(backbone(images / 255)).mean(axis=1)
    if folder.name == "dino":
        mean, deviation = np.array([0.485, 0.456, 0.406]), np.array([0.229, 0.224, 0.225])
        return np.asarray(backbone({"images": (images / 255 - mean) / deviation}))[:, 0]
    converter = keras_hub.layers.ImageConverter.from_preset(str(folder))
    return np.asarray(backbone.get_vision_embeddings(converter(images.astype(np.float32))))


@pytest.mark.parametrize(("name", "width"), [("clip", 24), ("siglip", 32), ("dino", 32)])
def test_an_image_tower_gives_what_kerashub_gives(presets: Path, name: str, width: int) -> None:
    declared = {"preprocess": "imagenet"} if name == "dino" else {}
    images = pictures(11, SIDE)
    whole = build(presets / name, batch_size=11, **declared)(images)
    assert whole.shape == (11, width)
    np.testing.assert_allclose(whole, expected(presets / name, images), atol=2e-5)
    one = build(presets / name, batch_size=1, **declared)
    assert (
        np.concatenate([one(images[at : at + 1]) for at in range(11)]).tobytes() == whole.tobytes()
    )


def test_layers_that_compare_tensors_by_a_sign_are_understood(presets: Path) -> None:
    network = build_network(*choose(presets / "swin", preprocess="scale_0_1"), batch_size=8)
    images = pictures(8, SIDE)
    np.testing.assert_allclose(network(images), expected(presets / "swin", images), atol=2e-5)


def test_layers_by_name_and_what_the_folder_lacks(presets: Path) -> None:
    assert (
        build(
            presets / "dino", preprocess="imagenet", layer="dinov2_backbone_layernorm"
        ).feature_dim
        == 32
    )
    with pytest.raises(UsageError, match="--preprocess NAME"):
        choose(presets / "dino")
    with pytest.raises(UsageError, match="no layer 'nothing'"):
        build(presets / "dino", preprocess="imagenet", layer="nothing")


def test_a_moved_folder_is_the_same_and_travels_as_one_file(presets: Path, tmp_path: Path) -> None:
    moved = tmp_path / "moved"
    shutil.copytree(presets / "clip", moved)
    (moved / "README.md").write_text("about")
    about = json.loads((moved / "metadata.json").read_text()) | {"date_saved": "later"}
    (moved / "metadata.json").write_text(json.dumps(about))
    spec, weights = choose(moved)
    assert spec == choose(presets / "clip")[0] and spec.backbone == "keras_hub:CLIPBackbone"
    published = publish_weights(weights, str(tmp_path / "cache"))
    shutil.rmtree(tmp_path / "cache-home")
    here = localise_weights(published)
    images = pictures(3, SIDE)
    assert np.allclose(
        build_network(spec, here, batch_size=3)(images),
        expected(presets / "clip", images),
        atol=2e-5,
    )


def broken(folder: Path, target: Path, change: Any) -> Path:
    shutil.copytree(folder, target)
    config = json.loads((target / "config.json").read_text())
    change(config)
    (target / "config.json").write_text(json.dumps(config))
    return target


def test_nothing_in_a_hostile_preset_runs(presets: Path, tmp_path: Path) -> None:
    function = {"class_name": "__lambda__", "config": {"value": "AAAA"}}
    code = {"module": "keras.layers", "class_name": "Lambda", "config": {"function": function}}
    changes = {
        "module": lambda config: config["config"]["text_encoder"].update(module="subprocess"),
        "class": lambda config: config["config"]["text_encoder"].update(
            module="keras_hub.src.models.clip.clip_tokenizer",
            class_name="CLIPTokenizer",
            registered_name="keras_hub>CLIPTokenizer",
        ),
        "lambda": lambda config: config["config"].update(text_encoder=code),
        "registered": lambda config: config["config"]["text_encoder"].update(
            registered_name="evil>Evil"
        ),
    }
    for name, change in changes.items():
        spec, weights = choose(broken(presets / "clip", tmp_path / name, change))
        with pytest.raises(UsageError, match=r"in it|registered object"):
            feature_width(spec, weights)
    (tmp_path / "secret").write_text("{}")
    linked = tmp_path / "linked"
    shutil.copytree(presets / "clip", linked)
    (linked / "config.json").unlink()
    (linked / "config.json").symlink_to(tmp_path / "secret")
    with pytest.raises(UsageError, match="no link"):
        choose(linked)
    (tmp_path / "empty").mkdir()
    with pytest.raises(UsageError, match="save_to_preset"):
        choose(tmp_path / "empty")
