"""The demo's clips: real films, twins in reverse, balanced questions, the same bytes each time."""

from __future__ import annotations

import collections
import json
from pathlib import Path

import av
import numpy as np
import pytest

from framebank.features.errors import FramebankError, UsageError
from framebank.train.demo.clips import (
    Take,
    draw_clip,
    make_clips,
    plan_clips,
    question_rows,
    write_clip,
)
from framebank.train.demo.scenes import SCENES


def test_plan_has_every_scene_both_ways_in_every_split() -> None:
    plans = plan_clips(100, seed=3)
    assert len(plans) == len({plan.clip_id for plan in plans}) == 100
    for split in ("train", "val", "test"):
        kinds = collections.Counter((p.scene.name, p.forward) for p in plans if p.split == split)
        assert set(kinds) == {(scene.name, way) for scene in SCENES for way in (True, False)}
        assert all(kinds[scene.name, True] == kinds[scene.name, False] for scene in SCENES)


def test_twins_share_their_split_and_their_words() -> None:
    plans = plan_clips(60)
    for one, other in zip(plans[::2], plans[1::2], strict=True):
        assert one.split == other.split and one.forward != other.forward
        questions = [[row["question"] for row in question_rows(plan)] for plan in (one, other)]
        assert questions[0] == questions[1]
        assert one.answer != other.answer


def test_no_question_tells_the_direction() -> None:
    answers: dict[tuple[str, str], collections.Counter[str]] = {}
    for plan in plan_clips(240):
        for row in question_rows(plan):
            if row["type"] == "direction":
                key = row["split"], row["question"]
                answers.setdefault(key, collections.Counter())[row["answer"]] += 1
    assert all(len(set(counts.values())) == 1 and len(counts) == 2 for counts in answers.values())


def test_twins_are_the_same_pictures_in_reverse_but_for_noise() -> None:
    forward, backward = plan_clips(40)[:2]
    if not forward.forward:
        forward, backward = backward, forward
    one = np.stack(list(draw_clip(forward))).astype(float)
    other = np.stack(list(draw_clip(backward))).astype(float)[::-1]
    assert one.shape == other.shape
    assert 0 < np.abs(one - other).mean() < 8  # the grain
    still = np.abs(one[0] - one[-1]).mean()
    assert still > 2 * np.abs(one - other).mean()  # something moves, far more than the grain


@pytest.mark.parametrize("scene", [scene.name for scene in SCENES])
def test_every_scene_changes_the_picture_a_lot(scene: str) -> None:
    for plan in [plan for plan in plan_clips(100) if plan.scene.name == scene][:4:2]:
        take = Take(plan)
        frames = list(draw_clip(plan))
        assert len(frames) == take.frames and 2 <= take.frames / take.rate <= 4.1
        assert frames[0].shape == (take.height, take.width, 3) and frames[0].dtype == np.uint8
        changed = np.abs(frames[0].astype(int) - frames[-1].astype(int)).max(axis=-1) > 40
        assert changed.mean() > 0.05


def test_clip_is_a_real_film_and_the_same_bytes_again(tmp_path: Path) -> None:
    plan = plan_clips(40)[0]
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
    path, again = write_clip(plan, tmp_path / "one"), write_clip(plan, tmp_path / "two")
    assert path.read_bytes() == again.read_bytes()
    take = Take(plan)
    with av.open(str(path)) as container:
        stream = container.streams.video[0]
        assert stream.codec_context.name == "h264" and stream.average_rate == take.rate
        assert sum(1 for _ in container.decode(video=0)) == take.frames
    assert [path.name for path in (tmp_path / "one").iterdir()] == [f"{plan.clip_id}.mp4"]


def test_making_clips_keeps_what_is_there_and_writes_questions(tmp_path: Path) -> None:
    seen: list[tuple[int, int]] = []
    plans = make_clips(tmp_path, count=40, report=lambda made, count: seen.append((made, count)))
    assert seen[-1] == (40, 40)
    paths = sorted((tmp_path / "clips").iterdir())
    assert [path.stem for path in paths] == sorted(plan.clip_id for plan in plans)
    rates = set()
    for path in paths:
        with av.open(str(path)) as container:
            rates.add(container.streams.video[0].average_rate)
    assert len(rates) > 3
    before = [path.stat().st_mtime_ns for path in paths]
    make_clips(tmp_path, count=40)
    assert [path.stat().st_mtime_ns for path in paths] == before
    rows = [json.loads(line) for line in (tmp_path / "questions.jsonl").read_text().splitlines()]
    assert {row["type"] for row in rows} == {"direction", "colour"}
    assert {row["video_id"] for row in rows} == {path.name for path in paths}


@pytest.mark.parametrize("count", [0, 2, 38, 41, -4])
def test_too_few_or_odd_clips_are_refused(count: int) -> None:
    with pytest.raises(UsageError, match="number of clips"):
        plan_clips(count)


def test_a_file_in_the_way_is_told(tmp_path: Path) -> None:
    (tmp_path / "clips").write_text("")
    with pytest.raises(FramebankError, match="could not be written"):
        make_clips(tmp_path, count=40)
