"""How well rows mix, and how much memory that takes."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from hookql.training.order import Order
from tests.training.test_epochs import in_turn

ROWS, BATCH = 200_000, 256


def spread(block: int, pool: int) -> float:
    """The variance of batches' mean row numbers, that of an ideal shuffle being 1.

    A row's number is the worst there is: rows that lie together are all alike in it.
    """
    order = Order((ROWS,), (block,), BATCH, pool, shuffle=True, seed=0, drop_last=True)
    means = [np.mean([row for _, row in batch]) / ROWS for batch in in_turn(order, 1, 0)]
    return float(np.var(means) * 12 * BATCH)


def test_all_in_memory_is_an_ideal_shuffle() -> None:
    """Where all rows fit into memory, nothing is left of how they lie."""
    assert 1 == pytest.approx(spread(10, ROWS), abs=0.2)


def test_a_tenth_in_memory() -> None:
    """Of a tenth, in 1,024 blocks or more, batches differ as from a shuffle, or by chance more.

    In theory the variance is 1 + BATCH / blocks of a pool: 1.13 of 2,000 blocks.
    """
    assert 1.13 == pytest.approx(spread(10, ROWS // 10), abs=0.25)


def test_long_blocks_mix_badly() -> None:
    """The measure sees it: of 20 blocks in memory batches differ many times more."""
    assert spread(1000, ROWS // 10) > 5


def test_neighbours_part() -> None:
    """Rows that lie together are not given together: each batch has rows from everywhere."""
    order = Order((ROWS,), (10,), BATCH, ROWS // 10, shuffle=True, seed=0, drop_last=True)
    batches = [sorted(row for _, row in batch) for batch in in_turn(order, 1, 0)]
    neighbours = np.mean([np.mean(np.diff(batch) == 1) for batch in batches])
    assert neighbours < 0.02  # 0.0013 by chance alone, 0.0115 by theory
    assert all(len(np.unique(np.array(batch) * 10 // ROWS)) == 10 for batch in batches)


SCRIPT = """
import resource, sys
from pathlib import Path
from hookql.training.entry import training_batches
from tests.training.made import write_rows

path = Path(sys.argv[1])
rows, width = 300_000, 256
write_rows(path, 700, width)
list(training_batches(path, 256, metadata=True))  # all that is loaded once
path.unlink()
write_rows(path, rows, width, chunk=int(sys.argv[2]))
batches = training_batches(path, 4096, memory=30, metadata=True)
held = int(open("/proc/self/statm").read().split()[5]) * resource.getpagesize()
room = 100_000_000
resource.setrlimit(resource.RLIMIT_DATA, (held + room, held + room))
count, total = 0, 0
for batch in batches:
    count += len(batch.row)
    total += int(batch.row.sum())
assert (rows, rows * (rows - 1) // 2) == (count, total)
assert path.stat().st_size > 3 * room
"""


@pytest.mark.parametrize("chunk", [0, 512])
def test_a_file_larger_than_memory(tmp_path: Path, chunk: int) -> None:
    """300 MB of rows are shuffled by a process that may have 100 MB more than it starts with."""
    command = [sys.executable, "-c", SCRIPT, str(tmp_path / "acts.nc"), str(chunk)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert 0 == done.returncode, done.stderr
