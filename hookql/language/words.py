"""Tokens to values and back: numbers, strings, regexes, path steps, and how each is spelled.

Reading returns a value or raises `Misspelt`, which holds a diagnostic's code, sentence and help;
the writing half is what the formatter uses, so that the two can be compared on one page.
"""

from __future__ import annotations

import itertools
import math
import re

CLAUSES = ("from", "where", "by", "pool", "during", "as", "into")
PATH_RESERVED = frozenset({"let", "capture", "except", "isa", *CLAUSES})
RESERVED = PATH_RESERVED | {"and", "or", "not", "in", "within"}

LARGEST_INTEGER = 2**63 - 1
MOST_ALTERNATIVES = 1000
MOST_STEPS = 100

_ESCAPES = {"n": "\n", "r": "\r", "t": "\t", '"': '"', "\\": "\\"}
_UNESCAPES = {value: f"\\{key}" for key, value in _ESCAPES.items()}
_ESCAPE = re.compile(r"\\(x[0-9a-fA-F]{2}|u[0-9a-fA-F]{4}|U[0-9a-fA-F]{8}|.)", re.DOTALL)
_GROUP = re.compile(r"\{([^{}]*)\}")


class Misspelt(Exception):
    """A token that the grammar takes but that has no value."""

    def __init__(self, code: str, message: str, help: str | None = None) -> None:
        super().__init__(code, message, help)
        self.code, self.message, self.help = code, message, help


def read_number(text: str) -> int | float:
    """``3`` is an int, ``3.0``, ``.5`` and ``1e-3`` are floats; both stay within 64 bits."""
    if text.isdigit():
        # Twenty digits are more than 2^63 already, and int() refuses thousands of them.
        value = int(text) if len(text.lstrip("0")) < 20 else LARGEST_INTEGER + 1
        if value > LARGEST_INTEGER:
            raise Misspelt("bad-number", f"whole numbers end at {LARGEST_INTEGER}")
        return value
    number = float(text)
    if math.isinf(number):
        raise Misspelt("bad-number", "this number is larger than any 64-bit float")
    return number


def read_integer(text: str) -> int:
    """A whole number without a fraction or exponent."""
    value = read_number(text)
    if isinstance(value, float):
        raise Misspelt("bad-index", f"an index is a whole number, not `{text}`")
    return value


def write_number(value: int | float) -> str:
    """The shortest text that reads back as the same number of the same type."""
    return repr(value)


def read_string(text: str) -> str:
    """The value of a quoted string, its escapes undone."""

    def undo(found: re.Match[str]) -> str:
        escape = found[1]
        if escape in _ESCAPES:
            return _ESCAPES[escape]
        if len(escape) == 1:
            raise Misspelt(
                "bad-escape",
                f"`\\{escape}` is no escape",
                'write `\\\\` for a backslash; the others are `\\"`, `\\n`, `\\r`, `\\t`, '
                "`\\xHH`, `\\uHHHH`, `\\UHHHHHHHH`",
            )
        code = int(escape[1:], 16)
        if code > 0x10FFFF or 0xD800 <= code <= 0xDFFF:
            raise Misspelt("bad-escape", f"`\\{escape}` is no Unicode character")
        return chr(code)

    return _ESCAPE.sub(undo, text[1:-1])


def write_string(value: str) -> str:
    """A string in double quotes; what cannot be seen is escaped."""
    return '"' + "".join(_UNESCAPES.get(c) or _visible(c) for c in value) + '"'


def _visible(char: str) -> str:
    code = ord(char)
    if char.isprintable():
        return char
    return (
        f"\\x{code:02x}" if code < 256 else f"\\u{code:04x}" if code < 65536 else f"\\U{code:08x}"
    )


def read_regex(text: str) -> str:
    """The pattern between the slashes; only ``\\/`` is an escape of ours."""
    return re.sub(r"\\(.)", lambda m: "/" if m[1] == "/" else m[0], text[1:-1])


def write_regex(pattern: str) -> str:
    """A pattern between slashes, those inside it escaped."""
    return "/" + re.sub(r"\\.|/", lambda m: r"\/" if m[0] == "/" else m[0], pattern) + "/"


def read_step(text: str) -> tuple[str, ...] | str | None:
    """A step of a path: a plain name, the alternatives of a glob, or None for ``**``.

    ``{q,k}_proj`` gives ``("q_proj", "k_proj")``.
    """
    if text == "**":
        return None
    if "**" in text:
        raise Misspelt("bad-step", "`**` stands alone between dots", "use `*` within a name")
    if not re.search(r"[*?{]", text):
        return text
    # Odd pieces are what stood between braces.
    pieces = [
        [name.strip() for name in piece.split(",")] if odd else [piece]
        for odd, piece in zip(itertools.cycle((False, True)), _GROUP.split(text), strict=False)
    ]
    for group in pieces[1::2]:
        for name in group:
            if not name:
                raise Misspelt("empty-alternative", f"an alternative of `{text}` is empty")
            if not re.fullmatch(r"[\w*?]+", name):
                raise Misspelt(
                    "bad-step",
                    f"`{name}` cannot stand between braces",
                    "alternatives are names or globs within one step",
                )
    if math.prod(map(len, pieces)) > MOST_ALTERNATIVES:
        raise Misspelt("too-long", f"this step has more than {MOST_ALTERNATIVES} alternatives")
    return tuple("".join(parts) for parts in itertools.product(*pieces))


def read_quoted_step(text: str) -> list[str]:
    """The names in a quoted path: ``"transformer.h.0"`` is three, since no name holds a dot."""
    names = read_string(text).split(".")
    if not all(names):
        raise Misspelt("bad-step", "a module's name is not empty")
    if len(names) > MOST_STEPS:
        raise Misspelt("too-long", f"this path has more than {MOST_STEPS} steps")
    return names
