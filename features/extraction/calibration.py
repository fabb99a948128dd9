"""Makes a network's int8 graph from frames of the input, and says what that costs in accuracy.

A seed chooses clips, some rows of each are decoded, and every other one calibrates; the rest tell
how far features move: their cosine to float32, and how often the nearest mean of a clip's
calibrating frames is that of their own clip, in float32 and in int8. Another process
(`network_process`) builds the network while this one decodes, quantises it and may then compute
with it. Seconds of work, which the next run over the same frames on this machine is spared.
"""

from __future__ import annotations

import contextlib
import dataclasses
import gc
import importlib.metadata
import importlib.util
import math
import random
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from framebank.features.decoders.pool import (
    ClipAgain,
    ClipDone,
    ClipRejected,
    DecoderPolicy,
    DecoderPool,
    Frame,
)
from framebank.features.errors import UsageError, needing
from framebank.features.extraction import quantising
from framebank.features.extraction.one_clip import build_network, keep_network
from framebank.features.extraction.precision import Settled, least_cosine
from framebank.features.extraction.quantising import Quantiser
from framebank.features.network import int8
from framebank.features.network.backbones import find_backbone
from framebank.features.network.frozen_graph import Frozen, with_constants
from framebank.features.network.own_files import is_own
from framebank.features.network.weights import Weights
from framebank.features.spec import INT8, FeatureSpec
from framebank.features.stores import disk, kept, temporary
from framebank.features.video import VideoRef

SEED = 0
FRAMES = 64  # decoded at most, half of them to calibrate with
_LEAST_A_CLIP = 4
_CALIBRATING, _MEASURING = slice(None, None, 2), slice(1, None, 2)  # of the frames
_NEAR = 0.95  # a cosine to float32; of the networks of the table the least one is above it
_DRAWN = 4  # times as many clips are drawn as are decoded: the smallest of them


class Quantise(Protocol):
    """What makes an int8 graph with uint8[n, size, size, 3] images and int64[n] which clip each is
    of; returns the path of its file and what the spec says of it."""

    def __call__(
        self, images: NDArray[np.uint8], clips: NDArray[np.int64], *, batch_size: int
    ) -> tuple[str, dict[str, Any]]: ...


class Quantising(Protocol):
    """A `network_process.NetworkProcess`, which builds a network while this one decodes."""

    def quantising(self, spec: FeatureSpec, weights: Weights) -> Quantise: ...


def calibrate(
    spec: FeatureSpec,
    weights: Weights,
    refs: Sequence[VideoRef],
    policy: DecoderPolicy,
    *,
    process: Callable[[], contextlib.AbstractContextManager[Quantising]],
    batch_size: int,
    on_work: Callable[[], object] = lambda: None,
) -> tuple[FeatureSpec, Weights]:
    """Return `spec`, which is to be int8, with its graph named in it, and that graph; `on_work` is
    called where it has to be made, in a `process` that may compute with it next, in batches of
    `batch_size`.

    Raises UsageError where the network cannot be quantised or none of the clips be decoded, and
    where what that takes is not installed.
    """
    with needing("--precision int8", extra="openvino"):
        if importlib.util.find_spec("openvino") is None:
            raise ModuleNotFoundError("No module named 'openvino'", name="openvino")
    if spec.clip_length > 1 or spec.holds_pictures:
        raise _refused(f"{spec.backbone}, which takes clips or keeps pictures")
    exact = dataclasses.replace(spec, precision="float32", quantised=None)
    chosen = chosen_clips(refs)
    key = _key(exact, weights, chosen)
    known = kept.load(key)
    made = known[0] if known is not None else {}
    path = int8.kept_graph(made["sha256"]) if made else None
    if path is None:
        int8.check_keeps()
        on_work()
        with process() as there:
            quantise = there.quantising(exact, weights)
            images, clips = calibration_images(spec, chosen, policy)
            if len(images) < 2:
                raise UsageError(
                    "there are too few frames to calibrate int8 with",
                    got=f"{len(images)} of the clips of the input",
                    expected="2, one to calibrate with and one to measure by; better 64",
                    todo="extract more clips at once; or see in float32 what is wrong with them",
                )
            told, made = quantise(images, clips, batch_size=batch_size)
            path = Path(told)
        kept.keep(key, made, {})
    graph = Weights(INT8, made["sha256"], str(path), local_path=str(path))
    return dataclasses.replace(exact, precision=INT8, quantised=made), graph


def _key(spec: FeatureSpec, weights: Weights, chosen: Sequence[VideoRef]) -> str:
    """Return the key of the graph that frames of these clips make of a network."""
    names = ("openvino", "tensorflow", "av")
    versions = [importlib.metadata.version(name) for name in names]
    clips = [(ref.uri, ref.size_bytes, ref.generation) for ref in chosen]
    network = (spec.backbone, spec.layer, spec.input_size, spec.resize, spec.preprocessing)
    sources = [Path(module) for module in (__file__, quantising.__file__, int8.__file__)]
    parts = (*network, weights.sha256, clips, FRAMES, SEED, *versions)
    return kept.key_of("int8", *parts, sources=sources)


