"""The rows of question files, whatever their format: where each stands, and its columns.

CSV (comma, semicolon or tab), JSON lines, or JSON with a list of objects, as the content tells (of
VQA's documents it is the list of `questions` or `annotations`, each of which has what is said of
all); a folder with a folder per class reads as a file of labels. Column names lose their case,
numbers stay as they are written. A row that alone cannot be read costs no other one; where a file
stops being one (quotes that do not close, a last line cut short), all of it is refused.
"""

from __future__ import annotations

import collections
import dataclasses
import functools
import itertools
import json
import sys
from collections.abc import Iterator, Sequence
from typing import Any

from framebank.features.errors import UsageError
from framebank.features.questions.splits import SPLIT_NAMES
from framebank.features.stores import json_text, storage, tables
from framebank.features.stores.disk import bytes_sha256
from framebank.features.video import without_suffix

EXPECTED = (
    "columns video_id (or video), question, answer (or a label for each video, or start_s, end_s "
    "and label for each segment), and optionally split, group, type, question_id"
)

NOTHING = "background"  # the label of a stretch, or a video, in which nothing happens
_PEEKED = 20
_LISTS = ("questions", "annotations")  # of VQA's documents
_OF_ALL = ("data_type", "data_subtype")  # which their rows share
_PERSON = {"answer", "answer_confidence", "answer_id"}  # what VQA keeps of a person's answer


@dataclasses.dataclass(frozen=True)
class QuestionFiles:
    """Question files; `set_name` is one of known_sets.FORMATS (found from the content by default),
    `mapping` a file of other names for their videos."""

    paths: Sequence[str]
    set_name: str | None = None
    mapping: str | None = None


# Where it stands ("line 7"), and column → value, or what is wrong with it.
Row = tuple[str, dict[str, Any] | UsageError]


def read_rows(path: str) -> Iterator[Row]:
    """Yield the rows of the question file at `path`; raises UsageError when it cannot be read."""
    text = read_text(path)
    if not text.strip():
        raise UsageError(f"{path} is empty", expected=EXPECTED)
    start = text.lstrip()[:1]
    if start == "[" or (start == "{" and not _is_lines(text)):
        return _read_json(path, text)
    return _read_jsonl(path, text) if start == "{" else _read_csv(path, text)


def _is_lines(text: str) -> bool:
    """Return whether half of the first lines that are not empty are objects of their own; a single
    one may be a document as well."""
    first = list(itertools.islice(tables.numbered_lines(text), _PEEKED))
    return len(first) > 1 and 2 * sum(_is_object(line) for _, line in first) >= len(first)


def _is_object(line: str) -> bool:
    try:
        return isinstance(load_json(line), dict)
    except ValueError:
        return False


def read_text(path: str, *, option: str = "--questions") -> str:
    """Return the text of the file that `option` named; raises UsageError when it has none."""
    try:
        return tables.decode_text(_read_bytes(path, option))
    except tables.NotUtf8Error as err:
        todo = f"save it as UTF-8 (for example: iconv -f {err.likely} -t utf-8)"
        raise UsageError(f"{path} is not UTF-8 text", got=err, todo=todo) from err


def file_hashes(files: QuestionFiles) -> list[str]:
    """Return the SHA-256 of each question file, and last of the mapping: by it the files that a
    model was trained on are known."""
    named = [(path, "--questions") for path in files.paths]
    if files.mapping is not None:
        named.append((files.mapping, "--mapping"))
    return [bytes_sha256(_read_bytes(path, option)) for path, option in named]


