"""Small tables, and the rows that go into them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import xarray

from hookql.raw.checksums import seal
from hookql.raw.tables import Columns, RawTable, RawVariable
from hookql.raw.writer import Writer

Array = np.ndarray[Any, Any]


def table(
    group: str = "/",
    rows: int | None = None,
    *,
    samples: int | None = 5,
    layers: int = 2,
    width: int = 3,
    dtype: str = "<f4",
) -> RawTable:
    """The raw variables of a node as a capture of values has them; its name is its group."""
    return RawTable(
        group,
        group,
        {"layer": layers, "obs": rows, "feature": width, "sample": samples},
        (
            RawVariable("values", dtype, ("layer", "obs", "feature"), {"long_name": "values"}),
            RawVariable("position", "<i4", ("obs",)),
            RawVariable("row_size", "<i8", ("sample",), {"sample_dimension": "obs"}),
        ),
    )


def numbers(of: RawTable, rows: int, samples: int = 5) -> dict[str, Array]:
    """Whole variables for a table: every bit pattern that matters is among them."""
    layers, width = of.sizes["layer"], of.sizes["feature"]
    assert layers is not None
    assert width is not None
    drawn = np.random.default_rng(7).standard_normal((layers, rows, width))
    values = drawn.astype(of.variables[0].dtype)
    values.flat[:4] = [np.nan, -0.0, np.inf, 1e-42][: values.size]
    sizes = np.diff(np.linspace(0, rows, samples + 1).astype(np.int64))
    return {"values": values, "position": np.arange(rows, dtype="<i4"), "row_size": sizes}


def batches(whole: Mapping[str, Array], step: int) -> Iterator[Columns]:
    """The columns of a table, piece by piece of so many rows; the sample sizes at the end."""
    values = whole["values"]
    for first in range(0, values.shape[1], step):
        piece = slice(first, first + step)
        columns = {f"values:{layer}": values[layer, piece] for layer in range(len(values))}
        yield {**columns, "position": whole["position"][piece]}
    yield {"row_size": whole["row_size"]}


def write(
    path: Path, of: RawTable, whole: Mapping[str, Array], compress: str = "none", step: int = 700
) -> None:
    """A sealed file of one table."""
    writer = Writer({path: [of]}, compress)
    for columns in batches(whole, step):
        writer.append(of.name, columns)
    seal(path, {of.group: writer.finish()[of.name]})


def same(path: Path, group: str, whole: Mapping[str, Array]) -> None:
    """Every variable of a group is these bits, in this dtype."""
    with xarray.open_dataset(path, group=group, engine="netcdf4") as data:
        for name, expected in whole.items():
            found = data[name].to_numpy()
            assert (expected.dtype.str, expected.shape) == (found.dtype.str, found.shape)
            assert expected.tobytes() == found.tobytes()
