"""What may stand in a predicate, one compiled function for each kind of operand."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from functools import partial
from typing import TypeAlias

import numpy as np

from hookql.data.batches import Batch
from hookql.errors import Diagnostic, Source, did_you_mean, listing
from hookql.language import ast
from hookql.language.values import mentions_values, needs_text, signals_in
from hookql.predicates import rows
from hookql.predicates.columns import COLUMNS, Extent, random
from hookql.predicates.functions import FUNCTIONS, TESTS
from hookql.predicates.offered import called_offered
from hookql.predicates.trees import CONSTANTS, constant_number, is_truth
from hookql.predicates.values import Values, everywhere
from hookql.predicates.vocabulary import ROLES, Vocabulary

Read: TypeAlias = Callable[[Batch], Values]
ALL_ROLES = (*ROLES, "pad")
NEVER = everywhere(False)


class Operands:
    """Compiles operands, collecting what is wrong in ``diagnostics`` instead of raising it."""

    def __init__(
        self, vocabulary: Vocabulary, source: Source, columns: Collection[str] | None
    ) -> None:
        self.vocabulary = vocabulary
        self.source = source
        self.columns = columns
        self.diagnostics: list[Diagnostic] = []
        # What a batch must bring beside its tokens.
        self.signals: set[str] = set()
        self.values: dict[ast.Expression, None] = {}
        self.text = False

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
        return lambda batch: NEVER

    def kind(self, node: ast.Expression) -> str:
        """id, number, bool, row, word, text, role, none, or other."""
        match node:
            case ast.Call() | ast.Subscript() if is_truth(node):
                return "bool"
            case ast.Number() | ast.Unary() | ast.Binary() | ast.Name("last"):
                return "number"
            case ast.Name() | ast.Call() | ast.Subscript() if mentions_values(node):
                return "number"
            case ast.Call(name) if name in FUNCTIONS:
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
            case ast.And() | ast.Or() | ast.Not() | ast.Compare() | ast.Membership():
                return "bool"
            case ast.Match() | ast.Within():
                return "bool"
        return "other"

    def atom(self, node: ast.Expression) -> Read:
        """A truth value that is no logic and no comparison."""
        match node:
            case ast.Name("true" | "false" as name):
                constant = everywhere(CONSTANTS[name])
                return lambda batch: constant
            case ast.Name(name) if name in COLUMNS and COLUMNS[name].kind == "bool":
                return self.column(name)
            case ast.Row():
                place = self.place(node)
                return lambda batch: rows.truths(batch, partial(rows.boolean, place=place))
            case ast.Call() | ast.Subscript() if is_truth(node) and mentions_values(node):
                return _nonzero(self.leaf(node))
            case ast.Call(name) if name in TESTS:
                return self.function(node)
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
            case ast.Name(name) if name in COLUMNS and COLUMNS[name].kind in ("id", "number"):
                return self.column(name)
            case ast.Name() | ast.Call() | ast.Subscript() if mentions_values(node):
                return self.leaf(node)
            case ast.Call(name) if name in FUNCTIONS:
                return self.function(node)
            case ast.Row():
                place = self.place(node)
                return lambda batch: rows.numbers(batch, partial(rows.number, place=place))
            case ast.Unary("-", operand):
                return _arithmetic("-", self.numeric(ast.Number(0)), self._term(operand, end))
            case ast.Binary(op, left, right):
                return _arithmetic(op, self._term(left, end), self._term(right, end))
        return self.unusable(node, "a number")

    def column(self, name: str) -> Read:
        """A column of the token by its name; notes the signals among them."""
        if COLUMNS[name].signal:
            self.signals.add(name)
        return COLUMNS[name].read

    def word(self, node: ast.Expression) -> Read:
        """A column of texts, as `role`."""
        assert isinstance(node, ast.Name)
        return self.column(node.id)

    def leaf(self, node: ast.Expression) -> Read:
        """One number of the module at each token: whoever runs the model puts it in the batch."""
        self.values.setdefault(node)
        self.signals |= signals_in(node)
        self.text = self.text or needs_text(node)
        return lambda batch: batch.values[node]

    def function(self, node: ast.Call) -> Read:
        """A function of one number, number by number."""
        if (called := called_offered(node)) is not None:
            return self._offered(node, *called)
        apply = FUNCTIONS[node.function]
        value, *others = [argument.value for argument in node.arguments] or [node]
        bounds = [constant_number(other) for other in others]
        if len(bounds) != (2 if node.function == "clip" else 0) or None in bounds or value is node:
            return self.wrong("bad-argument", f"`{node.function}` is not called so", node)
        read = self._term(value)

        def number(batch: Batch) -> Values:
            values = read(batch)
            with np.errstate(all="ignore"):
                return Values(apply(values.value.astype(np.float64), *bounds), values.defined)

        return number

    def _offered(
        self, node: ast.Call, values: Sequence[ast.Expression], literals: Mapping[str, float]
    ) -> Read:
        """A function of another package, of one number or of several."""
        apply, parts = FUNCTIONS[node.function], [self._term(value) for value in values]

        def number(batch: Batch) -> Values:
            given = [read(batch) for read in parts]
            arrays = [np.broadcast_to(v.value, batch.ids.shape) for v in given]
            there = [np.broadcast_to(v.defined, batch.ids.shape) for v in given]
            return Values(apply(*arrays, **literals), np.logical_and.reduce(there))

        return number

    def amount(self, node: ast.Row) -> Read:
        """The number of each token's sample in a column of the data, a boolean as 0 or 1."""
        place = self.place(node)
        return lambda batch: rows.numbers(batch, partial(rows.amount, place=place))

    def _term(self, node: ast.Expression, end: Extent | None = None) -> Read:
        """What is reckoned with: a number, or a truth value as 0 or 1."""
        return self.amount(node) if isinstance(node, ast.Row) else self.numeric(node, end)

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
            case ast.Subscript() | ast.Call():
                return self.wrong("wrong-kind", "a token has no axis for this", node)
        return self.wrong("wrong-kind", f"this is not {wanted}", node)

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


def _nonzero(read: Read) -> Read:
    """A truth value that comes as 0 or 1."""

    def truth(batch: Batch) -> Values:
        values = read(batch)
        return Values(values.value != 0, values.defined)

    return truth


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