def _labels(folder: str) -> bytes:
    """Return JSON lines with a label for each video below a folder per class.

    The first folder on its way is the class, after one that is named for a split; a video in no
    folder has no label.
    """
    lines = []
    for file in sorted(storage.iter_files(folder, deep=True), key=lambda file: file.path):
        name = file.path.removeprefix(storage.join(folder, ""))
        if without_suffix(name) == name or any(part.startswith(".") for part in name.split("/")):
            continue
        folders = name.split("/")[:-1]
        split = SPLIT_NAMES.get(folders[0].lower()) if len(folders) > 1 else None
        label = next(iter(folders[1:] if split else folders), "")
        lines.append(json.dumps({"video_id": name, "label": label, "split": split or ""}) + "\n")
    if not lines:
        raise UsageError(
            f"cannot read {folder}: a folder without a video",
            expected="a question file, or a folder with a folder of videos per class",
        )
    return "".join(lines).encode()


def _read_bytes(path: str, option: str) -> bytes:
    if option == "--questions" and storage.folder_exists(path):
        return _labels(path)
    missing, todo = "no such file", f"check {option}"
    if option == "--questions":
        missing, todo = "no such question file", f"check {option}, or --labels"
    try:
        return storage.read_bytes(path)
    except storage.FileMissingError as err:
        raise UsageError(missing, got=path, todo=todo) from err


def _read_json(path: str, text: str) -> Iterator[Row]:
    rows = _parse_json(text, path, first_line=1)
    if _is_database(rows):
        yield from _database_rows(path, rows["database"])
        return
    of_all: dict[str, Any] = {}
    if isinstance(rows, dict):
        named = [rows[name] for name in _LISTS if isinstance(rows.get(name), list)]
        if not named and "\n" not in text.strip():  # JSON lines of one line
            yield "line 1", _as_fields(path, "line 1", rows)
            return
        of_all = {name: rows[name] for name in _OF_ALL if name in rows}
        if isinstance(info := rows.get("info"), dict):
            of_all["version"] = info.get("version")
        rows = named[0] if len(named) == 1 else rows
    if not isinstance(rows, list):
        raise UsageError(
            f"{path} is not a list of questions",
            got=f"a JSON {type(rows).__name__} at the top",
            expected='[{"video_id": ..., "question": ..., "answer": ...}, ...]',
        )
    for number, fields in enumerate(rows, start=1):
        rows[number - 1] = None  # a row is freed when it has been read
        read = _as_fields(path, f"entry {number}", fields)
        yield f"entry {number}", read if isinstance(read, UsageError) else {**of_all, **read}


def _is_database(value: Any) -> bool:
    """Return whether a JSON value is a file of ActivityNet's segments."""
    return isinstance(value, dict) and isinstance(value.get("database"), dict)


def _database_rows(path: str, videos: dict[str, Any]) -> Iterator[Row]:
    """Yield a row for each segment of ActivityNet's database, which is emptied on the way.

    What happens in a video of the test subset without annotations is not known; in another one it
    is nothing.
    """
    for video_id in list(videos):
        about, where = videos.pop(video_id), f"video {video_id!r}"
        listed = about.get("annotations", []) if isinstance(about, dict) else None
        if not isinstance(listed, list):
            got = f"{where}, whose annotations are no list"
            error = UsageError(f"{path} has a video that cannot be read", got=got)
            yield where, error
            continue
        subset = about.get("subset")
        row = {"video_id": video_id, "subset": subset}
        if not listed:
            unknown = SPLIT_NAMES.get(str(subset).lower()) == "test"
            yield where, row | {"label": None if unknown else NOTHING}
        for number, one in enumerate(listed, start=1):
            at = f"{where}, annotation {number}"
            span = one.get("segment") if isinstance(one, dict) else None
            if not isinstance(span, list) or len(span) != 2:
                error = UsageError(
                    f"{path} has an annotation without its segment",
                    got=at,
                    expected='{"segment": [start, end], "label": "..."}, in seconds',
                )
                yield at, error
                continue
            yield at, row | {"start_s": span[0], "end_s": span[1], "label": one.get("label")}


