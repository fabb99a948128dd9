"""The benches run, on small data: what they say of time is for people to read."""

import json
import subprocess
import sys

import pytest

from tests import ROOT

BENCH = ROOT / "infra" / "bench"


@pytest.mark.parametrize(
    "words",
    [
        "retrain_news.py --videos 300 --questions 300",
        "input_wait.py --clips 64 --frames 4 --epochs 3",
        "score_rate.py --videos 60 --questions 200",
        "browse.py --videos 130",
    ],
)
def test_bench_ends_in_figures(words: str) -> None:
    name, *options = words.split()
    done = subprocess.run(
        [sys.executable, str(BENCH / name), *options], capture_output=True, text=True, timeout=300
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert json.loads(done.stdout.splitlines()[-1])
