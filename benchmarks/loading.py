"""`python -m benchmarks.loading`: shuffled rows for training, beside other ways to read them.

Rows of 768 float32 lie in a file in one piece, in chunks, and in one for `numpy.memmap`. All
contestants give batches of 4,096 rows and take turns; the median of rows a second is printed with
its range. From the page cache: what a disk adds, it adds to all.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import xarray

import hookql
from tests.training.made import write_rows

BATCH, WIDTH = 4096, 768


def memmap(path: Path, rows: int) -> Iterator[Any]:
    """Rows in an order over the whole file, with nothing known of them but their place."""
    mapped = np.memmap(path, "<f4", "r", shape=(rows, WIDTH))
    order = np.random.default_rng(0).permutation(rows)
    for start in range(0, rows, BATCH):
        yield mapped[order[start : start + BATCH]]


def blocks(path: Path, size: int = 1024) -> Iterator[Any]:
    """What one writes by hand: slices in random order with xarray, each shuffled in itself."""
    rng = np.random.default_rng(0)
    with xarray.open_dataset(path) as data:
        values = data["values"].isel(layer=0)
        for start in rng.permutation(np.arange(0, values.sizes["obs"], size)):
            rows = values.isel(obs=slice(start, start + size)).values
            yield rows[rng.permutation(len(rows))]


def single(path: Path, most: int = 2) -> Iterator[Any]:
    """Rows over the whole file with xarray; a few batches, for it is slow."""
    with xarray.open_dataset(path) as data:
        values = data["values"].isel(layer=0)
        order = np.random.default_rng(0).permutation(values.sizes["obs"])
        for start in range(0, most * BATCH, BATCH):
            yield values.isel(obs=np.sort(order[start : start + BATCH])).values


def main() -> None:
    """The command line of this benchmark."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--rows", type=int, default=200_000)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--folder", type=Path, help="on the disk to measure")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=options.folder) as name:
        folder = Path(name)
        piece = write_rows(folder / "piece.nc", options.rows, WIDTH)
        chunks = write_rows(folder / "chunks.nc", options.rows, WIDTH, chunk=128)
        plain = folder / "plain"
        with plain.open("wb") as file:
            for start in range(0, options.rows, BATCH):
                count = min(BATCH, options.rows - start)
                np.ones((count, WIDTH), "<f4").tofile(file)
        batches = {
            "training_batches": hookql.training_batches(piece),
            "training_batches, 64 MB": hookql.training_batches(piece, memory=64),
            "training_batches, metadata": hookql.training_batches(piece, metadata=True),
            "training_batches, not shuffled": hookql.training_batches(piece, shuffle=False),
            "training_batches, 1 worker": hookql.training_batches(piece, workers=1),
            "training_batches, of chunks": hookql.training_batches(chunks),
        }
        contestants: dict[str, Callable[[], Any]] = {
            "numpy.memmap, any row": lambda: memmap(plain, options.rows),
            **{name: lambda b=each: b for name, each in batches.items()},
            "xarray, slices of 1,024": lambda: blocks(piece),
            "xarray, any row": lambda: single(piece),
        }
        speeds: dict[str, list[float]] = {name: [] for name in contestants}
        for repeat in range(options.repeats):
            names = list(contestants)
            for name in names if repeat % 2 else reversed(names):
                started, count = time.perf_counter(), 0
                for batch in contestants[name]():
                    count += len(batch[0] if isinstance(batch, tuple) else batch)
                speeds[name].append(count / (time.perf_counter() - started))
    for name, found in speeds.items():
        low, high = min(found), max(found)
        print(f"{name:<32} {statistics.median(found):>9,.0f} rows/s  ({low:,.0f} to {high:,.0f})")


if __name__ == "__main__":
    main()
