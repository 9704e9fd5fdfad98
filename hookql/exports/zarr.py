"""Zarr 3: an array for each column, in shards that hold chunks of rows.

A chunk of whole rows is these rows as they are, and a shard is its chunks one after another with an
index behind them. Both are written here as they are read: the `zarr` package wants a whole shard in
memory, and goes on writing from its own thread after an error or Ctrl-C.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from functools import cache

import numpy as np

from hookql.exports.files import Folder
from hookql.exports.tables import Column, Node

CHUNK = 2**20  # bytes that a reader of one row has to read
_BYTES = {"name": "bytes", "configuration": {"endian": "little"}}
_NOWHERE = 2**64 - 1  # the index of a chunk that is not there
_POLYNOMIAL = 0x82F63B78  # of CRC-32C, its bits reversed


def write(nodes: Sequence[Node], folder: Folder, shard_bytes: int) -> None:
    """Write each column as ``NAME/c/SHARD``, then the ``zarr.json`` of all arrays and groups.

    The root's has the metadata of all the others too, so that no reader looks for them.
    """
    told: dict[str, dict[str, object]] = {"": _group({})}
    for node in nodes:
        parts = node.name.strip("/").split("/") if node.name != "/" else []
        for depth in range(1, len(parts)):
            told.setdefault("/".join(parts[:depth]), _group({}))
        attributes = {**node.attributes, "labels": node.coordinates}
        told["/".join(parts)] = _group(attributes)
        for column in node.columns:
            chunk, shard = _rows_in(column, node.rows, shard_bytes)
            _shards(node, column, folder, chunk, shard)
            told["/".join([*parts, column.name])] = _array(column, node.rows, chunk, shard)
    inside = {path: about for path, about in told.items() if path}
    told[""]["consolidated_metadata"] = {
        "kind": "inline",
        "must_understand": False,
        "metadata": inside,
    }
    for path, about in told.items():
        with folder.file("/" + path, "zarr.json") as sink:
            sink.write(json.dumps(about, ensure_ascii=False).encode())


def _rows_in(column: Column, rows: int, shard_bytes: int) -> tuple[int, int]:
    """How many rows a chunk and a shard hold; a shard is some number of chunks."""
    most = max(1, min(shard_bytes // column.row_bytes, rows))
    chunk = max(1, min(CHUNK // column.row_bytes, most))
    return chunk, most // chunk * chunk


def _shards(node: Node, column: Column, folder: Folder, chunk: int, shard: int) -> None:
    behind = "/0" * len(column.shape)
    for number, start in enumerate(range(0, node.rows, shard)):
        stop = min(start + shard, node.rows)
        name = f"{column.name}/c/{number}{behind}"
        with folder.file(node.name, name, (start, stop), [column.name]) as sink:
            for rows in column.slabs(start, stop):
                sink.write(rows)
            used = -(-(stop - start) // chunk)
            size = chunk * column.row_bytes
            sink.write(bytes(used * size - sink.bytes))  # the last chunk is a whole one too
            index = np.full((shard // chunk, 2), _NOWHERE, "<u8")
            index[:used, 0] = np.arange(used, dtype="<u8") * np.uint64(size)
            index[:used, 1] = size
            sink.write(index)
            sink.write(crc32c(index.tobytes()).to_bytes(4, "little"))


def _group(attributes: Mapping[str, object]) -> dict[str, object]:
    return {"zarr_format": 3, "node_type": "group", "attributes": dict(attributes)}


def _array(column: Column, rows: int, chunk: int, shard: int) -> dict[str, object]:
    """The metadata of one array: shards of chunks, neither compressed."""
    sharding = {
        "chunk_shape": [chunk, *column.shape],
        "codecs": [_BYTES],
        "index_codecs": [_BYTES, {"name": "crc32c"}],
        "index_location": "end",
    }
    grid = {"chunk_shape": [shard, *column.shape]}
    return {
        "zarr_format": 3,
        "node_type": "array",
        "shape": [rows, *column.shape],
        "data_type": np.dtype(column.dtype).name,
        "chunk_grid": {"name": "regular", "configuration": grid},
        "chunk_key_encoding": {"name": "default", "configuration": {"separator": "/"}},
        "fill_value": 0,
        "codecs": [{"name": "sharding_indexed", "configuration": sharding}],
        "attributes": dict(column.attributes),
        "dimension_names": ["obs", *column.dims],
    }


def crc32c(data: bytes) -> int:
    """CRC-32C (Castagnoli), which zarr puts behind an index; that of b"123456789" is 0xE3069283."""
    table = _table()
    crc = 0xFFFFFFFF
    for byte in data:
        crc = table[(crc ^ byte) & 0xFF] ^ (crc >> 8)
    return crc ^ 0xFFFFFFFF


@cache
def _table() -> list[int]:
    table = []
    for value in range(256):
        for _ in range(8):
            value = value >> 1 ^ (_POLYNOMIAL if value & 1 else 0)
        table.append(value)
    return table
