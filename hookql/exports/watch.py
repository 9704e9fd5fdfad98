"""Rows compared with the checksums of their file as they are read, so that no damage is copied."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from attrs import Factory, define, field

from hookql.exports.faults import damaged
from hookql.raw import checksums
from hookql.raw.crc import GROUP, ROWS, Crc
from hookql.raw.tables import split_column

Array = np.ndarray[Any, Any]
Sums = Mapping[tuple[str, str, str], list[int]]


@define(eq=False)
class Watch:
    """The checksums of one variable, by its leading index; empty where the file has none."""

    path: Path
    name: str  # as an error calls it
    length: int  # rows
    expected: Mapping[tuple[int, ...], list[int]]
    _found: dict[tuple[int, ...], Crc] = field(factory=dict)
    _rows: int = 0
    _blocks: int = 0
    _done: bool = field(default=Factory(lambda self: not self.expected, takes_self=True))

    def take(self, start: int, rows: Array) -> None:
        """Look at rows (\\*leading, n, ...) as they lie in the file; HookQLError if they differ.

        They are to come in order; what comes again is not looked at again.
        """
        if self._done or start != self._rows:
            return
        self._rows += rows.shape[len(next(iter(self.expected)))]
        self._done = self._rows == self.length
        whole = -(-self._rows // ROWS) if self._done else self._rows // ROWS
        for index, sums in self.expected.items():
            crc = self._found.setdefault(index, Crc())
            crc.update(rows[index])
            found = crc.blocks()
            for block in range(self._blocks, whole):
                if block >= len(sums) or found[block] != sums[block]:
                    first, end = block * ROWS, min((block + 1) * ROWS, self.length)
                    where = f"rows {first:,} to {end - 1:,} of {self.name}"
                    raise damaged(self.path, f"{where} differ from what was written")
        self._blocks = whole


def sealed(path: Path, file: Any) -> Sums:
    """The checksums of all rows of a file: none if it has none."""
    if GROUP not in file.groups:
        return {}
    found = checksums.sealed(file.groups[GROUP])
    if found is None:
        raise damaged(path, "its checksums are not whole")
    return found


def watch(path: Path, sums: Sums, group: Any, variable: Any, along: str) -> Watch:
    """The watch over a variable that grows along a dimension."""
    expected = {
        split_column(name)[1]: numbers
        for (where, kind, name), numbers in sums.items()
        if (where, kind) == (group.path, "rows") and split_column(name)[0] == variable.name
    }
    place = "" if group.path == "/" else f" of `{group.path}`"
    length = variable.shape[variable.dimensions.index(along)]
    return Watch(path, f"`{variable.name}`{place}", length, expected)
