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
PRECISIONS = ("float32", "bfloat16")
RESIZES = ("stretch", "crop")


@dataclasses.dataclass(frozen=True)
class SpecChoice:
    """What is chosen of a spec, in the words of `framebank extract`; `layer` None: the backbone's;
    `weights` is "imagenet", a path, or "random:SEED"."""

    sample: str = "fps=1"
    backbone: str = "inception_v3"
    layer: str | None = None
    weights: str = "imagenet"
    dtype: str = "float16"
    resize: str = "stretch"
    precision: str = "float32"
    max_frames: int | None = None

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
    computes in, `dtype` what the cache stores.
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

    def __post_init__(self) -> None:
        for name, allowed in (("dtype", DTYPES), ("precision", PRECISIONS), ("resize", RESIZES)):
            if (given := getattr(self, name)) not in allowed:
                raise UsageError(f"no such {name}", got=given, expected=" | ".join(allowed))

    @property
    def random_weights(self) -> bool:
        return self.weights.startswith("random:")

    @property
    def fingerprint(self) -> str:
        """Return the first 32 hex digits of the SHA-256 of the canonical JSON."""
        text = json.dumps(self.to_json(), sort_keys=True, separators=(",", ":"))
        return hashlib.sha256(text.encode()).hexdigest()[:32]

    def to_json(self) -> dict[str, Any]:
        return dataclasses.asdict(self)

    @classmethod
    def from_json(cls, fields: Mapping[str, Any]) -> FeatureSpec:
        """Build from `to_json`'s dict; raises UsageError for unknown or missing fields."""
        names = {field.name for field in dataclasses.fields(cls)}
        if set(fields) != names:
            raise UsageError(
                "this spec was written by another version of Framebank",
                got=f"fields {sorted(fields)}",
                expected=f"fields {sorted(names)}",
                todo="use the version that made it, or extract into a new cache",
            )
        return cls(**fields)


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
    old, new = cached.to_json(), asked.to_json()
    width = max(len(str(value)) for value in [*old.values(), where, owner]) + 2
    lines = [f"    {'':16}{owner:{width}}asked for"]
    for name in old:
        mark = "  * " if old[name] != new[name] else "    "
        lines.append(f"{mark}{name:16}{old[name]!s:{width}}{new[name]!s}")
    raise SpecMismatchError(
        f"{where} holds features made in another way (* marks what differs)\n" + "\n".join(lines),
        todo=todo,
    )
