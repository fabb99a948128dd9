"""train.data.splits: as given, else by video, never two sides."""

from __future__ import annotations

import dataclasses

import pytest

from framebank.features.errors import UsageError
from framebank.features.questions.question import Question
from framebank.features.questions.seen_videos import Seen
from framebank.features.questions.splits import SplitRule, join_files, split_of_name
from framebank.train.data.splits import assign_splits, splits_of


def ask(videos: list[str], split: str | None = None) -> list[Question]:
    return [Question(f"{v}{n}", v, "q", "a", split) for v in videos for n in range(2)]


def sides(splits) -> dict[str, set[str]]:  # type: ignore[no-untyped-def]
    return {name: {q.video_id for q in splits.of(name)} for name in ("train", "val", "test")}


def test_split_by_video_is_stable_and_about_80_10_10() -> None:
    videos = [f"v{n}" for n in range(500)]
    found = sides(assign_splits(ask(videos), seed=1))
    assert not found["train"] & found["val"] and not found["train"] & found["test"]
    assert 370 < len(found["train"]) < 430 and 30 < len(found["val"]) < 70
    more = sides(assign_splits(ask([*videos, "new"]), seed=1))
    assert all(found[name] <= more[name] for name in found)
    assert sides(assign_splits(ask(videos), seed=2)) != found


@pytest.mark.parametrize("count", [3, 4, 9, 20])
def test_few_videos_leave_no_split_empty(count: int) -> None:
    found = sides(assign_splits(ask([f"v{n}" for n in range(count)]), seed=0))
    assert all(found.values())


def test_given_splits_stay_and_val_is_carved_from_train() -> None:
    train, test = [f"v{n}" for n in range(20)], ["t1", "t2"]
    splits = assign_splits([*ask(train, "train"), *ask(test, "test")], seed=0)
    found = sides(splits)
    assert found["test"] == set(test) and len(found["val"]) == 2 and len(found["train"]) == 18
    assert any("became val" in remark for remark in splits.remarks)
    assert splits.judged_on == "test"


def test_however_large_the_share_one_video_is_left_to_train_on() -> None:
    for rows in (ask(["a", "b", "c"], "train"), ask(["a", "b", "c", "d"]), ask(["a", "b"])):
        splits = assign_splits(rows, seed=0, val_share=0.99)
        assert splits.train and splits.val


def test_rows_without_split_follow_their_video() -> None:
    splits = assign_splits(
        [*ask(["a", "b", "c"], "train"), *ask(["a"]), *ask(["z"], "val")], seed=0
    )
    assert [q.video_id for q in splits.train].count("a") == 4
    assert splits.judged_on == "val" and splits.stopped_on == "val"


def test_one_video_trains_without_val() -> None:
    splits = assign_splits(ask(["a"], "train"), seed=0)
    assert splits.judged_on == splits.stopped_on == "train"


def test_a_leak_is_told_loudly_and_nothing_to_train_on_is_an_error() -> None:
    leaky = [*ask(["a", "b"], "train"), *ask(["a"], "test"), *ask(["c"], "val")]
    assert any(r.startswith("WARNING: 1 videos") for r in assign_splits(leaky, seed=0).remarks)
    with pytest.raises(UsageError, match="nothing to train on"):
        assign_splits(ask(["a"], "test"), seed=0)
    assert splits_of(ask(["a"], "test"), seed=0).judged_on == "test"


def test_what_a_model_has_seen_splits_what_the_files_do_not() -> None:
    videos = [f"v{n}" for n in range(100)]
    as_trained = sides(assign_splits(ask(videos), seed=3))
    seen = Seen(frozenset(as_trained["train"] | as_trained["val"]))
    assert sides(splits_of(ask(videos), seed=3, seen=seen)) == as_trained
    # Clips that came later, also a copy of one that was seen; what a file states stands.
    more = [*videos, "new1", "new2", "copy"]
    seen = Seen(seen.videos, frozenset(["hash"]))
    rows = [*ask(more), *ask(["said"], "train")]
    found = sides(splits_of(rows, seed=3, seen=seen, contents={"copy": "hash"}))
    assert found["test"] == as_trained["test"] | {"new1", "new2"}
    assert "copy" in found["train"] | found["val"] and "said" in found["train"]


