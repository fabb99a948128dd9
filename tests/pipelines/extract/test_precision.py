"""Whose word counts on what a precision "auto" becomes: the cache's, the machine's, or nobody's."""

from __future__ import annotations

import argparse
import dataclasses
import functools
import json
import shutil
from pathlib import Path
from typing import Any

import pytest

import framebank
from framebank.features.cache import layout
from framebank.features.extraction.precision import Settled
from framebank.features.network.weights import Weights
from framebank.pipelines.extract import command, settling
from framebank.pipelines.extract.targets import find_targets
from framebank.pipelines.inputs.listing import expand_inputs
from tests.made.made_cache import SPEC


def test_a_cache_decides_before_this_machine_and_this_machine_for_itself_alone(
    tmp_path: Path, clips: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    parser = argparse.ArgumentParser()
    command.add_arguments(parser)
    measured: list[bool] = []

    def settle(*args: Any, measure: functools.partial[Settled]) -> Settled:
        measured.append(measure.keywords["keep"])
        return Settled("bfloat16", "measured")

    monkeypatch.setattr(settling, "settle", settle)
    monkeypatch.setattr(settling.calibration, "calibrate", None)
    listing = expand_inputs([str(clips)], images=False, cache=str(tmp_path / "cache"))
    weights = Weights("random:0", "0" * 64, "random:0", seed=0)

    def asked(*words: str, **how: bool) -> tuple[str, Settled | None]:
        args = parser.parse_args([str(clips), "--cache", str(tmp_path / "cache"), *words])
        how = {"measures": True, "elsewhere": False} | how
        (target,) = find_targets(args)
        spec = dataclasses.replace(SPEC, precision="int8") if args.precision == "int8" else SPEC
        policy = command.decoder_policy(args)
        found = settling.settle_precision(args, target, spec, weights, listing.refs, policy, **how)
        return found.spec.precision, found.settled

    assert asked("--precision", "float32") == ("float32", None)
    assert asked(keep=True) == ("bfloat16", Settled("bfloat16", "measured")) and measured == [True]
    precision, settled = asked(elsewhere=True)
    assert precision == "float32" and "workers' processors" in settled.why
    precision, settled = asked(measures=False)
    assert precision == "float32" and "nothing was measured" in settled.why
    layout.write_spec(str(tmp_path / "cache"), dataclasses.replace(SPEC, precision="bfloat16"))
    for how in ({}, {"elsewhere": True}, {"measures": False}):
        precision, settled = asked(**how)
        assert precision == "bfloat16" and "as the cache has it" in settled.why
    # A cache of another precision is for `open_for_extraction` to refuse, without a calibration.
    assert asked("--precision", "int8") == ("int8", None)
    assert measured == [True]


def test_a_cache_in_int8_of_a_network_of_ones_own_is_gone_on_with(
    tmp_path: Path, clips: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("openvino")
    import keras

    given = keras.Input((32, 32, 3))
    x = keras.layers.Conv2D(8, 3)(keras.layers.Rescaling(1 / 127.5, -1.0)(given))
    keras.Model(given, keras.layers.GlobalAveragePooling2D()(x)).save(tmp_path / "own.keras")
    folder, cache = tmp_path / "clips", str(tmp_path / "cache")
    shutil.copytree(clips, folder, ignore=shutil.ignore_patterns("a5.mp4"))
    words = [str(folder), "--cache", cache, "--backbone", str(tmp_path / "own.keras")]
    words += ["--precision", "int8", "--sample", "every=3"]
    assert framebank.main(["extract", *words]) == 0
    shutil.copy(clips / "a5.mp4", folder)
    capsys.readouterr()
    assert framebank.main(["plan", *words, "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["videos"]["left"] == 1
    assert framebank.main(["extract", *words]) == 0
    found = framebank.open_cache(cache)
    assert len(list(found)) == 6 and found.feature_dim == 8
