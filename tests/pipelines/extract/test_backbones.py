"""Several backbones in one run: a cache each, with the bytes of a run of its own, decoded once."""

from __future__ import annotations

import argparse
import dataclasses
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import framebank
from framebank.features.cache import layout
from framebank.features.cache.sidecar import read_sidecar
from framebank.features.decoders.pool import DecoderPool
from framebank.features.errors import CacheError, FramebankError, UsageError
from framebank.features.network.weights import Weights
from framebank.features.stores import storage
from framebank.features.video import VideoRef
from framebank.pipelines.extract import command, shard
from framebank.pipelines.extract.groups import plan_groups, read_groups
from framebank.pipelines.extract.plan import plan_shards, write_plan
from framebank.pipelines.extract.shard_writer import ShardWriter
from framebank.pipelines.extract.targets import find_targets
from tests.clips.plain_clips import FakeNetwork, write_clip
from tests.features.extraction.test_engine import SPEC

PIXELS = ["pixels:16", "pixels:24"]  # pictures of two sizes, which take no network
NAMES = ["pixels-16", "pixels-24"]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Return a folder of two good clips and an empty file."""
    folder = tmp_path / "clips"
    folder.mkdir()
    for number in range(2):
        write_clip(folder / f"a{number}.mp4", frames=4 + number, seed=number)
    (folder / "empty.mp4").touch()
    return folder


@pytest.fixture
def decoded(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Return the names of the clips that decoders are given, as they are."""
    seen: list[str] = []
    decode = DecoderPool.decode

    def noting(pool: DecoderPool, refs: Any, **how: Any) -> Iterator[Any]:
        def note() -> Iterator[VideoRef]:
            for ref in refs:
                seen.append(ref.video_id)
                yield ref

        return decode(pool, note(), **how)

    monkeypatch.setattr(DecoderPool, "decode", noting)
    return seen


def extract(folder: Path, cache: Path, backbones: Any, **more: Any) -> dict[str, Any]:
    words = {"sample": "every=2", "decoders": 1, "max_bad_ratio": 0.5} | more
    summary = framebank.extract(folder, cache=cache, backbone=backbones, **words)
    assert summary is not None
    return summary


def shards(cache: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in (cache / "shards").glob("*.tfrecord")}


def test_each_cache_is_that_of_a_run_of_its_own(
    folder: Path, tmp_path: Path, decoded: list[str]
) -> None:
    both = extract(folder, tmp_path / "both", PIXELS, videos_per_shard=1)
    assert sorted(decoded) == ["a0.mp4", "a1.mp4", "empty.mp4"]
    assert list(both) == NAMES
    for backbone, name in zip(PIXELS, NAMES, strict=True):
        alone = extract(folder, tmp_path / name, backbone, videos_per_shard=1)
        assert shards(tmp_path / name) == shards(tmp_path / "both" / name)
        for count in ("inputs", "done", "quarantined", "frames", "shards", "fingerprint"):
            assert both[name][count] == alone[count], count
        assert (alone["done"], alone["quarantined"], alone["shards"]) == (2, 1, 3)
        assert not framebank.verify(tmp_path / "both" / name).faults
        assert not list((tmp_path / "both" / name / "runs").glob("*.plan-*"))
    decoded.clear()
    again = extract(folder, tmp_path / "both", PIXELS)
    assert not decoded and all(again[name]["already_done"] == 2 for name in NAMES)


def test_what_one_cache_lacks_is_made_for_it_alone(
    folder: Path, tmp_path: Path, decoded: list[str]
) -> None:
    extract(folder / "a0.mp4", tmp_path / "caches" / NAMES[0], PIXELS[0])
    there = shards(tmp_path / "caches" / NAMES[0])
    decoded.clear()
    both = extract(folder, tmp_path / "caches", PIXELS)
    assert sorted(decoded) == ["a0.mp4", "a1.mp4", "empty.mp4"]
    assert (both[NAMES[0]]["done"], both[NAMES[0]]["already_done"]) == (1, 1)
    assert (both[NAMES[1]]["done"], both[NAMES[1]]["already_done"]) == (2, 0)
    assert there.items() <= shards(tmp_path / "caches" / NAMES[0]).items()
    extract(folder, tmp_path / "alone", PIXELS[1])
    records = {r.video_id: r.features.tobytes() for r in framebank.open_cache(tmp_path / "alone")}
    found = framebank.open_cache(tmp_path / "caches" / NAMES[1])
    assert {r.video_id: r.features.tobytes() for r in found} == records


