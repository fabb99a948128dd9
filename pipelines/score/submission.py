"""What a scoring found in videos as one file that ActivityNet's evaluation takes, and its figures.

Source: `Evaluation/README.md` of github.com/activitynet/ActivityNet: "version", "results" by video,
each a list of label, score and segment (seconds), and "external_data". The evaluation counts what
is said of a video that is not in the judged subset as wrong, so the file is about one split: that
of `--split`, else test where there is one, else val, else all rows. Of a class that the subset does
not have it cannot read a prediction at all: where the truth is known such ones, which count in no
figure, are left out. Videos go by the names that the question file gives them.
"""

from __future__ import annotations

import json
from collections.abc import Container, Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from framebank.features.asking.detection import (
    THRESHOLDS,
    Segment,
    detection_precision,
    hit_at,
)
from framebank.features.errors import CacheError
from framebank.features.stores import storage
from framebank.pipelines.score.folder import read_answers
from framebank.pipelines.score.tally import ALL, SPLITS

SUBMISSION = "_submission.json"
_VERSION = "VERSION 1.3"
_NAMES = [f"{threshold:.2f}" for threshold in THRESHOLDS]

_Row = Mapping[str, Any]


def write_submission(
    out: str, summary: _Row, *, kind: str, split: str | None, top: int
) -> dict[str, dict[str, Any]]:
    """Write the file beside the answers that `summary` names, which are the `top` labels of each
    video and its segments; return what the summary says of it.

    Raises CacheError for answers that are damaged, JobError.
    """
    rows: list[_Row] = []
    for name in summary["files"]:
        its = read_answers(storage.join(out, name), kind=kind)
        if its is None:
            raise CacheError(f"{name} of {out} is damaged", todo="run it again with --overwrite")
        rows += its
    split, told = choose_rows(rows, split)
    answered = [row for row in told if row["status"] == "answered"]
    truths = [row["true_segments"] for row in told]
    known = {one["label"] for its in truths if its is not None for one in its}
    labels = known if known and None not in truths else None
    details = f"frozen features, fingerprint {summary['fingerprint']}"
    data = submission(answered, labels=labels, details=details)
    storage.write_atomic(storage.join(out, SUBMISSION), data)
    without = sum(bool(its) for its in truths) - sum(bool(row["true_segments"]) for row in answered)
    said = {one["label"] for row in answered for one in row["segments"]}
    about = {
        "split": split,
        "submission": SUBMISSION,
        "labels_left_out": sorted(said - labels) if labels else [],
        "videos_without_answer": without,
    }
    return {"detection": about | segment_figures(answered, top=top)}


def choose_rows(rows: Sequence[_Row], split: str | None) -> tuple[str, list[_Row]]:
    """Return the split that is told of, and its rows that are about segments."""
    there = {row["split"] for row in rows}
    split = split or next((name for name in SPLITS[:2] if name in there), ALL)
    its = (row for row in rows if split in (ALL, row["split"]))
    return split, [row for row in its if row.get("segments") is not None]


def submission(rows: Iterable[_Row], *, labels: Container[str] | None, details: str) -> bytes:
    """Return the file, of `labels` alone where there are such; `details` say how the features were
    made."""
    results = {
        row["question_id"]: [
            {
                "label": one["label"],
                "score": one["score"],
                "segment": [one["start_s"], one["end_s"]],
            }
            for one in row["segments"]
            if labels is None or one["label"] in labels
        ]
        for row in rows
    }
    whole = {
        "version": _VERSION,
        "results": results,
        "external_data": {"used": True, "details": details},
    }
    return json.dumps(whole, ensure_ascii=False).encode() + b"\n"


def segment_figures(rows: Sequence[_Row], *, top: int) -> dict[str, Any]:
    """Return the figures of rows whose truth is known, none where there is no such row; a hit among
    more labels than `top`, that a row has, is none of them."""
    known = [row for row in rows if row["true_segments"] is not None]
    truth = list(_segments(known, "true_segments"))
    if not truth:
        return {}
    by_class = detection_precision(truth, list(_segments(known, "segments")))
    at = np.mean(list(by_class.values()), axis=0)
    labels = {(segment.video_id, segment.label) for segment in truth}
    scored = [
        (row["question_id"], one["answer"], one["probability"])
        for row in known
        for one in row["answers"]
    ]
    return {
        "videos": len(known),
        "average_map": float(at.mean()),
        "map": {name: float(one) for name, one in zip(_NAMES, at, strict=True)},
        **{f"hit_at_{count}": hit_at(labels, scored, count) for count in (1, 3) if count <= top},
    }


def _segments(rows: Iterable[_Row], field: str) -> Iterable[Segment]:
    for row in rows:
        for one in row[field]:
            score = one.get("score", 1.0)
            yield Segment(row["question_id"], one["label"], one["start_s"], one["end_s"], score)
