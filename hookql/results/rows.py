"""The rows of a table: layer, call and groups; of many, the middle is left out."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import xarray
from attrs import frozen

from hookql.results.cells import Column
from hookql.results.terminal import cut, quoted, visible
from hookql.statistics import STATISTICS

Array = np.ndarray[Any, Any]
# Parts of every dataset that are no statistic.
SKIPPED = ("skipped_sample", "skipped_chunk", "skipped_reason")
GENERATED = ("generated_sample", "generated_text", "generated_tokens", "generated_ended")
APART = {
    "count",
    "nonfinite",
    "first_nonfinite_sample",
    "first_nonfinite_position",
    *SKIPPED,
    *GENERATED,
}
LEADING = ("layer", "call", "obs")  # dimensions that are not of a raw row itself
MOST_ROWS = 24
WIDEST_KEY = 24  # columns of the terminal


@frozen(eq=False)
class Rows:
    """Some places in the dimensions ``dims``, all in order or the first and the last."""

    dims: tuple[str, ...]
    places: tuple[tuple[int, ...], ...]
    total: int

    def __len__(self) -> int:
        return len(self.places)

    @property
    def left_out(self) -> int:
        """How many rows are not shown; they would stand in the middle."""
        return self.total - len(self.places)

    def each(self, values: xarray.DataArray) -> list[Array]:
        """The values of each row, an array of the remaining axes; no others are read from disk."""
        known = [dim for dim in self.dims if dim in values.dims]
        variable = values.variable  # without coordinates, which cost time
        found = []
        for place in self.places:
            at = dict(zip(self.dims, place, strict=True))
            found.append(np.asarray(variable.isel({dim: at[dim] for dim in known}).values))
        return found


def rows_of(data: xarray.Dataset) -> Rows:
    """The rows of a dataset's table."""
    keys = [key for key in str(data.attrs.get("by", "")).split(", ") if key]
    dims = tuple(dim for dim in ("layer", "call", *keys) if dim in data.dims)
    shape = tuple(data.sizes[dim] for dim in dims)
    total = math.prod(shape)
    half = MOST_ROWS // 2
    shown = range(total) if total <= MOST_ROWS else [*range(half), *range(total - half, total)]
    places = tuple(tuple(int(n) for n in np.unravel_index(row, shape)) for row in shown)
    return Rows(dims, places if dims else ((),), total)


def main_variables(data: xarray.Dataset) -> list[str]:
    """The statistics of a dataset, without what belongs to another one of them."""
    owned = {
        name
        for variable in data.data_vars.values()
        for name in str(variable.attrs.get("ancillary_variables", "")).split()
    }
    apart = {*APART, *owned, *raw_variables(data)}
    return [str(name) for name in data.data_vars if name not in apart]


def raw_variables(data: xarray.Dataset) -> list[str]:
    """The variables that hold rows as they were, and `row_size`, which says whose they are."""
    return [str(n) for n, v in data.data_vars.items() if "obs" in v.dims or n == "row_size"]


def raw_rows(data: xarray.Dataset) -> list[tuple[str, str]]:
    """What there is of raw rows, in words, by the variable's name; none of it is read."""
    found = []
    for name in raw_variables(data):
        values = data[name].variable
        if "obs" in values.dims:
            of = [f"{dim} {size}" for dim, size in values.sizes.items() if dim not in LEADING]
            what = ", ".join(of) if of else "one number"
            found.append((name, f"{values.sizes['obs']:,} rows of {what}, {values.dtype}"))
    return found


def own_dims(values: xarray.DataArray) -> tuple[str, ...]:
    """The dimensions that a variable's statistic brings along, the last ones it has."""
    statistic = STATISTICS.get(str(values.attrs.get("statistic", "")))
    number = len(statistic.dims) if statistic is not None else 0
    return tuple(str(dim) for dim in values.dims[values.ndim - number :])


def label_columns(
    data: xarray.Dataset, rows: Rows, width: int
) -> tuple[list[Column], Column | None]:
    """The columns that say which row it is, and the modules' names if there are layers.

    Texts are cut for a terminal of this width.
    """
    most = WIDEST_KEY if width >= 80 else WIDEST_KEY // 2
    if not rows.dims:
        return [], None
    labels = [
        _label_column(data, dim, [place[number] for place in rows.places], most)
        for number, dim in enumerate(rows.dims)
    ]
    if data["count"].ndim:
        kept = tuple(f"{int(number):,}" for number in rows.each(data["count"]))
        labels.append(Column(("", "tokens", "kept"), kept))
    if "layer" not in rows.dims:
        return labels, None
    modules = tuple(visible(str(name)) for name in rows.each(data["module"]))
    return labels, Column(("", "", "module"), modules, left=True)


def _label_column(data: xarray.Dataset, dim: str, numbers: list[int], most: int) -> Column:
    texts = [
        name
        for name, of in data.coords.items()
        if str(name).startswith(f"{dim}_text") and of.dims == (dim,)
    ]
    if texts:
        spelled = data.coords[texts[0]].variable
        cells = tuple(quoted(str(spelled[number].values), most - 2) for number in numbers)
        return Column(("", "", visible(dim)), cells, left=True)
    if dim not in data.coords:
        return Column(("", "", visible(dim)), tuple(map(str, numbers)))
    values = data.coords[dim].variable
    is_text = values.dtype.kind in "OUT"
    cells = tuple(label_text(values[number].values, most) for number in numbers)
    return Column(("", "", visible(dim)), cells, left=is_text)


def label_text(value: Any, most: int = WIDEST_KEY) -> str:
    """One label: a number, true or false, or a text on one line."""
    value = value.item() if isinstance(value, np.ndarray | np.generic) else value
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, str):
        return cut(visible(value.replace("\n", " ")), most)
    return f"{value:.6g}" if isinstance(value, float) else str(value)
