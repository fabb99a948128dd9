"""A trained model as those who ask it see it: its folder, its lineage, and its answers.

`framebank score`, `ask`, `evaluate` and `retrain` all read MODEL through this. Loading runs no code
from the file, and no number that is not finite gets past here: any comparison with NaN is false, so
a judge would take it for what it likes. Dimension letters: b batch, n frames, d feature width, a
answers.
"""

from __future__ import annotations

import dataclasses
import io
import string
import tempfile
import warnings
import zipfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from framebank.features.errors import JobError, UsageError
from framebank.features.questions.question import YES_NO
from framebank.features.questions.splits import VAL_SHARE, SplitRule
from framebank.features.questions.word_cutting import LANGUAGES, check_language, cut_questions
from framebank.features.spec import FeatureSpec
from framebank.features.stores import json_text, storage
from framebank.features.tensorflow_import import import_tensorflow

if TYPE_CHECKING:
    import keras

MODEL_FILES = ("model.keras", "vocabulary.json", "lineage.json")
# A question's head → the head of a model that can answer it.
_HEAD_OF = {"open": "open", "yes_no": "open", "choice": "choice", "count": "count"}
_DIGITS = 6  # of a probability: what is left of it does not depend on the batch
_WEIGHTS = "model.weights.h5"  # in a .keras file
_PAD_OR_UNKNOWN = 1  # the numbers up to this are of no word of the model's


class NotFiniteError(JobError):
    """A model with weights or answers that are NaN or infinite, which nothing may judge or use."""


@dataclasses.dataclass(frozen=True)
class Lineage:
    """Where a model comes from, as far as asking it goes."""

    spec: FeatureSpec
    random_weights: bool
    cache: str
    runs: tuple[str, ...]
    rule: SplitRule | None = None  # by which its training split what the files did not
    questions: tuple[str, ...] = ()  # `question_files.file_hashes` of what it was trained on


@dataclasses.dataclass(frozen=True)
class TrainedModel:
    """A model with its `head`: "open" (it has `answers`), "choice", or "count" (within `range`).

    `call` is the network: float32[b, n, d] features, padded on the right with rows of zeros, and b
    questions in UTF-8, for a choice also b candidates, to float32[b, a] or [b, 1]. `number` gives
    the numbers of their words, int64[b, l].
    """

    call: Callable[..., NDArray[np.float32]]
    answers: tuple[str, ...] = ()
    head: str = "open"
    range: tuple[int, int] = (0, 0)
    language: str | None = None
    number: Callable[[list[bytes]], NDArray[np.int64]] | None = None

    def predict(
        self,
        features: NDArray[np.float32],
        questions: list[bytes],
        choices: Sequence[Sequence[str]] | None = None,
    ) -> NDArray[np.float32]:
        """Return probabilities float32[b, a] in the order of `answers`.

        Of a choice they are of each row's own candidates, 0 beyond them and for one that stands
        again; of a count the output is float32[b, 1], the number before it is rounded. Raises
        ValueError without candidates, NotFiniteError.
        """
        if self.head != "choice":
            return _finite(self.call(features, questions))
        if choices is None or not all(choices):
            raise ValueError("a question comes without the candidates to choose from")
        counts = [len(row) for row in choices]
        texts = [text.encode("utf-8", "replace") for row in choices for text in row]
        asked = [text for text, count in zip(questions, counts, strict=True) for _ in range(count)]
        scores = _finite(self.call(np.repeat(features, counts, axis=0), asked, texts))[:, 0]
        table = np.full((len(counts), max(counts)), -np.inf, np.float32)
        table[np.arange(max(counts)) < np.array(counts)[:, None]] = scores
        for row, texts_of_row in zip(table, choices, strict=True):
            if len(set(texts_of_row)) < len(texts_of_row):
                again = [texts_of_row.index(one) < n for n, one in enumerate(texts_of_row)]
                row[: len(again)][again] = -np.inf
        shares = np.exp(table - table.max(axis=1, keepdims=True))
        return shares / shares.sum(axis=1, keepdims=True)

    def restrict(
        self, probabilities: NDArray[np.float32], question_head: str
    ) -> NDArray[np.float32]:
        """Return float32[a] with yes and no alone for a question of the head yes_no.

        A vocabulary without one of them stays as it is.
        """
        if self.head != "open" or question_head != "yes_no" or not set(YES_NO) <= set(self.answers):
            return probabilities
        kept = np.where([answer in YES_NO for answer in self.answers], probabilities, 0)
        return np.asarray(kept / max(float(kept.sum()), 1e-30), np.float32)

    def best(
        self, scores: NDArray[np.float32], *, top: int, choices: Sequence[str] = ()
    ) -> list[dict[str, Any]]:
        """Return the `top` likeliest answers of one row of scores, the best first.

        Of equals the earlier in the vocabulary or among `choices` comes first. A count is one
        answer, with the number it was rounded from.
        """
        if self.head == "count":
            return [{"answer": str(self.count(scores)), "number": round(float(scores[0]), _DIGITS)}]
        texts = choices if self.head == "choice" else self.answers
        order = np.argsort(-scores[: len(texts)], kind="stable")[:top]
        return [
            {"answer": texts[place], "probability": round(float(scores[place]), _DIGITS)}
            for place in order
        ]

    def count(self, scores: NDArray[np.float32]) -> int:
        """Return the number of a counting model, rounded and within its range."""
        return int(np.clip(np.rint(scores[0]), *self.range))

    def knows(self, questions: Sequence[str]) -> list[bool]:
        """Return whether the model knows one word or more of each text."""
        if self.number is None or not questions:
            return [True] * len(questions)
        numbers = self.number([text.encode("utf-8", "replace") for text in questions])
        return [bool(row.any()) for row in numbers > _PAD_OR_UNKNOWN]

    def unknown_words(self, question: str) -> list[str]:
        """Return the words of `question`, as spaces part them, of which the model knows nothing."""
        words = [word.strip(string.punctuation) for word in question.split()]
        words = [word for word in words if word]
        return [word for word, known in zip(words, self.knows(words), strict=True) if not known]

    def fits(self, question_head: str) -> bool:
        """Return whether a question of this head is one that the model can answer."""
        return _HEAD_OF.get(question_head, question_head) == self.head


