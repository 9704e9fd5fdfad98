"""Whether a contestant's numbers are the reference's."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

AGREES = 1e-3
"""What is still the same number, in standard deviations of the feature."""


def deviation(found: Mapping[str, np.ndarray], truth: Mapping[str, np.ndarray]) -> float:
    """How far the worst number lies from the reference, in standard deviations of its feature.

    `mean`, `std`: (site, feature); `top`: the values, (rank, neuron), measured by the spread of the
    neuron; `token`: their tokens, asked for where the ranks next to one lie clearly apart. Numbers
    that are missing, of another shape or not finite are infinitely far; so are other tokens.
    """
    worst = 0.0
    for name, true in truth.items():
        if name == "spread":
            continue
        mine = found.get(name)
        if mine is None or mine.shape != true.shape or not np.isfinite(mine).all():
            return float("inf")
        if name == "rows":
            continue
        if name == "token":
            if not np.array_equal(mine[clear(truth)], true[clear(truth)]):
                return float("inf")
            continue
        scale = truth["spread"] if name == "top" else truth["std"]
        # A feature that hardly varies (few rows, dead neurons) is measured by the others.
        floor = max(float(np.median(scale)) / 100, 1e-12)
        off = np.abs(mine.astype(np.float64) - true) / np.maximum(scale, floor)
        worst = max(worst, float(off.max()))
    # Rows more or fewer than asked for show in the mean; if they should not, they are told here.
    if worst <= AGREES and not np.array_equal(found.get("rows", 0), truth.get("rows", 0)):
        return float("inf")
    return worst


def clear(truth: Mapping[str, np.ndarray]) -> np.ndarray:
    """Which places of a ranking are not disputed: no neighbour within the tolerance."""
    gaps = -np.diff(truth["top"], axis=0) > 2 * AGREES * truth["spread"]
    above = np.concatenate([np.ones_like(gaps[:1]), gaps])
    below = np.concatenate([gaps, np.zeros_like(gaps[:1])])
    result: np.ndarray = above & below
    return result
