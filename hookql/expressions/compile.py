"""Expressions compiled for one site: shapes and kinds are checked here, before anything runs."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol

import attrs
from attrs import frozen
from torch import Tensor

from hookql.errors import Diagnostic, QueryError, Source
from hookql.expressions.axes import VOCABULARY, Axes, canonical_order
from hookql.expressions.calls import call, check_lens, read_call
from hookql.expressions.combine import Ground, constant, shown
from hookql.expressions.indexing import subscript
from hookql.expressions.logic import arithmetic, comparison, logic, membership, negative
from hookql.expressions.rows import Rows, Term, evaluate, widened
from hookql.language import ast
from hookql.language.formatter import format_expression
from hookql.language.names import VALUES
from hookql.language.walk import fields


class Lens(Protocol):
    """The logit lens of a model: its final norm, unembedding and scaling."""

    @property
    def width(self) -> int:
        """Numbers in a row of the stream."""

    @property
    def vocabulary(self) -> int:
        """Logits of a row."""

    def __call__(self, rows: Tensor) -> Tensor:
        """Rows (n, width) of a residual stream to logits (n, vocabulary)."""


@frozen(eq=False)
class Expression:
    """A value expression, compiled for a site.

    Called with `Rows` it gives (n, \\*axes): float32 where nothing was rounded and the source has
    no more, else float64; a truth as 0 or 1 in float32. ``operands`` are the tensors that it needs,
    of ``x``, ``input`` and ``output``; ``leaves`` its token leaves; ``keys`` the keys of a ragged
    axis that it takes by number, which means nothing in rows that lack them (`Rows` has 0 there).
    ``written`` is as the query has it; ``node`` has ``x`` for ``output`` where they are the same.
    """

    written: ast.Expression
    term: Term
    operands: frozenset[str]
    leaves: tuple[ast.Expression, ...]
    keys: frozenset[int]

    @property
    def node(self) -> ast.Expression:
        """What is computed: expressions of one site with equal nodes are equal."""
        return self.term.key

    @property
    def axes(self) -> Axes:
        """The axes of one row's value."""
        return self.term.axes

    @property
    def labels(self) -> Mapping[str, tuple[int, ...]]:
        """The site's own indices along axes of which only a part is left, as by ``x[[5, 99]]``."""
        return self.term.labels

    @property
    def kind(self) -> str:
        """number, truth or id."""
        return self.term.kind

    def __call__(self, rows: Rows) -> Tensor:
        return evaluate([self.term], rows)[0]


def prepare(expressions: list[Expression], rows: Rows) -> None:
    """Compute several expressions at once, so that those with `lens` share one walk over it.

    Each is then had by calling it with the same rows. Without this a call computes the same.
    """
    evaluate([expression.term for expression in expressions], rows)


def compile_expression(
    node: ast.Expression,
    operands: Mapping[str, Axes],
    leaves: Mapping[ast.Expression, str],
    lens: Lens | Diagnostic | None,
    source: Source,
) -> Expression:
    """Compile a value expression for a site.

    ``operands`` are the axes of ``x``, ``input`` and ``output``, as far as the site has them;
    ``leaves`` the kinds of the token leaves. Raises `QueryError` with all that is wrong.
    """
    compiler = _Compiler(operands, leaves, lens, source)
    term = compiler.term(node)
    keys = frozenset(compiler.keys)
    return Expression(node, term, frozenset(compiler.used), tuple(compiler.found), keys)


def require_scalar(expression: Expression, source: Source) -> None:
    """Raise `QueryError` where an expression, in a predicate, is not one number at each token."""
    axes = expression.axes
    if not axes.names:
        return
    node = expression.written
    one = "".join(f"[{name}=0]" for name in axes.names[:-1]) + "[0]"
    text = format_expression(node)
    bare = isinstance(node, ast.Name | ast.Call | ast.Subscript) and len(text) <= 40
    subject = text if bare else "x"
    help = f"take one, as `{subject}{one}`"
    if len(axes.names) == 1:
        help += f", or all, as `norm({subject})`"
    message = f"{shown(node)} is not one number at each token"
    notes = (f"{shown(node)} has {axes}",)
    raise QueryError(Diagnostic("not-one-number", message, node.span, source, help, notes))