def _finite(outputs: NDArray[np.float32]) -> NDArray[np.float32]:
    bad = [not np.isfinite(row).all() for row in outputs]
    if any(bad):
        raise NotFiniteError(
            "the model gives answers that are not finite",
            got=f"{sum(bad)} of {len(bad)} questions are answered with NaN or infinity",
            todo="train the model again, with a lower --learning-rate",
        )
    return outputs


def read_head(model_dir: str) -> str:
    """Return "open", "choice" or "count" without loading the model; raises UsageError."""
    return _head(model_dir, _read_json(model_dir, "vocabulary.json"))


def _head(model_dir: str, fields: dict[str, Any]) -> str:
    head = fields.get("head", "open")
    if head not in _HEAD_OF.values():
        raise _damaged(model_dir, "vocabulary.json", f"the head {head!r}")
    return str(head)


def _language(model_dir: str, fields: dict[str, Any]) -> str | None:
    """Return what questions are cut into words as; raises UsageError where that cannot be done."""
    language = fields.get("language")
    if language is not None and language not in LANGUAGES:
        raise _damaged(model_dir, "vocabulary.json", f"the language {language!r}")
    check_language(language)
    return language


def read_lineage(model_dir: str) -> Lineage:
    """Return where the model in `model_dir` comes from.

    Raises UsageError where the folder holds no finished model or a damaged one.
    """
    for name in MODEL_FILES:
        if not storage.exists(storage.join(model_dir, name)):
            raise _no_model(model_dir, f"no {name} in it")
    _language(model_dir, _read_json(model_dir, "vocabulary.json"))
    fields = _read_json(model_dir, "lineage.json")
    try:
        spec = FeatureSpec.from_json(fields["spec"])
        stated = fields["fingerprint"]
        runs = tuple(str(run) for run in fields.get("runs") or ())
        cache = str(fields.get("cache") or "")
        hashes = tuple((fields.get("making") or {}).get("questions_sha256") or ())
        lineage = Lineage(spec, spec.random_weights, cache, runs, _split_rule(fields), hashes)
    except (KeyError, TypeError, AttributeError, ValueError, OverflowError) as err:
        raise _damaged(model_dir, "lineage.json", err) from err
    if stated != spec.fingerprint:
        got = f"the fingerprint {stated} for a spec of {spec.fingerprint}"
        raise _damaged(model_dir, "lineage.json", got)
    return lineage


def _split_rule(fields: dict[str, Any]) -> SplitRule | None:
    making = fields.get("making")
    if making is None:
        return None
    trained = making["config"]["train"]
    share = float(trained.get("val_share", VAL_SHARE))
    if not 0 <= share <= 1:
        raise ValueError(f"a val_share of {share}")
    return SplitRule(int(trained["seed"]), share)


