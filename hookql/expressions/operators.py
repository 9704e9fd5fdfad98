"""Arithmetic, comparisons and logic: of tensors that broadcast, or of one and a plain number."""

from __future__ import annotations

import operator
from collections.abc import Callable, Sequence
from functools import reduce
from typing import Any, TypeAlias

import torch
from torch import Tensor

from hookql.expressions.elementwise import is_float32

Value: TypeAlias = Tensor | float

ARITHMETIC: dict[str, Callable[[Any, Any], Tensor]] = {
    "+": operator.add,
    "-": operator.sub,
    "*": operator.mul,
    "/": operator.truediv,
    "**": operator.pow,
}
"""On float64."""

_COMPARE: dict[str, Callable[[Any, Any], Tensor]] = {
    "==": operator.eq,
    "!=": operator.ne,
    "<": operator.lt,
    "<=": operator.le,
    ">": operator.gt,
    ">=": operator.ge,
}


def compare(op: str, left: Value, right: Value) -> Tensor:
    """One comparison, without rounding: ``x > 0.1`` compares float32 with the float64 0.1."""
    if isinstance(left, Tensor) and not isinstance(right, Tensor) and not is_float32(right):
        left = left.double()
    if isinstance(right, Tensor) and not isinstance(left, Tensor) and not is_float32(left):
        right = right.double()
    return _COMPARE[op](left, right)


def negated(value: Value) -> Tensor:
    """``not a``."""
    return torch.logical_not(_truth(value))


def every(values: Sequence[Value]) -> Tensor:
    """``a and b and ...``."""
    return reduce(torch.logical_and, map(_truth, values))


def some(values: Sequence[Value]) -> Tensor:
    """``a or b or ...``."""
    return reduce(torch.logical_or, map(_truth, values))


def _truth(value: Value) -> Tensor:
    return value if isinstance(value, Tensor) else torch.tensor(bool(value))
