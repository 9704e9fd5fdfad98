"""How many rows there were, in all or of each group."""

from __future__ import annotations

from typing import TYPE_CHECKING, Self

from hookql.statistics.states import States

if TYPE_CHECKING:
    from torch import Tensor

    from hookql.statistics.groups import Groups


class Counter:
    """The number of rows; an axis pooled away changes nothing, for rows are tokens."""

    def __init__(self, grouped: bool = False) -> None:
        self.states = States(grouped)

    def update(self, rows: Tensor, groups: Groups | None = None) -> None:
        """Count rows (n, \\*axes)."""
        states = self.states
        if groups is None:
            states.count += len(rows)
        else:
            states.grow(groups.number)
            states.count[groups.present_on(states.count.device)] += groups.counts_on(
                states.count.device
            )

    def merge(self, other: Self) -> None:
        """Add another's rows."""
        self.states.grow(len(other.states.count))
        self.states.count[: len(other.states.count)] += other.states.count

    def pool(self, axis: int) -> Self:
        """The same counts."""
        return self._of(self.states.without({}))

    def select(self, index: Tensor) -> Self:
        """Those groups alone."""
        return self._of(self.states.select(index))

    def grow(self, number: int) -> None:
        """Know at least so many groups."""
        self.states.grow(number)

    @property
    def nbytes(self) -> int:
        """The memory of the counts."""
        return self.states.nbytes

    @property
    def count(self) -> Tensor:
        """The number of rows, int64: one, or (G,)."""
        return self.states.result(self.states.count)

    def _of(self, states: States) -> Self:
        made = type(self)(self.states.grouped)
        made.states = states
        return made
