"""What a scoring came to: counts over answer rows, and figures by split and by type.

A figure over rows that the model learnt from flatters it, so the headline is about one split: test
where there is one.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping
from typing import Any

STATUSES = ("answered", "not_in_cache", "quarantined", "other_kind", "not_a_question", "failed")
SPLITS = ("test", "val", "train")  # the first of which there is something is the headline's
NO_WORDS = "the model knows none of the words of the question"  # a reason of an answered row
NO_SPLIT = "none"  # of rows of which it is not known what the model has learnt of them
ALL = "all"

_Parts = dict[tuple[str, str], tuple[int, int]]


@dataclasses.dataclass(frozen=True)
class Tally:
    """Counts over answer rows. Laws: Tally() is that of none; a + b is that of both together.

    `parts` maps (split, type) to (judged, correct); judged are rows that were answered and whose
    true answer is known. `squares` maps a split to (counts judged, sum of their squared errors).
    `without_words` counts the questions that were answered though the model knows no word of them.
    """

    statuses: dict[str, int] = dataclasses.field(default_factory=dict)
    without_truth: int = 0
    parts: _Parts = dataclasses.field(default_factory=dict)
    squares: dict[str, tuple[int, float]] = dataclasses.field(default_factory=dict)
    without_words: int = 0

    @classmethod
    def of(cls, rows: Iterable[dict[str, Any]]) -> Tally:
        """Return the counts over `rows`, in time that grows with them alone."""
        statuses: dict[str, int] = {}
        parts: _Parts = {}
        squares: dict[str, tuple[int, float]] = {}
        without_truth = without_words = 0
        for row in rows:
            statuses[row["status"]] = statuses.get(row["status"], 0) + 1
            without_truth += row["truth"] is None
            without_words += row.get("reason") == NO_WORDS
            if row["correct"] is None:
                continue
            split = row["split"] or NO_SPLIT
            judged, correct = parts.get((split, row["type"]), (0, 0))
            parts[split, row["type"]] = (judged + 1, correct + int(row["correct"]))
            answers = row.get("answers")
            if answers and answers[0].get("number") is not None:
                counted, error = squares.get(split, (0, 0.0))
                error += (float(answers[0]["answer"]) - float(row["truth"])) ** 2
                squares[split] = (counted + 1, error)
        return cls(statuses, without_truth, parts, squares, without_words)

    def __add__(self, other: Tally) -> Tally:
        statuses = dict(self.statuses)
        for status, count in other.statuses.items():
            statuses[status] = statuses.get(status, 0) + count
        parts, squares = dict(self.parts), dict(self.squares)
        for part, (judged, correct) in other.parts.items():
            before = parts.get(part, (0, 0))
            parts[part] = (before[0] + judged, before[1] + correct)
        for split, (counted, error) in other.squares.items():
            had = squares.get(split, (0, 0.0))
            squares[split] = (had[0] + counted, had[1] + error)
        without_truth = self.without_truth + other.without_truth
        without_words = self.without_words + other.without_words
        return Tally(statuses, without_truth, parts, squares, without_words)

    def to_json(self, *, split: str | None = None) -> dict[str, Any]:
        """Return the counts and the figures, with the headline of `split` (`with_headline`)."""
        splits = [name for name in (*SPLITS, NO_SPLIT) if any(name == one for one, _ in self.parts)]
        figures = {
            "questions": sum(self.statuses.values()),
            **{status: self.statuses.get(status, 0) for status in STATUSES},
            "without_truth": self.without_truth,
            "without_known_words": self.without_words,
            "by_split": {name: self._figures({name}) for name in splits},
            ALL: self._figures(set(splits)),
        }
        return with_headline(figures, split)

    def _figures(self, splits: set[str]) -> dict[str, Any]:
        """Return the figures over the rows of `splits`, in all and by type."""
        by_type: dict[str, tuple[int, int]] = {}
        for (split, kind), (judged, correct) in self.parts.items():
            if split in splits:
                before = by_type.get(kind, (0, 0))
                by_type[kind] = (before[0] + judged, before[1] + correct)
        counted = sum(self.squares[split][0] for split in splits & set(self.squares))
        error = sum(self.squares[split][1] for split in splits & set(self.squares))
        return {
            **_accuracy(sum(n for n, _ in by_type.values()), sum(n for _, n in by_type.values())),
            "measure": "mean square error" if counted else "accuracy",
            **({"mean_square_error": error / counted} if counted else {}),
            "by_type": {name: _accuracy(*counts) for name, counts in sorted(by_type.items())},
        }


def _accuracy(judged: int, correct: int) -> dict[str, Any]:
    """Return the counts and their ratio, None where nothing could be judged."""
    return {
        "judged": judged,
        "correct": correct,
        "accuracy": correct / judged if judged else None,
    }


def with_headline(summary: Mapping[str, Any], split: str | None) -> dict[str, Any]:
    """Return the summary with the figures of `split` ("all": of all rows) as its own.

    By default they are those of test, else of val, else of train; where it is not known of some
    rows what the model has learnt of them, those of test, else of all.
    """
    by_split = summary["by_split"]
    if split is None:
        unknown = (ALL,) if NO_SPLIT in by_split or not by_split else ()
        split = next(name for name in ("test", *unknown, *SPLITS) if name in {ALL, *by_split})
    figures = summary[ALL] if split == ALL else by_split.get(split, _NOTHING)
    rest = {name: value for name, value in summary.items() if name not in _HEADLINE}
    counts = {name: rest.pop(name) for name in ("questions", *STATUSES, "without_truth")}
    return counts | {"split": split} | figures | rest


_NOTHING = {**_accuracy(0, 0), "measure": "accuracy", "by_type": {}}
_HEADLINE = ("split", *_NOTHING, "mean_square_error")
