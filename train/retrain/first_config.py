"""The retrain.toml to begin with: every key that `config.py` reads, its default, what it is.

    framebank retrain --init                   writes retrain.toml

Keys with a default are comments: what is not changed need not be said.
"""

from __future__ import annotations

import dataclasses
import json
import textwrap
from collections.abc import Iterator, Mapping
from typing import Any

from framebank.features.bounds import exact_size
from framebank.features.errors import UsageError
from framebank.features.stores import storage
from framebank.train.fit.command import MODEL_OPTIONS, TRAIN_OPTIONS
from framebank.train.model.config import (
    AUTO,
    CHOOSABLE,
    LR_SCHEDULES,
    OWN_SIZES,
    PRECISIONS,
    ModelConfig,
    TrainConfig,
)
from framebank.train.retrain.config import (
    SAYS,
    SUCH_AS,
    HeldConfig,
    PromoteConfig,
    RetrainConfig,
)

_START = """\
# What `framebank retrain --config retrain.toml` does. Paths that are not absolute are taken from
# the folder of this file. A line that begins with "# " and a key shows its default, or where it
# has none an example: take the "# " away to set it.
"""
_TABLES: Mapping[str, tuple[Any, str]] = {
    "held": (HeldConfig, "the videos that judge"),
    "promote": (PromoteConfig, "when the new model replaces the one in use"),
    "model": (ModelConfig, "as the options of `framebank train`"),
    "train": (TrainConfig, "as the options of `framebank train`"),
}
# Keys that are no option of `train` with a text of its own.
_TEXTS = {
    "kind": " | ".join(CHOOSABLE),
    "word_size": "width of a word's vector, where --embeddings gives none",
    "clip_sigma": "the most that a standardised feature counts",
    "lr_schedule": " | ".join(LR_SCHEDULES),
    "precision": " | ".join(PRECISIONS),
    "label_smoothing": "share of the truth that is spread over all answers",
    "group_by": "pattern that finds in a video's id the source that no split may cut",
}
_SUCH_AS = {"group_by": r"^(.*)_c\d+"}
_WIDTH = 100


def write_first_config(path: str) -> None:
    """Write the file, where there is none yet; raises UsageError."""
    if not storage.write_atomic(path, first_config().encode(), create_only=True):
        todo = "give another name: --init FILE"
        raise UsageError("there is such a file already", got=path, todo=todo)


def first_config() -> str:
    """Return the text of a retrain.toml of all keys."""
    lines = [_START]
    for field in dataclasses.fields(RetrainConfig):
        if field.name not in _TABLES:
            lines += _lines(field, field.metadata[SAYS], such_as=field.metadata[SUCH_AS])
    for table, (kind, said) in _TABLES.items():
        lines += ["", f"[{table}]  # {said}"]
        for field in dataclasses.fields(kind):
            own = {**_TEXTS, **MODEL_OPTIONS, **TRAIN_OPTIONS}
            says = field.metadata[SAYS] if SAYS in field.metadata else own[field.name]
            sizes = [
                f"{name} {its[field.name]}" for name, its in OWN_SIZES.items() if field.name in its
            ]
            more = f" (default of {', '.join(sizes)})" if sizes and table == "model" else ""
            lines += _lines(field, says + more, such_as=_SUCH_AS.get(field.name))
    return "\n".join(lines) + "\n"


def _lines(field: Any, says: str, *, such_as: Any) -> Iterator[str]:
    is_needed = field.default is dataclasses.MISSING
    value = such_as if is_needed or field.default is None else field.default
    if field.name == "kind":
        value = AUTO  # as read_config takes it
    text = exact_size(value) if field.name.endswith("_bytes") else value
    line = f"{'' if is_needed else '# '}{field.name} = {json.dumps(text)}"
    if len(whole := f"{line:34}  # {says}") <= _WIDTH:
        yield whole
    else:
        yield from textwrap.wrap(says, _WIDTH, initial_indent="#   ", subsequent_indent="#   ")
        yield line
