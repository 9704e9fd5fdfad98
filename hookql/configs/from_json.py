"""JSON, read strictly, with the place of every value."""

from __future__ import annotations

import json.decoder
import re
from typing import Any

from hookql.configs.document import DEEPEST, MOST, Node, mapping, sequence, too_deep, too_many
from hookql.configs.from_yaml import twice
from hookql.configs.positions import align
from hookql.errors import Diagnostic, Source, Span, UsageError

_SPACE = re.compile(r"[ \t\r\n]*")
_NUMBER = re.compile(r"-?(0|[1-9][0-9]{0,300})(\.[0-9]{1,300})?([eE][-+]?[0-9]{1,5})?")
_WORDS = {"true": True, "false": False, "null": None}
_scanstring: Any = vars(json.decoder)["scanstring"]
_WORD = re.compile(r"\w+")


def read_json(source: Source) -> Node:
    """The document of a JSON text.

    Raises:
        UsageError: a text that is no JSON (`NaN` is none), the same key twice, or one that is too
            deep or too large.
    """
    node, end = _Reader(source).value(_skip(source.text, 0), 0)
    end = _skip(source.text, end)
    if end < len(source.text):
        raise _broken(source, "more follows after its end", end)
    return node


class _Reader:
    """Reads values from an offset on; each gives a node and the offset behind it."""

    def __init__(self, source: Source) -> None:
        self.source = source
        self.text = source.text
        self.count = 0

    def value(self, at: int, depth: int) -> tuple[Node, int]:
        self.count += 1
        if self.count > MOST:
            raise too_many(self.source, Span(at, at + 1))
        if depth > DEEPEST:
            raise too_deep(self.source, Span(at, at + 1))
        first = self.text[at : at + 1]
        if first == '"':
            value, end = self.string(at)
            places = align(self.text[at + 1 : end - 1], at + 1, value, '"')
            return Node(value, Span(at, end), places), end
        if first in ("{", "["):
            return self.object(at, depth) if first == "{" else self.array(at, depth)
        number = _NUMBER.match(self.text, at)
        if number is not None and not _WORD.match(self.text, number.end()):
            whole = number[2] is None and number[3] is None
            found = int(number[0]) if whole else float(number[0])
            return Node(found, Span(at, number.end())), number.end()
        word = _WORD.match(self.text, at)
        if word is not None and word[0] in _WORDS:
            return Node(_WORDS[word[0]], Span(at, word.end())), word.end()
        raise _broken(self.source, "a value should stand here", at)

    def string(self, at: int) -> tuple[str, int]:
        try:
            value, end = _scanstring(self.text, at + 1, True)
        except json.JSONDecodeError as error:
            raise _broken(self.source, _lower(error.msg), error.pos) from None
        return str(value), int(end)

    def array(self, at: int, depth: int) -> tuple[Node, int]:
        items: list[Node] = []
        end = _skip(self.text, at + 1)
        while not self.text.startswith("]", end):
            if items:
                end = self.expect(",", end)
            item, end = self.value(end, depth + 1)
            items.append(item)
            end = _skip(self.text, end)
        return sequence(items, Span(at, end + 1)), end + 1

    def object(self, at: int, depth: int) -> tuple[Node, int]:
        named: dict[str, Node] = {}
        keys: dict[str, Span] = {}
        end = _skip(self.text, at + 1)
        while not self.text.startswith("}", end):
            if named:
                end = self.expect(",", end)
            if not self.text.startswith('"', end):
                raise _broken(self.source, "a key in quotation marks should stand here", end)
            key, behind = self.string(end)
            if key in keys:
                raise twice(self.source, key, Span(end, behind), keys[key])
            keys[key] = Span(end, behind)
            named[key], end = self.value(self.expect(":", _skip(self.text, behind)), depth + 1)
            end = _skip(self.text, end)
        return mapping(named, Span(at, end + 1), keys), end + 1

    def expect(self, mark: str, at: int) -> int:
        """The offset of what follows a punctuation mark."""
        if not self.text.startswith(mark, at):
            raise _broken(self.source, f"a `{mark}` should stand here", at)
        return _skip(self.text, at + 1)


def _skip(text: str, at: int) -> int:
    found = _SPACE.match(text, at)
    assert found is not None
    return found.end()


def _lower(text: str) -> str:
    return text[:1].lower() + text[1:]


def _broken(source: Source, problem: str, at: int) -> UsageError:
    at = min(at, max(0, len(source.text.rstrip()) - 1))
    message = f"this is not JSON: {problem}"
    return UsageError(Diagnostic("config-syntax", message, Span(at, at + 1), source))
