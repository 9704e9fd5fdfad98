"""A slow evaluator of predicates, one token at a time, that shares no code with HookQL's.

True, False, or None where the predicate is undefined.
"""

from __future__ import annotations

import math
import operator
import re
from collections.abc import Mapping, Sequence
from typing import Any

from hookql.data.encode import Context
from hookql.data.samples import Field
from hookql.language import ast

_OPS = {
    "==": operator.eq,
    "!=": operator.ne,
    "<": operator.lt,
    "<=": operator.le,
    ">": operator.gt,
    ">=": operator.ge,
    "+": operator.add,
    "-": operator.sub,
    "*": operator.mul,
}
_ROLES = ("bos", "eos", "unk", "cls", "sep", "mask", "pad")
_IDS = ("token", "prev", "next")
_SIGNALS = ("surprisal", "loss", "prob", "rank", "entropy")
_FUNCTIONS = {
    "abs": abs,
    "square": lambda v: v * v,
    "relu": lambda v: v if v != v else max(v, 0.0),
    "sign": lambda v: v if v != v else float((v > 0) - (v < 0)),
    "clip": lambda v, lo, hi: v if v != v else min(max(v, lo), hi),
    "isfinite": math.isfinite,
    "isnan": math.isnan,
}
_TESTS = ("isfinite", "isnan")
Given = Mapping[Any, Sequence[float | None]]


