"""What may stand in a predicate, one compiled function for each kind of operand."""

from __future__ import annotations

import time
from collections.abc import Callable, Collection
from functools import partial
from typing import TypeAlias

import numpy as np

from hookql.data.batches import Batch
from hookql.data.samples import Sample
from hookql.errors import Diagnostic, QueryError, Source, did_you_mean, listing
from hookql.language import ast
from hookql.predicates import rows
from hookql.predicates.columns import COLUMNS, Extent, random
from hookql.predicates.values import Values, everywhere
from hookql.predicates.vocabulary import PATIENCE, ROLES, Vocabulary, compile_regex, search

Read: TypeAlias = Callable[[Batch], Values]
ALL_ROLES = (*ROLES, "pad")
_CONSTANTS = {"true": True, "false": False}
_NEVER = everywhere(False)


class Operands:
    """Compiles operands, collecting what is wrong in ``diagnostics`` instead of raising it."""

    def __init__(
        self, vocabulary: Vocabulary, source: Source, columns: Collection[str] | None
    ) -> None:
        self.vocabulary = vocabulary
        self.source = source
        self.columns = columns
        self.diagnostics: list[Diagnostic] = []

    def wrong(
        self,
        code: str,
        message: str,
        node: ast.Expression,
        help: str | None = None,
        notes: tuple[str, ...] = (),
    ) -> Read:
        """Note an error, and stand in for what could not be compiled."""
        self.diagnostics.append(Diagnostic(code, message, node.span, self.source, help, notes))
        return lambda batch: _NEVER

    def kind(self, node: ast.Expression) -> str:
        """id, number, bool, row, text, role, none, or other."""
        match node:
            case ast.Number() | ast.Unary() | ast.Binary() | ast.Name("last"):
                return "number"
            case ast.String():
                return "text"
            case ast.Row():
                return "row"
            case ast.Name("none"):
                return "none"
            case ast.Name(name) if name in COLUMNS:
                return COLUMNS[name].kind
            case ast.Name(name) if name in ALL_ROLES:
                return "role"
            case ast.Name("true" | "false") | ast.Call("random"):
                return "bool"
            case ast.And() | ast.Or() | ast.Not() | ast.Compare() | ast.Membership() | ast.Match():
                return "bool"
        return "other"

    def atom(self, node: ast.Expression) -> Read:
        """A truth value that is no logic and no comparison."""
        match node:
            case ast.Name("true" | "false" as name):
                constant = everywhere(_CONSTANTS[name])
                return lambda batch: constant
            case ast.Name(name) if name in COLUMNS and COLUMNS[name].kind == "bool":
                return COLUMNS[name].read
            case ast.Row():
                place = self.place(node)
                return lambda batch: rows.truths(batch, partial(rows.boolean, place=place))
            case ast.Call("random"):
                return self._random(node)
        return self.unusable(node, "a predicate")

    def numeric(self, node: ast.Expression, end: Extent | None = None) -> Read:
        """A number at each token; ``last`` is one less than ``end``."""
        match node:
            case ast.Number(value):
                constant = everywhere(value if abs(value) < 2**63 else float(value))
                return lambda batch: constant
            case ast.Name("last"):
                if end is None:
                    return self.wrong(
                        "lonely-last", "`last` is not compared with a position here", node
                    )
                return lambda batch: everywhere(end(batch) - 1)
            case ast.Name(name) if name in COLUMNS and COLUMNS[name].kind != "bool":
                return COLUMNS[name].read
            case ast.Row():
                place = self.place(node)
                return lambda batch: rows.numbers(batch, partial(rows.number, place=place))
            case ast.Unary("-", operand):
                return _arithmetic("-", self.numeric(ast.Number(0)), self.numeric(operand, end))
            case ast.Binary(op, left, right):
                return _arithmetic(op, self.numeric(left, end), self.numeric(right, end))
        return self.unusable(node, "a number")

    def place(self, node: ast.Row) -> rows.Place:
        """Where a column of the data is asked for; notes an error where the data has none such."""
        if self.columns is not None and node.column not in self.columns:
            self.wrong(
                "unknown-column",
                f"the data has no column `{node.column}`",
                node,
                did_you_mean(node.column, self.columns),
                (f"columns: {listing(tuple(self.columns))}",)
                if self.columns
                else ("what is run has no columns",),
            )
        return rows.Place(node.column, self.source, node.span)

    def match(self, node: ast.Match) -> Read:
        """``token ~ /re/`` by a table over the vocabulary, ``row.NAME ~ /re/`` sample by sample."""
        pattern, span = node.regex.pattern, node.regex.span
        kind = self.kind(node.value)
        if kind not in ("id", "row"):
            return self.unusable(node.value, "text to match")
        try:
            if isinstance(node.value, ast.Row):
                return self._match_row(node.value, node.regex)
            if self.vocabulary.tokenizer is None:
                return self.needs_tokenizer(node.regex, "a pattern")
            table = self.vocabulary.matching(pattern, self.source, span)
        except QueryError as error:
            self.diagnostics.extend(error.diagnostics)
            return lambda batch: _NEVER
        assert isinstance(node.value, ast.Name)
        read = COLUMNS[node.value.id].read

        def look_up(batch: Batch) -> Values:
            ids = read(batch)
            known = (ids.value >= 0) & (ids.value < len(table))
            return Values(table[np.where(known, ids.value, 0)] & known, ids.defined)

        return look_up

    def needs_tokenizer(self, node: ast.Expression, what: str) -> Read:
        return self.wrong(
            "needs-tokenizer",
            f"{what} says nothing about tokens without a tokenizer",
            node,
            "give a tokenizer, or compare with token ids",
        )

    def unusable(self, node: ast.Expression, wanted: str) -> Read:
        """Note that a node cannot stand here."""
        match node:
            case ast.Name(name) if self.kind(node) == "other":
                return self.wrong(
                    "unknown-name",
                    f"there is no column `{name}`",
                    node,
                    did_you_mean(name, COLUMNS),
                    (f"columns: {listing(tuple(COLUMNS))}, row.NAME",),
                )
            case ast.Within() | ast.Subscript() | ast.Call():
                return self.wrong("not-yet", "this is not built yet in a predicate", node)
        return self.wrong("wrong-kind", f"this is not {wanted}", node)

    def _match_row(self, node: ast.Row, pattern: ast.Regex) -> Read:
        place = self.place(node)
        compiled = compile_regex(pattern.pattern, self.source, pattern.span)

        def find(sample: Sample) -> bool | None:
            text = rows.text(sample, place)
            if text is None:
                return None
            deadline = time.monotonic() + PATIENCE
            return search(compiled, text, deadline, self.source, pattern.span)

        return lambda batch: rows.truths(batch, find)

    def _random(self, node: ast.Call) -> Read:
        """``random(rate, seed=0)`` with constant arguments."""
        given: dict[str, int | float | None] = {"rate": None, "seed": 0}
        names = iter(given)
        for argument in node.arguments:
            name = argument.name or next(names, "")
            if name not in given:
                return self.wrong("bad-argument", f"`random` has no parameter `{name}`", node)
            given[name] = constant_number(argument.value)
        rate, seed = given["rate"], given["seed"]
        if rate is None or not 0 <= rate <= 1:
            return self.wrong("bad-argument", "the rate of `random` is a number from 0 to 1", node)
        if not isinstance(seed, int):
            return self.wrong("bad-argument", "the seed of `random` is a whole number", node)
        return lambda batch: random(batch, float(rate), seed)


def constant_number(node: ast.Expression) -> int | float | None:
    """The number that a literal, perhaps negative, writes out; None for anything else."""
    match node:
        case ast.Number(value):
            return value
        case ast.Unary("-", ast.Number(value)):
            return -value
    return None


def constant(node: ast.Expression) -> object:
    """The number, text or boolean that a literal writes out; None for anything else."""
    match node:
        case ast.String(text):
            return text
        case ast.Name("true" | "false" as name):
            return _CONSTANTS[name]
    return constant_number(node)


_ARITHMETIC = {
    "+": np.add,
    "-": np.subtract,
    "*": np.multiply,
    "/": np.divide,
    "**": np.power,
}


def _arithmetic(op: str, left: Read, right: Read) -> Read:
    """In float64, as IEEE has it: 1 / 0 is infinite, 0 / 0 is NaN and equal to nothing."""
    apply = _ARITHMETIC[op]

    def read(batch: Batch) -> Values:
        a, b = left(batch), right(batch)
        with np.errstate(all="ignore"):
            value = apply(a.value.astype(np.float64), b.value.astype(np.float64))
        return Values(value, a.defined & b.defined)

    return read
