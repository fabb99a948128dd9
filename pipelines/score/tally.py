"""What a scoring came to: counts over answer rows, and figures by split and by type.

A figure over rows that the model learnt from flatters it, so the headline is about one split: test
where there is one.
"""

from __future__ import annotations

import collections
import dataclasses
from collections.abc import Iterable, Mapping
from typing import Any

from framebank.features.asking.scores import Score, share

STATUSES = ("answered", "not_in_cache", "quarantined", "other_kind", "not_a_question", "failed")
SPLITS = ("test", "val", "train")  # the first of which there is something is the headline's
NO_WORDS = "the model knows none of the words of the question"  # a reason of an answered row
NO_SPLIT = "none"  # of rows of which it is not known what the model has learnt of them
ALL = "all"


@dataclasses.dataclass(frozen=True)
class Tally:
    """Counts over answer rows. Laws: Tally() is that of none; a + b is that of both together.

    `scores` are by split, of the rows that were answered and whose true answer is known.
    `without_words` counts the questions that were answered though the model knows no word of them.
    """

    statuses: Mapping[str, int] = dataclasses.field(default_factory=dict)
    without_truth: int = 0
    scores: Mapping[str, Score] = dataclasses.field(default_factory=dict)
    without_words: int = 0

    @classmethod
    def of(cls, rows: Iterable[dict[str, Any]]) -> Tally:
        """Return the counts over `rows`, in time that grows with them alone."""
        statuses: collections.Counter[str] = collections.Counter()
        judged: dict[str, list[tuple[str, bool, float | None]]] = {}
        without_truth = without_words = 0
        for row in rows:
            statuses[row["status"]] += 1
            without_truth += row["truth"] is None
            without_words += row.get("reason") == NO_WORDS
            if row["correct"] is None:
                continue
            answers, error = row.get("answers"), None
            if answers and answers[0].get("number") is not None:
                error = (float(answers[0]["answer"]) - float(row["truth"])) ** 2
            of_split = judged.setdefault(row["split"] or NO_SPLIT, [])
            of_split.append((row["type"], bool(row["correct"]), error))
        scores = {split: Score.count(its) for split, its in judged.items()}
        return cls(dict(statuses), without_truth, scores, without_words)

    def __add__(self, other: Tally) -> Tally:
        statuses = collections.Counter(self.statuses) + collections.Counter(other.statuses)
        scores = dict(self.scores)
        for split, score in other.scores.items():
            scores[split] = scores.get(split, Score()) + score
        without_truth = self.without_truth + other.without_truth
        without_words = self.without_words + other.without_words
        return Tally(dict(statuses), without_truth, scores, without_words)

    def to_json(self, *, split: str | None = None) -> dict[str, Any]:
        """Return the counts and the figures, with the headline of `split` (`with_headline`)."""
        splits = [name for name in (*SPLITS, NO_SPLIT) if name in self.scores]
        figures = {
            "questions": sum(self.statuses.values()),
            **{status: self.statuses.get(status, 0) for status in STATUSES},
            "without_truth": self.without_truth,
            "without_known_words": self.without_words,
            "by_split": {name: _figures(self.scores[name]) for name in splits},
            ALL: _figures(sum((self.scores[name] for name in splits), Score())),
        }
        return with_headline(figures, split)


def _figures(score: Score) -> dict[str, Any]:
    """Return the figures of a score, in all and by type."""
    error = score.mean_square_error
    return {
        **share(score.judged, score.correct),
        "measure": "accuracy" if error is None else "mean square error",
        **({} if error is None else {"mean_square_error": error}),
        "by_type": {name: share(*counts) for name, counts in sorted(score.by_type.items())},
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


_NOTHING = _figures(Score())
_HEADLINE = ("split", *_NOTHING, "mean_square_error")
