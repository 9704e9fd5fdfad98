"""TOML: the values by Python's own reader, their places by a walk over the same text."""

from __future__ import annotations

import contextlib
import re
import tomllib
from typing import Any

from hookql.configs.document import (
    DEEPEST,
    MOST,
    Node,
    Where,
    mapping,
    sequence,
    too_deep,
    too_many,
)
from hookql.configs.from_yaml import twice
from hookql.configs.positions import align
from hookql.errors import Diagnostic, Source, Span, UsageError

_SPACE = re.compile(r"(?:[ \t\r\n]|#[^\n]*)*")
_KEY = re.compile(r"""[ \t]*([A-Za-z0-9_-]+|"(?:[^"\\\n]|\\.)*"|'[^'\n]*')[ \t]*""")
_STRING = re.compile(
    r'"""(?:[^\\]|\\.)*?"{3,5}|'
    r"'''.*?'{3,5}|"
    r'"(?:[^"\\\n]|\\.)*"|'
    r"'[^'\n]*'",
    re.DOTALL,
)
_REST = re.compile(r"[^,\]}\n#]*")
# Python's reader takes a minute for a key of a hundred thousand parts.
_LARGE = 20_000
_DOTTED = re.compile(r"""[\w."' \t-]+""")
_MOST_DOTS = 200
_TWICE = re.compile("overwrite a value|twice|Duplicate")
_LINE = re.compile(r" \(at (?:line (\d+), column (\d+)|end of document)\)$")


def read_toml(source: Source) -> Node:
    """The document of a TOML text. Raises UsageError for a text that is none, or too large."""
    if len(source.text) > _LARGE and any(
        found[0].count(".") > _MOST_DOTS for found in _DOTTED.finditer(source.text)
    ):
        raise too_deep()
    try:
        whole = tomllib.loads(source.text)
    except RecursionError:
        raise too_deep() from None
    except ValueError as error:  # of numbers that are too long too
        if _TWICE.search(str(error)) and (found := _first_twice(source.text)):
            raise twice(source, *found) from None
        raise _broken(source, str(error)) from None
    places = _Places(source.text)
    try:
        places.walk()
    except (
        AssertionError,
        IndexError,
        RecursionError,
    ):  # what Python reads, the walk does not: no places then
        places = _Places("")
    return _Noder(source, places).node(whole, (), 0)


class _Noder:
    """Values and places put together."""

    def __init__(self, source: Source, places: _Places) -> None:
        self.source = source
        self.places = places
        self.count = 0

    def node(self, value: Any, path: Where, depth: int) -> Node:
        span = self.places.values.get(path)
        self.count += 1
        if self.count > MOST:
            raise too_many(self.source, span)
        if depth > DEEPEST:
            raise too_deep(self.source, span)
        if isinstance(value, dict):
            named = {k: self.node(v, (*path, k), depth + 1) for k, v in value.items()}
            keys = {
                k: self.places.keys[(*path, k)] for k in named if (*path, k) in self.places.keys
            }
            return mapping(named, span, keys)
        if isinstance(value, list):
            each = [self.node(v, (*path, n), depth + 1) for n, v in enumerate(value)]
            return sequence(each, span)
        if isinstance(value, str) and span is not None:
            raw = self.source.text[span.start : span.end]
            quote = raw[:1]
            marks = 3 if raw.startswith(quote * 3) and len(raw) >= 6 else 1
            within = raw[marks : len(raw) - marks]
            kind = quote if quote == '"' else ""
            return Node(value, span, align(within, span.start + marks, value, kind))
        return Node(value, span)


class _Places:
    """Where in a valid TOML text each key and each value stands."""

    def __init__(self, text: str) -> None:
        self.text = text
        self.keys: dict[Where, Span] = {}
        self.values: dict[Where, Span] = {}
        self.given: dict[Where, Span] = {}  # what has a value or a table of its own
        self.twice: tuple[str, Span, Span] | None = None  # the first key that has two
        self.tables: dict[Where, int] = {}  # how many `[[...]]` there were of a name

    def walk(self) -> None:
        """Read the whole text. AssertionError, IndexError where it is not understood."""
        prefix: Where = ()
        at = self.skip(0)
        while at < len(self.text):
            if self.text[at] == "[":
                several = self.text.startswith("[[", at)
                prefix, at = self.key(at + 1 + several, (), several)
                at += 1 + several
            else:
                at = self.pair(at, prefix)
            at = self.skip(at)

    def skip(self, at: int) -> int:
        found = _SPACE.match(self.text, at)
        assert found is not None
        return found.end()

    def key(self, at: int, prefix: Where, several: bool = False) -> tuple[Where, int]:
        """The path of a dotted key, and where it ends."""
        path = prefix
        while True:
            found = _KEY.match(self.text, at)
            assert found is not None
            raw = found[1]
            name = tomllib.loads(f"x = {raw}")["x"] if raw[0] in "\"'" else raw
            path, at = (*path, name), found.end()
            assert len(path) <= 2 * DEEPEST
            self.keys.setdefault(path, Span(*found.span(1)))
            self.values.setdefault(path, Span(*found.span(1)))
            last = not self.text.startswith(".", at)
            if last and several:
                self.tables[path] = self.tables.get(path, -1) + 1
            if path in self.tables:
                path = (*path, self.tables[path])
                self.values.setdefault(path, Span(*found.span(1)))
            if last:
                first = self.given.setdefault(path, here := Span(*found.span(1)))
                if first != here and self.twice is None:
                    self.twice = (name, here, first)
                return path, at
            at += 1

    def pair(self, at: int, prefix: Where) -> int:
        """``key = value``; where it ends."""
        path, at = self.key(at, prefix)
        assert self.text[at] == "="
        return self.value(self.skip(at + 1), path)

    def value(self, at: int, path: Where) -> int:
        start = at
        if self.text[at] == "{":
            at = self.skip(at + 1)
            while self.text[at] != "}":
                at = self.skip(self.pair(at, path))
                at = self.skip(at + 1) if self.text[at] == "," else at
            at += 1
        elif self.text[at] == "[":
            at, number = self.skip(at + 1), 0
            while self.text[at] != "]":
                at = self.skip(self.value(at, (*path, number)))
                at = self.skip(at + 1) if self.text[at] == "," else at
                number += 1
            at += 1
        elif found := _STRING.match(self.text, at):
            at = found.end()
        else:
            rest = _REST.match(self.text, at)
            assert rest is not None
            at += len(rest[0].rstrip())
            assert at > start
        self.values[path] = Span(start, at)
        return at


def _first_twice(text: str) -> tuple[str, Span, Span] | None:
    """The first key that is given twice, where it is and where it was before."""
    places = _Places(text)
    with contextlib.suppress(AssertionError, IndexError, RecursionError, ValueError):
        places.walk()  # to the end, or to what is wrong besides
    return places.twice


def _broken(source: Source, problem: str) -> UsageError:
    found = _LINE.search(problem)
    at = len(source.text.rstrip()) - 1
    if found is not None and found[1]:
        lines = source.text.split("\n")[: int(found[1]) - 1]
        at = sum(len(line) + 1 for line in lines) + int(found[2]) - 1
    at = max(0, min(at, len(source.text) - 1))
    problem = problem[: found.start()] if found else problem
    message = f"this is not TOML: {problem[:1].lower()}{problem[1:]}"
    return UsageError(Diagnostic("config-syntax", message, Span(at, at + 1), source))