def _read_jsonl(path: str, text: str) -> Iterator[Row]:
    for number, line in tables.numbered_lines(text):
        where = f"line {number}"
        try:
            fields = _parse_json(line, path, first_line=number)
        except UsageError as err:
            if not line.endswith("\n"):  # cut short: nobody knows what else is missing
                raise
            yield where, err
        else:
            if number == 1 and _is_database(fields):  # written without a line break
                yield from _database_rows(path, fields["database"])
                continue
            yield where, _as_fields(path, where, fields)


class RepeatedNames(dict[str, Any]):
    """A JSON object that has a name twice; `names` are all of them."""

    names: Sequence[str] = ()


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any] | str:
    fields = dict(pairs)
    if fields.keys() == _PERSON and isinstance(said := fields["answer"], str):
        return sys.intern(said)  # of millions; a dict of each would take gigabytes
    if len(fields) < len(pairs):
        fields = RepeatedNames(fields)
        fields.names = [name for name, _ in pairs]
    return fields


def _constant(name: str) -> str | None:
    return None if name == "NaN" else name  # NaN is how pandas writes an empty cell


def load_json(text: str) -> Any:
    """Return a JSON value; fractions are text, as they are written. Raises ValueError."""
    return json_text.parse(
        text, parse_float=str, parse_constant=_constant, object_pairs_hook=_object
    )


def _parse_json(text: str, path: str, *, first_line: int) -> Any:
    try:
        return load_json(text)
    except ValueError as err:
        line = first_line + getattr(err, "lineno", 1) - 1
        said = getattr(err, "msg", str(err))
        got = f"{said} in line {line}, column {getattr(err, 'colno', 1)}"
        raise UsageError(f"{path} is not valid JSON", got=got) from err


def _as_fields(path: str, where: str, fields: Any) -> dict[str, Any] | UsageError:
    if not isinstance(fields, dict):
        got = f"a JSON {type(fields).__name__} in {where}"
        return UsageError(f"{path} holds something that is no question", got=got, expected=EXPECTED)
    named = {_column(name): value for name, value in fields.items()}
    names = fields.names if isinstance(fields, RepeatedNames) else list(fields)
    what = f"{path} has a row with two values of one name"
    error = _twice_error(what, names, f" in {where}") if len(named) < len(names) else None
    return error or named


def _twice_error(what: str, names: Sequence[str], where: str = "") -> UsageError | None:
    """Return what to say of names that stand twice; columns without a name do not count."""
    counts = collections.Counter(map(_column, names))
    twice = [name for name, count in counts.items() if name and count > 1]
    if not twice:
        return None
    return UsageError(
        what,
        got=", ".join(twice) + where,
        expected="one of each name (capitals and white space around it do not tell two apart)",
        todo="remove or rename one of them",
    )


@functools.lru_cache(maxsize=1000)  # a file has few columns and maybe a million rows
def _column(name: str) -> str:
    return name.strip().lower()


def _read_csv(path: str, text: str) -> Iterator[Row]:
    lines = text.lstrip("\r\n")
    above = text.count("\n", 0, len(text) - len(lines))
    delimiter = tables.header_delimiter(lines, "\t,;")
    rows = tables.read_csv(lines, delimiter)
    try:
        _, header = next(rows)
        if error := _twice_error(f"{path} has two columns of one name", header):
            raise error
        names = [_column(name) for name in header]
        for number, cells in rows:
            where = f"line {above + number}"
            if any(cells[len(names) :]):
                error = UsageError(
                    f"{path} has a row with more cells than the header has columns",
                    got=where,
                    expected=f"{len(names)} cells, separated by {delimiter!r}",
                    todo="put text that holds the separator into double quotes",
                )
                yield where, error
                continue
            row = dict(itertools.zip_longest(names, cells[: len(names)]))
            row.pop("", None)  # a column without a name
            if any(row.values()):
                yield where, row
    except tables.NotCsvError as err:
        raise UsageError(
            f"{path} is not valid CSV",
            got=f"{err}, in the row that starts in line {above + err.start}",
            todo="close its quotes, and write a quote within a quoted cell twice",
        ) from err
