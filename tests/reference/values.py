"""Numbers with named axes and a bound on how far another run's may be from them.

The engine runs the same model in other batches, so its activations differ in the last bits. Each
value here carries ``err``: how far such a difference can move it, to first order. What depends on a
bit (``x > 0`` beside 0, an `argmax` of two equals) has an error as large as the jump, or infinite:
nothing is asserted about it.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from attrs import frozen

NOISE = 4e-7
"""Of the largest |x|: what float32 resolves, a few units in the last place."""

DISCRETE = 25.0
"""Comparisons and ties nearer than that many errors are unsure: 1e-5 of the largest |x|."""

Array = np.ndarray[Any, Any]


@frozen(eq=False)
class Value:
    """An array, its bound and the names of its axes; numbers at one token."""

    array: Array
    err: Array
    dims: tuple[str, ...] = ()

    def sure(self) -> bool:
        return not self.err.any()


def number(value: float) -> Value:
    """An exact number without axes."""
    return Value(np.float64(value), np.float64(0.0))  # type: ignore[arg-type]


def measured(array: Array, dims: tuple[str, ...], largest: float) -> Value:
    """Activations, known up to the noise of float32 beside the largest of them."""
    return Value(array, np.full(array.shape, NOISE * largest), dims)


def aligned(*values: Value) -> tuple[list[Array], list[Array], tuple[str, ...]]:
    """The arrays and errors of values, their axes in one order and of one number."""
    if all(value.dims == values[0].dims for value in values):
        return [v.array for v in values], [v.err for v in values], values[0].dims
    dims: tuple[str, ...] = ()
    for value in values:
        dims += tuple(d for d in value.dims if d not in dims)

    def spread(array: Array, own: tuple[str, ...]) -> Array:
        order = sorted(range(len(own)), key=lambda i: dims.index(own[i]))
        array = np.transpose(np.asarray(array, np.float64), order)
        return array[tuple(slice(None) if d in own else None for d in dims)]

    return (
        [spread(v.array, v.dims) for v in values],
        [spread(v.err, v.dims) for v in values],
        dims,
    )


def _made(array: Array, err: Array, dims: tuple[str, ...], *errs: Array) -> Value:
    """NaN of certain operands is certain; any other unknown error is boundless."""
    if np.isfinite(array).all() and np.isfinite(err).all():
        return Value(array, np.broadcast_to(err, np.shape(array)), dims)
    known = np.ones(np.shape(array), bool)
    for one in errs:
        known = known & np.isfinite(one)
    err = np.broadcast_to(np.asarray(err, np.float64), np.shape(array))
    err = np.where(
        np.isnan(err) | np.isnan(array), np.where(known & np.isnan(array), 0, np.inf), err
    )
    # An infinity that is certain stays one.
    exact = np.isinf(array) & np.isnan(err) & known
    return Value(np.asarray(array), np.where(exact, 0.0, err), dims)


# --- arithmetic -----------------------------------------------------------------------------------


def binary(op: str, left: Value, right: Value) -> Value:
    """``left op right`` by the names of axes."""
    (a, b), (ea, eb), dims = aligned(left, right)
    array, err = _ARITHMETIC[op](a, b, ea, eb)
    return _made(array, err, dims, ea, eb)


def _power(a: Array, b: Array, ea: Array, eb: Array) -> tuple[Array, Array]:
    result = a**b
    slope = np.where(b == 0, 0.0, np.abs(b) * np.abs(a) ** (b - 1) * ea)
    by_exponent = np.where(eb > 0, np.abs(result * np.log(np.abs(a))) * eb, 0.0)
    err = slope + by_exponent
    # Beside 0, powers that are no whole positive ones may be anything.
    whole = (b == np.round(b)) & (b >= 0) & (eb == 0)
    return result, np.where(~whole & (np.abs(a) <= DISCRETE * ea) & (ea > 0), np.inf, err)


def _divide(a: Array, b: Array, ea: Array, eb: Array) -> tuple[Array, Array]:
    unsure = (np.abs(b) <= DISCRETE * eb) & (eb > 0)
    return a / b, np.where(
        unsure, np.inf, np.where(ea + eb > 0, (ea + np.abs(a / b) * eb) / np.abs(b), 0.0)
    )


_ARITHMETIC: dict[str, Callable[..., tuple[Array, Array]]] = {
    "+": lambda a, b, ea, eb: (a + b, ea + eb),
    "-": lambda a, b, ea, eb: (a - b, ea + eb),
    "*": lambda a, b, ea, eb: (a * b, np.abs(a) * eb + np.abs(b) * ea + ea * eb),
    "/": _divide,
    "**": _power,
}


def negative(value: Value) -> Value:
    """``-x``."""
    return Value(-value.array, value.err, value.dims)


# --- truth: 0 and 1, unsure where both are possible -----------------------------------------------


def compare(op: str, left: Value, right: Value) -> Value:
    """A comparison as 0 or 1."""
    (a, b), (ea, eb), dims = aligned(left, right)
    array = _COMPARISONS[op](a, b).astype(np.float64)
    e = ea + eb
    unsure = (e > 0) & ~(np.abs(a - b) > DISCRETE * e) & ~(np.isnan(a - b) & np.isfinite(e))
    return Value(array, np.where(unsure, 1.0, 0.0), dims)


_COMPARISONS: dict[str, Callable[[Array, Array], Array]] = {
    "==": np.equal,
    "!=": np.not_equal,
    "<": np.less,
    "<=": np.less_equal,
    ">": np.greater,
    ">=": np.greater_equal,
}


def both(left: Value, right: Value) -> Value:
    """``and``: sure where one side is surely false."""
    if not left.dims and not right.dims and not left.err and not right.err:
        return left if left.array <= right.array else right
    (a, b), (ea, eb), dims = aligned(left, right)
    low = np.minimum(np.maximum(a - ea, 0), np.maximum(b - eb, 0))
    high = np.minimum(np.minimum(a + ea, 1), np.minimum(b + eb, 1))
    array = np.minimum(a, b)
    return Value(array, np.maximum(high - array, array - low), dims)


def inverted(value: Value) -> Value:
    """``not``."""
    return Value(1.0 - value.array, value.err, value.dims)


# --- functions ------------------------------------------------------------------------------------


def _sqrt(v: Array, e: Array) -> tuple[Array, Array]:
    return np.sqrt(v), np.where(e == 0, 0.0, np.where(v > DISCRETE * e, e / np.sqrt(v), np.inf))


def _log(v: Array, e: Array) -> tuple[Array, Array]:
    unsure = (np.abs(v) <= DISCRETE * e) & (e > 0)
    return np.log(v), np.where(unsure, np.inf, np.where(e == 0, 0.0, 2 * e / np.abs(v)))


def _root(v: Array, e: Array) -> tuple[Array, Array]:
    """sqrt of what can be 0 but not negative is no danger: it moves by sqrt(e) at most."""
    array, err = _sqrt(v, e)
    beside = (v >= 0) & (v <= DISCRETE * e) & (e > 0)
    return array, np.where(
        np.isnan(array) & (v < -DISCRETE * e), 0.0, np.where(beside, np.inf, err)
    )


def _sign(v: Array, e: Array) -> tuple[Array, Array]:
    return np.sign(v), np.where((np.abs(v) <= DISCRETE * e) & (e > 0), 2.0, 0.0)


ELEMENTWISE: dict[str, Callable[[Array, Array], tuple[Array, Array]]] = {
    "abs": lambda v, e: (np.abs(v), e),
    "sqrt": _root,
    "square": lambda v, e: (v * v, 2 * np.abs(v) * e + e * e),
    "exp": lambda v, e: (np.exp(v), np.exp(v) * np.expm1(e)),
    "log": _log,
    "relu": lambda v, e: (np.where(np.isnan(v), v, np.maximum(v, 0.0)), e),
    "sign": _sign,
    "isfinite": lambda v, e: (np.isfinite(v) * 1.0, np.where(np.isfinite(e), 0.0, 1.0)),
    "isnan": lambda v, e: (np.isnan(v) * 1.0, np.where(np.isfinite(e), 0.0, 1.0)),
}


def elementwise(function: str, value: Value) -> Value:
    """A function of each number."""
    array, err = ELEMENTWISE[function](np.asarray(value.array), np.asarray(value.err))
    return _made(array, err, value.dims, value.err)


def clip(value: Value, low: float, high: float) -> Value:
    """Each number at least ``low`` and at most ``high``."""
    return Value(np.clip(value.array, low, high), value.err, value.dims)


# --- reductions of the last axis ------------------------------------------------------------------


def norm(value: Value, order: float = 2) -> Value:
    """The p-norm along the last axis."""
    array = (np.abs(value.array) ** order).sum(-1) ** (1 / order)
    err = (value.err**order).sum(-1) ** (1 / order)
    return _made(array, err, value.dims[:-1], value.err.max(-1))


def _pair(left: Value, right: Value) -> tuple[Array, Array, Array, Array, tuple[str, ...]]:
    (a, b), (ea, eb), dims = aligned(left, right)
    a, b = np.broadcast_arrays(a, b)
    return a, b, np.broadcast_to(ea, a.shape), np.broadcast_to(eb, b.shape), dims


def dot(left: Value, right: Value) -> Value:
    """The inner product along the last axis."""
    a, b, ea, eb, dims = _pair(left, right)
    err = (np.abs(a) * eb + np.abs(b) * ea + ea * eb).sum(-1)
    return _made((a * b).sum(-1), err, dims[:-1], ea.max(-1), eb.max(-1))


def cosine(left: Value, right: Value) -> Value:
    """The cosine of the angle along the last axis."""
    a, b, ea, eb, dims = _pair(left, right)
    la, lb = np.sqrt((a * a).sum(-1)), np.sqrt((b * b).sum(-1))
    le, lf = np.sqrt((ea * ea).sum(-1)), np.sqrt((eb * eb).sum(-1))
    unsure = ((la <= DISCRETE * le) & (le > 0)) | ((lb <= DISCRETE * lf) & (lf > 0))
    err = np.where(unsure, np.inf, 2 * (le / la + lf / lb))
    return _made((a * b).sum(-1) / (la * lb), err, dims[:-1], le, lf)


def argmax(value: Value) -> Value:
    """The place of the largest along the last axis, the first of equals."""
    place = np.argmax(value.array, -1)
    best = np.take_along_axis(value.array, place[..., None], -1)
    error = np.take_along_axis(value.err, place[..., None], -1) + value.err
    rival = (best - value.array <= DISCRETE * error) & (error > 0)
    np.put_along_axis(rival, place[..., None], False, -1)
    wrong = rival.any(-1) | ~np.isfinite(value.array).all(-1)
    return Value(place.astype(np.float64), np.where(wrong, np.inf, 0.0), value.dims[:-1])


def softmax(value: Value) -> Value:
    """exp(x) / sum(exp(x)) along the last axis."""
    powers = np.exp(value.array - value.array.max(-1, keepdims=True))
    share = powers / powers.sum(-1, keepdims=True)
    err = share * (value.err + (share * value.err).sum(-1, keepdims=True)) + 1e-16 * share
    return _made(share, err, value.dims, value.err)


def entropy(value: Value) -> Value:
    """-sum p log p in nats along the last axis; 0 log 0 is 0."""
    p, e = value.array, value.err
    terms = np.where(p == 0, 0.0, -p * np.log(np.where(p == 0, 1.0, p)))
    err = e * (np.abs(np.log(np.maximum(np.abs(p), np.maximum(e, 1e-300)))) + 1)
    return _made(terms.sum(-1), err.sum(-1), value.dims[:-1], e.max(-1))


def divergence(left: Value, right: Value) -> Value:
    """kl(p, q) = sum p log(p / q) in nats along the last axis."""
    p, q, ep, eq, dims = _pair(left, right)
    ratio = np.where(p == 0, 1.0, p) / q
    terms = np.where(p == 0, 0.0, p * np.log(ratio))
    err = ep * (np.abs(np.log(ratio)) + 1) + np.where(eq > 0, p / q * eq, 0.0)
    return _made(terms.sum(-1), err.sum(-1), dims[:-1], ep.max(-1), eq.max(-1))


# --- indices --------------------------------------------------------------------------------------


def taken(value: Value, index: Any, dimension: str | None) -> Value | None:
    """``x[...]`` on a named axis or the last; None where the axis ends before an index."""
    axis = len(value.dims) - 1 if dimension is None else value.dims.index(dimension)
    size = value.array.shape[axis]
    if isinstance(index, int) and not -size <= index < size:
        return None
    at = (slice(None),) * axis + (list(index) if isinstance(index, tuple) else index,)
    dims = value.dims
    if isinstance(index, int):
        dims = dims[:axis] + dims[axis + 1 :]
    return Value(value.array[at], value.err[at], dims)
