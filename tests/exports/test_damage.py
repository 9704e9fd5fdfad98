"""Damage is found: in what is exported, and in exports."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import netCDF4
import numpy as np
import pytest

from hookql.errors import HookQLError
from hookql.exports import FORMATS, export
from hookql.exports.manifest import damage
from hookql.raw.checksums import seal
from hookql.raw.crc import Crc
from hookql.raw.tables import column
from tests.exports.made import Raw, manifest_of, read_back, write_nc

LAYERS = Raw({"values": ("<f4", ("layer", "obs", "feature"))}, (3, 0, 4), "/acts/h")
# More than a block of checksums, and not a whole number of them.
MANY = Raw({"values": ("<f4", ("layer", "obs"))}, (40_000, 0, 40_123))


def sealed(path: Path, raw: Raw) -> None:
    """Write a file of one node and its checksums."""
    arrays = write_nc(path, [raw])[raw.group]
    sums = {}
    rows = {name: array for name, array in arrays.items() if name != "sample"}
    rows["row_size"] = np.asarray(raw.row_size, np.int64)
    for name, array in rows.items():
        layered = name == "values"
        for index in range(array.shape[1]) if layered else [None]:
            crc = Crc()
            crc.update(np.ascontiguousarray(array[:, index] if layered else array))
            sums[column(name) if index is None else column(name, index)] = crc.blocks()
    seal(path, {raw.group: sums})


@pytest.mark.parametrize("raw", [LAYERS, MANY, Raw(LAYERS.values, ())])
@pytest.mark.parametrize("to", FORMATS)
def test_a_sealed_file_is_exported(to: str, raw: Raw, tmp_path: Path) -> None:
    """What is as it was written passes, and its checksums are no part of an export."""
    sealed(tmp_path / "acts.nc", raw)
    folder = export(tmp_path / "acts.nc", to, shard_bytes=100_000)
    assert [raw.group] == [node["node"] for node in manifest_of(folder)["nodes"]]
    values = read_back(folder)[raw.group]["values"]
    assert write_nc(tmp_path / "a.nc", [raw])[raw.group]["values"].tobytes() == values.tobytes()


@pytest.mark.parametrize(
    ("name", "at", "said"),
    [
        ("values", (0, 5), "rows 0 to 65,535 of `values`"),
        ("values", (2, 70_000), "rows 65,536 to 80,122 of `values`"),
        ("values", (1, -1), "rows 65,536 to 80,122 of `values`"),
        ("token_id", -1, "rows 65,536 to 80,122 of `token_id`"),
        ("chunk", 0, "rows 0 to 65,535 of `chunk`"),
        ("row_size", slice(0, 3), "rows 0 to 2 of `row_size`"),
    ],
)
@pytest.mark.parametrize("to", FORMATS)
def test_a_changed_number_is_not_exported(
    to: str, name: str, at: Any, said: str, tmp_path: Path
) -> None:
    """A number that is not what was written is an error, whatever it is of; no folder is left."""
    sealed(tmp_path / "acts.nc", MANY)
    with netCDF4.Dataset(tmp_path / "acts.nc", "a") as file:
        file[name][at] = [1, 80_121, 1] if name == "row_size" else 12345
    with pytest.raises(HookQLError) as caught:
        export(tmp_path / "acts.nc", to, shard_bytes=10**6)
    assert f"`{tmp_path}/acts.nc` is damaged: {said} differ from what was written" == (
        caught.value.message
    )
    assert ["acts.nc"] == [path.name for path in tmp_path.iterdir()]


def test_a_truncated_file_is_not_exported(tmp_path: Path) -> None:
    """Wherever a file ends too early, that is an error."""
    path = tmp_path / "acts.nc"
    sealed(path, LAYERS)
    whole = path.read_bytes()
    for length in range(0, len(whole), 997):
        path.write_bytes(whole[:length])
        with pytest.raises(HookQLError) as caught:
            export(path, "npy")
        assert caught.value.code in ("not-netcdf", "cannot-read", "damaged-file")
    assert ["acts.nc"] == [path.name for path in tmp_path.iterdir()]


Change = Callable[[Path], object]


def flipped(name: str) -> Change:
    """One bit of a file the other way."""

    def change(folder: Path) -> None:
        data = bytearray((folder / name).read_bytes())
        data[len(data) // 2] ^= 4
        (folder / name).write_bytes(data)

    return change


def edited(**values: Any) -> Change:
    """A manifest of which somebody has changed something and made it look whole."""

    def change(folder: Path) -> None:
        manifest = {**manifest_of(folder), **values}
        del manifest["sha256"]
        text = json.dumps(manifest, sort_keys=True).encode()
        manifest["sha256"] = hashlib.sha256(text).hexdigest()
        (folder / "_manifest.json").write_text(json.dumps(manifest), encoding="utf-8")

    return change


def without_a_shard(folder: Path) -> None:
    """A manifest that does not know of a file."""
    files = [f for f in manifest_of(folder)["files"] if f.get("rows") != [4, 5]]
    edited(files=files)(folder)


def pipe(folder: Path) -> None:
    """A manifest that nobody ever writes to."""
    (folder / "_manifest.json").unlink()
    os.mkfifo(folder / "_manifest.json")


SHARD = "acts/h/00001.safetensors"
CHANGES: dict[str, tuple[Change, str]] = {
    "a bit of a shard": (flipped(SHARD), f"`{SHARD}` was changed: its checksum differs: rows"),
    "a bit of the manifest": (flipped("_manifest.json"), "`_manifest.json`"),
    "no shard": (lambda f: (f / SHARD).unlink(), f"`{SHARD}` is missing"),
    "half a shard": (
        lambda f: (f / SHARD).write_bytes((f / SHARD).read_bytes()[:-3]),
        f"`{SHARD}` has 4",
    ),
    "no manifest": (lambda f: (f / "_manifest.json").unlink(), "is missing or cannot be read"),
    "a list": (lambda f: (f / "_manifest.json").write_text("[1]"), "cannot be read"),
    "deep": (lambda f: (f / "_manifest.json").write_text("[" * 10**6), "cannot be read"),
    "rows nowhere": (without_a_shard, "do not hold each row of chunk of /acts/h once"),
    "outside": (edited(files=[{"path": "../acts.nc"}]), "`../acts.nc` is not in the folder"),
    "absolute": (edited(files=[{"path": "/etc/hostname"}]), "is not in the folder"),
    "escapes": (edited(files=[{"path": "a\x1b[2J"}]), "`a�[2J` is missing"),
    "a pipe": (pipe, "is missing or cannot be read"),
    "no paths": (edited(files=[{}]), "is not as HookQL writes it"),
    "no texts": (edited(files=[{"path": 5}]), "is not as HookQL writes it"),
    "a NUL": (edited(files=[{"path": "a\0b"}]), "is not as HookQL writes it"),
    "no nodes": (edited(nodes=None), "is not as HookQL writes it"),
    "later": (edited(hookql_export=2), "is of version 2, not 1"),
}


@pytest.mark.parametrize("change", CHANGES)
def test_damage_to_an_export_is_said(change: str, tmp_path: Path) -> None:
    """Whatever is not as it was written, verify has a sentence for it."""
    write_nc(tmp_path / "acts.nc", [LAYERS])
    folder = export(tmp_path / "acts.nc", "safetensors", shard_bytes=100)
    assert [] == damage(folder)
    make, said = CHANGES[change]
    make(folder)
    found = damage(folder)
    assert found
    assert any(said in sentence for sentence in found), found


@pytest.mark.parametrize("to", FORMATS)
def test_every_file_is_watched(to: str, tmp_path: Path) -> None:
    """In every format, each file of an export that changes or goes is told of."""
    write_nc(tmp_path / "acts.nc", [LAYERS])
    folder = export(tmp_path / "acts.nc", to, shard_bytes=100)
    names = [p.relative_to(folder).as_posix() for p in folder.rglob("*") if p.is_file()]
    assert 3 < len(names)
    assert [] == damage(folder)
    for name in names:
        shutil.copytree(folder, tmp_path / "copy")
        flipped(name)(tmp_path / "copy")
        assert any(f"`{name}`" in sentence for sentence in damage(tmp_path / "copy"))
        shutil.rmtree(tmp_path / "copy")
