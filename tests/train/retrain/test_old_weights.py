"""Old weight files: both layouts against a forward pass written out, and what is refused."""

from __future__ import annotations

import json
import pickle
import re
from pathlib import Path

import numpy as np
import pytest

from framebank.features.errors import UsageError
from framebank.train.model.config import IMAGE_QA, ModelConfig
from framebank.train.retrain.importing import find_labels, read_labels
from framebank.train.retrain.old_weights import read_old_weights
from tests.made.old_weights import old_arrays, write_weights

VECTORS = np.random.default_rng(1).normal(0, 1, (9, 4)).astype(np.float32)
VECTORS[:2] = 0


def sigmoid(x: np.ndarray) -> np.ndarray:
    return 1 / (1 + np.exp(-x))


def old_hard_sigmoid(x: np.ndarray) -> np.ndarray:
    return np.clip(0.2 * x + 0.5, 0, 1)


def forward(layers: dict, words: list[int], picture: np.ndarray, gate) -> np.ndarray:  # type: ignore[no-untyped-def]
    """Return the answers of the published network: 30 words, the last ones of zeros."""
    steps = np.zeros((30, 4), np.float64)
    steps[: len(words)] = VECTORS[words]
    for number in (1, 2, 3):
        its = layers[f"lstm_{number}"]
        h = c = np.zeros(5)
        seen = []
        for step in steps:
            i, f, g, o = np.split(
                step @ its["kernel"] + h @ its["recurrent_kernel"] + its["bias"], 4
            )
            c = gate(f) * c + gate(i) * np.tanh(g)
            h = gate(o) * np.tanh(c)
            seen.append(h)
        steps = np.array(seen)
    hidden = np.concatenate([h, picture])  # language first
    for number in (1, 2, 3, 4):
        its = layers[f"dense_{number}"]
        hidden = hidden @ its["kernel"] + its["bias"]
        hidden = np.tanh(hidden) if number < 4 else np.exp(hidden - hidden.max())
    return hidden / hidden.sum()


@pytest.mark.parametrize(
    ("keras", "version", "gate"),
    [
        (1, "1.2.2", old_hard_sigmoid),
        (2, "2.0.8", old_hard_sigmoid),
        (2, "2.3.1", sigmoid),
        (2, "2.2.4-tf", sigmoid),
    ],
)
def test_both_layouts_answer_as_the_network_did(tmp_path: Path, keras, version, gate) -> None:  # type: ignore[no-untyped-def]
    from framebank.train.model.image_qa import image_network

    layers = old_arrays()
    path = write_weights(tmp_path / "old.hdf5", layers, keras=keras, version=version)
    old = read_old_weights(path.read_bytes(), str(path), trusted=True)
    assert (old.word_size, old.question_units, old.width, old.dense_units, old.answers) == (
        4, 5, 6, 7, 3,
    )  # fmt: skip
    assert (old.gates == "sigmoid", old.saved_by) == (gate is sigmoid, version)
    config = ModelConfig.of(kind=IMAGE_QA, word_size=4, question_units=5, dense_units=7)
    network = image_network(config, words=9, answers=3, width=6, gates=old.gates)
    for name, arrays in old.arrays.items():
        network.get_layer(name).set_weights(arrays)
    network.get_layer("embedding").set_weights([VECTORS])
    asked = [[2, 3, 4, 5, 6], [7], []]
    words = np.zeros((3, 6), np.int32)
    words[:, 0] = 1
    for row, its in zip(words, asked, strict=True):
        row[1 : 1 + len(its)] = its
    pictures = np.random.default_rng(2).normal(0, 3, (3, 1, 6)).astype(np.float32)
    said = np.asarray(network({"features": pictures, "words": words}, training=False))
    truth = [forward(layers, its, one[0], gate) for its, one in zip(asked, pictures, strict=True)]
    np.testing.assert_allclose(said, truth, atol=2e-6)


def test_the_files_own_config_says_what_its_gates_are(tmp_path: Path) -> None:
    import h5py

    path = write_weights(tmp_path / "old.hdf5", old_arrays())
    layer = {"class_name": "LSTM", "config": {"recurrent_activation": "sigmoid", "units": 5}}
    with h5py.File(path, "a") as file:
        file.attrs["model_config"] = json.dumps({"config": [layer]})
    assert read_old_weights(path.read_bytes(), "x", trusted=True).gates == "sigmoid"
    stated = read_old_weights(path.read_bytes(), "x", gates="hard_sigmoid")
    assert stated.gates == "hard_sigmoid"


@pytest.mark.parametrize("inner", ["lstm_{}/{}:0", "lstm_{}/lstm_cell/{}:0"])
def test_layers_within_a_sequential_are_found(tmp_path: Path, inner: str) -> None:
    import h5py

    layers = old_arrays()
    path = write_weights(tmp_path / "old.hdf5", layers)
    plain = read_old_weights(path.read_bytes(), "x", trusted=True)
    with h5py.File(path, "a") as file:  # dense layers first, and the LSTMs as those of one layer
        group, names = file.create_group("sequential_1"), []
        for number in (1, 2, 3):
            for role, array in layers[f"lstm_{number}"].items():
                names.append(inner.format(number, role))
                group.create_dataset(names[-1], data=array)
        group.attrs["weight_names"] = [name.encode() for name in names]
        order = [f"dense_{number}" for number in (1, 2, 3, 4)]
        file.attrs["layer_names"] = [name.encode() for name in (*order, "sequential_1")]
    nested = read_old_weights(path.read_bytes(), "x", trusted=True)
    for name, arrays in plain.arrays.items():
        for one, other in zip(arrays, nested.arrays[name], strict=True):
            np.testing.assert_array_equal(one, other)


