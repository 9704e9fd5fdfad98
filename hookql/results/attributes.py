"""Attributes that a NetCDF file can hold, and that come back as they were."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np

Attribute = str | int | float | np.ndarray[Any, Any]


def clean(attributes: Mapping[str, object]) -> dict[str, Attribute]:
    """The attributes with every value as text, a number or an array of numbers.

    None is left out, a bool becomes "true" or "false", a mapping JSON, a list of texts one text
    separated by commas, a time ISO 8601; whatever else is written as `str` has it.
    """
    cleaned = {name: _clean(value) for name, value in attributes.items()}
    return {name: value for name, value in cleaned.items() if value is not None}


def _clean(value: object) -> Attribute | None:
    if value is None:
        return None
    if isinstance(value, bool | np.bool_):
        return "true" if value else "false"
    if isinstance(value, int | np.integer):
        number = int(value)
        return number if -(2**63) <= number < 2**63 else str(number)
    if isinstance(value, float | np.floating):
        return float(value)
    if isinstance(value, str | os.PathLike):
        return plain_text(os.fspath(value))
    if isinstance(value, Mapping):
        return plain_text(json.dumps(dict(value), ensure_ascii=False, default=str))
    if isinstance(value, set | frozenset):
        return _list(sorted(value, key=str))
    if isinstance(value, Iterable):
        return _list(list(value))
    return plain_text(value.isoformat() if hasattr(value, "isoformat") else str(value))


def _list(values: list[Any]) -> Attribute:
    if len(values) == 1:
        return _clean(values[0]) or ""  # NetCDF knows no difference between one and a list of one
    if values and all(isinstance(v, int | float) and not isinstance(v, bool) for v in values):
        array = np.asarray(values)
        if array.dtype.kind in "if" and not any(math.isnan(v) for v in values):
            return array
    return plain_text(", ".join(str(_clean(v)) for v in values))


def plain_text(value: str | bytes) -> str:
    """A text that a file can hold: valid UTF-8 without NUL, what is not written as an escape."""
    text = value.decode("utf-8", "backslashreplace") if isinstance(value, bytes) else value
    # Half a surrogate pair has no UTF-8, and C ends a text at its first NUL.
    return text.encode("utf-8", "backslashreplace").decode("utf-8").replace("\0", "\\x00")
