"""`framebank like CACHE CLIP|VIDEO_ID`: which videos of a cache are most like one.

    framebank like cache truck.mp4
    framebank like cache ./elsewhere/new.mp4 --count 5

A video of the cache is found as that of a question is. Anything else is a clip: it is decoded and
goes through the network as the cache's spec says, which takes as long as `ask`. (`./truck.mp4` is
the file, also where the cache has a truck.mp4.) Videos are compared by the cosine of their moments:
the mean of their features, and how much these change. The first time moments are made of the whole
cache, at the speed of its disk; they are kept beside it.
"""

from __future__ import annotations

import argparse
import json
import os
from typing import TYPE_CHECKING, Any

from framebank.features.errors import UsageError
from framebank.features.progress import Bar
from framebank.features.stores import storage
from framebank.features.terminal import printable, say, waiting

if TYPE_CHECKING:
    from framebank.features.browsing.views import CacheViews
    from framebank.features.cache.record import FeatureRecord


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("cache", metavar="CACHE", help="folder or gs://BUCKET/NAME of a cache")
    add("video", metavar="CLIP|VIDEO_ID", help="a video of the cache, or a clip anywhere")
    add("--count", type=int, default=10, metavar="N", help="videos to show")
    add("--weights", metavar="PATH", help="where the network's weight file lies now, if it moved")
    add("--json", action="store_true", help="print one JSON document")


def run(args: argparse.Namespace, beam_args: list[str]) -> int:
    """Print the nearest videos; returns 0. Raises UsageError, CacheError, JobError."""
    found = execute(args, beam_args)
    if args.json:
        print(json.dumps(found, ensure_ascii=False))
        return 0
    for row in found["neighbours"]:
        print(f"{row['cosine']:8.4f}  {printable(row['video_id'])}")
    return 0


def execute(args: argparse.Namespace, beam_args: list[str]) -> dict[str, Any]:
    """Return the nearest videos, and what they are near to."""
    from framebank.features.browsing.views import CacheViews

    if args.count < 1:
        raise UsageError("--count must be above 0", got=args.count)
    views = CacheViews.open(args.cache)
    try:
        video_id = views.names.find(args.video)
        if video_id is not None:
            views.check_done(video_id)
            _make(views)
            found = views.neighbours(video_id, args.count)
        else:
            record = _extracted(views, args)
            _make(views)
            found = views.like(record, args.count)
    finally:
        views.close()
    return {"video": args.video, "video_id": video_id, **found}


def _make(views: CacheViews) -> None:
    """Make the moments of the whole cache, told of how far that is."""
    its = views.moments
    with Bar("like", total=len(its)) as bar:
        its.make(lambda done: bar.update(done, f"{done:,}/{len(its):,} videos compared"))
    if its.lost:
        say(f"WARNING: {its.lost} videos cannot be read; `framebank verify` names what is damaged")


def _extracted(views: CacheViews, args: argparse.Namespace) -> FeatureRecord:
    """Return the features of a clip as the cache would hold it."""
    from framebank.features.asking.command import extract_record, find_weights
    from framebank.features.asking.trained_model import Lineage

    if storage.is_local(args.video) and not os.path.lexists(storage.local_path(args.video)):
        raise UsageError(
            f"{printable(args.video)!r} is neither a video of {views.cache.path} nor a clip",
            todo=views.names.hint(args.video) or "check the id, or the path",
        )
    spec = views.cache.spec
    runs = views.cache.table(["run_id"]).column("run_id").unique().to_pylist()
    lineage = Lineage(spec, spec.random_weights, views.cache.path, tuple(runs))
    source = find_weights(lineage, given=args.weights)
    with waiting(f"loading the network ({spec.backbone}) and looking at the clip"):
        return extract_record(args.video, spec, source)
