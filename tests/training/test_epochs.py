"""Each row comes once an epoch, in the order that the seed says, and can be continued."""

from __future__ import annotations

import json
import pickle
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.utils.data import DataLoader

from hookql.errors import UsageError
from hookql.training.entry import training_batches
from hookql.training.order import Order
from tests.training.made import flat, numbers, small, write_rows

ROWS = 1000
pytestmark = pytest.mark.usefixtures("at_once")


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A thousand rows."""
    return write_rows(tmp_path_factory.mktemp("rows") / "acts.nc", ROWS)


@pytest.fixture(scope="module")
def chunked(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A thousand rows in chunks of 64."""
    return write_rows(tmp_path_factory.mktemp("rows") / "acts.nc", ROWS, chunk=64)


@pytest.mark.parametrize(
    ("workers", "shuffle"), [(0, True), (0, False), (1, True), (2, True), (2, False), (3, True)]
)
@pytest.mark.filterwarnings("ignore:This DataLoader will create")
def test_each_row_once(file: Path, chunked: Path, workers: int, shuffle: bool) -> None:
    """Whatever the workers and the file, each row comes once, in batches of one size but one."""
    for path in (file, chunked):
        batches = small(path, workers=workers, shuffle=shuffle)
        epochs = [numbers(batches), numbers(batches)]
        for epoch in epochs:
            assert list(range(ROWS)) == sorted(row for batch in epoch for row in batch)
            assert [32] * 31 + [8] == [len(batch) for batch in epoch]
            assert len(epoch) == len(batches)
        assert shuffle == (epochs[0] != epochs[1])
        in_order = [list(range(at, min(at + 32, ROWS))) for at in range(0, ROWS, 32)]
        assert (not shuffle) == (in_order == epochs[0])


@given(
    rows=st.lists(st.integers(1, 200), min_size=1, max_size=3),
    block=st.integers(1, 40),
    batch_size=st.integers(1, 50),
    pool=st.integers(1, 300),
    shuffle=st.booleans(),
    drop_last=st.booleans(),
    world_size=st.integers(1, 3),
    lanes=st.integers(1, 4),
    given_before=st.integers(0, 30),
)
@settings(max_examples=150, deadline=None)
def test_orders(
    rows: list[int],
    block: int,
    batch_size: int,
    pool: int,
    shuffle: bool,
    drop_last: bool,
    world_size: int,
    lanes: int,
    given_before: int,
) -> None:
    """Ranks, lanes and pools of any size share all rows; what was given before is left out."""
    seen: list[tuple[int, int]] = []
    counts = []
    for rank in range(world_size):
        order = Order(
            rows=tuple(rows),
            blocks=tuple(block + each for each in range(len(rows))),
            batch_size=batch_size,
            pool=pool,
            shuffle=shuffle,
            seed=3,
            drop_last=drop_last,
            rank=rank,
            world_size=world_size,
        )
        whole = in_turn(order, lanes, 0)
        counts.append(len(whole))
        assert order.batches == len(whole)
        assert [batch_size] * (len(whole) - 1) == [len(batch) for batch in whole[:-1]]
        assert not drop_last or all(batch_size == len(batch) for batch in whole)
        assert whole[given_before:] == in_turn(order, lanes, given_before)
        seen += [row for batch in whole for row in batch]
    everything = [(file, row) for file, count in enumerate(rows) for row in range(count)]
    assert len(set(seen)) == len(seen)
    if drop_last:
        assert 1 == len(set(counts))
        assert len(everything) - len(seen) < batch_size * world_size
    else:
        assert everything == sorted(seen)


def in_turn(order: Order, lanes: int, before: int) -> list[list[tuple[int, int]]]:
    """The batches of all lanes in turn, as a loader gives them, each row as (file, number)."""
    waiting = [list(lane_batches(order, lane, lanes, before)) for lane in range(lanes)]
    found = []
    lane = before % lanes
    while waiting[lane]:
        found.append(waiting[lane].pop(0))
        lane = (lane + 1) % lanes
    assert not any(waiting)
    return found


def lane_batches(
    order: Order, lane: int, lanes: int, before: int
) -> Iterator[list[tuple[int, int]]]:
    """The batches of one lane."""
    for pool in order.pools(5, lane, lanes, before):
        rows = [(p.file, row) for p in pool.pieces for row in range(p.start, p.stop)]
        assert sum(pool.sizes) == len(rows)
        shuffled = rows if pool.order is None else [rows[at] for at in pool.order]
        end = 0
        for number, size in enumerate(pool.sizes):
            start, end = end, end + size
            if number >= pool.first:
                yield shuffled[start:end]


def test_seeds_and_epochs(file: Path) -> None:
    """A seed has one order, an epoch its own; another seed another one."""
    first, again, other = small(file), small(file), small(file, seed=1)
    epochs = [flat(first) for _ in range(3)]
    assert epochs == [flat(again) for _ in range(3)]
    assert epochs[0] != flat(other)
    again.set_epoch(1)
    assert epochs[1] == flat(again)


def test_left_early_it_begins_again(file: Path) -> None:
    """Who leaves an epoch early gets it from its beginning the next time."""
    batches = small(file)
    few = numbers(islice(batches, 3))
    assert few == numbers(batches)[:3]


