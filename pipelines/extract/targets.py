"""The caches that one extraction fills: CACHE itself, or a folder of it for each of its backbones.

What is chosen holds for every backbone that it can be said of. Weights and a layer can also be said
of one, as NAME=VALUE.
"""

from __future__ import annotations

import argparse
import dataclasses
import os
import re
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import PurePath
from typing import Any

from framebank.features.cache import layout
from framebank.features.errors import UsageError
from framebank.features.network.backbones import PIXELS
from framebank.features.network.own_files import is_own_path
from framebank.features.spec import PICTURE_DTYPES, FeatureSpec, SpecChoice
from framebank.features.stores import storage

_UNNAMED = re.compile(r"[^A-Za-z0-9._-]+")


@dataclasses.dataclass(frozen=True)
class Target:
    """One cache, and what is chosen of its spec; `name` is that of its folder in CACHE, "" of
    CACHE itself."""

    name: str
    cache: str | None  # None: of a plan that was given none
    choice: SpecChoice


def find_targets(args: argparse.Namespace) -> list[Target]:
    """Return the caches of a command; raises UsageError for a choice of several that clashes."""
    if isinstance(args.backbone, str):
        for option in ("weights", "layer"):
            if isinstance(values := getattr(args, option), list):
                raise UsageError(
                    f"--{option} was given twice, and there is one backbone",
                    got=" and ".join(values),
                    expected=f"one --{option}",
                )
        return [Target("", args.cache, SpecChoice.of(args))]
    backbones: list[str] = args.backbone
    names = [_folder_name(backbone) for backbone in backbones]
    if twice := [name for name, count in Counter(names).items() if count > 1]:
        raise UsageError(
            "a backbone was named twice",
            got=" and ".join(b for b, name in zip(backbones, names, strict=True) if name in twice),
            expected="backbones of different names, for each has its folder in --cache",
        )
    if args.cache is not None and layout.read_spec(storage.absolute(args.cache)) is not None:
        raise UsageError(
            f"{args.cache} is a cache of one backbone",
            got=" and ".join(f"--backbone {backbone}" for backbone in backbones),
            expected="a folder that holds a cache for each, or a new one",
            todo="give another --cache",
        )
    chosen = _choices(args, backbones, names)
    return [
        Target(name, None if args.cache is None else storage.join(args.cache, name), choice)
        for name, choice in zip(names, chosen, strict=True)
    ]


def check_same_frames(specs: Sequence[FeatureSpec]) -> None:
    """Raise UsageError where the networks of one decoding would see different frames."""
    if len({spec.sample for spec in specs}) > 1:
        raise UsageError(
            "these backbones sample differently, and clips are decoded once for all of them",
            got=", ".join(f"{spec.backbone} {spec.sample}" for spec in specs),
            todo="say by --sample which frames all of them get, or extract one after the other",
        )


def _folder_name(backbone: str) -> str:
    name = PurePath(os.path.normpath(backbone)).name if is_own_path(backbone) else backbone
    return _UNNAMED.sub("-", name)


def _choices(
    args: argparse.Namespace, backbones: Sequence[str], names: Sequence[str]
) -> list[SpecChoice]:
    """Return what is chosen of each spec: the option where it can be said of a backbone, what an
    option is without being given where not."""
    base = dataclasses.replace(SpecChoice.of(args), weights=SpecChoice.weights, layer=None)
    fields: list[dict[str, Any]] = [{"backbone": backbone} for backbone in backbones]
    for option, fits in _FITS.items():
        default = getattr(SpecChoice(), option)
        values = _values(args, option, backbones, names)
        given = [value is not None and value != default for value in values]
        taken = [fits(backbone, value) for backbone, value in zip(backbones, values, strict=True)]
        if any(given) and not any(map(all, zip(given, taken, strict=True))):
            raise UsageError(
                f"--{option.replace('_', '-')} can be said of none of these backbones",
                got=getattr(args, option),
                expected=", ".join(backbones),
                todo="leave it out",
            )
        for own, value, takes in zip(fields, values, taken, strict=True):
            own[option] = value if takes and value is not None else default
    return [dataclasses.replace(base, **own) for own in fields]


def _is_pixels(backbone: str) -> bool:
    return not is_own_path(backbone) and backbone.startswith(PIXELS)


_FITS: dict[str, Callable[[str, Any], bool]] = {
    "weights": lambda backbone, _: not is_own_path(backbone) and not _is_pixels(backbone),
    "layer": lambda backbone, _: not _is_pixels(backbone),
    "precision": lambda backbone, _: not _is_pixels(backbone),
    "preprocess": lambda backbone, _: is_own_path(backbone),
    "input_size": lambda backbone, _: is_own_path(backbone),
    "dtype": lambda backbone, value: (value in PICTURE_DTYPES) == _is_pixels(backbone),
}


def _values(
    args: argparse.Namespace, option: str, backbones: Sequence[str], names: Sequence[str]
) -> list[Any]:
    """Return the value of an option for each backbone: what is said of it alone, or of all."""
    given = getattr(args, option)
    if option not in ("weights", "layer"):
        return [given] * len(backbones)
    for_all: list[str] = []
    for_one: dict[str, str] = {}
    for text in [given] if isinstance(given, str) else given or []:
        word, equals, value = text.partition("=")
        if not equals or word not in (*backbones, *names):
            for_all.append(text)
            continue
        name = word if word in names else names[backbones.index(word)]
        if name in for_one:
            raise UsageError(f"--{option} of {word} was given twice", got=text)
        for_one[name] = os.path.expanduser(value) if option == "weights" else value
    if len(for_all) > 1:
        raise UsageError(
            f"of these --{option} it is not said which backbone each is for",
            got=" and ".join(for_all),
            expected=f"--{option} VALUE for all, or --{option} NAME=VALUE for one of "
            + ", ".join(backbones),
        )
    return [for_one.get(name, for_all[0] if for_all else None) for name in names]
