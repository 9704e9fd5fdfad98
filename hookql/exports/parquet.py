"""Parquet: a file a shard, in it a row a token; values are lists of one length."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from hookql.exports.files import Folder, numbered
from hookql.exports.tables import PLACES, SLAB, Array, Column, Node

# Values are stored plainly: a dictionary of them would take two NaNs for one. Places repeat.
_REPEATING = ["sample", *PLACES]


def write(nodes: Sequence[Node], folder: Folder, shard_bytes: int) -> None:
    """Write ``00000.parquet`` and so on, each in groups of at most ``SLAB`` bytes of rows."""
    for node in nodes:
        _write(node, folder, shard_bytes)


def _write(node: Node, folder: Folder, shard_bytes: int) -> None:
    import pyarrow
    from pyarrow import parquet

    schema = pyarrow.schema([_field(column) for column in node.columns], {"node": node.name})
    parts = node.parts(shard_bytes)
    step = max(1, SLAB // node.row_bytes)
    for number, (start, stop) in enumerate(parts):
        name = f"{numbered(number, len(parts))}.parquet"
        with folder.file(node.name, name, (start, stop), schema.names) as sink:
            writer = parquet.ParquetWriter(
                pyarrow.PythonFile(sink, "w"),
                schema,
                compression="none",
                use_dictionary=_REPEATING,
                write_statistics=_REPEATING,
            )
            try:
                for at in range(start, stop, step):
                    end = min(at + step, stop)
                    arrays = [_array(column, column.read(at, end)) for column in node.columns]
                    writer.write_table(pyarrow.table(arrays, schema=schema))
            except BaseException:
                writer.is_open = False  # or it would write the end of a file that is none
                raise
            writer.close()


def _field(column: Column) -> Any:
    """What a column is; several axes lie in one list, and ``shape`` says how."""
    import pyarrow

    kind = pyarrow.from_numpy_dtype(column.dtype)
    if column.shape:
        kind = pyarrow.list_(kind, _length(column))
    told = {"dims": json.dumps(column.dims), "shape": json.dumps(column.shape)}
    return pyarrow.field(column.name, kind, nullable=False, metadata=told)


def _array(column: Column, rows: Array) -> Any:
    import pyarrow

    flat = pyarrow.array(rows.reshape(-1))
    if not column.shape:
        return flat
    return pyarrow.FixedSizeListArray.from_arrays(flat, _length(column))


def _length(column: Column) -> int:
    length = 1
    for size in column.shape:
        length *= size
    return length
