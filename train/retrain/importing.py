"""Weights of image question answering that Keras 1 or 2 saved become a model that can be asked.

    framebank models import WEIGHTS.hdf5 --embeddings VECTORS --cache CACHE --model DIR

WEIGHTS are read by `train.retrain.old_weights`. A list of labels beside them names the answers in
the order of the outputs. VECTORS are those that the network was trained on; the first words of the
file are kept. The cache says how pictures become features (`extract --images --backbone vgg16`).
Takes some seconds, and as long as it takes to read VECTORS.
"""

from __future__ import annotations

import dataclasses
import io
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np

from framebank.features.asking.heads import Head
from framebank.features.errors import UsageError
from framebank.features.stores import json_text, storage
from framebank.features.stores.disk import bytes_sha256
from framebank.train.fit.model_folder import ModelFolder, make_lineage
from framebank.train.model.config import IMAGE_QA, ModelConfig, TrainConfig
from framebank.train.model.image_qa import image_network
from framebank.train.model.network import export
from framebank.train.model.text import SPECIAL_WORDS, text_of
from framebank.train.retrain.old_weights import OldWeights, read_old_weights
from framebank.train.word_vectors.files import file_sha256, read_first_vectors

if TYPE_CHECKING:
    from framebank.features.cache.reader import Cache

_MOST_LABEL_BYTES = 2**24
_LABEL_SUFFIXES = (".json", ".txt", ".npy")
_PICKLES = (".pkl", ".pickle", ".joblib", ".sav")


@dataclasses.dataclass(frozen=True)
class ImportJob:
    """What to make a model of; `labels` None looks beside the weights, `gates` None goes by what
    the file says of itself."""

    weights: str
    labels: str | None
    embeddings: str
    words: int
    gates: str | None = None


def import_model(
    job: ImportJob, cache: Cache, model_dir: str, *, overwrite: bool, say: Callable[[str], None]
) -> dict[str, Any]:
    """Make the model folder; return what is in it. Raises FramebankError."""
    folder = ModelFolder(model_dir)
    data = _read(job.weights, "weights")
    old = read_old_weights(data, job.weights, gates=job.gates)
    by = f"Keras {old.saved_by}" if old.saved_by else "a Keras that does not tell its version"
    say(f"{job.weights} was saved by {by}: {old.answers} answers, gates {old.gates}")
    labels_path = job.labels or find_labels(job.weights)
    labels = read_labels(labels_path, count=old.answers)
    if cache.feature_dim != old.width:
        spec = cache.spec
        raise UsageError(
            "the cache holds other features than the weights read",
            got=f"{cache.feature_dim} values a picture, of {spec.backbone} {spec.layer}",
            expected=f"{old.width}",
            todo="make one: framebank extract PICTURES --images --backbone vgg16 --cache CACHE",
        )
    config = ModelConfig.of(
        kind=IMAGE_QA,
        word_size=old.word_size,
        question_units=old.question_units,
        dense_units=old.dense_units,
        answers=old.answers,
        words=job.words,
    )
    making = {
        "format": 1,
        "cache_fingerprint": cache.fingerprint,
        "questions_sha256": [],
        "config": {"model": config.lasting(), "train": TrainConfig().lasting()},
        "imported": {
            "weights": bytes_sha256(data),
            "labels": bytes_sha256(_read(labels_path, "labels")),
            "embeddings": file_sha256(job.embeddings),
            "gates": old.gates,
        },
    }
    with folder.locked():
        if folder.claim(making, overwrite=overwrite):
            say(f"{model_dir} is made of just this already; nothing to do")
            return folder.read_json("metrics.json")
        words = _save(folder, old, config, job, say)
        known = {**Head(answers=labels).to_json(), "words": words}
        folder.write_json("vocabulary.json", known)
        made = {
            "answers": old.answers,
            "words": len(words) - SPECIAL_WORDS,
            "parameters": sum(int(array.size) for its in old.arrays.values() for array in its),
            "gates": old.gates,
            "saved_by": old.saved_by,
        }
        folder.write_json("metrics.json", made)
        folder.finish(make_lineage(cache, making, questions={}, files=[]))
    return made


