"""Columns of statistics with dimensions of their own: quantiles, histograms, matrices."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import xarray

from hookql.results.cells import (
    MEDIAN,
    STAR,
    Column,
    number_column,
    number_text,
    pooled_text,
    sizes_text,
    stands_for,
    summary,
)
from hookql.results.rows import Rows, own_dims
from hookql.statistics import STATISTICS

Array = np.ndarray[Any, Any]
LEVELS = " ▁▂▃▄▅▆▇█"
ASCII_LEVELS = " .:-=+*#@"
WIDEST_SKETCH = 24  # characters
SIDE_BY_SIDE = 4  # quantiles in a column
MATRIX = ("median of diagonal", "largest size elsewhere")
GAP = "  "


def statistic_columns(data: xarray.Dataset, name: str, rows: Rows, ascii: bool) -> list[Column]:
    """A statistic's columns, mostly one: for each row what says most about its numbers."""
    values = data[name]
    extra = own_dims(values)
    statistic = STATISTICS.get(str(values.attrs.get("statistic", "")))
    kind = statistic.dims[0] if statistic is not None and len(extra) == 1 else ""
    axes = [str(dim) for dim in values.dims if dim not in (*rows.dims, *extra)]
    if kind == "quantile":
        return list(_quantiles(values, rows, axes, extra[0]))
    if kind == "bin":
        return [_histogram(data, values, rows, axes, extra[0], ascii)]
    if axes and kind == "feature_2":
        return [_matrix(values, rows, axes, extra[0])]
    said = stands_for(values, [*axes, *extra], pooled_text(values))
    stands = str(values.attrs.get("statistic", name))
    return [number_column(name, said, rows.each(values), stands, ascii)]


def _quantiles(
    values: xarray.DataArray, rows: Rows, axes: Sequence[str], dim: str
) -> Iterator[Column]:
    """A number for each quantile, some side by side; each the median over the axes."""
    shares = [f"{float(q):.6g}" for q in values[dim].values]
    each = [row.reshape(-1, row.shape[-1]) for row in rows.each(values)]
    word, sizes = stands_for(values, axes, pooled_text(values))
    said = " ".join(part for part in (word, sizes) if part)
    for start in range(0, len(shares), SIDE_BY_SIDE):
        part = range(start, min(start + SIDE_BY_SIDE, len(shares)))
        starred = False
        cells = []
        for numbers in each:
            finite = np.isfinite(numbers[:, part.start : part.stop])
            star = STAR if 0 < finite.sum() < finite.size else ""
            starred |= bool(star)
            texts = [number_text(summary(numbers[:, at], MEDIAN[1])) for at in part]
            cells.append("".join(f"{text:>11}" for text in texts) + star)
        heading = (str(values.name), said, "".join(f"{shares[at]:>11}" for at in part))
        yield Column(heading, tuple(cells), left=True, starred=starred)


def _histogram(
    data: xarray.Dataset,
    values: xarray.DataArray,
    rows: Rows,
    axes: Sequence[str],
    dim: str,
    ascii: bool,
) -> Column:
    """A sketch of the bins' counts, of all axes together, with what lies outside beside it."""
    along = [str(name) for name, edges in data.coords.items() if edges.dims == (dim,)]
    low, high = (
        next(data.coords[name].values for name in along if name.startswith(end))
        for end in ("bin_lo", "bin_hi")
    )
    within = np.isfinite(low) & np.isfinite(high)
    below, above = np.isneginf(low), np.isposinf(high) & ~np.isneginf(low)
    cells = []
    for row in rows.each(values):
        counts = row.reshape(-1, row.shape[-1]).sum(0)
        sketch = sparkline(counts[within], ascii)
        outside = [int(counts[part].sum()) for part in (below, above)]
        cells.append((f"{outside[0]:,}", sketch, f"{outside[1]:,}"))
    left = max((len(cell[0]) for cell in cells), default=0)
    edges = (
        f"{number_text(low[within][0])} to {number_text(high[within][-1])}" if any(within) else ""
    )
    said = f"all {sizes_text(values, axes)}" if axes else pooled_text(values)
    texts = tuple(f"{cell[0]:>{left}} |{cell[1]}| {cell[2]}" for cell in cells)
    return Column((str(values.name), said, " " * (left + 2) + edges), texts, left=True)


def sparkline(counts: Array, ascii: bool) -> str:
    """A character for each bin, as high as its count beside the largest; many bins are joined."""
    if len(counts) > WIDEST_SKETCH:
        starts = np.linspace(0, len(counts), WIDEST_SKETCH, endpoint=False).astype(int)
        counts = np.add.reduceat(counts, starts)
    levels = ASCII_LEVELS if ascii else LEVELS
    largest = int(counts.max()) if len(counts) else 0
    steps = len(levels) - 1
    # A bin that is not empty shows, however small it is.
    return "".join(
        levels[max(1, round(int(n) / largest * steps))] if n else levels[0] for n in counts
    )


def _matrix(values: xarray.DataArray, rows: Rows, axes: Sequence[str], dim: str) -> Column:
    """The diagonal's median and the largest number beside it, sign aside."""
    cells = []
    starred = False
    for row in rows.each(values):
        each = row.reshape(-1, *row.shape[-2:])
        finite = np.isfinite(each)
        starred |= 0 < int(finite.sum()) < finite.size
        star = STAR if 0 < int(finite.sum()) < finite.size else ""
        diagonal = summary(np.diagonal(each, axis1=1, axis2=2), MEDIAN[1])
        others = each[:, ~np.eye(each.shape[-1], dtype=bool)]
        beside = summary(np.abs(others), lambda x: float(np.max(x)))
        texts = (number_text(diagonal) + star, number_text(beside) + star)
        cells.append(GAP.join(f"{t:>{len(h)}}" for t, h in zip(texts, MATRIX, strict=True)))
    sizes = sizes_text(values, axes[:-1]) + " × " if axes[1:] else ""
    square = f"{values.sizes[dim]:,} × {sizes_text(values, axes[-1:])}"
    return Column(
        (str(values.name), sizes + square, GAP.join(MATRIX)),
        tuple(cells),
        left=True,
        starred=starred,
    )
