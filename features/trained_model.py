"""A trained model as those who ask it see it: its folder, its lineage, and its answers.

`framebank score` and `framebank ask` both read MODEL through this. Loading runs no code from the
file. Dimension letters: b batch, n frames, d feature width, a answers.
"""

from __future__ import annotations

import dataclasses
import json
import tempfile
import warnings
import zipfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from features import storage
from features.errors import JobError, UsageError
from features.quiet import import_tensorflow
from features.spec import FeatureSpec

if TYPE_CHECKING:
    import keras

MODEL_FILES = ("model.keras", "vocabulary.json", "lineage.json")
_DIGITS = 6  # of a probability: what is left of it does not depend on the batch


@dataclasses.dataclass(frozen=True)
class Lineage:
    """Where a model comes from, as far as asking it goes."""

    spec: FeatureSpec
    random_weights: bool
    cache: str
    runs: tuple[str, ...]


@dataclasses.dataclass(frozen=True)
class TrainedModel:
    """`predict`: float32[b, n, d] features, padded on the right with rows of zeros, and b questions
    in UTF-8 → float32[b, a] probabilities, in the order of `answers`.
    """

    predict: Callable[[NDArray[np.float32], list[bytes]], NDArray[np.float32]]
    answers: tuple[str, ...]

    def best(self, probabilities: NDArray[np.float32], *, top: int) -> list[dict[str, Any]]:
        """Return the `top` likeliest of float32[a]; of equals the earlier in the vocabulary."""
        order = np.argsort(-probabilities, kind="stable")[:top]
        return [
            {
                "answer": self.answers[place],
                "probability": round(float(probabilities[place]), _DIGITS),
            }
            for place in order
        ]


def read_lineage(model_dir: str) -> Lineage:
    """Return where the model in `model_dir` comes from.

    Raises UsageError where the folder holds no finished model or a damaged one.
    """
    for name in MODEL_FILES:
        if not storage.exists(storage.join(model_dir, name)):
            raise _no_model(model_dir, f"no {name} in it")
    fields = _read_json(model_dir, "lineage.json")
    try:
        spec = FeatureSpec.from_json(fields["spec"])
        stated = fields["fingerprint"]
        runs = tuple(str(run) for run in fields.get("runs") or ())
        lineage = Lineage(spec, spec.random_weights, str(fields.get("cache") or ""), runs)
    except (KeyError, TypeError, AttributeError) as err:
        raise _damaged(model_dir, "lineage.json", err) from err
    if stated != spec.fingerprint:
        got = f"the fingerprint {stated} for a spec of {spec.fingerprint}"
        raise _damaged(model_dir, "lineage.json", got)
    return lineage


def load_model(model_dir: str) -> TrainedModel:
    """Load MODEL/model.keras and its vocabulary, from disk or bucket; takes seconds.

    Raises UsageError where the folder holds no model or a damaged one.
    """
    answers = _read_json(model_dir, "vocabulary.json").get("answers")
    if not isinstance(answers, list) or not answers:
        raise _damaged(model_dir, "vocabulary.json", "no list of answers in it")
    model = load_network(model_dir)
    import tensorflow as tf

    if model.output.shape[-1] != len(answers):
        got = f"{len(answers)} answers for a model with {model.output.shape[-1]} outputs"
        raise _damaged(model_dir, "vocabulary.json", got)
    # One signature for all shapes: a batch of another length is no new graph.
    graph = tf.function(
        lambda features, question: model(
            {"features": features, "question": question}, training=False
        ),
        input_signature=[
            tf.TensorSpec((None, None, model.input["features"].shape[-1]), tf.float32),
            tf.TensorSpec((None,), tf.string),
        ],
    )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # Keras wonders at a model of one answer
        graph.get_concrete_function()

    def predict(features: NDArray[np.float32], questions: list[bytes]) -> NDArray[np.float32]:
        probabilities: NDArray[np.float32] = graph(features, tf.constant(questions)).numpy()
        return probabilities

    return TrainedModel(predict, tuple(str(answer) for answer in answers))


def load_network(model_dir: str) -> keras.Model:
    """Load MODEL/model.keras; raises UsageError where there is none or a damaged one."""
    try:
        data = storage.read_bytes(storage.join(model_dir, "model.keras"))
    except storage.FileMissingError as err:
        raise _no_model(model_dir, "no model.keras in it") from err
    import_tensorflow()
    return _read_network(model_dir, data)


def _read_network(model_dir: str, data: bytes) -> keras.Model:
    """Return the Keras model that the bytes of a model.keras hold; no code in it is run."""
    import keras

    try:
        with tempfile.TemporaryDirectory(prefix="framebank-") as folder:
            path = Path(folder, "model.keras")
            path.write_bytes(data)
            if not zipfile.is_zipfile(path):  # Keras would say that there is no file at all
                got = f"{len(data)} bytes that are no whole zip file"
                raise _damaged(model_dir, "model.keras", got)
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", UserWarning)  # as above
                model = keras.saving.load_model(path, compile=False, safe_mode=True)
            model.input["features"], model.input["question"]  # what `predict` gives it
    except UsageError:
        raise
    except OSError as err:
        raise JobError(
            "the model cannot be unpacked",
            got=f"{err.strerror or err} in {tempfile.gettempdir()}",
            todo="make room there, or set TMPDIR to a folder with room",
        ) from err
    except Exception as err:
        raise _damaged(model_dir, "model.keras", str(err).split("\n", 1)[0][:300]) from err
    return model


def pad_clips(clips: Sequence[NDArray[Any]]) -> NDArray[np.float32]:
    """Return float32[b, n, d] of clips float[n_i, d], padded on the right with rows of zeros."""
    longest = max(len(clip) for clip in clips)
    padded = np.zeros((len(clips), longest, clips[0].shape[1]), np.float32)
    for place, clip in enumerate(clips):
        padded[place, : len(clip)] = clip
    return padded


def _read_json(model_dir: str, name: str) -> dict[str, Any]:
    try:
        fields = json.loads(storage.read_bytes(storage.join(model_dir, name)))
    except storage.FileMissingError as err:
        raise _no_model(model_dir, f"no {name} in it") from err
    except ValueError as err:
        raise _damaged(model_dir, name, err) from err
    if not isinstance(fields, dict):
        raise _damaged(model_dir, name, f"a JSON {type(fields).__name__}")
    return fields


def _no_model(model_dir: str, got: str) -> UsageError:
    return UsageError(
        f"{model_dir} is not a trained model",
        got=got,
        expected="the --model folder of a `framebank train` that has ended",
        todo="check --model, or train first",
    )


def _damaged(model_dir: str, name: str, got: object) -> UsageError:
    return UsageError(
        f"{storage.join(model_dir, name)} cannot be used",
        got=got,
        expected="what `framebank train` wrote",
        todo="train the model again",
    )
