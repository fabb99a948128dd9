"""The probe: answers read off a clip's temporal moments by ridge regression, without an epoch.

Each question that is asked of enough clips has a regression of its own; other questions share those
of their first word, or one for all, which also see the question's words. A regression looks at what
held-out clips speak for: the mean frame alone, or also how frames differ (`CANDIDATES`). The probe
is what five lines of NumPy do, done with care: no trained kind is worth its training below it.

A fitted probe becomes a network of Keras' own layers with the inputs and outputs of every other
kind. Dimension letters: b batch, d feature width, a outputs, l words of a question, r rows.
"""

from __future__ import annotations

import collections
import dataclasses
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from framebank.train.model.config import PROBE_BLIND, ModelConfig
from framebank.train.model.frames import frame_mask
from framebank.train.model.heads import CHOICE, COUNT, Head, reluctance
from framebank.train.model.moments import MOMENTS, ORDER_BLIND, Scale, temporal_moments
from framebank.train.model.ridge import Ridge, fit_ridge

if TYPE_CHECKING:
    import keras

WORDS = "words"  # the block of a question's words: 1 for each that is in it
CANDIDATES = (
    ("mean",),
    ("mean", "maximum"),
    ("mean", "difference"),
    ("mean", "difference", "deviation"),
    MOMENTS,
)
BLIND_CANDIDATES = (("mean",), ("mean", "maximum"), ORDER_BLIND)
MOST_ROWS = 2048  # of one regression; of more, some are drawn
_OWN_ROWS, _MOST_OWN = 20, 32  # a question with a regression of its own is asked of so many clips
_KIND_ROWS, _MOST_KINDS = 100, 16
_MOST_OUTPUTS = 1000
_FLOOR = -30.0  # the logit of an answer that a regression has never seen
_SHARPNESS = np.geomspace(0.5, 60, 60)  # what scores are multiplied with before the softmax
_USUAL = 5.5  # of them, where few rows speak


@dataclasses.dataclass(frozen=True)
class Rows:
    """What a probe is fitted to: the clip int64[r] of each row, its words int32[r, l], its truth
    float64[r] (answer or number) and its group; of a choice `right` and `mean` float64[r, w]
    are the words (`word_shares`) of the true candidate and their mean over all candidates."""

    clip: NDArray[np.int64]
    words: NDArray[np.int32]
    truth: NDArray[Any]
    groups: Sequence[str]
    right: NDArray[np.float64] | None = None
    mean: NDArray[np.float64] | None = None

    def take(self, rows: NDArray[np.int64]) -> Rows:
        """Return some of the rows."""
        return Rows(
            self.clip[rows],
            self.words[rows],
            self.truth[rows],
            [self.groups[row] for row in rows],
            None if self.right is None else self.right[rows],
            None if self.mean is None else self.mean[rows],
        )


@dataclasses.dataclass(frozen=True)
class Part:
    """One regression: of the questions that have, or open with, just these `words`.

    `outputs` int64[o] are the answers (of a choice the words) that it gives.
    """

    words: tuple[int, ...]
    whole: bool
    rows: int
    outputs: NDArray[np.int64]
    ridge: Ridge
    sharpness: float


@dataclasses.dataclass(frozen=True)
class Probe:
    """A fitted probe: its parts in the order in which they are tried; the last is for all."""

    scale: Scale
    parts: list[Part]

    def describe(self) -> str:
        """Return one line on what was chosen."""
        shares: dict[str, float] = collections.defaultdict(float)
        for part in self.parts:
            for blocks, (share, _) in part.ridge.shares.items():
                shares[" + ".join(blocks)] += share / len(self.parts)
        regressions = "regression" if len(self.parts) == 1 else "regressions"
        return f"{len(self.parts)} {regressions}: " + "; ".join(
            f"{share:.0%} on {blocks}"
            for blocks, share in sorted(shares.items(), key=lambda item: -item[1])[:4]
        )


