"""Text for a terminal: how wide, what it can show, and nothing that would steer it."""

from __future__ import annotations

import shutil
import sys
import textwrap
import unicodedata

ASCII = str.maketrans({"·": "-", "…": "...", "×": "x", "≤": "<="})


def terminal_width(width: int | None) -> int:
    """The width asked for, or the terminal's, 100 where there is none; 20 at least."""
    return max(20, shutil.get_terminal_size((100, 24)).columns if width is None else width)


def needs_ascii(ascii: bool | None) -> bool:
    """Whether only ASCII will do: as asked for, or by what stdout can encode."""
    if ascii is not None:
        return ascii
    try:
        "█▏·…×▁".encode(getattr(sys.stdout, "encoding", None) or "ascii")
    except (UnicodeEncodeError, LookupError):
        return True
    return False


def wrapped(text: str, width: int) -> str:
    """Lines broken at spaces, what goes on indented; a longer word stays whole."""
    return "\n".join(
        textwrap.fill(line, width, subsequent_indent="  ", break_long_words=False)
        for line in text.splitlines()
    )


def visible(text: str) -> str:
    """A name or a line of a query without characters that would steer the terminal."""
    return "".join(c if c.isprintable() else "\ufffd" for c in text.expandtabs(4))


def text_width(text: str) -> int:
    """How many columns a text takes: an East Asian character two, a combining one none."""
    if text.isascii():
        return len(text)
    return sum(
        0 if unicodedata.combining(c) else 2 if unicodedata.east_asian_width(c) in "WF" else 1
        for c in text
    )


def cut(text: str, most: int) -> str:
    """The text in at most so many columns, with an ellipsis where some of it is left out."""
    if text_width(text) <= most:
        return text
    while text_width(text) > most - 1:
        text = text[:-1]
    return text + "…"


def quoted(text: str, most: int = 20) -> str:
    """A token's text between quotes, spaces and newlines to be seen, in ``most`` columns."""
    escaped = text.replace("\\", "\\\\").replace("\n", "\\n").replace("\t", "\\t")
    shown = visible(escaped.replace("\r", "\\r").replace('"', '\\"'))
    return f'"{cut(shown, most)}"'


def finished(text: str, ascii: bool) -> str:
    """The text as the stream can show it."""
    if not ascii:
        return text
    return text.translate(ASCII).encode("ascii", "backslashreplace").decode()


def strong(text: str, color: bool) -> str:
    """The text in bold, if colours are wanted."""
    return f"\x1b[1m{text}\x1b[0m" if color else text
