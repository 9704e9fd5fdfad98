"""What a config holds, whatever it was written in, and where in its file each piece stands."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from typing import Any

from attrs import field, frozen

from hookql.errors import Diagnostic, Source, Span, UsageError

LONGEST = 250_000
"""Characters of a config: a thousand times what a person writes, read within two seconds."""

DEEPEST = 20
"""Levels of a config; a setting stands on the fifth."""

MOST = 10_000
"""Values of a config, each as often as an alias repeats it."""

Where = tuple[str | int, ...]
"""The keys and numbers that lead from the whole config to one of its values."""


@frozen(eq=False)
class Node:
    """A value: a plain one, a tuple of nodes, or a mapping of nodes.

    ``at`` says of each character of a text where in the file it stands; ``keys`` of each key of a
    mapping; ``size`` is the number of values in it. All are empty for what comes from Python.
    """

    value: Any
    span: Span | None = None
    at: Sequence[int] | None = None
    keys: Mapping[str, Span] = field(factory=dict)
    size: int = 1

    def plain(self) -> Any:
        """The value as Python's own dictionaries, lists, texts and numbers."""
        if isinstance(self.value, Mapping):
            return {name: node.plain() for name, node in self.value.items()}
        if isinstance(self.value, tuple):
            return [node.plain() for node in self.value]
        return self.value


@frozen(eq=False)
class Document:
    """A whole config; ``source`` is None for one from Python, and ``name`` what it is called."""

    root: Node
    name: str
    source: Source | None = None

    def node(self, path: Where) -> Node:
        """The value at a path, or the innermost one around it that was written down."""
        node = self.root
        for step in path:
            inner, found = node.value, None
            if isinstance(inner, Mapping):
                found = inner.get(step)
            elif isinstance(inner, tuple) and isinstance(step, int) and step < len(inner):
                found = inner[step]
            if found is None:
                break
            node = found
        return node

    def span(self, path: Where) -> Span | None:
        """Where the value at a path stands; of more than a line, its key alone."""
        span = self.node(path).span
        if span is None or self.source is None:
            return None
        short = "\n" not in self.source.text[span.start : span.end].rstrip()
        return span if short else self.key(path)

    def key(self, path: Where) -> Span | None:
        """Where the key of a value stands; of the whole config, nowhere."""
        for length in range(len(path), 0, -1):
            keys = self.node(path[: length - 1]).keys
            if path[length - 1] in keys:
                return keys[str(path[length - 1])]
        return None

    @property
    def beginning(self) -> Span | None:
        """The first character of the file."""
        return None if self.source is None else Span(0, 1)

    def wrong(
        self,
        code: str,
        message: str,
        span: Span | None = None,
        help: str | None = None,
        notes: tuple[str, ...] = (),
    ) -> Diagnostic:
        """A diagnostic that points into the file, if there is one."""
        source = self.source if span is not None else None
        return Diagnostic(code, message, span, source, help, notes)


def said(path: Where) -> str:
    """``queries.attn.data.texts[2]``: a path as messages write it."""
    words = ""
    for step in path:
        dot = "." if words else ""
        words += f"[{step}]" if isinstance(step, int) else f"{dot}{step}"
    return words


def described(value: Any) -> str:
    """A value as a message names it."""
    if value is None:
        return "nothing"
    if isinstance(value, bool):
        return str(value).lower()
    if value == "":
        return "an empty text"
    if isinstance(value, str):
        return f"the text `{value if len(value) <= 40 else value[:40] + '…'}`"
    if isinstance(value, int | float):
        return str(value)[:40]
    if isinstance(value, list | dict):
        return "a list" if isinstance(value, list) else "a mapping"
    return f"a value of the type `{type(value).__name__}`"


def sequence(items: Sequence[Node], span: Span | None = None) -> Node:
    """A node of several."""
    return Node(tuple(items), span, size=1 + sum(item.size for item in items))


def mapping(
    items: Mapping[str, Node], span: Span | None = None, keys: Mapping[str, Span] | None = None
) -> Node:
    """A node of several by name."""
    size = 1 + sum(item.size for item in items.values())
    return Node(dict(items), span, None, keys or {}, size)


def too_deep(source: Source | None = None, span: Span | None = None) -> UsageError:
    """The error for a config that is nested deeper than any setting."""
    message = f"a config is nested at most {DEEPEST} levels deep"
    return UsageError(Diagnostic("too-deep", message, span, source))


def too_many(source: Source | None = None, span: Span | None = None) -> UsageError:
    """The error for a config of more values than anybody writes, mostly by aliases of aliases."""
    message = f"a config has at most {MOST:,} values, counted as often as an alias repeats them"
    return UsageError(Diagnostic("too-many", message, span, source))


def from_python(value: Any, depth: int = 0) -> Node:
    """The node of plain Python values, and of an OmegaConf node with its interpolations resolved.

    Raises UsageError for what is nested too deep (in itself, too) or too large, and for keys that
    are the same text, such as 1 and "1".
    """
    if type(value).__module__.partition(".")[0] == "omegaconf":
        value = _resolved(value)
    if depth > DEEPEST:
        raise too_deep()
    if isinstance(value, Mapping):
        if len({str(key) for key in value}) < len(value):
            raise _twice(value)
        node = mapping({str(k): from_python(v, depth + 1) for k, v in value.items()})
    elif isinstance(value, list | tuple):
        if len(value) > MOST:
            raise too_many()
        node = sequence([from_python(each, depth + 1) for each in value])
    else:
        node = Node(os.fspath(value) if isinstance(value, os.PathLike) else value)
    if node.size > MOST:
        raise too_many()
    return node


def _twice(value: Mapping[Any, Any]) -> UsageError:
    names = [str(key) for key in value]
    name = next(name for name in names if names.count(name) > 1)
    kinds = ", ".join(f"`{type(key).__name__}`" for key in value if str(key) == name)
    message = f"the key `{name}` stands twice in a mapping, as {kinds}"
    return UsageError(Diagnostic("duplicate-key", message))


def _resolved(value: Any) -> Any:
    """The plain values of an OmegaConf node. Raises UsageError for a broken interpolation."""
    from omegaconf import OmegaConf
    from omegaconf.errors import OmegaConfBaseException

    try:
        return OmegaConf.to_container(value, resolve=True, throw_on_missing=True)
    except OmegaConfBaseException as error:
        reason = str(error).strip().partition("\n")[0]
        message = f"OmegaConf cannot resolve the config: {reason}"
        raise UsageError(Diagnostic("config-interpolation", message)) from error
