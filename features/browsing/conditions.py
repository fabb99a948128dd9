"""The words of `--where`: COLUMN OPERATOR VALUE, such as `duration_s>10` or `video_id~truck`.

    =   !=            the same, another; of text exactly
    <   <=   >   >=   of numbers; of text in the order of its characters (dates in ISO 8601)
    ~                 text that contains VALUE, in whatever case

Without a VALUE (`label=`) rows that have none are meant. Several conditions hold together. White
space around column, operator and value does not count.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from framebank.features.browsing.columns import VideoTable
from framebank.features.errors import UsageError
from framebank.features.terminal import printable

# Longer ones first, as they begin with shorter ones.
_OPERATORS = ("!=", "<=", ">=", "==", "=", "<", ">", "~")
_COMPARE = {
    "=": pc.equal,
    "!=": pc.not_equal,
    "<": pc.less,
    "<=": pc.less_equal,
    ">": pc.greater,
    ">=": pc.greater_equal,
}
_FLAGS = dict.fromkeys(("true", "yes", "1"), True) | dict.fromkeys(("false", "no", "0"), False)
_EXPECTED = "COLUMN OPERATOR VALUE, such as duration_s>10, with one of = != < <= > >= ~"


@dataclasses.dataclass(frozen=True)
class Condition:
    """One condition, read; `column` is a name of the table."""

    column: str
    operator: str
    value: str


def select_rows(table: VideoTable, words: Sequence[str]) -> NDArray[np.int64]:
    """Return the rows for which all conditions hold, int64[rows] ascending; raises UsageError for
    words that are no condition, a column that is none, and a value that its type cannot have."""
    found = np.ones(len(table), bool)
    for one in words:
        found &= holds(table, read_condition(table, one))
    return np.flatnonzero(found)


def read_condition(table: VideoTable, words: str) -> Condition:
    """Return what `words` say. A column whose own name has an operator in it is found too."""
    splits = []
    for place in range(1, len(words)):
        found = next((op for op in _OPERATORS if words.startswith(op, place)), None)
        if found is not None:
            splits.append((words[:place].strip(), found, words[place + len(found) :].strip()))
    if not splits:
        raise UsageError("no condition", got=repr(printable(words)), expected=_EXPECTED)
    for name, sign, value in splits:
        if name and (column := table.name_of(name)) is not None:
            return Condition(column, "=" if sign == "==" else sign, value)
    name, sign, value = splits[0]
    return Condition(table.known(name), "=" if sign == "==" else sign, value)


def holds(table: VideoTable, condition: Condition) -> NDArray[np.bool_]:
    """Return bool[rows]: where the condition holds; raises UsageError for a wrong value."""
    column, kind = table.columns[condition.column], table.kind(condition.column)
    if kind == "text":
        found = _text_mask(column.fill_null(""), condition)
    elif not condition.value and condition.operator in ("=", "!="):
        found = column.is_null() if condition.operator == "=" else column.is_valid()
    elif kind == "bool":
        found = _compared(column, condition, _flag(condition))
    else:
        found = _compared(column, condition, _number(condition, column.type))
    return np.asarray(found.to_numpy(zero_copy_only=False), bool)


def _text_mask(column: pa.Array, condition: Condition) -> pa.Array:
    try:
        value = pa.scalar(condition.value, pa.string())
    except UnicodeEncodeError:  # half of a surrogate pair: no text of a catalog has one
        value = pa.scalar(printable(condition.value))
    if condition.operator == "~":
        return pc.match_substring(column, value.as_py(), ignore_case=True)
    return _COMPARE[condition.operator](column, value)


def _compared(column: pa.Array, condition: Condition, value: pa.Scalar) -> pa.Array:
    found = _COMPARE[condition.operator](column, value)
    return found.fill_null(condition.operator == "!=")


def _flag(condition: Condition) -> pa.Scalar:
    value = _FLAGS.get(condition.value.lower())
    if value is None or condition.operator not in ("=", "!="):
        got = f"{condition.operator} {printable(condition.value)}"
        raise _wrong(condition, got=got, expected="= or != true or false")
    return pa.scalar(value)


def _number(condition: Condition, kind: pa.DataType) -> pa.Scalar:
    if condition.operator == "~":
        raise _wrong(condition, got="~, which is for text", expected="= != < <= > >=")
    try:
        if pa.types.is_integer(kind) and condition.value.lstrip("+-").isdigit():
            return pa.scalar(int(condition.value), kind)  # exact beyond 2^53
        number = float(condition.value)
        if math.isnan(number):
            raise ValueError
    except (ValueError, OverflowError, pa.ArrowException):
        got = repr(printable(condition.value))
        raise _wrong(condition, got=got, expected="a number") from None
    return pa.scalar(number)


def _wrong(condition: Condition, *, got: str, expected: str) -> UsageError:
    what = f"the column {printable(condition.column)} cannot be compared so"
    return UsageError(what, got=got, expected=expected)