def settled(graph: Weights) -> Settled:
    """Return what the summary of a run says of its int8."""
    report = int8.read_report(graph)
    if not report:
        return Settled(INT8, "int8, quantised when its cache was made")
    cosine, frames = float(report["least_cosine"]), int(report["frames"])
    why = f"int8: cosine {cosine:.4f} to float32 at least, {report['mean_cosine']:.4f} on average"
    if not cosine >= _NEAR:
        why += " (far from it: --precision bfloat16 or float32 would serve better)"
    probe = report["probe"]
    if probe is not None:
        why += (
            f"; a probe names the clip of a frame in {probe['int8']:.1%}, in float32 in "
            f"{probe['float32']:.1%}"
        )
    return Settled(INT8, f"{why}, of {frames} frames", cosine=cosine, frames=frames, probe=probe)


def _refused(got: str) -> UsageError:
    return UsageError(
        "int8 is for Keras networks of single pictures",
        got=got,
        todo="use --precision float32 or bfloat16",
    )


def chosen_clips(refs: Sequence[VideoRef]) -> Sequence[VideoRef]:
    """Return the clips of the input that SEED chooses, always the same of the same input."""
    wanted = FRAMES // _LEAST_A_CLIP
    drawn = random.Random(SEED).sample(
        sorted(refs, key=lambda ref: ref.uri), min(len(refs), _DRAWN * wanted)
    )
    return sorted(drawn, key=lambda ref: (ref.size_bytes, ref.uri))[:wanted]


def calibration_images(
    spec: FeatureSpec, chosen: Sequence[VideoRef], policy: DecoderPolicy
) -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
    """Return pictures uint8[n, size, size, 3] of the clips `chosen` as the network gets them,
    FRAMES or fewer, and int64[n] which clip each is of. Of a sound clip no more is decoded than
    they need; of one that is refused so, what can be had."""
    each = math.ceil(FRAMES / max(1, len(chosen)))
    sampling = dataclasses.replace(spec, sample=f"uniform={each}", max_frames=None)
    clips = dict(enumerate(chosen))
    strict = dataclasses.replace(policy, check="sampled", allow_partial=False)
    found = _decoded(sampling, strict, clips)
    refused = {number: ref for number, ref in clips.items() if number not in found}
    found |= _decoded(sampling, dataclasses.replace(policy, allow_partial=True), refused)
    keys = [(number, token) for number in sorted(found) for token in sorted(found[number])]
    keys = keys[:FRAMES]
    size = spec.input_size
    images = np.array([found[number][token] for number, token in keys], np.uint8)
    return images.reshape(-1, size, size, 3), np.array([number for number, _ in keys], np.int64)


def _decoded(
    spec: FeatureSpec, policy: DecoderPolicy, clips: Mapping[int, VideoRef]
) -> dict[int, dict[int, NDArray[np.uint8]]]:
    """Return the frames of the rows of each clip that is not refused, by their tokens."""
    if not clips:
        return {}
    found: dict[int, dict[int, NDArray[np.uint8]]] = {number: {} for number in clips}
    numbers = list(clips)
    with contextlib.closing(DecoderPool(spec, policy)) as pool:
        for event in pool.decode(clips.values()):
            number = numbers[event.clip]
            if isinstance(event, Frame):
                found[number][event.token] = np.array(event.pictures[0])
            elif isinstance(event, ClipDone):  # others come where it was not yet certain
                rows = set(event.fields["tokens"])
                found[number] = {key: one for key, one in found[number].items() if key in rows}
            elif isinstance(event, ClipAgain):
                found[number].clear()
            elif isinstance(event, ClipRejected):
                del found[number]
    return found


