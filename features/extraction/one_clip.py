"""One clip's features without Beam, and the one place where a spec is put together."""

from __future__ import annotations

import contextlib
import dataclasses
import os
from collections.abc import Hashable
from pathlib import Path
from typing import TYPE_CHECKING

from framebank.features.decoding.sampling import parse_rule
from framebank.features.errors import JobError, UsageError, VideoRejected, needing
from framebank.features.network.backbones import Backbone, check_layer, find_backbone
from framebank.features.network.int8 import given_graph
from framebank.features.network.own_files import (
    OUTPUT,
    declared,
    describe,
    is_own,
    is_own_path,
    loading,
)
from framebank.features.network.picture_coder import PictureCoder
from framebank.features.network.weight_files import read_lineage
from framebank.features.network.weights import Weights, localise_weights, resolve_weights
from framebank.features.spec import AUTO, DTYPES, INT8, PICTURE_DTYPES, FeatureSpec, SpecChoice
from framebank.features.stores import storage
from framebank.features.video import Extracted, Rejected, VideoRef

if TYPE_CHECKING:
    from framebank.features.decoders.pool import DecoderPolicy
    from framebank.features.extraction.batches import FrameNetwork
    from framebank.features.network.frozen_network import Network


def make_spec(choice: SpecChoice) -> tuple[FeatureSpec, Weights]:
    """Return the spec that these choices make, and the weights found for it; a precision "auto" is
    float32 in it until `extraction.precision` settles it. Raises UsageError for a choice that does
    not exist or weights that cannot be had."""
    most = choice.max_frames
    if most is not None and most < 1:
        raise UsageError("--max-frames must be positive", got=most, expected="1 or more")
    row, found = _backbone(choice)
    rule = parse_rule(choice.sample or row.sample)
    dtype, resize = choice.dtype or row.dtype, choice.resize or row.resize
    if row.is_pixels != (dtype in PICTURE_DTYPES):
        raise UsageError(
            f"--dtype {dtype} is not for --backbone {row.name}",
            got=dtype,
            expected=" | ".join(PICTURE_DTYPES if row.is_pixels else DTYPES),
        )
    if "x" in resize and min(map(int, resize.split("x"))) < row.input_size:
        raise UsageError(
            f"--resize {resize} is too small for {row.name}",
            got=resize,
            expected=f"stretch or crop, to {row.input_size} pixels",
        )
    if choice.precision not in (AUTO, "float32") and row.is_pixels:
        raise UsageError("pixels are not computed", got=choice.precision, todo="leave it out")
    if choice.layer is not None and row.is_pixels:
        raise UsageError("pixels have no layers", got=choice.layer, todo="leave --layer out")
    found = found or resolve_weights(choice.weights, backbone=choice.backbone)
    spec = FeatureSpec(
        backbone=row.name,
        layer=choice.layer or row.layer,
        weights=found.name,
        weights_sha256=found.sha256,
        input_size=row.input_size,
        resize=resize,
        preprocessing=row.preprocessing,
        sample=rule.text,
        max_frames=most,
        precision="float32" if choice.precision == AUTO else choice.precision,
        dtype=dtype,
        clip_length=row.clip_length,
        clip_stride=row.clip_stride,
        lineage=None if is_own(row.name) else read_lineage(found),
    )
    return spec, found


def _backbone(choice: SpecChoice) -> tuple[Backbone, Weights | None]:
    """Return the row of the table, or one for a network from a file, and that file."""
    if not is_own_path(choice.backbone):
        row = find_backbone(choice.backbone)
        for option, value in (("preprocess", choice.preprocess), ("input-size", choice.input_size)):
            if value is not None:
                raise UsageError(
                    f"--{option} is for a backbone from a file",
                    got=f"--{option} {value} with {row.name}, which has its own",
                    todo="leave it out",
                )
        return row, None
    if choice.weights != SpecChoice.weights:
        raise UsageError(
            "a backbone from a file has its weights in it",
            got=f"--weights {choice.weights} with {choice.backbone}",
            todo="leave --weights out",
        )
    found = resolve_weights(choice.backbone, backbone=choice.backbone)
    own = describe(Path(found.local_path or ""), choice.backbone)
    size, preprocessing = declared(
        own, path=choice.backbone, preprocess=choice.preprocess, input_size=choice.input_size
    )
    return Backbone(own.name, "", size, OUTPUT, 0, preprocessing, "", None), found


def feature_width(spec: FeatureSpec, weights: Weights) -> int:
    """Return the width d of the features of `spec`; of a network from a file after a look at
    whether a feature depends on its own frame alone (seconds). Raises UsageError."""
    if not is_own(spec.backbone):
        return check_layer(spec.backbone, spec.layer)
    from framebank.features.network.frozen_network import Network
    from framebank.features.network.steadiness import COMPUTE_BATCH, check_alone

    if spec.precision == INT8 and spec.quantised is None:  # its graph is still to be made
        spec = dataclasses.replace(spec, precision="float32")
    if weights.local_path is None:  # a graph that a cache in a bucket has
        weights = localise_weights(weights)
    network = build_network(spec, weights, batch_size=COMPUTE_BATCH)
    assert isinstance(network, Network)
    with loading(weights.source):
        check_alone(network, weights.source)
    return network.feature_dim


