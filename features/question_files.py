"""The rows of question files, whatever their format: where each stands, and its columns.

`.csv` and `.tsv` (comma, semicolon or tab, seen from the header), `.jsonl`, and `.json` with a list
of objects; UTF-8, with or without a byte order mark. Column names lose their case.
"""

from __future__ import annotations

import codecs
import csv
import io
import json
from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import Any

from features.errors import UsageError

SUFFIXES = (".csv", ".tsv", ".jsonl", ".json")
EXPECTED = "columns video_id (or video), question, answer, and optionally split, type, question_id"

Row = tuple[str, dict[str, Any]]  # where it stands ("line 7"), column → value


def read_rows(path: str) -> Iterator[Row]:
    """Yield the rows of the question file at `path`; raises UsageError when it cannot be read."""
    text = _read_text(path)
    suffix = PurePosixPath(path).suffix.lower()
    if not text.strip():
        raise UsageError(f"{path} is empty", expected=EXPECTED)
    if suffix == ".json":
        return _read_json(path, text)
    return _read_jsonl(path, text) if suffix == ".jsonl" else _read_csv(path, text)


def _read_text(path: str) -> str:
    suffix = PurePosixPath(path).suffix.lower()
    if suffix not in SUFFIXES:
        raise UsageError(
            "this kind of question file is not known", got=path, expected=" ".join(SUFFIXES)
        )
    data = _read_bytes(path)
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as err:
        line = data.count(b"\n", 0, err.start) + 1
        raise UsageError(
            f"{path} is not UTF-8 text",
            got=f"byte 0x{data[err.start]:02x} in line {line}",
            todo=f"save it as UTF-8 (for example: iconv -f {_likely_encoding(data)} -t utf-8)",
        ) from err


def _likely_encoding(data: bytes) -> str:
    return "utf-16" if data.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)) else "latin1"


def _read_bytes(path: str) -> bytes:
    if "://" in path:
        from features import storage

        try:
            return storage.read_bytes(path)
        except storage.FileMissingError as err:
            raise UsageError("no such question file", got=path, todo="check --questions") from err
    try:
        return Path(path).read_bytes()
    except FileNotFoundError as err:
        raise UsageError("no such question file", got=path, todo="check --questions") from err
    except OSError as err:
        raise UsageError(f"cannot read {path}", got=err.strerror, todo="check --questions") from err


def _read_json(path: str, text: str) -> Iterator[Row]:
    rows = _parse_json(text, path, first_line=1)
    if not isinstance(rows, list):
        raise UsageError(
            f"{path} is not a list of questions",
            got=f"a JSON {type(rows).__name__} at the top",
            expected='[{"video_id": ..., "question": ..., "answer": ...}, ...]',
        )
    for number, fields in enumerate(rows, start=1):
        yield f"entry {number}", _as_fields(path, f"entry {number}", fields)


def _read_jsonl(path: str, text: str) -> Iterator[Row]:
    # Not splitlines(): that also cuts at characters that are legal inside a JSON string.
    for number, line in enumerate(text.split("\n"), start=1):
        if line.strip():
            fields = _parse_json(line, path, first_line=number)
            yield f"line {number}", _as_fields(path, f"line {number}", fields)


def _parse_json(text: str, path: str, *, first_line: int) -> Any:
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as err:  # ValueError: also a number of 5000 digits
        line = first_line + getattr(err, "lineno", 1) - 1
        deep = isinstance(err, RecursionError)
        said = "nested too deeply" if deep else getattr(err, "msg", "a number that is too long")
        got = f"{said} in line {line}, column {getattr(err, 'colno', 1)}"
        raise UsageError(f"{path} is not valid JSON", got=got) from err


def _as_fields(path: str, where: str, fields: Any) -> dict[str, Any]:
    if not isinstance(fields, dict):
        got = f"a JSON {type(fields).__name__} in {where}"
        raise UsageError(f"{path} holds something that is no question", got=got, expected=EXPECTED)
    return {str(name).strip().lower(): value for name, value in fields.items()}


def _read_csv(path: str, text: str) -> Iterator[Row]:
    header = text.lstrip().split("\n", 1)[0]
    # TGIF-QA's files are called .csv and separated by tabs: the header tells.
    delimiter = max("\t,;", key=header.count)
    reader = csv.DictReader(io.StringIO(text, newline=""), delimiter=delimiter)
    try:
        for fields in reader:
            if any(fields.get(None) or []):  # type: ignore[call-overload]
                raise UsageError(
                    f"{path} has a row with more cells than the header has columns",
                    got=f"line {reader.line_num}",
                    expected=f"{len(reader.fieldnames or [])} cells, separated by {delimiter!r}",
                    todo="put text that holds the separator into double quotes",
                )
            named = {str(name).strip().lower(): value for name, value in fields.items() if name}
            if any(named.values()):
                yield f"line {reader.line_num}", named
    except csv.Error as err:
        raise UsageError(f"{path} is not valid CSV", got=f"{err}, line {reader.line_num}") from err
