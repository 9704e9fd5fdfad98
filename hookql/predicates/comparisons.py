"""Logic, comparisons and sets: how operands of each two kinds are compared."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from functools import partial
from itertools import pairwise

import numpy as np
import numpy.typing as npt

from hookql.data.batches import Batch
from hookql.data.samples import Sample
from hookql.language import ast
from hookql.predicates import rows
from hookql.predicates.columns import COLUMNS, Extent
from hookql.predicates.operands import Read
from hookql.predicates.searches import Searches
from hookql.predicates.trees import columns_in, constant, constant_number, spanning
from hookql.predicates.values import Values, conjoin, disjoin, everywhere, negate

_MIRRORED = {"==": "==", "!=": "!=", "<": ">", "<=": ">=", ">": "<", ">=": "<="}
_NUMBERS = ("number", "id")


class Comparisons(Searches):
    """Compiles a whole predicate."""

    def predicate(self, node: ast.Expression) -> Read:
        """A truth value at each token."""
        match node:
            case ast.Not(operand):
                inner = self.predicate(operand)
                return lambda batch: negate(inner(batch))
            case ast.And(operands):
                parts = [self.predicate(operand) for operand in operands]
                return lambda batch: conjoin(part(batch) for part in parts)
            case ast.Or(operands):
                parts = [self.predicate(operand) for operand in operands]
                return lambda batch: disjoin(part(batch) for part in parts)
            case ast.Compare(ops, operands):
                pairs = [
                    self.pair(a, op, b) for op, (a, b) in zip(ops, pairwise(operands), strict=True)
                ]
                return lambda batch: conjoin(pair(batch) for pair in pairs)
            case ast.Membership():
                return self._member(node)
            case ast.Match():
                return self.match(node)
            case ast.Within():
                return self.within(node)
        return self.atom(node)

    def numeric(self, node: ast.Expression, end: Extent | None = None) -> Read:
        """A number at each token; a truth value counts as 0 and 1."""
        if self.kind(node) == "bool":
            read = self.predicate(node)
            return lambda batch: _as_number(read(batch))
        return super().numeric(node, end)

    def pair(self, left: ast.Expression, op: str, right: ast.Expression) -> Read:
        """One comparison of two operands."""
        kinds = self.kind(left), self.kind(right)
        if _rank(kinds[0]) > _rank(kinds[1]):
            # One order of each two kinds is enough.
            return self.pair(right, _MIRRORED[op], left)
        match kinds:
            case (_, "none"):
                return self._is_none(left, op, right)
            case ("id", "text" | "role"):
                return self._is_token(left, op, right)
            case ("word", "text"):
                return self._is_word(left, op, right)
            case ("row", "row"):
                return self._compare_rows(left, op, right)
            case ("row", "text" | "number" | "bool") if constant(right) is not None:
                return self._compare_row(left, op, right)
            case ("row", "bool") | ("bool", "bool"):
                return self._compare_truth(left, op, right)
            case ("row" | "number" | "id", "number" | "id"):
                return self._compare_numbers(left, op, right)
        for node, kind in zip((left, right), kinds, strict=True):
            if kind == "other":
                return self.unusable(node, "something to compare")
        return self.wrong(
            "wrong-kind",
            f"{_NAMES[kinds[0]]} cannot be compared with {_NAMES[kinds[1]]}",
            spanning(left, right),
        )

    def _is_none(self, left: ast.Expression, op: str, right: ast.Expression) -> Read:
        """Whether there is a value: always defined itself."""
        if op not in ("==", "!="):
            return self.wrong("wrong-kind", "`none` has no order", right)
        read = self._presence(left)
        return lambda batch: everywhere(read(batch).defined == (op == "!="))

    def _presence(self, node: ast.Expression) -> Read:
        """Values that are defined where the operand has a value of whatever type."""
        match self.kind(node):
            case "row":
                assert isinstance(node, ast.Row)
                column = self.place(node).column

                def there(sample: Sample) -> bool | None:
                    return True if rows.present(sample, column) is not None else None

                return lambda batch: rows.truths(batch, there)
            case "number" | "id":
                return self.numeric(node)
            case "word":
                return self.word(node)
            case "bool":
                return self.predicate(node)
            case "other":
                return self.unusable(node, "something to compare")
        return self.wrong("wrong-kind", "this is never `none`", node)

    def _is_token(self, left: ast.Expression, op: str, right: ast.Expression) -> Read:
        """An id column against a text or a role."""
        if op not in ("==", "!="):
            return self.wrong("wrong-kind", "a token's text has no order", spanning(left, right))
        return _is_in(self.numeric(left), self._ids(right), negated=op == "!=")

    def _is_word(self, left: ast.Expression, op: str, right: ast.Expression) -> Read:
        """`phase` or `role` against a text."""
        assert isinstance(right, ast.String)
        if op not in ("==", "!="):
            return self.wrong("wrong-kind", "this has no order", spanning(left, right))
        constant = everywhere(right.value)
        return _compared(self.word(left), op, lambda batch: constant)

    def _ids(self, node: ast.Expression) -> npt.NDArray[np.int64]:
        """The ids that a literal of an id column means."""
        none = np.array([], dtype=np.int64)
        if isinstance(node, ast.Number | ast.Unary):
            return np.array([self._id(node)], dtype=np.int64)
        if isinstance(node, ast.Name):
            if node.id != "pad" and self.vocabulary.tokenizer is None:
                self.needs_tokenizer(node, "a role")
                return none
            return self.vocabulary.role_ids(node.id)
        assert isinstance(node, ast.String)
        if self.vocabulary.tokenizer is None:
            self.needs_tokenizer(node, "a text")
            return none
        found = self.vocabulary.ids_of(node.value)
        if not len(found):
            self._unspelled(node)
        return found

    def _unspelled(self, node: ast.String) -> None:
        """Note that no single token spells a text, and how it is split."""
        pieces = self.vocabulary.split(node.value) if node.value else []
        shown = " ".join(f"`{piece}`" for piece in pieces)
        near = node.value.strip()
        if not len(self.vocabulary.ids_of(near)):
            # An uncased tokenizer reads `Paris` as its one token `paris`.
            near = pieces[0].strip() if len(pieces) == 1 else ""
        self.wrong(
            "no-such-token",
            f"no single token spells `{node.value}`" if node.value else "no token is empty",
            node,
            f'did you mean `"{near}"`?' if near and near != node.value else None,
            (f"the tokenizer reads it as {shown}",) if pieces else (),
        )

    def _id(self, node: ast.Expression) -> int:
        """A literal id, if the vocabulary has it."""
        value, size = constant_number(node), self.vocabulary.size
        if value is not None and value == int(value) and 0 <= value < (size or 2**63):
            return int(value)
        ids = f"from 0 to {size - 1}" if size else "whole numbers from 0"
        self.wrong("no-such-token", "there is no token of this id", node, None, (f"ids: {ids}",))
        return -1

    def _compare_rows(self, left: ast.Expression, op: str, right: ast.Expression) -> Read:
        assert isinstance(left, ast.Row)
        assert isinstance(right, ast.Row)
        place, other = self.place(left), self.place(right).column

        def read(sample: Sample) -> bool | None:
            return rows.compare(sample, place, op, rows.present(sample, other))

        return lambda batch: rows.truths(batch, read)

    def _compare_row(self, left: ast.Expression, op: str, right: ast.Expression) -> Read:
        assert isinstance(left, ast.Row)
        if op not in ("==", "!=") and self.kind(right) == "bool":
            return self.wrong("wrong-kind", "true and false have no order", right)
        read = partial(rows.compare, place=self.place(left), op=op, other=constant(right))
        return lambda batch: rows.truths(batch, read)

    def _compare_truth(self, left: ast.Expression, op: str, right: ast.Expression) -> Read:
        if op not in ("==", "!="):
            return self.wrong("wrong-kind", "true and false have no order", spanning(left, right))
        return _compared(self.predicate(left), op, self.predicate(right))

    def _compare_numbers(self, left: ast.Expression, op: str, right: ast.Expression) -> Read:
        if op in ("==", "!="):
            for column, literal in ((left, right), (right, left)):
                if self.kind(column) == "id" and constant_number(literal) is not None:
                    self._id(literal)
        return _compared(self._counted(left, right), op, self._counted(right, left))

    def _counted(self, node: ast.Expression, other: ast.Expression) -> Read:
        """A number; a negative literal against a position counts from the end."""
        value = constant_number(node)
        column = COLUMNS.get(other.id) if isinstance(other, ast.Name) else None
        if value is not None and value < 0 and column is not None and column.extent is not None:
            extent = column.extent
            return lambda batch: everywhere(extent(batch) + value)
        return self.numeric(node, _extent((node, other)))

    def _member(self, node: ast.Membership) -> Read:
        """``in`` is equal to one of the members; ids of all literals are looked up at once."""
        if self.kind(node.value) == "other":
            return self.unusable(node.value, "something to compare")
        literal: list[ast.Expression] = []
        others: list[ast.Expression] = []
        for member in node.members:
            known = self.kind(node.value) == "id" and (
                self.kind(member) in ("text", "role") or constant_number(member) is not None
            )
            (literal if known else others).append(member)
        parts = [self.pair(node.value, "==", member) for member in others]
        if literal:
            ids = np.concatenate([self._ids(member) for member in literal])
            parts.append(_is_in(self.numeric(node.value), ids))
        if node.negated:
            return lambda batch: negate(disjoin(part(batch) for part in parts))
        return lambda batch: disjoin(part(batch) for part in parts)


_ORDER = ("row", "bool", "number", "id", "word", "text", "role", "other", "none")
_NAMES = {
    "row": "a column of the data",
    "bool": "a truth value",
    "number": "a number",
    "id": "a token",
    "word": "a phase or a speaker",
    "text": "a text",
    "role": "a role of tokens",
    "none": "none",
}


def _rank(kind: str) -> int:
    return _ORDER.index(kind)


def _as_number(truth: Values) -> Values:
    return Values(truth.value.astype(np.float64), truth.defined)


def _is_in(read: Read, ids: npt.NDArray[np.int64], negated: bool = False) -> Read:
    def look_up(batch: Batch) -> Values:
        values = read(batch)
        return Values(np.isin(values.value, ids, invert=negated), values.defined)

    return look_up


def _compared(left: Read, op: str, right: Read) -> Read:
    apply: Callable[[npt.NDArray[np.generic], npt.NDArray[np.generic]], npt.NDArray[np.bool_]]
    apply = rows.OPERATORS[op]

    def read(batch: Batch) -> Values:
        a, b = left(batch), right(batch)
        return Values(apply(a.value, b.value), a.defined & b.defined)

    return read


def _extent(nodes: Iterable[ast.Expression]) -> Extent | None:
    """What ``last`` counts in a comparison: the one position that stands in it."""
    found = {name: COLUMNS[name].extent for node in nodes for name in columns_in(node)}
    extents = [extent for extent in found.values() if extent is not None]
    return extents[0] if len(extents) == 1 else None
