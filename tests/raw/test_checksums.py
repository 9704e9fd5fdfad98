"""Damage to a result file is found, and said where it is."""

from __future__ import annotations

import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import netCDF4
import numpy as np
import pytest
import xarray

from hookql.raw import checksums, crc
from hookql.raw.checksums import damage, seal
from hookql.raw.crc import Crc
from hookql.raw.tables import RawTable
from hookql.raw.writer import Writer
from hookql.results.foreign import NotReadable
from tests.raw.made import batches, numbers, table, write

ROWS = 100


@pytest.fixture(autouse=True)
def small_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Blocks of few rows, read in small pieces."""
    for module in (checksums, crc):
        monkeypatch.setattr(module, "ROWS", ROWS)
    monkeypatch.setattr(crc, "PIECE", 300)


@pytest.fixture
def here(monkeypatch: pytest.MonkeyPatch) -> None:
    """No process of its own for each file: for tests of very many."""
    monkeypatch.setattr(checksums, "declared_bytes", lambda path, everything: 0)


def result(path: Path, of: RawTable, rows: int, compress: str = "none") -> dict[str, Any]:
    """A sealed file as a run leaves it: rows, statistics, texts, attributes."""
    whole = numbers(of, rows)
    writer = Writer({path: [of]}, compress)
    for columns in batches(whole, 33):
        writer.append(of.name, columns)
    sums = writer.finish()
    data = xarray.Dataset(
        {
            "mean": (("layer", "feature"), np.arange(6.0).reshape(2, 3), {"long_name": "mean"}),
            "cov": (("feature", "feature_2"), np.ones((3, 50))),
            "count": ((), np.int64(rows)),
            "flag": ("layer", [True, False]),
            "none": ("nothing", np.zeros(0)),
        },
        coords={"layer": [3, 5], "module": ("layer", ["h.3", "größe"])},
        attrs={"query": "capture values", "samples": 5, "share": 0.25, "numbers": [1, 2]},
    )
    data.to_netcdf(path, mode="a", group=of.group, engine="netcdf4")
    seal(path, {of.group: sums[of.name]})
    return whole


@pytest.mark.usefixtures("here")
@pytest.mark.parametrize("compress", ["none", "zstd", "zlib"])
@pytest.mark.parametrize("group", ["/", "/acts/h"])
@pytest.mark.parametrize("rows", [0, 1, 100, 250])
def test_a_whole_file_is_whole(tmp_path: Path, compress: str, group: str, rows: int) -> None:
    """Of every kind; and what is there still reads as it was."""
    for size in (rows, None):
        path = tmp_path / f"{size}.nc"
        result(path, table(group, size), rows, compress)
        assert damage(path) == []
        with xarray.open_dataset(path, group=group) as data:
            assert data["module"].values.tolist() == ["h.3", "größe"]


def changed(path: Path, group: str, name: str, key: Any, value: Any) -> None:
    """Write one number of a variable anew."""
    with netCDF4.Dataset(path, "a") as file:
        found = file if group == "/" else file[group]
        found[name].set_auto_maskandscale(False)
        found[name][key] = value


@pytest.mark.parametrize("group", ["/", "/acts/h"])
@pytest.mark.parametrize("compress", ["none", "zstd"])
def test_a_changed_row_is_named(tmp_path: Path, group: str, compress: str) -> None:
    """With its layer's label and the rows of its block; neighbouring blocks are said at once."""
    path = tmp_path / "x.nc"
    result(path, table(group, 450), 450, compress)
    changed(path, group, "values", (1, 120, 2), -0.0 if compress == "none" else 9.0)
    changed(path, group, "values", (1, 250, 0), 7.0)
    changed(path, group, "values", (1, 449, 0), 7.0)
    changed(path, group, "position", (0,), 1)
    place = "" if group == "/" else " of `/acts/h`"
    assert damage(path) == [
        f"`values`{place}, layer 5: rows 100 to 299 differ from what was written",
        f"`values`{place}, layer 5: rows 400 to 449 differ from what was written",
        f"`position`{place}: rows 0 to 99 differ from what was written",
    ]


@pytest.mark.parametrize("name", ["mean", "cov", "count", "flag", "module", "layer"])
def test_a_changed_statistic_is_named(tmp_path: Path, name: str) -> None:
    """Numbers, truths, texts and labels alike."""
    path = tmp_path / "x.nc"
    result(path, table("/acts/h", 10), 10)
    with netCDF4.Dataset(path) as file:
        value = file["/acts/h"][name][...]
        last = tuple(size - 1 for size in value.shape)
        other = "h.9" if name == "module" else np.asarray(value)[last] + 1
    changed(path, "/acts/h", name, last or ..., other)
    assert damage(path) == [f"`{name}` of `/acts/h` differs from what was written"]


