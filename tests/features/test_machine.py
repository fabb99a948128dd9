"""What a worker may take adds up to what it has, and a clip that asks for more is `too_large`."""

from __future__ import annotations

import dataclasses
import os
import time
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path

import pytest

from framebank.features import machine
from framebank.features.cache.record import most_rows
from framebank.features.cache.tfrecord import MOST_PAYLOAD_BYTES
from framebank.features.decoders import pool
from framebank.features.decoders.pool import DecoderPolicy
from framebank.features.extraction.engine import Engine, Result
from framebank.features.machine import Shares, share_memory, usable_memory_bytes
from framebank.features.video import Extracted, Rejected
from tests.clips.barcode import write_barcode_clip
from tests.clips.plain_clips import FakeNetwork, write_clip
from tests.features.extraction.test_engine import SPEC, ref_of

GIB = 2**30


@pytest.fixture
def share(monkeypatch: pytest.MonkeyPatch) -> Callable[..., Shares]:
    """Return `share_memory` of a machine with so many GiB and cores."""

    def deal(gib: int, cores: int, decoders: int | None = None, batch_size: int = 32) -> Shares:
        monkeypatch.setattr(machine, "usable_memory_bytes", lambda: gib * GIB)
        monkeypatch.setattr(machine, "usable_cores", lambda: cores)
        return share_memory(decoders, batch_size=batch_size)

    return deal


@pytest.mark.parametrize("gib", [4, 6, 8, 16, 24, 64, 512])
@pytest.mark.parametrize("cores", [1, 2, 4, 16, 96])
def test_the_shares_add_up_to_no_more_than_there_is(
    share: Callable[..., Shares], gib: int, cores: int
) -> None:
    shares = share(gib, cores)
    assert 1 <= shares.decoders <= cores
    assert shares.total_bytes <= gib * GIB
    assert machine.LEAST_DECODER_BYTES <= shares.decoder_bytes <= machine.MOST_DECODER_BYTES
    assert shares.clip_bytes > 40 * 2**20


def test_with_little_memory_there_are_fewer_decoders_and_always_one(
    share: Callable[..., Shares],
) -> None:
    assert share(6, 64).decoders == 3
    assert share(1, 64).decoders == 1
    assert share(512, 64).decoders == 64
    large = share(16, 8, batch_size=256)
    assert large.decoders < 8 and large.total_bytes <= 16 * GIB
    asked = share(64, 2, 5)
    assert asked.decoders == 5 and asked.total_bytes <= 64 * GIB


def groups(folder: Path, files: dict[str, str], lines: str) -> int:
    for name, text in files.items():
        path = folder / "cgroup" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    (folder / "membership").write_text(lines)
    return usable_memory_bytes(folder / "cgroup", folder / "membership")


def test_the_least_limit_of_our_groups_counts(tmp_path: Path) -> None:
    """Version 2 and 1, in a container (the root is ours) and on a machine (a path leads to us)."""
    physical = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    kib = 1024
    trials: list[tuple[dict[str, str], str, int]] = [
        ({}, "", physical),
        ({"memory.max": "max\n"}, "0::/\n", physical),
        ({"memory.max": f"{7 * kib}\n"}, "0::/\n", 7 * kib),
        ({"memory.max": f"{7 * kib}\n"}, "0::/../a\n", 7 * kib),
        ({"a/memory.max": "4096\n", "a/b/memory.max": "max\n"}, "0::/a/b\n", 4096),
        ({"a/memory.max": "max\n", "a/b/memory.max": "8192\n"}, "0::/a/b\n", 8192),
        ({"memory/memory.limit_in_bytes": "5120\n"}, "4:memory:/docker/x\n0::/\n", 5120),
        ({"memory/a/memory.limit_in_bytes": "5121\n"}, "4:cpu,memory:/a/b\n", 5121),
        ({"memory/memory.limit_in_bytes": f"{2**63 - 4096}\n"}, "4:memory:/\n", physical),
        ({"cpu/a/memory.limit_in_bytes": "1\n"}, "3:cpu:/a\n", physical),
    ]
    for number, (files, lines, expected) in enumerate(trials):
        folder = tmp_path / str(number)
        folder.mkdir()
        assert groups(folder, files, lines) == expected, (files, lines)


def extract(
    path: Path, sample: str, monkeypatch: pytest.MonkeyPatch, *, clip_bytes: int
) -> tuple[Result, int]:
    """Return what becomes of one clip where clips may take `clip_bytes`, and the batches run."""
    shares = Shares(1, 2 * GIB, clip_bytes)
    monkeypatch.setattr(pool, "share_memory", lambda *_, **__: shares)
    network = FakeNetwork(batch_size=1)
    engine = Engine(network, dataclasses.replace(SPEC, sample=sample), DecoderPolicy())
    try:
        (result,) = engine.run([ref_of(path)])
    finally:
        engine.close()
    return result, network.calls


