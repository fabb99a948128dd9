"""Ask a trained model one question about one clip.

    framebank ask --model model clip.mp4 "what is the man doing?"

The clip is decoded and goes through the network just as `framebank extract` would do it, by the
spec that the model itself records; then the model answers. VIDEO finds its file as the id of a
question finds its clip (`features.questions.videos`): `clip` is clip.mp4 where there is one such.
Takes some seconds, most of which are TensorFlow's start.
"""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import json
import os
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from framebank.features.asking.one_clip import (
    Asked,
    ask_about_video,
    ask_one,
    check_question,
)
from framebank.features.asking.trained_model import (
    Lineage,
    check_weights,
    load_model,
    read_head,
    read_lineage,
)
from framebank.features.cache import layout
from framebank.features.errors import (
    CacheError,
    FramebankError,
    JobError,
    UsageError,
    VideoRejected,
)
from framebank.features.network.int8 import find_graph
from framebank.features.network.own_files import describe, is_own_path
from framebank.features.network.weights import resolve_weights
from framebank.features.questions.parsing import text
from framebank.features.questions.question import SEGMENTS
from framebank.features.questions.videos import ClipNames, same_form
from framebank.features.spec import (
    DTYPES,
    INT8,
    PICTURE_DTYPES,
    PRECISIONS,
    RESIZES,
    FeatureSpec,
    check_same_spec,
)
from framebank.features.stores import json_text, storage
from framebank.features.terminal import say, waiting

if TYPE_CHECKING:
    from framebank.features.cache.record import FeatureRecord
    from framebank.features.video import Extracted

_BAR_WIDTH = 24
_CHECKED = ("backbone", "layer", "sample", "max_frames", "dtype", "resize", "precision")
_TODO = "leave the option out, or ask a model that was trained on such features"
# A clip that is not there, or is no clip at all, is a mistake in the command line.
_MISTAKES = ("missing", "forbidden", "not_a_file", "unreadable", "empty", "not_a_video")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("video", metavar="VIDEO", help="a clip on this machine or gs://BUCKET/NAME")
    said = 'in quotes, such as "what is the man doing?"; a model of labels or segments takes none'
    add("question", metavar="QUESTION", nargs="?", default="", help=said)
    add("--model", required=True, metavar="DIR", help="what `framebank train` wrote")
    add("--choice", action="append", default=[], metavar="TEXT", dest="choices",
        help="a candidate to choose from; give it once for each")  # fmt: skip
    add("--top", type=int, default=5, metavar="K", help="answers to show")
    add("--weights", metavar="PATH", help="where the network's weight file lies now, if it moved")
    add("--json", action="store_true", help="print the answers as JSON")
    same = parser.add_argument_group(
        "checks", "the model's own spec is used; one of these that differs from it is refused"
    )
    for name in ("backbone", "layer", "sample"):
        same.add_argument(f"--{name}", metavar="NAME" if name != "sample" else "RULE")
    same.add_argument("--max-frames", type=int, metavar="M")
    same.add_argument("--dtype", choices=(*DTYPES, *PICTURE_DTYPES))
    same.add_argument("--resize", choices=RESIZES)
    same.add_argument("--precision", choices=PRECISIONS)


def run(args: argparse.Namespace, beam_args: list[str]) -> int:
    """Ask, print the answers and return the exit status."""
    found = execute(args, beam_args)
    told: Iterable[str] = [json.dumps(found, ensure_ascii=False)]
    if not args.json:
        told = [*answer_lines(found["answers"]), *segment_lines(found.get("segments", ()))]
    print("\n".join(told))
    return 0