def fit_probe(
    config: ModelConfig,
    moments: Mapping[str, NDArray[np.float32]],
    rows: Rows,
    head: Head,
    *,
    words: int,
    seed: int,
) -> Probe:
    """Fit the probe of `config.kind`: `moments` are float32[clips, d] by name, `words` the size of
    the vocabulary."""
    candidates: Sequence[tuple[str, ...]]
    candidates = BLIND_CANDIDATES if config.kind == PROBE_BLIND else CANDIDATES
    scale = Scale.of(moments)
    scaled = {name: np.asarray(scale.apply(name, column)) for name, column in moments.items()}
    dice = np.random.default_rng(seed)
    parts = []
    for prefix, whole, its in _parts(rows.words):
        if len(its) > MOST_ROWS:
            its = np.sort(dice.permutation(its)[:MOST_ROWS])
        part = rows.take(its)
        outputs, targets = _targets(part, head)
        blocks = {name: column[part.clip] for name, column in scaled.items()}
        tried: Sequence[tuple[str, ...]] = candidates
        if len(np.unique(part.words, axis=0)) > 1:
            blocks[WORDS] = _word_sets(part.words, words)
            tried = tuple((*candidate, WORDS) for candidate in candidates)
        ridge = fit_ridge(blocks, targets, part.groups, tried, seed=seed)
        sharpness = _sharpness(ridge.held_out, part.truth, outputs) if head.answers else 1.0
        parts.append(Part(prefix, whole, len(its), outputs, ridge, sharpness))
    return Probe(scale, parts)


def _parts(words: NDArray[np.int32]) -> list[tuple[tuple[int, ...], bool, NDArray[np.int64]]]:
    """Return the parts of the rows: (words, whether these are all, rows), the narrowest first."""
    asked = [tuple(row[row != 0].tolist()) for row in words]
    by_text: dict[tuple[int, ...], list[int]] = collections.defaultdict(list)
    by_word: dict[tuple[int, ...], list[int]] = collections.defaultdict(list)
    for number, text in enumerate(asked):
        by_text[text].append(number)
        by_word[text[:2]].append(number)  # the first number only opens the question
    own = sorted(by_text, key=lambda text: (-len(by_text[text]), text))[:_MOST_OWN]
    kinds = sorted(by_word, key=lambda text: (-len(by_word[text]), text))[:_MOST_KINDS]
    found = [(text, True, by_text[text]) for text in own if len(by_text[text]) >= _OWN_ROWS]
    if len(by_text) > 1:
        found += [
            (text, False, by_word[text])
            for text in kinds
            if len(by_word[text]) >= _KIND_ROWS and len({asked[row] for row in by_word[text]}) > 1
        ]
        found.append(((), False, list(range(len(asked)))))
    else:  # one question alone: whatever is asked, it is that
        found = [((), False, list(range(len(asked))))]
    return [(text, whole, np.array(its, np.int64)) for text, whole, its in found]


def _targets(rows: Rows, head: Head) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """Return (outputs int64[o], targets float64[r, o])."""
    if head.kind == COUNT:
        return np.zeros(1, np.int64), rows.truth.astype(np.float64)[:, None]
    if head.kind == CHOICE:
        assert rows.right is not None and rows.mean is not None
        uses = (rows.right > 0).sum(axis=0)
        outputs = np.sort(np.argsort(-uses, kind="stable")[: min(_MOST_OUTPUTS, (uses > 0).sum())])
        return outputs, (rows.right - rows.mean)[:, outputs]
    outputs = np.unique(rows.truth).astype(np.int64)
    return outputs, (rows.truth[:, None] == outputs[None]).astype(np.float64)


def _sharpness(
    held_out: NDArray[np.float64], truth: NDArray[Any], outputs: NDArray[np.int64]
) -> float:
    """Return what makes probabilities of scores: with it what was held out is the least surprise.

    Scores stand around the share of an answer, between 0 and 1, and their softmax is nearly flat.
    """
    seen = np.isfinite(held_out).all(axis=1)
    scores, right = held_out[seen], np.searchsorted(outputs, truth[seen])
    surprise = []
    for sharpness in _SHARPNESS:
        logits = scores * sharpness
        top = logits.max(axis=1, keepdims=True)
        total = np.log(np.exp(logits - top).sum(axis=1)) + top[:, 0]
        surprise.append((total - logits[np.arange(len(right)), right]).sum())
    return float(_SHARPNESS[int(np.argmin(surprise + reluctance(_SHARPNESS / _USUAL)))])


