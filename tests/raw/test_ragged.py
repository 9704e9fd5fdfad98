"""Files of raw rows: every bit, whatever is known beforehand and however the rows come."""

from __future__ import annotations

import gc
import weakref
from pathlib import Path
from typing import Any

import netCDF4
import numpy as np
import pytest
import xarray
from attrs import evolve
from hypothesis import given, settings
from hypothesis import strategies as st

from hookql.raw import layout
from hookql.raw.checksums import damage
from hookql.raw.layout import chunk_rows
from hookql.raw.ragged import RaggedFile, stored
from hookql.raw.tables import RawTable, RawVariable
from tests.raw.made import batches, numbers, same, table, write

COMPRESS = ("none", "zstd", "zlib")


@pytest.mark.parametrize("compress", COMPRESS)
@pytest.mark.parametrize("rows", [0, 1, 5000])
@pytest.mark.parametrize("known", [True, False])
def test_every_bit_comes_back(tmp_path: Path, compress: str, rows: int, known: bool) -> None:
    """Of no rows, one, and more than a chunk; known beforehand or not; at the root and below."""
    for group in ("/", "/acts/transformer.h"):
        of = table(group, rows if known else None, samples=5 if known else None)
        path = tmp_path / f"{len(group)}.nc"
        whole = numbers(of, rows)
        write(path, of, whole, compress)
        same(path, group, whole)
        assert damage(path) == []


@given(
    rows=st.integers(0, 60),
    steps=st.lists(st.integers(0, 25), min_size=1, max_size=30),
    chunk=st.integers(1, 9),
    known=st.booleans(),
    compress=st.sampled_from(COMPRESS),
)
@settings(max_examples=60, deadline=None)
def test_pieces_of_any_size(
    tmp_path_factory: pytest.TempPathFactory,
    rows: int,
    steps: list[int],
    chunk: int,
    known: bool,
    compress: str,
) -> None:
    """Rows meet the edges of chunks anyhow, and each column for itself."""
    of = table(rows=rows if known else None)
    whole = numbers(of, rows)
    path = tmp_path_factory.mktemp("raw") / "x.nc"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(layout, "CHUNK_ROWS", chunk)
        file = RaggedFile(path, [of], compress)
        at = {"values:0": 0, "values:1": 0, "position": 0}
        for turn, step in enumerate([*steps, rows, rows, rows]):
            name = list(at)[turn % 3]
            column = whole["values"][int(name[-1])] if ":" in name else whole["position"]
            file.append("/", {name: column[at[name] : at[name] + step]})
            at[name] = min(rows, at[name] + step)
        file.append("/", {"row_size": whole["row_size"]})
        for name in at:
            column = whole["values"][int(name[-1])] if ":" in name else whole["position"]
            file.append("/", {name: column[at[name] :]})
        file.close()
    same(path, "/", whole)


def test_how_they_lie(tmp_path: Path) -> None:
    """Contiguous where the number is known, else chunks of whole rows of one layer; not filled."""
    known, unknown, packed = (tmp_path / name for name in ("known", "unknown", "packed"))
    write(known, table(rows=40), numbers(table(), 40))
    write(unknown, table(), numbers(table(), 40))
    write(packed, table(rows=40), numbers(table(), 40), "zstd")
    with netCDF4.Dataset(known) as file:
        assert file["values"].chunking() == "contiguous"
        assert not file.dimensions["obs"].isunlimited()
    with netCDF4.Dataset(unknown) as file:
        assert file["values"].chunking() == [1, 4096, 3]
        assert file["position"].chunking() == [4096]
        assert file["row_size"].chunking() == "contiguous"
        assert file.dimensions["obs"].isunlimited()
        assert file["values"].get_fill_value() is None
    with netCDF4.Dataset(packed) as file:
        assert file["values"].chunking() == [1, 40, 3]
        assert file["values"].filters()["zstd"]


