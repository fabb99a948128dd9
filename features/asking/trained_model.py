"""A trained model as those who ask it see it: its folder, its lineage, and its answers.

All commands read MODEL through this. Loading runs no code from the file, and no number that is not
finite gets past here: any comparison with NaN is false, so a judge would take it for what it likes.
Dimension letters: b batch, n frames, d feature width, a answers.
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

from framebank.features.asking import kept_model
from framebank.features.asking.heads import CHOICE, Head, choice_shares
from framebank.features.asking.segmenting import ask_rows
from framebank.features.errors import JobError, UsageError
from framebank.features.questions.splits import VAL_SHARE, SplitRule
from framebank.features.questions.word_cutting import LANGUAGES, check_language, cut_questions
from framebank.features.spec import FeatureSpec
from framebank.features.stores import json_text, storage
from framebank.features.tensorflow_import import import_tensorflow

if TYPE_CHECKING:
    import keras

MODEL_FILES = ("model.keras", "vocabulary.json", "lineage.json")
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
    questions: tuple[str, ...] = ()  # `questions.files.file_hashes` of what it was trained on


@dataclasses.dataclass(frozen=True)
class TrainedModel:
    """A network and its `head`, which says what its outputs stand for.

    `call` is the network: float32[b, n, d] features, padded on the right with rows of zeros, and b
    questions in UTF-8, for a choice also b candidates, to float32[b, a] or [b, 1], of segments
    [b, n, a + 1]. `number` gives the numbers of their words, int64[b, l].
    """

    call: Callable[..., NDArray[np.float32]]
    head: Head
    number: Callable[[list[bytes]], NDArray[np.int64]] | None = None

    def predict(
        self,
        features: NDArray[np.float32],
        questions: list[bytes],
        choices: Sequence[Sequence[str]] | None = None,
    ) -> NDArray[np.float32]:
        """Return probabilities float32[b, a] in the order of the head's answers, of a choice as
        `choice_shares` has them; of a count float32[b, 1], the number before it is rounded. Raises
        ValueError without candidates, NotFiniteError."""
        if self.head.kind != CHOICE:
            return _finite(self.call(features, questions))
        if choices is None or not all(choices):
            raise ValueError("a question comes without the candidates to choose from")
        counts = [len(row) for row in choices]
        texts = [text.encode("utf-8", "replace") for row in choices for text in row]
        asked = [text for text, count in zip(questions, counts, strict=True) for _ in range(count)]
        scores = _finite(self.call(np.repeat(features, counts, axis=0), asked, texts))[:, 0]
        return choice_shares(scores, choices)

    def ask_video(self, features: NDArray[Any]) -> NDArray[np.float32]:
        """Return what a model of segments says of each row of a video, however long: float32[n,
        a + 1] of float[n, d]. Raises NotFiniteError."""
        assert self.head.rule is not None
        return ask_rows(
            lambda windows: self.predict(windows, [b""] * len(windows)),
            features,
            self.head.rule.window,
        )

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


def _finite(outputs: NDArray[np.float32]) -> NDArray[np.float32]:
    bad = [not np.isfinite(row).all() for row in outputs]
    if any(bad):
        raise NotFiniteError(
            "the model gives answers that are not finite",
            got=f"{sum(bad)} of {len(bad)} questions are answered with NaN or infinity",
            todo="train the model again, with a lower --learning-rate",
        )
    return outputs


def read_head(model_dir: str) -> Head:
    """Return the model's head without loading it; raises UsageError."""
    return _read_vocabulary(model_dir)[0]


def _read_vocabulary(model_dir: str) -> tuple[Head, str | None]:
    """Return the head, and what questions are cut into words as; raises UsageError."""
    fields = _read_json(model_dir, "vocabulary.json")
    try:
        head, language = Head.from_json(fields), fields.get("language")
        if language is not None and language not in LANGUAGES:
            raise ValueError(f"the language {language!r}")
    except ValueError as err:
        raise _damaged(model_dir, "vocabulary.json", err) from err
    check_language(language)
    return head, language


def read_lineage(model_dir: str) -> Lineage:
    """Return where a model comes from; raises UsageError for no finished model or a damaged one."""
    if not storage.exists(storage.join(model_dir, "model.keras")):
        raise _no_model(model_dir, "model.keras")
    _read_vocabulary(model_dir)
    fields = _read_json(model_dir, "lineage.json")
    try:
        spec, stated = FeatureSpec.from_json(fields["spec"]), fields["fingerprint"]
        runs = tuple(str(run) for run in fields.get("runs") or ())
        cache = str(fields.get("cache") or "")
        making = fields.get("making")
        hashes = tuple((making or {}).get("questions_sha256") or ())
        lineage = Lineage(spec, spec.random_weights, cache, runs, _split_rule(making), hashes)
    except (KeyError, TypeError, AttributeError, ValueError, OverflowError) as err:
        raise _damaged(model_dir, "lineage.json", err) from err
    if stated != spec.fingerprint:
        got = f"the fingerprint {stated} for a spec of {spec.fingerprint}"
        raise _damaged(model_dir, "lineage.json", got)
    return lineage