class _Compiler:
    """Walks a syntax tree from the top; raises what is wrong of all of it."""

    def __init__(
        self,
        operands: Mapping[str, Axes],
        leaves: Mapping[ast.Expression, str],
        lens: Lens | Diagnostic | None,
        source: Source,
    ) -> None:
        self.operands = operands
        self.leaves = leaves
        self.lens = lens
        self.ground = Ground(source, canonical_order(tuple(operands.values())))
        self.used: set[str] = set()
        self.found: dict[ast.Expression, None] = {}
        self.keys: set[int] = set()

    def term(self, node: ast.Expression) -> Term:
        """The term of a node."""
        if node in self.leaves:
            return self._leaf(node)
        term = attrs.evolve(self._term(node), key=self._key(node))
        if term.key_read is not None:
            self.keys.add(term.key_read)
        return term

    def _term(self, node: ast.Expression) -> Term:
        ground = self.ground
        match node:
            case ast.Number(value):
                return constant(node, float(value), "number")
            case ast.Name("true" | "false" as word):
                return constant(node, float(word == "true"), "truth")
            case ast.Name():
                return self._operand(node)
            case ast.Unary(_, operand):
                return negative(ground, node, self.term(operand))
            case ast.Binary(_, left, right):
                return arithmetic(ground, node, self._all((left, right)))
            case ast.Compare(_, operands):
                return comparison(ground, node, self._all(operands))
            case ast.Membership(value, members):
                return membership(ground, node, self._all((value, *members)))
            case ast.Not(operand):
                return logic(ground, node, [self.term(operand)])
            case ast.And(operands) | ast.Or(operands):
                return logic(ground, node, self._all(operands))
            case ast.Subscript(value):
                return subscript(ground, node, self.term(value))
            case ast.Call("lens"):
                return self._lens(node)
            case ast.Call():
                called = read_call(ground, node)
                return call(ground, called, self._all(called.values))
        raise self._no_number(node)

    def _all(self, nodes: Sequence[ast.Expression]) -> list[Term]:
        """The terms of several nodes; what is wrong with any of them is said together."""
        terms: list[Term] = []
        problems: list[Diagnostic] = []
        for node in nodes:
            try:
                terms.append(self.term(node))
            except QueryError as error:
                problems += error.diagnostics
        if problems:
            raise QueryError(problems)
        return terms

    def _leaf(self, node: ast.Expression) -> Term:
        kind = self.leaves[node]
        self.found.setdefault(node)

        def compute(rows: Rows) -> Tensor:
            values = rows.leaves[node]
            return values != 0 if kind == "truth" else values.double()

        return Term(node, Axes(), kind, compute)

    def _operand(self, node: ast.Name) -> Term:
        name = self._same(node.id)
        if name in self.operands:
            self.used.add(name)
            axes = self.operands[name]
            hidden = 0.0 if axes.ragged else None
            return Term(
                node, axes, "number", lambda rows: widened(rows.operands[name]), hidden=hidden
            )
        if node.id not in VALUES:
            raise self._no_number(node)
        message = f"there is no `{node.id}` at this site"
        has = " and ".join(f"`{name}`" for name in self.operands)
        notes = (f"it has {has}",)
        raise self.ground.wrong("no-such-operand", message, node, None, notes)

    def _lens(self, node: ast.Call) -> Term:
        if len(node.arguments) != 1:
            message = f"`lens` takes 1 argument, and {len(node.arguments) or 'none'} are given"
            raise self.ground.wrong("wrong-arity", message, node)
        part = self.term(node.arguments[0].value)
        lens = self.lens
        if isinstance(lens, Diagnostic):
            raise QueryError(attrs.evolve(lens, span=node.span, source=self.ground.source))
        if lens is None:
            raise self.ground.wrong("no-lens", "there is no unembedding for `lens` here", node)
        check_lens(self.ground, node, part, lens.width)
        others = part.axes.without(part.axes.names[-1])
        axes = Axes((*others.names, VOCABULARY), (*others.sizes, lens.vocabulary))
        return Term(node, axes, "number", _through(lens, part), (part,))

    def _no_number(self, node: ast.Expression) -> QueryError:
        text = isinstance(node, ast.String | ast.Regex | ast.Match)
        help = "compare the id of a token with a number, or with `next`" if text else None
        message = f"{shown(node)} is no number"
        return self.ground.wrong("wrong-kind", message, node, help)

    def _same(self, name: str) -> str:
        """``output`` of a module is what ``x`` is there."""
        return "x" if name == "output" and {"x", "output"} <= set(self.operands) else name

    def _key(self, node: Any) -> Any:
        """A node with ``output`` written as ``x`` where they are the same."""
        if isinstance(node, ast.Name):
            return attrs.evolve(node, id=self._same(node.id))
        if isinstance(node, ast.Node):
            return attrs.evolve(node, **{k: self._key(v) for k, v in fields(node).items()})
        return tuple(map(self._key, node)) if isinstance(node, tuple) else node


def _through(lens: Lens, part: Term) -> Callable[[Rows], Tensor]:
    def compute(rows: Rows) -> Tensor:
        values = rows.numbers(part)
        logits = lens(values.reshape(-1, lens.width)).to(values.device)
        return widened(logits.reshape(*values.shape[:-1], lens.vocabulary))

    return compute
