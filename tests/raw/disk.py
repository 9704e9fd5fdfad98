"""A process whose disk is full: how `tests/raw/test_writer.py` runs it.

`python -m tests.raw.disk limit|none known|unknown PATH`: writes a file of 5 MB and prints what the
writer says, or "whole"; with "limit", no file may be larger than 3 MB.
"""

from __future__ import annotations

import os
import resource
import sys
from pathlib import Path

from hookql.errors import HookQLError
from hookql.raw.tables import RawTable
from hookql.raw.writer import Writer
from tests.raw.made import batches, numbers, table

ROWS = 10_000


def main(limit: str, known: str, path: Path) -> None:
    """Write until it fails; then clean up, and write something small in the same process."""
    if limit == "limit":
        resource.setrlimit(resource.RLIMIT_FSIZE, (3_000_000, 3_000_000))
    of = table(rows=ROWS if known == "known" else None, width=64)
    try:
        put(path, of, ROWS)
        print("whole")
    except HookQLError as error:
        print(str(error).replace(str(path.parent), "out"))
    path.unlink(missing_ok=True)
    held = [os.fstat(int(number)).st_blocks for number in os.listdir("/proc/self/fd")
            if path.name in where(number)]  # fmt: skip
    print(f"disk space still held: {sum(held) * 512}")
    put(path, table(rows=3), 3)
    print("and then it can write")


def put(path: Path, of: RawTable, rows: int) -> None:
    """A table through a writer."""
    writer = Writer({path: [of]}, "none", queue_bytes=1_000_000)
    try:
        for columns in batches(numbers(of, rows), 100):
            writer.append(of.name, columns)
        writer.finish()
    finally:
        writer.abandon()


def where(number: str) -> str:
    """The file behind an open number; nothing if it is none any more."""
    try:
        return os.readlink(f"/proc/self/fd/{number}")
    except OSError:
        return ""


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], Path(sys.argv[3]))
