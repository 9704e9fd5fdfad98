"""YAML, read by PyYAML's parser of events: no tags, no objects, and every value with its place.

Plain scalars mean what YAML 1.2 and JSON say: ``true`` and ``false`` are truths, ``yes`` and ``no``
are texts, numbers are decimal. So nothing is read as a number or truth that was meant as a text.
"""

from __future__ import annotations

import re
from typing import Any

import yaml
from attrs import Factory, define

from hookql.configs.document import (
    DEEPEST,
    MOST,
    Node,
    mapping,
    sequence,
    too_deep,
    too_many,
)
from hookql.configs.positions import align
from hookql.errors import Diagnostic, Source, Span, UsageError

_WORDS = {
    **dict.fromkeys(("", "~", "null", "Null", "NULL"), None),
    **dict.fromkeys(("true", "True", "TRUE"), True),
    **dict.fromkeys(("false", "False", "FALSE"), False),
}
_WHOLE = re.compile(r"[-+]?(0|[1-9][0-9]{0,18})")
_NUMBER = re.compile(r"[-+]?(0|[1-9][0-9]{0,300})?(\.[0-9]{0,300})?([eE][-+]?[0-9]{1,5})?")
_ANCHOR = re.compile(r"&\S+\s+")
_ODD = {".inf": "inf", "+.inf": "inf", "-.inf": "-inf", ".nan": "nan"}


@define
class _Open:
    """A collection that is being read: ``key`` is the key whose value comes next."""

    start: int
    is_mapping: bool
    anchor: str | None
    items: list[Node] = Factory(list)
    named: dict[str, Node] = Factory(dict)
    keys: dict[str, Span] = Factory(dict)
    key: str | None = None


def read_yaml(source: Source) -> Node:
    """The document of a YAML text.

    Raises:
        UsageError: a text that is no YAML, has tags, several documents, keys that are no words,
            the same key twice, or is too deep or too large.
    """
    loader = None
    try:
        loader = yaml.SafeLoader(source.text)
        return _Builder(source).whole(loader)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        at = min(mark.index, max(0, len(source.text) - 1)) if mark else 0
        words = ", ".join(filter(None, (error.context, error.problem)))
        help = _INDENTED if "mapping values" in words else None
        help = _IN_BRACES if "flow" in words else help
        raise _broken(source, words or "it is no YAML", at, help) from None
    except yaml.reader.ReaderError as error:
        message = f"U+{int(error.character):04X} cannot stand in YAML"
        raise _broken(source, message, error.position) from None
    except (yaml.YAMLError, ValueError, OverflowError):  # of `%YAML 1.999…`, of `"\UFFFFFFFF"`
        raise _broken(source, "a number or character in it is out of range", 0) from None
    finally:
        if loader is not None:
            loader.dispose()


def scalar(text: str) -> Any:
    """What a plain scalar means: None, a truth, a number, or the text itself."""
    if text in _WORDS:
        return _WORDS[text]
    if _WHOLE.fullmatch(text):
        return int(text)
    if any(c.isdigit() for c in text) and _NUMBER.fullmatch(text):
        try:
            return float(text)
        except ValueError:  # `.e5`
            return text
    return float(_ODD[text.lower()]) if text.lower() in _ODD else text


