"""`TrainingBatches`: the rows of result files as an iterable data set of torch, epoch by epoch."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import torch
from torch.utils.data import DataLoader, IterableDataset, get_worker_info

from hookql.errors import Diagnostic, HookQLError, UsageError
from hookql.training.order import of_lane
from hookql.training.stream import Stream, TrainingBatch

Batch = torch.Tensor | TrainingBatch
_VERSION = 1


class TrainingBatches(IterableDataset[Batch]):
    """Batches of rows; each iteration is an epoch, in which each row comes once.

    Made by `training_batches`, and used as it is (``for rows in batches``), or as the data set of a
    ``DataLoader(batches, batch_size=None)``. ``len`` is the number of batches of an epoch.
    """

    def __init__(self, stream: Stream, workers: int) -> None:
        self.stream = stream
        self.workers = workers
        self.epoch = 0
        self._given = 0  # batches of the epoch
        self._first = 0  # where the next iteration begins
        self._loaded_in: int | None = None  # the worker in which `_first` was set
        # Seen by all processes: whether workers of a DataLoader, which nobody counts here, began.
        self._elsewhere = torch.zeros(1, dtype=torch.uint8)
        self._elsewhere.share_memory_()  # type: ignore[no-untyped-call]

    @property
    def rows(self) -> int:
        """How many rows the files have, all ranks together."""
        return sum(self.stream.order.rows)

    @property
    def row_shape(self) -> tuple[int, ...]:
        """The shape of a row."""
        return self.stream.files[0].shape

    @property
    def row_dims(self) -> tuple[str, ...]:
        """The names of a row's axes: ``("feature",)``, ``("layer", "feature")``."""
        return self.stream.files[0].dims

    def __len__(self) -> int:
        return self.stream.order.batches

    def set_epoch(self, epoch: int) -> None:
        """Have the next iteration be this epoch, from its beginning unless it is the one begun.

        An epoch that was finished is followed by the next one without it, but in a ``DataLoader``
        of one's own, whose workers count for themselves.
        """
        _check_count("epoch", epoch)
        if epoch != self.epoch:
            self.epoch, self._given, self._first = epoch, 0, 0

    def state_dict(self) -> dict[str, Any]:
        """Where the iteration is: after the batch that it gave last. Plain numbers and texts.

        UsageError where a ``DataLoader`` of one's own iterates in workers: nobody knows here which
        of their batches were used.
        """
        worker = get_worker_info()
        if worker is None and self._elsewhere[0]:
            message = "the batches were read in workers of a DataLoader, which count for themselves"
            advice = "let hookql.training_batches have the workers: workers=2"
            raise UsageError(Diagnostic("state-elsewhere", message, help=advice))
        lanes = max(1, self.workers) if worker is None else worker.num_workers
        return {
            "hookql_training": _VERSION,
            "epoch": self.epoch,
            "batches": self._given,
            "lanes": lanes,
            "settings": self._settings(),
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Have the next iteration continue where another one was.

        UsageError for a state of other files, of another order, or that is none.
        """
        known = isinstance(state, Mapping) and state.get("hookql_training") == _VERSION
        if not known or not isinstance(state.get("settings"), Mapping):
            message = "that is no state of training batches"
            advice = "give what state_dict() of such batches returned"
            raise UsageError(Diagnostic("not-a-state", message, help=advice))
        for name in ("epoch", "batches"):
            _check_count(name, state.get(name))
        worker = get_worker_info()
        lanes = max(1, self.workers) if worker is None else worker.num_workers
        mine = {**self._settings(), "workers": lanes}
        theirs = {**state["settings"], "workers": state.get("lanes")}
        different = [
            f"{name}: {theirs.get(name)!r}, here {value!r}"
            for name, value in mine.items()
            if theirs.get(name) != value
        ]
        if different:
            message = (
                "the state is of batches in another order, and cannot be continued in this one"
            )
            raise UsageError(Diagnostic("other-state", message, notes=tuple(different)))
        self.epoch = state["epoch"]
        self._given = self._first = state["batches"]
        self._loaded_in = None if worker is None else worker.id

    def __iter__(self) -> Iterator[Batch]:
        worker = get_worker_info()
        first, self._first = self._first, 0
        self._given = first
        if worker is None:
            yield from self._counted(self._here(first) if not self.workers else self._there(first))
            return
        self._elsewhere[0] = 1
        if self.workers:
            _refuse("they have workers of their own", "leave num_workers of the DataLoader at 0")
        if first and self._loaded_in != worker.id:
            advice = "let hookql.training_batches have the workers: workers=2"
            _refuse("a state was loaded outside of the workers that would continue it", advice)
        lane, lanes = worker.id, worker.num_workers
        count = of_lane(first, lane, lanes)
        for batch in _readable(self.stream.batches(self.epoch, lane, lanes, first)):
            self._given = count * lanes + lane + 1
            count += 1
            yield batch
        self._next_epoch()

    def _counted(self, batches: Iterator[Batch]) -> Iterator[Batch]:
        for batch in batches:
            self._given += 1
            yield batch
        self._next_epoch()

    def _next_epoch(self) -> None:
        self.epoch, self._given = self.epoch + 1, 0

    def _here(self, first: int) -> Iterator[Batch]:
        return self.stream.batches(self.epoch, 0, 1, first)

    def _there(self, first: int) -> Iterator[Batch]:
        """The batches of all lanes in turn, each read by a worker."""
        lanes = _Lanes(self.stream, self.epoch, first)
        for item in DataLoader(lanes, batch_size=None, num_workers=self.workers):
            if isinstance(item, HookQLError):
                raise item
            yield item

    def _settings(self) -> dict[str, Any]:
        """What the order depends on."""
        order = self.stream.order
        return {
            "files": [rows.identity for rows in self.stream.files],
            "rows": list(order.rows),
            "blocks": list(order.blocks),
            "batch_size": order.batch_size,
            "memory": order.pool,
            "shuffle": order.shuffle,
            "seed": order.seed,
            "drop_last": order.drop_last,
            "world_size": order.world_size,
        }


class _Lanes(IterableDataset[Batch | HookQLError]):
    """The part of an epoch that the worker it is iterated in has to give."""

    def __init__(self, stream: Stream, epoch: int, first: int) -> None:
        self.stream, self.epoch, self.first = stream, epoch, first

    def __iter__(self) -> Iterator[Batch | HookQLError]:
        worker = get_worker_info()
        assert worker is not None
        # The first batch to come is the first worker's, though its lane may be another one.
        lane = (worker.id + self.first) % worker.num_workers
        try:
            yield from self.stream.batches(self.epoch, lane, worker.num_workers, self.first)
        except HookQLError as error:  # torch would make an error of its own of it
            yield error


def _readable(batches: Iterator[Batch]) -> Iterator[Batch]:
    """Of an error in a worker torch shows the text alone, which must be ours."""
    try:
        yield from batches
    except HookQLError as error:
        raise RuntimeError(f"\n{error}") from error


def _check_count(name: str, value: object) -> None:
    if isinstance(value, bool) or not isinstance(value, int) or value < 0:
        message = f"`{name}` must be a whole number of 0 or more, not {value!r}"
        raise UsageError(Diagnostic("bad-option", message))


def _refuse(why: str, advice: str) -> None:
    """An error in a worker, of which torch shows the text alone."""
    message = f"these batches cannot be read in workers of a DataLoader: {why}"
    raise RuntimeError(f"\n{UsageError(Diagnostic('not-in-workers', message, help=advice))}")