def _split_rule(making: dict[str, Any] | None) -> SplitRule | None:
    if making is None:
        return None
    trained = making["config"]["train"]
    share = float(trained.get("val_share", VAL_SHARE))
    if not 0 <= share <= 1:
        raise ValueError(f"a val_share of {share}")
    group_by = trained.get("group_by")
    return SplitRule(int(trained["seed"]), share, group_by=group_by and str(group_by))


def load_model(model_dir: str, *, keep: bool = False) -> TrainedModel:
    """Load MODEL/model.keras and its vocabulary, from disk or bucket; takes seconds. Raises
    UsageError where the folder holds no model or a damaged one, NotFiniteError.

    With `keep` what is made of it is kept on this machine, and taken up where it was.
    """
    head, language = _read_vocabulary(model_dir)
    texts = (("question", "choice") if head.kind == CHOICE else ("question",)) if head.asks else ()
    names = ("model.keras", "vocabulary.json")
    key = kept_model.key_of(*(_read(model_dir, name) for name in names)) if keep else None
    functions = kept_model.load(key) if key else None
    if functions is None:
        model = load_network(model_dir)
        functions = _functions(model_dir, model, head, texts)
        if key:
            kept_model.keep(key, model, functions)
    answer, numbering = functions
    import tensorflow as tf

    def call(features: NDArray[np.float32], *asked: list[bytes]) -> NDArray[np.float32]:
        outputs: NDArray[np.float32] = answer(
            tf.constant(features, tf.float32),
            *(tf.constant(cut_questions(one, language)) for one in asked[: len(texts)]),
        ).numpy()
        return outputs

    def number(asked: list[bytes]) -> NDArray[np.int64]:
        assert numbering is not None
        texts = tf.constant(cut_questions(asked, language), tf.string)
        return np.asarray(numbering(texts), np.int64)

    return TrainedModel(call, head, number if numbering is not None else None)


def _functions(
    model_dir: str, model: keras.Model, head: Head, texts: tuple[str, ...]
) -> kept_model.Functions:
    """Return a model as functions that take any number of questions; raises UsageError."""
    import keras
    import tensorflow as tf

    outputs = model.output.shape[-1]
    if outputs != head.width or set(model.input) != {"features", *texts}:
        got = f"{len(head.answers)} answers, {head.kind}, for a model of {outputs} outputs"
        raise _damaged(model_dir, "vocabulary.json", got)
    kind = keras.layers.TextVectorization
    text = next((layer for layer in model.layers if isinstance(layer, kind)), None)
    if text is None and head.asks:
        raise _damaged(model_dir, "model.keras", "a network that does not read text")
    # One signature for all shapes: a batch of another length is no new graph.
    asked = tf.TensorSpec((None,), tf.string)
    answer = tf.function(
        lambda features, *asked: model(
            {"features": features, **dict(zip(texts, asked, strict=True))}, training=False
        ),
        input_signature=[
            tf.TensorSpec((None, None, model.input["features"].shape[-1]), tf.float32),
            *(asked for _ in texts),
        ],
    )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # Keras wonders at a model of one answer
        answer.get_concrete_function()
    number = None
    if text is not None:
        number = tf.function(lambda asked: text(asked), input_signature=[asked])
    return kept_model.Functions(answer, number)


def load_network(model_dir: str) -> keras.Model:
    """Load MODEL/model.keras, and run no code in it; raises UsageError where there is none or a
    damaged one, and NotFiniteError."""
    data = _read(model_dir, "model.keras")
    import_tensorflow()
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
            model.input["features"]  # what `predict` gives it
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
    check_weights(model_dir, data)
    return model


def check_weights(model_dir: str, data: bytes | None = None) -> None:
    """Raise NotFiniteError where a weight of MODEL/model.keras (or its `data`) is NaN or infinite,
    UsageError where there is none or a damaged one. Needs no TensorFlow."""
    import h5py

    data = _read(model_dir, "model.keras") if data is None else data
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


def pad_clips(clips: Sequence[NDArray[Any]]) -> NDArray[np.float32]:
    """Return float32[b, n, d] of clips float[n_i, d], padded on the right with rows of zeros."""
    longest = max(len(clip) for clip in clips)
    padded = np.zeros((len(clips), longest, clips[0].shape[1]), np.float32)
    for place, clip in enumerate(clips):
        padded[place, : len(clip)] = clip
    return padded


def _read(model_dir: str, name: str) -> bytes:
    try:
        return storage.read_bytes(storage.join(model_dir, name))
    except storage.FileMissingError as err:
        raise _no_model(model_dir, name) from err


def _read_json(model_dir: str, name: str) -> dict[str, Any]:
    try:
        return json_text.parse_object(_read(model_dir, name))
    except ValueError as err:
        raise _damaged(model_dir, name, err) from err


def _no_model(model_dir: str, missing: str) -> UsageError:
    return UsageError(
        f"{model_dir} is not a trained model",
        got=f"no {missing} in it",
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
