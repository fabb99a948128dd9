"""The evaluation's page: nothing is asked of a network, and a browser shows all of it."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import re
from pathlib import Path

import numpy as np
import pytest

from framebank.features.cache import catalog, layout
from framebank.features.cache.reader import Cache, open_cache
from framebank.features.questions.question import Question
from framebank.features.video import SourceInfo, VideoRef
from framebank.train.evaluation import figures as evaluation
from framebank.train.evaluation.answers import NO_RANK, Answers
from framebank.train.evaluation.cases import choose_cases, choose_mistakes
from framebank.train.evaluation.evaluating import Judged
from framebank.train.evaluation.report import (
    lead_remark,
    square_error,
    verdict,
    write_report,
)
from framebank.train.judging import baselines
from tests.made.chromium import FAULTS, find_chromium, open_page
from tests.made.made_cache import SPEC, make_extracted, make_shard

_SPEC = dataclasses.replace(SPEC, sample="uniform=8", input_size=75)
_LONG = "a-very-long-answer-without-any-place-to-break-it-at-all-for-sure"
_WORDS = ("cat", "<b>man</b>", _LONG, *(f"answer {number}" for number in range(9)))
_LEAK = {"videos": ["a0", "<x>"], "splits": ["train", "test"], "why": "the same file"}


@pytest.fixture(scope="module")
def cache(clips: Path, tmp_path_factory: pytest.TempPathFactory) -> Cache:
    """Six clips, of which a5 is gone."""
    path = str(tmp_path_factory.mktemp("page") / "cache")
    videos = []
    for number in range(6):
        clip = clips / f"a{number}.mp4"
        uri = str(clip) if number < 5 else "/clips/<gone>.mp4"
        videos.append(
            dataclasses.replace(
                make_extracted(f"a{number}"),
                ref=VideoRef(f"a{number}", uri, clip.stat().st_size, "1"),
                source=SourceInfo("mov,mp4", "h264", 64, 48, 10.0, 1.0, 10),
                content_sha256=hashlib.sha256(clip.read_bytes()).hexdigest(),
            )
        )
    layout.write_spec(path, _SPEC)
    rows = make_shard(path, "s", videos, run_id="20261121-0100", spec=_SPEC)
    catalog.write_catalog(path, "20261121-0100", rows)
    return open_cache(path)


def _judged(*, leaks: bool = True) -> Judged:
    """Sixty made questions: half of the answers are right."""
    dice = np.random.default_rng(0)
    count, size = 60, len(_WORDS)
    truth = dice.integers(size, size=count)
    best = np.stack([dice.permutation(size)[:5] for _ in range(count)])
    best[::2, 0] = truth[::2]
    rank = np.where(best[:, 0] == truth, 0, 7)
    probability = -np.sort(-dice.random((count, 5)), axis=1)
    questions = [
        Question(str(n), f"a{n % 6}", f"what <i>is</i> {n}?", _WORDS[place])
        for n, place in enumerate(truth.tolist())
    ]
    answers = Answers("open", questions, _WORDS, best, probability, rank, rank)
    figures = evaluation.judge(answers, durations_s={"a0": 3.0}, seed=0)
    said = baselines.count_answers(questions, questions)
    pairs = [_LEAK] * 25 if leaks else []
    more = {
        "model": "models/<m>/", "split": "test", "videos": 6, "notes": ["a <note>"],
        "made": {
            "kind": "lstm", "parameters": 12345, "trained": "2026-11-21T01:00:00+00:00",
            "framebank": "0.1.0", "backbone": "inception_v3", "layer": "avg_pool",
            "sample": "uniform=8", "cache": "/<cache>", "cache_videos": 6,
        },
        "random_weights": True, "flatters": "",
        "epoch_chosen_on": "val",
        "weights": "random:0", "questions_files": ["q.jsonl"],
        "questions_sha256": ["ab" * 32],
        "baselines": evaluation.beside(said, answers, seed=0),
        "leaks": {"videos": 9, "compared": 7, "capped": False, "pairs": pairs, "alike": []},
    }  # fmt: skip
    return Judged(figures | more, answers)


def _write(folder: Path, cache: Cache, judged: Judged) -> Path:
    folder.mkdir(exist_ok=True)
    rows = [
        {"model": kind, "epoch": epoch, "loss": 3 / epoch, "val_accuracy": 1 - 1 / epoch}
        for kind in ("lstm", "question_only")
        for epoch in range(1, 13)
    ]
    text = "".join(json.dumps(row) + "\n" for row in rows)
    (folder / "history.jsonl").write_text(text)
    return write_report(folder, judged, cache, model_dir=str(folder), examples=4)


def test_page_holds_all_that_it_shows(cache: Cache, tmp_path: Path) -> None:
    text = _write(tmp_path, cache, _judged()).read_text("utf-8")
    assert not re.search(r"https?:|url\(|<script|@import|<b>man|<note>|<x>", text)
    addresses = re.findall(r'(?:src|href)="([^"]*)', text)
    inside = {address for address in addresses if not address.startswith("data:")}
    assert "#leaks" in inside and len(inside) > 1  # and cases of mistakes
    assert inside <= {f"#{name}" for name in re.findall(r'<\w[^>]* id="?([\w-]+)', text)}
    assert "default-src 'none'" in text and text.count("<img") >= 8
    for words in (
        "is not there any more: /clips/&lt;gone&gt;.mp4", "25 pairs of videos found", "5 more are",
        "7 of them, drawn by chance", "Best cases", "Worst cases", "Common mistakes",
        "12,345 parameters", "21 November 2026", "/&lt;cache&gt;",
        "inception_v3", "uniform=8", "<h1>&lt;m&gt;</h1>",
        "expected calibration error", "By type of question", "By length of video",
    ):  # fmt: skip
        assert words.lower() in text.lower(), words
    places = [text.index(words) for words in ("Worst cases", "Best cases", "By type of question")]
    assert places == sorted(places)


def test_page_without_history_leaks_or_baselines(cache: Cache, tmp_path: Path) -> None:
    judged = _judged(leaks=False)
    judged.figures["baselines"] = {}
    page = write_report(tmp_path, judged, cache, model_dir=str(tmp_path), examples=0)
    text = page.read_text("utf-8")
    assert (
        "No file is on both sides" in text
        and "may differ as much" in text
        and "holds no history" in text
        and "<img" not in text
    )
    assert "There is no baseline to compare it with" in text


def test_a_curve_of_training_questions_is_called_so(cache: Cache, tmp_path: Path) -> None:
    judged = _judged()
    assert "Right answers in validation" in _write(tmp_path, cache, judged).read_text("utf-8")
    judged.figures["epoch_chosen_on"] = "train"
    text = _write(tmp_path, cache, judged).read_text("utf-8")
    assert "Right answers to training questions (none was kept back)" in text
    assert "validation" not in text


def test_verdict_names_the_hardest_baseline() -> None:
    figures = _judged().figures
    one = {"measure": "accuracy", "difference": 0.3, "interval": [0.1, 0.5]}
    even = {"measure": "accuracy", "difference": -0.01, "interval": [-0.1, 0.08]}
    worse = {"measure": "accuracy", "difference": -0.2, "interval": [-0.3, -0.1]}

    def said(*aheads: dict[str, object]) -> str:
        names = ("question_only", "order_blind")
        beside = {name: {"ahead": ahead} for name, ahead in zip(names, aheads, strict=False)}
        return verdict(figures | {"baselines": beside})

    assert said(one).endswith(
        "Better than every baseline: 30.0 points (10.0 to 50.0) ahead of question only."
    )
    assert said(one, even).endswith(
        "Not better than order-blind with 95 % confidence: 1.0 points (−8.0 to 10.0) behind."
    )
    worst = {
        name: {"ahead": ahead}
        for name, ahead in zip(("majority", "probe"), (one, worse), strict=True)
    }
    assert "a formula that takes seconds to fit" in lead_remark(figures | {"baselines": worst})
    assert lead_remark(figures | {"baselines": {"probe": {"ahead": even}}}) == ""
    assert verdict(figures | {"videos": 1}).endswith("no interval says how certain that is.")
    assert said(one, worse).endswith("Worse than order-blind: 20.0 points (10.0 to 30.0) behind.")


def test_long_texts_are_cut_and_equal_draws_are_no_certainty(cache: Cache, tmp_path: Path) -> None:
    judged = _judged()
    score = judged.figures["by_type"].popitem()[1]
    judged.figures["by_type"]["<w>" * 9000] = score
    text = _write(tmp_path, cache, judged).read_text("utf-8")
    assert "<w>" not in text and 300 < text.count("&lt;w&gt;") < 400
    figures = judged.figures | {"correct": 60, "accuracy": 1.0, "interval": [1.0, 1.0]}
    assert "with 6 videos the true figure may be 39.3 points away" in verdict(figures)
    assert "All are about one video" in verdict(figures | {"videos": 1})


def test_errors_of_many_places_are_written_short() -> None:
    score = {"mean_square_error": 2.5e22, "mean_square_error_interval": [0.125, 999999.0]}
    assert square_error(score) == "2.50e+22 (0.12 to 999999.00)"


def test_cases_are_of_different_videos_while_there_are_any() -> None:
    judged = _judged()
    for places, right in zip(choose_cases(judged, 6), (True, False), strict=True):
        videos = [judged.answers.questions[place].video_id for place in places]
        sure = [judged.answers.probability[place, 0] for place in places]
        assert len(set(videos)) == min(
            6,
            len(
                {
                    q.video_id
                    for q, is_right in zip(
                        judged.answers.questions, judged.answers.right, strict=True
                    )
                    if is_right == right
                }
            ),
        )
        assert len(places) == 6 and sure == sorted(sure, reverse=True)
        assert all(judged.answers.right[place] == right for place in places)
    assert len(choose_cases(judged, 20)[0]) == 20 and choose_cases(judged, 0) == ([], [])


def test_common_mistakes_lead_to_cases_of_them() -> None:
    questions = [Question(str(n), f"a{n}", "what?", "cat", type="<t>") for n in range(9)]
    chosen = np.array([1, 1, 1, 0, 0, 2, 2, 3, 4])
    sure = np.linspace(0.9, 0.1, 9)
    answers = Answers(
        "open", questions, _WORDS, chosen[:, None], sure[:, None],
        np.where(chosen == 0, 0, 1), np.where(chosen == 0, 0, 1),
    )  # fmt: skip
    judged = Judged(evaluation.judge(answers, durations_s={}, seed=0), answers)
    (kind,), more = choose_mistakes(judged, 4, shown=[1])
    assert (kind["kind"], kind["judged"], kind["wrong"], more) == ("<t>", 9, 7, [5])
    rows = [(one["truth"], one["said"], one["count"], one["place"]) for one in kind["mistakes"]]
    assert rows == [("cat", "<b>man</b>", 3, 1), ("cat", _LONG, 2, 5)]  # of those once made none
    assert [one["place"] for one in choose_mistakes(judged, 0, shown=())[0][0]["mistakes"]] == [
        None,
        None,
    ]


def test_counts_are_judged_by_their_square_error(cache: Cache, tmp_path: Path) -> None:
    counts = np.array([[2], [5], [3], [9]])
    questions = [Question(str(n), f"a{n}", "how many times?", "3", head="count") for n in range(4)]
    rank = np.where(counts[:, 0] == 3, 0, NO_RANK)
    answers = Answers("count", questions, (), counts, np.zeros((4, 1)), rank, rank)
    figures = evaluation.judge(answers, durations_s={}, seed=0)
    assert figures["mean_square_error"] == (1 + 4 + 0 + 36) / 4
    said = {"majority": ["3"] * 4}
    beside = evaluation.beside(said, answers, seed=0)
    assert beside["majority"]["ahead"]["difference"] == -10.25
    judged = Judged(_judged().figures | {"baselines": beside} | figures, answers)
    judged.figures.pop("calibration")
    assert choose_cases(judged, 2) == ([2], [3, 1])  # the farthest off first
    text = _write(tmp_path, cache, judged).read_text("utf-8")
    assert "Mean square error 10.25" in text and "exactly right on 100.0%" in text
    assert "it counted <b>9</b>" in text and "calibration" not in text


def test_a_browser_shows_it_whole_and_asks_for_nothing(cache: Cache, tmp_path: Path) -> None:
    browser = find_chromium()
    if browser is None:
        pytest.skip("no Chromium on PATH to open the page in")
    page = _write(tmp_path, cache, _judged())
    with open_page(browser) as tab:
        for width, dark in ((390, False), (390, True), (768, False), (1280, False)):
            tab.show(page.as_uri(), width=width, dark=dark)
            assert tab.evaluate("innerWidth") == width
            assert tab.evaluate(FAULTS) == []
            assert tab.evaluate("document.images.length") >= 8
            assert tab.violations() == []
            assert tab.evaluate("document.querySelectorAll('svg.chart').length") == 3
        asked = {address for address in tab.requests if not address.startswith("data:")}
        assert asked == {page.as_uri()}, asked
        assert tab.problems == []
        # The policy holds: what a page like this one would ask for is refused.
        script = "fetch('file:///etc/hostname').then(() => 'asked', () => 'refused')"
        assert tab.evaluate(script) == "refused"