def load_model(model_dir: str) -> TrainedModel:
    """Load MODEL/model.keras and its vocabulary, from disk or bucket; takes seconds.

    Raises UsageError where the folder holds no model or a damaged one, NotFiniteError.
    """
    fields = _read_json(model_dir, "vocabulary.json")
    head, answers, within = _head(model_dir, fields), fields.get("answers"), fields.get("range")
    if head == "open" and (not isinstance(answers, list) or not answers):
        raise _damaged(model_dir, "vocabulary.json", "no list of answers in it")
    if head == "count" and not (
        isinstance(within, list) and [type(bound) for bound in within] == [int, int]
    ):
        raise _damaged(model_dir, "vocabulary.json", "no range of counts in it")
    language = _language(model_dir, fields)
    model = load_network(model_dir)
    import tensorflow as tf

    answers = [str(answer) for answer in answers or []] if head == "open" else []
    if model.output.shape[-1] != (len(answers) or 1) or ("choice" in model.input) != (
        head == "choice"
    ):
        got = f"{len(answers)} answers, {head}, for a model of {model.output.shape[-1]} outputs"
        raise _damaged(model_dir, "vocabulary.json", got)
    text = _text_layer(model_dir, model)
    texts = ("question", "choice") if head == "choice" else ("question",)
    # One signature for all shapes: a batch of another length is no new graph.
    graph = tf.function(
        lambda features, *asked: model(
            {"features": features, **dict(zip(texts, asked, strict=True))}, training=False
        ),
        input_signature=[
            tf.TensorSpec((None, None, model.input["features"].shape[-1]), tf.float32),
            *(tf.TensorSpec((None,), tf.string) for _ in texts),
        ],
    )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # Keras wonders at a model of one answer
        graph.get_concrete_function()

    def call(features: NDArray[np.float32], *asked: list[bytes]) -> NDArray[np.float32]:
        outputs: NDArray[np.float32] = graph(
            features, *(tf.constant(cut_questions(texts, language)) for texts in asked)
        ).numpy()
        return outputs

    def number(asked: list[bytes]) -> NDArray[np.int64]:
        return np.asarray(text(tf.constant(cut_questions(asked, language), tf.string)), np.int64)

    low, high = within or (0, 0)
    return TrainedModel(call, tuple(answers), head, (int(low), int(high)), language, number)


def load_network(model_dir: str) -> keras.Model:
    """Load MODEL/model.keras; raises UsageError where there is none or a damaged one, and
    NotFiniteError."""
    data = _read_file(model_dir)
    import_tensorflow()
    model = _read_network(model_dir, data)
    _check_finite(model_dir, data)
    return model


def check_weights(model_dir: str) -> None:
    """Raise NotFiniteError where a weight of MODEL/model.keras is NaN or infinite, UsageError where
    there is none or a damaged one. Needs no TensorFlow."""
    _check_finite(model_dir, _read_file(model_dir))


def _text_layer(model_dir: str, model: keras.Model) -> keras.layers.TextVectorization:
    """Return the layer that makes numbers of texts."""
    import keras

    for layer in model.layers:
        if isinstance(layer, keras.layers.TextVectorization):
            return layer
    raise _damaged(model_dir, "model.keras", "a network that does not read text")


def _read_file(model_dir: str) -> bytes:
    try:
        return storage.read_bytes(storage.join(model_dir, "model.keras"))
    except storage.FileMissingError as err:
        raise _no_model(model_dir, "no model.keras in it") from err


def _check_finite(model_dir: str, data: bytes) -> None:
    import h5py

    bad: list[str] = []

    def look(name: str, item: Any) -> None:
        if "optimizer" in name.split("/"):  # which training leaves there, and nobody asks
            return
        if isinstance(item, h5py.Dataset) and item.dtype.kind == "f":
            if item.is_virtual or item.external:  # of another file, which is not looked into
                raise ValueError(f"{name} lies in another file")
            if not np.isfinite(item[()]).all():
                bad.append(name)

    try:
        with (
            zipfile.ZipFile(io.BytesIO(data)) as archive,
            h5py.File(io.BytesIO(archive.read(_WEIGHTS)), "r") as file,
        ):
            file.visititems(look)
    except Exception as err:  # a damaged archive can raise anything
        raise _damaged(model_dir, "model.keras", str(err)[:300]) from err
    if bad:
        raise NotFiniteError(
            f"the model {model_dir} has weights that are not finite",
            got=f"NaN or infinity in {len(bad)} of its arrays, such as {bad[0]}",
            todo="train it again with --overwrite and a lower --learning-rate",
        )


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
        fields = json_text.parse(storage.read_bytes(storage.join(model_dir, name)))
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
