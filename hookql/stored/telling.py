"""Plain values told to a hash: no two that differ are told alike, and what is strange is refused.

A fingerprint for people may overlook something; an address may not. So types are part of it (a
field of a CSV file and a text compare differently), dictionaries have an order, and whatever is not
known here goes to the caller, who refuses it unless it can do better.
"""

from __future__ import annotations

import datetime
import decimal
import uuid
from collections import OrderedDict
from collections.abc import Callable
from pathlib import PurePath
from typing import Any, NoReturn

import numpy as np

from hookql.data.samples import Field

Add = Callable[[bytes], None]

_BY_REPR = (
    bool,
    int,
    complex,
    range,
    decimal.Decimal,
    datetime.date,
    datetime.datetime,
    datetime.time,
    datetime.timedelta,
    uuid.UUID,
)


class Strange(Exception):
    """Something that no address can be made of; its text ends "the answer is not kept: ..."."""


def refused(value: Any) -> NoReturn:
    """Refuse a value of a kind that is not known. Raises Strange."""
    kind = type(value)
    raise Strange(f"nobody can tell one `{kind.__module__}.{kind.__qualname__}` from another")


def tell(add: Add, value: Any, other: Callable[[Any], None] = refused) -> None:
    """Hand a value to ``add``, with types and lengths; ``other`` is called for unknown kinds.

    Only exact types are known: a subclass may mean anything. Raises what ``other`` raises.
    """
    kind = type(value)
    if value is None:
        add(b"N")
    elif kind is str or kind is Field:
        data = value.encode("utf-8", "surrogatepass")
        add(b"%s%d:" % (b"s" if kind is str else b"f", len(data)))
        add(data)
    elif kind is float:
        add(f"d({value.hex()})".encode())
    elif kind in _BY_REPR:
        add(f"{kind.__name__}({value!r})".encode())
    elif kind is bytes or kind is bytearray:
        add(b"%s%d:" % (kind.__name__.encode(), len(value)))
        add(bytes(value))
    elif kind is list or kind is tuple:
        add(b"%s%d:" % (kind.__name__.encode(), len(value)))
        for item in value:
            tell(add, item, other)
    elif kind is dict or kind is OrderedDict:
        add(b"m%d:" % len(value))
        for key, item in value.items():
            tell(add, key, other)
            tell(add, item, other)
    elif kind is set or kind is frozenset:
        _tell_set(add, value, other)
    elif kind is np.ndarray and value.dtype.kind in "biufcSUmM":
        add(f"a{value.dtype.str}{value.shape}:".encode())
        add(np.ascontiguousarray(value).tobytes())
    elif isinstance(value, np.generic) and value.dtype.kind in "biufcSUmM":
        add(f"n{value.dtype.str}:".encode())
        add(value.tobytes())
    elif isinstance(value, PurePath):
        add(f"p({value})".encode("utf-8", "surrogatepass"))
    else:
        other(value)


def _tell_set(add: Add, value: Any, other: Callable[[Any], None]) -> None:
    """A set has no order of its own: its members are told in that of their bytes."""
    members = []
    for item in value:
        parts: list[bytes] = []
        tell(parts.append, item, other)
        members.append(b"".join(parts))
    add(b"S%d:" % len(members))
    for member in sorted(members):
        add(member)
