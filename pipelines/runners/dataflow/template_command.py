"""Write a flex template: with it a job starts from Google's console or API, without this program.

    framebank template build --command extract --image REGISTRY/launcher:TAG --out OUT
    gcloud dataflow flex-template run NAME --template-file-gcs-location=OUT/extract/template.json

Writes OUT/COMMAND/metadata.json, with every parameter described and its pattern, and template.json,
what `gcloud dataflow flex-template build` makes of it. The image is infra/docker's launcher; the
workers' own is given with --worker-image, or by who starts a job. Exit status: 0, or 2 for a
mistake in the command line. The service that reads these files was not within reach of the tests.
"""

from __future__ import annotations

import argparse
import json
import re
from typing import Any

from framebank import __version__
from framebank.features.errors import UsageError
from framebank.features.stores import storage
from framebank.pipelines.runners.dataflow.flex_launcher import COMMANDS, find_parameters

_IMAGE = re.compile(
    r"[a-z0-9.-]+(:[0-9]+)?(/[a-z0-9._-]+)+(:[A-Za-z0-9_][A-Za-z0-9._-]*|@sha256:[0-9a-f]{64})"
)
_FOLDER = r"^gs://[a-z0-9][-_a-z0-9.]+[a-z0-9](/.*)?$"
_SEVERAL = r"^gs://\S+(\s+gs://\S+)*$"
_NAME = r"^[A-Za-z0-9_./-]+$"
_FRACTION = r"(0|[1-9][0-9]*)(\.[0-9]+)?"
# Of the arguments that are text; numbers, flags and choices say by themselves what they take.
_PATTERNS = {
    "inputs": _SEVERAL,
    "cache": _FOLDER,
    "sample": rf"^(fps={_FRACTION}(/[1-9][0-9]*)?|(uniform|every)=[1-9][0-9]*|all|keyframes)$",
    "backbone": r"^[a-z0-9_]+$",
    "layer": _NAME,
    "weights": r"^(imagenet|random:[0-9]+|gs://\S+)$",
    "accelerator": r"^nvidia-[a-z0-9-]+(:[1-9][0-9]*)?$",
    "model": _FOLDER,
    "questions": _SEVERAL,
    "mapping": r"^gs://\S+$",
    "out": _FOLDER,
}
_TYPES = {
    "cache": "GCS_WRITE_FOLDER",
    "out": "GCS_WRITE_FOLDER",
    "model": "GCS_READ_FOLDER",
    "mapping": "GCS_READ_FILE",
}
_TITLES = {
    "extract": "Decode videos once and keep per-frame features",
    "score": "Answer a file of questions from cached features",
}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add what `framebank template` takes."""
    add = parser.add_argument
    add("action", choices=["build"])
    add("--command", choices=list(COMMANDS), default="extract", help="what its jobs do")
    add("--image", required=True, help="the launcher's image, with its tag or digest")
    add("--worker-image", metavar="IMAGE", help="the workers' image unless a job names another")
    add("--out", required=True, metavar="DIR", help="folder or gs:// prefix for the two files")


def run(args: argparse.Namespace, rest: list[str]) -> int:
    """Write the template, and return the exit status."""
    for option, image in (("--image", args.image), ("--worker-image", args.worker_image)):
        if image is not None and not _IMAGE.fullmatch(image):
            raise UsageError(
                f"{option} is no image",
                got=image,
                expected="REGISTRY/NAME:TAG or REGISTRY/NAME@sha256:DIGEST",
            )
    metadata = build_metadata(args.command)
    spec = {
        "image": args.image,
        "metadata": metadata,
        "sdkInfo": {"language": "PYTHON"},
        "defaultEnvironment": {"sdkContainerImage": args.worker_image} if args.worker_image else {},
    }
    folder = storage.join(args.out, args.command)
    for name, content in (("metadata.json", metadata), ("template.json", spec)):
        path = storage.join(folder, name)
        storage.write_atomic(path, json.dumps(content, indent=2).encode() + b"\n")
        print(f"wrote {path}")
    return 0


def build_metadata(command: str) -> dict[str, Any]:
    """Return a template's metadata: every parameter of the command, from its own parser."""
    return {
        "name": f"framebank {command} {__version__}",
        "description": _TITLES[command],
        "streaming": False,
        "parameters": [_described(action) for action in find_parameters(command)],
    }


def _described(action: argparse.Action) -> dict[str, Any]:
    told = action.help or action.dest.replace("_", " ")
    if action.nargs != 0 and action.default is not None and "default" not in told:
        told += f" (default {action.default})"
    if action.nargs == "+":
        told += "; several with spaces between"
    return {
        "name": action.dest,
        "label": action.dest.replace("_", " ").capitalize(),
        "helpText": told.replace("%%", "%"),
        "isOptional": not action.required,
        "regexes": [_pattern(action)],
        "paramType": _TYPES.get(action.dest, "TEXT"),
    }


def _pattern(action: argparse.Action) -> str:
    if action.nargs == 0:
        return "^(true|false)$"
    if action.choices is not None:
        return f"^({'|'.join(map(re.escape, action.choices))})$"
    if action.type is int:
        return r"^[1-9][0-9]{0,9}$"
    if action.type is float:
        return rf"^{_FRACTION}$"
    return _PATTERNS[action.dest]
