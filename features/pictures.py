"""Pictures as a cache of pixels keeps them: JPEG or PNG, written and read by Pillow.

JPEG is of quality 95 with colours at full resolution (4:4:4), PNG is exact. The same pixels give
the same bytes with one version of Pillow and its libjpeg-turbo.
"""

from __future__ import annotations

import dataclasses
import io
import zlib
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from framebank.features.errors import needing

_SAVE: Mapping[str, Mapping[str, Any]] = {
    "jpeg": {"format": "JPEG", "quality": 95, "subsampling": 0},
    "png": {"format": "PNG"},
}


@dataclasses.dataclass(frozen=True)
class Pictures:
    """Pictures of one size, each encoded by itself; `np.asarray` gives uint8[n, size, size, 3]."""

    encoded: Sequence[bytes]
    form: str  # "jpeg" or "png"
    size: int

    def __len__(self) -> int:
        return len(self.encoded)

    @property
    def shape(self) -> tuple[int, int, int, int]:
        return (len(self), self.size, self.size, 3)

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> NDArray[Any]:
        """Decode; raises ValueError for what is no picture of this form and size."""
        found = np.empty(self.shape, np.uint8)
        for row, data in zip(found, self.encoded, strict=True):
            row[:] = decode_picture(data, self.form, size=self.size)
        return found if dtype is None else found.astype(dtype)


def encode_picture(rgb: NDArray[np.uint8], form: str) -> bytes:
    """Return uint8[h, w, 3] (RGB) as the bytes of a "jpeg" or "png"."""
    with needing("a cache of pixels", extra="extract"):
        from PIL import Image
    buffer = io.BytesIO()
    Image.fromarray(rgb).save(buffer, **_SAVE[form])
    return buffer.getvalue()


def decode_picture(data: bytes, form: str, *, size: int) -> NDArray[np.uint8]:
    """Return uint8[size, size, 3]; raises ValueError for what is no such picture."""
    with needing("a cache of pixels", extra="train"):
        from PIL import Image
    try:
        with Image.open(io.BytesIO(data), formats=[str(_SAVE[form]["format"])]) as picture:
            if picture.size != (size, size) or picture.mode != "RGB":
                raise ValueError(f"a picture of {picture.mode} {picture.size}")  # not read yet
            return np.asarray(picture)
    except (OSError, SyntaxError, EOFError, zlib.error) as err:
        raise ValueError(f"no {form}: {err}") from err
