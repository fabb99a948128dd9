"""The backbone `pixels`: what it keeps of a frame is the frame, as a JPEG or PNG.

It stands where a network does, so that a cache of pixels is made, resumed, quarantined and verified
by what makes any other.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from framebank.features.pictures import encode_picture


class PictureCoder:
    """uint8[b, size, size, 3] RGB frames in, b files of `form` out; any thread may call it."""

    def __init__(self, size: int, form: str, *, batch_size: int) -> None:
        self.batch_size = self.step = batch_size
        self.in_flight, self.form = 1, form
        self.input_shape = (batch_size, size, size, 3)
        self.feature_dim = 3 * size**2

    def __call__(self, images: NDArray[np.uint8]) -> list[bytes]:
        return [encode_picture(image, self.form) for image in images]
