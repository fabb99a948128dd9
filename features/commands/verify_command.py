"""`framebank verify CACHE`: read a whole cache back and name every fault.

Checks checksums, shapes and values of every record, and the catalogs against the shards against
their sidecars. About as fast as the disk reads. Ends with 0 when the cache is intact, with 1 when
there is a fault; each fault is one line on stdout. What is damaged is noted in the cache, and the
next `framebank extract` makes it anew. With --json one JSON document on stdout.
"""

from __future__ import annotations

import argparse
import dataclasses
import json

from framebank.features.cache import layout
from framebank.features.cache.verify import Report, verify_cache
from framebank.features.errors import FramebankError
from framebank.features.progress import Bar
from framebank.features.terminal import printable, say


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("cache", metavar="CACHE", help="folder or gs://BUCKET/NAME of a cache")
    parser.add_argument("--json", action="store_true", help="print one JSON document")


def run(args: argparse.Namespace, beam_args: list[str]) -> int:
    """Verify and print; returns 0 for an intact cache, 1 for faults. Raises UsageError."""
    report = execute(args, beam_args)
    if args.json:
        print(json.dumps({"sound": not report.faults} | dataclasses.asdict(report), indent=2))
    else:
        _print(args.cache, report)
    return 1 if report.faults else 0


def execute(args: argparse.Namespace, beam_args: list[str]) -> Report:
    """Verify, and note for the next extract what is damaged. Raises UsageError."""
    with Bar("verify", total=None) as bar:

        def show(done: int, total: int) -> None:
            bar.update(done, f"verified {done:,} of {total:,} shards", total=total)

        report = verify_cache(args.cache, progress=show)
    try:
        layout.note_damaged(args.cache, report.damaged_shards)
    except FramebankError as error:  # the cache may not be written
        if report.damaged_shards:
            say(f"the faults are not noted for extract: {error}")
    return report


def _print(cache: str, report: Report) -> None:
    for fault in report.faults:
        print(f"fault: {printable(fault)}")
    for remark in report.remarks:
        print(f"remark: {printable(remark)}")
    checked = (
        f"{report.shards:,} shards, {report.records:,} records, {report.frames:,} frames, "
        f"{report.size_bytes:,} bytes"
    )
    if report.damaged_shards or report.damaged_files:
        print("the same `framebank extract` command again makes anew what it can")
    count = len(report.faults)
    found = f"{count:,} fault{'s' * (count != 1)}" if count else "intact, no faults"
    print(f"{cache}: {found} ({checked} read back)")
