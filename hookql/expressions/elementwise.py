"""Functions of one number at a time."""

from __future__ import annotations

import torch
from torch import Tensor

from hookql.expressions.functions import function
from hookql.statistics.core import Parameter


@function("abs", exact=True)
def absolute(x: Tensor) -> Tensor:
    """``|x|``."""
    return x.abs()


@function("sqrt")
def sqrt(x: Tensor) -> Tensor:
    """The square root; NaN below 0."""
    return x.sqrt()


@function("square")
def square(x: Tensor) -> Tensor:
    """``x * x``."""
    return x * x


@function("exp")
def exp(x: Tensor) -> Tensor:
    """``e ** x``."""
    return x.exp()


@function("log")
def log(x: Tensor) -> Tensor:
    """The natural logarithm; -inf at 0, NaN below."""
    return x.log()


@function("relu", exact=True)
def relu(x: Tensor) -> Tensor:
    """``max(x, 0)``; NaN stays NaN."""
    return x.relu()


@function("sign", exact=True)
def sign(x: Tensor) -> Tensor:
    """-1, 0 or 1; NaN stays NaN."""
    return torch.where(x.isnan(), x, x.sign())


def _ordered(lo: float, hi: float) -> str | None:
    return "the lower bound of `clip` is above the upper one" if lo > hi else None


@function(
    "clip",
    parameters=(Parameter("lo", None), Parameter("hi", None)),
    exact=True,
    check=_ordered,
)
def clip(x: Tensor, lo: float, hi: float) -> Tensor:
    """``min(max(x, lo), hi)``; NaN stays NaN."""
    if not (is_float32(lo) and is_float32(hi)):
        x = x.double()  # a bound of 0.1 is the float64 that is meant
    return x.clamp(lo, hi)


@function("isfinite", kind="truth", exact=True)
def isfinite(x: Tensor) -> Tensor:
    """Neither infinite nor NaN."""
    return x.isfinite()


@function("isnan", kind="truth", exact=True)
def isnan(x: Tensor) -> Tensor:
    """Not a number."""
    return x.isnan()


def is_float32(value: float) -> bool:
    """Whether float32 holds a number exactly."""
    return float(torch.tensor(value, dtype=torch.float32)) == value
