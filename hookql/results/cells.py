"""What a table shows of many numbers: one number a layer, said what it is, and a bar."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import xarray
from attrs import frozen

Array = np.ndarray[Any, Any]
# Each layer's many numbers as one that stands for them, and what that one is called.
STANDS_FOR: dict[str, tuple[str, Callable[[Array], float]]] = {
    "mean": ("average of", lambda x: float(np.mean(x))),
    "sum": ("average of", lambda x: float(np.mean(x))),
    "min": ("smallest of", lambda x: float(np.min(x))),
    "max": ("largest of", lambda x: float(np.max(x))),
}
MEDIAN = ("median of", lambda x: float(np.median(x)))
BAR = 8  # cells
EIGHTHS = " ▏▎▍▌▋▊▉█"


@frozen
class Column:
    """A column of a table: three lines of heading, one text a row, and which side it leans to."""

    heading: tuple[str, str, str]
    cells: tuple[str, ...]
    left: bool = False

    @property
    def width(self) -> int:
        """How many characters it takes."""
        return max(map(len, (*self.heading, *self.cells)))

    def lines(self) -> list[str]:
        """Heading and cells, padded to one width."""
        pad = str.ljust if self.left else str.rjust
        return [
            *(pad(line, self.width) for line in self.heading),
            *(pad(cell, self.width) for cell in self.cells),
        ]


def statistic_column(values: xarray.DataArray, rows: Sequence[str], ascii: bool) -> Column:
    """A statistic's column: for each row (layer, call) what stands for its numbers, and a bar.

    A star marks rows in which some numbers are NaN or infinite: they are left out of the summary.
    """
    name = str(values.name)
    axes = [str(dim) for dim in values.dims if dim not in rows]
    ordered = values.transpose(*(dim for dim in rows if dim in values.dims), *axes)
    count = math.prod(ordered.sizes[dim] for dim in ordered.dims if dim in rows)
    table = ordered.values.reshape(count, -1)
    if table.dtype.kind == "i" and not axes:
        return Column((name, "", ""), tuple(f"{int(v):,}" for (v,) in table))
    word, stand = STANDS_FOR.get(values.attrs.get("statistic", name), MEDIAN)
    numbers = [_summary(row, stand) for row in table]
    stars = ["*" if 0 < np.isfinite(row).sum() < row.size else "" for row in table]
    return Column(
        (name, *_said(values, axes, word)),
        tuple(
            f"{number_text(v) + star:>10} {bar:<{BAR}}"
            for v, star, bar in zip(numbers, stars, bars(numbers, ascii), strict=True)
        ),
        left=True,
    )


def _said(values: xarray.DataArray, axes: Sequence[str], word: str) -> tuple[str, str]:
    """Two lines that say what the numbers of a column are."""
    if axes:
        return word, " × ".join(f"{values.sizes[a]:,} {plural(a, values.sizes[a])}" for a in axes)
    over = [part.strip() for part in str(values.attrs.get("cell_methods", "")).split(":")[:-1]]
    pooled = [dim for dim in over if dim.isidentifier() and dim != "token"]
    return ("pooled over", ", ".join(pooled)) if pooled else ("", "")


def _summary(row: Array, stand: Callable[[Array], float]) -> float:
    finite = row[np.isfinite(row)]
    if len(finite):
        with np.errstate(over="ignore"):
            return stand(finite)
    return float(row[0]) if len(row) and bool(np.all(row == row[0])) else math.nan


def bars(numbers: Sequence[float], ascii: bool) -> list[str]:
    """A bar for each number, as long as its size is beside the largest; none if not finite."""
    sizes = [abs(v) if math.isfinite(v) else 0.0 for v in numbers]
    largest = max(sizes, default=0.0)
    if len(numbers) < 2 or largest == 0:
        return [""] * len(numbers)
    steps = [size / largest * BAR * 8 for size in sizes]
    if ascii:
        return ["#" * round(step / 8) for step in steps]
    return [
        "█" * int(step // 8) + (EIGHTHS[int(step % 8)] if step % 8 >= 1 else "") for step in steps
    ]


def number_text(value: float) -> str:
    """Four significant digits, as short as they go."""
    if not math.isfinite(value):
        return str(value)
    if value == 0:
        return "0"
    size = math.floor(math.log10(abs(value)))
    return f"{value:.3e}" if size < -4 or size > 5 else f"{value:.{max(0, 3 - size)}f}"


def plural(word: str, number: int) -> str:
    """``layers``, but ``1 layer``."""
    return word if number == 1 else f"{word}s"
