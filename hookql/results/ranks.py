"""Rankings as a list: row, neuron, its greatest values, and the tokens at which they stand."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import xarray

from hookql.results.cells import Column, number_texts
from hookql.results.rows import MOST_ROWS, Rows, label_columns, label_text, own_dims
from hookql.results.terminal import quoted
from hookql.statistics import STATISTICS

Array = np.ndarray[Any, Any]
Place = tuple[int, ...]
LONGEST_TOKEN = 20  # characters


def is_ranking(values: xarray.DataArray) -> bool:
    """Whether a statistic is a ranking, as ``top`` is."""
    extra = own_dims(values)
    return len(extra) == 1 and STATISTICS[str(values.attrs["statistic"])].dims == ("top",)


def ranking_columns(
    data: xarray.Dataset, name: str, rows: Rows, width: int, gap: int
) -> tuple[list[Column], str]:
    """The first ranks of the first neurons of each row, as columns; and what is left out.

    As many ranks and neurons are shown as make a table of one height; tokens are cut to fit a
    width, with ``gap`` spaces between columns.
    """
    values = data[name]
    rank = own_dims(values)[0]
    axes = [str(dim) for dim in values.dims if dim not in (*rows.dims, rank)]
    shape = tuple(values.sizes[axis] for axis in axes)
    shown, places = _chosen(rows, shape, values.sizes[rank])
    columns = [_repeated(column, places) for column in label_columns(data, shown, width)[0]]
    for number, axis in enumerate(axes):
        columns.append(
            Column(("", "", axis), tuple(_label(data, axis, p[1][number]) for p in places))
        )
    columns.append(Column(("", "", "rank"), tuple(str(p[2]) for p in places)))

    def cells(part: str) -> list[Any]:
        each = shown.each(data[part])
        return [each[row][(*place, at)] for row, place, at in places]

    columns.append(Column((name, "", "value"), tuple(number_texts(list(map(float, cells(name)))))))
    room = width - sum(column.width + gap for column in columns)
    columns += _token_columns(data, name, cells, room - gap)
    total = rows.total * math.prod(shape) * values.sizes[rank]
    left_out = total - len(places)
    return columns, f"… {left_out:,} more, in the result" if left_out else ""


def _chosen(
    rows: Rows, shape: Sequence[int], ranks: int
) -> tuple[Rows, list[tuple[int, Place, int]]]:
    """Which rows are shown, and of them (row, place in the axes, rank)."""
    shown = Rows(rows.dims, rows.places[:MOST_ROWS], rows.total)
    room = max(1, MOST_ROWS // max(1, len(shown)))
    neurons = math.prod(shape)
    deep = min(ranks, room, 3 if neurons > 1 else room)
    wide = min(neurons, max(1, room // max(1, deep)), 5)
    return shown, [
        (row, tuple(int(n) for n in np.unravel_index(neuron, shape)) if shape else (), rank)
        for row in range(len(shown))
        for neuron in range(wide)
        for rank in range(deep)
    ]


def _repeated(column: Column, places: Sequence[tuple[int, Place, int]]) -> Column:
    cells = tuple(column.cells[row] for row, _, _ in places)
    return Column(column.heading, cells, column.left)


def _label(data: xarray.Dataset, axis: str, number: int) -> str:
    if axis not in data.coords:
        return str(number)
    return label_text(data.coords[axis].variable[number].values)


def _token_columns(
    data: xarray.Dataset, name: str, cells: Callable[[str], list[Any]], room: int
) -> list[Column]:
    """The token of each value and where it stands, as far as the result has them."""
    columns = []
    own = str(data[name].attrs.get("ancillary_variables", "")).split()
    if f"{name}_sample" in own and f"{name}_position" in own:
        parts = ["sample", *(["chunk"] if f"{name}_chunk" in own else []), "position"]
        each = zip(*(cells(f"{name}_{part}") for part in parts), strict=True)
        shown = tuple(":".join(map(str, at)) if at[0] >= 0 else "" for at in each)
        columns.append(Column(("", "", ":".join(parts)), shown, left=True))
        room -= columns[0].width
    if f"{name}_token" in own:
        ids = cells(f"{name}_token")
        known = cells(f"{name}_text") if f"{name}_text" in own else ids
        most = max(4, min(LONGEST_TOKEN, room - 2))
        texts = (quoted(str(text), most) if known is not ids else str(text) for text in known)
        shown = tuple(text if at >= 0 else "" for at, text in zip(ids, texts, strict=True))
        columns.insert(0, Column(("", "", "token"), shown, left=True))
    return columns