def _word_sets(words: NDArray[np.int32], size: int) -> NDArray[np.float32]:
    """Return float32[r, size]: 1 for each word of a row, as Keras' CategoryEncoding has it."""
    sets = np.zeros((len(words), size), np.float32)
    sets[np.arange(len(words))[:, None], words] = 1
    return sets


def word_shares(words: NDArray[np.int32], size: int) -> NDArray[np.float64]:
    """Return float64[r, size]: the words of a text as a vector of length 1, without padding."""
    sets = _word_sets(words, size).astype(np.float64)
    sets[:, :2] = 0
    return sets / np.maximum(np.sqrt(sets.sum(axis=1, keepdims=True)), 1)


def probe_network(
    config: ModelConfig,
    probe: Probe,
    head: Head,
    *,
    words: int,
    answers: int = 0,
    sharp: bool = True,
) -> keras.Model:
    """Return the probe as a network, as `train.model.network.build_network` returns one; its
    scores are probabilities only if `sharp`."""
    import keras
    from keras import layers, ops

    width = len(probe.scale.mean["mean"])
    features = keras.Input((None, width), name="features", dtype="float32")
    inputs = {}
    if head.asks:
        inputs["words"] = keras.Input((None,), name="words", dtype="int32")
    if head.kind == CHOICE:
        inputs["choice"] = keras.Input((None,), name="choice", dtype="int32")
    used = {name for part in probe.parts for name in part.ridge.blocks}
    moments = [name for name in MOMENTS if name in used]
    made = temporal_moments(features, frame_mask(features), moments)
    blocks = {name: probe.scale.apply(name, moment) for name, moment in made.items()}
    if WORDS in used or head.kind == CHOICE:
        encode = layers.CategoryEncoding(words, output_mode="multi_hot")
    if WORDS in used:
        blocks[WORDS] = encode(inputs["words"])
    choice = None
    if head.kind == CHOICE:
        choice = encode(inputs["choice"]) * np.array([0, 0] + [1] * (words - 2), np.float32)
        length = ops.sqrt(ops.sum(choice, axis=1, keepdims=True))
        choice = choice / ops.maximum(length, 1.0)
    names = head.kind not in (CHOICE, COUNT)
    size = (answers or len(head.answers)) if names else 1
    total, free = 0.0, 1.0
    for number, part in enumerate(probe.parts):
        seen = [blocks[name] for name in part.ridge.blocks]
        joined = layers.Concatenate()(seen) if len(seen) > 1 else seen[0]
        scores = layers.Dense(len(part.outputs), name=f"part{number}", dtype="float32")(joined)
        if names:
            places = np.full(size, len(part.outputs))
            places[part.outputs] = np.arange(len(part.outputs))
            floor = ops.full_like(scores[:, :1], _FLOOR)
            scores = ops.take(ops.concatenate([scores, floor], axis=1), places, axis=1)
        elif choice is not None:
            said = ops.take(choice, part.outputs, axis=1)
            scores = ops.sum(scores * said, axis=1, keepdims=True)
        if not part.words:
            total = total + scores * free
        else:
            its = free * _is_of(part, inputs["words"])
            free, total = free - its, total + scores * its
    if names:
        total = layers.Activation("softmax", dtype="float32", name="answers")(total)
    network = keras.Model({"features": features} | inputs, total, name=config.kind)
    for number, part in enumerate(probe.parts):
        kernel = np.concatenate([part.ridge.kernels[name] for name in part.ridge.blocks])
        sharpness = part.sharpness if sharp else 1.0
        weights = [sharpness * kernel, sharpness * part.ridge.bias]
        network.get_layer(f"part{number}").set_weights(weights)
    return network


def _is_of(part: Part, words: Any) -> Any:
    """Return float[b, 1]: 1 where the question is the part's, else 0."""
    from keras import ops

    size = len(part.words)
    padded = ops.pad(words, [[0, 0], [0, size]])
    same = ops.all(ops.equal(padded[:, :size], np.array(part.words, np.int32)), axis=1)
    if part.whole:
        same = ops.logical_and(same, ops.all(ops.equal(padded[:, size:], 0), axis=1))
    return ops.expand_dims(ops.cast(same, "float32"), 1)
