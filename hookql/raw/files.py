"""Result files that are begun while the model runs, under temporary names beside their targets."""

from __future__ import annotations

import contextlib
import secrets
from collections.abc import Mapping, Sequence
from pathlib import Path

from attrs import frozen

from hookql.raw.tables import RawTable

Checksums = Mapping[str, Mapping[str, Sequence[int]]]


@frozen
class Begun:
    """A file with the raw rows of a result, to which the rest is to be added.

    ``checksums`` are those of its rows by group, as `checksums.seal` takes them.
    """

    path: Path
    checksums: Checksums
    variables: Mapping[str, frozenset[str]]  # by group: what is in it already


def temporary_beside(target: Path, token: str | None = None) -> Path:
    """A name for an unfinished file in the folder of the file that it will become.

    With ``token``, which a run that is resumed has again, what an earlier one left is removed.
    """
    real = target.resolve()  # so that a link stays one, to the new file
    found = real.with_name(f".{real.name[:100]}.{token or secrets.token_hex(4)}.tmp")
    if token is not None:
        remove([found])
    return found


def begun(
    path: Path, tables: Sequence[RawTable], checksums: Mapping[str, Mapping[str, Sequence[int]]]
) -> Begun:
    """A file that was written, of these tables; ``checksums`` are by table."""
    return Begun(
        path,
        {table.group: checksums[table.name] for table in tables},
        {table.group: frozenset(v.name for v in table.variables) for table in tables},
    )


def remove(paths: Sequence[Path]) -> None:
    """Remove unfinished files, as far as they are there."""
    for path in paths:
        with contextlib.suppress(OSError):
            path.unlink(missing_ok=True)
