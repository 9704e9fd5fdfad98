"""JSON lines: one object a line."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping

from hookql.errors import DataError, Diagnostic

_EMPTY: Mapping[str, object] = {}

NAMES = {
    "NoneType": "null",
    "bool": "a boolean",
    "int": "a number",
    "float": "a number",
    "list": "a list",
    "tuple": "a list",
    "dict": "an object",
    "str": "text",
    "Field": "text",
    "bytes": "bytes",
}


def kind(value: object) -> str:
    """What a value of the data is called in messages: ``text``, ``a number``, ``null``, ..."""
    return NAMES.get(type(value).__name__, f"a {type(value).__name__}")


def read_jsonl(
    lines: Iterable[tuple[int, str]], name: str
) -> Iterator[tuple[str, Mapping[str, object]]]:
    """Place and object of each line; a blank line is an empty record.

    Raises:
        DataError: on a line that is not JSON, or not an object.
    """
    for number, line in lines:
        place = f"{name}:{number}"
        yield place, _object(line, place) if line.strip() else _EMPTY


def _object(line: str, place: str) -> Mapping[str, object]:
    try:
        value = json.loads(line)
    except json.JSONDecodeError as error:
        why = error.msg[:1].lower() + error.msg[1:].removesuffix(" starting at").removesuffix(" at")
        raise DataError(
            Diagnostic("bad-json", f"{place}: column {error.colno} is not JSON: {why}")
        ) from None
    except (ValueError, RecursionError) as error:
        # Python's own limits: on depth, and on the digits of one whole number.
        deep = isinstance(error, RecursionError)
        why = "it is nested too deeply" if deep else "a number in it is too long"
        raise DataError(Diagnostic("bad-json", f"{place}: cannot be read: {why}")) from None
    if not isinstance(value, dict):
        raise DataError(
            Diagnostic(
                "not-an-object",
                f"{place}: the line is {kind(value)}, not an object",
                help='write each line as {"text": "..."}',
            )
        )
    return value
