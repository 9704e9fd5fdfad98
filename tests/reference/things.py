"""What an expression may be at a token beside numbers: an id, a text, a truth, a position."""

from __future__ import annotations

from typing import TypeAlias

from attrs import frozen

from tests.reference.values import Value

ROLES = ("pad", "bos", "eos", "unk", "cls", "sep", "mask")


class Unsure(Exception):
    """Whether a token is kept hangs on the last bits of an activation."""


@frozen
class Id:
    """A token's id, which is compared with texts, roles and other ids."""

    id: int


@frozen
class Text:
    """A text of the data."""

    text: str


@frozen
class Truth:
    """true or false of the data."""

    truth: bool


@frozen
class Place:
    """A position and the number of positions, which ``last`` and negative numbers count from."""

    at: int
    of: int


UNDEFINED = None
Thing: TypeAlias = Value | Id | Text | Truth | Place | None
