"""`training_batches`: raw values of result files as shuffled batches to train on."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from hookql.errors import Diagnostic, UsageError
from hookql.training.batches import TrainingBatches
from hookql.training.finding import Choice
from hookql.training.looking import look
from hookql.training.order import Order
from hookql.training.rows import Rows
from hookql.training.stream import Stream, row_cost

MEGABYTE = 1_000_000
MANY = 1024  # blocks that a pool has at least, for these mix in it
SOME = 64  # the same where a chunk is read whole, however little of it is wanted


def training_batches(
    path: str | Path | Sequence[str | Path],
    batch_size: int = 4096,
    *,
    shuffle: bool = True,
    seed: int = 0,
    layer: int | Sequence[int] | None = None,
    node: str | None = None,
    variable: str | None = None,
    metadata: bool = False,
    drop_last: bool = False,
    memory: float = 256,
    workers: int = 0,
    rank: int | None = None,
    world_size: int | None = None,
) -> TrainingBatches:
    """The rows of `values` in a result file as batches to train on, each row once an epoch.

    Args:
        path: a result with `values`, or several whose rows are of one kind.
        batch_size: rows of a batch; the last one of an epoch may have fewer.
        shuffle: give the rows in a random order, another one in each epoch. Rows that are in memory
            together are in perfectly random order; which these are is drawn in short blocks.
        seed: of that order; one seed, one order.
        layer: the number of the layer, where the file has several; of a list of them the rows lie
            side by side, (batch, layer, feature).
        node: where in the result's tree the rows are, where it has several: ``"acts/h.attn"``.
        variable: which of the node's raw values, where it has several: ``"values"``.
        metadata: give a `TrainingBatch` with sample, chunk, position and token id of each row.
        drop_last: leave the last rows of an epoch away that fill no batch; with several ranks each
            has equally many batches then.
        memory: MB that the rows in memory take, those of all workers together.
        workers: processes that read and shuffle while the caller trains; 0: the caller does.
        rank, world_size: which part of the rows to give, of how many; where torch.distributed runs,
            as it says.

    Returns:
        A `TrainingBatches`: an ``IterableDataset`` of tensors (n, \\*row) in the file's dtype.

    Raises:
        UsageError: for a wrong option, a file that is none of HookQL's or has no raw values, and
            where it has several kinds of them and nothing says which. DataError for no rows.
            Iterating raises HookQLError where the file cannot be read or is another one meanwhile.
    """
    counts = {"batch_size": (batch_size, 1), "seed": (seed, 0), "workers": (workers, 0)}
    for name, (value, least) in counts.items():
        _check_whole(name, value, least)
    rank, world_size = _place(rank, world_size)
    layers = tuple(layer) if isinstance(layer, Sequence) else layer
    _check_layers(layers)
    paths: list[Any] = list(path) if isinstance(path, list | tuple) else [path]
    if not paths or not all(isinstance(each, str | Path) for each in paths):
        message = "a result's file is meant, or a list of such files"
        raise UsageError(Diagnostic("bad-file", message))
    files = [look(Path(each), Choice(node, variable, layers), metadata) for each in paths]
    _check_alike(files)
    pool = _pool(memory, row_cost(files[0].row_bytes, metadata))
    order = Order(
        rows=tuple(rows.count for rows in files),
        blocks=tuple(_block(rows, pool // max(1, workers)) for rows in files),
        batch_size=batch_size,
        pool=pool,
        shuffle=bool(shuffle),
        seed=seed,
        drop_last=bool(drop_last),
        rank=rank,
        world_size=world_size,
    )
    _check_pool(order, workers, memory)
    return TrainingBatches(Stream(tuple(files), order, bool(metadata)), workers)


def _place(rank: int | None, world_size: int | None) -> tuple[int, int]:
    """This process's number among how many."""
    if (rank is None) != (world_size is None):
        message = "`rank` and `world_size` go together"
        raise UsageError(Diagnostic("bad-option", message))
    if rank is None or world_size is None:
        together = torch.distributed.is_available() and torch.distributed.is_initialized()
        if not together:
            return 0, 1
        return torch.distributed.get_rank(), torch.distributed.get_world_size()
    _check_whole("world_size", world_size, 1)
    _check_whole("rank", rank, 0)
    if rank >= world_size:
        message = f"`rank` must be below `world_size`, {world_size}, not {rank}"
        raise UsageError(Diagnostic("bad-option", message))
    return rank, world_size


def _check_whole(name: str, value: object, least: int) -> None:
    if isinstance(value, bool) or not isinstance(value, int) or value < least:
        message = f"`{name}` must be a whole number of {least} or more, not {value!r}"
        raise UsageError(Diagnostic("bad-option", message))


def _check_layers(layers: object) -> None:
    several = layers if isinstance(layers, tuple) else () if layers is None else (layers,)
    wrong = [each for each in several if isinstance(each, bool) or not isinstance(each, int)]
    if wrong or layers == () or len(set(several)) < len(several):
        message = f"`layer` is the number of a layer, or a list of different ones, not {layers!r}"
        raise UsageError(Diagnostic("bad-option", message))


def _check_alike(files: Sequence[Rows]) -> None:
    first = files[0]
    for rows in files[1:]:
        if (rows.dtype, rows.dims, rows.shape) != (first.dtype, first.dims, first.shape):
            message = f"the rows of `{rows.path}` are not like those of `{first.path}`"
            notes = tuple(
                f"`{each.path}`: {each.dtype[1:]} {each.shape} ({', '.join(each.dims)})"
                for each in (first, rows)
            )
            raise UsageError(Diagnostic("rows-differ", message, notes=notes))


def _pool(memory: float, cost: int) -> int:
    number = isinstance(memory, int | float) and not isinstance(memory, bool)
    if number and 0 < memory < math.inf:
        return int(memory * MEGABYTE / cost)
    message = f"`memory` is a number of MB above 0, not {memory!r}"
    raise UsageError(Diagnostic("bad-option", message))


def _block(rows: Rows, pool: int) -> int:
    """How many rows lie together in the line: fewer than are best read, if the pool is small."""
    in_place = rows.columns[rows.variable].offset is not None
    return min(rows.block, max(1, pool // (MANY if in_place else SOME)))


def _check_pool(order: Order, workers: int, memory: float) -> None:
    """Rows can only be mixed with those that are in memory with them."""
    needed = min(order.batch_size, sum(order.rows)) * max(1, workers)
    if order.shuffle and order.pool < needed:
        message = f"`memory` of {memory:g} MB has room for {order.pool:,} rows, not for a batch"
        message += " of each worker" if workers > 1 else ""
        advice = "give it more, or smaller batches: the more rows, the better they mix"
        raise UsageError(Diagnostic("little-memory", message, help=advice))