def test_a_run_that_ends_between_two_commits_goes_on(
    folder: Path, tmp_path: Path, decoded: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    commit = ShardWriter.commit

    def dying(writer: ShardWriter, *words: Any) -> list[str]:
        if writer._spec.input_size == 24:
            raise CacheError("the disk is gone")
        return commit(writer, *words)

    with monkeypatch.context() as patch:
        patch.setattr(ShardWriter, "commit", dying)
        patch.setattr(ShardWriter, "keep_what_can_be", lambda writer: None)
        with pytest.raises(FramebankError, match="the disk is gone"):
            extract(folder, tmp_path / "both", PIXELS)
    assert len(shards(tmp_path / "both" / NAMES[0])) == 1
    assert not shards(tmp_path / "both" / NAMES[1])
    both = extract(folder, tmp_path / "both", PIXELS)
    assert (both[NAMES[0]]["already_done"], both[NAMES[1]]["done"]) == (2, 2)
    for backbone, name in zip(PIXELS, NAMES, strict=True):
        extract(folder, tmp_path / name, backbone)
        assert shards(tmp_path / name) == shards(tmp_path / "both" / name)


def test_a_bundle_that_runs_again_decodes_for_the_cache_that_lacks_it(
    folder: Path, tmp_path: Path, decoded: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """As an engine does that lost a worker; with networks, two of one size."""
    monkeypatch.setattr(shard, "build_network", lambda *_, **__: FakeNetwork(feature_dim=1280))
    parser = argparse.ArgumentParser()
    command.add_arguments(parser)
    args = parser.parse_args([str(folder), "--cache", str(tmp_path), "--precision", "float32"])
    refs = [VideoRef("a0.mp4", str(folder / "a0.mp4"), -1, "")]
    refs = [dataclasses.replace(ref, size_bytes=Path(ref.uri).stat().st_size) for ref in refs]
    configs = []
    for name in ("one", "other"):
        spec = dataclasses.replace(SPEC, weights_sha256=name)
        layout.write_spec(str(tmp_path / name), spec)
        weights = Weights("random:0", name, "random:0", seed=0)
        policy = command.decoder_policy(args)
        configs.append(shard.ExtractConfig(str(tmp_path / name), "r-1", spec, weights, policy, 4))
    planned = plan_groups([refs, refs], fingerprints=[c.spec.fingerprint for c in configs])
    (group,) = zip(*planned, strict=True)
    work = shard.ExtractShard(*configs)
    work.setup()
    try:
        rows = list(work.process(group))
        assert [number for number, _ in rows] == [0, 0, 1, 1] and decoded == ["a0.mp4"]
        sidecar = layout.sidecar_path(configs[1].cache, group[1].shard)
        made = storage.read_bytes(sidecar)
        storage.delete(sidecar)
        assert len(list(work.process(group))) == 4 and decoded == ["a0.mp4"] * 2
        assert read_sidecar(configs[1].cache, group[1].shard).file in made.decode()
        assert len(list(work.process(group))) == 4 and decoded == ["a0.mp4"] * 2
    finally:
        work.teardown()


def test_shards_of_several_caches_belong_together(tmp_path: Path) -> None:
    refs = [VideoRef(f"v{n}", f"/v{n}", 2**20 * n, "1") for n in range(40)]
    prints = ["a" * 32, "b" * 32]
    planned = plan_groups([refs, refs], fingerprints=prints, videos_per_shard=8)
    for shards_of, fingerprint in zip(planned, prints, strict=True):
        alone = plan_shards(refs, fingerprint=fingerprint, videos_per_shard=8)
        assert {s.shard: s.refs for s in shards_of} == {s.shard: s.refs for s in alone}
    some = [dataclasses.replace(ref, attempt=2) for ref in refs if ref.video_id < "v2"]
    planned = plan_groups([refs, some], fingerprints=prints, videos_per_shard=8)
    paths = [write_plan(str(tmp_path / p), "run", s) for p, s in zip("ab", planned, strict=True)]
    groups = list(read_groups(paths))
    assert [group[0] for group in groups] == planned[0]
    assert [group[1] for group in groups if group[1]] == planned[1]
    for whole, part in groups:
        assert whole is not None
        wanted = [dataclasses.replace(ref, attempt=2) for ref in whole.refs if ref.video_id < "v2"]
        assert wanted == list(part.refs if part else ())


def targets(*words: str) -> list[Any]:
    parser = argparse.ArgumentParser()
    command.add_arguments(parser)
    return find_targets(parser.parse_args(["clips", "--cache", "c", *words]))


def test_what_is_said_of_all_and_of_one() -> None:
    (alone,) = targets("--backbone", "resnet50", "--weights", "a=b.h5")
    assert (alone.name, alone.cache, alone.choice.weights) == ("", "c", "a=b.h5")
    words = ["--backbone", "resnet50", "--backbone", "xception", "--backbone", "pixels:64"]
    words += ["--weights", "xception=~/w.h5", "--weights", "random:3", "--dtype", "float32"]
    resnet, xception, pixels = targets(*words, "--layer", "resnet50=conv1_relu")
    assert [one.cache for one in (resnet, xception, pixels)] == [
        "c/resnet50", "c/xception", "c/pixels-64",
    ]  # fmt: skip
    assert (resnet.choice.weights, resnet.choice.layer) == ("random:3", "conv1_relu")
    assert xception.choice.weights == str(Path("~/w.h5").expanduser())
    assert (xception.choice.layer, xception.choice.dtype) == (None, "float32")
    assert (pixels.choice.weights, pixels.choice.dtype) == ("imagenet", None)


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["--backbone", "resnet50", "--backbone", "resnet50"], "named twice"),
        (["--backbone", "resnet50", "--weights", "a", "--weights", "b"], "given twice"),
        (["--backbone", "resnet50", "--backbone", "vgg16", "--weights", "a", "--weights", "b"],
         "which backbone each is for"),
        (["--backbone", "resnet50", "--backbone", "vgg16", "--dtype", "jpeg"], "none of these"),
        (["--backbone", "pixels", "--backbone", "pixels:8", "--weights", "a"], "none of these"),
    ],
)  # fmt: skip
def test_what_clashes_is_told(words: list[str], told: str) -> None:
    with pytest.raises(UsageError, match=told):
        targets(*words)


def test_mistakes_of_several_are_told_before_anything_is_written(
    folder: Path, tmp_path: Path
) -> None:
    with pytest.raises(UsageError, match="sample differently"):
        extract(folder, tmp_path / "c", ["pixels", "c3d"], sample=None, weights="random:0")
    assert not (tmp_path / "c").exists()
    extract(folder, tmp_path / "c", PIXELS[0])
    with pytest.raises(UsageError, match="is a cache of one backbone"):
        extract(folder, tmp_path / "c", PIXELS)


def test_a_plan_counts_all_caches(folder: Path, tmp_path: Path) -> None:
    extract(folder, tmp_path / "c" / NAMES[0], PIXELS[0])
    plan = framebank.plan(
        folder, cache=tmp_path / "c", backbone=PIXELS, sample="every=2", no_measure=True
    )
    assert [spec.backbone for spec in plan.specs] == PIXELS
    assert (len(plan.todo.refs), plan.load.shards) == (3, 1)
    assert any("decoded once for all networks" in note for note in plan.notes)
    assert plan.command.count("--backbone") == 2
