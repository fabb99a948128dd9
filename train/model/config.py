"""What a model is and how it is trained, as frozen dataclasses that check themselves."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

from framebank.features.bounds import MOST_BYTES, MOST_FLOAT, MOST_INT, MOST_SEED, check_number
from framebank.features.errors import UsageError
from framebank.features.questions.sources import compile_grouping
from framebank.features.questions.splits import VAL_SHARE

# The first by default.
TRAINED_KINDS = ("lstm", "attention", "transformer", "bigru", "wide", "mean")
TASKS = ("ask", "classify", "detect")  # answer questions, name a class, find segments
# What reads the rows of a long video, and what sees each row alone.
SEGMENT_KINDS = ("lstm", "bigru", "order_blind")
PROBE, PROBE_BLIND = "probe", "probe_blind"  # closed formulas of a clip's moments
AUTO = "auto"  # whichever answers held-out training clips best
IMAGE_QA = "image_qa"  # one picture, three LSTMs of words: train.model.image_qa
# Beside which `auto` does not look: each frame by itself, and moments without a recurrence.
PLAIN_KINDS = ("vote", "mlp")
PICTURE_KINDS = ("cnn_lstm", "cnn3d")  # of a cache of pixels: train.model.picture_readers
NETWORK_KINDS = (  # trained by epochs
    *TRAINED_KINDS, *PLAIN_KINDS, *PICTURE_KINDS, IMAGE_QA, "order_blind", "question_only",
)  # fmt: skip
MODEL_KINDS = (*NETWORK_KINDS, PROBE, PROBE_BLIND, AUTO)
CHOOSABLE = (AUTO, PROBE, *TRAINED_KINDS, *PLAIN_KINDS, *PICTURE_KINDS, IMAGE_QA)
READERS, DENSE_LAYERS = 3, 3  # of image_qa: LSTMs, and dense layers before the answers
GATES = ("sigmoid", "hard_sigmoid")  # of those LSTMs
# Sizes that a kind has by default in place of those of all.
OWN_SIZES: Mapping[str, Mapping[str, Any]] = {
    IMAGE_QA: {
        "word_size": 300,
        "question_units": 512,
        "dense_units": 1024,
        "dropout": 0.5,
        "frame_dropout": 0.0,
    }
}
LR_SCHEDULES = ("constant", "cosine", "plateau")
PRECISIONS = ("float32", "bfloat16")
STRATEGIES = ("none", "mirrored", "multi_worker", "tpu")  # train.workers.replicas makes them
_LATER = (("seeds", 1), ("group_by", None))
_MOST_WIDTH = 2**16  # of a layer, or a batch: far more than any machine has room for


@dataclasses.dataclass(frozen=True)
class ModelConfig:
    """Sizes of the model; `kind` says what it may look at (the baselines see less).

    `answers` and `words` cap the two vocabularies; `clip_sigma` caps standardised features.
    `frame_dropout` drops whole feature columns of a clip, `dropout` acts before the dense layers.
    `segment_units` is the width of what reads the rows of a video to find segments in it, which
    drops `segment_dropout` in place of the two others.
    """

    kind: str = "lstm"
    projection: int = 128
    frame_units: int = 96
    word_size: int = 32
    question_units: int = 48
    dense_units: int = 64
    answers: int = 1000
    words: int = 10_000
    dropout: float = 0.3
    frame_dropout: float = 0.3
    clip_sigma: float = 5.0
    segment_units: int = 512
    segment_dropout: float = 0.5

    def __post_init__(self) -> None:
        if self.kind not in MODEL_KINDS:
            raise UsageError("no such model", got=self.kind, expected=" | ".join(MODEL_KINDS))
        sizes = ("projection", "frame_units", "word_size", "question_units", "dense_units")
        _check(self, (*sizes, "segment_units"), 0, _MOST_WIDTH, above=True)
        _check(self, ("answers", "words"), 0, MOST_INT, above=True)
        _check(self, ("clip_sigma",), 0, MOST_FLOAT, above=True)
        drops = ("dropout", "frame_dropout", "segment_dropout")
        _check(self, drops, 0, 1, below=True)  # of 1 nothing would be left

    @classmethod
    def of(cls, **given: Any) -> ModelConfig:
        """Return the config of what is given, the rest by default of its kind; None is not."""
        chosen = {name: value for name, value in given.items() if value is not None}
        return cls(**{**OWN_SIZES.get(chosen.get("kind", cls.kind), {}), **chosen})

    def lasting(self) -> dict[str, Any]:
        """Return the fields that the result depends on; one that older versions did not know is no
        difference from them where it is not used."""
        fields = dataclasses.asdict(self)
        for name in ("segment_units", "segment_dropout"):
            if fields[name] == getattr(ModelConfig, name):
                del fields[name]
        return fields


@dataclasses.dataclass(frozen=True)
class TrainConfig:
    """How to train; the options of `framebank train` say what each field is.

    `precision` bfloat16 computes in that and keeps weights in float32; unlike float16 it needs no
    scaling of the loss. At a `val_share` of 0 all training videos train, and what they say chooses
    the epoch. `group_by` is a pattern that finds in a video's id the group that no split may cut.
    `checkpoint_every_s` bounds what a kill can cost.
    """

    epochs: int = 60
    batch_size: int = 32
    learning_rate: float = 2e-3
    lr_schedule: str = "cosine"
    warmup_epochs: float = 0.0
    precision: str = "float32"
    weight_decay: float = 0.2
    clip_norm: float = 1.0
    label_smoothing: float = 0.05
    patience: int = 15
    val_share: float = VAL_SHARE
    seed: int = 0
    seeds: int = 1
    group_by: str | None = None
    max_unmatched_ratio: float = 0.2
    checkpoint_every_s: float = 20.0
    memory_bytes: int = 2**31
    shuffle_bytes: int = 2**28

    def __post_init__(self) -> None:
        _check(self, ("epochs", "patience", "seeds"), 0, MOST_INT, above=True)
        _check(self, ("batch_size",), 0, _MOST_WIDTH, above=True)
        _check(self, ("memory_bytes", "shuffle_bytes"), 0, MOST_BYTES, above=True)
        _check(self, ("learning_rate", "clip_norm"), 0, MOST_FLOAT, above=True)
        _check(self, ("weight_decay", "warmup_epochs", "checkpoint_every_s"), 0, MOST_FLOAT)
        _check(self, ("val_share", "label_smoothing"), 0, 1, below=True)
        _check(self, ("max_unmatched_ratio",), 0, 1)
        _check(self, ("seed",), 0, MOST_SEED)
        if self.group_by is not None:
            compile_grouping(self.group_by)
        if self.warmup_epochs and self.lr_schedule != "cosine":
            raise UsageError(
                "--warmup-epochs belongs to --lr-schedule cosine",
                got=f"{self.warmup_epochs} with {self.lr_schedule}",
            )
        if self.precision not in PRECISIONS:
            expected = " | ".join(PRECISIONS)
            raise UsageError("no such --precision", got=self.precision, expected=expected)
        if self.lr_schedule not in LR_SCHEDULES:
            expected = " | ".join(LR_SCHEDULES)
            raise UsageError("no such --lr-schedule", got=self.lr_schedule, expected=expected)

    def lasting(self) -> dict[str, Any]:
        """Return the fields that the result depends on: those a resumed run must share."""
        free = {"checkpoint_every_s", "memory_bytes"}
        # What older versions did not know is no difference from them where it is not used.
        free |= {name for name, unused in _LATER if getattr(self, name) == unused}
        return {name: value for name, value in dataclasses.asdict(self).items() if name not in free}


def _check(config: object, names: Sequence[str], low: float, high: float, **ends: bool) -> None:
    for name in names:
        check_number("--" + name.replace("_", "-"), getattr(config, name), low, high, **ends)
