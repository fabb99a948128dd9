"""The demo's folder and weights: claimed once, noted in demo.json, the same when it goes on."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from framebank.features.errors import UsageError
from framebank.features.stores import json_text, storage

_MARK = "demo.json"
BACKBONE = "inception_v3"
_FETCH_S = 90.0  # what fetching the published weights may take
_CONNECT_S = 4.0
_FALLBACK = "random:0"
_FETCH = (
    "import sys; from framebank.features.network.backbones import find_backbone; "
    "from framebank.features.network.weights import fetch_imagenet; "
    "fetch_imagenet(find_backbone(sys.argv[1]), timeout_s=float(sys.argv[2]))"
)


def claim_folder(out: Path, wanted: Mapping[str, Any], *, weights: str | None) -> None:
    """Make `out` the folder of a demo with the options `wanted`; raises UsageError when it is
    anything else already, or a demo's with other options or `weights`."""
    mark = out / _MARK
    try:
        if out.exists() and not out.is_dir():
            raise UsageError(
                "--out is a file", got=out, expected="a new or empty folder", todo="name another"
            )
        if not mark.exists():
            if out.exists() and any(out.iterdir()):
                raise UsageError(
                    "--out is a folder with other things in it",
                    got=out,
                    expected="a new or empty folder, or that of an earlier demo",
                    todo="give another --out; the demo deletes nothing of yours",
                )
            out.mkdir(parents=True, exist_ok=True)
            _write_mark(out, wanted)
        found = _read_mark(out)
    except OSError as err:
        raise UsageError(
            f"the demo cannot use the folder {out}", got=err.strerror or err, todo="name another"
        ) from err
    differing = [name for name in wanted if found.get(name) != wanted[name]]
    if weights and found.get("weights", weights) != weights:
        differing.append("weights")
    if differing:
        raise UsageError(
            f"{out} is the folder of a demo with other options",
            got=", ".join(f"--{name} {found.get(name)}" for name in differing),
            expected="the options that it was begun with",
            todo="give the same options to go on, or another --out",
        )


def _read_mark(out: Path) -> dict[str, Any]:
    try:
        return dict(json_text.parse((out / _MARK).read_text("utf-8"))["framebank demo"])
    except (ValueError, KeyError, TypeError) as err:
        raise UsageError(
            f"{out / _MARK} is not what the demo wrote",
            got=f"{type(err).__name__}: {err}",
            todo="give another --out",
        ) from err


def _write_mark(out: Path, fields: Mapping[str, Any]) -> None:
    text = json.dumps({"framebank demo": dict(fields)}, indent=2) + "\n"
    storage.write_atomic(str(out / _MARK), text.encode())


def settle_weights(out: Path, given: str | None, *, say: Callable[[str], None]) -> str:
    """Return the weights of this demo: those it was begun with, else chosen now and noted."""
    found = _read_mark(out)
    if "weights" not in found:
        found["weights"] = given or _choose_weights(say)
        _write_mark(out, found)
    weights = str(found["weights"])
    warning = ". RANDOM: the network has never learnt anything"
    say(f"weights: {weights}" + warning * weights.startswith("random:"))
    return weights


def _choose_weights(say: Callable[[str], None]) -> str:
    """Return "imagenet" where it can be had quickly, else random weights."""
    say("looking for the published ImageNet weights")
    command = [sys.executable, "-P", "-c", _FETCH, BACKBONE, str(_CONNECT_S)]
    fetch = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
    try:
        _, told = fetch.communicate(timeout=_FETCH_S)
        if fetch.returncode == 0:
            return "imagenet"
        reason = next((line for line in told.splitlines() if "got:" in line), "they cannot be had")
    except subprocess.TimeoutExpired:
        reason = f"they did not come within {_FETCH_S:.0f} s"
        fetch.send_signal(signal.SIGINT)  # so that it takes its half file away
        fetch.communicate()
    except BaseException:
        fetch.kill()
        raise
    say(f"not reachable ({reason.replace('got:', '').strip()}): going on with {_FALLBACK}")
    return _FALLBACK
