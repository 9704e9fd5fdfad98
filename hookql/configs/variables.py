"""``${NAME}`` and ``${NAME:-default}`` in the texts of a config, put in from the environment."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from itertools import pairwise

from attrs import evolve

from hookql.configs.document import Document, Node, Where, said
from hookql.errors import Diagnostic, Span, suggest

_VARIABLE = re.compile(r"\$\$\{|\$\{([A-Za-z_][A-Za-z0-9_]*)(?:(:-)([^{}]*))?\}|\$\{")


class FromVariable(str):
    """A text that is a variable's whole value: where a number is wanted, it is read as one."""

    __slots__ = ()


def expanded(
    document: Document, environment: Mapping[str, str]
) -> tuple[Document, list[Diagnostic]]:
    """The document with all variables put in, and what is wrong with them.

    ``$${`` stands for ``${`` itself. A variable that is not set, or is empty, is its default.
    """
    problems: list[Diagnostic] = []

    def put_in(node: Node, path: Where) -> Node:
        if isinstance(node.value, Mapping):
            return evolve(node, value={k: put_in(v, (*path, k)) for k, v in node.value.items()})
        if isinstance(node.value, tuple):
            each = (put_in(v, (*path, n)) for n, v in enumerate(node.value))
            return evolve(node, value=tuple(each))
        if not isinstance(node.value, str) or "${" not in node.value:
            return node
        return _text(document, node, path, environment, problems)

    return evolve(document, root=put_in(document.root, ())), problems


def _text(
    document: Document,
    node: Node,
    path: Where,
    environment: Mapping[str, str],
    problems: list[Diagnostic],
) -> Node:
    text: str = node.value
    found = list(_VARIABLE.finditer(text))
    pieces: list[tuple[str, Sequence[int] | None]] = []
    edges = [0, *(edge for match in found for edge in match.span()), len(text)]
    matches = iter(found)
    for number, (start, end) in enumerate(pairwise(edges)):
        places = None if node.at is None else node.at[start:end]
        piece = text[start:end]
        if number % 2:
            match = next(matches)
            span = node.span if not places else Span(places[0], places[-1] + 1)
            piece = _value(document, match, said(path), span, environment, problems)
            places = None if not places else _over(places, len(piece))
        pieces.append((piece, places))
    whole = "".join(piece for piece, _ in pieces)
    at = None if node.at is None else [n for _, places in pieces for n in places or ()]
    alone = len(found) == 1 and found[0].span() == (0, len(text)) and found[0][1] is not None
    return evolve(node, value=FromVariable(whole) if alone else whole, at=at)


def _over(places: Sequence[int], length: int) -> list[int]:
    """As many places, from the first to the last of a variable."""
    return [*[places[0]] * (length - 1), places[-1]][-length:] if length else []


def _value(
    document: Document,
    match: re.Match[str],
    where: str,
    span: Span | None,
    environment: Mapping[str, str],
    problems: list[Diagnostic],
) -> str:
    if match[0] == "$${":
        return "${"
    name, default = match[1], match[3]
    literal = "`$${` stands for the characters `${`"
    if name is None:
        message = f"`{where}` has a `${{` that is no variable"
        help = "a variable is written `${NAME}` or `${NAME:-default}`"
        problems.append(document.wrong("bad-variable", message, span, help, (literal,)))
        return ""
    value = environment.get(name)
    if default is not None:
        return value or str(default)
    if value is None:
        message = f"the environment variable `{name}`, which `{where}` needs, is not set"
        help = f"set it, or write `${{{name}:-default}}`"
        close = suggest(name, environment)
        notes = (literal,) if close is None else (f"`{close}` is set", literal)
        problems.append(document.wrong("unset-variable", message, span, help, notes))
        return ""
    return value