def execute(args: argparse.Namespace, beam_args: list[str]) -> dict[str, Any]:
    """Ask; return the answers and what they are about. Raises UsageError, JobError."""
    if args.top < 1:
        raise UsageError("--top must be above 0", got=args.top)
    # As in a file of questions.
    question, choices = text(args.question), [text(choice) for choice in args.choices]
    lineage, head = read_lineage(args.model), read_head(args.model)
    check_question(question, choices, head, model=args.model)
    check_weights(args.model)
    check_asked_spec(args, lineage.spec)
    source = find_weights(lineage, given=args.weights)
    if lineage.random_weights:
        say(f"the network has RANDOM weights ({lineage.spec.weights}): answers mean little")
    video = find_clip(args.video)
    if video != args.video:
        say(f"{args.video} is {video}")
    with waiting(f"loading the network ({lineage.spec.backbone}) and looking at the clip"):
        record = extract_record(video, lineage.spec, source)
    features = record.features.astype(np.float32)
    more: dict[str, Any] = {}
    told: tuple[list[dict[str, Any]], list[str]]
    if head.kind == SEGMENTS:
        answers, more["segments"] = find_in_video(args.model, record, top=args.top)
        told = (answers, [])
    else:
        told = answer_question(args.model, features, question, top=args.top, choices=choices)
    return {
        "video": video,
        "question": question,
        "answers": told[0],
        "unknown_words": told[1],
        "frames": len(features),
        "model": args.model,
        "random_weights": lineage.random_weights,
        **more,
    }


def check_asked_spec(args: argparse.Namespace, spec: FeatureSpec) -> None:
    """Raise SpecMismatchError where an option asks for other features than the model's."""
    given = {name: getattr(args, name) for name in _CHECKED if getattr(args, name) is not None}
    if "sample" in given:
        from framebank.features.decoding.sampling import parse_rule

        given["sample"] = parse_rule(given["sample"]).text
    if "backbone" in given and is_own_path(given["backbone"]):
        found = resolve_weights(given["backbone"], backbone=given["backbone"])
        own = describe(Path(found.local_path or ""), given["backbone"])
        given |= {"backbone": own.name, "weights_sha256": found.sha256}
    elif "backbone" in given:
        from framebank.features.network.backbones import find_backbone

        row = find_backbone(given["backbone"])
        if row.name != spec.backbone:
            of_row = {"input_size": row.input_size, "preprocessing": row.preprocessing}
            given = {"layer": row.layer} | of_row | given
    asked = dataclasses.replace(spec, **given)
    check_same_spec(spec, asked, where=f"the model {args.model}", owner="of the model", todo=_TODO)


def find_weights(lineage: Lineage, *, given: str | None) -> str:
    """Return the weights of the model's spec as `--weights` would name them, of int8 its quantised
    graph: a file where it was given, else where the runs that made the cache had it. Raises
    UsageError where it is not found, SpecMismatchError where it is another file than the features
    were made with."""
    spec = lineage.spec
    if spec.precision == INT8:
        return given or _find_graph(lineage)
    if given is not None:
        found = resolve_weights(given, backbone=spec.backbone)
        if found.sha256 != spec.weights_sha256:
            asked = dataclasses.replace(spec, weights=found.name, weights_sha256=found.sha256)
            where = "the cache of the model"
            check_same_spec(spec, asked, where=where, owner="of the model", todo=_TODO)
        return given
    if spec.weights != "file":
        return spec.weights
    tried: dict[str, None] = {}
    for run_id in sorted(lineage.runs, reverse=True):
        # The cache may have moved or be gone; the error below says what to do.
        with contextlib.suppress(FramebankError, ValueError, AttributeError):
            about = storage.read_bytes(layout.run_path(lineage.cache, run_id))
            if recorded := json_text.parse(about).get("weights_path"):
                tried[str(recorded)] = None
    for path in tried:
        with contextlib.suppress(UsageError):  # there is no such file any more
            if resolve_weights(path, backbone=spec.backbone).sha256 == spec.weights_sha256:
                return path
    raise UsageError(
        "the weight file that the model's features were made with is not found",
        got="looked at " + ", ".join(tried) if tried else "no record of where it was",
        expected=f"a file with SHA-256 {spec.weights_sha256}",
        todo="give --weights PATH",
    )


def _find_graph(lineage: Lineage) -> str:
    try:
        graph = find_graph(lineage.cache, lineage.spec)
    except CacheError as err:
        todo = "give --weights PATH"
        raise UsageError(err.what, got=err.got, expected="the cache's file", todo=todo) from err
    return graph.local_path or graph.source


