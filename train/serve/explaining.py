"""Which frames an answer hangs on: what it loses without each (occlusion).

The clip is asked about once whole, and once without each of its frames; of a long clip without each
stretch of neighbouring ones, which share what is lost. All of it is one call of the model.
"""

from __future__ import annotations

import asyncio
import io
import itertools
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from framebank.features.asking.heads import COUNT
from framebank.features.asking.one_clip import Asked
from framebank.features.pages.page import data_address
from framebank.train.serve.asker import Asker
from framebank.train.serve.clips import Clip
from framebank.train.serve.models import ModelInUse

MOST_STRETCHES = 64
MOST_PICTURES = 64
_SIDE = 160  # of the longer side of a picture that is shown


def stretches(rows: int) -> list[tuple[int, int]]:
    """Return [start, end) of what is left out in turn: each row, of many rows each of 64 parts."""
    edges = np.linspace(0, rows, min(rows, MOST_STRETCHES) + 1).round().astype(int).tolist()
    return list(itertools.pairwise(edges))


async def explain(
    asker: Asker, model: ModelInUse, clip: Clip, question: str, choices: tuple[str, ...]
) -> dict[str, Any]:
    """Return the answer to a question, and the weight of each frame in it; raises FramebankError.

    Of a count the weight is what the number loses. A clip of one frame hangs on that alone.
    """
    features = clip.record.features.astype(np.float32)
    cuts = stretches(len(features)) if len(features) > 1 else []
    variants = [features, *(np.delete(features, slice(*cut), axis=0) for cut in cuts)]
    asked = [Asked(one, question, choices) for one in variants]
    outcomes = asker.ask(model.model, asked)
    scores = [await asyncio.wrap_future(one) for one in outcomes]
    head, whole = model.model.head, scores[0]
    (best,) = head.best(whole, top=1, choices=choices)
    place = 0 if head.kind == COUNT else list(head.texts(choices)).index(best["answer"])
    weights = np.zeros(len(features))
    if not cuts:
        weights[:] = whole[place]
    for (start, end), one in zip(cuts, scores[1:], strict=True):
        weights[start:end] = (whole[place] - one[place]) / (end - start)
    return {
        "question": question,
        **best,
        "frames": _frames(clip, weights),
        "pictures": await asyncio.to_thread(_addresses, clip),
    }


def _frames(clip: Clip, weights: NDArray[np.float64]) -> list[dict[str, Any]]:
    record = clip.record
    return [
        {"index": index, "time_s": round(pts_ms / 1000, 3), "weight": round(weight, 6)}
        for index, pts_ms, weight in zip(
            record.frame_index.tolist(), record.pts_ms.tolist(), weights.tolist(), strict=True
        )
    ]


def _addresses(clip: Clip) -> list[str | None]:
    """Return the frames' pictures as data: addresses, of the clip's own shape; None for one that is
    not there, and in a long clip for most."""
    rows, source = len(clip.record.features), clip.record.source
    shown: list[str | None] = [None] * rows
    if not clip.pictures or len(clip.pictures) != rows:
        return shown
    scale = _SIDE / max(source.width, source.height, 1)
    size = (max(16, round(source.width * scale)), max(16, round(source.height * scale)))
    for place in _spread(rows):
        shown[place] = _address(clip.pictures[place], size)
    return shown


def _spread(rows: int) -> Sequence[int]:
    places = np.linspace(0, rows - 1, min(rows, MOST_PICTURES)).round().astype(int)
    return list(dict.fromkeys(places.tolist()))


def _address(jpeg: bytes, size: tuple[int, int]) -> str:
    from PIL import Image

    out = io.BytesIO()
    with Image.open(io.BytesIO(jpeg)) as picture:
        picture.resize(size).save(out, "JPEG", quality=80)
    return data_address(out.getvalue())
