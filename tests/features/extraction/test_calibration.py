"""int8: a graph made once from frames of the input, the same for whoever computes with it."""

from __future__ import annotations

import dataclasses
import json
import os
import subprocess
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import framebank
from framebank.features.asking.command import find_weights
from framebank.features.asking.trained_model import Lineage
from framebank.features.cache import layout
from framebank.features.decoders.pool import DecoderPolicy
from framebank.features.errors import CacheError, UsageError
from framebank.features.extraction import calibration, network_process
from framebank.features.extraction.one_clip import build_network, extract_features, make_spec
from framebank.features.network import int8
from framebank.features.network.weights import Weights
from framebank.features.spec import FeatureSpec, SpecChoice
from framebank.features.stores import disk
from framebank.features.video import VideoRef
from tests import ROOT
from tests.clips.plain_clips import write_clip
from tests.features.extraction.test_engine import ref_of

CHOICE = SpecChoice(
    backbone="mobilenet_v2", layer="block_5_add", weights="random:0", sample="every=3"
)
ONE = DecoderPolicy(decoders=1)


@pytest.fixture(scope="module")
def made(
    clips: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[tuple[FeatureSpec, Weights]]:
    """Quantise once for all tests here; what is kept of it lies in a place of its own."""
    pytest.importorskip("openvino")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.mktemp("kept")))
        patch.setattr(calibration, "FRAMES", 12)  # of three clips
        spec, weights = make_spec(dataclasses.replace(CHOICE, precision="int8"))
        yield calibrated(spec, weights, refs_of(clips))


def calibrated(
    spec: FeatureSpec, weights: Weights, refs: list[VideoRef]
) -> tuple[FeatureSpec, Weights]:
    process = network_process.to_quantise
    return calibration.calibrate(spec, weights, refs, ONE, process=process, batch_size=32)


def refs_of(clips: Path) -> list:
    return [ref_of(path) for path in sorted(clips.glob("*.mp4"))]


def test_the_spec_names_the_graph_and_its_file_says_what_it_cost(
    made: tuple[FeatureSpec, Weights],
) -> None:
    spec, graph = made
    assert spec.precision == "int8" and spec.weights == "random:0"
    assert spec.quantised["sha256"] == graph.sha256 == disk.file_hash(Path(graph.local_path))
    assert (spec.quantised["frames"], spec.quantised["seed"]) == (6, 0)
    settled = calibration.settled(graph)
    assert settled.precision == "int8" and 0.95 < settled.cosine <= 1 and settled.frames == 6
    assert set(settled.probe) == {"float32", "int8"} and "a probe names" in settled.why
    assert FeatureSpec.from_json(json.loads(json.dumps(spec.to_json()))) == spec


def test_a_feature_in_int8_depends_on_its_own_frame_alone(
    made: tuple[FeatureSpec, Weights],
) -> None:
    spec, graph = made
    images = np.random.default_rng(0).integers(0, 256, (11, 224, 224, 3), dtype=np.uint8)
    network = build_network(spec, graph, batch_size=11)
    expected = network(images)
    assert expected.shape == (11, 32) and expected.dtype == np.float32 and expected.std() > 0
    np.testing.assert_array_equal(
        np.roll(network(np.roll(images, 3, axis=0)), -3, axis=0), expected
    )
    for number, image in enumerate(images[:2]):
        alone = np.full_like(images, 255)
        alone[9] = image
        np.testing.assert_array_equal(network(alone)[9], expected[number])
    np.testing.assert_array_equal(
        build_network(spec, graph, batch_size=2)(images[:2]), expected[:2]
    )


def test_the_same_frames_are_not_quantised_for_again(
    made: tuple[FeatureSpec, Weights], clips: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    spec, weights = make_spec(dataclasses.replace(CHOICE, precision="int8", sample="every=2"))
    monkeypatch.setattr(calibration, "FRAMES", 12)
    monkeypatch.setattr(network_process, "to_quantise", None)
    assert calibrated(spec, weights, refs_of(clips))[1] == made[1]
    Path(made[1].local_path).rename(damaged := Path(made[1].local_path + ".kept"))
    try:
        with pytest.raises(TypeError):  # is quantised again
            calibrated(spec, weights, refs_of(clips))
    finally:
        damaged.rename(made[1].local_path)


def test_every_later_run_and_whoever_asks_takes_the_graph_of_the_cache(
    made: tuple[FeatureSpec, Weights], clips: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    spec, graph = made
    cache = str(tmp_path / "cache")
    layout.write_spec(cache, spec)
    int8.publish_graph(graph, cache)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "another"))
    monkeypatch.setattr(calibration, "calibrate", None)  # nothing is calibrated again
    words = ["--backbone", "mobilenet_v2", "--layer", "block_5_add", "--weights", "random:0"]
    words += ["--sample", "every=3", "--cache", cache]
    assert framebank.main(["extract", str(clips / "a1.mp4"), *words]) == 0
    (path,) = (tmp_path / "cache/runs").glob("*.json")
    summary = json.loads(path.read_text())
    assert summary["spec"]["precision"] == "int8"
    assert "a probe names" in summary["precision"]["why"]
    weights = find_weights(Lineage(spec, True, cache, ()), given=None)
    alone = extract_features(clips / "a1.mp4", spec=spec, weights=weights)
    (record,) = framebank.open_cache(cache)
    np.testing.assert_array_equal(alone.features.astype(np.float16), record.features)


