"""Where in a file the characters of a text stand, past quotes, escapes, indents and folds."""

from __future__ import annotations

from collections.abc import Sequence

_SHORT = {"x": 2, "u": 4, "U": 8}
"""How many hexadecimal digits follow an escape."""


def align(raw: str, start: int, value: str, quote: str = "") -> Sequence[int] | None:
    """The offset of each character of ``value``, which ``raw`` writes from the offset ``start`` on.

    ``quote`` is the quotation mark around it, if there is one: in ``"`` a backslash escapes, in
    ``'`` a doubled mark is one. None where the two cannot be laid side by side.
    """
    if raw == value:
        return range(start, start + len(raw))
    at: list[int] = []
    j = 0
    while len(at) < len(value):
        wanted = value[len(at)]
        here = raw[j] if j < len(raw) else ""
        if here == "\\" and quote == '"':
            length, gives = _escape(raw, j)
            at += [start + j] * gives
            j += length
        elif here == wanted:
            at.append(start + j)
            j += 2 if quote == "'" and raw[j : j + 2] == "''" else 1
        elif wanted.isspace() and (not here or here.isspace()):
            at.append(start + j)
            j += 1 if here else 0
        elif here.isspace():
            j += 1
        elif wanted.isspace():
            at.append(start + j)
        else:
            return None
    return at[: len(value)]


def _escape(raw: str, at: int) -> tuple[int, int]:
    """How many characters an escape takes, and how many it stands for."""
    kind = raw[at + 1 : at + 2]
    if kind.isspace():  # a line that goes on
        rest = raw[at + 1 :]
        return 1 + len(rest) - len(rest.lstrip()), 0
    length = 2 + _SHORT.get(kind, 0)
    if kind == "u" and raw[at + 2 : at + 4].lower() in ("d8", "d9", "da", "db"):
        # Half of a pair, in JSON.
        paired = raw[at + length : at + length + 2] == "\\u"
        return (length + 6 if paired else length), 1
    return length, 1
