"""Every format, read back by its own library: the same arrays, bit for bit."""

from __future__ import annotations

import json
import warnings
from pathlib import Path

import numpy as np
import pytest
import torch
import xarray

from hookql.exports import FORMATS, export, samples, tables
from hookql.exports.zarr import crc32c
from tests.exports.made import Array, Raw, manifest_of, read_back, write_nc

LAYERS = {"values": ("<f4", ("layer", "obs", "feature"))}
KINDS = {
    "layers": Raw(LAYERS, (3, 0, 7, 1)),
    "no layer": Raw({"values": ("<f4", ("obs", "feature"))}, (4, 4)),
    "one number a token": Raw({"values": ("<f4", ("obs",))}, (5, 0, 0, 9)),
    "one number a token and layer": Raw({"values": ("<f8", ("layer", "obs"))}, (2, 3)),
    "several": Raw({**LAYERS, "size": ("<f4", ("layer", "obs"))}, (6, 2)),
    "heads": Raw({"values": ("<f8", ("layer", "obs", "head", "feature"))}, (1, 8)),
    "calls": Raw({"values": ("<f4", ("layer", "call", "obs", "feature"))}, (4, 1)),
    "no rows": Raw(LAYERS, (0, 0)),
    "no samples": Raw(LAYERS, ()),
    "unlimited": Raw(LAYERS, (40, 0, 31), unlimited=True),
    "unlimited, no rows": Raw(LAYERS, (), unlimited=True),
    "whole numbers": Raw({"values": ("<i8", ("obs", "feature"))}, (3, 3)),
}


def same(expected: dict[str, dict[str, Array]], folder: Path) -> None:
    """Compare all arrays of all nodes, their bits and their types."""
    actual = read_back(folder)
    assert list(expected) == list(actual)
    for node, arrays in expected.items():
        assert set(arrays) == set(actual[node])
        for name, array in arrays.items():
            found = actual[node][name]
            assert (array.dtype, array.shape) == (found.dtype, found.shape), name
            assert array.tobytes() == found.tobytes(), name


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("to", FORMATS)
def test_every_kind_comes_back(to: str, kind: str, tmp_path: Path) -> None:
    """NaN payloads, -0.0, places and samples, in one shard and in many."""
    expected = write_nc(tmp_path / "acts.nc", [KINDS[kind]])
    same(expected, export(tmp_path / "acts.nc", to))
    small = export(tmp_path / "acts.nc", to, tmp_path / "small", shard_bytes=300)
    same(expected, small)


