"""How fast are the network and the engine on a GPU? One short script, eight minutes at most.

    KERAS_BACKEND=jax python infra/bench/gpu.py [--backbone inception_v3] [--minutes 8]
                                                [--batches 32 64 128 256 512] [--clips DIR]

Needs the extra `extract`, JAX with the GPU's plug-in and no network access; with Keras on
TensorFlow it measures what TensorFlow can do. Where there is no GPU it runs on the processor, to
try the script. In this order, until the minutes are over:

    network    frames/s on frames that lie in memory, by batch size and by what it computes in:
               float32, TF32 (JAX's `default_matmul_precision`), bfloat16 (Keras's
               `mixed_bfloat16`); and the least cosine to the features of the processor in float32
    synthetic  frames/s of the engine fed with made frames, without decoders
    engine     frames/s of the engine fed by decoders, on clips that it makes

The last line is JSON; what there was no time for is named in `left_out`.
"""

from __future__ import annotations

import argparse
import contextlib
import importlib.util
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import common
import numpy as np

COMPUTED_IN = ("float32", "tensorfloat32", "bfloat16")
PICTURES = 32  # whose features are compared
LEAST_S = 2.0  # of measuring one thing
_REFERENCE = """
import sys
import numpy as np
from framebank.features.network.frozen_network import Network
from framebank.features.network.weights import resolve_weights
name, images, out = sys.argv[1:]
weights = resolve_weights("random:0", backbone=name)
images = np.load(images)
np.save(out, Network(name, "avg_pool", weights, batch_size=len(images))(images))
"""


class Clock:
    """The minutes that are left."""

    def __init__(self, minutes: float) -> None:
        self._end = time.monotonic() + 60 * minutes

    def left_s(self) -> float:
        return self._end - time.monotonic()


def build(backbone: str, *, batch_size: int, computed_in: str = "float32") -> Any:
    """Build the engine's network, or the same with other products; raises SystemExit for what this
    backend cannot compute in."""
    import keras

    from framebank.features.network.frozen_network import Network
    from framebank.features.network.weights import resolve_weights

    weights = resolve_weights("random:0", backbone=backbone)
    network = Network(backbone, "avg_pool", weights, batch_size=batch_size)
    if computed_in != "float32":
        if keras.backend.backend() != "jax":
            raise SystemExit(f"{computed_in} is measured with KERAS_BACKEND=jax")
        network._call = other_products(backbone, weights, computed_in)
    network(np.zeros(network.input_shape, np.uint8))  # compiled here
    return network


def other_products(backbone: str, weights: Any, computed_in: str) -> Any:
    """Return the function of a network with TF32 products, or in Keras's `mixed_bfloat16`."""
    import keras

    from framebank.features.network.backbones import find_backbone
    from framebank.features.network.frozen_network import _load
    from framebank.features.network.keras_backends import compile_function
    from framebank.features.network.preprocessing import preprocess

    row = find_backbone(backbone)
    model, arrays = _load(row, "avg_pool", weights)
    for layer in model.layers:
        if layer.weights:
            layer.set_weights(arrays[layer.name])
    products = "tensorfloat32"
    if computed_in == "bfloat16":
        products = "default"
        values = model.get_weights()
        model = keras.models.clone_model(model, clone_function=in_bfloat16)
        model.set_weights(values)
    return compile_function(
        model, preprocess=lambda rgb: preprocess(rgb, row.preprocessing), products=products
    )


def in_bfloat16(layer: Any) -> Any:
    return type(layer).from_config(layer.get_config() | {"dtype": "mixed_bfloat16"})


def rate(frames_of: Callable[[], int], *, least_s: float = LEAST_S) -> float:
    """Return frames a second of calls that take `least_s` together."""
    start, frames = time.perf_counter(), 0
    while (spent := time.perf_counter() - start) < least_s:
        frames += frames_of()
    return round(frames / spent, 1)


def reference(backbone: str, images: np.ndarray, folder: Path) -> np.ndarray:
    """Return the features that the processor gives in float32, in a process without a GPU."""
    np.save(folder / "images.npy", images)
    hidden = {"CUDA_VISIBLE_DEVICES": "-1", "JAX_PLATFORMS": "cpu"}
    if importlib.util.find_spec("tensorflow"):
        hidden["KERAS_BACKEND"] = "tensorflow"
    words = [backbone, str(folder / "images.npy"), str(folder / "features.npy")]
    subprocess.run(
        [sys.executable, "-c", _REFERENCE, *words],
        env=os.environ | hidden | {"PYTHONPATH": str(common.ROOT)},
        check=True,
        stdout=subprocess.DEVNULL,
    )
    return np.load(folder / "features.npy")


def least_cosine(a: np.ndarray, b: np.ndarray) -> float:
    a, b = a.astype(np.float64), b.astype(np.float64)
    lengths = np.linalg.norm(a, axis=1) * np.linalg.norm(b, axis=1)
    return round(float(((a * b).sum(1) / lengths).min()), 6)


