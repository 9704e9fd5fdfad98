"""Packing: contexts of one exact length, filled from successive samples."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from typing import Any

import numpy as np
import numpy.typing as npt
from attrs import frozen

from hookql.data.samples import Sample
from hookql.data.tokens import Encoded, Rows, joined


@frozen(eq=False)
class Packed:
    """The tokens of one context, the samples they are from, and each token's one (``owner``).

    ``earlier`` is how many contexts already hold tokens of the first sample, ``before`` how many
    of its tokens there are content; all other samples begin here.
    """

    row: Encoded
    owner: npt.NDArray[np.int64]
    samples: tuple[Sample, ...]
    earlier: int
    before: int


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
        # The last sample of the contexts so far, in how many it is, with how many content tokens.
        self._last: tuple[Sample | None, int, int] = (None, 0, 0)

    def __call__(self, rows: Rows) -> Iterator[Packed]:
        """The contexts, in order."""
        last: Sample | None = None
        for sample, row in rows:
            if last is not None and self.separator is not None and not row.special.any():
                self._add(last, _separating(self.separator, row))
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
                self._pieces.appendleft((sample, row.cut(slice(count, None))))
                row = row.cut(slice(count))
                if sample is not self._cut:
                    self.split += 1
                    self._cut = sample
            if not samples or samples[-1] is not sample:
                samples.append(sample)
            taken.append(row)
            owners.append(len(samples) - 1)
            count -= len(row.ids)
        owner = np.repeat(np.array(owners), [len(row.ids) for row in taken])
        return self._packed(joined(taken), owner, tuple(samples))

    def _packed(
        self, row: Encoded, owner: npt.NDArray[np.int64], samples: tuple[Sample, ...]
    ) -> Packed:
        """A context, with what earlier ones hold of its first sample."""
        sample, contexts, content = self._last
        if sample is not samples[0]:
            contexts, content = 0, 0
        packed = Packed(row, owner, samples, contexts, content)
        if len(samples) > 1:
            contexts, content = 0, 0
        here = int(np.count_nonzero(~row.special & (owner == len(samples) - 1)))
        self._last = samples[-1], contexts + 1, content + here
        return packed


def _separating(token: int, row: Encoded) -> Encoded:
    """The separator as a row that goes with another."""
    spans = None if row.spans is None else np.full((1, 2), -1, np.int32)
    roles = None if row.roles is None else np.zeros(1, row.roles.dtype)
    return Encoded(np.array([token]), np.ones(1, np.bool_), spans, roles)


def separator(tokenizer: Any) -> int | None:
    """The token that stands between packed samples where the tokenizer adds none of its own."""
    for role in ("eos", "bos", "sep"):
        token = getattr(tokenizer, f"{role}_token_id", None)
        if isinstance(token, int):
            return token
    return None
