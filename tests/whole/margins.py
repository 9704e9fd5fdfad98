"""The margins of the language's second promise, and what is compared within them."""

from __future__ import annotations

from typing import Any

import numpy as np
from attrs import frozen

Array = np.ndarray[Any, Any]


@frozen(eq=False)
class Truth:
    """Truth values, and how far each is from turning: those nearer than ``margin`` may be other."""

    values: Array
    distance: Array | None = None
    margin: Any = 0.0  # a number, or one for each feature
    rounding: float = 0.0  # of the mean, for numbers that are no truths but jump as they do

    def near(self) -> Array:
        """How far each may be off: 0 but beside the threshold, where it may be any other."""
        span = np.ptp(self.values.astype(float))
        return (
            np.zeros(self.values.shape)
            if self.distance is None
            else (span * (self.distance < self.margin))
        )


@frozen(eq=False)
class Case:
    """One capture: its text without ``capture`` and ``as``, and what it must be."""

    query: Any  # str, or a function of what the models told
    expected: Any  # a function of what the models told -> (values, margin)
    variable: str | None = None
    dims: tuple[str, ...] | None = None


def check(expected: Any, actual: Any, margin: Any, what: str = "") -> None:
    """Assert that shapes and NaN are the same and that no number is off by more than margin."""
    expected, actual = np.asarray(expected, float), np.asarray(actual, float)
    assert expected.shape == actual.shape, what
    assert np.isnan(expected).tolist() == np.isnan(actual).tolist(), what
    margin = np.broadcast_to(np.asarray(margin, float), expected.shape)
    bad = np.abs(expected - actual) > margin
    found = [
        (tuple(map(int, place)), expected[tuple(place)], actual[tuple(place)], margin[tuple(place)])
        for place in np.argwhere(bad)[:5]
    ]
    assert [] == found, f"{what}: (place, expected, actual, margin) {found[:2]} of {bad.sum()}"


def mean_of(rows: Any, resolution: float = 4e-7) -> tuple[Array, Array]:
    """The mean of rows (n, ...) and its margin: 1e-5 of the standard deviation.

    A number whose spread is below what float32 resolves of it is held to that. Truths are exact,
    but for those that may be either.
    """
    if isinstance(rows, Truth):
        return rows.values.mean(0), rows.near().mean(0) + rows.rounding + 1e-12
    rows = np.asarray(rows, float)
    return rows.mean(0), np.maximum(1e-5 * rows.std(0), resolution * np.abs(rows).max(0)) + 1e-12


def sum_of(rows: Any, resolution: float = 4e-7) -> tuple[Array, Array]:
    """The sum of rows and its margin, that of the mean times n; of truths it counts exactly."""
    if isinstance(rows, Truth):
        return rows.values.sum(0), rows.near().sum(0) + len(rows.values) * rows.rounding
    mean, margin = mean_of(rows, resolution)
    return mean * len(rows), margin * len(rows)


def softmax(x: Array) -> Array:
    """Softmax over the last axis."""
    powers = np.exp(x - x.max(-1, keepdims=True))
    return powers / powers.sum(-1, keepdims=True)


def gap(values: Array, share: float = 0.5) -> float:
    """A threshold in the widest gap of the values near the one of that rank."""
    ordered = np.unique(values[~np.isnan(values)])
    middle = round(share * (len(ordered) - 2))
    near = range(max(0, middle - 5), min(len(ordered) - 1, middle + 6))
    best = max(near, key=lambda i: ordered[i + 1] - ordered[i])
    return float(f"{(ordered[best] + ordered[best + 1]) / 2:.12g}")


def data_of(node: Any) -> Any:
    """The dataset of a capture of one role."""
    if node.has_data and node.data_vars:
        return node.dataset
    (child,) = node.children.values()
    return child.dataset
