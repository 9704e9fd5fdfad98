"""Text to syntax tree: the only file that imports lark, and only when something is parsed."""

from __future__ import annotations

import functools
import re
from collections.abc import Iterator
from importlib import resources
from typing import TYPE_CHECKING, Any

from hookql.errors import Diagnostic, QueryError, Source, Span
from hookql.language import ast
from hookql.language.automaton import Automaton, Lexeme, Reduce
from hookql.language.build import Builder, span
from hookql.language.limits import excess
from hookql.language.report import MOST
from hookql.language.syntax_errors import diagnose

if TYPE_CHECKING:
    from lark import Lark

LONGEST = 250_000
"""Characters of a query: what is longer was not meant as one, and reading takes 1 kB for each."""

DEEPEST = 100
"""Levels of an expression: deep enough for any query, shallow enough for Python's stack."""

EXAMPLE = "`capture mean from h[0]` is a query"


def parse(text: str, name: str = "<query>") -> ast.Program:
    """The syntax tree of a query text; `name` is what diagnostics call it by (a file's name).

    Raises `QueryError`, and nothing else whatever the text, with every syntax error in it.
    """
    source = Source(text, name)
    _check_characters(source)
    from lark.exceptions import UnexpectedInput

    try:
        tree = _lark().parse(text)
    except UnexpectedInput:
        raise QueryError(diagnose(_automaton(), source)) from None
    if not tree.children:
        raise QueryError(Diagnostic("empty-query", "there is no query here", None, source, EXAMPLE))
    _check_depth(tree, source)
    too_many = excess(tree, source)
    if too_many is not None:
        raise QueryError(too_many)
    builder = Builder(source)
    program = builder.program(tree)
    if builder.problems:
        raise QueryError(sorted(builder.problems, key=_position)[:MOST])
    return program


def tokens(text: str) -> Iterator[Lexeme]:
    """The tokens of a text that `parse` takes, comments left out."""
    return _automaton().tokens(text)


def _position(problem: Diagnostic) -> int:
    return problem.span.start if problem.span else 0


def _check_characters(source: Source) -> None:
    if len(source.text) > LONGEST:
        message = f"a query has at most {LONGEST:,} characters, this one {len(source.text):,}"
        raise QueryError(Diagnostic("too-long", message, Span(0, 1), source))
    # Half a character: it comes from undecodable bytes and no encoding could print it again.
    broken = re.search("[\ud800-\udfff]", source.text)
    if broken:
        shown = Source(re.sub("[\ud800-\udfff]", "�", source.text), source.name)
        message = f"U+{ord(broken[0]):04X} is no character: is the query UTF-8?"
        raise QueryError(Diagnostic("bad-character", message, Span(*broken.span()), shown))


def _check_depth(tree: Any, source: Source) -> None:
    """Refuse what recursion over the tree could not take; itself without recursion."""
    level = [tree]
    # Four levels are those of a statement: program, capture, statistics, statistic.
    for _ in range(DEEPEST + 4):
        level = [c for node in level for c in node.children if not isinstance(c, str)]
        if not level:
            return
    message = f"this is nested more than {DEEPEST} levels deep"
    help = "name a part of it with `let`"
    raise QueryError(Diagnostic("too-deep", message, span(level[0]), source, help))


@functools.cache
def _lark() -> Lark:
    """The parser, built at the first use (about 60 ms)."""
    from lark import Lark

    grammar = resources.files("hookql.grammar").joinpath("hookql.lark").read_text("utf-8")
    return Lark(
        grammar,
        parser="lalr",
        lexer="contextual",
        propagate_positions=True,
        maybe_placeholders=False,
    )


@functools.cache
def _automaton() -> Automaton:
    """Lark's tables in our own words, so that a new lark is met in this function alone."""
    parser: Any = _lark().parser
    table = parser.parser._parse_table
    root = parser.lexer.root_lexer
    actions = {
        state: {
            str(symbol): target
            if isinstance(target, int)
            else Reduce(str(target.origin.name), len(target.expansion))
            for symbol, (_, target) in row.items()
        }
        for state, row in table.states.items()
    }
    return Automaton(
        actions,
        table.start_states["start"],
        table.end_states["start"],
        {str(terminal.name): terminal.pattern.to_regexp() for terminal in root.terminals},
        frozenset(map(str, root.ignore_types)),
    )
