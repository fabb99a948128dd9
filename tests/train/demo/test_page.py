"""The demo's page: whole, self-contained, and true to what was answered."""

from __future__ import annotations

import base64
import dataclasses
import html.parser
import json
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest

from framebank.features.cache import catalog, layout
from framebank.features.errors import FramebankError
from framebank.train.demo.clips import plan_clips, question_rows, write_clip, write_questions
from framebank.train.demo.page import DemoResult, frame_strip, write_page
from tests.made.chromium import FAULTS, find_chromium, open_page
from tests.made.made_cache import SPEC, make_extracted, make_shard


@pytest.fixture(scope="module")
def out(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A demo's folder with four held-out clips (two pairs of twins) and one of training."""
    folder = tmp_path_factory.mktemp("demo")
    plans = plan_clips(40)
    test = [plan for plan in plans if plan.split == "test"][:4]
    chosen = [*test, next(plan for plan in plans if plan.split == "train")]
    (folder / "clips").mkdir()
    videos = []
    for plan in chosen:
        path = write_clip(plan, folder / "clips")
        rows = make_extracted(path.name, rows=8)
        index = np.arange(8, dtype=np.int64) * 2
        videos.append(dataclasses.replace(rows, frame_index=index))
    write_questions(chosen, folder / "questions.jsonl")
    cache = str(folder / "cache")
    layout.write_spec(cache, SPEC)
    rows = make_shard(cache, "s", videos, run_id="20261121-0100")
    catalog.write_catalog(cache, "20261121-0100", rows)
    (folder / "answers").mkdir()
    lines = [
        json.dumps(row | {"status": "answered", "answers": _answers(row["answer"]),
                          "truth": row["answer"], "correct": row["answer"] != "right"})
        for plan in chosen for row in question_rows(plan)
    ]  # fmt: skip
    (folder / "answers" / "answers-00000-of-00001.jsonl").write_text("\n".join(lines) + "\n")
    (folder / "model").mkdir()
    history = [
        {"model": model, "epoch": epoch, "loss": 1 / epoch, "val_accuracy": epoch / 5}
        for model in ("lstm", "order_blind") for epoch in range(1, 5)
    ]  # fmt: skip
    (folder / "model" / "history.jsonl").write_text("\n".join(map(json.dumps, history)))
    return folder


def _answers(truth: str) -> list[dict[str, Any]]:
    return [{"answer": truth, "probability": 0.9}, {"answer": "<b>no</b>", "probability": 0.1}]


def _result(out: Path, weights: str = "random:0") -> DemoResult:
    score = {"by_type": {"direction": {"accuracy": 0.97, "judged": 30}}}
    video = next(iter(sorted((out / "clips").iterdir())))
    return DemoResult(
        metrics=score | {"baselines": {"order_blind": score, "majority": score}},
        asked={"video": str(video), "question": "what <is> it?", "answers": _answers("loading"),
               "truth": "loading"},
        weights=weights,
        seconds={"extract": 12.3},
        commands=["framebank extract a & b", "framebank ask x"],
    )  # fmt: skip


class _Reader(html.parser.HTMLParser):
    """Collects the addresses and checks that tags are closed in order."""

    VOID = ("meta", "img", "br", "link")

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.sources: list[str] = []
        self.alts = 0

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        fields = dict(attrs)
        self.sources += [fields[name] or "" for name in ("src", "href") if name in fields]
        self.alts += tag == "img" and bool(fields.get("alt"))
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag


def test_page_is_whole_and_needs_no_network(out: Path) -> None:
    page = write_page(out, _result(out))
    text = page.read_text("utf-8")
    reader = _Reader()
    reader.feed(text)
    assert reader.open == []
    clips = [source for source in reader.sources if not source.startswith("data:image/jpeg")]
    assert clips and all((out / clip.partition("#")[0]).is_file() for clip in clips)
    assert "http" not in text and "url(" not in text and "@import" not in text
    strips = [source for source in reader.sources if source.startswith("data:")]
    assert len(strips) == reader.alts == 5  # four held out, one asked
    assert not [path for path in out.iterdir() if path.name.endswith((".part", ".tmp"))]


def test_page_says_what_was_answered(out: Path) -> None:
    text = write_page(out, _result(out)).read_text("utf-8")
    assert "97%" in text and "Random weights." in text and "random:0" in text
    assert "&lt;b&gt;no&lt;/b&gt;" in text and "<b>no" not in text
    assert "what &lt;is&gt; it?" in text and "extract a &amp; b" in text
    assert "✓ correct" in text and "All 4 held-out films" in text
    rows = [json.loads(line) for line in (out / "questions.jsonl").read_text().splitlines()]
    trained = {row["video_id"] for row in rows if row["split"] == "train"}
    assert trained and not any(video_id in text for video_id in trained)
    assert "Random weights." not in write_page(out, _result(out, "imagenet")).read_text("utf-8")


def test_page_that_cannot_be_written_is_told(out: Path) -> None:
    (out / "index.html").unlink(missing_ok=True)
    (out / "index.html").mkdir()
    try:
        with pytest.raises(FramebankError, match="cannot write"):
            write_page(out, _result(out))
    finally:
        (out / "index.html").rmdir()


def test_strip_shows_the_frames_in_order(out: Path) -> None:
    clip = next(iter(sorted((out / "clips").iterdir())))
    address = frame_strip(clip, [0, 10, 10, 30])
    jpeg = base64.b64decode(address.removeprefix("data:image/jpeg;base64,"))
    path = out.parent / "strip.jpg"
    path.write_bytes(jpeg)
    with av.open(str(path)) as container:
        pixels = next(container.decode(video=0)).to_ndarray(format="rgb24").astype(float)
    parts = np.split(pixels, 4, axis=1)
    assert pixels.shape[0] == 72
    assert np.abs(parts[1] - parts[2]).mean() < 2 < np.abs(parts[0] - parts[3]).mean()


def test_a_browser_shows_it_whole(out: Path) -> None:
    browser = find_chromium()
    if browser is None:
        pytest.skip("no Chromium on PATH to open the page in")
    page = write_page(out, _result(out))
    with open_page(browser) as tab:
        for width, dark in ((390, False), (1280, True)):
            tab.show(page.as_uri(), width=width, dark=dark)
            assert tab.evaluate(FAULTS) == [] == tab.violations()
            cut = "(one => one.scrollWidth > one.clientWidth)(document.querySelector('pre'))"
            assert not tab.evaluate(cut)  # no answer
            assert tab.evaluate("document.querySelectorAll('svg.chart').length") == 2
        assert tab.problems == []
        shown = "[...document.querySelectorAll('.pair')].filter(one => !one.hidden).length"
        for scene, count in (("truck", 1), ("", 2)):
            tab.evaluate(f"document.querySelector('[data-filter=\"{scene}\"]').click()")
            assert tab.evaluate(shown) == count
