"""The k largest (or smallest) values of each feature and group, and where they stand.

A row enters only where it beats the k-th value so far, so that hardly anything is sorted once some
batches have passed. Of equal values the one of lower order comes first, always; so neither batches
nor the order of merging matter. A NaN does not rank.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Self

from hookql.statistics.blocks import columns_of
from hookql.statistics.screening import Screen
from hookql.statistics.states import Layout, States

if TYPE_CHECKING:
    from torch import Tensor

    from hookql.statistics.groups import Groups
    from hookql.statistics.places import Places

NOWHERE = 2**63 - 1  # the order of a place that nothing holds yet


class Ranking:
    """Values, orders and tokens of the best k, the best first.

    Smallest ones are the largest of what is negated; within, values are kept that way. Ungrouped
    on a CPU, what passes the screen waits until there is enough of it to be worth sorting.
    """

    places = True

    def __init__(self, k: int, largest: bool = True, grouped: bool = False) -> None:
        self.k, self.largest = k, largest
        self._states = States(grouped)
        self._screen: Screen | None = None
        self._waiting: list[tuple[Tensor, ...]] = []  # cells, values, orders and tokens
        self._due = 0  # how many entries wait before they are sorted

    @property
    def states(self) -> States:
        """The state, with nothing waiting."""
        self._settle()
        return self._states

    def update(self, rows: Tensor, *where: Groups | Places) -> None:
        """Take in rows (n, \\*axes), with their groups if grouped, and their places."""
        groups: Groups | None = where[0] if len(where) > 1 else None  # type: ignore[assignment]
        places: Places = where[-1]  # type: ignore[assignment]
        index = self._states.rows(rows, groups, self._layout(rows.shape[1:]))
        if not rows.numel():
            return
        x = columns_of(rows.detach())
        x = x if self.largest else -x
        if not x.is_cpu:
            # What beats what is not asked of a GPU: everything enters, in operations of fixed size.
            known = x == x
            value = x.double().masked_fill(~known, float("-inf"))
            order = places.order.unsqueeze(1).where(known, NOWHERE)
            cell = _cells(len(x), x.shape[1], index, x)
            self._enter(cell, value, order, places.token.unsqueeze(1).expand_as(x))
        elif index is None:
            self._wait(x, places)
        else:
            self._update_groups(x, places, index)

    def merge(self, other: Self) -> None:
        """Take in another one of the same k and axes."""
        if (self.k, self.largest) != (other.k, other.largest):
            raise ValueError("rankings of another k do not merge")
        mine, theirs = self.states, other.states
        number = len(theirs.count)
        if mine.match(theirs):
            other._give(self, None)
        mine.count[:number] += theirs.count

    def pool(self, axis: int) -> Self:
        """A new one, that axis merged away as if its numbers had been rows."""
        import torch

        states = self.states
        if states.axes is None:
            return self._of(states.without({}))
        pooled = self._of(states.without({}, axis))
        axes = pooled.states.axes or ()
        device, number = states["value"].device, len(states.count)
        pooled.states.axes = None
        pooled.states.prepare(axes, device, self._layout(axes), number)
        cells = torch.arange(number * _size(axes), device=device).reshape(number, *axes)
        shape = (number, *states.axes)
        self._give(pooled, cells.unsqueeze(axis + 1).expand(shape).reshape(-1))
        return pooled

    def select(self, index: Tensor) -> Self:
        """Those groups alone."""
        return self._of(self.states.select(index))

    def grow(self, number: int) -> None:
        """Know at least so many groups."""
        self.states.grow(number)

    @property
    def nbytes(self) -> int:
        """The memory of the state."""
        waiting = sum(part.nbytes for parts in self._waiting for part in parts)
        return self._states.nbytes + waiting

    def result(self) -> dict[str, Tensor]:
        """For "", "order" and "token": ([groups,] \\*axes, k), float64, int64, int64.

        NaN and -1 where there were fewer than k rows.
        """
        import torch

        states = self.states
        if states.axes is None:
            states = States(states.grouped)
            states.grow(len(self.states.count))
            states.prepare((), torch.device("cpu"), self._layout(()), len(states.count))
        value, order = states["value"], states["order"]
        none = order == NOWHERE
        value = (value if self.largest else -value).masked_fill(none, float("nan"))
        results = {
            "": value,
            "order": order.masked_fill(none, -1),
            "token": states["token"].clone(),
        }
        return {name: states.result(tensor) for name, tensor in results.items()}

    def _wait(self, x: Tensor, places: Places) -> None:
        """Take in what of x (n, columns) may enter: later, unless there is much of it."""
        import torch

        columns = x.shape[1]
        if self._screen is None:
            self._screen = Screen(self.k, *self._worst())
        chosen = torch.from_numpy(self._screen.passing(x.numpy(), places.order.numpy()))
        if not len(chosen):
            return
        row = chosen // columns
        entries = (chosen - row * columns, x.reshape(-1)[chosen].double())
        self._waiting.append((*entries, places.order[row], places.token[row]))
        if sum(len(entry[0]) for entry in self._waiting) >= self._due:
            self._settle()
            self._due = max(2 * self.k * columns, 1 << 12)

    def _settle(self) -> None:
        """Let what waits enter."""
        import torch

        waiting, self._waiting = self._waiting, []
        if waiting:
            self._enter(*(torch.cat(parts) for parts in zip(*waiting, strict=True)))
        if waiting and self._screen is not None:
            self._screen.renew(*self._worst())

    def _worst(self) -> tuple[Any, Any]:
        """What stands in the last place of each cell, float64 and int64 (cells,), on a CPU."""
        value, order = self._flat("value")[:, -1], self._flat("order")[:, -1]
        return value.numpy().copy(), order.numpy().copy()

    def _update_groups(self, x: Tensor, places: Places, index: Tensor) -> None:
        """Take in x (n, columns), each row into its group, on a CPU."""
        columns = x.shape[1]
        worst, last = (
            self._flat(name)[:, -1].reshape(-1, columns).index_select(0, index)
            for name in ("value", "order")
        )
        x = x.double()
        chosen = _nonzero(x >= worst)
        if len(chosen) > max(4 * self.k * columns, x.numel() // 16):
            # Many at once: new groups, or features that are often the same, such as dead ones.
            chosen = _nonzero((x > worst) | ((x == worst) & (places.order.unsqueeze(1) < last)))
        if not len(chosen):
            return
        row, column = chosen // columns, chosen % columns
        value, order = x.reshape(-1)[chosen], places.order[row]
        at = worst.reshape(-1)[chosen], last.reshape(-1)[chosen]
        better = (value > at[0]) | ((value == at[0]) & (order < at[1]))
        row, column = row[better], column[better]
        cell = index[row] * columns + column
        self._enter(cell, value[better], order[better], places.token[row])

    def _give(self, target: Self, cells: Tensor | None) -> None:
        """Enter all of this into a target's cells, one for each of this one's."""
        import torch

        self._settle()
        value = self._flat("value")
        cells = torch.arange(len(value), device=value.device) if cells is None else cells
        device = target.states["value"].device
        entries = (value, self._flat("order"), self._flat("token"))
        target._enter(
            cells.unsqueeze(1).expand_as(value).to(device), *(e.to(device) for e in entries)
        )

    def _enter(self, cell: Tensor, value: Tensor, order: Tensor, token: Tensor) -> None:
        """Rank entries, of any shape, among those that stand in their cells."""
        import torch

        if not cell.numel():
            return
        k, flat = self.k, (self._flat("value"), self._flat("order"), self._flat("token"))
        # On a GPU how many cells are concerned is not asked: all of them.
        cells = (
            cell.bincount().nonzero().squeeze(1)
            if cell.is_cpu and cell.dim() == 1
            else torch.arange(len(flat[0]), device=cell.device)
        )
        cell = torch.cat([cells.repeat_interleave(k), cell.reshape(-1)])
        new = (value, order, token)
        entries = [
            torch.cat([old.index_select(0, cells).reshape(-1), each.reshape(-1)])
            for old, each in zip(flat, new, strict=True)
        ]
        ranks = _ranks(cell, entries[0], entries[1])
        # Each cell has its k old entries at least, so the first k of each are all there.
        firsts = torch.searchsorted(cell[ranks], cells)
        best = (firsts.unsqueeze(1) + torch.arange(k, device=cell.device)).reshape(-1)
        best = ranks.index_select(0, best)
        for old, entry in zip(flat, entries, strict=True):
            old.index_copy_(0, cells, entry.index_select(0, best).reshape(-1, k))

    def _flat(self, name: str) -> Tensor:
        """A tensor as (cells, k), a view."""
        return self._states[name].view(-1, self.k)

    def _layout(self, axes: tuple[int, ...]) -> Layout:
        import torch

        shape = (*axes, self.k)
        return {
            "value": (shape, torch.float64, float("-inf")),
            "order": (shape, torch.int64, NOWHERE),
            "token": (shape, torch.int64, -1),
        }

    def _of(self, states: States) -> Self:
        made = type(self)(self.k, self.largest)
        made._states = states
        return made


def _ranks(cell: Tensor, value: Tensor, order: Tensor) -> Tensor:
    """The entries by cell, within a cell the greatest first, of equals the one of lower order."""
    import numpy as np
    import torch

    single = value.float()
    if not cell.is_cpu or bool((single != value).any()):
        ranks = order.argsort(stable=True)
        ranks = ranks[value[ranks].argsort(stable=True, descending=True)]
        return ranks[cell[ranks].argsort(stable=True)]
    # Cell and value as one integer, which NumPy sorts many times as fast. Of a float's bits those
    # of negative numbers are turned round; adding 0 makes -0 and 0 one number.
    bits = (single + 0.0).view(torch.int32)
    falling = ~(bits ^ ((bits >> 31) & 0x7FFFFFFF))
    keys = ((cell << 32) + falling.long()).numpy()
    found = np.argsort(keys)
    ranked = keys[found]
    same = ranked[1:] == ranked[:-1]
    if same.any():
        tied = np.zeros(len(ranked), bool)
        tied[1:] = same
        tied[:-1] |= same
        entries = found[tied]
        found[tied] = entries[np.lexsort((order.numpy()[entries], keys[entries]))]
    return torch.from_numpy(found)


def _nonzero(mask: Tensor) -> Tensor:
    """The flat indices of what is true, on a CPU; NumPy is several times as fast at this."""
    import numpy as np
    import torch

    return torch.from_numpy(np.flatnonzero(mask.numpy()))


def _cells(n: int, columns: int, index: Tensor | None, like: Tensor) -> Tensor:
    """The cell of each of (n, columns)."""
    import torch

    cell = torch.arange(columns, device=like.device).expand(n, columns)
    return cell if index is None else cell + (index * columns).unsqueeze(1)


def _size(axes: tuple[int, ...]) -> int:
    size = 1
    for axis in axes:
        size *= axis
    return size
