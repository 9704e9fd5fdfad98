"""Selections: which rows of a batch are wanted, as indices made once, on the CPU.

A `Scene` is one batch of one stream with all that detectors share about it: the places of its
tokens, its columns as tensors. A `Selection` is the rows that one mask keeps of it. ``x[mask]`` on
a GPU would wait for it; ``index_select`` with ready indices does not.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from hookql.data.batches import Batch
from hookql.language import ast
from hookql.models.layout import Layout
from hookql.predicates.values import Values
from hookql.statistics import Groups, Places
from hookql.statistics.blocks import Left, kept_memory

Ints = npt.NDArray[np.int64]
Bools = npt.NDArray[np.bool_]

# A row's place in the data is one number: the sample's times this, plus the tokens before it.
SPAN = 2**36


Read = Callable[[Layout, Tensor], Tensor]
"""What makes rows (B * S, \\*axes) of a hook point's tensor."""


class Scene:
    """One batch of one stream: its text, or the decoder's."""

    def __init__(
        self,
        batch: Batch,
        width: int,
        columns: Mapping[ast.Expression, Callable[[Batch], Values]],
        read: Read | None = None,
    ) -> None:
        """``width`` is at least the longest context; ``columns`` read token leaves.

        ``read`` makes rows of tensors whose tokens do not lie as the batch's do.
        """
        self.batch = batch
        self._rows_of = read
        self.size = batch.mask.shape[0], batch.mask.shape[1]
        fed = batch.given[0].shape
        self.fed = fed[0], fed[1]  # what tensors hold: fewer rows and columns, perhaps
        self.flat: Ints | None = None  # which row of theirs is each token's, -1: none
        if batch.feeding is not None:
            self.flat = batch.feeding.flat(self.size[1]).reshape(-1)
        position = np.arange(self.size[1], dtype=np.int64)
        self.order: Ints = (batch.sample * SPAN + batch.chunk * width + position).reshape(-1)
        self.tokens: Ints = batch.ids.reshape(-1)
        self._columns = columns
        self._read: dict[ast.Expression, Values] = {}
        self._tensors: dict[tuple[ast.Expression, torch.device], Tensor] = {}

    def rows(self, layout: Layout, tensor: Tensor) -> Tensor:
        """A hook point's tensor as (U * s, \\*axes), for the tokens that were fed.

        More or fewer rows where it does not fit.
        """
        if self._rows_of is not None:
            return self._rows_of(layout, tensor)
        return layout.rows(tensor, *self.fed)

    def spread(self, rows: Tensor) -> Tensor:
        """Rows (U * s, \\*axes) as (B * S, \\*axes); any stands where a token was not fed."""
        if self.flat is None:
            return rows
        index = torch.from_numpy(np.maximum(self.flat, 0))
        return rows.index_select(0, _moved(index, rows.device))

    def values(self, leaf: ast.Expression) -> Values:
        """A token leaf at every position, (B, S)."""
        if leaf not in self._read:
            found = self._columns[leaf](self.batch)
            self._read[leaf] = Values(
                np.broadcast_to(found.value, self.size), np.broadcast_to(found.defined, self.size)
            )
        return self._read[leaf]

    def sees(self, key: int, sees: Sees) -> Bools:
        """Whether the query at each position sees that key, (B, S)."""
        query = np.arange(self.size[1], dtype=np.int64)[None]
        return _visible(query, np.int64(key), self.batch.length[:, None], sees)

    def column(self, leaf: ast.Expression, device: torch.device) -> Tensor:
        """The same as a tensor of the rows, (B * S,), on a device."""
        key = leaf, device
        if key not in self._tensors:
            flat = torch.from_numpy(np.array(self.values(leaf).value).reshape(-1))
            self._tensors[key] = _moved(flat, device)
        return self._tensors[key]


