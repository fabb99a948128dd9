"""The engine: one result a video, fixed batches, and decoders that hang or die cost one video."""

from __future__ import annotations

import contextlib
import dataclasses
import errno
import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from framebank.features.decoders.pool import DecoderPolicy
from framebank.features.decoders.sandbox import child_environment
from framebank.features.errors import JobError
from framebank.features.extraction.engine import Engine, Result
from framebank.features.spec import FeatureSpec
from framebank.features.video import Extracted, Rejected, VideoRef
from tests import ROOT
from tests.clips.plain_clips import FakeNetwork, write_clip

SPEC = FeatureSpec(
    backbone="fake",
    layer="pixels",
    weights="random:0",
    weights_sha256="0" * 64,
    input_size=32,
    resize="stretch",
    preprocessing="none",
    sample="every=2",
    max_frames=None,
    precision="float32",
    dtype="float16",
)


def ref_of(path: Path) -> VideoRef:
    if not path.exists():
        return VideoRef(path.name, str(path), -1, "")
    return VideoRef(path.name, str(path), path.stat().st_size, str(path.stat().st_mtime_ns))


def run(refs: list[VideoRef], policy: DecoderPolicy, network: FakeNetwork) -> dict[str, Result]:
    engine = Engine(network, SPEC, policy)
    try:
        results = list(engine.run(refs))
    finally:
        engine.close()
    assert len(results) == len(refs)
    return {result.ref.video_id: result for result in results}


