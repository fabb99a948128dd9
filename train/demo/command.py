"""All of Framebank on clips that it makes itself: offline, from nothing to an answer.

    framebank demo [--out DIR]

Makes clips of things being loaded and unloaded, moved left and right, opened and closed; extracts
their features with InceptionV3; trains; scores; asks about a clip that was held out; and leaves
everything in DIR with an index.html to look at. Each step is the very command that you would type,
and is printed. Takes some four minutes on two cores. A second run goes on where the first ended.

Every clip has a twin with the same pictures in reverse order, so that what loads, left or opens
cannot be seen without their order: the order-blind baseline is at chance, the model is not.
"""

from __future__ import annotations

import argparse
import functools
import json
import signal
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from framebank.features import terminal
from framebank.features.bounds import MOST_INT, MOST_SEED, check_number
from framebank.features.commands.steps import Steps
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
_say = functools.partial(terminal.say, who="demo")
_LABELS = {
    "model": "model",
    "order_blind": "order-blind (mean of the frames)",
    "question_only": "question only",
    "majority": "majority answer",
}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add what `framebank demo` takes."""
    add = parser.add_argument
    add("--out", default="framebank-demo", metavar="DIR", help="folder for all that it makes")
    add("--clips", type=int, default=200, metavar="N", help="how many clips to make")
    add("--seed", type=int, default=0, help="seed of the clips")
    add("--weights", help="imagenet | PATH | random:SEED (default: imagenet if it can be had)")
    add("--epochs", type=int, default=40, help="at most this many epochs of training")


def run(args: argparse.Namespace, beam_args: list[str]) -> int:
    """Run the demo and return the exit status."""
    check_number("--seed", args.seed, 0, MOST_SEED)
    check_number("--epochs", args.epochs, 0, MOST_INT, above=True)
    from framebank.train.demo.clips import make_clips, plan_clips

    started = time.monotonic()
    plan_clips(args.clips, seed=args.seed)  # refuses a bad number before anything is written
    out = Path(args.out)
    wanted = {"clips": args.clips, "seed": args.seed, "epochs": args.epochs}
    _claim_folder(out, wanted, weights=args.weights)
    weights = _settle_weights(out, args.weights)
    _say(f"making {args.clips} clips in {out / 'clips'}")
    plans = make_clips(out, count=args.clips, seed=args.seed, report=_report_clips)
    steps = Steps("demo")
    commands = demo_commands(out, weights=weights, epochs=args.epochs)
    printed = {name: steps.run(name, words) for name, words in commands.items()}
    held_out = next(plan for plan in plans if plan.split == "test")
    question = held_out.scene.questions[0]
    named = weights == "imagenet" or weights.startswith("random:")
    given = [] if named else ["--weights", weights]
    ask = ["ask", "--model", str(out / "model"), *given, "--json"]
    answer = steps.run("ask", [*ask, str(out / "clips" / f"{held_out.clip_id}.mp4"), question])
    from framebank.train.demo.page import DemoResult, write_page

    result = DemoResult(
        metrics=printed["train"],
        asked=answer | {"truth": held_out.answer},
        weights=weights,
        seconds=steps.seconds | {"in all": time.monotonic() - started},
        commands=steps.typed,
    )
    page = write_page(out, result)
    print(_closing(result, page))
    return 0


def _claim_folder(out: Path, wanted: Mapping[str, Any], *, weights: str | None) -> None:
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


def _settle_weights(out: Path, given: str | None) -> str:
    """Return those that the demo was begun with, else choose some now and note them."""
    found = _read_mark(out)
    if "weights" not in found:
        found["weights"] = given or _choose_weights()
        _write_mark(out, found)
    weights = str(found["weights"])
    warning = ". RANDOM: the network has never learnt anything"
    _say(f"weights: {weights}" + warning * weights.startswith("random:"))
    return weights


def _choose_weights() -> str:
    """Return "imagenet" where it can be had quickly, else random weights."""
    _say("looking for the published ImageNet weights")
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
    _say(f"not reachable ({reason.replace('got:', '').strip()}): going on with {_FALLBACK}")
    return _FALLBACK


def demo_commands(out: Path, *, weights: str, epochs: int) -> dict[str, list[str]]:
    """Return the words of each command after `framebank`."""
    cache, model, questions = str(out / "cache"), str(out / "model"), str(out / "questions.jsonl")
    return {
        "extract": [
            "extract", str(out / "clips"), "--cache", cache, "--sample", "uniform=8",
            "--weights", weights, "--json",
        ],
        "train": [
            "train", "--cache", cache, "--questions", questions, "--model", model,
            "--epochs", str(epochs), "--json",
        ],
        "score": [
            "score", "--model", model, "--cache", cache, "--questions", questions,
            "--out", str(out / "answers"), "--top", "4", "--json",
        ],
    }  # fmt: skip


def _closing(result: Any, page: Path) -> str:
    from framebank.train.demo.page import direction_table

    rows = direction_table(result.metrics)
    asked = result.asked
    first = asked["answers"][0]
    lines = [
        "",
        f"{'direction questions, held-out clips':40}accuracy",
        *(f"  {_LABELS[name]:38}{accuracy:8.1%}" for name, accuracy, _ in rows),
        f"  ({rows[0][2]} questions; features by {BACKBONE} with weights {result.weights})",
        "",
        f"asked about {Path(asked['video']).name}: {asked['question']}",
        f"  {first['answer']} ({first['probability']:.0%}); the truth is {asked['truth']}",
        "",
        f"done in {result.seconds['in all']:.0f} s. Look at {page}",
    ]
    return "\n".join(lines)


def _report_clips(made: int, count: int) -> None:
    if made % 40 == 0 or made == count:
        _say(f"{made}/{count} clips")
