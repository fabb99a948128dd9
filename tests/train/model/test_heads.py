"""Heads: open answers, yes and no, a choice among candidates, a count; each trained for real."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf

from framebank.features.asking import heads
from framebank.features.asking.trained_model import (
    TrainedModel,
    load_model,
    load_network,
    read_head,
)
from framebank.features.cache import catalog, layout
from framebank.features.cache.reader import open_cache
from framebank.features.errors import UsageError
from framebank.features.questions.files import QuestionFiles
from framebank.features.questions.question import Question, head_kind
from framebank.features.questions.reading import read_questions
from framebank.train.data.batches import QuestionTable
from framebank.train.evaluation.evaluating import EvaluateJob, Judged, evaluate
from framebank.train.fit.command import table
from framebank.train.fit.fits import start_from
from framebank.train.fit.model_folder import ModelFolder
from framebank.train.fit.training import train_model
from framebank.train.fit.training_data import TrainJob
from framebank.train.judging.baselines import answer_gains
from framebank.train.model.config import ModelConfig, TrainConfig
from framebank.train.model.frames import FrameStatistics
from framebank.train.model.heads import Head
from framebank.train.model.moments import MOMENTS, Scale
from framebank.train.model.network import build_network
from framebank.train.model.text import text_layer
from framebank.train.retrain.config import PromoteConfig
from framebank.train.retrain.promotion import decide
from framebank.train.workers.run import Run
from tests.made.made_cache import SPEC, make_extracted, make_shard

WIDTH = 16
SIZES = ModelConfig(projection=16, frame_units=16, dense_units=32)
THINGS = ("a cat", "a dog", "a bird", "a horse", "a fish")


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A cache of 200 clips: feature 0 to 4 tells the thing, feature 5 how often it jumps."""
    path = str(tmp_path_factory.mktemp("heads") / "cache")
    spec = dataclasses.replace(SPEC, dtype="float32")
    layout.write_spec(path, spec)
    videos = []
    for number in range(200):
        video = make_extracted(f"{number:03d}.mp4", width=WIDTH)
        features = video.features * 0.1
        features[:, number % 5] += 1
        features[:, 5] = jumps(number) / 10
        videos.append(dataclasses.replace(video, features=features.astype(np.float32)))
    rows = make_shard(path, "r1-0", videos, run_id="20261121-0100", spec=spec)
    catalog.write_catalog(path, "20261121-0100", rows)
    return path


def jumps(number: int) -> int:
    return 1 + number * 7 % 9


def row(number: int, **more: object) -> dict[str, object]:
    split = "test" if number % 4 == 0 else "val" if number % 4 == 1 else "train"
    return {"video_id": f"{number:03d}.mp4", "split": split, **more}


def choice_row(number: int) -> dict[str, object]:
    order = [THINGS[(number * 3 + k) % 5] for k in range(3 + number % 3)]
    thing = THINGS[number % 5]
    if thing not in order:
        order[number % len(order)] = thing
    return row(number, question="What is seen?", answer=order.index(thing), choices=order)


def train(cache: str, folder: Path, rows: list[dict[str, object]]) -> dict:
    questions = folder.with_suffix(".jsonl")
    questions.write_text("".join(json.dumps(one) + "\n" for one in rows))
    job = TrainJob(
        questions=QuestionFiles([str(questions)]),
        model=SIZES,
        train=TrainConfig(epochs=20, learning_rate=1e-2, weight_decay=0.0),
    )
    return train_model(job, open_cache(cache), ModelFolder(str(folder)), Run())


def judge(cache: str, folder: Path) -> dict:
    return judged(cache, folder).figures


def judged(cache: str, folder: Path) -> Judged:
    job = EvaluateJob(
        model=str(folder),
        questions=QuestionFiles([str(folder.with_suffix(".jsonl"))]),
        out=folder / "evaluation",
    )
    return evaluate(job, open_cache(cache), Run())


