"""Slips of the pen, each with words of its own: what the reader meant is plain to see."""

from __future__ import annotations

import re
import unicodedata

from attrs import frozen

from hookql.errors import Span, suggest
from hookql.language.automaton import Lexeme
from hookql.language.expected import KEYWORDS
from hookql.language.words import RESERVED


@frozen
class Slip:
    """A diagnostic in the making, and how to read on behind it.

    ``resume`` is where, ``meant`` the terminal to put in its place, ``skip`` to drop the clause.
    """

    code: str
    message: str
    span: Span
    help: str | None = None
    notes: tuple[str, ...] = ()
    resume: int = 0
    meant: str | None = None
    skip: bool = False


# Spelling elsewhere -> (spelling here, terminals it may stand for). Longer ones come first.
_FOREIGN: dict[str, tuple[str, tuple[str, ...]]] = {
    "===": ("==", ("COMPARE",)),
    "!==": ("!=", ("COMPARE",)),
    "&&": ("and", ("_AND",)),
    "||": ("or", ("_OR",)),
    "<>": ("!=", ("COMPARE",)),
    "=~": ("~", ("_TILDE",)),
    "=>": (">=", ("COMPARE",)),
    "=<": ("<=", ("COMPARE",)),
    "&": ("and", ("_AND",)),
    "|": ("or", ("_OR",)),
    "!": ("not", ("_NOT",)),
    "≠": ("!=", ("COMPARE",)),
    "≤": ("<=", ("COMPARE",)),
    "≥": (">=", ("COMPARE",)),
    "−": ("-", ("MINUS",)),
    "–": ("-", ("MINUS",)),
    "×": ("*", ("STAR",)),
    "^": ("**", ("POWER",)),
}
_HABITS = {"select": "capture", "filter": "where", "if": "where", "when": "where", "group": "by"}
_FOREIGN_SIGN = re.compile("|".join(map(re.escape, _FOREIGN)))
_SMART = "“”„‟‘’‚‛«»"
_WORD = re.compile(r"\w+")
_BROKEN_NUMBER = re.compile(r"[\d.][\w.]*")
_REGEX_AND_FLAGS = re.compile(r"(/(?:[^/\\\r\n]|\\[^\r\n])*/)(\w+)")
_OPTION = re.compile(
    r"(?:--)?(?P<name>(?:limit|model|data|text|column|split|revision|dtype|device|overflow|output"
    r"|(?:max|batch)[_-](?:length|size)|tokens[_-]per[_-]batch)(?!\w))[ \t=]*"
    r"(?P<value>(?!(?:where|pool|as|into|by|during|let|capture)\b)[\w./\"-]{1,30})?"
)
_REST_OF_LINE = re.compile(r"[^\r\n]*")
_ANYTHING = re.compile(r'"(?:[^"\\\r\n]|\\[^\r\n])*"|\w+|[=!<>]=|\*\*|\S')


def find(text: str, at: int, expected: set[str], *, stray: bool) -> Slip | None:
    """The slip at a place where no token fits, or None: an error in general."""
    if at >= len(text):
        return None
    return (
        _quotes(text, at, expected)
        or _touching(text, at)
        or _sign(text, at, expected)
        or _regex(text, at, expected)
        or _keyword(text, at, expected)
        or _number(text, at, expected)
        or _bracket(text, at, expected, stray)
        or _percent(text, at)
        or _character(text, at)
    )


def _quotes(text: str, at: int, expected: set[str]) -> Slip | None:
    char = text[at]
    line = _line(text, at)
    if char == '"' and not re.match(r'"(?:[^"\\]|\\.)*"', line):
        message = "this string is never closed"
        end = at + len(line.rstrip())
        help = 'put `"` at its end' if len(line) > 1 else None
        meant = "STRING" if "STRING" in expected else None
        return Slip("unclosed-string", message, Span(at, end), help, (), end, meant)
    if char in _SMART:
        close = re.search(f'[{_SMART}"]', line[1:])
        end = at + 1 + close.end() if close else at + len(line.rstrip())
        message = f"`{char}` is a typographic quotation mark"
        help = 'strings stand between `"` and `"`'
    elif char in "'`":
        close = re.search(char, line[1:])
        end = at + 1 + close.end() if close else at + len(line.rstrip())
        message, help = f"`{char}` does not quote", 'strings stand between `"` and `"`'
    else:
        return None
    code = "smart-quotes" if char in _SMART else "wrong-quotes"
    meant = "STRING" if "STRING" in expected else None
    return Slip(code, message, Span(at, end), help, (), end, meant)


