"""What a table shows of many numbers: one number a layer, said what it is, and a bar."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import numpy as np
import xarray
from attrs import frozen

from hookql.results.terminal import text_width

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
STAR = "*"
WORDS = {"prev": "previous token", "next": "next token", "top": "rank"}


@frozen
class Column:
    """A column of a table: three lines of heading, one text a row, and which side it leans to.

    ``starred`` and ``barred`` say whether it needs the legend's words on stars and bars.
    """

    heading: tuple[str, str, str]
    cells: tuple[str, ...]
    left: bool = False
    starred: bool = False
    barred: bool = False

    @property
    def width(self) -> int:
        """How many columns of the terminal it takes."""
        return max(map(text_width, (*self.heading, *self.cells)))

    def lines(self) -> list[str]:
        """Heading and cells, padded to one width."""
        width = self.width
        texts = (*self.heading, *self.cells)
        spaces = [" " * (width - text_width(text)) for text in texts]
        pairs = zip(texts, spaces, strict=True)
        return [text + space if self.left else space + text for text, space in pairs]


def number_column(
    name: str, said: tuple[str, str], rows: Sequence[Array], stands: str, ascii: bool
) -> Column:
    """For each row what stands for its numbers, and a bar.

    A star marks rows in which some numbers are NaN or infinite: they are left out of the summary.
    """
    if all(row.dtype.kind == "i" and not row.ndim for row in rows) and rows:
        return Column((name, "", ""), tuple(f"{int(v):,}" for v in rows))
    _, stand = STANDS_FOR.get(stands, MEDIAN)
    numbers = [summary(row, stand) for row in rows]
    texts = number_texts(numbers)
    stars = [STAR if 0 < np.isfinite(row).sum() < row.size else "" for row in rows]
    width = max([10, *(len(text + star) for text, star in zip(texts, stars, strict=True))])
    return Column(
        (name, *said),
        tuple(
            f"{text + star:>{width}} {bar:<{BAR}}"
            for text, star, bar in zip(texts, stars, bars(numbers, ascii), strict=True)
        ),
        left=True,
        starred=any(stars),
        barred=len(numbers) > 1,
    )


def stands_for(values: xarray.DataArray, axes: Sequence[str], pooled: str) -> tuple[str, str]:
    """Two lines that say what the numbers of a column are."""
    if axes:
        word, _ = STANDS_FOR.get(str(values.attrs.get("statistic", values.name)), MEDIAN)
        return word, sizes_text(values, axes)
    return ("pooled over", pooled) if pooled else ("", "")


def sizes_text(values: xarray.DataArray, axes: Iterable[str]) -> str:
    """``12 heads × 64 features``."""
    return " × ".join(f"{values.sizes[a]:,} {plural(a, values.sizes[a])}" for a in axes)


def pooled_text(values: xarray.DataArray) -> str:
    """What was pooled beside tokens, as the variable's `cell_methods` have it."""
    methods = str(values.attrs.get("cell_methods", "")).partition("(comment")[0]
    over = [part.strip() for part in methods.split(":")[:-1]]
    return ", ".join(dim for dim in over if dim.isidentifier() and dim != "token")


def summary(row: Array, stand: Callable[[Array], float]) -> float:
    """What stands for numbers: of the finite ones, or what they all are."""
    row = row.reshape(-1)
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


def number_texts(values: Sequence[float]) -> list[str]:
    """The numbers of a column; where all are whole, as whole numbers with all their digits."""
    finite = [value for value in values if math.isfinite(value)]
    if finite and all(value == int(value) and abs(value) < 2**53 for value in finite):
        return [f"{int(v):,}" if math.isfinite(v) else str(v) for v in values]
    return [number_text(value) for value in values]


def plural(word: str, number: int) -> str:
    """``layers``, but ``1 layer``."""
    word = WORDS.get(word, word).replace("_", " ")
    return word if number == 1 else f"{word[:-1]}ies" if word.endswith("y") else f"{word}s"