class Selection:
    """The rows that one mask keeps of a scene, and the group of each where they are grouped."""

    def __init__(self, scene: Scene, kept: Bools, groups: Groups | None = None) -> None:
        """kept bool (B, S)."""
        self.scene = scene
        self.index: Ints = np.flatnonzero(kept)
        self.count = len(self.index)
        self.everything = self.count == kept.size
        self.groups = groups
        self._taken = self.index if scene.flat is None else scene.flat[self.index]
        if scene.flat is not None and self.count and self._taken.min() < 0:
            raise RuntimeError("a row is wanted of a token that is not fed")
        self._on_device: dict[tuple[torch.device, bool], Tensor] = {}
        self._places: dict[torch.device, Places] = {}
        self._pairs: dict[object, Pairs] = {}
        self._labels: tuple[Ints, Ints] | None = None
        self._left: Left | None = None

    def rows(self, view: Tensor, reuse: str = "", fed: bool = False) -> Tensor:
        """The kept rows of (B * S, *axes), or of the (U * s, *axes) that were ``fed``.

        With ``reuse``, on a CPU, they are in this thread's memory of that name, valid until the
        next call with that name: asked for anew each time it would be zeroed each time.
        """
        fed = fed and self.scene.flat is not None
        if self.everything and not fed:
            return view
        index = self._indices(view.device, fed)
        if not reuse or not view.is_cpu:
            return view.index_select(0, index)
        memory = kept_memory((self.count, *view.shape[1:]), view.dtype, reuse)
        return torch.index_select(view, 0, index, out=memory)

    @property
    def left(self) -> Left | None:
        """The rows that are not kept, where some but few are not; made once."""
        rows = self.scene.size[0] * self.scene.size[1]
        if self._left is None and 3 * rows < 4 * self.count < 4 * rows:
            dropped = np.ones(rows, np.bool_)
            dropped[self.index] = False
            left = np.flatnonzero(dropped)
            self._left = Left(torch.from_numpy(left), torch.from_numpy(self.index))
        return self._left

    def places(self, device: torch.device) -> Places:
        """Where in the data the kept rows are, and their tokens."""
        if device not in self._places:
            order, token = map(torch.from_numpy, self.labels)
            self._places[device] = Places(_moved(order, device), _moved(token, device))
        return self._places[device]

    @property
    def labels(self) -> tuple[Ints, Ints]:
        """The place in the data and the token of each kept row, int64 (count,), made once."""
        if self._labels is None:
            self._labels = self.scene.order[self.index], self.scene.tokens[self.index]
        return self._labels

    def pairs(self, keys: int, sees: Sees, table: PairTable) -> Pairs:
        """The kept rows with each key that they can see, of ``keys`` keys."""
        made = self._pairs.get((sees, id(table)))
        if made is None:
            made = self._pairs[sees, id(table)] = Pairs(self, keys, sees, table)
        return made

    def _indices(self, device: torch.device, fed: bool) -> Tensor:
        key = device, fed
        if key not in self._on_device:
            index = self._taken if fed else self.index
            self._on_device[key] = _moved(torch.from_numpy(index), device)
        return self._on_device[key]


Sees = tuple[bool, int | None]
"""Which keys a query sees: whether only those up to its own place, and how many of the latest."""


class Pairs:
    """Rows with a ragged `key` axis taken apart: a row for each query and each key that it sees."""

    def __init__(self, selection: Selection, keys: int, sees: Sees, table: PairTable) -> None:
        positions = selection.scene.size[1]
        query = (selection.index % positions)[:, None]
        key = np.arange(keys, dtype=np.int64)[None]
        length = selection.scene.batch.length[selection.index // positions][:, None]
        row, key_of_pair = np.nonzero(_visible(query, key, length, sees))
        self._flat = torch.from_numpy(row * keys + key_of_pair)
        self._row = torch.from_numpy(row)
        group = 0 if selection.groups is None else selection.groups.index[row]
        self.groups = Groups(*table.numbered(key_of_pair, group))

    def rows(self, values: Tensor, axis: int) -> Tensor:
        """Values (n, *axes) whose axis ``axis`` of the row is the key, as (pairs, *other axes)."""
        flat = values.movedim(axis + 1, 1).flatten(0, 1)
        return flat.index_select(0, _moved(self._flat, values.device))

    def places(self, places: Places) -> Places:
        """The places of the pairs' queries."""
        return places[_moved(self._row, places.order.device)]


class PairTable:
    """Numbers for (group, key) pairs, in order of appearance."""

    def __init__(self) -> None:
        self._numbers: dict[tuple[int, int], int] = {}

    def numbered(self, key: Ints, group: Ints | int) -> tuple[Ints, int]:
        """The number of each pair, and how many there are so far."""
        both = np.stack([np.broadcast_to(group, key.shape), key], axis=1)
        distinct, inverse = np.unique(both, axis=0, return_inverse=True)
        numbers = self._numbers
        known = [numbers.setdefault((int(g), int(k)), len(numbers)) for g, k in distinct]
        return np.array(known, dtype=np.int64)[inverse.reshape(-1)], len(numbers)

    @property
    def number(self) -> int:
        """How many there are so far."""
        return len(self._numbers)

    def pairs(self) -> Ints:
        """The (group, key) of each number, int64 (numbers, 2)."""
        return np.array(list(self._numbers), dtype=np.int64).reshape(-1, 2)


def _visible(query: Ints, key: Ints | np.int64, length: Ints, sees: Sees) -> Bools:
    """Which keys a query sees; the arrays broadcast."""
    causal, window = sees
    visible = (key < length) & (query >= 0)
    if causal:
        visible = visible & (key <= query)
    if window is not None:
        visible = visible & (np.abs(query - key) < window)
    return visible


def _moved(tensor: Tensor, device: torch.device) -> Tensor:
    """On a device, without waiting for it: only from pinned memory does a copy not wait."""
    if device.type == "cpu":
        return tensor
    if device.type == "cuda":
        tensor = tensor.pin_memory()
    return tensor.to(device, non_blocking=True)
