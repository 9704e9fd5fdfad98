"""Result files whose rows say where they stand, and what batches of them held."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import netCDF4
import numpy as np

from hookql.training.batches import TrainingBatches
from hookql.training.entry import training_batches

Array = np.ndarray[Any, Any]


def write_rows(path: Path, rows: int, width: int = 4, chunk: int = 0, layers: int = 1) -> Path:
    """A file whose row r of layer l is r + l / 8, so many numbers wide; of 7 rows a sample.

    In one piece, or in chunks of so many rows.
    """
    kept: dict[str, Any] = {"chunksizes": (chunk,)} if chunk else {"contiguous": True}
    with netCDF4.Dataset(path, "w") as file:
        file.setncatts({"hookql_version": "0.1.0"})
        sizes = [7] * (rows // 7) + ([rows % 7] if rows % 7 else [])
        for name, size in (("layer", layers), ("feature", width), ("sample", len(sizes))):
            file.createDimension(name, size)
        file.createDimension("obs", None if chunk else rows)
        file.createVariable("layer", "<i8", ("layer",))[:] = np.arange(layers)
        size = file.createVariable("row_size", "<i8", ("sample",), fill_value=False)
        size.sample_dimension = "obs"
        size[:] = sizes
        number = np.arange(rows)
        labels = {"position": number % 7, "token_id": number % 1000, "chunk": number % 3}
        for name, values in labels.items():
            made = file.createVariable(name, "<i4", ("obs",), fill_value=False, **kept)
            made[:] = values
        if chunk:
            kept = {"chunksizes": (1, chunk, width)}
        made = file.createVariable(
            "values", "<f4", ("layer", "obs", "feature"), fill_value=False, **kept
        )
        for layer in range(layers):
            for start in range(0, rows, 65_536):
                stop = min(rows, start + 65_536)
                column = np.arange(start, stop, dtype=np.float32)[:, np.newaxis] + layer / 8
                made[layer, start:stop] = np.repeat(column, width, axis=1)
    return path


def numbers(batches: Iterable[Any]) -> list[list[int]]:
    """The row numbers of each batch of a file of `write_rows`."""
    return [batch[:, 0].int().tolist() for batch in batches]


def flat(batches: Iterable[Any]) -> list[int]:
    """The row numbers of all batches, one behind another."""
    return [row for batch in numbers(batches) for row in batch]


def small(path: Path, **options: Any) -> TrainingBatches:
    """Batches of 32 rows, of which few are in memory together."""
    return training_batches(path, **{"batch_size": 32, "memory": 0.01, **options})