@pytest.mark.parametrize("to", FORMATS)
def test_slabs_and_blocks_of_samples_meet(
    to: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nothing is lost where a slab, a block of samples, a chunk, a sample and a shard end."""
    row_size = [0, 0, 0, 0, 5, 1, 0, 0, 0, 0, 0, 13, 2, 0, 7, 40, 0, 0]
    expected = write_nc(tmp_path / "acts.nc", [Raw(LAYERS, row_size)])
    monkeypatch.setattr(samples, "SAMPLES", 3)
    for slab, shard in ((1, 10**9), (64, 300), (130, 1000), (1000, 700)):
        monkeypatch.setattr(tables, "SLAB", slab)
        folder = export(tmp_path / "acts.nc", to, tmp_path / f"{slab}", shard_bytes=shard)
        same(expected, folder)


@pytest.mark.parametrize("to", FORMATS)
def test_chunks_and_row_groups_meet(
    to: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The same at real sizes: rows of several chunks, the last one not full."""
    raw = Raw({"values": ("<f4", ("layer", "obs", "vocabulary"))}, (300, 0, 411))
    expected = write_nc(tmp_path / "acts.nc", [raw])
    monkeypatch.setattr(tables, "SLAB", 2**20)
    same(expected, export(tmp_path / "acts.nc", to, shard_bytes=3_500_000))
    assert 1 < len(manifest_of(tmp_path / f"acts.{to}")["files"])


@pytest.mark.parametrize("to", FORMATS)
def test_several_nodes_have_folders(to: str, tmp_path: Path) -> None:
    """Each node has its own folder and its own numbers of rows; statistics are left out."""
    raws = [
        Raw(LAYERS, (2, 2), "/acts/transformer.h", attributes={"role": "transformer.h"}),
        Raw({"size": ("<f4", ("obs",))}, (1, 0), "/acts/ünı.codé h"),
        Raw({}, (3, 3), "/places"),
    ]
    expected = write_nc(tmp_path / "acts.nc", raws)
    del expected["/places"]
    folder = export(tmp_path / "acts.nc", to)
    same(expected, folder)
    manifest = manifest_of(folder)
    assert ["acts/transformer.h", "acts/ünı.codé h"] == [n["folder"] for n in manifest["nodes"]]
    assert {"role": "transformer.h"} == manifest["nodes"][0]["attributes"]


@pytest.mark.parametrize("to", FORMATS)
def test_shards_are_no_larger_than_asked(to: str, tmp_path: Path) -> None:
    """Rows lie in order and once, and no shard has more of them than fit."""
    write_nc(tmp_path / "acts.nc", [Raw(LAYERS, (100, 57))])
    manifest = manifest_of(export(tmp_path / "acts.nc", to, shard_bytes=1000))
    assert 3 < len(manifest["files"])
    arrays = manifest["nodes"][0]["arrays"]
    for name in arrays:
        parts = [f["rows"] for f in manifest["files"] if name in f.get("arrays", ())]
        assert sorted(parts) == parts
        assert [0, *(end for _, end in parts)] == [*(start for start, _ in parts), 157]
    for file in manifest["files"]:
        sizes = [row_bytes(arrays[name]) for name in file.get("arrays", ())]
        start, end = file.get("rows", (0, 0))
        assert (end - start) * sum(sizes) <= 1000


def row_bytes(array: dict[str, object]) -> int:
    """Bytes of one row, by the manifest."""
    shape = array["shape"]
    assert isinstance(shape, list)
    return int(np.prod(shape[1:], dtype=int)) * np.dtype(str(array["dtype"])).itemsize


def test_a_row_larger_than_a_shard_is_a_shard(tmp_path: Path) -> None:
    """Where not even one row fits, a shard has one."""
    write_nc(tmp_path / "acts.nc", [Raw(LAYERS, (2, 2))])
    manifest = manifest_of(export(tmp_path / "acts.nc", "safetensors", shard_bytes=1))
    assert [[0, 1], [1, 2], [2, 3], [3, 4]] == [f["rows"] for f in manifest["files"]]


def test_the_manifest_says_what_there_is(tmp_path: Path) -> None:
    """Query, model, labels of the axes, types and shapes, files with their sizes."""
    write_nc(tmp_path / "acts.nc", [KINDS["layers"]])
    folder = export(tmp_path / "acts.nc", "safetensors")
    manifest = manifest_of(folder)
    assert ("safetensors", "capture values from h[*]", "demo") == (
        manifest["format"],
        manifest["query"],
        manifest["model"],
    )
    size = (tmp_path / "acts.nc").stat().st_size
    assert {"file": "acts.nc", "bytes": size} == manifest["source"]
    (node,) = manifest["nodes"]
    assert ("/", ".", 11, 4) == (node["node"], node["folder"], node["rows"], node["samples"])
    assert {"layer": [2, 5, 9], "module": ["h.2", "h.5", "h.9"]} == node["coordinates"]
    expected = {
        "dtype": "float32",
        "shape": [11, 3, 5],
        "dims": ["obs", "layer", "feature"],
        "attributes": {"long_name": "values of /"},
    }
    assert expected == node["arrays"]["values"]
    assert ["values", "position", "token_id", "chunk", "sample"] == list(node["arrays"])
    (file,) = manifest["files"]
    assert ("00000.safetensors", [0, 11]) == (file["path"], file["rows"])
    assert (folder / "00000.safetensors").stat().st_size == file["bytes"]


def test_safetensors_open_in_torch(tmp_path: Path) -> None:
    """Slices of a tensor can be read alone, and each begins where it can be mapped."""
    from safetensors import safe_open

    expected = write_nc(tmp_path / "acts.nc", [KINDS["heads"]])["/"]["values"]
    path = export(tmp_path / "acts.nc", "safetensors") / "00000.safetensors"
    with safe_open(path, framework="pt") as file:
        assert {"node": "/", "rows": "0:9"} == file.metadata()
        part = file.get_slice("values")[2:5]
    assert torch.float64 == part.dtype
    assert expected[2:5].tobytes() == part.numpy().tobytes()
    head = path.read_bytes()
    size = int.from_bytes(head[:8], "little")
    for name, about in json.loads(head[8 : 8 + size]).items():
        if name != "__metadata__":
            assert 0 == (8 + size + about["data_offsets"][0]) % (int(about["dtype"][1:]) // 8)


@pytest.mark.parametrize("groups", [["/"], ["/a/h", "/a/g", "/b"]])
def test_zarr_opens_in_zarr_and_xarray(groups: list[str], tmp_path: Path) -> None:
    """Groups, names of dimensions and attributes are there, and nobody warns of anything."""
    import zarr

    expected = write_nc(tmp_path / "acts.nc", [Raw(LAYERS, (2, 5), group) for group in groups])
    folder = export(tmp_path / "acts.nc", "zarr")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        root = zarr.open_group(folder, mode="r")
        members = dict(root.members(max_depth=None))
        for group in groups:
            assert f"{group}/values".strip("/") in members
            data = xarray.open_zarr(folder, group=group)
            assert ("obs", "layer", "feature") == data["values"].dims
            assert "values of " + group == data["values"].attrs["long_name"]
            assert [2, 5, 9] == data.attrs["labels"]["layer"]
            assert expected[group]["position"].tobytes() == data["position"].values.tobytes()
            assert expected[group]["values"].tobytes() == data["values"].values.tobytes()


def test_zarr_writes_no_less_than_the_package_reads(tmp_path: Path) -> None:
    """A shard's index is checked by its checksum: a flipped bit in it is an error of zarr."""
    import zarr

    assert 0xE3069283 == crc32c(b"123456789")
    write_nc(tmp_path / "acts.nc", [Raw(LAYERS, (2, 5))])
    folder = export(tmp_path / "acts.nc", "zarr")
    shard = folder / "values/c/0/0/0"
    data = bytearray(shard.read_bytes())
    data[-6] ^= 1
    shard.write_bytes(data)
    with pytest.raises(ValueError, match="checksum"):
        zarr.open_group(folder, mode="r")["values"][...]


def test_parquet_says_the_shape(tmp_path: Path) -> None:
    """Values are a list of one length a row, in groups of rows that are read alone."""
    from pyarrow import parquet

    write_nc(tmp_path / "acts.nc", [KINDS["layers"]])
    file = parquet.ParquetFile(export(tmp_path / "acts.nc", "parquet") / "00000.parquet")
    field = file.schema_arrow.field("values")
    assert "fixed_size_list<element: float>[15]" == str(field.type)
    assert {b"dims": b'["layer", "feature"]', b"shape": b"[3, 5]"} == field.metadata
    assert {b"node": b"/"} == {k: v for k, v in file.schema_arrow.metadata.items() if k == b"node"}
    assert 11 == file.metadata.num_rows


def test_npy_maps(tmp_path: Path) -> None:
    """An array is a memory map, in the file's own order."""
    expected = write_nc(tmp_path / "acts.nc", [KINDS["layers"]])["/"]["values"]
    found = np.load(export(tmp_path / "acts.nc", "npy") / "values-00000.npy", mmap_mode="r")
    assert isinstance(found, np.memmap)
    assert found.flags.c_contiguous
    assert expected.tobytes() == found.tobytes()
