"""A file from somebody else, read to its end in a process of its own before it is read here.

The C library behind NetCDF was not written for hostile files: a changed byte can send it round for
ever, with Python's lock held, so that not even Ctrl-C ends it. What must not happen here may happen
there. Run as a script (``python -I foreign.py FILE``) it is that process: it reads all there is and
prints what the file says of itself.
"""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

MEMORY = 4 * 2**30
"""Bytes of address space that the process may have; pieces of variables are let go of at once."""

_PIECE = 1 << 22  # numbers that are read at once
_SECONDS = 20.0
_SLOWEST = 20e6  # bytes a second: a file on a slow disk is not a hostile one

_START = (
    "import sys; sys.path[:] = {paths!r}; import runpy; runpy.run_path({me!r}, run_name='__main__')"
)


class NotReadable(Exception):
    """Why a file cannot be read: what stands behind its name in a sentence."""


def declared_bytes(path: Path, everything: int) -> int:
    """The bytes that all variables of a NetCDF file would take, whatever the file's own size.

    What it holds is read as well, as long as it is no more than ``everything`` bytes. Raises
    NotReadable for a file that is broken or makes the library crash, hang or eat memory.
    """
    size = path.stat().st_size
    patience = _SECONDS + size / _SLOWEST
    start = _START.format(paths=[p for p in sys.path if p], me=str(Path(__file__).resolve()))
    command = [sys.executable, "-I", "-c", start, str(path.resolve()), str(everything)]
    try:
        done = subprocess.run(
            command, stdin=subprocess.DEVNULL, capture_output=True, timeout=patience, check=False
        )
    except subprocess.TimeoutExpired:
        raise NotReadable(f"takes longer than {patience:.0f} seconds to read") from None
    try:
        said = json.loads(done.stdout)
    except ValueError:
        said = {}
    if done.returncode < 0:
        raise NotReadable("makes the NetCDF library crash")
    if done.returncode or not isinstance(said, dict) or "bytes" not in said:
        raise NotReadable("is not a whole NetCDF file")
    return int(said["bytes"])


def _measure(path: str, everything: int) -> int:
    import netCDF4

    with netCDF4.Dataset(path) as file:
        groups, total = [file], 0
        for group in groups:
            groups += group.groups.values()
            _attributes(group)
            for variable in group.variables.values():
                _attributes(variable)
                total += _bytes(variable)
        if total <= everything:
            for group in groups:
                for variable in group.variables.values():
                    _read(variable)
    return total


def _attributes(holder: Any) -> None:
    for name in holder.ncattrs():
        holder.getncattr(name)


def _bytes(variable: Any) -> int:
    """What a variable takes in memory; a text, whose length is not known, as 64 bytes."""
    count = 1
    for size in variable.shape:
        count *= int(size)
    width = getattr(variable.dtype, "itemsize", 64) if variable.dtype is not str else 64
    return count * width


def _read(variable: Any) -> None:
    """Read all of a variable, some of its first dimension at a time."""
    variable.set_auto_maskandscale(False)
    if not variable.shape:
        variable[...]
        return
    row = 1
    for size in variable.shape[1:]:
        row *= int(size)
    step = max(1, _PIECE // max(1, row))
    for first in range(0, variable.shape[0], step):
        variable[first : first + step]


def main() -> None:
    """What the process does: bounded in memory, so that only itself can come to harm."""
    try:
        import resource

        resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    except (ImportError, ValueError, OSError):  # not every system has such limits
        pass
    print(json.dumps({"bytes": _measure(sys.argv[1], int(sys.argv[2]))}))


if __name__ == "__main__":
    main()
