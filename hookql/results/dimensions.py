"""Names of dimensions in one dataset: a name has one size and one set of labels."""

from __future__ import annotations

from collections.abc import Mapping
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
    """The dimensions taken so far, and the coordinates along them."""

    sizes: dict[str, int] = field(factory=dict)
    labels: dict[str, dict[str, Array]] = field(factory=dict)
    coordinates: dict[str, xarray.Variable] = field(factory=dict)

    def named(self, wanted: str, size: int, labels: Mapping[str, Array], variable: str) -> str:
        """The wanted name, or ``wanted_variable`` where another dimension has it already.

        ``labels`` are the coordinates along it, by their names, of which the dimension's own is
        0, 1, 2, ... if it is not given.
        """
        for name in (wanted, f"{wanted}_{variable}"):
            if name not in self.sizes:
                self._take(name, wanted, size, labels, variable)
                return name
            if self.sizes[name] == size and _same(self.labels[name], labels, wanted, size):
                return name
        raise ValueError(f"two dimensions {wanted} of {variable}")

    def _take(
        self, name: str, wanted: str, size: int, labels: Mapping[str, Array], variable: str
    ) -> None:
        self.sizes[name] = size
        self.labels[name] = dict(labels)
        for label, values in labels.items():
            own = label if name == wanted else name if label == wanted else f"{label}_{variable}"
            attributes = {"long_name": LONG_NAMES.get(label, label)}
            self.coordinates[own] = xarray.Variable(name, _plain(values), attributes)


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
