"""The folder of answers: its files of rows, and what of an earlier run is kept or done again.

A file of rows is JSON lines or Parquet with the same fields, written whole or not at all. All texts
are Unicode: for half a surrogate pair, which a question file may hold, stands the text of its
escape.
"""

from __future__ import annotations

import functools
import json
import re
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from framebank.features.errors import JobError, UsageError
from framebank.features.stores import json_text, storage
from framebank.features.terminal import say
from framebank.features.video import catalog_text
from framebank.pipelines.score.tally import ALL, Tally

if TYPE_CHECKING:
    import pyarrow as pa

    from framebank.pipelines.score.plan import ScorePlan

KINDS = ("jsonl", "parquet")
_ROWS = 1000  # of a Parquet file that are made at a time
_OURS = re.compile(
    r"(answers-\d+-of-\d+\.(?:jsonl|parquet)|_plan-\d+\.json|_summary\.json|_run\.json"
    r"|_submission\.json)"
)


def answers_path(out: str, output: int, outputs: int, *, kind: str) -> str:
    """Return the path of one file; its ending is the `kind`."""
    return storage.join(out, f"answers-{output:05d}-of-{outputs:05d}.{kind}")


def plain(value: Any) -> Any:
    """Return a JSON value whose texts are Unicode."""
    if isinstance(value, str):
        return catalog_text(value)
    if isinstance(value, dict):
        return {name: plain(item) for name, item in value.items()}
    return [plain(item) for item in value] if isinstance(value, list) else value


@functools.cache
def _schema(*, credited: bool, segments: bool) -> pa.Schema:
    import pyarrow as pa

    texts = ("video_id", "question_id", "question", "type", "split", "status", "reason")
    answer = pa.struct(
        [("answer", pa.string()), ("probability", pa.float64()), ("number", pa.float64())]
    )
    more = [("answers", pa.list_(answer)), ("truth", pa.string()), ("correct", pa.bool_())]
    if credited:  # of answers that several people gave
        more.append(("vqa_accuracy", pa.float64()))
    if segments:
        span = [("start_s", pa.float64()), ("end_s", pa.float64()), ("label", pa.string())]
        more += [
            ("segments", pa.list_(pa.struct([*span, ("score", pa.float64())]))),
            ("true_segments", pa.list_(pa.struct(span))),
        ]
    return pa.schema([*((name, pa.string()) for name in texts), *more])


def write_answers(path: str, rows: Sequence[dict[str, Any]], *, kind: str) -> None:
    """Write rows of plain texts; raises JobError, UsageError."""
    if kind == "jsonl":
        lines = (json.dumps(row, ensure_ascii=False).encode() + b"\n" for row in rows)
        storage.write_atomic(path, lines)
        return
    import pyarrow as pa
    import pyarrow.parquet as pq

    columns = {name for row in rows for name in row}
    schema = _schema(credited="vqa_accuracy" in columns, segments="segments" in columns)
    with (
        storage.open_atomic(path) as file,
        pq.ParquetWriter(file, schema, compression="zstd", write_page_checksum=True) as writer,
    ):
        for start in range(0, len(rows), _ROWS):
            writer.write_table(pa.Table.from_pylist(rows[start : start + _ROWS], schema=schema))


def read_answers(path: str, *, kind: str) -> list[dict[str, Any]] | None:
    """Return the rows of a file, None where it is damaged or not there."""
    from framebank.features.stores.parquet import open_parquet

    try:
        data = storage.read_bytes(path)
        if kind == "jsonl":
            return [dict(json_text.parse(line)) for line in data.splitlines()]
        file = open_parquet(data, page_checksum_verification=True)
        return [row for batch in file.iter_batches(_ROWS) for row in batch.to_pylist()]
    except (storage.FileMissingError, ValueError, OSError):  # of Arrow and of JSON too
        return None


def prepare_out(out: str, about: dict[str, Any], *, overwrite: bool) -> dict[str, Any] | None:
    """Clear OUT of an earlier run of this command; returns its summary when all is done already.

    Answers of a run of the same key stay, unless `overwrite`, and so do files that are not ours.
    Raises UsageError where OUT holds answers to something else.
    """
    names = [file.path.rsplit("/", 1)[-1] for file in storage.list_files(out)]
    for name in filter(storage.is_leftover, names):  # of a run that was killed
        storage.delete(storage.join(out, name))
    ours = [name for name in names if _OURS.fullmatch(name)]
    if ours:
        before = _read(out, "_run.json").get("key")
        summary = _read(out, "_summary.json")
        whole = summary.get("failed") == 0 and ALL in summary  # those of 0.1 lack figures
        if before == about["key"] and whole and not overwrite:
            return summary
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
    return None


def _read(out: str, name: str) -> dict[str, Any]:
    """Return the fields of a file of OUT, none where it is damaged or not there."""
    try:
        return json_text.parse_object(storage.read_bytes(storage.join(out, name)))
    except (storage.FileMissingError, ValueError):
        return {}


def find_kept(out: str, plan: ScorePlan, *, kind: str) -> tuple[dict[int, Tally], int]:
    """Return the answers files of an earlier run, each with the tally of its rows.

    Their rows are held against the plan. Files with rows that failed are left out, and counted:
    what they failed of may be mended.
    """
    kept, failed = {}, 0
    there = {found.path.rsplit("/", 1)[-1] for found in storage.iter_files(out)}
    for output, file in enumerate(plan.files):
        name = answers_path("", output, len(plan.files), kind=kind)
        rows = read_answers(storage.join(out, name), kind=kind) if name in there else None
        if rows is None:
            continue
        wanted = [catalog_text(text) for text in file.question_ids()]
        if [catalog_text(str(row.get("question_id"))) for row in rows] != wanted:
            continue
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
