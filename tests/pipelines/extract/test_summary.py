"""What is said at the end of a run."""

from __future__ import annotations

from typing import Any

import pytest

from framebank.features.extraction.balance import Balance
from framebank.features.spec import SpecChoice
from framebank.pipelines.extract.summary import summary_lines
from framebank.pipelines.extract.targets import Target

BALANCE = Balance(
    wall_s=10, network_s=9.4, decoders_s=20, decode_s=11.8, room_s=8, pictures=40, computed=30
)


def last_lines(**changes: Any) -> list[str]:
    spec = {"precision": "float32", "backbone": "inception_v3", "dtype": "float16"}
    summary = {
        **dict.fromkeys(("inputs", "done", "quarantined", "already_done", "frames", "bytes"), 1),
        **dict.fromkeys(("already_quarantined", "shards", "partial", "capped"), 0),
        **{"random_weights": False, "precision": None, "quarantined_by_class": {}},
        **{"balance": changes.pop("balance", BALANCE.to_json()), "spec": spec | changes},
    }
    return list(summary_lines(Target("", "cache", SpecChoice()), summary, check="whole"))[2:]


def test_a_run_says_what_bounds_it_and_what_would_help() -> None:
    seen, bound = last_lines()
    assert seen == "  10 of 40 pictures seen before, not computed again"
    assert bound == (
        "  network-bound 94 %, decoders idle 41 %; what would help: --precision bfloat16, "
        "fewer frames (--sample), a smaller --backbone or a GPU"
    )


@pytest.mark.parametrize(
    ("spec", "help_"),
    [
        ({"precision": "bfloat16"}, "fewer frames (--sample), a smaller --backbone or a GPU"),
        ({"backbone": "pixels:64", "dtype": "jpeg"}, "fewer frames (--sample)"),
    ],
)
def test_it_advises_nothing_that_is_not_to_be_had(spec: dict[str, str], help_: str) -> None:
    assert last_lines(**spec)[-1].endswith(f"; what would help: {help_}")


def test_a_run_of_which_nothing_was_kept_says_nothing() -> None:
    assert last_lines(balance={}) == []
