"""Starting a network from the weights of a trained model instead of from chance.

Layers are paired by place, those of a network within the network too. Words and answers keep their
rows by name, whatever their number is now; a new word or answer starts as in a fresh network. The
scale of the features stays the new one.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from framebank.features.asking.trained_model import load_network
from framebank.features.errors import CacheError
from framebank.features.stores import json_text, storage


def start_from(
    network: Any,
    model_dir: str,
    *,
    words: Sequence[str],
    answers: Sequence[str],
    say: Callable[[str], None],
) -> bool:
    """Give `network`, of the vocabularies `words` and `answers`, the weights of the model in
    `model_dir`, as far as they fit. Returns False, with a line said, where that model is built in
    another way; raises UsageError for a damaged one."""
    import keras

    trained = load_network(model_dir)
    inner = [layer for layer in trained.layers if isinstance(layer, keras.Model)]
    old = inner[0] if inner else trained
    mine, others = list(_inner_layers(network)), list(_inner_layers(old))
    if [type(layer) for layer in mine] != [type(layer) for layer in others]:
        say(f"{model_dir} is built in another way: the new model starts from chance")
        return False
    known = _vocabulary(model_dir)
    copied = left = 0
    for new, was in zip(mine, others, strict=True):
        if isinstance(new, keras.layers.Normalization):
            continue
        weights = new.get_weights()
        for place, (fresh, other) in enumerate(zip(weights, was.get_weights(), strict=True)):
            if isinstance(new, keras.layers.Embedding):
                other = _by_name(fresh, other, (words, known["words"]), axis=0)
            elif new.name == "answers":
                other = _by_name(fresh, other, (answers, known["answers"]), axis=-1)
            if other.shape == fresh.shape:
                weights[place], copied = other, copied + 1
            else:
                left += 1
        new.set_weights(weights)
    say(f"{copied} weights start from {model_dir}" + (f", {left} from chance" if left else ""))
    return True


def _inner_layers(network: Any) -> Iterator[Any]:
    """Yield the layers of `network`, in place of a model among them its own."""
    for layer in network.layers:
        if hasattr(layer, "layers"):  # the reader of questions and of candidates
            yield from _inner_layers(layer)
        else:
            yield layer


def _by_name(
    mine: NDArray[Any],
    other: NDArray[Any],
    names: tuple[Sequence[str], Sequence[str]],
    *,
    axis: int,
) -> NDArray[Any]:
    """Return `mine` with the rows (or columns) of `other` whose names both have."""
    places = {name: place for place, name in enumerate(names[1])}
    pairs = [(n, places[name]) for n, name in enumerate(names[0]) if name in places]
    to, of = np.moveaxis(mine.copy(), axis, 0), np.moveaxis(other, axis, 0)
    if to.shape[1:] != of.shape[1:] or len(of) < len(names[1]) or len(to) < len(names[0]):
        return mine
    for place, was in pairs:
        to[place] = of[was]
    return np.moveaxis(to, 0, axis)


def _vocabulary(model_dir: str) -> dict[str, list[str]]:
    path = storage.join(model_dir, "vocabulary.json")
    try:
        fields = json_text.parse(storage.read_bytes(path))
        return {name: [str(text) for text in fields[name]] for name in ("words", "answers")}
    except (ValueError, KeyError, TypeError) as err:
        raise CacheError(f"{path} is damaged", got=err, todo='set start = "fresh"') from err