def test_changed_words_are_named(tmp_path: Path) -> None:
    """Attributes of the file, of a group and of a variable; something new; something renamed."""
    path = tmp_path / "x.nc"
    result(path, table("/acts/h", 10), 10)
    with netCDF4.Dataset(path, "a") as file:
        file["/acts/h"].query = "capture mean"
        file["/acts/h"]["mean"].long_name = "the mean"
        file.createDimension("new", 3)
        file.createVariable("more", "f4", ())
        file["/acts/h"].renameVariable("count", "counted")
    assert damage(path) == [
        "what `/` says of itself (attributes, dimensions) differs from what was written",
        "what `more` says of itself (attributes, dimensions, type) "
        "was not there when the file was written",
        "`more` was not there when the file was written",
        "what `/acts/h` says of itself (attributes, dimensions) differs from what was written",
        "what `mean` of `/acts/h` says of itself (attributes, dimensions, type) "
        "differs from what was written",
        "what `counted` of `/acts/h` says of itself (attributes, dimensions, type) "
        "was not there when the file was written",
        "`counted` of `/acts/h` was not there when the file was written",
        "what `count` of `/acts/h` says of itself (attributes, dimensions, type) is missing",
        "`count` of `/acts/h` is missing",
    ]


def test_rows_added_or_renamed(tmp_path: Path) -> None:
    """A variable of rows that has grown, and one that is gone."""
    path = tmp_path / "x.nc"
    result(path, table(), 10)
    with netCDF4.Dataset(path, "a") as file:
        file["position"][10:150] = 1
        file.renameVariable("row_size", "sizes")
    found = damage(path)
    assert "`position` has 150 rows, which is not what was written" in found
    assert "`row_size` is missing" in found
    assert "`sizes` adds up to 10, but there are 150 rows" in found


def test_checksums_that_are_damaged(tmp_path: Path) -> None:
    """They do not accuse what is whole."""
    for name in ("crc", "index"):
        path = tmp_path / f"{name}.nc"
        result(path, table(), 10)
        changed(path, "/_checksums", name, (0,), 1)
        said = "the checksums themselves are damaged, so nobody can tell what else is"
        assert damage(path) == [said]


def test_files_that_cannot_be_judged(tmp_path: Path) -> None:
    """No checksums, no NetCDF, no file."""
    with netCDF4.Dataset(tmp_path / "bare.nc", "w"):
        pass
    (tmp_path / "text.nc").write_text("no")
    for name, said in (
        ("bare.nc", "has no checksums"),
        ("text.nc", "is not a whole NetCDF file"),
        ("gone.nc", "is not a whole NetCDF file: No such file or directory"),
    ):
        (sentence,) = damage(tmp_path / name)
        assert said in sentence


@pytest.mark.usefixtures("here")
@pytest.mark.parametrize("size", [10, None])
def test_a_truncated_file(tmp_path: Path, size: int | None) -> None:
    """Wherever it ends, it is not whole."""
    path = tmp_path / "x.nc"
    result(path, table(rows=size), 10)
    whole = path.read_bytes()
    for end in [*random.Random(0).sample(range(1, len(whole)), 40), len(whole) - 1]:
        path.write_bytes(whole[:end])
        assert damage(path), end


@pytest.mark.parametrize("rows", [400, None])
@pytest.mark.parametrize("compress", ["none", "zstd"])
def test_a_flipped_bit_is_never_served(
    tmp_path: Path, rows: int | None, compress: str, flips: Callable[[bytes], list[bytes]]
) -> None:
    """Any bit: the damage is found, or every number, name and attribute still is the same."""
    path = tmp_path / "x.nc"
    result(path, table("/acts/h", rows), 400, compress)
    whole = path.read_bytes()
    expected = xarray.load_dataset(path, group="/acts/h")
    found = 0
    for flipped in flips(whole):
        path.write_bytes(flipped)
        if damage(path):
            found += 1
        else:
            xarray.testing.assert_identical(expected, xarray.load_dataset(path, group="/acts/h"))
    assert found


@pytest.fixture
def flips() -> Callable[[bytes], list[bytes]]:
    """Copies of some bytes with one bit flipped each."""

    def made(whole: bytes) -> list[bytes]:
        rng = random.Random(1)
        found = []
        for _ in range(12):
            copy = bytearray(whole)
            copy[rng.randrange(len(whole))] ^= 1 << rng.randrange(8)
            found.append(bytes(copy))
        return found

    return made


def test_a_file_that_stops_the_library(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A file that hangs or crashes another process is not opened in this one."""

    def hangs(path: Path, everything: int) -> int:
        raise NotReadable("takes longer than 30 seconds to read")

    monkeypatch.setattr(checksums, "declared_bytes", hangs)
    write(tmp_path / "x.nc", table(), numbers(table(), 10))
    (sentence,) = damage(tmp_path / "x.nc")
    assert sentence.endswith("x.nc` takes longer than 30 seconds to read")


def test_pieces_make_no_difference() -> None:
    """A block's checksum does not depend on how its rows came."""
    rows = np.random.default_rng(0).standard_normal((3 * ROWS + 7, 2)).astype("<f4")
    for step in (1, 7, ROWS, ROWS + 1, 1000):
        found = Crc()
        for first in range(0, len(rows), step):
            found.update(rows[first : first + step])
        expected = [crc.zlib.crc32(rows[a : a + ROWS].tobytes()) for a in range(0, 307, ROWS)]
        assert found.blocks() == expected


def test_missing_checksums_are_a_mistake_of_ours(tmp_path: Path) -> None:
    """A column whose rows were not all summed up is not sealed."""
    write(tmp_path / "x.nc", table(), numbers(table(), 150))
    with netCDF4.Dataset(tmp_path / "y.nc", "w") as file:
        file.createDimension("obs", 150)
        file.createVariable("position", "i4", ("obs",))[:] = 1
    with pytest.raises(ValueError, match="1 checksums for `position`"):
        seal(tmp_path / "y.nc", {"/": {"position": [5]}})