class _Builder:
    """Events to nodes, with a stack of its own, so that no nesting is too deep for Python."""

    def __init__(self, source: Source) -> None:
        self.source = source
        self.stack: list[_Open] = []
        self.anchors: dict[str, Node] = {}
        self.root: Node | None = None
        self.count = 0

    def whole(self, loader: Any) -> Node:
        while loader.check_event():
            event: Any = loader.get_event()
            start, end = event.start_mark.index, event.end_mark.index
            if isinstance(event, yaml.DocumentStartEvent) and self.root is not None:
                raise _broken(self.source, "a second document begins here", start)
            if isinstance(event, yaml.NodeEvent):
                self.node(event)
            elif isinstance(event, yaml.CollectionEndEvent):
                self.close(end)
        return Node(None) if self.root is None else self.root

    def node(self, event: Any) -> None:
        start, end = self.behind_anchor(event), event.end_mark.index
        span = Span(start, max(end, start + 1))
        if getattr(event, "tag", None) not in (None, "!") or (
            getattr(event, "tag", None) == "!" and not isinstance(event, yaml.ScalarEvent)
        ):
            message = f"the tag `{event.tag}` is not read: a config holds plain values"
            raise UsageError(Diagnostic("yaml-tag", message, span, self.source))
        if isinstance(event, yaml.AliasEvent):
            if event.anchor not in self.anchors:
                message = f"the alias `*{event.anchor}` stands for nothing above it"
                raise _broken(self.source, message, start)
            self.add(self.anchors[event.anchor], span, None)
        elif isinstance(event, yaml.ScalarEvent):
            self.add(self.scalar(event, span), span, event.anchor)
        else:
            if self.awaits_key:
                raise _broken(self.source, "a key is one word, not a list or a mapping", start)
            if len(self.stack) >= DEEPEST:
                raise too_deep(self.source, span)
            is_mapping = isinstance(event, yaml.MappingStartEvent)
            self.stack.append(_Open(start, is_mapping, event.anchor))

    def behind_anchor(self, event: Any) -> int:
        """Where an event's value begins."""
        start, end = event.start_mark.index, event.end_mark.index
        named = not isinstance(event, yaml.AliasEvent) and event.anchor is not None
        found = _ANCHOR.match(self.source.text, start, end) if named else None
        return int(start if found is None else found.end())

    def scalar(self, event: Any, span: Span) -> Node:
        plain = event.style is None and event.tag is None
        value = scalar(event.value) if plain else event.value
        if not isinstance(value, str) or self.awaits_key:
            return Node(event.value if self.awaits_key else value, span)
        start, raw = span.start, self.source.text[span.start : span.end]
        if event.style in ("|", ">"):
            head = raw.find("\n") + 1
            raw, start = raw[head:], start + head
        elif event.style is not None:
            raw, start = raw[1:-1], start + 1
        return Node(value, span, align(raw, start, value, event.style or ""))

    @property
    def awaits_key(self) -> bool:
        return bool(self.stack) and self.stack[-1].is_mapping and self.stack[-1].key is None

    def add(self, node: Node, span: Span, anchor: str | None) -> None:
        if anchor is not None:
            self.anchors[anchor] = node
        self.count += 1
        if node.size > MOST or self.count > MOST:
            raise too_many(self.source, span)
        if not self.stack:
            self.root = node
            return
        top = self.stack[-1]
        if not top.is_mapping:
            top.items.append(node)
        elif top.key is None:
            if not isinstance(node.value, str):
                raise _broken(self.source, "a key is a word of its own", span.start)
            if node.value in top.named:
                raise twice(self.source, node.value, span, top.keys[node.value])
            top.key = node.value
            top.keys[top.key] = span
        else:
            top.named[top.key], top.key = node, None

    def close(self, end: int) -> None:
        top = self.stack.pop()
        span = Span(top.start, max(end, top.start + 1))
        node = mapping(top.named, span, top.keys) if top.is_mapping else sequence(top.items, span)
        self.add(node, span, top.anchor)


def twice(source: Source, key: str, span: Span, first: Span) -> UsageError:
    """The error for a key that stands twice in one mapping."""
    line, _ = source.line_column(first.start)
    message = f"the key `{key}` stands here twice"
    notes = (f"the first one is in line {line}",)
    return UsageError(Diagnostic("duplicate-key", message, span, source, notes=notes))


_IN_BRACES = (
    "within `{...}` and `[...]` a text with `,`, `[`, `{` or `: ` stands in quotation marks"
)
_INDENTED = "a text with `: ` in it stands behind `|`, on lines of its own, or in quotation marks"


def _broken(source: Source, problem: str, at: int, help: str | None = None) -> UsageError:
    message = f"this is not the YAML of a config: {problem}"
    return UsageError(Diagnostic("config-syntax", message, Span(at, at + 1), source, help))
