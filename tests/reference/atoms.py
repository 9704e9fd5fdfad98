"""Conditions on a token alone, without a look at the model's activations."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

One = Callable[..., Any]
"""Draws one of its arguments."""


def of_token(one: One) -> str:
    """Of the token and its neighbours."""
    column = one("token", "prev", "next")
    return str(
        one(
            f'{column} == "e"',
            f'{column} != "a"',
            f'{column} in {{"o", " ", eos, 42}}',
            f'{column} not in {{"l", unk}}',
            f"{column} ~ /^[a-m]$/",
            f'{column} == " "',
            f"{column} == {one(77, 3, 8)}",
            f"{column} == bos",
            f"{column} != unk",
            f"{column} == none",
            "token == prev",
            "next != token",
            "special",
            "not special",
        )
    )


def of_place(one: One) -> str:
    """Of where the token stands."""
    op, number = one("==", "<", ">=", "!=", "<=", ">"), one(0, 1, 3, 7, 12)
    return str(
        one(
            f"position {op} {number}",
            f"position {op} -{number + 1}",
            f"position {op} last - {number}",
            f"content_position {op} {number}",
            f"content_position {op} -{number + 1}",
            f"content_position {op} last",
            "content_position == none",
            f"{number} < position <= {number + 5}",
            f"length {op} {number + 3}",
            f"position * 2 {op} length",
            f"sample {op} {number}",
            f"chunk {op} 0",
            f"offset {op} {number}",
            "position + offset > 4",
        )
    )


def of_row(one: One) -> str:
    """Of the sample's row."""
    return str(
        one(
            'row.label == "ham"',
            'row.label != "spam"',
            'row.label in {"spam", "New York"}',
            "row.label == none",
            'row.label < "i"',
            "row.label ~ /am$/",
            "row.weight > 1",
            "row.weight == 2",
            "row.weight != none",
            "row.weight * position >= 3",
            "row.flag",
            "row.flag == false",
            "row.flag == none",
        )
    )


def of_text(one: One) -> str:
    """Of the text around the token."""
    return str(one('within "York"', "within /[a-z]o/", 'within "hello"', "within /be$|is/"))