def _touching(text: str, at: int) -> Slip | None:
    """A `.` or `:` with nothing behind it."""
    sign = text[at]
    if sign not in ".:" or not re.match(r"[\s#]|$", text[at + 1 : at + 2]):
        return None
    what = "a name" if sign == "." else "the name of a port"
    message = f"`{sign}` must touch {what} behind it"
    following = _WORD.search(text, at + 1)
    here = following is not None and not text[at + 1 : following.start()].strip(" \t")
    if following is None or not here or following[0] in RESERVED:
        return Slip("dangling-dot", message, Span(at, at + 1), None, (), at + 1)
    meant = "_DOT" if sign == "." else "_PORT"
    return Slip("dangling-dot", message, Span(at, at + 1), None, (), at + 1, meant)


def _sign(text: str, at: int, expected: set[str]) -> Slip | None:
    """An operator spelled as in another language."""
    foreign = _FOREIGN_SIGN.match(text, at)
    if foreign is not None:
        here, kinds = _FOREIGN[foreign[0]]
        meant = next((kind for kind in kinds if kind in expected), None)
        if meant is not None:
            message = f"`{foreign[0]}` is no operator of HookQL"
            span = Span(*foreign.span())
            return Slip("foreign-operator", message, span, f"write `{here}`", (), span.end, meant)
    if text[at] == "=" and "COMPARE" in expected and text[at + 1 : at + 2] != "=":
        message = "`=` does not compare"
        span = Span(at, at + 1)
        return Slip("single-equals", message, span, "write `==`", (), at + 1, "COMPARE")
    if text.startswith("==", at) and "_ASSIGN" in expected:
        span = Span(at, at + 2)
        message = "`==` compares, it does not define"
        return Slip("double-equals", message, span, "write `=`", (), at + 2, "_ASSIGN")
    return None


def _regex(text: str, at: int, expected: set[str]) -> Slip | None:
    if text[at] != "/" or "REGEX" not in expected:
        return None
    flags = _REGEX_AND_FLAGS.match(text, at)
    if flags is not None:
        message = f"`{flags[2]}` behind a regex means nothing: flags stand inside it"
        help = f"write `/(?{flags[2]}){flags[1][1:]}`" if len(flags[0]) < 60 else None
        span = Span(flags.start(2), flags.end())
        return Slip("regex-flags", message, span, help, (), span.end, "REGEX")
    end = at + len(_line(text, at).rstrip())
    message = "this regex is never closed"
    help = "put `/` at its end; a `/` inside it is written `\\/`"
    return Slip("unclosed-regex", message, Span(at, end), help, (), end, "REGEX")


def _keyword(text: str, at: int, expected: set[str]) -> Slip | None:
    """A keyword in upper case, or misspelt."""
    found = _WORD.match(text, at)
    if found is None or found[0] in RESERVED:
        return None
    word, span = found[0], Span(*found.span())
    known = sorted(KEYWORDS[kind] for kind in expected & KEYWORDS.keys())
    if word.lower() in known:
        return upper_case(word, span)
    close = _HABITS.get(word.lower()) or (suggest(word, known) if len(word) > 2 else None)
    if close not in known or (len(close) + 2 < len(word) and word.lower() not in _HABITS):
        return None
    return Slip(
        "unknown-keyword",
        f"`{word}` is no keyword",
        span,
        f"did you mean `{close}`?",
        (f"here may stand: {', '.join(known)}",),
        span.end,
        f"_{close.upper()}",
    )


def upper_case(word: str, span: Span) -> Slip:
    """`WHERE`, which goes on as `where`."""
    message = f"keywords are written in lower case, not `{word}`"
    help = f"write `{word.lower()}`"
    kind = f"_{word.upper()}"
    return Slip("upper-case-keyword", message, span, help, (), span.end, kind)


def _number(text: str, at: int, expected: set[str]) -> Slip | None:
    found = _BROKEN_NUMBER.match(text, at)
    if found is None or "NUMBER" not in expected or not any(c.isdigit() for c in found[0]):
        return None
    shown = found[0] if len(found[0]) <= 40 else found[0][:40] + "…"
    span = Span(*found.span())
    help = "names start with a letter or `_`" if re.match(r"\d+[^\W\d]", found[0]) else None
    return Slip("bad-number", f"`{shown}` is no number", span, help, (), span.end, "NUMBER")


def _bracket(text: str, at: int, expected: set[str], stray: bool) -> Slip | None:
    char, span = text[at], Span(at, at + 1)
    if char in ")]}" and stray:
        message = f"`{char}` closes nothing: it was never opened"
        return Slip("unopened-bracket", message, span, None, (), at + 1)
    braces = "STEP" in expected or "FIRST_STEP" in expected
    if char == "{" and braces and "}" not in _line(text, at):
        message = "`{` is never closed"
        return Slip("unclosed-bracket", message, span, "put `}` behind its end", (), at, skip=True)
    return None


