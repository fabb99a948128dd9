"""features/cache/crc32c.py: the same sums as google-crc32c, whatever the length."""

from __future__ import annotations

import google_crc32c
import numpy as np
import pytest

from framebank.features.cache import crc32c


def test_the_check_value_of_the_rfc() -> None:
    assert crc32c.value(b"123456789") == 0xE3069283
    assert crc32c.value(bytes(32)) == 0x8A9136AA


@pytest.mark.parametrize("length", [0, 1, 511, 512, 513, 40_000, 1_000_003])
def test_as_google_crc32c(length: int) -> None:
    data = np.random.default_rng(length).bytes(length)
    assert crc32c.value(data) == google_crc32c.value(data)