class Converted:
    """A network of float32 as OpenVINO's graph, to be quantised."""

    def __init__(self, spec: FeatureSpec, weights: Weights) -> None:
        """Build the network of `spec`; raises UsageError where it cannot be quantised."""
        self._spec, self._source = spec, weights.source
        model = _converted(spec, weights)
        self._exact = model.clone()
        try:
            self._quantiser = Quantiser(model)
        except ValueError as err:
            raise _refused(f"{spec.backbone}: {err}") from err

    def quantise(
        self, images: NDArray[np.uint8], clips: NDArray[np.int64], *, batch_size: int
    ) -> tuple[str, dict[str, Any]]:
        """Return what a `Quantise` does; the quantised network is kept for the next that builds it
        here. Once only: the graph is changed."""
        from framebank.features.network.frozen_network import Network
        from framebank.features.network.steadiness import check_alone

        spec = dataclasses.replace(self._spec, precision=INT8)
        with ThreadPoolExecutor(1) as thread, temporary.live_folder() as live:
            # What int8 is measured by is computed meanwhile: the rest is mostly one core's work.
            exact = thread.submit(int8.outputs_of, self._exact, images[_MEASURING])
            folder = Path(live.path)
            try:
                seen = self._quantiser.run(images[_CALIBRATING])
                model = self._quantiser.quantise(seen)
            except (ValueError, RuntimeError) as err:  # OpenVINO's are of the second kind
                raise _refused(f"{spec.backbone}: {_told(err)}") from err
            int8.write_members(folder, model, images, {})
            trial = int8.pack(folder, folder / "trial.zip")
            weights = Weights(INT8, disk.file_hash(trial), str(trial), local_path=str(trial))
            network = build_network(spec, weights, batch_size=batch_size)
            assert isinstance(network, Network)
            got = thread.submit(network.compute, images)
            check_alone(network, self._source)
            expected = np.empty((len(images), network.feature_dim), np.float32)
            expected[_CALIBRATING], expected[_MEASURING] = seen.features, exact.result()[0]
            int8.write_report(folder, judge(expected, got.result(), clips))
            path = int8.pack(folder)
        made = {
            "sha256": disk.file_hash(path),
            "frames": len(images[_CALIBRATING]),
            "frames_sha256": disk.bytes_sha256(images.tobytes()),
            "seed": SEED,
        }
        keep_network(dataclasses.replace(spec, quantised=made), network)
        return str(path), made


def _converted(spec: FeatureSpec, weights: Weights) -> Any:
    """Return the network of `spec` as OpenVINO's model, for steps of COMPUTE_BATCH images or, of a
    network from a file, of the number that it is for."""
    from framebank.features.network.steadiness import COMPUTE_BATCH

    with temporary.live_folder() as live:
        # By a file, which OpenVINO reads four times as fast as TensorFlow's own objects.
        path = Path(live.path) / "frozen.pb"
        with path.open("wb") as file:
            file.writelines(with_constants(_frozen(spec, weights)))
        gc.collect()  # what Keras made it of
        try:
            model = int8.import_openvino().convert_model(path)
            batch, *shape = model.input(0).partial_shape
            model.reshape([COMPUTE_BATCH if batch.is_dynamic else batch, *shape])
        except Exception as err:
            why = f"{spec.backbone}, which OpenVINO cannot convert: {_told(err)}"
            raise _refused(why) from err
    return model


def _told(err: Exception) -> str:
    """Return what an error of OpenVINO says beside the places in its source that it begins with."""
    lines = [line.strip() for line in str(err).splitlines() if line.strip()]
    about = [line for line in lines if not line.startswith(("Check ", "Exception from"))]
    return " ".join(about or lines or [type(err).__name__])[:300]


def _frozen(spec: FeatureSpec, weights: Weights) -> Frozen:
    """Return the graph of the network of `spec`; raises UsageError for one that has none."""
    from framebank.features.network.frozen_network import frozen_of_file, frozen_of_table

    if not is_own(spec.backbone):
        return frozen_of_table(find_backbone(spec.backbone), spec.layer, weights)[0]
    size, scales = spec.input_size, spec.preprocessing
    frozen = frozen_of_file(spec.backbone, spec.layer, weights, size=size, preprocessing=scales)
    if frozen is None:
        raise _refused(f"{spec.backbone}, which Keras does not run")
    return frozen


def judge(
    expected: NDArray[np.float32], got: NDArray[np.float32], clips: NDArray[np.int64]
) -> Mapping[str, Any]:
    """Return how far features float32[n, d] `got` are from those `expected`, of frames that did not
    calibrate: cosines, and the accuracy of a probe (None of a single clip), by `clips` int64[n]."""
    pairs = zip(expected[_MEASURING], got[_MEASURING], strict=True)
    cosines = [least_cosine(one[None], other[None]) for one, other in pairs]
    probe = None
    if len(set(clips[_CALIBRATING])) > 1:
        probe = {"float32": _probe(expected, clips), "int8": _probe(got, clips)}
    return {
        "least_cosine": min(cosines),
        "mean_cosine": float(np.mean(cosines)),
        "frames": len(cosines),
        "probe": probe,
    }


def _probe(features: NDArray[np.float32], clips: NDArray[np.int64]) -> float:
    """Return for how many of the held frames the nearest mean of calibrating ones, by cosine, is
    that of their clip; means of all of them are taken off first."""
    known, held = features[_CALIBRATING], features[_MEASURING]
    names = np.unique(clips[_CALIBRATING])
    means = np.stack([known[clips[_CALIBRATING] == name].mean(axis=0) for name in names])
    middle = known.mean(axis=0)
    likeness = _unit(held - middle) @ _unit(means - middle).T
    return float((names[likeness.argmax(axis=1)] == clips[_MEASURING]).mean())


def _unit(rows: NDArray[np.float32]) -> NDArray[np.float32]:
    lengths = np.linalg.norm(rows, axis=1, keepdims=True)
    return (rows / np.maximum(lengths, 1e-12)).astype(np.float32)