def _percent(text: str, at: int) -> Slip | None:
    """A remainder, which HookQL has no operator for; what follows belongs to it."""
    if text[at] != "%":
        return None
    message = "there is no operator `%`"
    return Slip("foreign-operator", message, Span(at, at + 1), None, (), at + 1, skip=True)


def _character(text: str, at: int) -> Slip | None:
    """Characters that no token has."""
    char = text[at]
    if char.isalnum() or char in '_"/{}[]()<>=!~+-*.,:;@':
        return None
    name = unicodedata.name(char, "") if ord(char) > 127 or not char.isprintable() else ""
    shown = f"`{char}`" if char.isprintable() else "an invisible character"
    number = f" (U+{ord(char):04X}{' ' + name if name else ''})"
    if ord(char) <= 127 and char.isprintable():
        number = ""
    return Slip(
        "bad-character", f"{shown}{number} has no meaning here", Span(at, at + 1), None, (), at + 1
    )


def unclosed(text: str, bracket: Lexeme) -> Slip:
    """A bracket that is still open where it should have been closed."""
    sign = text[bracket.start : bracket.end]
    close = {"(": ")", "[": "]", "{": "}"}[sign]
    span = Span(bracket.start, bracket.end)
    return Slip(
        "unclosed-bracket", f"`{sign}` is never closed", span, f"put `{close}` behind its end"
    )


def too_deep(lexeme: Lexeme) -> Slip:
    """Brackets or operators nested beyond what any query needs."""
    span = Span(lexeme.start, lexeme.end)
    return Slip(
        "too-deep", "this is nested more than 100 levels deep", span, "name a part of it with `let`"
    )


def unexpected(text: str, at: int, could: str, expected: set[str]) -> Slip:
    """What stands at a place where something else could."""
    found = _ANYTHING.match(text, at)
    word = found[0] if found else text[at : at + 1]
    span = Span(at, at + len(word))
    shown = word if len(word) <= 40 else word[:40] + "…"
    help = None
    if word not in RESERVED:
        help = _advice(text, at, word, expected)
        return Slip("syntax", f"expected {could}, found `{shown}`", span, help)
    if text[:at].rstrip().endswith(",") and f"_{word.upper()}" not in expected:
        help = "leave out the comma"
        return Slip("syntax", f"expected {could}, found the keyword `{word}`", span, help)
    if "FIRST_STEP" in expected:
        help = f'a module of that name is written `"{word}"`'
    elif could == "a name":
        help = f"`{word}` is reserved: choose another name"
    return Slip("syntax", f"expected {could}, found the keyword `{word}`", span, help)


def _advice(text: str, at: int, word: str, expected: set[str]) -> str | None:
    """What was most likely meant by a word or sign that cannot stand at a place."""
    line = _line(text, at)
    path = "_ISA" in expected and "_LSQB" in expected
    # `special --limit` is a difference, until a number follows it.
    minus = re.search(r"--[a-z-]+[ =]*$", text[max(0, at - 30) : at])
    option = _OPTION.match(text, at - len(minus[0]) if minus else at)
    if option is not None and "_WHERE" in expected:
        name = option["name"].replace("_", "-").lower()
        value = f" {option['value']}" if option["value"] else ""
        return f"there is no clause `{option['name']}`; the command line has `--{name}{value}`"
    if word in "([" and "_LBRACE" in expected:
        return "a set stands between `{` and `}`"
    if word == "(" and path:
        index = re.match(r"\(\s*([\d:*-]{1,20})\s*\)", line)
        return f"write `[{index[1]}]`" if index else "an index stands between `[` and `]`"
    if word[0] == '"' and "REGEX" in expected:
        inside = word[1:-1]
        plain = len(word) <= 40 and not re.search(r"[\W_]", inside.replace(" ", ""))
        return f"write `/{inside}/`" if plain else "a regex stands between `/` and `/`"
    if word[0] == '"' and expected == {"NAME"}:
        name = re.sub(r"\W+", "_", word[1:-1]).strip("_")
        good = name and not name[0].isdigit() and name not in RESERVED and len(name) <= 40
        return f"write `{name}`: a name has no quotation marks" if good else None
    if expected == {"STRING"}:
        file = re.match(r"[\w./-]{1,60}", line)
        return f'write `"{file[0].removesuffix(".nc")}.nc"`' if file else None
    if "_FROM" in expected and "_COMMA" in expected and word[0].isalpha():
        return "statistics are separated by `,`"
    if word in ")]}" and text[:at].rstrip().endswith(","):
        return "leave out the comma"
    if "_DOT" in expected and "_ISA" in expected and word[0].isalnum():
        return "the steps of a path are joined by `.`"
    return None


def _line(text: str, at: int) -> str:
    found = _REST_OF_LINE.match(text, at)
    return found[0] if found else ""
