"""What users are told, as golden texts."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable
from pathlib import Path

import netCDF4
import numpy as np
import pytest

from hookql.exports import export
from hookql.exports.progress import bar
from tests.exports.made import Raw, write_nc
from tests.exports.test_damage import sealed
from tests.told import Case, told

LAYERS = Raw({"values": ("<f4", ("layer", "obs", "feature"))}, (3, 4))
FILE = Path("acts.nc")


def of(raw: Raw = LAYERS, to: str = "npy", **options: object) -> Case:
    """Export a file of one node."""

    def case(patch: pytest.MonkeyPatch) -> None:
        write_nc(FILE, [raw])
        export(FILE, to, **options)  # type: ignore[arg-type]

    return case


def after(change: Callable[[], object], **options: object) -> Case:
    """Export a file that something was done to first."""

    def case(patch: pytest.MonkeyPatch) -> None:
        sealed(FILE, LAYERS)
        change()
        export(FILE, "npy", **options)  # type: ignore[arg-type]

    return case


def edited(change: Callable[[netCDF4.Dataset], object]) -> Case:
    """Export a file without checksums that was changed by NetCDF's own means."""

    def case(patch: pytest.MonkeyPatch) -> None:
        write_nc(FILE, [LAYERS])
        with netCDF4.Dataset(FILE, "a") as file:
            change(file)
        export(FILE, "npy")

    return case


def without(package: str, to: str) -> Case:
    """Export where a package is not installed."""

    def case(patch: pytest.MonkeyPatch) -> None:
        real = importlib.util.find_spec
        patch.setattr(
            importlib.util, "find_spec", lambda name: None if name == package else real(name)
        )
        of(to=to)(patch)

    return case


def no_room(patch: pytest.MonkeyPatch) -> None:
    """Export to a disk that is nearly full."""
    patch.setattr("hookql.exports.target.free_bytes", lambda folder: 300)
    of()(patch)


def full(patch: pytest.MonkeyPatch) -> None:
    """Export to a disk that becomes full."""

    def write(sink: object, data: bytes) -> int:
        raise OSError(28, "No space left on device")

    patch.setattr("hookql.exports.files.Sink.write", write)
    of()(patch)


def another_sample_size(file: netCDF4.Dataset) -> None:
    """A sample has a row more than there are."""
    file["row_size"][0] = 4


def twice(file: netCDF4.Dataset) -> None:
    """A second kind of rows in one group."""
    file.createDimension("obs_2", 7)
    file.createVariable("size", "<f4", ("obs_2",))[:] = 1
    file.createVariable("row_size_2", "<i8", ("sample",))[:] = [3, 4]
    file["row_size_2"].sample_dimension = "obs_2"


def texts(file: netCDF4.Dataset) -> None:
    """Rows that are texts."""
    file.createVariable("token", str, ("obs",))[:] = np.array(["a"] * 7, object)


CASES: dict[str, Case] = {
    "unknown format": of(to="safetensor"),
    "no format": of(to="csv"),
    "no package": without("pyarrow", "parquet"),
    "shards of nothing": of(shard_bytes=0),
    "shards of a text": of(shard_bytes="1GB"),
    "no file": lambda patch: export(FILE, "npy"),
    "a folder": lambda patch: export(Path("."), "npy"),
    "not NetCDF": after(lambda: FILE.write_text("capture")),
    "half a file": after(lambda: FILE.write_bytes(FILE.read_bytes()[:-200])),
    "statistics only": of(Raw({}, (3,))),
    "not of HookQL": edited(lambda file: file.delncattr("hookql_version")),
    "samples that do not add up": edited(another_sample_size),
    "negative samples": edited(lambda file: file["row_size"].__setitem__(0, -3)),
    "texts": edited(texts),
    "two kinds of rows": edited(twice),
    "exists": after(lambda: export(FILE, "npy")),
    "a file is there": after(lambda: Path("acts.npy").write_text("")),
    "a folder of somebody": after(lambda: Path("acts.npy").mkdir(), overwrite=True),
    "something added": after(
        lambda: (export(FILE, "npy") / "notes.txt").write_text(""), overwrite=True
    ),
    "no such folder": of(output=Path("there/acts")),
    "no room": no_room,
    "full": full,
}


def changed() -> None:
    """A number of the sealed file is another."""
    with netCDF4.Dataset(FILE, "a") as file:
        file["values"][1, 2, 3] = 8


CASES["changed since"] = after(changed)


def test_what_users_are_told(
    tmp_path: Path, golden: Callable[[str, str], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each mistake has its sentence, and none leaves anything behind."""
    golden("exports/errors.txt", told(CASES, tmp_path))
    left = {p.name for p in tmp_path.rglob("*") if p.name.endswith((".tmp", ".old"))}
    assert set() == left


def test_a_bar_shows_what_is_done(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nothing for what is over at once; else a bar, or lines where there is no terminal."""
    now = [0.0]
    monkeypatch.setattr("hookql.exports.progress.time.perf_counter", lambda: now[0])
    for show in (True, False, None):
        with bar(10**9, show) as tick:
            tick(10**8)
    assert ("", "") == capsys.readouterr()
    with bar(2 * 10**9, None) as tick:
        for second in range(0, 100, 5):
            now[0] = float(second)
            tick(10**8)
    said = capsys.readouterr().err
    assert "0.8 of 2.0 GB, 52 s left\n1.5 of 2.0 GB, 23 s left\n" == said
    monkeypatch.setenv("FORCE_COLOR", "1")  # makes any stream a terminal
    with bar(10**9, True) as tick:
        now[0] += 3
        tick(5 * 10**8)
    assert "0.5/1.0 GB" in capsys.readouterr().err
