"""Finding segments from end to end on made-up videos: training, scoring, evaluation, retraining."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from framebank import cli
from framebank.features.asking.detection import Segment, detection_precision
from framebank.features.asking.trained_model import load_model
from framebank.features.cache.reader import open_cache
from framebank.features.errors import UsageError
from framebank.features.questions.files import QuestionFiles
from framebank.features.questions.question import SEGMENTS, Question
from framebank.features.stop_signals import StopRequest
from framebank.train.data.joining import join_cache
from framebank.train.retrain.config import HeldConfig, RetrainConfig
from framebank.train.retrain.promotion import judge
from tests.made.chromium import FAULTS, find_chromium, open_page
from tests.made.made_segments import make_segment_cache

SMALL = ("--segment-units", "32", "--epochs", "25", "--model-kind", "bigru")


class Made:
    def __init__(self, folder: Path) -> None:
        self.cache, self.model = str(folder / "cache"), str(folder / "model")
        self.questions = make_segment_cache(self.cache, folder / "segments.csv")
        words = ["--cache", self.cache, "--questions", self.questions, "--model", self.model]
        assert cli.main(["train", *words, "--task", "detect", *SMALL]) == 0

    def json(self, name: str) -> dict[str, Any]:
        return json.loads(Path(self.model, name).read_text())


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Made:
    return Made(tmp_path_factory.mktemp("segments"))


def test_a_trained_model_finds_what_happens_and_a_single_row_does_not_tell(made: Made) -> None:
    metrics = made.json("metrics.json")
    assert metrics["map"]["0.50"] >= 0.9
    assert metrics["baselines"]["order_blind"]["map"]["0.50"] < metrics["map"]["0.50"] - 0.1
    assert metrics["baselines"]["majority"]["map"]["0.50"] < 0.1
    assert (metrics["head"], metrics["split"], metrics["questions"]) == (SEGMENTS, "test", 3)
    probes = [metrics["baselines"][name]["map"]["0.50"] for name in ("probe_blind", "probe")]
    assert probes[0] < probes[1] - 0.1  # a formula too tells a rise from a fall by its order
    assert metrics["led_by"] == {}
    vocabulary = made.json("vocabulary.json")
    assert sorted(vocabulary["answers"]) == ["blink", "fall", "rise"]
    assert vocabulary["rule"] == metrics["rule"]


def test_windows_of_a_video_say_what_the_whole_of_it_says(made: Made) -> None:
    model = load_model(made.model)
    record = open_cache(made.cache)["v00.mp4"]
    whole = model.ask_video(record.features)
    assert whole.shape == (240, 4)
    np.testing.assert_allclose(whole.sum(axis=1), 1, rtol=1e-4)
    short = model.ask_video(record.features[:64])  # one window alone
    np.testing.assert_allclose(short[:32], whole[:32], atol=1e-3)


def test_scoring_writes_segments_and_the_submission(made: Made, tmp_path: Path) -> None:
    out = tmp_path / "out"
    words = ["--cache", made.cache, "--questions", made.questions, "--model", made.model]
    assert cli.main(["score", *words, "--out", str(out), "--runner", "DirectRunner"]) == 0
    (path,) = out.glob("answers-*.jsonl")
    rows = [json.loads(line) for line in path.read_text().splitlines()]
    assert {row["status"] for row in rows} == {"answered"}
    tests = [row for row in rows if row["split"] == "test"]
    told = json.loads((out / "_submission.json").read_text())
    assert set(told) == {"version", "results", "external_data"}
    assert set(told["results"]) == {row["video_id"] for row in tests} == set(_tests(made))
    truth = [Segment(v, *_span(one)) for v, q in _tests(made).items() for one in q.segments]
    found = [
        Segment(video, one["label"], *one["segment"], one["score"])
        for video, its in told["results"].items()
        for one in its
    ]
    at_half = np.mean([row[0] for row in detection_precision(truth, found, [0.5]).values()])
    assert at_half == pytest.approx(made.json("metrics.json")["map"]["0.50"], abs=1e-3)
    summary = json.loads((out / "_summary.json").read_text())
    its = summary["detection"]
    assert its["map"]["0.50"] == pytest.approx(at_half)
    assert (its["hit_at_1"], its["hit_at_3"]) == (1, 1)
    assert (its["labels_left_out"], its["videos_without_answer"]) == ([], 0)
    # Of another split the same answers make another file.
    assert cli.main(["score", *words, "--out", str(out), "--split", "val"]) == 0
    told = json.loads((out / "_submission.json").read_text())
    assert set(told["results"]) == {"v01.mp4", "v05.mp4", "v09.mp4"}


def test_a_submission_has_no_class_that_its_split_lacks(made: Made, tmp_path: Path) -> None:
    questions, out = tmp_path / "q.csv", tmp_path / "out"
    _, *lines = Path(made.questions).read_text().splitlines()
    kept = [line for line in lines if ",test" in line and "blink" not in line]
    rows = ["video_id,start_s,end_s,label,split", *kept, "gone.mp4,1,2,hop,test"]
    questions.write_text("\n".join(rows))
    words = ["--cache", made.cache, "--questions", str(questions), "--model", made.model]
    words += ["--out", str(out), "--runner", "DirectRunner", "--top", "2"]
    assert cli.main(["score", *words]) == 0
    told = json.loads((out / "_submission.json").read_text())
    labels = {one["label"] for its in told["results"].values() for one in its}
    assert labels == {"rise", "fall"}
    its = json.loads((out / "_summary.json").read_text())["detection"]
    assert (its["labels_left_out"], its["videos_without_answer"]) == (["blink"], 1)
    assert "hit_at_3" not in its  # of two labels


def _span(one: tuple[float, float, str]) -> tuple[str, float, float]:
    return one[2], one[0], one[1]


def _tests(made: Made) -> dict[str, Question]:
    return _asked(made, "test")


def _asked(made: Made, split: str) -> dict[str, Question]:
    asked = join_cache(
        QuestionFiles([made.questions]), open_cache(made.cache), max_unmatched_ratio=0
    )
    return {q.video_id: q for q in asked.questions if q.split == split}


def test_evaluation_agrees_with_training_and_draws_time_lines(made: Made, tmp_path: Path) -> None:
    words = ["--cache", made.cache, "--questions", made.questions, "--model", made.model]
    assert cli.main(["evaluate", *words, "--out", str(tmp_path)]) == 0
    figures = json.loads((tmp_path / "evaluation.json").read_text())
    metrics = made.json("metrics.json")
    assert figures["average_map"] == pytest.approx(metrics["average_map"], abs=1e-3)
    assert figures["baselines"].keys() == metrics["baselines"].keys()
    assert not (tmp_path / "baselines").exists()  # training kept what they found
    page = (tmp_path / "report.html").read_text()
    for video, question in _tests(made).items():
        assert f"<h3>{video}</h3>" in page
        label = question.segments[0][2]
        assert f'title="{label}, ' in page
    assert 'class="lane ticks"' in page  # the source is nowhere
    if (browser := find_chromium()) is not None:
        with open_page(browser) as tab:
            for width in (390, 1280):
                tab.show((tmp_path / "report.html").as_uri(), width=width)
                assert tab.evaluate(FAULTS) == []


def test_segments_of_a_video_in_two_files_are_refused(made: Made, tmp_path: Path) -> None:
    other = tmp_path / "more.csv"
    other.write_text("video_id,start_s,end_s,label\nv00,1,2,rise\n")
    with pytest.raises(UsageError, match="in several places"):
        join_cache(
            QuestionFiles([made.questions, str(other)]),
            open_cache(made.cache),
            max_unmatched_ratio=0,
        )


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("--task", "classify"), "the files are not for --task classify"),
        (("--model-kind", "transformer"), "finds no segments"),
    ],
)
def test_what_finds_no_segments_is_refused(
    made: Made, tmp_path: Path, words: tuple[str, ...], said: str, capsys: pytest.CaptureFixture
) -> None:
    given = ["--cache", made.cache, "--questions", made.questions, "--model", str(tmp_path / "m")]
    assert cli.main(["train", *given, *words]) == 2
    assert said in capsys.readouterr().err


def test_a_better_model_is_promoted_by_its_average_map(made: Made, tmp_path: Path) -> None:
    config = RetrainConfig(
        registry=str(tmp_path / "registry"),
        cache=made.cache,
        questions=(made.questions,),
        held=HeldConfig(least=2),
    )
    blind = tmp_path / "blind"
    given = ["--cache", made.cache, "--questions", made.questions, "--model", str(blind)]
    words = [*SMALL[:2], "--epochs", "1", "--model-kind", "lstm", "--no-baselines"]
    assert cli.main(["train", *given, *words]) == 0
    judged, learnt = list(_asked(made, "test").values()), list(_asked(made, "train").values())
    its = {"cache": open_cache(made.cache), "judged": judged, "learnt": learnt, "floor": ""}
    its["stop"] = StopRequest()
    first = judge(config, made.model, None, **its)
    assert (first.better, first.reason) == (True, "no model was in use")
    better = judge(config, made.model, str(blind), **its)
    assert better.better
    assert better.figures["average_map"] > better.figures["average_map_in_use"] + 0.1
    worse = judge(config, str(blind), made.model, **its)
    assert (
        not worse.better
        and "less than the probe" in worse.reason
        and "95 % confidence" in worse.reason
    )
    few = dataclasses.replace(config, held=HeldConfig(least=4))
    assert "too few" in judge(few, made.model, str(blind), **its).reason