def _drop(layers: dict) -> None:
    del layers["lstm_2"]


def _narrow(layers: dict) -> None:
    layers["dense_2"]["kernel"] = np.zeros((7, 6), np.float32)


def _nan(layers: dict) -> None:
    layers["dense_4"]["bias"][1] = np.nan


def _texts(layers: dict) -> None:
    layers["dense_4"]["bias"] = np.array([b"a", b"b", b"c"])


def _cudnn(layers: dict) -> None:
    layers["lstm_1"]["bias"] = np.zeros(40, np.float32)


def _strange(layers: dict) -> None:
    layers["dense_1"]["gamma"] = np.zeros(3, np.float32)


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (_drop, "2 LSTMs and 4 dense layers"),
        (_narrow, r"dense_2/kernel.*\(7, 6\)"),
        (_nan, "answers with NaN, or more"),
        (_texts, "answers of type"),
        (_cudnn, r"\(40,\)"),
        (_strange, "a weight dense_1/gamma:0"),
    ],
)
def test_other_files_are_refused_with_what_is_wrong(tmp_path: Path, change, told: str) -> None:  # type: ignore[no-untyped-def]
    layers = old_arrays()
    change(layers)
    path = write_weights(tmp_path / "old.hdf5", layers)
    with pytest.raises(UsageError, match="not those of image question") as refused:
        read_old_weights(path.read_bytes(), str(path), trusted=True)
    assert re.search(told, str(refused.value.got)), refused.value.got


def test_a_small_file_cannot_ask_for_much_memory_nor_point_elsewhere(tmp_path: Path) -> None:
    import h5py

    huge, linked = tmp_path / "huge.hdf5", tmp_path / "linked.hdf5"
    for path in (huge, linked):
        write_weights(path, old_arrays())
        with h5py.File(path, "a") as file:
            del file["dense_1/dense_1/kernel:0"]
    with h5py.File(huge, "a") as file:
        file["dense_1/dense_1"].create_dataset("kernel:0", (2**40, 7), "f4", chunks=(1024, 7))
    with h5py.File(linked, "a") as file:
        file["dense_1/dense_1/kernel:0"] = h5py.ExternalLink("other.hdf5", "kernel")
    assert huge.stat().st_size < 100_000
    for path, told in ((huge, r"kernel:0 of shape \(1099511627776, 7\)"), (linked, "ExternalLink")):
        with pytest.raises(UsageError, match="not those") as refused:
            read_old_weights(path.read_bytes(), "x")
        assert re.search(told, str(refused.value.got))
    for data in (b"", b"no HDF5", huge.read_bytes()[:3000], pickle.dumps([1])):
        with pytest.raises(UsageError, match="not those"):
            read_old_weights(data, "x", trusted=not data)


class _Evil:
    def __reduce__(self):  # type: ignore[no-untyped-def]
        return (open, ("/tmp/framebank-was-run", "w"))


def test_labels_are_read_and_pickles_are_not(tmp_path: Path) -> None:
    weights = tmp_path / "old.hdf5"
    with pytest.raises(UsageError, match="no list of labels beside"):
        find_labels(str(weights))
    for name in ("labels.pkl", "old.txt"):  # by its name, and by its bytes
        (tmp_path / name).write_bytes(pickle.dumps(_Evil()))
        assert find_labels(str(weights)) == str(tmp_path / name)
        path = tmp_path / name
        with pytest.raises(UsageError, match="not read from a pickle"):
            read_labels(str(path), count=3)
    np.save(tmp_path / "evil.npy", np.array([_Evil()], object), allow_pickle=True)
    with pytest.raises(UsageError, match="cannot be read"):
        read_labels(str(tmp_path / "evil.npy"), count=3)
    assert not Path("/tmp/framebank-was-run").exists()
    for name, data in (
        ("a.json", b'["yes", "no", "2"]'), ("a.txt", b"yes\nno\n2\n"), ("b.txt", b"yes\r\nno\r\n2"),
    ):  # fmt: skip
        (tmp_path / name).write_bytes(data)
        assert read_labels(str(tmp_path / name), count=3) == ("yes", "no", "2")
    np.save(tmp_path / "a.npy", np.array(["yes", "no", "2"]))
    assert read_labels(str(tmp_path / "a.npy"), count=3) == ("yes", "no", "2")
    for text, told in (
        ('["yes", "no"]', "2 labels"), ('["yes", "no", "no"]', "2 of them different"),
        ('["yes", "no", 2]', "something else than texts"), ('["yes"', "cannot be read"),
    ):  # fmt: skip
        (tmp_path / "b.json").write_text(text)
        with pytest.raises(UsageError) as refused:
            read_labels(str(tmp_path / "b.json"), count=3)
        assert told in f"{refused.value.what} {refused.value.got}"
