"""safetensors: a file a shard, in it a tensor for each array.

The format is a header and the plain numbers one after another, written here as they are read: the
`safetensors` package wants all of a file in memory.
"""

from __future__ import annotations

import json
from collections.abc import Sequence

from hookql.exports.files import Folder, Sink, numbered
from hookql.exports.tables import Column, Node

NAMES = {"<f4": "F32", "<f8": "F64", "<i4": "I32", "<i8": "I64"}


def write(nodes: Sequence[Node], folder: Folder, shard_bytes: int) -> None:
    """Write ``00000.safetensors`` and so on, each with all arrays of some rows."""
    for node in nodes:
        _write(node, folder, shard_bytes)


def _write(node: Node, folder: Folder, shard_bytes: int) -> None:
    parts = node.parts(shard_bytes)
    # Numbers of 8 bytes first: so each tensor begins where its numbers can be mapped.
    columns = sorted(node.columns, key=lambda column: column.dtype[2:], reverse=True)
    for number, (start, stop) in enumerate(parts):
        name = f"{numbered(number, len(parts))}.safetensors"
        arrays = [column.name for column in node.columns]
        with folder.file(node.name, name, (start, stop), arrays) as sink:
            _header(sink, columns, start, stop, node.name)
            for column in columns:
                for rows in column.slabs(start, stop):
                    sink.write(rows)


def _header(sink: Sink, columns: list[Column], start: int, stop: int, node: str) -> None:
    told = {"node": node, "rows": f"{start}:{stop}"}
    header: dict[str, object] = {"__metadata__": told}
    at = 0
    for column in columns:
        end = at + (stop - start) * column.row_bytes
        shape = [stop - start, *column.shape]
        header[column.name] = {
            "dtype": NAMES[column.dtype],
            "shape": shape,
            "data_offsets": [at, end],
        }
        at = end
    text = json.dumps(header, ensure_ascii=False).encode()
    text += b" " * (-len(text) % 8)
    sink.write(len(text).to_bytes(8, "little") + text)
