"""Result files with raw values, as HookQL writes them, and exports of them read back."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from attrs import field, frozen

Array = np.ndarray[Any, Any]
Values = Mapping[str, tuple[str, tuple[str, ...]]]  # name -> dtype, dims

SIZES = {"layer": 3, "call": 2, "head": 2, "feature": 5, "vocabulary": 700}
ROOT = {"hookql_version": "0.1.0", "query": "capture values from h[*]", "model": "demo"}


@frozen
class Raw:
    """One group with raw values: its variables, and how many rows each sample has."""

    values: Values
    row_size: Sequence[int]
    group: str = "/"
    unlimited: bool = False
    attributes: Mapping[str, str] = field(factory=dict)


def write_nc(path: Path, raws: Sequence[Raw], seed: int = 1) -> dict[str, dict[str, Array]]:
    """Write a file of random bits; returns what an export has to hold of each node."""
    import netCDF4

    random = np.random.default_rng(seed)
    expected = {}
    with netCDF4.Dataset(path, "w") as file:
        file.setncatts(ROOT)
        for raw in raws:
            group = file.createGroup(raw.group) if raw.group != "/" else file
            group.setncatts(dict(raw.attributes))
            expected[group.path] = _fill(group, raw, random)
    return expected


def _fill(group: Any, raw: Raw, random: np.random.Generator) -> dict[str, Array]:
    rows = sum(raw.row_size)
    growing = raw.unlimited or not rows  # to netCDF, a size of 0 says so
    dims = {dim for _, dims in raw.values.values() for dim in dims}
    for dim in sorted(dims - {"obs"}):
        group.createDimension(dim, SIZES[dim])
    group.createDimension("obs", None if growing else rows)
    group.createDimension("sample", len(raw.row_size))
    if "layer" in dims:
        group.createVariable("layer", "<i8", ("layer",))[:] = [2, 5, 9]
        modules = np.array([f"h.{layer}" for layer in (2, 5, 9)], object)
        group.createVariable("module", str, ("layer",))[:] = modules
    sizes = group.createVariable("row_size", "<i8", ("sample",), fill_value=False)
    sizes.sample_dimension = "obs"
    sizes[:] = np.asarray(raw.row_size, np.int64)
    found = {"sample": np.repeat(np.arange(len(raw.row_size)), raw.row_size)}
    places = dict.fromkeys(("position", "token_id", "chunk"), ("<i4", ("obs",)))
    for name, (dtype, along) in {**raw.values, **places}.items():
        chunks = [16 if dim == "obs" else group.dimensions[dim].size for dim in along]
        kept = {"chunksizes": chunks} if growing else {"contiguous": True}
        variable = group.createVariable(name, dtype, along, fill_value=False, **kept)
        variable.set_auto_maskandscale(False)
        variable.long_name = f"{name} of {group.path}"
        shape = tuple(rows if dim == "obs" else SIZES[dim] for dim in along)
        bits = random_bits(random, dtype, shape)
        variable[:] = bits
        found[name] = np.moveaxis(bits, along.index("obs"), 0)
    return found


def random_bits(random: np.random.Generator, dtype: str, shape: tuple[int, ...]) -> Array:
    """Any bits, so that NaNs have payloads; a run of -0.0 in front, and one of 0.0 behind."""
    size = int(np.prod(shape, dtype=int))
    bits = np.frombuffer(random.bytes(size * np.dtype(dtype).itemsize), dtype).copy()
    if dtype in ("<f4", "<f8"):
        bits[: size // 3] = -0.0
        bits[size - size // 4 :] = 0.0
    return bits.reshape(shape)


def manifest_of(folder: Path) -> dict[str, Any]:
    """The manifest of an exported folder."""
    found: dict[str, Any] = json.loads((folder / "_manifest.json").read_text(encoding="utf-8"))
    return found


def read_back(folder: Path) -> dict[str, dict[str, Array]]:
    """All arrays of an export, read by the library of its format."""
    manifest = manifest_of(folder)
    read = {"safetensors": _safetensors, "npy": _npy, "parquet": _parquet, "zarr": _zarr}
    return {
        node["node"]: {
            name: read[manifest["format"]](folder, manifest, node, name) for name in node["arrays"]
        }
        for node in manifest["nodes"]
    }


def shards(folder: Path, manifest: Any, node: Any, name: str) -> list[Path]:
    """The files of an array, in the order of their rows."""
    files = [f for f in manifest["files"] if node["node"] == f.get("node") and name in f["arrays"]]
    return [folder / f["path"] for f in sorted(files, key=lambda f: f["rows"])]


def _safetensors(folder: Path, manifest: Any, node: Any, name: str) -> Array:
    from safetensors.numpy import load_file

    return np.concatenate([load_file(p)[name] for p in shards(folder, manifest, node, name)])


def _npy(folder: Path, manifest: Any, node: Any, name: str) -> Array:
    paths = shards(folder, manifest, node, name)
    empty = node["rows"] == 0
    return np.concatenate([np.load(p, mmap_mode=None if empty else "r") for p in paths])


def _parquet(folder: Path, manifest: Any, node: Any, name: str) -> Array:
    import pyarrow
    from pyarrow import parquet

    parts = []
    for path in shards(folder, manifest, node, name):
        column = parquet.read_table(path, columns=[name])[name].combine_chunks()
        shape = node["arrays"][name]["shape"][1:]
        flat = column.flatten() if pyarrow.types.is_fixed_size_list(column.type) else column
        parts.append(np.asarray(flat).reshape(-1, *shape))
    return np.concatenate(parts)


def _zarr(folder: Path, manifest: Any, node: Any, name: str) -> Array:
    import zarr

    found: Array = zarr.open(folder, mode="r")[f"{node['node']}/{name}".lstrip("/")][...]
    return found
