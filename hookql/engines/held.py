"""Rows that wait until all of a sequence's tokens are known, joined in the tokens' order then."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import numpy as np
import torch
from attrs import define, field
from torch import Tensor

from hookql.engines.fed import Arranged
from hookql.errors import Diagnostic, ModelError
from hookql.models.layout import Layout
from hookql.models.ports import HookPoint
from hookql.models.probe import Seen
from hookql.selection import Read


@define(eq=False)
class Held:
    """Copies of the rows of several calls of a model, for each hook point and call of its module.

    Rows are kept as (B * s, \\*axes), s the new columns of each call.
    """

    seen: Mapping[HookPoint, Seen]
    nbytes: int = 0
    _rows: dict[HookPoint, list[list[Tensor]]] = field(factory=dict)
    _fired: dict[HookPoint, int] = field(factory=dict)

    def begin(self) -> None:
        """Expect the next call of the model."""
        self._fired = {}

    def keep(
        self, point: HookPoint, tensor: Tensor, samples: int, width: int, new: int, total: int
    ) -> None:
        """Copy the last ``new`` of ``width`` columns of a hook point's tensor.

        ``total`` columns have been fed, these among them.
        """
        layout = self.seen[point].layout
        rows = layout.rows(tensor.detach(), samples, width)
        if rows.shape[0] != samples * width:
            message = f"`{point}` gave {rows.shape[0]} rows for a batch of {samples, width}"
            help = None
            if rows.shape[0] == samples and width > 1:
                help = "generate with `logits_to_keep=0`: else only the last logits are worked out"
            raise ModelError(Diagnostic("unaligned", message, help=help))
        if layout.ragged and rows.shape[-1] != total:
            message = f"`{point}` sees {rows.shape[-1]} keys where {total} tokens have been fed"
            help = "its cache forgets tokens: run the texts as data, without generating"
            raise ModelError(Diagnostic("unaligned", message, help=help))
        if new < width:
            rows = rows.reshape(samples, width, *rows.shape[1:])[:, width - new :].flatten(0, 1)
        copy = rows.clone(memory_format=torch.contiguous_format)
        number = self._fired.get(point, 0)
        self._fired[point] = number + 1
        calls = self._rows.setdefault(point, [])
        if number == len(calls):
            calls.append([])
        calls[number].append(copy)
        self.nbytes += copy.nbytes

    def other_than_expected(self) -> HookPoint | None:
        """A hook point whose module ran more or less often in the latest call than in the probe."""
        fired = self._fired
        return next((p for p, seen in self.seen.items() if fired.get(p, 0) != seen.calls), None)

    def undo(self) -> None:
        """Let go of what is held of the latest call: it did not come to its end."""
        for point, number in self._fired.items():
            for calls in self._rows[point][:number]:
                self.nbytes -= calls.pop().nbytes
        self._fired = {}

    def joined(self) -> Iterator[tuple[HookPoint, list[Tensor]]]:
        """Each hook point with its rows, of every call of its module; inputs come first.

        What is given is let go of.
        """
        points = sorted(self._rows, key=lambda point: point.event[0] != "input")
        most = max((len(self._rows[point]) for point in points), default=0)
        for number in range(most):
            for point in points:
                if number < len(self._rows[point]):
                    chunks, self._rows[point][number] = self._rows[point][number], []
                    yield point, chunks

    def clear(self) -> None:
        """Let go of everything."""
        self._rows, self._fired, self.nbytes = {}, {}, 0


def join(chunks: list[Tensor], layout: Layout, tokens: Arranged) -> Tensor:
    """Chunks of rows, those of the calls one behind another, as rows of the tokens (B * S, ...)."""
    if layout.ragged:
        chunks = [_keys(chunk, tokens) for chunk in chunks]
    rows = torch.cat(chunks) if len(chunks) > 1 else chunks[0]
    index = torch.from_numpy(np.maximum(tokens.flat, 0).reshape(-1))
    return rows.index_select(0, index.to(rows.device, non_blocking=True))


def _keys(chunk: Tensor, tokens: Arranged) -> Tensor:
    """Rows (B * s, ..., K) of a pattern with the keys in the tokens' order, padding taken out."""
    samples, length = tokens.flat.shape
    grouped = chunk.reshape(samples, -1, *chunk.shape[1:])
    keys = chunk.shape[-1]
    found = grouped.new_zeros((*grouped.shape[:-1], length))
    for number, columns in enumerate(tokens.columns):
        real = columns[: len(tokens.ids[number])]
        real = real[real < keys]
        index = torch.from_numpy(real).to(chunk.device)
        found[number, ..., : len(real)] = grouped[number].index_select(-1, index)
    return found.flatten(0, 1)


def ready(layout: Layout, rows: Tensor) -> Tensor:
    """Rows that are in order already."""
    return rows


def reader(tokens: Arranged, size: tuple[int, int]) -> Read:
    """Makes rows in the tokens' order of a tensor of one call of that size, (B, columns)."""

    def read(layout: Layout, tensor: Tensor) -> Tensor:
        samples, width = size
        rows = layout.rows(tensor, samples, width)
        if rows.shape[0] != samples * width:
            return rows  # whoever asked says what is wrong
        return join([rows], layout, tokens)

    return read
