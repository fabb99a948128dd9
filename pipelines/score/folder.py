"""The folder of answers between two runs of `framebank score`: what is kept, what is done again."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from framebank.features.cache.catalog import catalog_text
from framebank.features.errors import JobError, UsageError
from framebank.features.stores import json_text, storage
from framebank.pipelines.score.answer_files import answers_path, read_answers
from framebank.pipelines.score.tally import ALL, Tally

if TYPE_CHECKING:
    from framebank.pipelines.score.plan import ScorePlan

_OURS = re.compile(
    r"(answers-\d+-of-\d+\.(?:jsonl|parquet)|_plan-\d+\.json|_summary\.json|_run\.json)"
)


def prepare_out(
    out: str, about: dict[str, Any], *, overwrite: bool, say: Callable[[str], None]
) -> bool:
    """Clear OUT of an earlier run of this command; returns False when all is done already.

    Answers of a run of the same key stay, unless `overwrite`; where some questions failed, not all
    is done. Raises UsageError where OUT holds answers to something else. Other files are left
    alone.
    """
    names = [file.path.rsplit("/", 1)[-1] for file in storage.list_files(out)]
    for name in filter(storage.is_leftover, names):  # of a run that was killed
        storage.delete(storage.join(out, name))
    ours = [name for name in names if _OURS.fullmatch(name)]
    if ours:
        before = _read_run_key(out)
        if before == about["key"] and "_summary.json" in ours and not overwrite and _all_well(out):
            return False
        if before != about["key"] and not overwrite:
            raise UsageError(
                f"{out} already holds answers of another run",
                got="another model, cache, question file, --top or format"
                if before
                else "no _run.json",
                todo="give another --out, or --overwrite to replace them",
            )
        if overwrite:
            say(f"replacing the answers in {out}")
        # The summary first, without it the folder is no finished run; what names the run last.
        last = {"_summary.json": 0, "_run.json": 2}
        for name in sorted(ours, key=lambda name: (last.get(name, 1), name)):
            if overwrite or not name.startswith(("answers-", "_run")):
                storage.delete(storage.join(out, name))
    storage.write_atomic(storage.join(out, "_run.json"), json.dumps(about, indent=2).encode())
    return True


def _read_run_key(out: str) -> str | None:
    try:
        return str(json_text.parse(storage.read_bytes(storage.join(out, "_run.json")))["key"])
    except (storage.FileMissingError, ValueError, KeyError, TypeError):
        return None


def _all_well(out: str) -> bool:
    """Return whether a run has ended in which no question failed."""
    try:
        summary = read_summary(out)
        return int(summary["failed"]) == 0 and ALL in summary  # which those of 0.1 did not have
    except (ValueError, KeyError, TypeError, OverflowError):
        return False


def find_kept(out: str, plan: ScorePlan, *, kind: str) -> tuple[dict[int, Tally], int]:
    """Return the answers files of an earlier run, each with the tally of its rows.

    A file has its name only when it is whole; still its rows are held against the plan, since they
    are read for the tally anyway. Those with rows that failed are left out, and counted: what they
    failed of may be mended.
    """
    kept, failed = {}, 0
    there = {file.path.rsplit("/", 1)[-1] for file in storage.iter_files(out)}
    for output in range(plan.outputs):
        path = answers_path(out, output, plan.outputs, kind=kind)
        if path.rsplit("/", 1)[-1] not in there:
            continue
        rows = read_answers(path, kind=kind)
        wanted = [catalog_text(text) for text in plan.question_ids(output)]
        if (
            rows is not None
            and [catalog_text(str(row.get("question_id"))) for row in rows] == wanted
        ):
            tally = Tally.of(rows)
            if tally.statuses.get("failed"):
                failed += 1
            else:
                kept[output] = tally
    return kept, failed


def read_summary(out: str) -> dict[str, Any]:
    """Return OUT/_summary.json; raises JobError where there is none."""
    try:
        return dict(json_text.parse(storage.read_bytes(storage.join(out, "_summary.json"))))
    except storage.FileMissingError as err:
        raise JobError(
            "the job ended without a summary", got=f"no _summary.json in {out}", todo="run it again"
        ) from err