def test_chunks_are_bounded() -> None:
    """A power of two of rows, of at most half a megabyte; one row where a row is larger."""
    assert [chunk_rows("<f4", (768,), None), chunk_rows("<f4", (128,), None)] == [128, 1024]
    assert [chunk_rows("<i4", (), None), chunk_rows("<f8", (10**6,), None)] == [4096, 1]
    assert chunk_rows("<f4", (768,), 100) == 100


@pytest.mark.parametrize("compress", COMPRESS)
@pytest.mark.parametrize("rows", [0, 40, None])
@pytest.mark.parametrize("group", ["/", "/acts/transformer.h"])
def test_statistics_join_later(tmp_path: Path, group: str, rows: int | None, compress: str) -> None:
    """xarray adds variables that share the dimensions, and nothing of the rows changes."""
    of = table(group, rows)
    whole = numbers(of, 40 if rows is None else rows)
    path = tmp_path / "x.nc"
    file = RaggedFile(path, [of], compress)
    for columns in batches(whole, 7):
        file.append(group, columns)
    file.close()
    added = xarray.Dataset(
        {"mean": (("layer", "feature"), np.arange(6.0).reshape(2, 3)), "count": ((), 40)},
        coords={"layer": [3, 5], "module": ("layer", ["h.3", "h.5"])},
    )
    added.to_netcdf(path, mode="a", group=group, engine="netcdf4")
    same(path, group, whole)
    with xarray.open_dataset(path, group=group) as data:
        assert data["mean"].dims == data["values"].isel(obs=slice(0, 0)).mean("obs").dims
        assert data["mean"].values.tolist() == [[0, 1, 2], [3, 4, 5]]
        assert data["layer"].values.tolist() == [3, 5]


def test_several_tables_in_one_file(tmp_path: Path) -> None:
    """Nodes of a result, each with rows and sizes of its own."""
    tables = [table("/a/h", 9), table("/a/h.attn", None, width=4), table("/b", 3, layers=1)]
    wholes = [numbers(of, rows) for of, rows in zip(tables, (9, 20, 3), strict=True)]
    file = RaggedFile(tmp_path / "x.nc", tables)
    for of, whole in zip(tables, wholes, strict=True):
        for columns in batches(whole, 4):
            file.append(of.name, columns)
    file.close()
    for of, whole in zip(tables, wholes, strict=True):
        same(tmp_path / "x.nc", of.group, whole)


def test_rows_without_axes_and_with_several(tmp_path: Path) -> None:
    """(n,), (n, head, feature), two dimensions before the rows, float64."""
    of = RawTable(
        "t",
        "/",
        {"layer": 2, "call": 3, "obs": None, "head": 2, "feature": 4},
        (
            RawVariable("norm", "<f8", ("obs",)),
            RawVariable("z", "<f8", ("layer", "call", "obs", "head", "feature")),
        ),
    )
    whole = np.random.default_rng(0).standard_normal((2, 3, 50, 2, 4))
    file = RaggedFile(tmp_path / "x.nc", [of])
    for layer in range(2):
        for call in range(3):
            file.append("t", {f"z:{layer}:{call}": whole[layer, call]})
    file.append("t", {"norm": whole[0, 0, :, 0, 0]})
    file.close()
    same(tmp_path / "x.nc", "/", {"z": whole, "norm": whole[0, 0, :, 0, 0].copy()})


@pytest.mark.parametrize(
    ("rows", "dtype"),
    [
        (np.asfortranarray(np.arange(6, dtype="<f4").reshape(3, 2)), "<f4"),
        (np.arange(6, dtype=">f4").reshape(3, 2)[::-1, ::-1], "<f4"),
        (np.arange(6, dtype="<f2").reshape(3, 2), "<f4"),
        (np.arange(6, dtype="<f4").reshape(3, 2).T, "<f8"),
        (np.array([-(2**31), 2**31 - 1], "<i8"), "<i4"),
        (np.array([2**53, -5]), "<f8"),
        (np.array([True, False]), "<i4"),
    ],
)
def test_rows_are_made_what_the_file_holds(rows: Any, dtype: str) -> None:
    """Other orders of bytes and of memory, and smaller dtypes: the same numbers."""
    found = stored(rows, dtype)
    assert found.flags["C_CONTIGUOUS"]
    assert (found.dtype.str, found.tolist()) == (dtype, rows.tolist())


