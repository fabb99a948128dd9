"""The question sets that Framebank knows: how their files look, and what they publish.

MSVD-QA and MSRVTT-QA: Xu et al., "Video Question Answering via Gradually Refined Attention over
Appearance and Motion", ACM MM 2017. TGIF-QA: Jang et al., CVPR 2017. ActivityNet-QA: Yu et al.,
AAAI 2019. NExT-QA and NExT-OE: Xiao et al., CVPR 2021. VQA: Antol et al., ICCV 2015, and its second
version: Goyal et al., CVPR 2017, on the pictures of COCO. Counts are those of the files that their
authors published.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

_ACTIVITYNET_TYPES = {
    "0": "motion",
    "1": "spatial relationship",
    "2": "temporal relationship",
    "3": "yes/no",
    "4": "color",
    "5": "object",
    "6": "location",
    "7": "number",
    "8": "other",
}
_NEXT_TYPES = {
    "CW": "causal, why",
    "CH": "causal, how",
    "TN": "temporal, next",
    "TC": "temporal, current",
    "TP": "temporal, previous",
    "DC": "descriptive, count",
    "DL": "descriptive, location",
    "DB": "descriptive, binary",
    "DO": "descriptive, other",
}
_TGIF_FRAME_TYPES = {"0": "object", "1": "number", "2": "color", "3": "location"}


@dataclasses.dataclass(frozen=True)
class QuestionSet:
    """How a set's files are read.

    `alias` makes the usual name of a clip of its video column, `types` are the set's own with what
    they mean, `all_of_type` is the type of a file whose rows state none, `yes_no` the type whose
    answers are yes and no. `published` counts the questions of each split, `videos` are the numbers
    of its clips.
    """

    title: str
    columns: tuple[str, ...]
    video: str
    question_id: str
    head: str = "open"
    alias: str = ""
    types: Mapping[str, str] = dataclasses.field(default_factory=dict)
    all_of_type: str | None = None
    yes_no: str | None = None
    published: Mapping[str, int] = dataclasses.field(default_factory=dict)
    videos: Mapping[str, range] = dataclasses.field(default_factory=dict)


_CHOICES = ("a1", "a2", "a3", "a4", "a5")
_GIF = ("gif_name", "question", "answer", "vid_id", "key")
_XU = ("video_id", "question", "answer", "id")
_VQA = ("question_id", "image_id", "question")
_NEXT = ("video", "frame_count", "question", "answer", "qid", "type")

SETS: dict[str, QuestionSet] = {
    "msvd-qa": QuestionSet(
        "MSVD-QA", _XU, "video_id", "id", alias="vid{}",
        published={"train": 30_933, "val": 6_415, "test": 13_157},
        videos={"train": range(1, 1201), "val": range(1201, 1451), "test": range(1451, 1971)},
    ),
    "msrvtt-qa": QuestionSet(
        "MSRVTT-QA", (*_XU, "category_id"), "video_id", "id", alias="video{}",
        published={"train": 158_581, "val": 12_278, "test": 72_821},
        videos={"train": range(6513), "val": range(6513, 7010), "test": range(7010, 10_000)},
    ),
    "tgif-action": QuestionSet(
        "TGIF-QA action", (*_GIF, *_CHOICES), "gif_name", "vid_id", "choice",
        all_of_type="action", published={"train": 20_475, "test": 2_274},
    ),
    "tgif-transition": QuestionSet(
        "TGIF-QA transition", (*_GIF, *_CHOICES), "gif_name", "vid_id", "choice",
        all_of_type="transition", published={"train": 52_704, "test": 6_232},
    ),
    "tgif-frame": QuestionSet(
        "TGIF-QA frame", (*_GIF, "type"), "gif_name", "vid_id",
        types=_TGIF_FRAME_TYPES, published={"train": 39_392, "test": 13_691},
    ),
    "tgif-count": QuestionSet(
        "TGIF-QA count", _GIF, "gif_name", "vid_id", "count",
        all_of_type="count", published={"train": 26_843, "test": 3_554},
    ),
    "activitynet-qa": QuestionSet(
        "ActivityNet-QA", ("video_name", "question", "question_id"), "video_name", "question_id",
        alias="v_{}", types=_ACTIVITYNET_TYPES, yes_no="3",
        published={"train": 32_000, "val": 18_000, "test": 8_000},
    ),
    "next-qa": QuestionSet(
        "NExT-QA", (*_NEXT, "a0", "a1", "a2", "a3", "a4"), "video", "qid", "choice",
        types=_NEXT_TYPES, published={"train": 34_132, "val": 4_996, "test": 8_564},
    ),
    "next-oe": QuestionSet(
        "NExT-OE", _NEXT, "video", "qid",
        types=_NEXT_TYPES, yes_no="DB", published={"train": 37_523, "val": 5_343, "test": 9_178},
    ),
    "vqa-v1": QuestionSet(
        "VQA v1", _VQA, "image_id", "question_id",
        published={"train": 248_349, "val": 121_512, "test": 244_302},
    ),
    "vqa-v2": QuestionSet(
        "VQA v2", _VQA, "image_id", "question_id",
        published={"train": 443_757, "val": 214_354, "test": 447_793},
    ),
}  # fmt: skip
VQA = ("vqa-v1", "vqa-v2")
PLAIN = "plain"
LABELS = "labels"  # a class for each video, and nothing is asked
SEGMENTS = "segments"  # what happens in each video, and when: a row for each segment
ACTIVITYNET = "activitynet"  # the same as ActivityNet publishes it
SEGMENT_SETS = (SEGMENTS, ACTIVITYNET)
FORMATS = (*SETS, PLAIN, LABELS, *SEGMENT_SETS)
# Of the half that holds the answers, where a set publishes them apart from the questions.
ANSWER_COLUMNS = {
    "activitynet-qa": ("question_id", "answer", "type"),
    **dict.fromkeys(VQA, ("question_id", "answers", "multiple_choice_answer", "answer_type")),
}


def find_set(fields: Mapping[str, Any]) -> str:
    """Return the name in FORMATS of the set whose rows look like `fields`; PLAIN for all others."""
    columns = set(fields)
    if columns >= {"start_s", "end_s", "label"} and "question" not in columns:
        return ACTIVITYNET if "subset" in columns else SEGMENTS
    if "label" in columns and "question" not in columns:
        return LABELS
    if columns >= {*_GIF, *_CHOICES}:
        transition = str(fields["vid_id"]).upper().startswith("TRANS")
        return "tgif-transition" if transition else "tgif-action"
    if columns >= set(_GIF):
        return "tgif-frame" if "type" in columns else "tgif-count"
    if columns >= set(_NEXT):
        return "next-qa" if "a0" in columns else "next-oe"
    if {"image_id", "question_id"} <= columns and not {"video_id", "answer"} & columns:
        return VQA[str(fields.get("version", "")).startswith("2")]
    if columns == set(SETS["activitynet-qa"].columns) or is_answers(fields):
        return "activitynet-qa"
    if columns == {*_XU, "category_id"}:
        return "msrvtt-qa"
    numbered = str(fields.get("video_id")).isdecimal()
    return "msvd-qa" if columns == set(_XU) and numbered else PLAIN


def is_answers(fields: Mapping[str, Any]) -> bool:
    """Return whether a row is of a file of answers whose questions stand in another file."""
    if "question" in fields or "question_id" not in fields:
        return False
    return "answer" in fields or "answers" in fields