def computing(spec: FeatureSpec) -> tuple[Hashable, ...]:
    """Return all of a spec on which its network depends."""
    made = (spec.backbone, spec.layer, spec.weights_sha256, spec.precision)
    quantised = (spec.quantised or {}).get("sha256")
    own = (spec.input_size, spec.preprocessing)  # of a network from a file these are chosen
    return (*made, quantised, *own, spec.holds_pictures and spec.dtype)


_KEPT: dict[tuple[Hashable, ...], Network] = {}  # one at most, for whoever builds it next


def keep_network(spec: FeatureSpec, network: Network) -> None:
    """Have the next `build_network` of `spec` return this one, which was built for its trial."""
    _KEPT.clear()
    _KEPT[(*computing(spec), network.batch_size)] = network


def build_network(spec: FeatureSpec, weights: Weights, *, batch_size: int = 32) -> FrameNetwork:
    """Build the frozen network of `spec`, whose batches have `batch_size` frames (of a network of
    clips as many as that makes); takes seconds and is worth keeping."""
    if spec.holds_pictures:
        return PictureCoder(spec.input_size, spec.dtype, batch_size=batch_size)
    batch_size = max(1, batch_size // spec.clip_length)
    if (kept := _KEPT.pop((*computing(spec), batch_size), None)) is not None:
        return kept
    from framebank.features.network.frozen_network import Network

    return Network(
        spec.backbone,
        spec.layer,
        weights,
        precision=spec.precision,
        batch_size=batch_size,
        input_size=spec.input_size,
        preprocessing=spec.preprocessing,
    )


def find_weights(text: str, spec: FeatureSpec) -> Weights:
    """Return the weights called `text`, of int8 the quantised graph, on this machine; raises
    UsageError where they are not those of `spec`."""
    if spec.precision == INT8:
        return localise_weights(given_graph(text, spec))
    found = resolve_weights(text, backbone=spec.backbone)
    if found.sha256 != spec.weights_sha256:
        raise UsageError(
            "these are not the weights of the spec",
            got=f"{text} (SHA-256 {found.sha256})",
            expected=f"{spec.weights} (SHA-256 {spec.weights_sha256})",
        )
    return found


class RejectedClipError(VideoRejected, JobError):
    """The one clip that was to be extracted cannot be used."""


@needing("extract_features", extra="extract")
def extract_features(
    path: str | os.PathLike[str],
    *,
    sample: str | None = None,
    max_frames: int | None = None,
    backbone: str | os.PathLike[str] = SpecChoice.backbone,
    layer: str | None = None,
    weights: str | os.PathLike[str] = SpecChoice.weights,
    resize: str | None = None,
    precision: str = SpecChoice.precision,
    preprocess: str | None = None,
    input_size: int | None = None,
    spec: FeatureSpec | None = None,
    network: FrameNetwork | None = None,
    policy: DecoderPolicy | None = None,
) -> Extracted:
    """Extract one clip through the very engine that the Beam job runs; float32[n, d] features, of
    pixels pictures (`np.asarray` of them is uint8[n, size, size, 3]).

    Takes the words of `framebank extract`, or a whole `spec` and the `weights` that it names; for
    the sake of one clip nothing is measured, so that auto is float32. A `network` (`build_network`)
    kept between calls saves seconds. Raises RejectedClipError (stage, error_class, message) for a
    clip that cannot be used, UsageError for choices that do not exist.
    """
    from framebank.features.decoders.pool import DecoderPolicy
    from framebank.features.extraction.engine import Engine

    path, weights = os.path.expanduser(os.fspath(path)), os.path.expanduser(os.fspath(weights))
    if spec is None:
        choice = SpecChoice(
            sample, os.path.expanduser(os.fspath(backbone)), layer, weights, resize=resize,
            precision=precision, max_frames=max_frames, preprocess=preprocess,
            input_size=input_size,
        )  # fmt: skip
        spec, found = make_spec(choice)
    else:
        found = find_weights(weights, spec)
    network = network or build_network(spec, found, batch_size=8)
    policy = policy or DecoderPolicy(decoders=1)
    with contextlib.closing(Engine(network, spec, policy)) as engine:
        (result,) = engine.run([ref_of(path)])
    if isinstance(result, Rejected):
        raise RejectedClipError(result.stage, result.error_class, result.message)
    return result


def ref_of(path: str) -> VideoRef:
    size_bytes, generation = 0, ""
    if storage.is_local(path):
        path, size_bytes = os.path.abspath(path), -1
        with contextlib.suppress(OSError):
            status = os.stat(path)
            size_bytes, generation = status.st_size, str(status.st_mtime_ns)
    return VideoRef(os.path.basename(path), path, size_bytes, generation)
