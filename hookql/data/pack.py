"""Packing: contexts of one exact length, filled from successive samples."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from typing import TypeAlias

import numpy as np
import numpy.typing as npt

from hookql.data.samples import Sample
from hookql.data.tokens import Encoded, Rows

Packed: TypeAlias = tuple[
    npt.NDArray[np.int64], npt.NDArray[np.bool_], npt.NDArray[np.int64], tuple[Sample, ...]
]


class Packer:
    """Cuts the stream of all samples' tokens every ``length`` tokens; the rest comes last.

    Samples keep the special tokens that the tokenizer gives them. Where it gives none, the
    ``separator`` (None: nothing) stands between them, special, and counted with the sample before
    it. ``split`` counts the samples that lie in several contexts.
    """

    def __init__(self, length: int, separator: int | None) -> None:
        self.length = length
        self.separator = separator
        self.split = 0
        self._pieces: deque[tuple[Sample, Encoded]] = deque()
        self._held = 0
        self._cut: Sample | None = None

    def __call__(self, rows: Rows) -> Iterator[Packed]:
        """Ids, special, owner (into the samples), and the samples of each context."""
        last: Sample | None = None
        for sample, row in rows:
            if last is not None and self.separator is not None and not row.special.any():
                self._add(last, Encoded(np.array([self.separator]), np.ones(1, np.bool_)))
            self._add(sample, row)
            last = sample
            while self._held >= self.length:
                yield self._take(self.length)
        if self._held:
            yield self._take(self._held)

    def _add(self, sample: Sample, row: Encoded) -> None:
        self._pieces.append((sample, row))
        self._held += len(row.ids)

    def _take(self, count: int) -> Packed:
        """The next ``count`` of the tokens held."""
        self._held -= count
        samples: list[Sample] = []
        taken: list[Encoded] = []
        owners: list[int] = []
        while count:
            sample, row = self._pieces.popleft()
            if len(row.ids) > count:
                rest = Encoded(row.ids[count:], row.special[count:])
                self._pieces.appendleft((sample, rest))
                row = Encoded(row.ids[:count], row.special[:count])
                if sample is not self._cut:
                    self.split += 1
                    self._cut = sample
            if not samples or samples[-1] is not sample:
                samples.append(sample)
            taken.append(row)
            owners.append(len(samples) - 1)
            count -= len(row.ids)
        return (
            np.concatenate([row.ids for row in taken]),
            np.concatenate([row.special for row in taken]),
            np.repeat(np.array(owners), [len(row.ids) for row in taken]),
            tuple(samples),
        )
