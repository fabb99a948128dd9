"""Tables in text that others wrote: CSV with the delimiter of its header, and lines of JSON.

What is wrong with a text is a ValueError that says where; whose table it is says the rest.
"""

from __future__ import annotations

import codecs
import csv
import io
from collections.abc import Iterator

Cells = tuple[int, list[str]]  # the line in which the row ends, and its cells


class NotUtf8Error(ValueError):
    """Bytes that are no UTF-8: the first of them, its line, and the encoding that they may be."""

    def __init__(self, data: bytes, start: int) -> None:
        self.byte, self.line = data[start], data.count(b"\n", 0, start) + 1
        utf_16 = data.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE))
        self.likely = "utf-16" if utf_16 else "latin1"
        super().__init__(f"byte 0x{self.byte:02x} in line {self.line}")


class NotCsvError(ValueError):
    """Text that is no CSV: its bad row begins in line `start` and was given up in line `line`."""

    def __init__(self, err: csv.Error, *, start: int, line: int) -> None:
        super().__init__(str(err))
        self.start, self.line = start, line


def decode_text(data: bytes) -> str:
    """Return the text of UTF-8, with or without a byte order mark; raises NotUtf8Error."""
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as err:
        raise NotUtf8Error(data, err.start) from err


def numbered_lines(text: str) -> Iterator[tuple[int, str]]:
    """Yield the lines that are not empty, each with its end and its number, from 1."""
    # Not splitlines(): that also cuts at characters that are legal inside a JSON string.
    start = number = 0
    while start < len(text):
        end = text.find("\n", start) + 1 or len(text)
        number += 1
        if (line := text[start:end]).strip():
            yield number, line
        start = end


def header_delimiter(text: str, delimiters: str) -> str:
    """Return which of `delimiters` stands most often in the first line; of equals the first."""
    # TGIF-QA's files are called .csv and separated by tabs: the header tells, not the name.
    return max(delimiters, key=text.split("\n", 1)[0].count)


def read_csv(text: str, delimiter: str) -> Iterator[Cells]:
    """Yield the rows of a CSV file, its header first, empty ones too; raises NotCsvError."""
    reader, last = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, strict=True), 0
    try:
        for cells in reader:
            last = reader.line_num
            yield last, cells
    except csv.Error as err:
        raise NotCsvError(err, start=last + 1, line=reader.line_num) from err
