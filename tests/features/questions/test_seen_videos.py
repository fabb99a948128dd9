"""seen_videos: the list of what a model has seen comes back, or its damage is told."""

from __future__ import annotations

import gzip
import random
from pathlib import Path

import pytest

from framebank.features.errors import CacheError
from framebank.features.questions.seen_videos import SEEN, Seen, find_seen


def test_the_list_comes_back(tmp_path: Path) -> None:
    assert find_seen(str(tmp_path)) is None
    seen = Seen(frozenset(("a.mp4", "c/ü.mp4", "\udcff")), frozenset(("0" * 64,)))
    (tmp_path / SEEN).write_bytes(seen.to_bytes())
    assert find_seen(str(tmp_path)) == seen
    assert seen.has("copy.mp4", {"copy.mp4": "0" * 64}) and not seen.has("b.mp4", {})


def test_whatever_byte_of_it_changes_is_told(tmp_path: Path) -> None:
    whole = Seen(frozenset(f"{number}.mp4" for number in range(300))).to_bytes()
    for number in range(200):
        dice = random.Random(number)
        data = bytearray(whole)
        data[dice.randrange(10, len(data))] ^= dice.randrange(1, 256)  # behind gzip's header
        (tmp_path / SEEN).write_bytes(data[: dice.choice((len(data), dice.randrange(len(data))))])
        with pytest.raises(CacheError, match=r"seen\.json\.gz is damaged"):
            find_seen(str(tmp_path))


@pytest.mark.parametrize("text", ["", "[]", '{"videos": "ab", "contents": []}', '{"videos": [1]}'])
def test_another_content_is_told(tmp_path: Path, text: str) -> None:
    (tmp_path / SEEN).write_bytes(gzip.compress(text.encode()))
    with pytest.raises(CacheError, match=r"seen\.json\.gz is damaged"):
        find_seen(str(tmp_path))
