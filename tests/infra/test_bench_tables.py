"""What `make bench` prints, from figures that were stored; the benches themselves take hours."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from tests import ROOT

BENCH = ROOT / "infra" / "bench"
COMMON = f"import sys; sys.path.insert(0, {str(BENCH)!r}); import common"
SPREAD = {"median": 2.0, "min": 1.5, "max": 2.5}
RESULT = {
    "bench": "all",
    "machine": {"cores": 2, "processor": ["avx2"]},
    "failed": {"start": "it did not"},
    "comparison": {
        "clips": 3,
        "fps": "4",
        "backbone": "inception_v3",
        "rounds": 5,
        "programs": {
            "plain": {"frames": 90, "seconds": SPREAD, "frames_per_s": SPREAD, "to_plain": SPREAD},
            "framebank float32": {"frames": 91, "seconds": SPREAD, "cosine": 0.99},
        },
        "failed": {"daft": "it does not install"},
    },
    "limits": {"mixed": {"decode": SPREAD, "network": SPREAD, "of_slower_stage": SPREAD}},
    "ratios": {"bench": "ratios", "film": {"program": SPREAD, "same": True}},
}


def run(*words: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, *words]
    return subprocess.run(command, capture_output=True, text=True, timeout=120)


def test_tables_are_printed_again_from_the_json(tmp_path: Path) -> None:
    path = tmp_path / "bench.json"
    path.write_text(json.dumps(RESULT))
    done = run(str(BENCH / "bench.py"), "--table", str(path))
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    assert "| plain | 90 | 2 (1.5 to 2.5) | 2 (1.5 to 2.5) | 2 (1.5 to 2.5) |  |  |" in lines
    assert "daft: nothing measured, it does not install" in lines
    assert "| … of the slower stage's own limit | 2 (1.5 to 2.5) |" in lines
    assert "| film: program | 2 (1.5 to 2.5) |" in lines
    assert "| film: same | True |" in lines
    assert "| start | it did not |" in lines


@pytest.mark.parametrize(
    ("said", "told"),
    [
        (
            "framebank: 8 videos\n\nframebank: no bfloat16 here\n  got: AVX2\n  to do: float32\n",
            "framebank: no bfloat16 here; got: AVX2",
        ),
        ("['ray'] ended with 1: Traceback\n  File x\nOSError: gone\n", "['ray'] ended with 1: "
         "Traceback … OSError: gone"),
        ("nothing was made", "nothing was made"),
        ("", "no reason"),
    ],
)  # fmt: skip
def test_a_program_that_fails_is_told_in_one_line(said: str, told: str) -> None:
    call = "print(common.reason(SystemExit(sys.argv[1])), end='')"
    done = run("-c", f"{COMMON}; {call}", said)
    assert (done.returncode, done.stdout) == (0, told), done.stderr


def test_what_a_program_says_that_fails_is_found(tmp_path: Path) -> None:
    words = ["-m", "framebank", "extract", str(tmp_path / "none"), "--cache", str(tmp_path / "c")]
    call = f"try: common.measure({words!r})\nexcept SystemExit as e: print(common.reason(e))"
    done = run("-c", f"{COMMON}\n{call}")
    assert done.stdout.startswith("framebank: ") and len(done.stdout.splitlines()) == 1, done.stdout


@pytest.mark.parametrize("name", ["limits", "ratios", "growth", "gpu", "peers", "install_peers"])
def test_benches_say_how_they_are_called(name: str) -> None:
    done = run(str(BENCH / f"{name}.py"), "--help")
    assert done.returncode == 0, done.stderr
    assert "usage:" in done.stdout
