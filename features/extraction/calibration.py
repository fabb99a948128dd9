"""Makes a network's int8 graph from frames of the input, and says what that costs in accuracy.

Post-training quantisation (NNCF) for OpenVINO, in a process of its own, for what it imports is
large. A seed chooses clips, some rows of each are decoded, and every other one calibrates; the rest
tell how far features move: their cosine to float32, and how often the nearest mean of a clip's
calibrating frames is that of their own clip, in float32 and in int8. The other process builds the
network while this one decodes. Some 17 s of work, which the next run over the same frames on
this machine is spared.
"""

from __future__ import annotations

import contextlib
import dataclasses
import importlib.metadata
import importlib.util
import json
import math
import os
import random
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

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
from framebank.features.errors import FramebankError, JobError, UsageError, needing
from framebank.features.extraction.precision import Settled, least_cosine
from framebank.features.network import int8
from framebank.features.network.frozen_graph import Call, Frozen, with_constants
from framebank.features.network.weights import Weights
from framebank.features.processes import program
from framebank.features.spec import INT8, FeatureSpec
from framebank.features.stores import disk, json_text, kept, temporary
from framebank.features.tensorflow_import import collect_rarely, only_graphs, own_process
from framebank.features.video import VideoRef

SEED = 0
FRAMES = 64  # decoded at most, half of them to calibrate with
_LEAST_A_CLIP = 4
_AT_ONCE = 4  # frames whose values in all layers are held; fewer lose accuracy (0018)
_DRAWN = 4  # times as many clips are drawn as are decoded: the smallest of them
_JOB, _FAULT = "job.json", "fault.json"
_CLIPS, _FROZEN = "clips.npy", "frozen.pb"
_FRAMES_ARE_THERE = b"frames"


def calibrate(
    spec: FeatureSpec,
    weights: Weights,
    refs: Sequence[VideoRef],
    policy: DecoderPolicy,
    *,
    on_work: Callable[[], object] = lambda: None,
) -> tuple[FeatureSpec, Weights]:
    """Return `spec`, which is to be int8, with its graph named in it, and that graph; `on_work` is
    called where it has to be made.

    Raises UsageError where the network cannot be quantised or none of the clips be decoded, and
    where what that takes is not installed.
    """
    with needing("--precision int8", extra="openvino"):
        for name in ("openvino", "nncf"):
            if importlib.util.find_spec(name) is None:
                raise ModuleNotFoundError(f"No module named {name!r}", name=name)
    if spec.clip_length > 1 or spec.holds_pictures:
        raise _refused(f"{spec.backbone}, which takes clips or keeps pictures")
    exact = dataclasses.replace(spec, precision="float32", quantised=None)
    chosen = chosen_clips(refs)
    key = _key(exact, weights, chosen)
    known = kept.load(key)
    path = int8.kept_graph(known[0]["sha256"]) if known is not None else None
    if known is not None and path is not None:
        made = known[0]
    else:
        on_work()
        path, images = _quantised(exact, weights, chosen, policy)
        made = {
            "sha256": disk.file_hash(path),
            "frames": len(images[::2]),
            "frames_sha256": disk.bytes_sha256(images.tobytes()),
            "seed": SEED,
        }
        kept.keep(key, made, {})
    graph = Weights(INT8, made["sha256"], str(path), local_path=str(path))
    return dataclasses.replace(exact, precision=INT8, quantised=made), graph


def _key(spec: FeatureSpec, weights: Weights, chosen: Sequence[VideoRef]) -> str:
    """Return the key of the graph that frames of these clips make of a network."""
    names = ("openvino", "nncf", "tensorflow", "av")
    versions = [importlib.metadata.version(name) for name in names]
    clips = [(ref.uri, ref.size_bytes, ref.generation) for ref in chosen]
    network = (spec.backbone, spec.layer, spec.input_size, spec.resize, spec.preprocessing)
    sources = [Path(__file__), Path(int8.__file__)]
    parts = (*network, weights.sha256, clips, FRAMES, SEED, *versions)
    return kept.key_of("int8", *parts, sources=sources)


