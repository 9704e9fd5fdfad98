"""Which values of a block can enter a ranking of the k largest of each column, on a CPU.

Nearly none can once some blocks have passed, so looking must cost little more than one comparison.
Two things make many equal or better values: the first blocks, whose own k-th value is then the bar,
and columns that are often the same, such as dead features, of which only the rows of lowest order
can enter.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import numpy as np

    Array = np.ndarray[Any, Any]


class Screen:
    """The bar of each column: the k-th value so far and its order, perhaps out of date.

    What they keep out stays out, for both only improve. ``tied`` is the value at which a column
    was found to be often the same.
    """

    def __init__(self, k: int, floor: Array, last: Array) -> None:
        """floor float64 (columns,), -inf where there is none yet; last int64 (columns,)."""
        self.k = k
        self.tied: Array | None = None
        self.renew(floor, last)

    def renew(self, floor: Array, last: Array) -> None:
        """Take the bar as it is now."""
        self.floor, self.last = floor, last
        self.single: Array | None = floor.astype("float32")
        if (self.single != floor).any():
            self.single = None  # rows of another dtype came before

    def passing(self, x: Array, order: Array) -> Array:
        """Flat indices of what may enter, of x (n, columns) with orders (n,); never a NaN."""
        import numpy as np

        if x.dtype == np.float32 and self.single is not None:
            floor = self.single
        else:
            x, floor = x.astype(np.float64, copy=False), self.floor
        if self.tied is None:
            self.tied = np.full(len(floor), np.nan)
        last = self.last
        often = self.tied == floor
        bar = self._bar(floor, (last <= order.min()) | often)
        passes = np.greater_equal(x, bar)
        many = 4 * self.k * x.shape[1]
        if len(x) > self.k and np.count_nonzero(passes) > many:
            floor, last = self._raised(x, floor, last)
            counts = np.greater_equal(x, floor).sum(0, dtype=np.int64)
            found = counts > 2 * self.k
            self.tied[found] = floor[found]
            often = self.tied == floor
            passes = np.greater_equal(x, self._bar(floor, (last <= order.min()) | often))
        chosen = np.flatnonzero(passes)
        columns = np.flatnonzero(often & (last > order.min()))
        if not len(columns):
            return chosen
        # An infinite floor has nothing above it, so its equals may have passed.
        column = chosen % x.shape[1]
        twice = often[column] & (x.reshape(-1)[chosen] == floor[column])
        return np.concatenate([chosen[~twice], *self._ties(x, order, floor, last, columns)])

    def _bar(self, floor: Array, strict: Array) -> Array:
        """What a value must reach; above the floor where no equal value can enter."""
        import numpy as np

        above = np.nextafter(floor, np.inf, dtype=floor.dtype)
        bar: Array = np.where(strict, above, floor)
        return bar

    def _raised(self, x: Array, floor: Array, last: Array) -> tuple[Array, Array]:
        """A bar of this block's own k-th values where that is higher."""
        import numpy as np

        columns = np.array(x.T, order="C")  # a copy, which is put in order below
        unknown = np.isnan(columns)
        if unknown.any():
            columns[unknown] = -np.inf
        columns.partition(len(x) - self.k, axis=1)
        own = columns[:, len(x) - self.k]
        higher = own > floor
        return np.where(higher, own, floor), np.where(higher, np.iinfo(np.int64).max, last)

    def _ties(
        self, x: Array, order: Array, floor: Array, last: Array, columns: Array
    ) -> list[Array]:
        """Flat indices of values equal to the floor: of each column the first k by order."""
        import numpy as np

        rows = np.flatnonzero(order < last[columns].max())
        rows = rows[order[rows].argsort()]
        need = np.full(len(columns), self.k)
        chosen, start, step = [], 0, 4 * self.k
        while start < len(rows) and len(columns):
            part = rows[start : start + step]
            equal = x[np.ix_(part, columns)] == floor[columns]
            equal &= order[part][:, None] < last[columns]
            counted = equal.cumsum(0)
            row, column = np.nonzero(equal & (counted <= need))
            chosen.append(part[row] * x.shape[1] + columns[column])
            need = need - counted[-1]
            columns, need = columns[need > 0], need[need > 0]
            start, step = start + step, 4 * step
        return chosen
