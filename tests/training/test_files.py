"""Rows are those of the file, bit for bit, however they lie in it and whichever are asked for."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import netCDF4
import numpy as np
import pytest
import torch
import xarray

import hookql
from hookql.demo import text_path
from hookql.training.batches import TrainingBatches
from hookql.training.entry import training_batches
from hookql.training.stream import TrainingBatch
from tests.exports.made import Raw, write_nc
from tests.training.made import flat, write_rows

Array = np.ndarray[Any, Any]


def whole(batches: TrainingBatches) -> TrainingBatch:
    """An epoch as one batch."""
    parts = list(batches)
    return TrainingBatch(*(torch.cat(each) for each in zip(*parts, strict=True)))


def check(found: TrainingBatch, values: Array, labels: dict[str, Array]) -> None:
    """Each row, and what is said of it, is that of its number, bit for bit."""
    rows = found.row.numpy()
    assert list(range(len(values))) == sorted(rows.tolist())
    assert values[rows].tobytes() == found.values.numpy().tobytes()
    for name in ("sample", "chunk", "position", "token_id"):
        assert labels[name][rows].tolist() == getattr(found, name).tolist()


@pytest.mark.parametrize("options", [{}, {"compress": "zlib"}, {"compress": "zstd"}])
@pytest.mark.parametrize("where", ["not special", "norm(x) > 12"])
def test_of_a_run(tmp_path: Path, options: dict[str, Any], where: str) -> None:
    """What a query wrote, its number of rows known or not, compressed or not."""
    path = tmp_path / "acts.nc"
    query = f"capture values from @resid_post[4] where {where}"
    hookql.run(query, data=text_path(), limit=10, output=path, **options)
    with xarray.open_dataset(path) as data:
        data.load()
    batches = training_batches(path, 64, metadata=True)
    labels = {name: data[name].values for name in ("chunk", "position", "token_id")}
    labels["sample"] = np.repeat(np.arange(data.sizes["sample"]), data["row_size"].values)
    check(whole(batches), data["values"].values[0], labels)
    in_place = batches.stream.files[0].columns["values"].offset is not None
    assert (where == "not special" and not options) == in_place
    assert ((112,), ("feature",)) == (batches.row_shape, batches.row_dims)


DIMS = {
    "plain": ("obs", "feature"),
    "layers": ("layer", "obs", "feature"),
    "calls": ("layer", "call", "obs", "feature"),
    "heads": ("layer", "obs", "head", "feature"),
    "calls of one": ("call", "obs", "head", "feature"),
    "numbers": ("layer", "obs"),
}


@pytest.mark.usefixtures("at_once")
@pytest.mark.parametrize("unlimited", [False, True])
@pytest.mark.parametrize("kind", DIMS)
@pytest.mark.parametrize("dtype", ["<f4", "<f8"])
def test_axes(tmp_path: Path, kind: str, dtype: str, unlimited: bool) -> None:
    """Rows keep their axes; one layer is none, several are."""
    path, dims = tmp_path / "acts.nc", DIMS[kind]
    raw = Raw({"values": (dtype, dims)}, (3, 0, 40, 7), unlimited=unlimited)
    labels = write_nc(path, [raw])["/"]
    values = labels["values"]  # obs first, then the others in their order
    others = [dim for dim in dims if dim != "obs"]
    choices: list[Any] = [9, [2, 9], [9, 5, 2]] if "layer" in dims else [None]
    for layer in choices:
        numbers = [(2, 5, 9).index(each) for each in np.atleast_1d(layer)] if layer else []
        expected, left = values, others
        if isinstance(layer, list):
            expected = values[:, numbers]
        elif layer is not None:
            expected, left = values[:, numbers[0]], others[1:]
        batches = training_batches(path, 16, layer=layer, metadata=True)
        assert tuple(left) == batches.row_dims
        check(whole(batches), expected, labels)
        in_order = training_batches(path, 16, layer=layer, shuffle=False)
        assert expected.tobytes() == torch.cat(list(in_order)).numpy().tobytes()


def test_the_one_that_is_meant(tmp_path: Path) -> None:
    """A node, a variable and a layer that only one node has say which rows."""
    path = tmp_path / "acts.nc"
    two = {"values": ("<f4", ("layer", "obs", "feature")), "w": ("<f8", ("layer", "obs", "head"))}
    one = {"values": ("<f4", ("obs", "feature"))}
    written = write_nc(path, [Raw(two, (5, 3), "/a/h"), Raw(one, (4,), "/a/h.attn")])
    found = training_batches(path, shuffle=False, node="/a/h", variable="w", layer=5)
    assert written["/a/h"]["w"][:, 1].tobytes() == torch.cat(list(found)).numpy().tobytes()
    found = training_batches(path, shuffle=False, node="a/h.attn")
    assert written["/a/h.attn"]["values"].tobytes() == torch.cat(list(found)).numpy().tobytes()
    found = training_batches(path, shuffle=False, variable="values", layer=9)
    assert written["/a/h"]["values"][:, 2].tobytes() == torch.cat(list(found)).numpy().tobytes()


def test_several_files(tmp_path: Path) -> None:
    """The rows of all files, shuffled together; each says whose it is."""
    rows = (300, 50, 120)
    files = [write_rows(tmp_path / f"{n}.nc", n, chunk=16 * (n == 50)) for n in rows]
    found = whole(training_batches(files, 32, metadata=True, memory=0.01))
    places = list(zip(found.file.tolist(), found.row.tolist(), strict=True))
    expected = [(file, row) for file, count in enumerate(rows) for row in range(count)]
    assert expected == sorted(places)
    assert [row for _, row in places] == found.values[:, 0].int().tolist()
    assert 3 == len(set(found.file[:32].tolist()))


def test_columns_that_are_alike(tmp_path: Path) -> None:
    """Columns of one size that differ in one number only are not taken for one another."""
    path = write_rows(tmp_path / "acts.nc", 5000)
    with netCDF4.Dataset(path, "a") as file:
        for name in ("position", "token_id", "chunk"):
            file[name][:] = 0
        file["position"][2222] = 1
        file["chunk"][3333] = 2
    found = whole(training_batches(path, metadata=True))
    assert [2222] == found.row[found.position == 1].tolist()
    assert [3333] == found.row[found.chunk == 2].tolist()
    assert 0 == found.token_id.abs().sum()


def test_while_it_is_open(tmp_path: Path) -> None:
    """Whoever looks at the file with xarray meanwhile goes on looking, and nothing crashes."""
    path = tmp_path / "acts.nc"
    hookql.run("capture values from @resid_post[4]", data=text_path(), limit=5, output=path)
    with xarray.open_dataset(path) as data:
        assert 1 == data["module"].size
        for _ in range(3):
            rows = flat(training_batches(path, metadata=False))
        assert data.sizes["obs"] == len(rows)


def test_a_large_file_of_a_run_is_read_in_place(tmp_path: Path) -> None:
    """Where its rows lie stands behind them, in a file of more than four megabytes."""
    path = tmp_path / "acts.nc"
    hookql.run("capture values from @resid_post[0:2] where not special", output=path)
    batches = training_batches(path, 512, layer=[0, 1])
    assert path.stat().st_size > 2**23
    assert batches.stream.files[0].columns["values"].offset is not None
    with xarray.open_dataset(path) as data:
        expected = np.sort(data["values"].values.transpose(1, 0, 2).reshape(-1))
    assert expected.tobytes() == np.sort(torch.cat(list(batches)).numpy().reshape(-1)).tobytes()


@pytest.mark.parametrize("act", ["cut", "written"])
@pytest.mark.parametrize("chunk", [0, 512])
def test_a_file_that_changes_meanwhile(tmp_path: Path, act: str, chunk: int) -> None:
    """Cut or written into while an epoch goes on, it gives an error and no rows that never were."""
    path = write_rows(tmp_path / "acts.nc", 100_000, chunk=chunk)
    batches = iter(training_batches(path, 256, memory=0.4))
    next(batches)
    if act == "cut":
        os.truncate(path, path.stat().st_size // 3)
    else:
        with path.open("r+b") as file:
            file.seek(path.stat().st_size // 2)
            file.write(b"\xff" * 1000)
    with pytest.raises(hookql.HookQLError):
        list(batches)
