"""What a retraining asks of the model in use before it trains for hours: is it there whole, and can
it be compared with one that is made from this cache and these questions?
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from framebank.features.asking.trained_model import MODEL_FILES, read_head
from framebank.features.errors import CacheError, UsageError
from framebank.features.questions.question import Question, head_kind
from framebank.features.questions.seen_videos import SEEN
from framebank.train.retrain.changes import BASIS, Basis
from framebank.train.retrain.registry import VERDICT, Current, Registry

_WHOLE = (*MODEL_FILES, BASIS, SEEN, VERDICT)


def check_whole(
    registry: Registry, current: Current, files: Mapping[str, Sequence[str]] | None = None
) -> None:
    """Raise CacheError where a file of the version in use is gone; `files` as `registry.files`."""
    if current.version is None:
        return
    files = registry.files() if files is None else files
    missing = [name for name in _WHOLE if name not in files.get(current.version, ())]
    if missing:
        others = [name for name in files if VERDICT in files[name] and name != current.version]
        raise CacheError(
            f"{current.version}, which is in use in {registry.path}, is not there whole",
            got=f"no {', '.join(missing)}; other versions: {', '.join(others[-5:]) or 'none'}",
            todo="restore its folder, or `framebank models promote` another one",
        )


def check_pointer(registry: Registry, current: Current) -> None:
    """Raise CacheError where the history tells of a version in use and current.json is gone."""
    if current.version is None and current.number:
        events = [f"{row['event']} {row['version']}" for row in registry.history()]
        raise CacheError(
            f"no model is in use in {registry.path}, though its history tells of one",
            got=f"no current.json; {current.number} changes of it, the last events: "
            + ", ".join(events[-3:]),
            todo="restore current.json, or `framebank models promote` a version",
        )


def check_features(current: Current, bases: Mapping[str, Basis], fingerprint: str) -> None:
    """Raise UsageError where the cache's features are others than the model in use learnt from."""
    if current.version is None:
        return
    made = bases[current.version].fingerprint
    if made != fingerprint:
        raise UsageError(
            "the features of the cache are made in another way than those of the model in use",
            got=f"fingerprint {fingerprint}",
            expected=f"{made}, as the version {current.version} was trained on",
            todo="give another registry: the two cannot be compared on the same features",
        )


def check_head(questions: Sequence[Question], in_use: str) -> None:
    """Raise UsageError where the questions want another kind of answer than the model in use."""
    asked, given = head_kind(questions), read_head(in_use).kind
    if asked != given:
        raise UsageError(
            "the questions want another kind of answer than the model in use gives",
            got=f"questions of the kind {asked}",
            expected=f"{given}, as {in_use} answers",
            todo="give another registry: the two have no measure in common",
        )
