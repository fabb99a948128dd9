"""`framebank models`: the versions of a registry, which one is in use, and models of old weights.

    framebank models list --registry REGISTRY
    framebank models show current --registry REGISTRY       or show VERSION
    framebank models promote VERSION --registry REGISTRY    use this one, whatever its figures
    framebank models rollback --registry REGISTRY           use the one that was in use before
    framebank models publish VERSION --registry REGISTRY --mlflow URI --name NAME
    framebank models import WEIGHTS --embeddings VECTORS --cache CACHE --model DIR

A version is a model folder: `--model` of score, ask and evaluate takes the path that `show` prints.
`publish` brings one into an MLflow registry, where `mlflow.pyfunc.load_model` finds it
(`train.tracking.mlflow_model`). `import` makes such a folder of weights that Keras 1 or 2 saved
(`train.retrain.importing`).
"""

from __future__ import annotations

import argparse
import dataclasses
import json
from typing import Any

from framebank.features.asking.trained_model import check_weights, read_lineage
from framebank.features.bounds import MOST_INT, check_number
from framebank.features.cache.reader import open_cache
from framebank.features.errors import JobError, UsageError, needing
from framebank.features.terminal import say
from framebank.train.model.config import GATES
from framebank.train.retrain.registry import ROLLED_BACK, Registry

CURRENT = "current"
WORDS = 50_000  # of an imported model
_ACTIONS = {
    "list": "the versions, and what became of each",
    "show": "a version's path, figures and events",
    "promote": "use this version, whatever its figures",
    "rollback": "use the version that was in use before",
}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    actions = parser.add_subparsers(dest="action", required=True, metavar="ACTION")
    for name, text in _ACTIONS.items():
        action = actions.add_parser(name, help=text, description=text, allow_abbrev=False)
        if name in ("show", "promote"):
            also = f", or {CURRENT}" if name == "show" else ""
            action.add_argument("version", metavar="VERSION", help=f"as `list` shows it{also}")
        action.add_argument("--registry", required=True, metavar="R", help="a folder or bucket")
        action.add_argument("--json", action="store_true", help="print JSON")
    _add_publish(actions)
    _add_import(actions)


def _add_publish(actions: Any) -> None:
    told = "bring a version into an MLflow registry, where mlflow.pyfunc.load_model finds it"
    add = actions.add_parser(
        "publish", help=told, description=told, allow_abbrev=False
    ).add_argument
    also = f"as `list` shows it, or {CURRENT}"
    add(
        "version", metavar="VERSION", nargs="?", default=CURRENT, help=f"{also} (default {CURRENT})"
    )
    add("--registry", required=True, metavar="R", help="a folder or bucket")
    add("--mlflow", required=True, metavar="URI", help="of MLflow: http://…, sqlite:///FILE")
    add("--name", required=True, help="what the model is called there")
    add("--json", action="store_true", help="print JSON")


def _add_import(actions: Any) -> None:
    told = "make a model of image question answering of weights that Keras 1 or 2 saved"
    add = actions.add_parser("import", help=told, description=told, allow_abbrev=False).add_argument
    add("weights", metavar="WEIGHTS", help="the .hdf5 file of three LSTMs and four dense layers")
    add(
        "--labels", metavar="FILE",
        help="the answers in the order of the outputs, as a JSON list, a line each, or .npy "
        "(default: beside the weights, of their name or called labels)",
    )  # fmt: skip
    add("--embeddings", required=True, metavar="FILE",
        help="the word vectors that they were trained with")  # fmt: skip
    add("--words", type=int, default=WORDS, metavar="N",
        help="how many of the word vectors are kept, from the first")  # fmt: skip
    add("--gates", choices=GATES,
        help="gates of the LSTMs (default: as the file or its Keras had them)")  # fmt: skip
    add("--cache", required=True, help="features of pictures, as the weights read them")
    add("--model", required=True, metavar="DIR", help="folder for the model")
    add("--overwrite", action="store_true", help="throw away what --model holds")
    add("--json", action="store_true", help="print JSON")


def run(args: argparse.Namespace, beam_args: list[str]) -> int:
    """Show or change a registry; return the exit status. Raises FramebankError."""
    if beam_args:
        raise UsageError("unknown option", got=" ".join(beam_args), todo="framebank models --help")
    if args.action == "import":
        made = _import(args)
        said = f"{args.model}: {made['parameters']:,} parameters, {made['answers']:,} answers, "
        print(json.dumps(made) if args.json else f"{said}{made['words']:,} words")
        return 0
    registry = Registry(args.registry)
    if args.action == "publish":
        made = _publish(registry, args)
        said = f"{made['version']} is version {made['number']} of {made['name']} in {made['uri']}"
        print(
            json.dumps(made) if args.json else f'{said}: mlflow.pyfunc.load_model("{made["load"]}")'
        )
        return 0
    if args.action == "promote":
        _move(registry, args.version)
    if args.action == "rollback":
        _move(registry, None)
    version = args.version if args.action == "show" else CURRENT
    shown = _rows(registry) if args.action == "list" else _row(registry, version)
    if args.json:
        print(json.dumps(shown, ensure_ascii=False))
    else:
        print(_table(shown) if isinstance(shown, list) else _sheet(shown))
    return 0