def _quantised(
    spec: FeatureSpec, weights: Weights, chosen: Sequence[VideoRef], policy: DecoderPolicy
) -> tuple[Path, NDArray[np.uint8]]:
    """Return the file of the graph that frames of these clips make of the network of `spec`, and
    the frames."""
    with temporary.live_folder() as live:
        folder = Path(live.path)
        job = {"spec": spec.to_json(), "weights": dataclasses.asdict(weights)}
        (folder / _JOB).write_text(json.dumps(job))
        with _child(folder) as frames_are_there:
            images, clips = calibration_images(spec, chosen, policy)
            if len(images) < 2:
                raise UsageError(
                    "there are no frames to calibrate int8 with",
                    got=f"{len(images)} frames of the clips of the input",
                    todo="see what is wrong with them in float32 first",
                )
            np.save(folder / int8.FRAMES, images)
            np.save(folder / _CLIPS, clips)
            frames_are_there()
        return int8.pack(folder), images


def settled(graph: Weights) -> Settled:
    """Return what the summary of a run says of its int8."""
    report = int8.read_report(graph)
    if not report:
        return Settled(INT8, "int8, quantised when its cache was made")
    cosine, frames = float(report["least_cosine"]), int(report["frames"])
    why = f"int8: cosine {cosine:.4f} to float32 at least, {report['mean_cosine']:.4f} on average"
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


@contextlib.contextmanager
def _child(folder: Path) -> Iterator[Callable[[], None]]:
    """Start a process that quantises the network of the job in `folder` once it is told, by a call
    of what this yields, that the frames lie there as well; the call returns when it has."""
    environment = os.environ | {"KERAS_BACKEND": "tensorflow", "CUDA_VISIBLE_DEVICES": "-1"}
    command = program(__name__, f"main({str(folder)!r})")
    pipe = subprocess.PIPE
    try:
        process = subprocess.Popen(command, env=environment, stdin=pipe, stdout=pipe, stderr=pipe)
    except OSError as err:
        raise JobError("int8 cannot be calibrated in a process", got=str(err)) from err

    def finish() -> None:
        _, words = process.communicate(_FRAMES_ARE_THERE)
        if (folder / _FAULT).exists():
            fault = json_text.parse_object((folder / _FAULT).read_bytes())
            raise UsageError(
                fault["what"], **{name: fault[name] for name in ("got", "expected", "todo")}
            )
        if process.returncode:
            told = words.decode("utf-8", "replace").strip().rpartition("\n")[2][:300]
            raise JobError("calibrating int8 failed", got=told or f"status {process.returncode}")

    with process:
        try:
            yield finish
        finally:
            process.kill()  # nothing where it has ended


def main(path: str) -> None:
    """Quantise the network of the job in the folder `path`; what is wrong with it is left there."""
    own_process()
    only_graphs()
    collect_rarely()
    folder = Path(path)
    try:
        _quantise(folder)
    except FramebankError as err:
        told = {name: getattr(err, name) for name in ("what", "got", "expected", "todo")}
        told = {name: None if text is None else str(text) for name, text in told.items()}
        (folder / _FAULT).write_text(json.dumps(told))


