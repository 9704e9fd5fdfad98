"""Names of dimensions in one dataset: a name has one size and one set of labels."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from itertools import count
from typing import Any

import numpy as np
import xarray
from attrs import field, frozen

Array = np.ndarray[Any, Any]
LONG_NAMES = {
    "feature": "index of the feature",
    "head": "index of the head",
    "feature_2": "index of the other feature",
    "quantile": "share of the values below",
    "bin_lo": "lower edge of the bin, in it",
    "bin_hi": "upper edge of the bin, in the last one only",
    "top": "rank, 0 first",
}


@frozen(eq=False)
class Dimensions:
    """The dimensions made so far, and the coordinates along them.

    ``taken`` are the names that something else of the dataset has: no dimension and no coordinate
    is called so.
    """

    taken: Collection[str] = frozenset()
    wanted: dict[str, str] = field(factory=dict)
    sizes: dict[str, int] = field(factory=dict)
    labels: dict[str, dict[str, Array]] = field(factory=dict)
    coordinates: dict[str, xarray.Variable] = field(factory=dict)

    def named(self, wanted: str, size: int, labels: Mapping[str, Array], variable: str) -> str:
        """The dimension of this size and these labels, made where there is none so far.

        It has the wanted name, or ``wanted_variable`` where something else is called so.
        ``labels`` are the coordinates along it, by their names, of which the dimension's own is
        0, 1, 2, ... if it is not given.
        """
        for name, origin in self.wanted.items():
            alike = origin == wanted and self.sizes[name] == size
            if alike and _same(self.labels[name], labels, wanted, size):
                return name
        name = self._free(wanted, variable)
        self.wanted[name] = wanted
        self.sizes[name] = size
        self.labels[name] = dict(labels)
        for label, values in labels.items():
            own = name if label == wanted else self._free(label, variable)
            attributes = {"long_name": LONG_NAMES.get(label, label)}
            self.coordinates[own] = xarray.Variable(name, _plain(values), attributes)
        return name

    def _free(self, wanted: str, variable: str) -> str:
        """A name that nothing of the dataset has: wanted, wanted_variable, wanted_variable_2..."""
        if not self._used(wanted):
            return wanted
        name = f"{wanted}_{variable}"
        return next(
            free for n in count(1) if not self._used(free := name if n == 1 else f"{name}_{n}")
        )

    def _used(self, name: str) -> bool:
        return name in self.taken or name in self.sizes or name in self.coordinates


def _same(mine: Mapping[str, Array], other: Mapping[str, Array], dim: str, size: int) -> bool:
    """Whether labels are equal, where none are 0, 1, 2, ..."""
    counted: dict[str, Array] = {dim: np.arange(size)}
    mine, other = {**counted, **mine}, {**counted, **other}
    return mine.keys() == other.keys() and all(
        np.array_equal(values, other[name]) for name, values in mine.items()
    )


def _plain(values: Array) -> Array:
    array = np.asarray(values)
    return array.astype(np.int64 if array.dtype.kind in "iub" else np.float64)
