"""Expressions and predicates at one token: naive, recursive, three-valued."""

from __future__ import annotations

import operator
import re
from collections.abc import Mapping, Sequence

import attrs
import numpy as np
from attrs import frozen

from hookql.language import ast
from tests.reference import prediction, values
from tests.reference.models import Subject
from tests.reference.things import ROLES, UNDEFINED, Id, Place, Text, Thing, Truth, Unsure
from tests.reference.trees import OPERANDS, leaves, mentions, subscripts
from tests.reference.values import Value, number


@frozen(eq=False)
class Token:
    """One token of one context, and what the site's module had there."""

    subject: Subject
    context: int
    at: int
    operands: Mapping[str, Value]
    last: int | None = None
    """What ``last`` means in the comparison at hand."""
    defined: bool = False
    """Whether the token leaves of the expression at hand are known to be defined."""

    def kept(self, predicate: ast.Expression | None) -> bool | None:
        """Whether a predicate holds; None where it is undefined. Raises `Unsure`."""
        if predicate is None:
            return True
        answer = self.truth(predicate)
        if answer is None:
            return None
        if not answer.sure():
            raise Unsure
        assert answer.dims == (), "one number a token"
        return bool(answer.array)

    def value(self, expression: ast.Expression) -> Value | None:
        """A value expression; None where a token leaf of it is undefined."""
        if any(self.thing(leaf) is UNDEFINED for leaf in leaves(expression)):
            return None
        known = attrs.evolve(self, defined=True)
        # A key that the query does not see is undefined too, wherever it stands.
        if any(known.thing(part) is UNDEFINED for part in subscripts(expression)):
            return None
        return known.number(expression)

    # --- logic ------------------------------------------------------------------------------------

    def truth(self, node: ast.Expression) -> Value | None:
        """0 or 1, or None; with axes where the expression has them."""
        if isinstance(node, ast.And):
            return self._all([self.truth(part) for part in node.operands])
        if isinstance(node, ast.Or):
            parts = [self.truth(part) for part in node.operands]
            return _not(self._all([_not(part) for part in parts]))
        if isinstance(node, ast.Not):
            return _not(self.truth(node.operand))
        if isinstance(node, ast.Compare):
            pairs = zip(node.operands, node.ops, node.operands[1:], strict=False)
            return self._all([self._compare(a, op, b) for a, op, b in pairs])
        if isinstance(node, ast.Membership):
            found = [self._compare(node.value, "==", member) for member in node.members]
            answer = _not(self._all([_not(part) for part in found]))
            return _not(answer) if node.negated else answer
        if isinstance(node, ast.Match):
            thing = self.thing(node.value)
            if thing is UNDEFINED:
                return None
            text = thing.text if isinstance(thing, Text) else self._spelled(thing.id)
            return number(re.search(node.regex.pattern, text) is not None)
        if isinstance(node, ast.Within):
            return number(self._within(node.pattern))
        thing = self.thing(node)
        if thing is UNDEFINED:
            return None
        if isinstance(thing, Truth):
            return number(thing.truth)
        assert isinstance(thing, Value)
        return thing

    def _all(self, parts: Sequence[Value | None]) -> Value | None:
        known = number(1)
        for part in parts:
            if part is not None:
                known = values.both(known, part)
        if None not in parts:
            return known
        # Undefined, unless what is known is false already.
        assert known.dims == (), "nothing is undefined inside a value expression"
        return known if known.sure() and not known.array else None

    def _compare(self, left: ast.Expression, op: str, right: ast.Expression) -> Value | None:
        for one, other in ((left, right), (right, left)):
            if isinstance(other, ast.Name) and other.id == "none":
                return number((self.thing(one) is UNDEFINED) == (op == "=="))
        if self.last is None and (mentions(left, ["last"]) or mentions(right, ["last"])):
            return self._from_the_end(left, op, right)
        a, b = self.thing(left), self.thing(right)
        if a is UNDEFINED or b is UNDEFINED:
            return None
        if isinstance(a, Id) or isinstance(b, Id):
            return self._compare_ids(a, op, b, left, right)
        if isinstance(a, Text):
            assert isinstance(b, Text)
            return number(_OF_TEXTS[op](a.text, b.text))
        if isinstance(a, Truth) or isinstance(b, Truth):
            return number((_plain(a) == _plain(b)) == (op == "=="))
        return values.compare(op, self._counted(a, b, left), self._counted(b, a, right))

    def _from_the_end(self, left: ast.Expression, op: str, right: ast.Expression) -> Value | None:
        of_content = any(mentions(side, ["content_position"]) for side in (left, right))
        place = self._name("content_position" if of_content else "position")
        if place is UNDEFINED:
            return None
        assert isinstance(place, Place)
        return attrs.evolve(self, last=place.of - 1)._compare(left, op, right)

    def _counted(self, thing: Thing, other: Thing, node: ast.Expression) -> Value:
        """A number; a negative literal beside a position counts from the end."""
        if isinstance(thing, Place):
            return number(thing.at)
        assert isinstance(thing, Value)
        written = isinstance(node, ast.Unary) and isinstance(node.operand, ast.Number)
        if isinstance(other, Place) and written:
            return number(float(thing.array) + other.of)
        return thing

    def _compare_ids(
        self, a: Thing, op: str, b: Thing, left: ast.Expression, right: ast.Expression
    ) -> Value:
        token, other = (a, b) if isinstance(a, Id) else (b, a)
        assert isinstance(token, Id)
        if isinstance(other, Id):
            same = token.id == other.id
        elif isinstance(other, Text):
            spelled = self._spelled(token.id)
            exact = other.text != other.text.strip()
            same = (spelled if exact else spelled.strip()) == other.text
        else:
            return values.compare(op, number(token.id), other)
        return number(same == (op == "=="))

    def _spelled(self, id: int) -> str:
        text: str = self.subject.tokenizer.decode([id])
        return text

    def _within(self, pattern: ast.String | ast.Regex) -> bool:
        context = self.subject.contexts[self.context]
        span = context.spans[self.at]
        if span is None:
            return False
        text = pattern.value if isinstance(pattern, ast.String) else pattern.pattern
        regex = re.escape(text) if isinstance(pattern, ast.String) else text
        found = re.finditer(regex, context.text)
        return any(m.start() < span[1] and span[0] < m.end() for m in found)

    # --- numbers ----------------------------------------------------------------------------------

    def number(self, node: ast.Expression) -> Value:
        """A number or numbers; positions, ids and truth are numbers here."""
        thing = self.thing(node)
        assert thing is not UNDEFINED
        if isinstance(thing, Id):
            return number(thing.id)
        if isinstance(thing, Place):
            return number(thing.at)
        if isinstance(thing, Truth):
            return number(thing.truth)
        assert isinstance(thing, Value), thing
        return thing

    def thing(self, node: ast.Expression) -> Thing:
        """Whatever an expression is at this token."""
        if isinstance(node, ast.Call | ast.Subscript) and not self.defined:
            # Of a predicate, what reads the site is one number or undefined as a whole.
            return self.value(node) if mentions(node, OPERANDS) else self._thing(node)
        return self._thing(node)

    def _thing(self, node: ast.Expression) -> Thing:
        if isinstance(node, ast.Number):
            return number(node.value)
        if isinstance(node, ast.String):
            return Text(node.value)
        if isinstance(node, ast.Name):
            return self._name(node.id)
        if isinstance(node, ast.Row):
            return self._row(node.column)
        if isinstance(node, ast.Unary):
            below = self.thing(node.operand)
            return None if below is None else values.negative(self.number(node.operand))
        if isinstance(node, ast.Binary):
            if self.thing(node.left) is UNDEFINED or self.thing(node.right) is UNDEFINED:
                return None
            return self._arithmetic(node)
        if isinstance(node, ast.Subscript):
            index = node.index
            if isinstance(index, ast.Slice):
                index = slice(index.start, index.stop, index.step)
            if self.thing(node.value) is UNDEFINED:
                return None
            return values.taken(self.number(node.value), index, node.dimension)
        if isinstance(node, ast.Call):
            return self._call(node)
        return self.truth(node)

    def _arithmetic(self, node: ast.Binary) -> Value:
        return values.binary(node.op, self.number(node.left), self.number(node.right))

    def _call(self, node: ast.Call) -> Value | None:
        given = [argument.value for argument in node.arguments]
        if any(self.thing(one) is UNDEFINED for one in given):
            return None
        numbers = [self.number(one) for one in given]
        name = node.function
        if name in values.ELEMENTWISE:
            return values.elementwise(name, numbers[0])
        if name == "clip":
            return values.clip(numbers[0], float(numbers[1].array), float(numbers[2].array))
        if name == "norm":
            order = float(numbers[1].array) if len(numbers) > 1 else 2.0
            return values.norm(numbers[0], order)
        if name == "lens":
            return prediction.lens(self.subject, numbers[0])
        return _OF_AXES[name](*numbers)

    def _name(self, name: str) -> Thing:
        context = self.subject.contexts[self.context]
        at = self.at
        if name in self.operands:
            return self.operands[name]
        if name in prediction.SIGNALS:
            found = prediction.signal(self.subject, self.context, at, name)
            return None if found is None else Value(np.float64(found[0]), np.float64(found[1]))
        if name in ROLES:
            id = getattr(self.subject.tokenizer, f"{name}_token_id")
            # Positions of padding are no rows at all.
            return Id(-1 if name == "pad" or id is None else id)
        if name in ("token", "prev", "next"):
            place = at + {"token": 0, "prev": -1, "next": 1}[name]
            return Id(context.ids[place]) if 0 <= place < len(context) else None
        if name == "position":
            return Place(at, len(context))
        if name == "content_position":
            place_ = context.content_position(at)
            return None if place_ is None else Place(place_, context.content_length())
        if name == "last":
            assert self.last is not None
            return number(self.last)
        if name in ("true", "false"):
            return Truth(name == "true")
        plain = {
            "special": float(context.special[at]),
            "length": len(context),
            "sample": context.sample,
            "chunk": context.chunk,
            "offset": context.offset,
        }
        return number(plain[name])

    def _row(self, column: str) -> Thing:
        found = self.subject.contexts[self.context].row[column]
        if found is None:
            return None
        if isinstance(found, bool):
            return Truth(found)
        return Text(found) if isinstance(found, str) else number(found)


_OF_TEXTS = {
    "==": operator.eq,
    "!=": operator.ne,
    "<": operator.lt,
    "<=": operator.le,
    ">": operator.gt,
    ">=": operator.ge,
}
_OF_AXES = {
    "dot": values.dot,
    "cos": values.cosine,
    "argmax": values.argmax,
    "softmax": values.softmax,
    "entropy": values.entropy,
    "kl": values.divergence,
}


def _not(value: Value | None) -> Value | None:
    return None if value is None else values.inverted(value)


def _plain(thing: Thing) -> float:
    return float(thing.truth) if isinstance(thing, Truth) else float(thing.array)  # type: ignore[union-attr]