def find_clip(video: str) -> str:
    """Return the path of the clip that is meant, of one in a bucket as it is named; raises
    UsageError where there is none."""
    if not storage.is_local(video):
        return video
    path = storage.local_path(video)
    if os.path.lexists(path):
        return video
    folder, name = os.path.split(path)
    folder = _find_folder(folder)
    names = ClipNames(_listed(folder))
    if (found := names.find(name)) is not None:
        return os.path.join(folder, found)
    raise UsageError("there is no such clip", got=video, todo=names.hint(name) or "check the path")


def _find_folder(path: str) -> str:
    """Return the folder of this name in whatever form of its accents; as it is where none is."""
    if not path or os.path.isdir(path):
        return path
    above, name = os.path.split(path)
    if above == path:
        return path
    above = _find_folder(above)
    found = [other for other in _listed(above) if same_form(other) == same_form(name)]
    return os.path.join(above, found[0] if len(found) == 1 else name)


def _listed(folder: str) -> list[str]:
    try:
        return sorted(os.listdir(folder or "."))
    except OSError:
        return []


def extract_record(video: str, spec: FeatureSpec, weights: str) -> FeatureRecord:
    """Return one clip as the cache would hold it; raises UsageError for what is no clip, JobError
    for a clip that cannot be used."""
    from framebank.features.extraction.one_clip import extract_features

    try:
        return as_cached(extract_features(video, spec=spec, weights=weights), spec)
    except VideoRejected as rejected:
        kind = UsageError if rejected.error_class in _MISTAKES else JobError
        raise kind(
            f"{video} cannot be used: {rejected.error_class} (at {rejected.stage})",
            got=rejected.message,
            expected="a video or a picture that FFmpeg can decode",
            todo="check the path and open the file to see what is wrong with it",
        ) from rejected


def as_cached(extracted: Extracted, spec: FeatureSpec) -> FeatureRecord:
    """Return the features of a clip rounded to the dtype of the cache: the model has never seen
    anything else. Raises VideoRejected."""
    from framebank.features.cache.record import decode_record, encode_record

    payload, _ = encode_record(extracted, spec=spec)
    return decode_record(payload)


def find_in_video(
    model_dir: str, record: FeatureRecord, *, top: int
) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """Return the `top` likeliest labels of a video, and its segments in the order of their time."""
    with waiting(f"asking the model about {len(record.features)} frames"):
        model = load_model(model_dir, keep=True)
    return ask_about_video(model, record, top=top)


def segment_lines(segments: Sequence[dict[str, Any]]) -> Iterator[str]:
    """Yield a line for each segment: seconds, score, label."""
    for its in segments:
        span = f"{its['start_s']:9.2f} s to {its['end_s']:9.2f} s"
        yield f"{span}  {its['score']:.2f}  {its['label']}"


def answer_question(
    model_dir: str, features: NDArray[np.float32], question: str, *, top: int, choices: list[str]
) -> tuple[list[dict[str, Any]], list[str]]:
    """Return the `top` likeliest answers to a question about a clip's features float32[n, d], and
    the words of the question that the model does not know; raises UsageError, JobError."""
    with waiting(f"asking the model about {len(features)} frames"):
        model = load_model(model_dir, keep=True)
    asked = Asked(features, question, tuple(choices))
    told = ask_one(model, asked, top=top, model_dir=model_dir)
    for warning in told.warnings:
        say(warning)
    return told.answers, told.unknown_words


def answer_lines(answers: list[dict[str, Any]]) -> Iterator[str]:
    """Yield a line for each answer: percentage, bar, answer; of a count the number."""
    for row in answers:
        if "number" in row:
            yield f"{row['answer']}  (rounded from {row['number']:.2f})"
            continue
        share = row["probability"]
        filled = round(share * _BAR_WIDTH)
        yield f"{share:7.1%}  {'█' * filled}{'·' * (_BAR_WIDTH - filled)}  {row['answer']}"
