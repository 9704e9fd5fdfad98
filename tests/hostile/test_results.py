"""Result files from somebody else: the sizes they declare, what they would do to a terminal."""

from __future__ import annotations

import contextlib
import subprocess
from pathlib import Path
from typing import Any

import netCDF4
import pytest

from hookql.errors import UsageError
from hookql.results import foreign
from hookql.results.foreign import declared_bytes
from hookql.results.netcdf import load
from hookql.results.table import summary

LIMIT = 2**30


def test_a_small_file_of_huge_variables_is_read_lazily(tmp_path: Path) -> None:
    """10^15 values that were never written take no room in the file."""
    path = tmp_path / "huge.nc"
    with netCDF4.Dataset(path, "w") as file:
        file.hookql_version = "0"
        file.createDimension("a", 10**8)
        file.createDimension("b", 10**7)
        file.createVariable("mean", "f8", ("a", "b"), chunksizes=(1000, 1000))
    assert 1_000_000 > path.stat().st_size
    assert 8 * 10**15 == declared_bytes(path, LIMIT)
    tree = load(path)
    assert {"a": 10**8, "b": 10**7} == dict(tree["mean"].sizes)
    tree.close()


def test_names_and_attributes_do_not_steer_the_terminal(tmp_path: Path) -> None:
    """Escape sequences in attributes, names of variables and of dimensions."""
    path = tmp_path / "x.nc"
    evil = "\x1b]0;owned\x07\x1b[2J\x9b31m"
    with netCDF4.Dataset(path, "w") as file:
        file.hookql_version = evil
        for name in ("query", "model", "data", "ended", "source"):
            file.setncattr(name, f"{name}{evil}\r\n{evil}")
        file.createDimension("x\u202ey", 2)
        variable = file.createVariable("mean\u202e", "f8", ("x\u202ey",))
        variable.units = evil
        variable[:] = 0
    shown = summary(load(path))
    assert [] == [c for c in shown if not c.isprintable() and c != "\n"]


@pytest.mark.parametrize(
    ("happens", "said"),
    [
        (subprocess.TimeoutExpired("python", 1), "takes longer than"),
        (subprocess.CompletedProcess([], -11, b"", b""), "makes the NetCDF library crash"),
        (subprocess.CompletedProcess([], 1, b"", b""), "is not a whole NetCDF file"),
        (subprocess.CompletedProcess([], 0, b"[]", b""), "is not a whole NetCDF file"),
    ],
    ids=["hangs", "crashes", "fails", "says nothing"],
)
def test_what_happens_to_the_other_process(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, happens: Any, said: str
) -> None:
    """A hang or crash of the C library there is one sentence here."""
    path = tmp_path / "x.nc"
    path.write_bytes(b"x")

    def run(*_: Any, **__: Any) -> Any:
        if isinstance(happens, Exception):
            raise happens
        return happens

    monkeypatch.setattr(foreign.subprocess, "run", run)
    with pytest.raises(UsageError) as caught:
        load(path)
    assert "not-netcdf" == caught.value.code
    assert said in caught.value.message


def test_an_attribute_that_cannot_be_read(tmp_path: Path) -> None:
    """Damage shows as an AttributeError of netCDF4 too, which is no bug of the user's."""
    path = tmp_path / "x.nc"
    with netCDF4.Dataset(path, "w") as file:
        file.hookql_version = "0"
        file.query = "capture mean from h"
    whole = path.read_bytes()
    for at in range(0, len(whole), 997):
        path.unlink()
        path.write_bytes(whole[:at] + b"\xff\xff\xff\xff" + whole[at + 4 :])
        with contextlib.suppress(UsageError):
            load(path)
