"""Values that may be undefined at some tokens, and the three-valued logic over them."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt
from attrs import frozen

Array: TypeAlias = npt.NDArray[Any]


@frozen(eq=False)
class Values:
    """A value at each token and whether there is one; both broadcast to the batch's (B, S)."""

    value: Array
    defined: npt.NDArray[np.bool_]


EVERYWHERE: npt.NDArray[np.bool_] = np.array(True)


def everywhere(value: object) -> Values:
    """The same value, or an array of values, defined at every token."""
    return Values(np.asarray(value), EVERYWHERE)


def negate(a: Values) -> Values:
    """``not a``: undefined stays undefined."""
    return Values(~a.value, a.defined)


def conjoin(parts: Iterable[Values]) -> Values:
    """``a and b``: one false part makes it false, though another is undefined."""
    all_true: Array = EVERYWHERE
    any_false: Array = ~EVERYWHERE
    for part in parts:
        all_true = all_true & part.defined & part.value
        any_false = any_false | (part.defined & ~part.value)
    return Values(all_true, all_true | any_false)


def disjoin(parts: Iterable[Values]) -> Values:
    """``a or b``: one true part makes it true, though another is undefined."""
    return negate(conjoin(negate(part) for part in parts))
