"""Detectors: what stands at a hook point and reduces its rows as they come by.

A detector sees a tensor inside the forward pass, takes the rows that a mask keeps, and updates
accumulators at once. Nothing of the tensor is kept; no value is read back from a GPU.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import numpy as np
import torch
from torch import Tensor

from hookql.data.batches import Batch
from hookql.errors import Diagnostic, HookQLError, ModelError
from hookql.models.ports import compute_dtype
from hookql.models.probe import Seen, varying_calls
from hookql.statistics import Accumulator, Statistic, accumulators

_LATER = torch.iinfo(torch.int64).max


class Selection:
    """The rows that one mask keeps of one batch, as indices made once, on the CPU.

    ``x[mask]`` on a GPU would wait for it; ``index_select`` with ready indices does not.
    """

    def __init__(self, kept: np.ndarray, order: np.ndarray) -> None:
        """kept bool (B, S); order int64 (B, S), smaller for what comes first in the data."""
        flat = np.flatnonzero(kept)
        self.count = len(flat)
        self.everything = self.count == kept.size
        self._index = torch.from_numpy(flat)
        self._order = torch.from_numpy(order.reshape(-1)[flat])
        self._moved: dict[torch.device, tuple[Tensor, Tensor]] = {}

    def rows(self, view: Tensor) -> Tensor:
        """The kept rows of (B * S, *axes)."""
        return view if self.everything else view.index_select(0, self._on(view.device)[0])

    def order(self, device: torch.device) -> Tensor:
        """The kept rows' place in the data, int64 (count,)."""
        return self._on(device)[1]

    def _on(self, device: torch.device) -> tuple[Tensor, Tensor]:
        if device.type == "cpu":
            return self._index, self._order
        if device not in self._moved:
            index, order = self._index, self._order
            if device.type == "cuda":  # only from pinned memory does a copy not wait
                index, order = index.pin_memory(), order.pin_memory()
            self._moved[device] = (
                index.to(device, non_blocking=True),
                order.to(device, non_blocking=True),
            )
        return self._moved[device]


def memory_advice(error: Exception) -> str | None:
    """What helps where memory ran out; None for every other error."""
    if "out of memory" not in str(error).lower():
        return None
    return "run smaller batches: `--tokens-per-batch` or `--batch-size`"


class NonFinite:
    """How many NaNs and infinities there were, and where the first row with one stands."""

    def __init__(self) -> None:
        self._count: Tensor | int = 0
        self._first: Tensor | int = _LATER

    def update(self, rows: Tensor, selection: Selection) -> None:
        """Take in rows (n, *axes)."""
        # A finite sum proves that all are finite and costs a tenth of looking at each; on a GPU
        # reading it would wait for the device, so there each is looked at.
        if rows.device.type == "cpu" and math.isfinite(float(rows.sum())):
            return
        if not rows.numel():
            return
        bad = ~rows.isfinite().reshape(rows.shape[0], -1)
        place = selection.order(rows.device).masked_fill(~bad.any(1), _LATER).amin()
        self._count = bad.sum() + self._count
        self._first = place.clamp(max=self._first)

    @property
    def count(self) -> int:
        """How many values were NaN or infinite."""
        return int(self._count)

    @property
    def first(self) -> int | None:
        """The smallest order of a row that has one."""
        return int(self._first) if self.count else None


def _all_finite(states: Mapping[str, Accumulator]) -> bool:
    """Whether running means prove, for next to nothing, that no value so far was NaN or infinite.

    On a CPU only: on a GPU reading the answer would wait for the device.
    """
    mean = getattr(states.get("moments"), "mean", None)
    return mean is not None and mean.device.type == "cpu" and bool(mean.isfinite().all())


class Detector:
    """Reduces one hook point's rows: for each mask and each call of the module, accumulators."""

    def __init__(self, seen: Seen, wanted: Mapping[int, Sequence[Statistic]]) -> None:
        """``wanted``: for each mask, by number, the statistics that some capture asks for."""
        self.seen = seen
        self.nonfinite = {mask: NonFinite() for mask in wanted}
        self.states: dict[int, list[dict[str, Accumulator]]] = {
            mask: [accumulators(statistics) for _ in range(seen.calls)]
            for mask, statistics in wanted.items()
        }
        self.fired = 0
        self._selections: Sequence[Selection] = ()
        self._size = (0, 0)
        self._kept = dict.fromkeys(wanted, 0)
        self._failure: HookQLError | None = None

    def begin(self, batch: Batch, selections: Sequence[Selection]) -> None:
        """Expect the pass over a batch, with the selection of each mask by number."""
        self._selections = selections
        self._size = batch.mask.shape[0], batch.mask.shape[1]
        self.fired = 0

    def observe(self, tensor: Tensor) -> None:
        """Take in the hook point's tensor. Raises ModelError naming the module if that fails."""
        try:
            self._observe(tensor)
        except HookQLError as error:
            # A model may catch what is raised inside its forward; `finish` raises it then.
            self._failure = self._failure or error
            raise

    def finish(self) -> None:
        """Say that the pass is over. Raises ModelError if the module ran too seldom.

        Raises the error of `observe` too, where the model swallowed it.
        """
        if self._failure is not None:
            raise self._failure
        if self.fired != self.seen.calls:
            raise varying_calls(self.seen.point, self.seen.calls)

    def _observe(self, tensor: Tensor) -> None:
        if self.fired >= self.seen.calls:
            raise varying_calls(self.seen.point, self.seen.calls)
        call, self.fired = self.fired, self.fired + 1
        try:
            view = self.seen.layout.rows(tensor.detach(), *self._size)
            self._reduce(call, view)
        except HookQLError:
            raise
        except Exception as error:
            name = self.seen.point
            shape = tuple(tensor.shape)
            message = f"the statistics of `{name}` failed on a tensor of shape {shape}"
            notes = (f"{type(error).__name__}: {error}",)
            help = memory_advice(error)
            raise ModelError(
                Diagnostic("detector-failed", message, help=help, notes=notes)
            ) from error

    def _reduce(self, call: int, view: Tensor) -> None:
        if view.shape[0] != self._size[0] * self._size[1]:
            message = f"`{self.seen.point}` gave {view.shape[0]} rows for a batch of {self._size}"
            raise ModelError(Diagnostic("unaligned", message))
        for mask, states in self.states.items():
            selection = self._selections[mask]
            if not selection.count:
                continue
            self._kept[mask] += selection.count
            rows = selection.rows(view)
            rows = rows.to(compute_dtype(rows.dtype))
            for accumulator in states[call].values():
                accumulator.update(rows)
            if not _all_finite(states[call]):
                self.nonfinite[mask].update(rows, selection)

    def accumulators(self, mask: int) -> list[dict[str, Accumulator]]:
        """For each call, the accumulators by key; those that saw no row know their axes."""
        sizes = [n for n in self.seen.shape if isinstance(n, int)]
        axes = sizes[len(sizes) - len(self.seen.layout.axes) :]
        if not self._kept[mask]:
            for accumulators_of_call in self.states[mask]:
                for accumulator in accumulators_of_call.values():
                    accumulator.update(torch.empty(0, *axes))
        return self.states[mask]