def measure_network(args: argparse.Namespace, clock: Clock, left_out: list[str]) -> dict[str, Any]:
    """Return rates by what is computed in and batch size, with the cosine of each."""
    from framebank.features.network.backbones import find_backbone

    side = find_backbone(args.backbone).input_size
    coarse = np.random.default_rng(0).integers(0, 256, (PICTURES, 8, 8, 3), np.uint8)
    images = coarse.repeat(side // 8 + 1, 1).repeat(side // 8 + 1, 2)[:, :side, :side]
    with tempfile.TemporaryDirectory() as folder:
        wanted = reference(args.backbone, images, Path(folder))
    figures: dict[str, Any] = {}
    for computed_in in args.computed_in:
        for batch_size in args.batches:
            name = f"{computed_in}, batches of {batch_size}"
            if clock.left_s() < args.minutes * 60 * 0.4:  # the rest is the engine's
                left_out.append(name)
                continue
            try:
                network = build(args.backbone, batch_size=batch_size, computed_in=computed_in)
                row: dict[str, Any] = {}
                batch = np.resize(images, network.input_shape)
                row["frames_per_s"] = rate(lambda n=network, b=batch: len(n(b)))
                if batch_size >= PICTURES:
                    row["cosine"] = least_cosine(network(batch)[:PICTURES], wanted)
            except (SystemExit, Exception) as error:  # noqa: BLE001 - no memory, or no such type
                row = {"failed": f"{type(error).__name__}: {str(error)[:200]}"}
            figures[name] = row
            common.say(f"{name}: {row}")
    return figures


def measure_engine(
    args: argparse.Namespace, clock: Clock, left_out: list[str]
) -> dict[str, dict[str, float]]:
    """Return frames/s of the engine with made frames and with decoders, by batch size."""
    import clips

    from framebank.features.extraction.one_clip import make_spec
    from framebank.features.spec import SpecChoice

    choice = SpecChoice(sample="fps=10", backbone=args.backbone, weights="random:0")
    spec, _ = make_spec(choice)
    figures: dict[str, dict[str, float]] = {"synthetic": {}, "engine": {}}
    with tempfile.TemporaryDirectory() as folder:
        paths = sorted(Path(args.clips).iterdir()) if args.clips else []
        for number in range(0 if paths else 2 * len(os.sched_getaffinity(0))):
            path = Path(folder) / f"{number:02d}.mp4"
            shown = clips.scene(240, (640, 360), seed=number)
            paths.append(clips.encode(path, shown, options=clips.NATURAL))
        for batch_size in args.batches:
            if clock.left_s() < 30:
                left_out.append(f"engine, batches of {batch_size}")
                continue
            network = build(args.backbone, batch_size=batch_size)
            key = str(batch_size)
            figures["synthetic"][key] = rate(lambda n=network: feed_made(n, spec))
            figures["engine"][key] = rate(lambda n=network: feed_decoders(n, spec, paths))
            common.say(f"batches of {batch_size}: {figures}")
    return figures


def feed_made(network: Any, spec: Any) -> int:
    """Put made frames, each another one, through the batches that the engine fills."""
    from framebank.features.extraction.batches import Assembly, Batches, NetworkThreads

    count, clip = 4 * network.batch_size, Assembly()
    image = np.random.default_rng(0).integers(0, 256, network.input_shape[1:], np.uint8)
    with NetworkThreads([network]) as threads:
        batches = Batches(network, spec, threads, on_frames=lambda count: None)
        for token in range(count):
            image[0, 0] = token % 251, token // 251 % 251, 7
            list(batches.add(clip, token, image))
        list(batches.flush())
    return len(clip.rows)


def feed_decoders(network: Any, spec: Any, paths: list[Path]) -> int:
    """Run the engine over clips; return how many frames it made."""
    from framebank.features.decoders.policy import DecoderPolicy
    from framebank.features.extraction.engine import Engine
    from framebank.features.video import VideoRef

    refs = [VideoRef(one.name, str(one), one.stat().st_size, "") for one in paths]
    with contextlib.closing(Engine(network, spec, DecoderPolicy())) as engine:
        return sum(len(result.features) for result in engine.run(refs))


def device() -> dict[str, Any]:
    """Return what computes."""
    import keras

    backend = keras.backend.backend()
    if backend == "jax":
        import jax

        names = [f"{one.platform}: {one.device_kind}" for one in jax.devices()]
        return {"backend": f"jax {jax.__version__}", "devices": names}
    import tensorflow as tf

    names = [one.name for one in tf.config.list_physical_devices()]
    return {"backend": f"tensorflow {tf.__version__}", "devices": names}


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--backbone", default="inception_v3")
    parser.add_argument("--minutes", type=float, default=8.0)
    parser.add_argument("--batches", type=int, nargs="+", default=[32, 64, 128, 256, 512])
    parser.add_argument("--computed-in", nargs="+", choices=COMPUTED_IN, default=list(COMPUTED_IN))
    parser.add_argument("--clips", metavar="DIR", help="a folder of clips (default: made)")
    args = parser.parse_args()
    clock, left_out = Clock(args.minutes), list[str]()
    figures = {"bench": "gpu", "backbone": args.backbone, **device()}
    figures["network"] = measure_network(args, clock, left_out)
    figures |= measure_engine(args, clock, left_out)
    print(json.dumps(figures | {"left_out": left_out}))


if __name__ == "__main__":
    main()
