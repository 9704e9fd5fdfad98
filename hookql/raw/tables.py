"""What flows to the disk: rows appended to the columns of named tables, in their final order."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Protocol, TypeAlias

import numpy as np
from attrs import field, frozen

Columns: TypeAlias = Mapping[str, "np.ndarray[Any, Any]"]


class Tables(Protocol):
    """Takes in rows for good: a file that is being written, or the shards of a checkpoint."""

    def append(self, table: str, columns: Columns) -> None:
        """Put rows (n, ...) at the end of each column; those of one call may differ in n.

        The arrays are not changed afterwards by the caller.
        """


@frozen
class RawVariable:
    """A variable of a file that grows along ``obs`` or ``sample``.

    The dimensions before the growing one are told apart by the columns' names, those behind it are
    the shape of a row. ``dtype`` is "<f4", "<f8", "<i4" or "<i8".
    """

    name: str
    dtype: str
    dims: tuple[str, ...]
    attributes: Mapping[str, str | int | float] = field(factory=dict)


@frozen
class RawTable:
    """The raw part of one node of a result: variables that share the dimensions of ``group``.

    ``sizes`` has every dimension of the variables; None where it is not known beforehand.
    """

    name: str
    group: str
    sizes: Mapping[str, int | None]
    variables: tuple[RawVariable, ...]


GROWING = ("obs", "sample")


def column(variable: str, *index: int) -> str:
    """The name of a variable's column: ``values:3`` is layer 3 of ``values``."""
    return ":".join([variable, *map(str, index)])


def split_column(name: str) -> tuple[str, tuple[int, ...]]:
    """The variable and the leading index of a column."""
    variable, *index = name.split(":")
    return variable, tuple(map(int, index))
