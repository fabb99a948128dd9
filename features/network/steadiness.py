"""Whether a network gives an image the same bits wherever in a batch it is, and what else of it is
looked at once on a machine and kept there.

What gives other bits at other places (Eigen's products, which are cut into blocks; a transformer's
on some processors) is computed one by one; what looks across the batch is refused: see
infra/decisions/0002-network-precision.md.
"""

from __future__ import annotations

import contextlib
import importlib.metadata
import importlib.util
import math
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from framebank.features.errors import UsageError
from framebank.features.machine import processor, usable_cores
from framebank.features.network.frozen_graph import Features, Images
from framebank.features.network.keras_backends import keras_backend
from framebank.features.spec import INT8
from framebank.features.stores import kept
from framebank.features.tensorflow_import import computes_by_onednn, tensorflow_version

COMPUTE_BATCH = 8  # images per step on a processor; another number may change features' last bits
WIDE_STEP = 32  # in bfloat16, where each step begins with turning all weights into it
_ROUNDING = 1e-4  # of the largest value; a network that looks across its batch differs by more
_AGAIN = "from one time to the next"
_TELLING = ("DNN", "TF_AUTO_MIXED", "TF_NUM_", "OMP_", "XLA_", "JAX_")  # in names of variables

Apart = tuple[float, float, str]  # by how much, of how much, and with what features change


class Computes(Protocol):
    """A network of images uint8[b, ...], computed in steps."""

    input_shape: tuple[int, ...]

    @property
    def step(self) -> int: ...

    def compute(self, images: Images) -> Features: ...


def steady_step(precision: str) -> int:
    """Return in what steps a processor gives an image the same bits at each place."""
    if precision == INT8 or keras_backend() != "tensorflow" or computes_by_onednn():
        return COMPUTE_BATCH
    return 1  # Eigen cuts a step into blocks, and adds up otherwise at the edge of one


def check_alone(network: Computes, source: str) -> None:
    """Raise UsageError, which names `source`, unless a frame's feature has the same bytes whatever
    else is in its batch, wherever in it the frame is, and again."""
    for apart in _apart(network):
        raise looks_across(source, apart)


def looks_across(source: str, apart: Apart) -> UsageError:
    """Return what is said of a network whose features are `apart`."""
    worst, most, what = apart
    return UsageError(
        f"the features that {source} gives of a frame change {what}",
        got=f"differences of up to {worst:.2g} in features of up to {most:.2g}",
        expected="features that depend on their own frame alone, to the last bit",
        todo="take out what looks across the batch (batch norm in training mode, noise), "
        "or export the network with a fixed batch of 1",
    )


def is_rounding(apart: Apart) -> bool:
    """Return whether float32 features are apart by no more than sums in another order are."""
    worst, most, what = apart
    return what != _AGAIN and worst <= _ROUNDING * most


def most_apart(network: Computes, graph: str) -> Apart | None:
    """Return the most by which features change with what is computed beside their frame, None where
    they do not; looked at once on a machine for the graph with that key."""

    def look() -> Apart | None:
        found = list(_apart(network))
        if not found:
            return None
        worst, most, _ = max(found, key=lambda one: (math.isnan(one[0]), one[0]))
        return worst, most, found[0][2]  # what changes by itself does so beside others too

    found = looked_at_once(fact_key("apart", f"{graph} {network.step}"), look)
    return None if found is None else (found[0], found[1], found[2])


def _apart(network: Computes) -> Iterator[Apart]:
    count = max(COMPUTE_BATCH, network.step)
    # Of each picture another darkest and brightest pixel and another contrast, none of them as
    # black as what fills a batch: a scale taken from the whole batch shows.
    ones = [1] * (len(network.input_shape) - 1)
    rank = np.arange(count, dtype=np.float32).reshape(-1, *ones) % COMPUTE_BATCH
    noise = np.random.default_rng(0).integers(
        0, 256, (count, *network.input_shape[1:]), dtype=np.uint8
    )
    images = (8 + rank + noise * ((rank + 4) / 12)).astype(np.uint8)
    first = network.compute(images)

    def told() -> Iterator[tuple[Features, str]]:
        yield network.compute(images), _AGAIN
        others = "with what else is in the batch"
        yield np.roll(network.compute(np.roll(images, 1, axis=0)), -1, axis=0), others
        for place in range(min(2, count)):
            alone, again = np.zeros_like(images), first.copy()
            alone[place] = images[place]
            again[place] = network.compute(alone)[place]
            yield again, others

    for again, what in told():
        if again.tobytes() != first.tobytes():
            with np.errstate(invalid="ignore"):
                worst = float(np.nanmax(np.abs(again - first)))
            yield worst, float(np.nanmax(np.abs(first))), what


def graph_key(*parts: object) -> str:
    """Return the key of a graph that follows from `parts`, what makes graphs, and this code."""
    made = [tensorflow_version(), importlib.metadata.version("keras"), np.__version__]
    for name in ("keras-hub", "onnxruntime", "jax"):
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):
            made.append(f"{name} {importlib.metadata.version(name)}")
    return kept.key_of(*parts, *made, sources=sorted(Path(__file__).parent.glob("*.py")))


def fact_key(fact: str, graph: str) -> str:
    """Return the key of what is looked at once of the graph with that key: it goes by the
    processor, by how many cores of it there are, by what computes, and by what that is told."""
    backend = keras_backend()
    place = importlib.util.find_spec("tensorflow")
    installed = Path(place.origin).stat() if place is not None and place.origin else None
    build = () if installed is None else (installed.st_mtime_ns, installed.st_ino)
    computing = (backend, backend == "tensorflow" and computes_by_onednn())
    told = [f"{k}={v}" for k, v in sorted(os.environ.items()) if any(w in k for w in _TELLING)]
    cores = (usable_cores(), usable_cores(quota=False))
    sizes = (WIDE_STEP, COMPUTE_BATCH)
    return kept.key_of(fact, graph, *computing, *sizes, *cores, processor(), *build, *told)


def looked_at_once(key: str, look: Callable[[], Any]) -> Any:
    """Return what `look` said, a JSON value, on this machine when it was first called for `key`."""
    if (found := kept.load(key)) is not None:
        return found[0]
    said = look()
    kept.keep(key, said, {})
    return said
