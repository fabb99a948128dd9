"""What else one could take: each peer is a whole program with clips in and features on the disk.

    python infra/bench/peers.py plain|ray|daft|torchcodec CLIPS --out DIR --weights FILE
                                [--backbone inception_v3] [--fps 4]

All of them take a frame whenever 1/fps has passed, run the network of `keras.applications` with the
weights of FILE on 32 frames at a time, and keep float16 features beside each frame's time. None of
them imports Framebank. The last line is JSON: how many frames, and of how many clips none came.

    plain       PyAV and `predict_on_batch`, a clip after the other: what one writes first
    ray         Ray Data: decoding in tasks, the network in an actor, Parquet out
    daft        Daft: decoding in a generator, the network in a class, Parquet out
    torchcodec  TorchCodec's decoder, frames by their times, and the network in the same process
"""

from __future__ import annotations

import argparse
import importlib
import json
import os
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import numpy as np

BATCH = 32
NETWORKS = {  # module and class of keras.applications, side of its pictures
    "inception_v3": ("inception_v3", "InceptionV3", 299),
    "mobilenet_v2": ("mobilenet_v2", "MobileNetV2", 224),
    "resnet50": ("resnet", "ResNet50", 224),
}


class KerasNetwork:
    """uint8[b, size, size, 3] RGB frames in, float16[b, d] features out."""

    def __init__(self, backbone: str, weights: str) -> None:
        import keras

        module, name, self.size = NETWORKS[backbone]
        self._module = importlib.import_module(f"keras.applications.{module}")
        shape = (self.size, self.size, 3)
        make = getattr(keras.applications, name)
        self._model = make(include_top=False, weights=weights, pooling="avg", input_shape=shape)

    def __call__(self, images: Any) -> np.ndarray:
        pixels = self._module.preprocess_input(np.asarray(images, np.float32))
        return np.asarray(self._model.predict_on_batch(pixels), np.float16)


def sampled_frames(path: str, *, rate_fps: float, size: int) -> Iterator[tuple[float, np.ndarray]]:
    """Yield time and uint8[size, size, 3] RGB of a frame whenever 1/rate_fps has passed."""
    import av

    with av.open(path) as container:
        stream = container.streams.video[0]
        start_s, taken = None, 0
        for frame in container.decode(stream):
            if frame.time is None:
                continue
            start_s = frame.time if start_s is None else start_s
            if frame.time - start_s >= taken / rate_fps:
                taken += 1
                image = frame.reformat(size, size, "rgb24", interpolation="BILINEAR").to_ndarray()
                yield frame.time - start_s, image


def torchcodec_frames(
    path: str, *, rate_fps: float, size: int
) -> Iterator[tuple[float, np.ndarray]]:
    """Yield the same by TorchCodec, which looks frames up by their time, a batch at once."""
    from torchcodec.decoders import VideoDecoder
    from torchcodec.transforms import Resize

    decoder = VideoDecoder(path, dimension_order="NHWC", transforms=[Resize((size, size))])
    start_s, end_s = decoder.metadata.begin_stream_seconds, decoder.metadata.end_stream_seconds
    times = np.arange(start_s, end_s - 1e-6, 1 / rate_fps)
    for first in range(0, len(times), BATCH):
        part = times[first : first + BATCH].tolist()
        images = decoder.get_frames_played_at(part).data.numpy()
        yield from zip([time - start_s for time in part], images, strict=True)


Frames = Callable[..., Iterator[tuple[float, np.ndarray]]]


def one_after_another(args: argparse.Namespace, paths: list[str], frames: Frames) -> int:
    """Run the loop over `paths`, a file of features each; return of how many nothing came."""
    network, failed = KerasNetwork(args.backbone, args.weights), 0
    for path in paths:
        times: list[float] = []
        features: list[np.ndarray] = []
        batch: list[np.ndarray] = []
        try:
            for time, image in frames(path, rate_fps=args.fps, size=network.size):
                times.append(time)
                batch.append(image)
                if len(batch) == BATCH:
                    features.append(network(batch))
                    batch.clear()
            if batch:
                features.append(network(batch))
            name = f"{Path(path).name}.npz"
            np.savez(Path(args.out) / name, times=times, features=np.concatenate(features))
        except Exception as error:  # noqa: BLE001 - what it is differs from peer to peer
            print(f"{path}: {type(error).__name__}: {error}", file=sys.stderr)
            failed += 1
    return failed


def run_plain(args: argparse.Namespace, paths: list[str]) -> int:
    return one_after_another(args, paths, sampled_frames)


