"""npy: a file an array and shard, for `np.load(..., mmap_mode="r")`."""

from __future__ import annotations

import io
from collections.abc import Sequence

from numpy.lib.format import write_array_header_2_0

from hookql.exports.files import Folder, numbered
from hookql.exports.tables import Node


def write(nodes: Sequence[Node], folder: Folder, shard_bytes: int) -> None:
    """Write ``values-00000.npy``, ``sample-00000.npy`` and so on; equal numbers, equal rows."""
    for node in nodes:
        _write(node, folder, shard_bytes)


def _write(node: Node, folder: Folder, shard_bytes: int) -> None:
    parts = node.parts(shard_bytes)
    for number, (start, stop) in enumerate(parts):
        for column in node.columns:
            name = f"{numbered(number, len(parts), f'{column.name}-')}.npy"
            with folder.file(node.name, name, (start, stop), [column.name]) as sink:
                shape = (stop - start, *column.shape)
                header = io.BytesIO()
                about = {"descr": column.dtype, "fortran_order": False, "shape": shape}
                write_array_header_2_0(header, about)
                sink.write(header.getvalue())
                for rows in column.slabs(start, stop):
                    sink.write(rows)