def test_a_choice_is_learnt_and_judged_over_each_rows_own_candidates(cache, tmp_path):
    folder = tmp_path / "choice"
    metrics = train(cache, folder, [choice_row(number) for number in range(200)])
    assert metrics["head"] == read_head(str(folder)).kind == "choice"
    assert metrics["accuracy"] > 0.75
    assert metrics["baselines"]["question_only"]["accuracy"] < 0.6
    figures = judge(cache, folder)
    assert figures["accuracy"] == pytest.approx(metrics["accuracy"])
    assert figures["baselines"]["question_only"]["accuracy"] < 0.6
    words = json.loads((folder / "vocabulary.json").read_text())["words"]
    assert {"what", "cat"} <= set(words)  # not letters, though most candidates are short
    model = load_model(str(folder))
    clip = open_cache(cache)["002.mp4"].features[None]
    shares = model.predict(clip.repeat(2, 0), [b"What is seen?"] * 2, [THINGS[2:], THINGS])
    assert shares.shape == (2, 5)
    assert shares.sum(axis=1) == pytest.approx([1, 1])
    assert (shares[0, 3:] == 0).all()
    assert model.head.best(shares[1], top=2, choices=THINGS)[0]["answer"] == "a bird"
    with pytest.raises(ValueError, match="candidates"):
        model.predict(clip, [b"What is seen?"])
    check_warm_start(folder, words)


def check_warm_start(folder: Path, words: list[str]) -> None:
    """Words keep their vectors by name in the reader that question and candidates share."""
    turned = [*words[:2], *reversed(words[2:])]
    head = Head.of([Question("1", "v", "?", choices=("x", "y"), head="choice")], size=9)
    statistics = FrameStatistics(2, np.zeros(WIDTH), np.ones(WIDTH))
    nothing = dict.fromkeys(MOMENTS, np.zeros(WIDTH, np.float32))
    ones = dict.fromkeys(MOMENTS, np.ones(WIDTH, np.float32))
    network = build_network(
        SIZES, statistics, words=len(words), head=head, scale=Scale(nothing, ones)
    )
    assert start_from(network, str(folder), words=turned, answers=(), say=lambda text: None)
    trained = load_network(str(folder)).get_layer("lstm").get_layer("reader")
    vectors = [
        one.get_layer("embedding").get_weights()[0]
        for one in (network.get_layer("reader"), trained)
    ]
    assert np.array_equal(vectors[0][2:], vectors[1][:1:-1])


def test_a_count_is_a_rounded_number_within_the_range_of_training(cache, tmp_path):
    rows = [
        row(n, question="How often does it jump?", answer=str(jumps(n)), head="count")
        for n in range(200)
    ]
    metrics = train(cache, tmp_path / "count", rows)
    assert metrics["measure"] == "mean square error"
    assert metrics["mean_square_error"] < 1
    shown = table(metrics).splitlines()
    assert shown[0].startswith("mean square error, split test")
    assert shown[1].split()[2] == f"{metrics['mean_square_error']:.3f}"
    assert metrics["baselines"]["majority"]["mean_square_error"] > 5
    figures = judge(cache, tmp_path / "count")
    assert figures["mean_square_error"] == pytest.approx(metrics["mean_square_error"])
    answers = judged(cache, tmp_path / "count").answers
    errors = answer_gains(answers.questions, answers.chosen())
    assert -errors.mean() == pytest.approx(figures["mean_square_error"])
    groups = [question.video_id for question in answers.questions]
    worse = decide(errors - 2, errors, groups, PromoteConfig(), counts=True)
    assert not worse.better and "mean square error" in worse.reason
    assert decide(errors, errors - 2, groups, PromoteConfig(), counts=True).better
    low, high = figures["mean_square_error_interval"]
    assert low <= figures["mean_square_error"] <= high
    model = load_model(str(tmp_path / "count"))
    assert (model.head.low, model.head.high) == (1, 9)
    assert model.head.best(np.float32([40.2]), top=3) == [{"answer": "9", "number": 40.200001}]
    assert model.head.chosen(np.float32([[-3]]), ()).tolist() == [1]


def test_yes_and_no_alone_answer_a_question_for_them(cache, tmp_path):
    rows = [row(n, question="What is seen?", answer=THINGS[n % 5]) for n in range(200)]
    rows += [
        row(n, question="Is it a cat?", answer="yes" if n % 5 == 0 else "no", head="yes_no")
        for n in range(200)
    ]
    metrics = train(cache, tmp_path / "both", rows)
    assert metrics["accuracy"] > 0.9
    model = load_model(str(tmp_path / "both"))
    likely = np.full((1, len(model.head.answers)), 0.1, np.float32)
    likely[0, model.head.answers.index("yes")] = 0.05
    kept = model.head.restrict(likely, [Question("1", "a", "is it?", head="yes_no")])
    assert model.head.best(kept[0], top=9)[0]["answer"] == "no"
    assert kept.sum() == pytest.approx(1)
    assert model.head.restrict(likely, [Question("1", "a", "is it?")]) is likely


