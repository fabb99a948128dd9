"""What a feature was made with: the spec, its fingerprint, and how two specs differ.

A cache holds features of exactly one spec. Everything that can change a feature's value is a field
here; nothing else is (no path, no batch size, no number of decoders).
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Mapping
from typing import Any

from framebank.features.errors import SpecMismatchError, UsageError

SCHEMA_VERSION = 1
DTYPES = ("float16", "float32", "uint8")
PICTURE_DTYPES = ("jpeg", "png")  # of a cache of pixels
INT8 = "int8"
PRECISIONS = ("float32", "bfloat16", INT8)
AUTO = "auto"  # a choice, never what a spec says: `features.extraction.precision` settles it
RESIZES = ("stretch", "crop", "128x171")
# Fields that older versions lack, where unused.
_LATER = {"clip_length": 1, "clip_stride": 1, "lineage": None, "quantised": None}


@dataclasses.dataclass(frozen=True)
class SpecChoice:
    """What is chosen of a spec, in the words of `framebank extract`; None: as the backbone has it;
    `weights` is "imagenet", a path, or "random:SEED". A backbone may be the path of a file, which
    may leave `preprocess` and `input_size` to be declared. A `precision` "auto" is float32 until it
    is settled."""

    sample: str | None = None
    backbone: str = "inception_v3"
    layer: str | None = None
    weights: str = "imagenet"
    dtype: str | None = None
    resize: str | None = None
    precision: str = AUTO
    max_frames: int | None = None
    preprocess: str | None = None
    input_size: int | None = None

    @classmethod
    def of(cls, options: object) -> SpecChoice:
        """Take what is chosen from a command's options."""
        return cls(**{one.name: getattr(options, one.name) for one in dataclasses.fields(cls)})


@dataclasses.dataclass(frozen=True)
class FeatureSpec:
    """How features are made; two specs with equal fields give equal features.

    `sample` is the canonical text of the rule ("fps=1", "uniform=8", "every=3", "keyframes").
    `weights` is "imagenet", "file" or "random:SEED"; `weights_sha256` is the SHA-256 of the weight
    file, or for random weights of the recipe that makes them. `precision` is what the network
    computes in, `dtype` what the cache stores. `resize` is "stretch", "crop" (short side to the
    size, centre kept) or HxW (stretched to that, centre kept). A row is of `clip_length` sampled
    frames, and begins `clip_stride` after the one before. `lineage` is what `framebank finetune`
    says in its weights of how they came to be; None of others. `quantised` is of int8 alone: the
    SHA-256 of the graph's file (`network.int8`) and of the frames that it was calibrated with, how
    many they are, and the seed that chose them; None until they are.
    """

    backbone: str
    layer: str
    weights: str
    weights_sha256: str
    input_size: int
    resize: str
    preprocessing: str
    sample: str
    max_frames: int | None
    precision: str
    dtype: str
    schema_version: int = SCHEMA_VERSION
    clip_length: int = 1
    clip_stride: int = 1
    lineage: Mapping[str, Any] | None = dataclasses.field(default=None, hash=False)
    quantised: Mapping[str, Any] | None = dataclasses.field(default=None, hash=False)

    def __post_init__(self) -> None:
        dtypes = (*DTYPES, *PICTURE_DTYPES)
        for name, allowed in (("dtype", dtypes), ("precision", PRECISIONS), ("resize", RESIZES)):
            if (given := getattr(self, name)) not in allowed:
                raise UsageError(f"no such {name}", got=given, expected=" | ".join(allowed))

    @property
    def random_weights(self) -> bool:
        return self.weights.startswith("random:")

    @property
    def holds_pictures(self) -> bool:
        return self.dtype in PICTURE_DTYPES

    @property
    def read_dtype(self) -> str:
        """Return the dtype in which readers get features."""
        if self.holds_pictures:
            return "uint8"
        return "float16" if self.dtype == "float16" else "float32"

    @property
    def fingerprint(self) -> str:
        """Return the first 32 hex digits of the SHA-256 of the canonical JSON."""
        text = json.dumps(self.to_json(), sort_keys=True, separators=(",", ":"))
        return hashlib.sha256(text.encode()).hexdigest()[:32]

    def to_json(self) -> dict[str, Any]:
        fields = dataclasses.asdict(self)
        unused = {name for name, without in _LATER.items() if fields[name] == without}
        return {name: value for name, value in fields.items() if name not in unused}

    @classmethod
    def from_json(cls, fields: Mapping[str, Any]) -> FeatureSpec:
        """Build from `to_json`'s dict; raises UsageError for unknown or missing fields."""
        names = {field.name for field in dataclasses.fields(cls)}
        if not names - _LATER.keys() <= set(fields) <= names:
            raise UsageError(
                "this spec was written by another version of Framebank",
                got=f"fields {sorted(fields)}",
                expected=f"fields {sorted(names)}",
                todo="use the version that made it, or extract into a new cache",
            )
        return cls(**fields)


def _told(spec: FeatureSpec) -> dict[str, str]:
    """Return what is told of fields that are long."""
    told = {}
    if (of := spec.lineage) is not None:
        told["lineage"] = f"{of.get('weights')}, trained from {of.get('trained_from')} on"
    if (of := spec.quantised) is not None:
        told["quantised"] = f"graph {str(of.get('sha256'))[:16]}"
    return told


def check_same_spec(
    cached: FeatureSpec,
    asked: FeatureSpec,
    *,
    where: str,
    owner: str = "in the cache",
    todo: str = "give the options that match, or another --cache for these features",
) -> None:
    """Raise SpecMismatchError that shows both specs side by side, differing lines marked."""
    if cached == asked:
        return
    old, new = (spec.to_json() | _told(spec) for spec in (cached, asked))
    width = max(len(str(value)) for value in [*old.values(), where, owner]) + 2
    lines = [f"    {'':16}{owner:{width}}asked for"]
    for name in old | new:
        was, now = old.get(name, _LATER.get(name)), new.get(name, _LATER.get(name))
        mark = "  * " if was != now else "    "
        lines.append(f"{mark}{name:16}{was!s:{width}}{now!s}")
    raise SpecMismatchError(
        f"{where} holds features made in another way (* marks what differs)\n" + "\n".join(lines),
        todo=todo,
    )