def _save(
    folder: ModelFolder,
    old: OldWeights,
    config: ModelConfig,
    job: ImportJob,
    say: Callable[[str], None],
) -> list[str]:
    """Write model.keras; return its words, by number."""
    file = read_first_vectors(job.embeddings, job.words, say=say)
    if not file.vectors or file.size != old.word_size:
        raise UsageError(
            "the word vectors are not those that the weights were trained on",
            got=f"{len(file.vectors)} of dimension {file.size} in {job.embeddings}",
            expected=f"vectors of dimension {old.word_size}",
            todo="give the file that they were trained with: --embeddings",
        )
    text = text_of(list(file.vectors))
    words = [str(word) for word in text.get_vocabulary()]
    network = image_network(
        config, words=len(words), answers=old.answers, width=old.width, gates=old.gates
    )
    for name, arrays in old.arrays.items():
        network.get_layer(name).set_weights(arrays)
    none = np.zeros((SPECIAL_WORDS, old.word_size), np.float32)
    rows = np.concatenate([none, np.stack(list(file.vectors.values()))])
    network.get_layer("embedding").set_weights([rows])
    folder.save_model(export(network, text))
    return words


def find_labels(weights: str) -> str:
    """Return the file of labels beside the weights: of their name, or called labels."""
    folder, _, name = weights.rpartition("/")
    stems = (name.rpartition(".")[0] or name, "labels")
    # A pickle is found so that it is refused in its own words.
    suffixes = (*_LABEL_SUFFIXES, *_PICKLES)
    names = [
        f"{folder}/{stem}{end}".lstrip("/" * (not folder)) for stem in stems for end in suffixes
    ]
    found = next(filter(storage.exists, names), None)
    if found is None:
        raise UsageError(
            "there is no list of labels beside the weights",
            got=f"no {stems[0]} nor labels with {', '.join(_LABEL_SUFFIXES)} beside {weights}",
            expected="the answers in the order of the outputs",
            todo="give --labels FILE",
        )
    return found


def read_labels(path: str, *, count: int) -> tuple[str, ...]:
    """Return the answers in the file: JSON with a list of texts, a text in each line, or an array
    of texts that NumPy saved (.npy). Raises UsageError for any other, and for other than `count`.
    """
    expected = f"{count} different texts: a JSON list, a line each, or .npy"
    data = _read(path, "labels", most=_MOST_LABEL_BYTES)
    if path.endswith(_PICKLES) or data.startswith((b"\x80", b"\x1f\x8b", b"PK")):
        raise UsageError(
            "a list of labels is not read from a pickle, which runs code when it is opened",
            got=path,
            expected=expected,
            todo="where you trust it, write it out first: "
            "json.dump([str(label) for label in joblib.load(FILE).classes_], open(LABELS, 'w'))",
        )
    try:
        labels = _labels(data)
    except (ValueError, EOFError) as err:
        got = f"{path}: {str(err).splitlines()[0][:200]}"
        raise UsageError("the labels cannot be read", got=got, expected=expected) from err
    if len(labels) != count or len(set(labels)) != count:
        got = f"{len(labels)} labels in {path}, {len(set(labels))} of them different"
        raise UsageError("the labels are not those of the weights", got=got, expected=expected)
    return tuple(labels)


def _labels(data: bytes) -> list[str]:
    if data.startswith(b"\x93NUMPY"):
        array = np.load(io.BytesIO(data), allow_pickle=False)
        if array.ndim != 1 or array.dtype.kind not in "US":
            raise ValueError(f"an array of {array.dtype}{array.shape}")
        return [str(label) for label in array.astype(str).tolist()]
    text = data.decode("utf-8-sig")
    if not text.lstrip().startswith("["):
        return [line.strip() for line in text.splitlines() if line.strip()]
    labels = json_text.parse(text)
    if not isinstance(labels, list) or not all(isinstance(label, str) for label in labels):
        raise ValueError("something else than texts in the list")
    return labels


def _read(path: str, what: str, *, most: int = 2**31) -> bytes:
    found = storage.find(path)
    if found is None:
        raise UsageError(f"there is no such file of {what}", got=path)
    if found.size_bytes > most:
        raise UsageError(
            f"the file of {what} is too large",
            got=f"{path} of {found.size_bytes} bytes",
            expected=f"{most} at most",
        )
    return storage.read_bytes(path)
