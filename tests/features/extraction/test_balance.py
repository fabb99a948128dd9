"""Who waits for whom: sums of seconds, and what they say."""

from __future__ import annotations

from framebank.features.extraction.balance import Balance, Busy

NETWORK = Balance(
    wall_s=10, network_s=9.4, decoders_s=20, decode_s=11.8, room_s=8, pictures=40, computed=30
)
DECODING = Balance(wall_s=90, network_s=9, decoders_s=180, decode_s=176.4, fetch_s=1, pictures=5)


def test_the_slower_side_bounds() -> None:
    assert NETWORK.line() == "network-bound 94 %, decoders idle 41 %"
    assert DECODING.line() == "decode-bound 98 %, network idle 90 %"
    fetching = Balance(wall_s=10, network_s=1, decoders_s=20, decode_s=2, fetch_s=17)
    assert fetching.line() == "fetch-bound 85 %, decoders idle 90 %, network idle 90 %"
    writing = Balance(wall_s=10, network_s=1, taker_s=9, decoders_s=20, decode_s=2)
    assert writing.bound() == "write"


def test_decoders_without_a_clip_are_told() -> None:
    last_one = Balance(wall_s=10, network_s=1, decoders_s=20, decode_s=12)
    assert last_one.line() == "decode-bound 60 %, network idle 90 %, decoders without a clip 40 %"


def test_where_nothing_was_timed_nothing_is_said() -> None:
    for nothing in (Balance(), Balance.from_json({})):
        assert (nothing.bound(), nothing.line(), nothing.advice()) == ("",) * 3


def test_advice_names_nothing_that_was_tried() -> None:
    fewer = "fewer frames (--sample), a smaller --backbone or a GPU"
    assert NETWORK.advice() == f"--precision bfloat16, {fewer}"
    assert NETWORK.advice(tried=["--precision bfloat16"]) == fewer
    assert DECODING.advice(tried=["--check sampled"]) == "more cores or more workers"


def test_shards_add_up_by_their_seconds() -> None:
    both = NETWORK + DECODING
    assert both.line() == "decode-bound 94 %, network idle 82 %"
    assert both == Balance.from_json(NETWORK.to_json()) + Balance.from_json(DECODING.to_json())
    assert Balance.from_json(NETWORK.to_json() | {"of_a_later_version": 1.0}) == NETWORK
    assert NETWORK.seen == 10


def test_time_with_several_calls_under_way_counts_once() -> None:
    now = [0.0]
    busy = Busy(lambda: now[0])
    with busy:
        now[0] = 1.0
        with busy:
            now[0] = 3.0
        now[0] = 4.0
    now[0] = 9.0
    with busy:
        now[0] = 10.0
    assert busy.seconds == 5.0
