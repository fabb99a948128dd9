"""What `framebank retrain` does, as its TOML file says it; every key is checked when it is read.

    registry = "gs://my-bucket/registry"       # folder or bucket of the models
    cache = "gs://my-bucket/cache"
    questions = ["gs://my-bucket/questions.jsonl"]
    start = "warm"                             # from the model in use, or "fresh"

    [held]                                     # the videos that judge, and that no model sees
    share = 0.1
    least = 50                                 # questions, below which nothing is compared

    [promote]                                  # when the new model replaces the one in use
    margin = 0.01                              # accuracy (of counts: mean square error) to gain
    confidence = 0.95                          # share of bootstrap rounds in which it is better

    [model]                                    # as the options of `framebank train`; kind = "auto"
    [train]

Further keys at the top: format, mapping, language and embeddings (as the options of `framebank
train`), baselines (false) and work (a folder in which training goes on where a killed one was).
Paths that are not absolute are taken from the folder of the config file; ~ is the home folder.
"""

from __future__ import annotations

import argparse
import dataclasses
import difflib
import functools
import hashlib
import json
import re
import types
import typing
from collections.abc import Mapping
from typing import Any

from framebank.features.bounds import MOST_INT, MOST_SEED, parse_size, within
from framebank.features.errors import UsageError
from framebank.features.questions.files import QuestionFiles
from framebank.features.questions.known_sets import FORMATS
from framebank.features.questions.word_cutting import LANGUAGES, check_language
from framebank.features.stores import storage, toml_text
from framebank.train.model.config import AUTO, CHOOSABLE, ModelConfig, TrainConfig

STARTS = ("warm", "fresh")
SAYS, SUCH_AS = "says", "such as"  # metadata of the fields that are keys
_PATHS = ("registry", "cache", "mapping", "embeddings", "work")  # and questions


def _key(says: str, default: Any = dataclasses.MISSING, *, such_as: Any = None) -> Any:
    """Return a field that is a key of the file; `such_as` is a value where there is no default."""
    told = {SAYS: says, SUCH_AS: such_as}
    return dataclasses.field(default=default, metadata=told)


@dataclasses.dataclass(frozen=True)
class HeldConfig:
    """`share` of the videos judge; with fewer than `least` of their questions nothing is judged."""

    share: float = _key("of the videos, which judge and which no model sees", 0.1)
    least: int = _key("questions, below which nothing is compared", 50)

    def __post_init__(self) -> None:
        _check_range("held.share", self.share, 0.01, 0.5)
        _check_range("held.least", self.least, 1, MOST_INT)


@dataclasses.dataclass(frozen=True)
class PromoteConfig:
    """When a model is better: by `margin` in accuracy (of counts in mean square error), and in
    `confidence` of bootstrap rounds."""

    margin: float = _key("accuracy (of counts: mean square error) to gain", 0.01)
    confidence: float = _key("share of bootstrap rounds in which it must be better", 0.95)
    rounds: int = _key("of the bootstrap", 2000)
    seed: int = _key("of the bootstrap", 0)

    def __post_init__(self) -> None:
        _check_range("promote.margin", self.margin, 0, 1)
        _check_range("promote.confidence", self.confidence, 0.5, 1)
        _check_range("promote.rounds", self.rounds, 100, 100_000)
        _check_range("promote.seed", self.seed, 0, MOST_SEED)


@dataclasses.dataclass(frozen=True)
class RetrainConfig:
    """All of retrain.toml."""

    registry: str = _key("folder or bucket of the models", such_as="registry")
    cache: str = _key("the feature cache", such_as="cache")
    questions: tuple[str, ...] = _key(
        "question files, or files of labels or segments", such_as=["questions.csv"]
    )
    start: str = _key('from the model in use, or "fresh"', "warm")
    format: str | None = _key("of the question files", None, such_as=FORMATS[0])
    mapping: str | None = _key("other names of the videos", None, such_as="youtube_mapping.txt")
    language: str | None = _key("of the questions", None, such_as=LANGUAGES[0])
    embeddings: str | None = _key("pretrained word vectors", None, such_as="vectors.bin")
    baselines: bool = _key("train baselines too", False)
    work: str | None = _key(
        "a folder in which training goes on where a stopped one was", None, such_as="work"
    )
    held: HeldConfig = dataclasses.field(default_factory=HeldConfig)
    promote: PromoteConfig = dataclasses.field(default_factory=PromoteConfig)
    model: ModelConfig = dataclasses.field(default_factory=ModelConfig)
    train: TrainConfig = dataclasses.field(default_factory=TrainConfig)

    def __post_init__(self) -> None:
        if self.start not in STARTS:
            raise _mistake("start", repr(self.start), " | ".join(STARTS))
        if self.format is not None and self.format not in FORMATS:
            raise _mistake("format", repr(self.format), " | ".join(FORMATS))
        if self.model.kind not in CHOOSABLE:
            raise _mistake("model.kind", repr(self.model.kind), " | ".join(CHOOSABLE))
        check_language(self.language)
        if not self.questions:
            raise _mistake("questions", "no file", "at least one question file")
        if self.work is not None and not storage.is_local(self.work):
            raise _mistake("work", self.work, "a folder on this machine")

    @property
    def files(self) -> QuestionFiles:
        return QuestionFiles(self.questions, self.format, self.mapping)

    def digest(self) -> str:
        """Return a hash of what the result depends on beside data; raises UsageError."""
        fields: dict[str, Any] = {
            "start": self.start,
            "format": self.format,
            "held": dataclasses.asdict(self.held),
            "promote": dataclasses.asdict(self.promote),
            "model": dataclasses.asdict(self.model),
            "train": self.train.lasting(),
        }
        if self.language is not None:
            fields["language"] = self.language
        if self.embeddings is not None:
            found = storage.find(self.embeddings)
            if found is None:
                raise UsageError(
                    "no such file", got=self.embeddings, todo="check the key embeddings"
                )
            fields["embeddings"] = dataclasses.astuple(found)
        return hashlib.sha256(json.dumps(fields, sort_keys=True).encode()).hexdigest()[:32]


