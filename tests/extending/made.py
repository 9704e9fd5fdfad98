"""Pieces that tests offer, and HookQL as it was before them."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import torch
from torch import Tensor

from hookql.data.batches import Batch
from hookql.language import names, pieces
from hookql.language.functions import FUNCTIONS
from hookql.statistics import STATISTICS


@contextmanager
def pieces_as_before() -> Iterator[None]:
    """Whatever is offered inside is not there any more afterwards."""
    _ = len(STATISTICS)
    tables = [pieces.PIECES, names.COLUMNS, FUNCTIONS, STATISTICS.registered]
    sets = [names.DEFINED, names.OFFERED]
    before = [dict(table) for table in tables], [set(words) for words in sets]
    try:
        yield
    finally:
        for table, known in zip(tables, before[0], strict=True):
            table.clear()
            table.update(known)
        for words, kept in zip(sets, before[1], strict=True):
            words.clear()
            words.update(kept)


class Gini:
    """The Gini coefficient of non-negative numbers, by counts in bins of equal width."""

    def __init__(self, bins: int = 64, top: float = 1) -> None:
        if bins < 1:
            raise ValueError("there must be a bin")
        self.bins, self.top = bins, float(top)
        self.counts: Tensor | None = None

    def update(self, rows: Tensor) -> None:
        """Take in rows (n, *axes)."""
        at = (rows / self.top * self.bins).long().clamp(0, self.bins - 1)
        counts = torch.nn.functional.one_hot(at, self.bins).sum(0)
        self.counts = counts if self.counts is None else self.counts + counts

    def merge(self, other: Gini) -> None:
        """Take in another's."""
        self.counts = self.counts + other.counts

    def result(self) -> Tensor:
        """``1 - 2 * (area below the Lorenz curve)``."""
        counts = self.counts.double()
        middle = (torch.arange(self.bins).double() + 0.5) * self.top / self.bins
        n = counts.sum(-1)
        before = counts.cumsum(-1) - counts
        mass = counts * middle
        rank = before + (counts + 1) / 2
        return (2 * (rank * mass).sum(-1) / (n * mass.sum(-1))) - (n + 1) / n


class Spread:
    """The distance between the largest and the smallest value; pools."""

    def __init__(self, scale: float = 1) -> None:
        self.scale = scale
        self.low: Tensor | None = None
        self.high: Tensor | None = None

    def update(self, rows: Tensor) -> None:
        """Take in rows (n, *axes)."""
        self._join(rows.amin(0), rows.amax(0))

    def merge(self, other: Spread) -> None:
        """Take in another's."""
        self._join(other.low, other.high)

    def pool(self, axis: int) -> Spread:
        """Without an axis."""
        pooled = Spread(self.scale)
        pooled._join(self.low.amin(axis), self.high.amax(axis))
        return pooled

    def result(self) -> Tensor:
        """Largest less smallest."""
        return self.scale * (self.high - self.low)

    def _join(self, low: Tensor, high: Tensor) -> None:
        self.low = low if self.low is None else torch.minimum(low, self.low)
        self.high = high if self.high is None else torch.maximum(high, self.high)


def squash(x: Tensor, limit: float = 1.0, power: float = 1.0) -> Tensor:
    """``x / (limit + |x|)``, to a power."""
    return (x / (limit + x.abs())) ** power


def gap(x: Tensor) -> Tensor:
    """How far the largest is ahead of the second."""
    two = x.topk(2, -1).values
    return two[..., 0] - two[..., 1]


def odd(batch: Batch) -> np.ndarray:
    """Whether the token's id is odd."""
    return batch.ids % 2 == 1


def before(batch: Batch) -> tuple[np.ndarray, np.ndarray]:
    """The id of the token two places before."""
    ids, there = np.zeros_like(batch.ids), np.zeros_like(batch.mask)
    ids[:, 2:], there[:, 2:] = batch.ids[:, :-2], batch.mask[:, 2:]
    return ids, there
