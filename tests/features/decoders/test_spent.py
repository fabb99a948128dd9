"""What decoders do with their time."""

from __future__ import annotations

import pytest

from framebank.features.decoders.spent import Spent


def test_waiting_for_room_is_no_work() -> None:
    now = [0.0]
    spent = Spent(2, clock=lambda: now[0])
    with spent.fetching():
        now[0] = 1.0
    with pytest.raises(ValueError), spent.decoding():
        now[0] = 3.0
        with spent.waiting():
            now[0] = 7.0
        now[0] = 8.0
        raise ValueError
    assert (spent.fetch_s, spent.decode_s, spent.room_s) == (1.0, 3.0, 4.0)


def test_what_was_before_the_start_does_not_count() -> None:
    now = [0.0]
    spent = Spent(1, clock=lambda: now[0])
    with spent.fetching():
        now[0] = 1.0
    with spent.decoding():
        now[0] = 2.0
        with spent.waiting():
            now[0] = 3.0
            spent.start()
            now[0] = 5.0
        now[0] = 6.0
    assert (spent.fetch_s, spent.decode_s, spent.room_s) == (0.0, 1.0, 2.0)