def run_torchcodec(args: argparse.Namespace, paths: list[str]) -> int:
    import torchcodec.decoders  # noqa: F401 - before TensorFlow: the other way round LLVM ends it

    return one_after_another(args, paths, torchcodec_frames)


def run_ray(args: argparse.Namespace, paths: list[str]) -> int:
    import ray

    cores = len(os.sched_getaffinity(0))
    ray.init(num_cpus=cores, include_dashboard=False, logging_level="ERROR", log_to_driver=False)
    ray.data.DataContext.get_current().enable_progress_bars = False
    backbone, weights, rate_fps = args.backbone, args.weights, args.fps
    size = NETWORKS[backbone][2]

    def frames_of(row: dict[str, Any]) -> Iterator[dict[str, Any]]:
        for time, image in sampled_frames(row["path"], rate_fps=rate_fps, size=size):
            yield {"clip": row["path"], "time": time, "image": image}

    class Network:
        def __init__(self) -> None:
            self._network = KerasNetwork(backbone, weights)

        def __call__(self, batch: dict[str, Any]) -> dict[str, Any]:
            return {
                "clip": batch["clip"],
                "time": batch["time"],
                "features": self._network(batch["image"]),
            }

    (
        ray.data.from_items([{"path": path} for path in paths], override_num_blocks=len(paths))
        .flat_map(frames_of)
        .map_batches(Network, batch_size=BATCH, concurrency=1)
        .write_parquet(args.out)
    )
    ray.shutdown()
    return 0


def run_daft(args: argparse.Namespace, paths: list[str]) -> int:
    import daft
    import keras  # noqa: F401 - imported in one of Daft's threads, it ends in a segmentation fault
    from daft import DataType

    rate_fps, size = args.fps, NETWORKS[args.backbone][2]
    frame = {
        "time": DataType.float64(),
        "image": DataType.tensor(DataType.uint8(), (size, size, 3)),
    }

    # Not `daft.read_video_frames`: infra/bench/README.md says why.
    @daft.func(return_dtype=DataType.struct(frame), use_process=False)
    def frames_of(path: str) -> Iterator[dict[str, Any]]:
        for time, image in sampled_frames(path, rate_fps=rate_fps, size=size):
            yield {"time": time, "image": image}

    @daft.cls(max_concurrency=1, use_process=False)
    class Network:
        def __init__(self, backbone: str, weights: str) -> None:
            self._network = KerasNetwork(backbone, weights)

        @daft.method.batch(return_dtype=DataType.list(DataType.float32()), batch_size=BATCH)
        def features(self, images: Any) -> Any:
            return self._network(np.stack(images.to_pylist())).astype(np.float32).tolist()

    network = Network(args.backbone, args.weights)
    clips = daft.from_pydict({"clip": paths})
    rows = clips.select(clips["clip"], frames_of(clips["clip"]).alias("frame"))
    time, image = (daft.col("frame").get(name) for name in ("time", "image"))
    rows = rows.select("clip", time.alias("time"), network.features(image).alias("features"))
    rows.write_parquet(args.out)
    return 0


PEERS = {"plain": run_plain, "ray": run_ray, "daft": run_daft, "torchcodec": run_torchcodec}


def read_features(out: Path) -> dict[str, np.ndarray]:
    """Return float32[n, d] of each clip's name, in order of time, of what a peer wrote."""
    import pyarrow.parquet as pq

    found: dict[str, np.ndarray] = {}
    for path in out.glob("*.npz"):
        with np.load(path) as file:
            found[path.stem] = file["features"].astype(np.float32)
    rows: dict[str, list[tuple[float, Any]]] = {}
    for path in out.rglob("*.parquet"):
        clips, times, features = (column.to_pylist() for column in pq.read_table(path).columns)
        for clip, time, row in zip(clips, times, features, strict=True):
            rows.setdefault(Path(clip).name, []).append((time, row))
    for clip, parts in rows.items():
        parts.sort(key=lambda part: part[0])
        found[clip] = np.array([row for _, row in parts], np.float32)
    return found


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("peer", choices=PEERS)
    parser.add_argument("clips", metavar="CLIPS")
    parser.add_argument("--out", required=True, metavar="DIR")
    parser.add_argument("--weights", required=True, metavar="FILE")
    parser.add_argument("--backbone", default="inception_v3", choices=NETWORKS)
    parser.add_argument("--fps", type=float, default=4.0)
    args = parser.parse_args()
    Path(args.out).mkdir(parents=True, exist_ok=True)
    paths = sorted(str(path) for path in Path(args.clips).resolve().iterdir() if path.is_file())
    failed = PEERS[args.peer](args, paths)
    print(json.dumps({"peer": args.peer, "clips": len(paths), "failed": failed}))


if __name__ == "__main__":
    main()
