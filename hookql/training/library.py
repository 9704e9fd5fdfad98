"""Rows that only the NetCDF library can read, read by a process of its own.

HDF5 2 crashes where a file that has texts is opened, closed and opened again while somebody in the
same process, who looks at it with xarray, has it open all the time. So it is opened elsewhere.
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from attrs import frozen

_START = (
    "import sys; sys.path[:] = {paths!r}; from hookql.training.library import main; main({asked!r})"
)


def command(module: str, asked: str) -> list[str]:
    """A process of Python that calls ``main`` of one of our modules with a text."""
    start = _START.replace("hookql.training.library", module)
    return [
        sys.executable,
        "-I",
        "-c",
        start.format(paths=[p or "." for p in sys.path], asked=asked),
    ]


@frozen(eq=False)
class Library:
    """The process; made by `library`."""

    _process: subprocess.Popen[bytes]

    def read(self, name: str, index: tuple[int, ...], start: int, stop: int, out: Any) -> None:
        """Put rows of some leading indices of a variable into ``out``; OSError if it cannot."""
        asked = json.dumps([name, index, start, stop, out.dtype.str])
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(f"{asked}\n".encode())
        self._process.stdin.flush()
        into = out if out.flags.c_contiguous else np.empty(out.shape, out.dtype)
        if self._process.stdout.readinto(into.reshape(-1).view(np.uint8).data) != into.nbytes:  # type: ignore[attr-defined]
            raise OSError("its rows cannot be read")
        if into is not out:
            out[...] = into


@contextmanager
def library(path: Path, node: str) -> Iterator[Library]:
    """The process that reads a node of a file, as long as it is wanted."""
    asked = json.dumps([str(path), node])
    process = subprocess.Popen(
        command("hookql.training.library", asked),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
    )
    try:
        yield Library(process)
    finally:
        process.kill()
        process.communicate()


def main(asked: str) -> None:
    """What the process does: answers each line that asks for rows with their bytes."""
    import netCDF4

    path, node = json.loads(asked)
    with netCDF4.Dataset(path, "r") as file:
        file.set_auto_maskandscale(False)  # nothing is a fill value
        group = file[node] if node != "/" else file
        for line in sys.stdin.buffer:
            name, index, start, stop, dtype = json.loads(line)
            rows = group.variables[name][(*index, slice(start, stop))]
            sys.stdout.buffer.write(np.ascontiguousarray(rows, dtype).data)
            sys.stdout.buffer.flush()