class Reference:
    """Evaluates at one token of one context; ``texts`` are the tokens', ``roles`` their ids.

    ``given`` has, by the `id` of a context, its signals by name and its values by expression.
    """

    def __init__(
        self,
        texts: Sequence[str],
        roles: Mapping[str, int],
        given: Mapping[int, Given] | None = None,
    ) -> None:
        self.texts = texts
        self.roles = roles
        self.given = given or {}

    def __call__(self, node: ast.Expression, context: Context, at: int) -> bool | None:
        if isinstance(node, ast.And):
            return self._all([self(part, context, at) for part in node.operands])
        if isinstance(node, ast.Or):
            parts = [self(part, context, at) for part in node.operands]
            return self._not(self._all([self._not(part) for part in parts]))
        if isinstance(node, ast.Not):
            return self._not(self(node.operand, context, at))
        if isinstance(node, ast.Membership):
            found = [self._pair(node.value, "==", m, context, at) for m in node.members]
            answer = self._not(self._all([self._not(part) for part in found]))
            return self._not(answer) if node.negated else answer
        if isinstance(node, ast.Compare):
            pairs = zip(node.operands, node.ops, node.operands[1:], strict=False)
            return self._all([self._pair(a, op, b, context, at) for a, op, b in pairs])
        if isinstance(node, ast.Match):
            value = self._value(node.value, None, context, at)
            if isinstance(value, int):
                value = self.texts[value]
            return None if value is None else re.search(node.regex.pattern, value) is not None
        if isinstance(node, ast.Within):
            return within(node, context, at)
        if isinstance(node, ast.Call) and node.function == "random":
            rate, seed = (self._value(a.value, None, context, at) for a in node.arguments)
            return self._random(rate, seed, context, at)
        value = self._value(node, None, context, at)
        return {"true": True, "false": False}.get(value, value)

    @staticmethod
    def _not(value: bool | None) -> bool | None:
        return None if value is None else not value

    @staticmethod
    def _all(values: list[bool | None]) -> bool | None:
        if False in values:
            return False
        return None if None in values else True

    def _pair(self, a: Any, op: str, b: Any, context: Context, at: int) -> bool | None:
        if b == ast.Name("none"):
            return (self._value(a, None, context, at) is None) == (op == "==")
        if a == ast.Name("none"):
            return self._pair(b, op, a, context, at)
        if isinstance(b, ast.Name) and b.id in _IDS and not isinstance(a, ast.Name):
            a, b, op = b, a, op.translate(str.maketrans("<>", "><"))
        left, right = self._value(a, b, context, at), self._value(b, a, context, at)
        if isinstance(a, ast.Name) and a.id in _IDS:
            if left is None:
                return None
            if isinstance(b, ast.String):
                text = self.texts[left]
                text = text if b.value != b.value.strip() else text.strip()
                return bool(_OPS[op](text, b.value))
            if isinstance(b, ast.Name) and b.id in _ROLES:
                return bool(_OPS[op](left, self.roles.get(b.id, -1)))
        if left is None or right is None:
            return None
        if isinstance(left, Field) and not isinstance(right, str):
            left = float(left)
        if isinstance(right, Field) and not isinstance(left, str):
            right = float(right)
        return bool(_OPS[op](left, right))

    def _value(self, node: Any, other: Any, context: Context, at: int) -> Any:
        content = [i for i in range(len(context.ids)) if not context.special[i]]
        given = self.given.get(id(context), {})
        if node in given:
            value = given[node][at]
            return bool(value) if isinstance(node, ast.Call) and node.function in _TESTS else value
        if isinstance(node, ast.Call):
            values = [self._value(a.value, None, context, at) for a in node.arguments]
            return None if None in values else _FUNCTIONS[node.function](*values)
        if isinstance(node, ast.And | ast.Or | ast.Not | ast.Compare | ast.Within):
            return self(node, context, at)
        if isinstance(node, ast.Number | ast.String):
            return node.value
        if isinstance(node, ast.Unary):
            assert isinstance(node.operand, ast.Number)
            ends = {"position": len(context.ids), "content_position": len(content)}
            end = ends.get(other.id, 0) if isinstance(other, ast.Name) else 0
            return end - node.operand.value
        if isinstance(node, ast.Binary):
            a = self._value(node.left, other, context, at)
            b = self._value(node.right, other, context, at)
            return None if a is None or b is None else _OPS[node.op](a, b)
        sample = context.samples[context.owner[at]]
        if isinstance(node, ast.Row):
            value = sample.row.get(node.column)
            return None if isinstance(value, Field) and value == "" else value
        assert isinstance(node, ast.Name)
        if node.id in ("true", "false"):
            return node.id == "true"
        if node.id == "last":
            return (len(content) if other.id == "content_position" else len(context.ids)) - 1
        return {
            "token": lambda: int(context.ids[at]),
            "special": lambda: bool(context.special[at]),
            "position": lambda: at,
            "content_position": lambda: content.index(at) if at in content else None,
            "length": lambda: len(context.ids),
            "sample": lambda: sample.index,
            "prev": lambda: int(context.ids[at - 1]) if at else None,
            "chunk": lambda: context.earlier if context.owner[at] == 0 else 0,
            "offset": lambda: int(context.offset[at]),
            "phase": lambda: "prompt" if at < _prompt(context) else "generated",
            "step": lambda: at - _prompt(context) if at >= _prompt(context) else None,
            "role": lambda: None if context.roles is None else str(context.roles[at]) or None,
            **{name: lambda name=name: given[name][at] for name in _SIGNALS},
            "next": lambda: int(context.ids[at + 1]) if at + 1 < len(context.ids) else None,
        }.get(node.id, lambda: None)()

    @staticmethod
    def _random(rate: float, seed: int, context: Context, at: int) -> bool:
        def mix(x: int) -> int:
            x = (x + 0x9E3779B97F4A7C15) % 2**64
            x = (x ^ (x >> 30)) * 0xBF58476D1CE4E5B9 % 2**64
            x = (x ^ (x >> 27)) * 0x94D049BB133111EB % 2**64
            return x ^ (x >> 31)

        state = mix(seed % 2**64)
        chunk = context.earlier if context.owner[at] == 0 else 0
        for part in (context.samples[context.owner[at]].index, chunk, at):
            state = mix(state ^ part)
        return (state >> 11) / 2**53 < rate


def _prompt(context: Context) -> int:
    return len(context.ids) if context.prompt is None else context.prompt


def within(node: ast.Within, context: Context, at: int) -> bool:
    """Whether a character of the token is in a match, found by the standard library."""
    pattern = node.pattern
    regex = re.escape(pattern.value) if isinstance(pattern, ast.String) else pattern.pattern
    text = context.samples[context.owner[at]].text
    matched = {i for match in re.finditer(regex, text) for i in range(*match.span())}
    assert context.spans is not None
    return not matched.isdisjoint(range(*context.spans[at].tolist()))
