"""What a training's model and baselines answered to each judged question: `judged.jsonl`.

With it an evaluation can say how sure a baseline's figure is, and whether the model beats it, and
trains nothing again. A line per question, in the order of the split:

    {"question_id", "video_id", "question", "truth", "answers": {"model", "order_blind", ...}}
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from framebank.features.questions.question import Question
from framebank.features.stores import json_text, storage

JUDGED_FILE = "judged.jsonl"

Said = Sequence[str | None]  # one answer per question; None is an answer that is surely wrong


def judged_text(questions: Sequence[Question], said: Mapping[str, Said]) -> str:
    """Return the lines of judged.jsonl; each of `said` has an answer per question."""
    return "".join(
        json.dumps(
            {
                **_about(question),
                "truth": question.answer,
                "answers": {name: answers[place] for name, answers in said.items()},
            },
            ensure_ascii=False,
        )
        + "\n"
        for place, question in enumerate(questions)
    )


def read_judged(model_dir: str, asked: Sequence[Question]) -> dict[str, Said]:
    """Return what was answered to `asked`; nothing where other questions, or none, were judged."""
    try:
        text = storage.read_bytes(storage.join(model_dir, JUDGED_FILE)).decode()
        rows: list[dict[str, Any]] = [json_text.parse(line) for line in text.split("\n") if line]
        # Not splitlines(): that also cuts at characters that are legal inside a JSON string.
        said = [dict(row["answers"]) for row in rows]
    except (storage.FileMissingError, ValueError, KeyError, TypeError):
        return {}  # of an older or a damaged folder: the baselines are trained again
    same = len(rows) == len(asked) and all(
        all(row.get(name) == value for name, value in _about(question).items())
        for row, question in zip(rows, asked, strict=True)
    )
    names = said[0] if same and said else {}
    return {name: [row.get(name) for row in said] for name in names}


def _about(question: Question) -> dict[str, str]:
    return {name: getattr(question, name) for name in ("question_id", "video_id", "question")}
