"""Groups for statistics that know nothing of groups: an accumulator for each."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Self

if TYPE_CHECKING:
    from torch import Tensor

    from hookql.statistics.groups import Groups
    from hookql.statistics.places import Places


class EachGroup:
    """One accumulator for each group, which a loop visits: fine for few groups, slow for many."""

    def __init__(self, make: Callable[[], Any]) -> None:
        """make: a fresh accumulator."""
        self.make = make
        self.states: list[Any] = []
        self.empty: Tensor | None = None  # no rows, of the axes that a row has
        self.places = bool(getattr(make(), "places", False))

    def update(self, rows: Tensor, groups: Groups, places: Places | None = None) -> None:
        """Take in rows (n, \\*axes), each into its group."""
        if self.empty is None:
            self.empty = rows.new_zeros(0, *rows.shape[1:])
            known, self.states = self.states, []
            self.grow(len(known))
        self.grow(groups.number)
        order, start = groups.sorted(rows.device), 0
        for group, count in zip(groups.present.tolist(), groups.counts.tolist(), strict=True):
            index = order[start : start + count]
            start += count
            self._give(self.states[group], rows[index], None if places is None else places[index])

    def merge(self, other: Self) -> None:
        """Take in another one of the same numbering."""
        self.empty = other.empty if self.empty is None else self.empty
        self.grow(len(other.states))
        for mine, theirs in zip(self.states, other.states, strict=False):
            mine.merge(theirs)

    def pool(self, axis: int) -> Self:
        """Each group's accumulator without that axis."""
        pooled = self._of([state.pool(axis) for state in self.states])
        if pooled.empty is not None:
            pooled.empty = pooled.empty.sum(axis + 1)
        return pooled

    def select(self, index: Tensor) -> Self:
        """Copies of those groups alone."""
        chosen = self._of([])
        chosen.grow(len(index))
        for mine, group in zip(chosen.states, index.tolist(), strict=True):
            mine.merge(self.states[group])
        return chosen

    def grow(self, number: int) -> None:
        """Know at least so many groups."""
        self.states += [self._fresh() for _ in range(number - len(self.states))]

    @property
    def nbytes(self) -> int:
        """The memory of all."""
        return sum(state.nbytes for state in self.states)

    def read_each(self, finish: Callable[..., Any], **parameters: Any) -> Any:
        """What is read off each, one behind the other: (G, \\*axes, \\*dims)."""
        import torch

        number = len(self.states)
        each = [finish(state, **parameters) for state in self.states or [self._fresh()]]
        if isinstance(each[0], dict):
            return {name: torch.stack([e[name] for e in each])[:number] for name in each[0]}
        return torch.stack(each)[:number]

    def _of(self, states: list[Any]) -> Self:
        made = type(self)(self.make)
        made.states, made.empty = states, self.empty
        return made

    def _fresh(self) -> Any:
        from hookql.statistics.places import Places

        state = self.make()
        if self.empty is not None:
            nowhere = self.empty.new_zeros(0).long()
            self._give(state, self.empty, Places(nowhere, nowhere) if self.places else None)
        return state

    def _give(self, state: Any, rows: Tensor, places: Places | None) -> None:
        if self.places:
            state.update(rows, places)
        else:
            state.update(rows)
