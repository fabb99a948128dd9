"""What a scoring came to: counts over answer rows, and figures by split and by type.

A figure over rows that the model learnt from flatters it, so the headline is about one split: test
where there is one.
"""

from __future__ import annotations

import collections
import dataclasses
from collections.abc import Container, Mapping, Sequence
from typing import Any

from framebank.features.asking.scores import Score, add_up

STATUSES = ("answered", "not_in_cache", "quarantined", "other_kind", "not_a_question", "failed")
SPLITS = ("test", "val", "train")  # the first of which there is something is the headline's
NO_WORDS = "the model knows none of the words of the question"  # a reason of an answered row
NO_SPLIT = "none"  # of rows of which it is not known what the model has learnt of them
ALL = "all"


@dataclasses.dataclass(frozen=True)
class Tally:
    """Counts over answer rows. Laws: Tally() is that of none; a + b is that of both together.

    `scores` are by (split, type), of the rows that were answered and whose true answer is known.
    `without_words` counts the questions that were answered though the model knows no word of them.
    """

    statuses: Mapping[str, int] = dataclasses.field(default_factory=dict)
    without_truth: int = 0
    scores: Mapping[tuple[str, str], Score] = dataclasses.field(default_factory=dict)
    without_words: int = 0

    @classmethod
    def of(cls, rows: Sequence[dict[str, Any]]) -> Tally:
        """Return the counts over `rows`, in time that grows with them alone."""
        return cls(
            dict(collections.Counter(row["status"] for row in rows)),
            sum(row["truth"] is None for row in rows),
            add_up(_judged(row) for row in rows if row["correct"] is not None),
            sum(row.get("reason") == NO_WORDS for row in rows),
        )

    def __add__(self, other: Tally) -> Tally:
        statuses = collections.Counter(self.statuses) + collections.Counter(other.statuses)
        return Tally(
            dict(statuses),
            self.without_truth + other.without_truth,
            add_up([*self.scores.items(), *other.scores.items()]),
            self.without_words + other.without_words,
        )

    def to_json(self, *, split: str | None = None) -> dict[str, Any]:
        """Return the counts and the figures, with the headline of `split` (`with_headline`)."""
        there = {name for name, _ in self.scores}
        splits = [name for name in (*SPLITS, NO_SPLIT) if name in there]
        figures = {
            "questions": sum(self.statuses.values()),
            **{status: self.statuses.get(status, 0) for status in STATUSES},
            "without_truth": self.without_truth,
            "without_known_words": self.without_words,
            "by_split": {name: self._figures({name}) for name in splits},
            ALL: self._figures(there),
        }
        return with_headline(figures, split)

    def _figures(self, splits: Container[str]) -> dict[str, Any]:
        its = ((kind, one) for (name, kind), one in self.scores.items() if name in splits)
        by_type = add_up(its)
        whole = sum(by_type.values(), Score())
        return {
            **whole.to_json(),
            "measure": whole.measure,
            **whole.error_json(),
            **whole.credit_json(),
            "by_type": {
                kind: one.to_json() | one.credit_json() for kind, one in sorted(by_type.items())
            },
        }


def _judged(row: dict[str, Any]) -> tuple[tuple[str, str], Score]:
    answers, error = row.get("answers"), None
    if answers and answers[0].get("number") is not None:
        error = (float(answers[0]["answer"]) - float(row["truth"])) ** 2
    score = Score(1, int(row["correct"]), error, row.get("vqa_accuracy"))
    return (row["split"] or NO_SPLIT, row["type"]), score


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


_NOTHING = Tally()._figures(())
_HEADLINE = ("split", *_NOTHING, "mean_square_error", "vqa_accuracy")