ROW_BYTES = 4 * 6 + 256  # of FakeNetwork's six features


def test_one_frame_an_hour_under_a_rate_is_not_taken(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    hours = [hour * 3600 * 1000 for hour in range(8)]
    path = write_barcode_clip(tmp_path / "rare.mkv", ticks=hours, last_ticks=1000).path
    start = time.monotonic()
    result, frames = extract(path, "fps=1.4", monkeypatch, clip_bytes=30_000 * ROW_BYTES)
    assert isinstance(result, Rejected) and result.error_class == "too_large"
    assert "asks for 35281 rows, the limit is 30000" in result.message
    assert frames <= 8 and time.monotonic() - start < 30
    result, frames = extract(path, "fps=1.4", monkeypatch, clip_bytes=36_000 * ROW_BYTES)
    assert isinstance(result, Extracted) and len(result.features) == 35_281
    assert frames == 8


def test_all_of_a_film_is_given_up_at_the_limit(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = write_clip(tmp_path / "film.mp4", frames=300)
    result, frames = extract(path, "every=1", monkeypatch, clip_bytes=100 * ROW_BYTES)
    assert isinstance(result, Rejected) and result.error_class == "too_large"
    assert frames <= 100
    result, _ = extract(path, "every=3", monkeypatch, clip_bytes=100 * ROW_BYTES)
    assert isinstance(result, Extracted) and len(result.features) == 100


def test_no_clip_is_given_more_rows_than_a_record_holds(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("framebank.features.cache.record.MOST_PAYLOAD_BYTES", 70_000)
    limit = most_rows("float16", 6)
    assert 50 < limit < 200
    path = write_clip(tmp_path / "long.mp4", frames=limit + 1)
    result, _ = extract(path, "every=1", monkeypatch, clip_bytes=GIB)
    assert isinstance(result, Rejected) and result.error_class == "too_large"


@pytest.mark.parametrize(("dtype", "width", "hours"), [("float16", 2048, 5), ("float32", 4096, 1)])
def test_what_a_record_holds(dtype: str, width: int, hours: int) -> None:
    """Hours of 25 frames a second; a lower limit is memory's."""
    rows = most_rows(dtype, width)
    itemsize = {"float16": 2, "float32": 4}[dtype]
    assert rows * itemsize * width < MOST_PAYLOAD_BYTES < 2**31
    assert Fraction(rows, 25 * 3600) > hours


def test_more_decoders_than_there_is_memory_for_are_said(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(machine, "usable_memory_bytes", lambda: 4 * GIB)
    engine = Engine(FakeNetwork(), SPEC, DecoderPolicy(decoders=9))
    engine.close()
    assert "9 decoders may take" in caplog.text and "there are 4.0 GiB" in caplog.text


@pytest.mark.parametrize(
    ("files", "expected"),
    [
        ({}, None),
        ({"cpu.max": "max 100000\n"}, None),
        ({"cpu.max": "150000 100000\n"}, 1.5),
        ({"cpu/cpu.cfs_quota_us": "-1\n", "cpu/cpu.cfs_period_us": "100000\n"}, None),
        ({"cpu/cpu.cfs_quota_us": "400000\n", "cpu/cpu.cfs_period_us": "100000\n"}, 4.0),
    ],
)
def test_the_quota_of_a_container(
    tmp_path: Path, files: dict[str, str], expected: float | None
) -> None:
    for name, text in files.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(text)
    assert machine._container_quota(tmp_path) == expected


def test_never_more_than_the_machine_nor_less_than_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(machine, "_CGROUP", tmp_path)
    mine = len(os.sched_getaffinity(0))
    for quota, expected in (("1000", 1), ("99900000", mine), ("max", mine)):
        (tmp_path / "cpu.max").write_text(f"{quota} 100000\n")
        assert machine.usable_cores() == expected


def test_processors_with_bfloat16_are_told_by_what_linux_says(tmp_path: Path) -> None:
    for flags, has, computes in (
        ("flags : fpu avx512f avx512_bf16 avx512_fp16", True, True),
        ("flags : fpu amx_bf16", True, True),
        ("Features : fp asimd bf16", True, True),
        ("flags : fpu avx2 avx512f", False, True),
        ("flags : fpu avx2 fma", False, False),
    ):
        (tmp_path / "cpuinfo").write_text(f"processor : 0\n{flags}\n\nprocessor : 1\n")
        told = machine.processor(tmp_path / "cpuinfo")
        assert (machine.has_bfloat16(told), machine.computes_bfloat16(told)) == (has, computes)
    assert machine.processor(tmp_path / "none") == ""
    assert machine.computes_bfloat16("") and not machine.has_bfloat16("")
