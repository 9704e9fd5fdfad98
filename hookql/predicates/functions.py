"""Functions of one number, as predicates and token columns may use them: in float64."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from hookql.language.pieces import Known
from hookql.predicates.offered import by_number, works_by_number
from hookql.predicates.values import Array


def _relu(value: Array) -> Array:
    """The positive part; NaN stays NaN."""
    return np.maximum(value, 0.0)


FUNCTIONS: Known[Callable[..., Any]] = Known("function", by_number, works_by_number)
"""Those of HookQL, and those of other packages that work number by number."""

FUNCTIONS.own |= {
    "abs": np.abs,
    "sqrt": np.sqrt,
    "square": np.square,
    "exp": np.exp,
    "log": np.log,
    "relu": _relu,
    "sign": np.sign,
    "clip": np.clip,
    "isfinite": np.isfinite,
    "isnan": np.isnan,
}
TESTS = ("isfinite", "isnan")
"""Those that are true or false."""