@pytest.mark.parametrize(
    ("rows", "dtype"),
    [
        (np.array([0.1]), "<f4"),
        (np.array([2**31], "<i8"), "<i4"),
        (np.array([2**63], "<u8"), "<i8"),
        (np.array([1.0]), "<i4"),
        (np.array([2**53 + 1]), "<f8"),
        (np.array([2**63 - 1]), "<f8"),
    ],
)
def test_no_number_becomes_another(rows: Any, dtype: str) -> None:
    """What would be rounded or wrap around is refused."""
    with pytest.raises(ValueError, match="cannot be stored"):
        stored(rows, dtype)


def test_rows_that_have_no_place(tmp_path: Path) -> None:
    """Another width, an unknown column, more rows than there are: refused, nothing written."""
    file = RaggedFile(tmp_path / "x.nc", [table(rows=3)])
    good = np.ones(2, "<i4")
    for columns, said in (
        ({"position": good, "values:0": np.ones((1, 2), "<f4")}, "whose rows are"),
        ({"position": good, "values:2": np.ones((1, 3), "<f4")}, "no column"),
        ({"position": np.ones(4, "<i4")}, "more than 3"),
    ):
        with pytest.raises(ValueError, match=said):
            file.append("/", columns)
    file.append("/", {"position": good})
    file.append("/", {"position": good[:1]})
    file.abandon()


@pytest.mark.parametrize("rows", [3, None])
def test_an_unfinished_file_does_not_close(tmp_path: Path, rows: int | None) -> None:
    """A table with rows missing, of what was counted or of its other columns, is an error."""
    file = RaggedFile(tmp_path / "x.nc", [table(rows=rows)])
    file.append("/", {"position": np.arange(2), "values:0": np.ones((2, 3), "<f4")})
    with pytest.raises(ValueError, match="rows of `/` are missing along `obs`"):
        file.close()


def test_nothing_is_overwritten(tmp_path: Path) -> None:
    """A file that is there stays as it was."""
    (tmp_path / "x.nc").write_text("mine")
    with pytest.raises(OSError, match=r"exists|Permission"):
        RaggedFile(tmp_path / "x.nc", [table()])
    assert (tmp_path / "x.nc").read_text() == "mine"


def test_two_sizes_of_one_dimension(tmp_path: Path) -> None:
    """Tables of one group share its dimensions."""
    other = evolve(table(rows=3, width=4), name="other", variables=())
    with pytest.raises(ValueError, match="two sizes"):
        RaggedFile(tmp_path / "x.nc", [table(rows=3), other])


def test_more_than_four_gigabytes(tmp_path: Path) -> None:
    """Places beyond 2**32 bytes of a variable; the file is sparse, so that it costs little."""
    rows = 2**31 + 10
    of = RawTable("t", "/", {"obs": rows}, (RawVariable("position", "<i4", ("obs",)),))
    file = RaggedFile(tmp_path / "x.nc", [of])
    column = file._columns["t"]["position"]
    column.length = rows - 3  # as if so many rows had been written
    file.append("t", {"position": np.array([7, 8, 9])})
    file.close()
    assert (tmp_path / "x.nc").stat().st_blocks * 512 < 2**24
    with netCDF4.Dataset(tmp_path / "x.nc") as data:
        assert data["position"][-3:].tolist() == [7, 8, 9]


def test_a_file_that_cannot_be_closed_is_never_closed_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nor by the garbage collector, which may run in a thread beside one that writes."""

    class Broken:
        """What a Dataset is on a full disk."""

        def isopen(self) -> bool:
            return True

        def close(self) -> None:
            raise RuntimeError("NetCDF: HDF error")

    file = RaggedFile(tmp_path / "x.nc", [table(rows=3)])
    file._file.close()
    monkeypatch.setattr(file, "_file", Broken())
    kept = weakref.ref(file._file)
    file.abandon()
    del file
    gc.collect()
    assert kept() is not None