def test_what_calibrates_is_always_the_same_of_the_same_input(
    clips: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(calibration, "FRAMES", 12)
    spec, _ = make_spec(CHOICE)
    small = dataclasses.replace(spec, input_size=16)
    refs = refs_of(clips)
    chosen = calibration.chosen_clips(refs)
    images, numbers = calibration.calibration_images(small, chosen, ONE)
    assert calibration.chosen_clips(refs[::-1]) == chosen
    again, _ = calibration.calibration_images(small, chosen, DecoderPolicy(decoders=2))
    np.testing.assert_array_equal(images, again)
    assert images.shape[1:] == (16, 16, 3) and images.dtype == np.uint8
    assert numbers.tolist() == [0] * 4 + [1] * 4 + [2] * 4 and len(images) == 12


def test_no_more_is_decoded_than_calibrates_but_of_damaged_clips(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A film of an hour is not decoded wholly for 64 of its frames."""
    monkeypatch.setattr(calibration, "FRAMES", 8)
    runs: list[tuple[str, bool, list[str]]] = []

    class Pool(calibration.DecoderPool):
        def decode(self, refs: Iterable[VideoRef]) -> Iterator[Any]:
            refs = list(refs)
            names = [Path(ref.uri).name for ref in refs]
            runs.append((self._policy.check, self._policy.allow_partial, names))
            return super().decode(refs)

    monkeypatch.setattr(calibration, "DecoderPool", Pool)
    spec = dataclasses.replace(make_spec(CHOICE)[0], input_size=16)
    sound, damaged = tmp_path / "a.mp4", tmp_path / "b.mp4"
    write_clip(sound, frames=40, seed=1)
    whole = write_clip(damaged, frames=40, seed=2).read_bytes()
    first, _ = calibration.calibration_images(spec, refs_of(tmp_path), ONE)
    assert runs == [("sampled", False, ["a.mp4", "b.mp4"])]
    broken = bytearray(whole)
    middle = whole.index(b"mdat") + 4 + (len(whole) - whole.index(b"mdat")) // 3
    broken[middle : middle + 200] = bytes(200)
    damaged.write_bytes(broken)
    images, numbers = calibration.calibration_images(spec, refs_of(tmp_path), ONE)
    assert runs[1:] == [("sampled", False, ["a.mp4", "b.mp4"]), ("whole", True, ["b.mp4"])]
    assert numbers.tolist()[:4] == [0] * 4 and set(numbers) == {0, 1}
    np.testing.assert_array_equal(images[:4], first[:4])


def test_cosines_and_the_probe_are_of_frames_that_did_not_calibrate() -> None:
    clips = np.array([0, 0, 0, 0, 1, 1, 1, 1])
    expected = np.array(
        [[2, 1], [2, 1], [2, 1], [2, 1], [1, 2], [1, 2], [1, 2], [1, 2]], np.float32
    )
    got = expected.copy()
    got[0] = np.nan  # it calibrated
    got[1] = [1, 2]
    found = calibration.judge(expected, np.nan_to_num(got, nan=3.0), clips)
    assert found["least_cosine"] == pytest.approx(0.8) and found["frames"] == 4
    assert found["mean_cosine"] == pytest.approx(0.95)
    assert found["probe"]["float32"] == 1.0 and found["probe"]["int8"] == 0.75
    assert calibration.judge(expected[:4], got[4:], clips[:4])["probe"] is None


def test_what_cannot_be_quantised_is_refused_in_words(
    clips: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    spec, weights = make_spec(dataclasses.replace(CHOICE, precision="int8"))
    with pytest.raises(UsageError, match="needs frames to be calibrated with"):
        build_network(spec, weights)
    pytest.importorskip("openvino")
    clip_network, random = make_spec(SpecChoice(backbone="c3d", weights="random:0"))
    with pytest.raises(UsageError, match="networks of single pictures"):
        calibrated(clip_network, random, refs_of(clips))
    (tmp_path / "bad.mp4").write_bytes(b"no video")
    with pytest.raises(UsageError, match="too few frames to calibrate"):
        calibrated(spec, weights, [ref_of(tmp_path / "bad.mp4")])
    monkeypatch.setattr(calibration.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(UsageError, match=r"needs OpenVINO(.|\n)*framebank\[openvino\]"):
        calibrated(spec, weights, refs_of(clips))


def test_a_network_of_ones_own_is_quantised_too(
    clips: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("openvino")
    import keras
    from keras import layers

    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "kept"))
    monkeypatch.setattr(calibration, "FRAMES", 12)
    given = keras.Input((32, 32, 3))
    x = layers.ReLU()(layers.Conv2D(8, 3)(layers.Rescaling(1 / 127.5, -1.0)(given)))
    keras.Model(given, layers.GlobalAveragePooling2D()(x)).save(tmp_path / "own.keras")
    choice = SpecChoice(backbone=str(tmp_path / "own.keras"), precision="int8", sample="every=3")
    spec, graph = calibrated(*make_spec(choice), refs_of(clips))
    assert build_network(spec, graph)(np.zeros((2, 32, 32, 3), np.uint8)).shape == (2, 8)


def test_a_graph_of_functions_is_quantised(clips: Path, tmp_path: Path) -> None:
    """Keras puts groups of channels, and much else, into functions of the graph."""
    pytest.importorskip("openvino")
    import keras
    from keras import layers

    given = keras.Input((32, 32, 3))
    x = layers.Conv2D(8, 3, activation="relu")(layers.Rescaling(1 / 255)(given))
    x = layers.Conv2D(8, 3, groups=4)(x)
    keras.Model(given, layers.GlobalAveragePooling2D()(x)).save(tmp_path / "own.keras")
    choice = SpecChoice(backbone=str(tmp_path / "own.keras"), precision="int8", sample="every=3")
    graph = calibrated(*make_spec(choice), refs_of(clips))[1]
    assert int8.read_report(graph)["least_cosine"] > 0.99


def test_where_nothing_can_be_kept_nothing_is_computed_first(
    clips: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("openvino")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    spec, weights = make_spec(dataclasses.replace(CHOICE, precision="int8"))
    monkeypatch.setattr(network_process, "to_quantise", None)
    (tmp_path / "framebank").write_text("a file in the way")
    with pytest.raises(UsageError, match=r"cannot be kept(.|\n)*XDG_CACHE_HOME"):
        calibrated(spec, weights, refs_of(clips))


def test_nobody_is_told_of_a_use(tmp_path: Path) -> None:
    pytest.importorskip("openvino_telemetry")  # comes with OpenVINO
    code = """
import sys
from framebank.features.network.int8 import import_openvino
import_openvino().convert_model
print("openvino_telemetry" in sys.modules)
"""
    command, environment = [sys.executable, "-c", code], {**os.environ, "HOME": str(tmp_path)}
    said = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, check=True)
    assert said.stdout.split() == [b"False"] and list(tmp_path.iterdir()) == []


def test_two_threads_may_be_the_first_to_ask_for_a_type() -> None:
    """OpenVINO's binding has them wait for each other for ever, holding Python's lock."""
    code = """
import os, threading, time
import numpy, openvino
from framebank.features.network import int8

for _ in range(5):
    pid = os.fork()  # of a process whose OpenVINO was not asked yet
    if not pid:
        ready = threading.Barrier(2)

        def ask():
            openvino = int8.import_openvino()
            ready.wait()
            for _ in range(50):
                openvino.Type.u8.to_dtype()

        threads = [threading.Thread(target=ask) for _ in range(2)]
        [one.start() for one in threads]
        [one.join() for one in threads]
        os._exit(0)
    deadline = time.monotonic() + 30
    while not os.waitpid(pid, os.WNOHANG)[0]:
        if time.monotonic() > deadline:
            os.kill(pid, 9)
            raise SystemExit("it hangs")
        time.sleep(0.01)
"""
    pytest.importorskip("openvino")
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_a_graph_that_is_gone_or_another_is_not_taken(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "kept"))
    spec, _ = make_spec(CHOICE)
    spec = dataclasses.replace(spec, precision="int8", quantised={"sha256": "ab" * 32})
    with pytest.raises(CacheError, match="quantised graph of an int8 cache is missing"):
        int8.find_graph(str(tmp_path / "cache"), spec)
    with pytest.raises(UsageError, match="give --weights PATH"):
        find_weights(Lineage(spec, True, str(tmp_path / "cache"), ()), given=None)
    other = tmp_path / "other.int8.zip"
    other.write_bytes(b"another")
    with pytest.raises(UsageError, match="not the quantised graph that"):
        int8.given_graph(str(other), spec)
    with pytest.raises(UsageError, match="changed while it was in use"):
        build_network(spec, Weights("int8", "ab" * 32, str(other), local_path=str(other)))
    found = Weights("int8", disk.file_hash(other), str(other), local_path=str(other))
    pytest.importorskip("openvino")
    with pytest.raises(CacheError, match="quantised graph cannot be read"):
        build_network(spec, found)
    odd = dataclasses.replace(spec, quantised={"sha256": "../../etc"})
    with pytest.raises(CacheError, match="names no quantised graph"):
        int8.find_graph(str(tmp_path / "cache"), odd)