def test_what_one_model_cannot_learn_together_is_refused(cache, tmp_path):
    rows = [row(n, question="What?", answer="a cat") for n in range(8)]
    rows += [row(n, question="How many?", answer="3", head="count") for n in range(8)]
    with pytest.raises(UsageError, match="several ways"):
        train(cache, tmp_path / "mixed", rows)


def test_a_head_without_questions_is_open():
    assert head_kind([]) == "open"
    counted = Head.of([Question("1", "v", "?", "4", head="count")], size=9)
    assert (counted.low, counted.high, counted.spread) == (4, 4, 1.0)


def test_questions_of_a_file_keep_their_candidates(tmp_path):
    path = tmp_path / "q.jsonl"
    path.write_text(json.dumps(choice_row(2)) + "\n")
    (question,) = read_questions(QuestionFiles([str(path)]))
    assert question.choices[question.right] == "a bird"


def test_a_candidate_that_stands_again_counts_once(tmp_path):
    path = tmp_path / "q.jsonl"
    rows = [
        {"choices": ["mug", "", "mug", "cup"], "answer": 2},
        {"choices": ["cup", "mug"], "answer": "mug"},
        {"choices": ["1", "2", "3"], "answer": 2},
    ]
    path.write_text(
        "".join(json.dumps(row(n, question="?", **r)) + "\n" for n, r in enumerate(rows))
    )
    questions = read_questions(QuestionFiles([str(path)]))
    assert [(q.right, q.answer) for q in questions] == [(0, "mug"), (1, "mug"), (2, "3")]
    head = Head.of(questions, size=9)
    words = head.choices(questions, lambda texts: np.ones((len(texts), 2)))
    assert (words[:, :, 0] > 0).tolist() == [
        [True, True, False, True], [True, True, False, False], [True, True, True, False]
    ]  # fmt: skip
    model = TrainedModel(
        lambda *asked: np.zeros((len(asked[2]), 1), np.float32), heads.Head("choice")
    )
    shares = model.predict(np.zeros((3, 1, 1)), [b"?"] * 3, [q.choices for q in questions])
    assert shares == pytest.approx(np.float32([[1, 1, 0, 1], [1.5, 1.5, 0, 0], [1, 1, 1, 0]]) / 3)


def test_counts_below_zero_and_fractions_are_numbers_like_others():
    questions = [Question("", "v", "?", answer, head="count") for answer in ("-1", "0.5", "3")]
    head = Head.of(questions, size=9)
    truth = head.truth(questions)
    assert (truth.tolist(), head.knows(truth).all()) == ([-1, 0.5, 3], True)
    assert head.hits(tf.constant(truth), tf.constant([[-1.2], [0.5], [9]])).numpy().tolist() == [
        True, False, True
    ]  # fmt: skip


@pytest.mark.parametrize("row_of", [
    {"answer": "2", "choices": ["1", "2", "3"]},
    {"answer": 2, "choices": [1, 2, 3]},
    {"answer": 1, "choices": "a|b"},
    {"answer": 1, "choices": ["a"] * 101},
    {"answer": 1, "choices": ["a", ["b"]]},
    {"answer": "1e99", "head": "count"},
    {"answer": "maybe", "head": "yes_no"},
])  # fmt: skip
def test_what_is_not_clear_is_refused_with_its_row(tmp_path, row_of):
    path = tmp_path / "q.jsonl"
    path.write_text(json.dumps(row(1, question="?") | row_of) + "\n")
    with pytest.raises(UsageError, match="line 1"):
        read_questions(QuestionFiles([str(path)]))


def test_what_leaves_nothing_to_learn_is_refused(cache, tmp_path):
    alone = [row(n, question="?", choices=["a cat"], answer=0) for n in range(8)]
    with pytest.raises(UsageError, match="two candidates"):
        train(cache, tmp_path / "alone", alone)
    silent = [row(n, question="?!", answer=THINGS[n % 2]) for n in range(8)]
    with pytest.raises(UsageError, match="word"):
        train(cache, tmp_path / "silent", silent)


def test_half_of_a_surrogate_pair_is_no_obstacle():
    questions = [Question("1", "v", "what is \ud83d", "x")]
    table = QuestionTable.of(questions, Head.of(questions, size=9), text=lambda texts: [[1]])
    assert len(table) == 1
    assert text_layer(["what is \ud83d"], max_words=9).get_vocabulary()[2:] == ["what", "is"]
