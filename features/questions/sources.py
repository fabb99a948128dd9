"""Which clips come from one source: the group that a split must not cut.

A question file states it in the column `group`, or a pattern finds it in the ids (`--group-by`).
Where neither is given, ids may still look like several clips of one video (`v_Run_g01_c02`,
`dQw4w9WgXcQ_10_20`, `match-7_part3`), and `suspect_sources` says so.
"""

from __future__ import annotations

import collections
import re
from collections.abc import Iterable

from framebank.features.errors import UsageError

_EXTENSION = re.compile(r"\.[a-z0-9]{2,4}$", re.IGNORECASE)
# What stands for the place in the source, at the end of an id.
_PLACES = (
    re.compile(r"[\W_]c\d+$"),  # UCF101: v_ApplyEyeMakeup_g01_c01
    re.compile(r"[\W_]\d+(\.\d+)?[\W_]\d+(\.\d+)?$"),  # from and to: MSVD, Kinetics
    re.compile(r"[\W_](clip|part|seg|segment|shot|scene|chunk|window)[\W_]?\d+$", re.IGNORECASE),
    re.compile(r"(?<=\d)[\W_]\d{1,6}$"),  # match7_03, not the 12 digits of a picture of COCO
)
_NUMBER = re.compile(r"[\W_]\d{1,6}$")  # tells of sources (film_3) or of classes (walk_3)
_LEAST_SOURCES, _MOST_CLIPS = 10, 20  # those that are no classes, and their clips in the mean
_MOST_ALONE = 0.5  # of the clips may have a source of their own, if ids are to tell of sources


def compile_grouping(pattern: str) -> re.Pattern[str]:
    """Return the pattern of `--group-by`; raises UsageError."""
    try:
        return re.compile(pattern)
    except re.error as err:
        raise UsageError(
            "--group-by is no regular expression",
            got=f"{pattern!r}: {err}",
            expected=r"one whose first group names the source, such as '^(.*)_c\d+'",
        ) from err


def group_of(video_id: str, pattern: re.Pattern[str]) -> str | None:
    """Return what the pattern's first group (else all of it) finds in the id; None where it finds
    nothing."""
    found = pattern.search(video_id)
    if found is None:
        return None
    return (found.group(1) if pattern.groups else found.group()) or None


def suspect_sources(video_ids: Iterable[str]) -> dict[str, str]:
    """Return by id the source that it seems to come from; empty where ids tell of none.

    They do where the same ending (a number of a clip, a span) leaves ids that half of the clips
    or more share with another.
    """
    ids = sorted(set(video_ids))
    for ending in (*_PLACES, _NUMBER):
        sources = {video_id: ending.sub("", _EXTENSION.sub("", video_id)) for video_id in ids}
        counts = collections.Counter(sources.values())
        shared = sum(count for count in counts.values() if count > 1)
        least = _LEAST_SOURCES if ending is _NUMBER else 2
        if len(counts) < least or (ending is _NUMBER and len(ids) > _MOST_CLIPS * len(counts)):
            continue
        if shared > (1 - _MOST_ALONE) * len(ids):
            return sources
    return {}
