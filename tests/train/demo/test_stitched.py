"""Films stitched of plays: what the files say of them is what they show."""

from __future__ import annotations

from pathlib import Path

import av
import numpy as np

from framebank.features.questions.files import QuestionFiles
from framebank.features.questions.reading import read_questions
from framebank.train.demo.scenes import SCENES
from framebank.train.demo.stitched import RATE_FPS, SIZE, stitch, write_films


def test_acts_follow_one_another_and_rests_stand_between_them() -> None:
    shown = list(stitch(20, seed=(3,)))
    assert len(shown) >= 20 * RATE_FPS
    acts = list(dict.fromkeys(act for _, act in shown))
    assert [act.start_s for act in acts[1:]] == [act.end_s for act in acts[:-1]]
    assert [bool(act.label) for act in acts] == [False, True] * (len(acts) // 2)
    names = {f"{scene.name} {way}" for scene in SCENES for way in (scene.forward, scene.backward)}
    assert {act.label for act in acts} - {""} <= names
    for number, (pixels, act) in enumerate(shown):
        assert pixels.shape == (SIZE[1], SIZE[0], 3)
        assert act.start_s <= number / RATE_FPS < act.end_s
    again = [pixels for pixels, _ in stitch(20, seed=(3,))]
    np.testing.assert_array_equal(again, [pixels for pixels, _ in shown])


def test_both_files_say_the_same_of_the_films(tmp_path: Path) -> None:
    write_films(tmp_path, minutes=0.3)
    read = {
        name: read_questions(QuestionFiles([str(tmp_path / name)]))
        for name in ("segments.csv", "segments.json")
    }
    plain, published = read.values()
    assert [q.segments for q in plain] == [q.segments for q in published]
    assert [q.split for q in plain] == [q.split for q in published]
    assert [q.video_id for q in plain] == [f"{q.video_id}.mp4" for q in published]
    assert {q.split for q in plain} == {"train", "val", "test"}
    for question in plain:
        with av.open(str(tmp_path / "clips" / question.video_id)) as film:
            frames = film.streams.video[0].frames
        assert frames / RATE_FPS >= question.segments[-1][1]
