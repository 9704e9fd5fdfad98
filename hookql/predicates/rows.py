"""Columns of the data (``row.NAME``): values of any type, compared sample by sample."""

from __future__ import annotations

import math
import operator
import re
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from attrs import frozen

from hookql.data.batches import Batch
from hookql.data.jsonl import kind as kind_name
from hookql.data.samples import Field, Sample
from hookql.errors import DataError, Diagnostic, Source, Span
from hookql.predicates.values import Values

OPERATORS: Mapping[str, Callable[[Any, Any], Any]] = {
    "==": operator.eq,
    "!=": operator.ne,
    "<": operator.lt,
    "<=": operator.le,
    ">": operator.gt,
    ">=": operator.ge,
}
_NUMBER = re.compile(r"\s*[+-]?(\d+|(\d+\.\d*|\.\d+|\d+(?=[eE]))([eE][+-]?\d+)?)\s*", re.ASCII)
_BOOLEANS = {"true": True, "false": False}
_INT64 = 2**63


@frozen
class Place:
    """Where in the query a column is asked for, for messages."""

    column: str
    source: Source | None = None
    span: Span | None = None


def truths(batch: Batch, read: Callable[[Sample], bool | None]) -> Values:
    """The truth value of each sample (None: undefined), bool, at each of its tokens."""
    return _spread(batch, read, lambda values: np.array(values, dtype=np.bool_))


def numbers(batch: Batch, read: Callable[[Sample], int | float | None]) -> Values:
    """The number of each sample (None: undefined) at each of its tokens.

    As int64 where all are whole and fit, else as float64.
    """
    return _spread(batch, read, _number_array)


def _spread(
    batch: Batch,
    read: Callable[[Sample], Any],
    array: Callable[[list[Any]], np.ndarray[Any, Any]],
) -> Values:
    samples = {s.index: s for context in batch.contexts for s in context.samples}
    indexes = np.array(sorted(samples), dtype=np.int64)
    found = [read(samples[index]) for index in indexes.tolist()]
    defined = np.array([value is not None for value in found], dtype=np.bool_)
    values = array([0 if value is None else value for value in found])
    at = np.searchsorted(indexes, batch.sample.clip(min=indexes[0]))
    return Values(values[at], defined[at])


def _number_array(values: list[int | float]) -> np.ndarray[Any, Any]:
    if all(isinstance(value, int) and -_INT64 <= value < _INT64 for value in values):
        return np.array(values, dtype=np.int64)
    return np.array(values, dtype=np.float64)


def present(sample: Sample, column: str) -> object:
    """The sample's value of a column; None where it is missing, null or an empty CSV field."""
    value = sample.row.get(column)
    if isinstance(value, np.generic):
        value = value.item()
    return None if isinstance(value, Field) and not value else value


def number(sample: Sample, place: Place) -> int | float | None:
    """The sample's number in a column, None where it has none.

    Raises:
        DataError: naming the sample whose value is of another type.
    """
    value = present(sample, place.column)
    if isinstance(value, Field):
        value = _as_number(value)
    if value is None or (isinstance(value, int | float) and not isinstance(value, bool)):
        return value
    raise _mixed(sample, place, "is no number")


def amount(sample: Sample, place: Place) -> int | float | None:
    """The sample's number in a column, a boolean as 0 or 1, to reckon with in float64.

    `DataError` as `number`, and for a whole number that no float64 is: it would become another.
    """
    value = present(sample, place.column)
    if isinstance(value, bool) or (isinstance(value, Field) and value.strip().lower() in _BOOLEANS):
        return int(bool(boolean(sample, place)))
    found = number(sample, place)
    if isinstance(found, int) and not _exact(found):
        raise _wrong("not-exact", sample, place, "float64 cannot hold without changing it")
    return found


def _exact(value: int) -> bool:
    try:
        return int(float(value)) == value
    except OverflowError:
        return False