def test_a_model_is_not_judged_on_what_it_has_seen() -> None:
    stated = [*ask(["a", "b"], "train"), *ask(["v"], "val"), *ask(["x", "y"], "test")]

    def asked(seen: str, questions: list[Question]) -> tuple[dict[str, set[str]], bool]:
        splits = splits_of(questions, seed=0, seen=Seen(frozenset(seen)), judges=True)
        return sides(splits), splits.changed

    as_files_say = {"train": {"a", "b"}, "val": {"v"}, "test": {"x", "y"}}
    assert asked("abv", stated) == (as_files_say, False)
    assert asked("", stated) == (as_files_say, False)  # of other files
    assert asked("abx", stated) == (
        {"train": {"a", "b", "x"}, "val": set(), "test": {"v", "y"}},
        True,
    )
    assert asked("a", stated[:6])[0] == {"train": {"a"}, "val": set(), "test": {"b", "v"}}
    assert asked("abv", stated[:6])[1] is False  # nothing to judge on
    assert asked("abvxy", stated) == ({"train": set("abxy"), "val": {"v"}, "test": set()}, True)
    both = [*stated, *ask(["a"], "test")]  # as the files have it: that is told as a leak
    assert asked("abv", both) == (as_files_say | {"test": {"a", "x", "y"}}, False)
    kept = splits_of(stated, seed=0, seen=Seen(frozenset("abx")))  # `evaluate --split test`
    assert sides(kept) == as_files_say


@pytest.mark.parametrize(
    ("names", "to_train", "splits"),
    [
        ("train_q.csv val_q.csv q.csv", True, ["train", "val", None]),
        ("q.csv test_q.csv", True, [None, "test"]),
        ("val_q.csv test_q.csv", True, [None, None]),  # nothing would be left to train on
        ("val_q.csv test_q.csv", False, ["val", "test"]),
        ("train.csv", True, [None]),
        ("test.csv", False, ["test"]),
    ],
)
def test_names_of_files_count_where_they_leave_some_to_train_on(
    names: str, to_train: bool, splits: list[str | None]
) -> None:
    files = [(name, ask([name])[:1]) for name in names.split()]
    assert [q.split for q in join_files(files, to_train=to_train)] == splits
    stated = [(name, [*ask(["b"], "train"), *rows]) for name, rows in files]
    assert {q.split for q in join_files(stated, to_train=to_train) if q.video_id == "b"} == {
        "train"
    }


@pytest.mark.parametrize(
    ("name", "split"),
    [
        ("x/train_qa.json", "train"),
        ("val/q.csv", None),
        ("Test_count_question.csv", "test"),
        ("q-dev2.csv", "val"),
        ("train_val.csv", None),
        ("trainer.csv", None),
    ],
)
def test_a_file_may_be_named_for_a_split(name: str, split: str | None) -> None:
    assert split_of_name(name) == split


def clips(*groups: str | None, split: str | None = None) -> list[Question]:
    return [
        Question(str(n), f"clip{n}.mp4", "?", "a", split=split, group=group)
        for n, group in enumerate(groups)
    ]


def test_a_group_has_one_split_whoever_names_it() -> None:
    asked = clips(*(f"g{n % 12}" for n in range(48)))
    splits = assign_splits(asked, seed=0)
    by_pattern = [dataclasses.replace(q, video_id=f"{q.group}_{q.video_id}") for q in asked]
    by_pattern = [dataclasses.replace(q, group=None) for q in by_pattern]
    for found in (splits, assign_splits(by_pattern, seed=0, group_by=r"^(g\d+)_")):
        sides = {name: {q.group for q in found.of(name)} for name in ("train", "val", "test")}
        assert all(sides.values()) and sum(map(len, sides.values())) == 12
    assert not any("WARNING" in remark for remark in splits.remarks)
    *_, warned = assign_splits(by_pattern, seed=0).remarks
    assert "48 clips of 12 sources" in warned and "--group-by" in warned


def test_the_rows_of_a_video_have_one_group() -> None:
    asked = [*clips("g", "g", "h", "h"), *clips(None, None, None, "h")]
    grouped = SplitRule().grouped(asked)
    assert [question.group for question in grouped] == ["g", "g", "h", "h"] * 2
    with pytest.raises(UsageError, match=r"a video has two groups[\s\S]*'g' and 'x' for clip0"):
        assign_splits([*asked, *clips("x")], seed=0)


def test_files_that_cut_a_group_are_not_learnt_from() -> None:
    asked = [*clips("g", "g", "h", split="train"), *clips("g", "g", "h", "k", split="test")[3:]]
    assert assign_splits(asked, seed=0).train
    cut = [*clips("g", "h", split="train"), Question("9", "other", "?", "a", "test", group="g")]
    with pytest.raises(UsageError, match=r"both sides of a split[\s\S]*g \(1 in all\)"):
        assign_splits(cut, seed=0)
    [warned, *_] = splits_of(cut, seed=0, val_share=0).remarks
    assert "WARNING: clips of one group stand on both sides of a split (g, 1 in all)" in warned


def test_a_pattern_that_finds_no_group_is_told() -> None:
    assert assign_splits(clips(None, None, None), seed=0, group_by=r"clip[01]").train
    with pytest.raises(UsageError, match=r"no group in any video's id[\s\S]*clip0.mp4, clip1"):
        assign_splits(clips(None, None, None), seed=0, group_by=r"_g(\d+)_")