def _quantise(folder: Path) -> None:
    from framebank.features.network.frozen_network import COMPUTE_BATCH, Network, check_alone

    job = json_text.parse_object((folder / _JOB).read_bytes())
    spec, weights = FeatureSpec.from_json(job["spec"]), Weights(**job["weights"])
    converted: list[Any] = []

    def convert(frozen: Frozen, *, precision: str) -> Call:
        # By its file, which OpenVINO reads four times as fast as TensorFlow's own objects.
        path = folder / _FROZEN
        path.write_bytes(with_constants(frozen).SerializeToString())
        try:
            model = int8.import_openvino().convert_model(path)
            path.unlink()  # half a gigabyte, of VGG
            model.reshape([COMPUTE_BATCH, *model.input(0).partial_shape[1:]])
            converted.append(model)
        except Exception as err:
            got = f"{spec.backbone}: {str(err).strip().splitlines()[0][:200]}"
            raise _refused(f"{got}, which OpenVINO cannot convert") from err
        return int8.run_model(converted[0])

    def build(precision: str, source: Weights) -> Network:
        return Network(
            spec.backbone,
            spec.layer,
            source,
            precision=precision,
            batch_size=COMPUTE_BATCH,
            input_size=spec.input_size,
            preprocessing=spec.preprocessing,
            starting=convert,
        )

    exact = build("float32", weights)
    if not converted:
        raise _refused(f"{spec.backbone}, which Keras does not run")
    if sys.stdin.buffer.read() != _FRAMES_ARE_THERE:
        return  # and none will come
    images, clips = np.load(folder / int8.FRAMES), np.load(folder / _CLIPS)
    with ThreadPoolExecutor(1) as thread:  # quantising is mostly the work of one core
        expected = thread.submit(exact.compute, images)
        _save(converted[0], images[::2], exact.step, folder)
    int8.write_report(folder, {})
    trial = int8.pack(folder, folder / "trial.zip")
    rough = build(INT8, Weights(INT8, disk.file_hash(trial), str(trial), local_path=str(trial)))
    check_alone(rough, weights.source)
    int8.write_report(folder, judge(expected.result(), rough.compute(images), clips))


def _save(model: Any, images: NDArray[np.uint8], step: int, folder: Path) -> None:
    """Quantise an OpenVINO model with `images` and write it, for steps of `step`, into `folder`."""
    openvino, nncf = int8.import_openvino(), int8.import_openvino("nncf")
    shape = images.shape[1:]
    model.reshape([_AT_ONCE, *shape])
    filled = np.resize(images, (math.ceil(len(images) / _AT_ONCE) * _AT_ONCE, *shape))
    steps = [filled[at : at + _AT_ONCE] for at in range(0, len(filled), _AT_ONCE)]
    quantised = nncf.quantize(model, nncf.Dataset(steps), subset_size=len(steps))
    quantised.reshape([step, *shape])
    openvino.save_model(quantised, str(folder / int8.GRAPH), compress_to_fp16=False)


def judge(
    expected: NDArray[np.float32], got: NDArray[np.float32], clips: NDArray[np.int64]
) -> Mapping[str, Any]:
    """Return how far features float32[n, d] `got` are from those `expected`, of frames that did not
    calibrate: cosines, and the accuracy of a probe (None of a single clip), by `clips` int64[n]."""
    held = slice(1, None, 2)
    cosines = [
        least_cosine(one[None], other[None]) for one, other in zip(expected, got, strict=True)
    ]
    probe = None
    if len(set(clips[::2])) > 1:
        probe = {"float32": _probe(expected, clips), "int8": _probe(got, clips)}
    return {
        "least_cosine": min(cosines[held]),
        "mean_cosine": float(np.mean(cosines[held])),
        "frames": len(cosines[held]),
        "probe": probe,
    }


def _probe(features: NDArray[np.float32], clips: NDArray[np.int64]) -> float:
    """Return for how many of the held frames the nearest mean of calibrating ones, by cosine, is
    that of their clip; means of all of them are taken off first."""
    known, held = features[::2], features[1::2]
    names = np.unique(clips[::2])
    means = np.stack([known[clips[::2] == name].mean(axis=0) for name in names])
    middle = known.mean(axis=0)
    likeness = _unit(held - middle) @ _unit(means - middle).T
    return float((names[likeness.argmax(axis=1)] == clips[1::2]).mean())


def _unit(rows: NDArray[np.float32]) -> NDArray[np.float32]:
    lengths = np.linalg.norm(rows, axis=1, keepdims=True)
    return (rows / np.maximum(lengths, 1e-12)).astype(np.float32)