def _import(args: argparse.Namespace) -> dict[str, Any]:
    from framebank.features.tensorflow_import import import_tensorflow

    check_number("--words", args.words, 0, MOST_INT, above=True)
    cache = open_cache(args.cache)
    import_tensorflow()
    from framebank.train.retrain.importing import ImportJob, import_model

    job = ImportJob(args.weights, args.labels, args.embeddings, args.words, args.gates)
    return import_model(job, cache, args.model, overwrite=args.overwrite, say=say)


def _publish(registry: Registry, args: argparse.Namespace) -> dict[str, Any]:
    version = _row(registry, args.version)["version"]
    with needing("models publish", extra="mlflow"):
        from framebank.train.tracking.mlflow_model import publish

        folder = registry.folder(version)
        check_weights(folder)
        return publish(folder, version, uri=args.mlflow, name=args.name)


def _move(registry: Registry, version: str | None) -> None:
    """Make `version` the one in use, or without one the version that was in use before.

    Raises UsageError where it is not there whole, NotFiniteError for one of NaN.
    """
    registry.finish_interrupted()
    current = registry.current()
    event, reason = "promoted", "by hand"
    if version is None:
        if not current.before:
            got = f"{current.version or 'no version'} in use"
            raise UsageError("no version was in use before", got=got)
        event, reason = ROLLED_BACK, f"by hand, from {current.version}"
        version = current.before[-1]
    registry.verdict(version)
    read_lineage(registry.folder(version))
    check_weights(registry.folder(version))
    if current.version == version:
        raise UsageError(f"{version} is in use already")
    if not registry.move(current, version, event=event, reason=reason):
        raise JobError(
            f"another process changed which model is in use; {version} was not taken",
            got=f"{registry.current().version} is in use now",
            todo="look at `framebank models list` and run the command again if it is still wanted",
        )


def _row(registry: Registry, version: str) -> dict[str, Any]:
    current = registry.current()
    found = current.version if version == CURRENT else version
    if found is None:
        todo = "run `framebank retrain`, or name a VERSION"
        raise UsageError(f"no model is in use in {registry.path}", todo=todo)
    events = [row for row in registry.history() if row.get("version") == found]
    verdict = registry.verdict(found)
    made = registry.read_json(found, "lineage.json")
    named = ("cache", "fingerprint", "runs", "questions", "questions_sha256")
    return {
        "version": found,
        "in_use": found == current.version,
        "path": registry.folder(found),
        "made_from": {
            **{name: made.get(name) for name in named},
            "warm_start": made.get("making", {}).get("config", {}).get("warm_start"),
            "seed": made.get("seed"),
            "framebank": made.get("versions", {}).get("framebank"),
        },
        "figures": verdict["figures"],
        "reason": verdict["reason"],
        "events": [{name: row[name] for name in ("time", "event", "reason")} for row in events],
    }


def _rows(registry: Registry) -> list[dict[str, Any]]:
    current, files = registry.current(), registry.files()
    last = {row.get("version"): row for row in registry.history()}
    rows = []
    if current.version is not None:
        registry.check_in_use(current, files)
    for version in registry.versions(files):
        in_use = version == current.version
        event = dataclasses.asdict(current) if in_use else last.get(version, {})
        rows.append(
            {
                "version": version,
                "in_use": in_use,
                "event": event.get("event", "not settled yet"),
                "time": event.get("time", ""),
                "reason": event.get("reason", ""),
            }
        )
    return rows


def _table(rows: list[dict[str, Any]]) -> str:
    if not rows:
        return "no version yet"
    lines = [f"  {'version':24}{'':16}{'since':27}why"]
    for row in rows:
        mark = "*" if row["in_use"] else " "
        lines.append(f"{mark} {row['version']:24}{row['event']:16}{row['time']:27}{row['reason']}")
    lines.append("* is in use" if any(row["in_use"] for row in rows) else "none is in use")
    return "\n".join(lines)


def _sheet(row: dict[str, Any]) -> str:
    lines = [f"{row['version']} {'(in use)' if row['in_use'] else ''}".rstrip()]
    lines += [f"  path:      {row['path']}", f"  judged:    {row['reason']}"]
    lines += [f"  {name}: {_figure(value)}" for name, value in row["figures"].items()]
    lines += ["  made from"]
    lines += [f"    {name}: {_listed(value)}" for name, value in row["made_from"].items()]
    lines += [f"  {one['time']}  {one['event']}: {one['reason']}" for one in row["events"]]
    return "\n".join(lines)


def _figure(value: Any) -> str:
    if isinstance(value, list):
        return " to ".join(map(_figure, value))
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def _listed(value: Any) -> str:
    if isinstance(value, list):
        return ", ".join(map(str, value[-3:])) + (f" and {len(value) - 3} more" * (len(value) > 3))
    if isinstance(value, dict):
        return ", ".join(f"{name} {count}" for name, count in value.items())
    return "none" if value is None else str(value)