def read_config(path: str) -> RetrainConfig:
    """Read retrain.toml from disk or bucket; raises UsageError for each mistake in it."""
    fields = toml_text.read(path)
    if isinstance(table := fields.setdefault("model", {}), dict):
        table.setdefault("kind", AUTO)  # as of `framebank train`
    try:
        return _placed(typing.cast(RetrainConfig, _read_table(RetrainConfig, fields, "")), path)
    except UsageError as err:
        what = f"{path}: {err.what}"
        raise UsageError(what, got=err.got, expected=err.expected, todo=err.todo) from err


def _placed(config: RetrainConfig, path: str) -> RetrainConfig:
    """Return the config with its paths taken from the folder of the file that it came from."""
    place = functools.partial(toml_text.place, config=path)
    named = {name: getattr(config, name) for name in _PATHS}
    placed: dict[str, Any] = {name: place(own) for name, own in named.items() if own is not None}
    return dataclasses.replace(config, questions=tuple(map(place, config.questions)), **placed)


def _read_table(kind: type, fields: Mapping[str, Any], where: str) -> Any:
    """Make a `kind` from a table of TOML; `where` is the prefix of its keys."""
    hints = typing.get_type_hints(kind)
    known = {field.name: field for field in dataclasses.fields(kind)}
    for name in fields:
        if name not in known:
            names = [where + other for other in known]
            close = difflib.get_close_matches(where + name, names, n=1)
            todo = f"did you mean {close[0]}?" if close else None
            raise UsageError("unknown key", got=where + name, expected=", ".join(names), todo=todo)
    given = {}
    for name, field in known.items():
        if name in fields:
            given[name] = _read_value(hints[name], fields[name], where + name)
        elif field.default is field.default_factory is dataclasses.MISSING:
            expected = f'{name} = "..."' if name != "questions" else 'questions = ["..."]'
            raise UsageError(f"the key {where}{name} is missing", expected=expected)
    try:
        return ModelConfig.of(**given) if kind is ModelConfig else kind(**given)
    except UsageError as err:  # of a key that the command line calls by its option
        what = re.sub(r"^--([a-z-]+)", lambda word: where + word[1].replace("-", "_"), err.what)
        raise UsageError(what, got=err.got, expected=err.expected, todo=err.todo) from err


def _read_value(hint: Any, value: Any, name: str) -> Any:
    if dataclasses.is_dataclass(hint):
        if not isinstance(value, dict):
            raise _mistake(name, repr(value), f"a table: [{name}]")
        return _read_table(typing.cast(type, hint), value, f"{name}.")
    if isinstance(hint, types.UnionType):  # T | None
        hint = next(part for part in typing.get_args(hint) if part is not type(None))
    if typing.get_origin(hint) is tuple:
        if isinstance(value, list) and all(isinstance(one, str) for one in value):
            return tuple(_read_value(str, one, name) for one in value)
        raise _mistake(name, repr(value), 'a list of texts: ["...", "..."]')
    if name.endswith("_bytes") and isinstance(value, str):
        try:
            return parse_size(value)
        except argparse.ArgumentTypeError as err:
            raise _mistake(name, repr(value), 'a number of bytes, or such as "512 MiB"') from err
    if hint is float and isinstance(value, int) and not isinstance(value, bool):
        if abs(value) > MOST_INT:  # of 400 digits there is no float
            raise _mistake(name, f"a number of {len(str(abs(value)))} digits", "a number")
        return float(value)
    if isinstance(value, str) and (not value or "\0" in value):
        raise _mistake(name, repr(value), "a text that is not empty")
    if type(value) is not hint:
        names = {str: 'a text in "quotes"', int: "a whole number", float: "a number"}
        raise _mistake(name, repr(value), names.get(hint, "true or false"))
    return value


def _check_range(name: str, value: float, low: float, high: float) -> None:
    if not within(value, low, high):
        raise _mistake(name, value, f"{low} to {high}")


def _mistake(name: str, got: object, expected: str) -> UsageError:
    return UsageError(f"the key {name} cannot be used", got=got, expected=expected)