def test_each_video_gets_one_result_with_its_own_rows(clips: Path) -> None:
    network = FakeNetwork()
    refs = [ref_of(path) for path in sorted(clips.iterdir())]
    results = run(refs, DecoderPolicy(decoders=2), network)
    for number in range(6):
        result = results[f"a{number}.mp4"]
        assert isinstance(result, Extracted)
        assert result.features.shape == ((8 + number + 1) // 2, 6)
        assert result.features.dtype == np.float32
        assert result.frame_index.tolist() == list(range(0, 8 + number, 2))
        assert result.pts_ms.tolist() == [100 * index for index in result.frame_index]
        assert len(result.content_sha256) == 64
    frames = sum(len(result.features) for result in results.values())  # type: ignore[union-attr]
    assert network.calls == -(-frames // network.batch_size)  # only the last batch is padded


@pytest.mark.parametrize(("batch", "decoders"), [(1, 1), (3, 2), (64, 3)])
def test_features_do_not_depend_on_batch_or_decoders(
    clips: Path, batch: int, decoders: int
) -> None:
    refs = [ref_of(path) for path in sorted(clips.iterdir())]
    want = run(refs, DecoderPolicy(decoders=1), FakeNetwork())
    got = run(refs[::-1], DecoderPolicy(decoders=decoders), FakeNetwork(batch_size=batch))
    for video_id, result in want.items():
        np.testing.assert_array_equal(got[video_id].features, result.features)  # type: ignore[union-attr]


def test_features_do_not_depend_on_how_much_is_decoded(clips: Path) -> None:
    refs = [ref_of(path) for path in sorted(clips.iterdir())]
    want = run(refs, DecoderPolicy(decoders=1), FakeNetwork())
    got = run(refs, DecoderPolicy(decoders=1, check="sampled"), FakeNetwork())
    for video_id, result in want.items():
        np.testing.assert_array_equal(got[video_id].features, result.features)  # type: ignore[union-attr]
    assert {result.checked for result in want.values()} == {"whole"}  # type: ignore[union-attr]
    assert "sampled" in {result.checked for result in got.values()}  # type: ignore[union-attr]


def test_a_row_that_a_rule_picks_twice_is_computed_once(clips: Path) -> None:
    network = FakeNetwork(batch_size=1)
    engine = Engine(network, dataclasses.replace(SPEC, sample="fps=20"), DecoderPolicy(decoders=1))
    (result,) = engine.run([ref_of(clips / "a0.mp4")])
    engine.close()
    assert isinstance(result, Extracted)
    assert result.frame_index.tolist() == [index for index in range(8) for _ in range(2)]
    assert network.calls == 8


def test_values_that_are_not_finite_are_rejected(clips: Path) -> None:
    class Broken(FakeNetwork):
        def __call__(self, images: np.ndarray) -> np.ndarray:
            return super().__call__(images) * np.float32("nan")

    results = run([ref_of(clips / "a0.mp4")], DecoderPolicy(decoders=1), Broken())
    result = results["a0.mp4"]
    assert isinstance(result, Rejected)
    assert (result.stage, result.error_class) == ("infer", "bad_features")


def decoder_pids() -> Iterator[int]:
    """Yield the decoder processes of this process."""
    for task in Path("/proc/self/task").iterdir():
        with contextlib.suppress(OSError):
            for pid in (task / "children").read_text().split():
                if "decoders.child" in Path(f"/proc/{pid}/cmdline").read_text():
                    yield int(pid)


@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="finds decoders by /proc")
@pytest.mark.parametrize(
    ("number", "strikes", "error_class"),
    [(signal.SIGSTOP, 1, "hang"), (signal.SIGSEGV, 2, "crash"), (signal.SIGKILL, 1, None)],
)
def test_a_decoder_that_hangs_or_dies_costs_at_most_its_video(
    clips: Path, tmp_path: Path, number: signal.Signals, strikes: int, error_class: str | None
) -> None:
    """One that dies is given a second chance: short of memory, the kernel takes innocent ones."""
    long = write_clip(tmp_path / "long.mp4", frames=900, seed=9, size=(640, 480))
    refs = [ref_of(long), *(ref_of(path) for path in sorted(clips.iterdir()))]

    def strike() -> None:
        deadline = time.monotonic() + 20
        struck: set[int] = set()
        while time.monotonic() < deadline and len(struck) < strikes:
            for pid in set(decoder_pids()) - struck:
                with contextlib.suppress(OSError):
                    files = Path(f"/proc/{pid}/fd").iterdir()
                    if any(os.path.realpath(file) == str(long.resolve()) for file in files):
                        os.kill(pid, number)
                        struck.add(pid)
            time.sleep(0.005)

    striker = threading.Thread(target=strike)
    striker.start()
    results = run(refs, DecoderPolicy(decoders=2, timeout_s=5.0), FakeNetwork())
    striker.join()
    assert list(decoder_pids()) == []
    last = results.pop("long.mp4")
    if error_class is None:
        undisturbed = run([ref_of(long)], DecoderPolicy(decoders=1), FakeNetwork())["long.mp4"]
        assert isinstance(last, Extracted) and isinstance(undisturbed, Extracted)
        assert last.features.tobytes() == undisturbed.features.tobytes()
    else:
        assert isinstance(last, Rejected)
        assert (last.stage, last.error_class) == ("decode", error_class)
    assert all(isinstance(result, Extracted) for result in results.values())


def test_what_cannot_be_opened_is_rejected_without_opening_it(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.mp4")
    (tmp_path / "folder.mp4").mkdir()
    (tmp_path / "nowhere.mp4").symlink_to(tmp_path / "absent")
    (tmp_path / "empty.mp4").touch()
    names = ("pipe.mp4", "folder.mp4", "nowhere.mp4", "empty.mp4", "missing.mp4")
    results = run([ref_of(tmp_path / name) for name in names], DecoderPolicy(), FakeNetwork())
    classes = [results[name].error_class for name in names]  # type: ignore[union-attr]
    assert classes == ["not_a_file", "not_a_file", "not_a_file", "empty", "missing"]


def test_a_file_that_changed_since_it_was_listed_is_not_taken_for_what_it_was(
    clips: Path, tmp_path: Path
) -> None:
    path = tmp_path / "changing.mp4"
    path.write_bytes((clips / "a0.mp4").read_bytes())
    listed = ref_of(path)
    path.write_bytes((clips / "a1.mp4").read_bytes())
    result = run([listed], DecoderPolicy(decoders=1), FakeNetwork())["changing.mp4"]
    assert isinstance(result, Rejected)
    assert result.error_class == "unreadable"
    assert "changed" in result.message


def test_a_terabyte_of_no_video_is_not_read(tmp_path: Path) -> None:
    path = tmp_path / "vast.mp4"
    with path.open("wb") as file:
        os.truncate(file.fileno(), 2**39)
    start = time.monotonic()
    result = run([ref_of(path)], DecoderPolicy(decoders=1), FakeNetwork())["vast.mp4"]
    assert isinstance(result, Rejected)
    assert result.error_class == "not_a_video"
    assert time.monotonic() - start < 10


def test_no_room_for_a_decoder_is_an_error_of_the_job(
    clips: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("framebank.features.decoders.slot.spawn", full)
    with pytest.raises(JobError, match="cannot start a decoder process"):
        run([ref_of(clips / "a0.mp4")], DecoderPolicy(decoders=1), FakeNetwork())


def idle_decoder_bytes() -> int:
    """Return the address space of a decoder without work; it differs by versions of NumPy."""
    code = "import framebank.features.decoders.child; print(open('/proc/self/status').read())"
    words = [sys.executable, "-c", code]
    given = {"env": child_environment(), "cwd": ROOT}
    status = subprocess.run(words, capture_output=True, text=True, check=True, **given).stdout
    return int(re.search(r"VmPeak:\s+(\d+) kB", status)[1]) * 1024  # type: ignore[index]


@pytest.mark.parametrize("spare_mib", [90, 110])
def test_a_decoder_out_of_memory_costs_only_its_video(
    clips: Path, large_clip: Path, spare_mib: int
) -> None:
    """Whatever FFmpeg calls it; and the next clip, a damaged one, is not blamed for it."""
    damaged = large_clip.parent / "damaged.mp4"
    damaged.write_bytes((clips / "a1.mp4").read_bytes()[:-3000])
    policy = DecoderPolicy(decoders=1, memory_bytes=idle_decoder_bytes() + spare_mib * 2**20)
    refs = [ref_of(large_clip), ref_of(damaged), ref_of(clips / "a1.mp4")]
    results = run(refs, policy, FakeNetwork())
    bad, next_one = results["large.mp4"], results["damaged.mp4"]
    assert isinstance(bad, Rejected) and isinstance(next_one, Rejected)
    assert bad.error_class == "too_large"
    assert next_one.error_class in ("truncated", "corrupt")
    assert isinstance(results["a1.mp4"], Extracted)


@pytest.fixture(scope="module")
def large_clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_clip(tmp_path_factory.mktemp("large") / "large.mp4", frames=3, size=(4096, 4096))


def test_time_limit_grows_with_the_file() -> None:
    policy = DecoderPolicy(timeout_s=60)
    assert policy.time_limit_s(0) == 60
    assert policy.time_limit_s(100 * 2**20) == 660