@pytest.mark.parametrize(
    ("workers", "stop", "shuffle"),
    [(0, 0, True), (0, 1, True), (0, 7, False), (0, 32, True), (2, 7, True), (2, 31, False)],
)
def test_resumption(file: Path, workers: int, stop: int, shuffle: bool) -> None:
    """A state, kept as JSON, continues in the middle of the second epoch with the next batch."""
    straight = small(file, workers=workers, shuffle=shuffle)
    flat(straight)
    expected = numbers(straight)
    third = flat(straight)
    stopped = small(file, workers=workers, shuffle=shuffle)
    flat(stopped)
    assert expected[:stop] == numbers(islice(stopped, stop))
    state = json.loads(json.dumps(stopped.state_dict()))
    continued = small(file, workers=workers, shuffle=shuffle)
    continued.load_state_dict(state)
    continued.set_epoch(1)  # as a loop over epochs does: it is this one
    assert expected[stop:] == numbers(continued)
    assert third == flat(continued)


def test_the_state_of_a_finished_epoch(file: Path) -> None:
    """Taken between epochs it begins the next one."""
    batches, other = small(file), small(file)
    flat(batches)
    other.load_state_dict(batches.state_dict())
    assert flat(batches) == flat(other)


@pytest.mark.parametrize("num_workers", [0, 2])
def test_a_loader_of_ones_own(file: Path, num_workers: int) -> None:
    """A DataLoader gives the same batches, whatever its workers, and each row once."""
    loader = DataLoader(small(file), batch_size=None, num_workers=num_workers)
    assert 32 == len(loader)
    assert numbers(small(file, workers=num_workers)) == numbers(loader)


def test_its_workers_epochs(file: Path) -> None:
    """set_epoch says which epoch the workers of such a loader give."""
    batches = small(file)
    loader = DataLoader(batches, batch_size=None, num_workers=2)
    first = flat(loader)
    batches.set_epoch(1)
    second = flat(loader)
    assert first != second
    assert sorted(first) == sorted(second)


def test_its_state_is_refused(file: Path) -> None:
    """What the workers of a loader of one's own gave, nobody can know here."""
    batches = small(file)
    next(iter(DataLoader(batches, batch_size=None, num_workers=1)))
    with pytest.raises(UsageError, match="state-elsewhere"):
        batches.state_dict()


def test_nor_does_it_continue(file: Path) -> None:
    """A state that was loaded outside of workers is not continued in them, in silence."""
    batches = small(file)
    batches.load_state_dict({**batches.state_dict(), "batches": 3})
    with pytest.raises(RuntimeError, match="not-in-workers"):
        flat(DataLoader(batches, batch_size=None, num_workers=1))


def test_workers_within_workers(file: Path) -> None:
    """Batches with workers of their own are not read in those of a loader."""
    with pytest.raises(RuntimeError, match="leave num_workers of the DataLoader at 0"):
        flat(DataLoader(small(file, workers=1), batch_size=None, num_workers=1))


def test_a_state_within_each_worker(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Loaders that keep a state in each worker (torchdata's) continue there."""

    class Worker:
        id, num_workers = 1, 2

    monkeypatch.setattr("hookql.training.batches.get_worker_info", Worker)
    whole, stopped, continued = small(file), small(file), small(file)
    expected = numbers(whole)
    assert expected[:5] == numbers(islice(stopped, 5))
    continued.load_state_dict(stopped.state_dict())
    assert expected[5:] == numbers(continued)


@pytest.mark.parametrize("drop_last", [True, False])
def test_ranks(file: Path, drop_last: bool) -> None:
    """Ranks share the rows; with drop_last each has equally many batches."""
    ranks = [
        small(file, rank=rank, world_size=3, drop_last=drop_last, workers=rank) for rank in range(3)
    ]
    found = [numbers(rank) for rank in ranks]
    together = sorted(row for rank in found for batch in rank for row in batch)
    assert len(set(together)) == len(together)
    assert (10 * 32 * 3 if drop_last else ROWS) == len(together)
    assert ([10, 10, 10] if drop_last else [11, 11, 11]) == [len(rank) for rank in found]


def test_ranks_of_torch_distributed(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where torch.distributed runs, it says which rank this is."""
    monkeypatch.setattr(torch.distributed, "is_initialized", lambda: True)
    monkeypatch.setattr(torch.distributed, "get_rank", lambda: 1)
    monkeypatch.setattr(torch.distributed, "get_world_size", lambda: 4)
    mine = flat(small(file))
    assert 250 == len(mine)
    monkeypatch.undo()
    assert mine == flat(small(file, rank=1, world_size=4))


def test_drop_last(file: Path) -> None:
    """The rows that fill no batch are left away, others in each epoch."""
    batches = small(file, drop_last=True)
    epochs = [flat(batches) for _ in range(2)]
    assert 31 == len(batches)
    assert [31 * 32] * 2 == [len(set(epoch)) for epoch in epochs]
    assert set(epochs[0]) != set(epochs[1])


def test_they_pickle(file: Path) -> None:
    """Batches travel to other processes, and go on there as they would have here."""
    batches: Any = small(file)
    assert flat(pickle.loads(pickle.dumps(batches))) == flat(batches)


def test_more_than_a_file_has(file: Path) -> None:
    """A batch larger than the file is the whole file."""
    batches = training_batches(file, batch_size=5000)
    assert [ROWS] == [len(batch) for batch in batches]
