"""stores.tables: rows of CSV and JSON lines with where they stand, whatever their delimiter."""

from __future__ import annotations

import pytest

from framebank.features.stores import tables


def test_text_is_utf8_with_or_without_a_mark() -> None:
    assert tables.decode_text("\ufeffä".encode()) == tables.decode_text("ä".encode()) == "ä"
    with pytest.raises(tables.NotUtf8Error, match="byte 0xe4 in line 2") as latin:
        tables.decode_text("a\nä".encode("latin1"))
    assert (latin.value.line, latin.value.likely) == (2, "latin1")
    with pytest.raises(tables.NotUtf8Error) as wide:
        tables.decode_text("ä".encode("utf-16"))
    assert wide.value.likely == "utf-16"


def test_lines_end_at_line_feeds_alone_and_keep_their_numbers() -> None:
    text = '{"a": "\u2028"}\r\n\n  \n{}'
    assert list(tables.numbered_lines(text)) == [(1, '{"a": "\u2028"}\r\n'), (4, "{}")]
    assert not list(tables.numbered_lines(""))


@pytest.mark.parametrize(
    ("text", "delimiter"),
    [("a,b;c;d\n,,,", ";"), ("a\tb,c", "\t"), ("a", "\t"), ("a,b\r\nc", ",")],
)
def test_the_header_tells_the_delimiter(text: str, delimiter: str) -> None:
    assert tables.header_delimiter(text, "\t,;") == delimiter


def test_rows_of_csv_stand_where_they_end() -> None:
    text = 'a,b\n\n"x\ny",1\n2\n'
    rows = [(1, ["a", "b"]), (2, []), (4, ["x\ny", "1"]), (5, ["2"])]
    assert list(tables.read_csv(text, ",")) == rows
    with pytest.raises(tables.NotCsvError) as fault:
        list(tables.read_csv('a\n\n"x\ny', ","))
    assert (fault.value.start, fault.value.line) == (3, 4)
