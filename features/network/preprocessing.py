"""What is done to pixels before a network sees them: the named list, and scales that files state.

All of it is per channel, `x * scale + offset` on RGB, but for Caffe's, which is BGR. A network of
the table has its own; a network from a file states it, or `--preprocess NAME` declares it.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from framebank.features.errors import UsageError

CAFFE_MEAN_BGR = (103.939, 116.779, 123.68)  # of ImageNet: keras/src/applications/imagenet_utils.py
# Of Sports-1M's frames by channel, rounded, as ports of C3D to PyTorch have it; the mean that was
# published beside the weights has a value for each pixel of a clip.
SPORTS1M_MEAN_BGR = (90.0, 98.0, 102.0)
# Mean and deviation of RGB in 0 to 1: torchvision's ImageNet models (and DINOv2), OpenAI's CLIP.
_NORMS = {
    "imagenet": ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)),
    "clip": ((0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)),
}
NAMES = ("none", "scale_0_1", "scale_-1_1", "imagenet", "clip", "caffe_bgr_mean")
_AFFINE = re.compile(r"x\*\[([^\]]*)\]\+\[([^\]]*)\]")


def affine(scale: Sequence[float], offset: Sequence[float]) -> str:
    """Return the spec's text of `x * scale + offset`, three numbers each, exact to a float32;
    `preprocess` reads it."""
    texts = (",".join(f"{one:.9g}" for one in numbers) for numbers in (scale, offset))
    return "x*[{}]+[{}]".format(*texts)


def check_name(name: str) -> None:
    """Raise UsageError where `--preprocess` names none of the list."""
    if name not in NAMES:
        raise UsageError("no such preprocessing", got=repr(name), expected=" | ".join(NAMES))


def preprocess(
    images: Any, preprocessing: str, *, flip: Callable[[Any], Any] = lambda rgb: rgb[..., ::-1]
) -> Any:
    """Return float32[b, ..., h, w, c=3]: RGB frames (array or tensor) as the network expects.

    Of the table's networks the same values as `keras.applications.*.preprocess_input`; `flip` turns
    RGB into BGR. Raises ValueError for a text that is none.
    """
    if preprocessing == "none":
        return images
    if preprocessing == "scale_0_1":
        return images / np.float32(255)
    if preprocessing == "scale_-1_1":
        return images / np.float32(127.5) - np.float32(1)
    if preprocessing == "caffe_bgr_mean":
        return flip(images) - np.array(CAFFE_MEAN_BGR, np.float32)
    if preprocessing == "sports1m_bgr_mean":
        return flip(images) - np.array(SPORTS1M_MEAN_BGR, np.float32)
    if preprocessing in _NORMS:
        mean, deviation = (np.array(part, np.float32) for part in _NORMS[preprocessing])
        return (images / np.float32(255) - mean) / deviation
    if found := _AFFINE.fullmatch(preprocessing):
        scale, offset = (np.array(part.split(","), np.float32) for part in found.groups())
        return images * scale + offset
    raise ValueError(f"no such preprocessing: {preprocessing}")
