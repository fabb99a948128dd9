"""What comes of clips: frames, and a last word on each."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
from numpy.typing import NDArray

from framebank.features.decoding.probe import Probe
from framebank.features.errors import VideoRejected
from framebank.features.video import VideoRef


@dataclasses.dataclass(frozen=True)
class Frame:
    """One frame to run networks on; `clip` counts the clips of a run, `token` its frames.

    It comes as the pool's `pictures`, uint8[size, size, 3] RGB each. `same`: it shows what the
    frame before it of this share of the clip does, and has its very arrays.
    """

    clip: int
    token: int
    pictures: tuple[NDArray[np.uint8], ...]
    same: bool = False
    share: int = 0  # of a film that several decoders decode


@dataclasses.dataclass(frozen=True)
class ClipDone:
    """The last word on a clip that decoded: which frame each row uses, and where it lies."""

    clip: int
    ref: VideoRef
    fields: dict[str, Any]


@dataclasses.dataclass(frozen=True)
class ClipRejected:
    """The last word on a clip that did not."""

    clip: int
    ref: VideoRef
    reason: VideoRejected


@dataclasses.dataclass(frozen=True)
class ClipAgain:
    """The frames of a clip that came so far count for nothing: it is decoded once more, wholly."""

    clip: int
    ref: VideoRef


@dataclasses.dataclass(frozen=True)
class ClipProbed:
    """What a probe says of a clip."""

    clip: int
    ref: VideoRef
    probe: Probe


@dataclasses.dataclass(frozen=True)
class Lull:
    """Nothing else has come yet: told to whoever would rather do with what there is than wait."""


Event = Frame | ClipAgain | ClipDone | ClipRejected