def boolean(sample: Sample, place: Place) -> bool | None:
    """The sample's boolean in a column, None where it has none; `DataError` as `number`."""
    value = present(sample, place.column)
    if isinstance(value, Field):
        value = _BOOLEANS.get(value.strip().lower(), value)
    if value is None or isinstance(value, bool):
        return value
    raise _mixed(sample, place, "is neither true nor false")


def text(sample: Sample, place: Place) -> str | None:
    """The sample's text in a column, None where it has none; `DataError` as `number`."""
    value = present(sample, place.column)
    if value is None or isinstance(value, str):
        return value
    raise _mixed(sample, place, "is no text")


def compare(sample: Sample, place: Place, op: str, other: object) -> bool | None:
    """The sample's value compared with a number, a text or a boolean; None where it has none.

    Raises:
        DataError: where the two are of different types.
    """
    value = present(sample, place.column)
    if value is None or other is None:
        return None
    left, right = _matched(value, other)
    if _type(left) is None or _type(left) != _type(right):
        raise _mixed(sample, place, f"cannot be compared with {_shown(other)}")
    if op not in ("==", "!=") and _type(left) == "a boolean":
        raise _mixed(sample, place, "has no order")
    return bool(OPERATORS[op](left, right))


def _matched(left: object, right: object) -> tuple[object, object]:
    """CSV fields as what they are compared with; two of them as numbers where both are."""
    if isinstance(left, Field) and isinstance(right, Field):
        a, b = _as_number(left), _as_number(right)
        both = not isinstance(a, str) and not isinstance(b, str)
        return (a, b) if both else (left, right)
    return _as_type_of(left, right), _as_type_of(right, left)


def _as_type_of(value: object, other: object) -> object:
    if not isinstance(value, Field) or isinstance(other, str):
        return value
    if isinstance(other, bool):
        return _BOOLEANS.get(value.strip().lower(), value)
    return _as_number(value)


def _as_number(field: Field) -> int | float | Field:
    """The number that a CSV field writes out, or the field."""
    match = _NUMBER.fullmatch(field)
    if match is None:
        return field
    whole = match[2] is None and len(field) < 400
    return int(field) if whole else float(field)


def key(sample: Sample, place: Place) -> tuple[object, str]:
    """The sample's value in a column as the key of a group, and what type that is.

    A CSV field is a text. A NaN is always the same object, so that all are one key.

    Raises:
        DataError: for a value that is no number, text or boolean, or a whole number too large.
    """
    value = present(sample, place.column)
    kind = _type(value)
    if kind is None:
        raise _mixed(sample, place, "is no key of a group")
    if isinstance(value, int) and not -_INT64 <= value < _INT64:
        raise _mixed(sample, place, "is too large for the key of a group")
    if isinstance(value, str):
        return str(value), kind
    return math.nan if value != value else value, kind


def other_type(sample: Sample, place: Place, before: str) -> DataError:
    """The error for a key of another type than those before it."""
    return _mixed(sample, place, f"cannot be a key beside {before}")


def _type(value: object) -> str | None:
    """The type as far as comparing goes; None for what cannot be compared."""
    if isinstance(value, bool):
        return "a boolean"
    if isinstance(value, int | float):
        return "a number"
    return "text" if isinstance(value, str) else None


def _mixed(sample: Sample, place: Place, said: str) -> DataError:
    return _wrong("mixed-types", sample, place, said)


def _wrong(code: str, sample: Sample, place: Place, said: str) -> DataError:
    value = present(sample, place.column)
    return DataError(
        Diagnostic(
            code,
            f"`row.{place.column}` of {sample.describe()} is {_shown(value)}, which {said}",
            place.span,
            place.source,
        )
    )


def _shown(value: object) -> str:
    shown = repr(str(value)) if isinstance(value, str) else repr(value)
    shown = shown.lower() if isinstance(value, bool) else shown
    shown = shown if len(shown) <= 40 else shown[:39] + "…"
    return f"{kind_name(value)} ({shown})"
