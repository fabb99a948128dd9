"""The probe, what chooses it, and what it is held against: trained for real on small caches."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from framebank.features.asking.trained_model import load_model, read_head
from framebank.features.cache.reader import open_cache
from framebank.features.questions.files import QuestionFiles
from framebank.features.questions.question import Question
from framebank.features.questions.seen_videos import read_seen
from framebank.train.fit.choosing import choose_kind
from framebank.train.fit.command import table as show
from framebank.train.fit.model_folder import ModelFolder
from framebank.train.fit.training import train_model
from framebank.train.fit.training_data import TrainJob
from framebank.train.model.config import PROBE, ModelConfig, TrainConfig
from framebank.train.workers.run import Run
from tests.made.made_questions import QUESTION, direction_clip, make_direction_cache, write_jsonl
from tests.train.model.test_heads import (  # noqa: F401 - a fixture
    THINGS,
    cache,
    choice_row,
    jumps,
    row,
)


@pytest.fixture(scope="module")
def direction(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("direction")
    write_jsonl(folder / "q.jsonl", make_direction_cache(str(folder / "cache")))
    return folder


def train(
    where: str, folder: Path, questions: Path | list[dict[str, object]], **config: object
) -> tuple[dict, list[str]]:
    """Return (metrics, what was said)."""
    if not isinstance(questions, Path):
        write_jsonl(folder.with_suffix(".jsonl"), questions)
        questions = folder.with_suffix(".jsonl")
    kind, baselines = str(config.pop("kind", PROBE)), bool(config.pop("baselines", False))
    said: list[str] = []
    job = TrainJob(
        questions=QuestionFiles([str(questions)]),
        model=ModelConfig(kind=kind, projection=16, frame_units=16, dense_units=16),
        train=TrainConfig(**{"epochs": 6, **config}),  # type: ignore[arg-type]
        with_baselines=baselines,
    )
    run = Run(say=said.append)
    return train_model(job, open_cache(where), ModelFolder(str(folder)), run), said


def test_the_probe_learns_the_order_of_frames_and_its_baseline_cannot(
    direction: Path, tmp_path: Path
) -> None:
    metrics, _ = train(str(direction / "cache"), tmp_path / "m", direction / "q.jsonl",
                       baselines=True, epochs=1)  # fmt: skip
    assert metrics["kind"] == "probe" and metrics["accuracy"] >= 0.95
    beside = {name: one["accuracy"] for name, one in metrics["baselines"].items()}
    assert beside["probe"] == metrics["accuracy"] and beside["probe_blind"] <= 0.7
    assert metrics["led_by"] == {} and "WARNING" not in show(metrics)
    calibration = metrics["calibration"]
    assert calibration["after"] < calibration["before"]
    model = load_model(str(tmp_path / "m"))
    for way in (True, False):
        clip = direction_clip(999, forward=way)[None]
        (shares,) = model.predict(clip, [QUESTION.encode()])
        assert model.head.answers[int(shares.argmax())] == ("loading" if way else "unloading")
        padded = np.pad(clip, ((0, 0), (0, 3), (0, 0)))
        np.testing.assert_allclose(model.predict(padded, [QUESTION.encode()])[0], shares, atol=1e-5)


def test_a_probe_names_things_by_the_question_that_is_asked(cache, tmp_path):  # noqa: F811
    rows = [
        row(number, question=asked, answer=answer)
        for number in range(200)
        for asked, answer in (
            ("What is seen?", THINGS[number % 5]),
            ("Is it small?", "yes" if number % 5 in (0, 2) else "no"),
            (f"Which animal number {number} is here?", THINGS[number % 5]),
        )
    ]
    metrics, said = train(cache, tmp_path / "open", rows)
    assert metrics["accuracy"] >= 0.9, metrics
    assert "regressions" in "".join(said)
    assert min(one["accuracy"] for one in metrics["by_type"].values()) >= 0.85


def test_a_probe_counts(cache, tmp_path):  # noqa: F811
    rows = [
        row(number, question="How many jumps?", answer=jumps(number), head="count")
        for number in range(200)
    ]
    metrics, _ = train(cache, tmp_path / "count", rows)
    assert metrics["mean_square_error"] < 0.5 and "calibration" not in metrics


def test_a_probe_chooses_among_candidates(cache, tmp_path):  # noqa: F811
    rows = [choice_row(number) for number in range(200)]
    metrics, _ = train(cache, tmp_path / "choice", rows)
    assert metrics["head"] == "choice" and metrics["accuracy"] >= 0.9


def test_labels_are_learnt_without_a_question(cache, tmp_path):  # noqa: F811
    rows = [row(number, label=THINGS[number % 5]) for number in range(200)]
    for kind in ("probe", "lstm"):
        metrics, _ = train(cache, tmp_path / kind, rows, kind=kind, epochs=12, learning_rate=1e-2,
                           baselines=kind == "probe")  # fmt: skip
        assert metrics["accuracy"] >= 0.9 and set(metrics["by_type"]) == set(THINGS)
        assert not {"question_only", "majority_per_question"} & set(metrics["baselines"])
        assert read_head(str(tmp_path / kind)).asks is False
        model = load_model(str(tmp_path / kind))
        clip = next(iter(open_cache(cache).read(["003.mp4"]))).features.astype(np.float32)
        assert model.head.answers[int(model.predict(clip[None], [b""])[0].argmax())] == THINGS[3]


def test_auto_says_what_it_tried_and_takes_the_best(direction: Path, tmp_path: Path) -> None:
    metrics, said = train(
        str(direction / "cache"), tmp_path / "auto", direction / "q.jsonl", kind="auto", epochs=2
    )
    assert metrics["kind"] == "probe"
    tried = {one["kind"]: one for one in metrics["tried"]}
    assert set(tried) == {"probe", "lstm", "attention", "transformer", "bigru", "wide", "mean"}
    whole = [kind for kind, one in tried.items() if one["folds"] == "all"]
    assert whole[0] == "probe" and len(whole) <= 3
    low, high = tried["probe"]["interval"]
    assert low <= tried["probe"]["score"] <= high
    assert any(text.startswith("auto: probe ") for text in said)
    assert "auto-lstm-0: best epoch 1 of 1" in said  # tried for half the epochs
    again, said = train(
        str(direction / "cache"), tmp_path / "auto", direction / "q.jsonl", kind="auto", epochs=2
    )
    assert again == metrics and any("finished already" in text for text in said)


class Rows:
    """A table of 48 questions about clips of 12 groups."""

    def __init__(self, rows):  # type: ignore[no-untyped-def]
        self.questions = [Question(str(n), f"v{n}", "?", "a", group=f"g{n // 4}") for n in rows]

    def __len__(self) -> int:
        return len(self.questions)

    def take(self, rows):  # type: ignore[no-untyped-def]
        return Rows([int(self.questions[row].question_id) for row in rows])


def choose(gains, *kinds: str):  # type: ignore[no-untyped-def]
    rows = Rows(range(48))
    return choose_kind(rows, gains, seed=0, say=lambda text: None, kinds=kinds)  # type: ignore[arg-type]


def test_a_kind_far_behind_takes_one_fold_and_groups_are_never_cut() -> None:
    dealt: list[tuple[str, int]] = []

    def gains(kind, fold, learn, judge):  # type: ignore[no-untyped-def]
        dealt.append((kind, fold))
        assert not {q.source for q in learn.questions} & {q.source for q in judge.questions}
        return np.full(len(judge), {"probe": 0.5, "a": 0.9, "b": 0.1, "c": 0.7, "d": 0.2}[kind])

    best, tried = choose(gains, "probe", "a", "b", "c", "d")
    assert best == "a" and ("b", 1) not in dealt and ("probe", 2) in dealt
    assert [one["kind"] for one in tried if one["folds"] == "all"] == ["probe", "a", "c"]
    best, tried = choose(gains, "probe", "b", "d")  # d is among the best two, and far behind
    assert best == "probe" and [one["folds"] for one in tried] == ["all", "the first", "the first"]


EVEN = set(range(0, 48, 2))


@pytest.mark.parametrize(
    ("its", "best"), [(EVEN - {0, 8} | {1, 5, 13}, "probe"), (EVEN | {1, 5, 13, 21, 29}, "a")]
)
def test_a_trained_kind_must_be_ahead_by_more_than_chance(its: set[int], best: str) -> None:
    right = {"probe": EVEN, "a": its}

    def gains(kind, fold, learn, judge):  # type: ignore[no-untyped-def]
        return np.array([float(int(q.question_id) in right[kind]) for q in judge.questions])

    assert choose(gains, "probe", "a")[0] == best


def test_a_baseline_that_leads_is_told(direction: Path, tmp_path: Path) -> None:
    metrics, said = train(
        str(direction / "cache"), tmp_path / "mean", direction / "q.jsonl", kind="mean", epochs=1,
        baselines=True,
    )  # fmt: skip
    lead, low, high = metrics["led_by"]["probe"]
    assert 0 < low <= lead <= high
    assert any("probe answers better" in text for text in said)
    assert "WARNING: probe (moments, with order) is better" in show(metrics)


def test_seeds_are_averaged_and_their_spread_is_shown(direction: Path, tmp_path: Path) -> None:
    metrics, _ = train(
        str(direction / "cache"), tmp_path / "seeds", direction / "q.jsonl", kind="lstm", seeds=2
    )
    assert len(metrics["seeds"]) == 2
    assert "the mean of 2 fits" in show(metrics)
    model = load_model(str(tmp_path / "seeds"))
    (shares,) = model.predict(direction_clip(1, forward=True)[None], [QUESTION.encode()])
    assert shares.sum() == pytest.approx(1, abs=1e-5)


def test_groups_stand_on_one_side_of_every_split(direction: Path, tmp_path: Path) -> None:
    lines = (direction / "q.jsonl").read_text().splitlines()
    rows = [{**json.loads(line), "split": None} for line in lines]
    _, said = train(str(direction / "cache"), tmp_path / "groups", rows, group_by=r"(\d)-")
    assert any("10 groups without a split were split by group" in text for text in said)
    seen = read_seen(str(tmp_path / "groups"))
    judged = {
        json.loads(line)["video_id"]
        for line in (tmp_path / "groups" / "judged.jsonl").read_text().splitlines()
    }
    assert judged and not judged & seen.videos
    assert not {video_id.split("-")[0][-1] for video_id in judged} & seen.groups
    assert all(seen.has("another.mp4", {}, group=group) for group in seen.groups)
