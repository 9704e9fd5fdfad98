"""Model inputs given directly: pixels, embeddings, plain rows; there are no token ids."""

from __future__ import annotations

import inspect
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from attrs import evolve
from torch import Tensor, nn

from hookql.data.batches import EVERYTHING, Batch
from hookql.data.encode import Context
from hookql.data.samples import Sample
from hookql.errors import Diagnostic, UsageError, did_you_mean, listing
from hookql.models.feed import Size
from hookql.models.hooks import hooked
from hookql.models.load import Model
from hookql.models.ports import HookPoint


class TensorFeed:
    """Tensors whose first axis is the samples; other values go to the model as they are.

    Which axis of what the model computes is the position is found by running it on inputs of other
    sizes: images resized where the model interpolates its positions, sequences of embeddings cut.
    Padding is refused: these inputs cannot be taken apart into samples without it.
    """

    tokens = False
    has_target = False

    def __init__(self, model: Model, inputs: Mapping[str, Any], limit: int | None = None) -> None:
        _check(model, inputs)
        self._model = model
        self.samples = min(_count(inputs), limit or _count(inputs))
        self._inputs = {
            name: value[: self.samples] if isinstance(value, Tensor) and value.ndim else value
            for name, value in inputs.items()
        }
        self._positions: dict[int, int] = {}  # by the step that the inputs were resized by
        parameters = inspect.signature(model.module.forward).parameters
        self._resizable = "interpolate_pos_encoding" in parameters

    def batches(self, rows: int) -> Iterator[Batch]:
        """What the rows of slices of at most that many samples are."""
        positions = self._positions[0]  # the probe has measured the inputs as they are
        for start in range(0, self.samples, rows):
            stop = min(self.samples, start + rows)
            batch = _tokenless(stop - start, positions, start)
            yield evolve(batch, complete=stop if stop < self.samples else EVERYTHING)

    def for_batch(self, batch: Batch) -> dict[str, Any]:
        """Keyword arguments for a batch, or for part of one: successive samples."""
        first, last = (batch.contexts[row].samples[0].index for row in (0, -1))
        rows = slice(first, last + 1)
        return self._to_device({n: v[rows] if _sliced(v) else v for n, v in self._inputs.items()})

    def sizes(self) -> list[Size]:
        """The number of positions here is the step that inputs are resized by; see `measure`."""
        return [Size(2, 0), Size(3, 1), Size(2, 2), Size(5, 0)]

    def example(self, size: Size) -> dict[str, Any]:
        """The first samples, repeated where the user gave fewer than a probe needs."""
        picks = torch.arange(size.batch) % self.samples
        inputs = {n: v.cpu()[picks] if _sliced(v) else v for n, v in self._inputs.items()}
        return self._to_device(self._resized(inputs, size.positions))

    def trial(self, picks: list[int]) -> dict[str, Any]:
        """Inputs of these samples (the first, where there are fewer)."""
        index = torch.tensor(picks) % self.samples
        inputs = {n: v.cpu()[index] if _sliced(v) else v for n, v in self._inputs.items()}
        return self._to_device(inputs)

    def measure(self, size: Size) -> Size:
        """The size with the number of positions that the model makes of the example."""
        if size.positions not in self._positions:
            self._positions[size.positions] = self._measured(self.example(size))
        return Size(size.batch, self._positions[size.positions])

    def fingerprint_parts(self) -> Iterator[bytes]:
        """The names and bytes of all tensors, for the data's fingerprint."""
        for name in sorted(self._inputs):
            value = self._inputs[name]
            yield name.encode()
            if isinstance(value, Tensor):
                raw = value.detach().cpu().contiguous()
                yield f"{raw.dtype}{tuple(raw.shape)}".encode()
                yield raw.flatten().view(torch.uint8).numpy().tobytes()
            else:
                yield repr(value).encode()

    def _measured(self, inputs: dict[str, Any]) -> int:
        """The positions of these inputs: a sequence's length, or what the first block returns."""
        for name in self._sequences():
            return int(inputs[name].shape[1])
        root = self._model.module
        stacks = {n: len(m) for n, m in root.named_modules() if isinstance(m, nn.ModuleList)}
        if not any(stacks.values()):
            return 1
        seen: list[Tensor] = []
        block = HookPoint(f"{max(stacks, key=lambda name: stacks[name])}.0", "output")
        with hooked(root, {block: seen.append}):
            root(**inputs)
        return seen[0].shape[1] if seen and seen[0].ndim == 3 else 1

    def _sequences(self) -> list[str]:
        """Inputs whose second axis is known to be positions."""
        plain = not hasattr(self._model.module, "config")
        return [
            name
            for name, value in self._inputs.items()
            if isinstance(value, Tensor)
            and value.ndim == 3
            and value.shape[1] > 3
            and (plain or name == "inputs_embeds")
        ]

    def _resized(self, inputs: dict[str, Any], step: int) -> dict[str, Any]:
        """The same inputs, shorter or larger by a step, where that is possible."""
        for name in self._sequences():
            inputs = {**inputs, name: inputs[name][:, : inputs[name].shape[1] - step]}
        pixels = inputs.get("pixel_values")
        if isinstance(pixels, Tensor) and pixels.ndim == 4 and self._resizable:
            config = getattr(self._model.module, "config", None)
            patch = int(getattr(config, "patch_size", 16) or 16)
            size = (pixels.shape[-2] + patch * step, pixels.shape[-1] + 2 * patch * step)
            resized = nn.functional.interpolate(pixels.float(), size=size).to(pixels.dtype)
            return {**inputs, "pixel_values": resized, "interpolate_pos_encoding": True}
        return inputs

    def _to_device(self, inputs: dict[str, Any]) -> dict[str, Any]:
        device = self._model.device
        return {n: v.to(device) if isinstance(v, Tensor) else v for n, v in inputs.items()}


def _sliced(value: Any) -> bool:
    return isinstance(value, Tensor) and value.ndim > 0


def _check(model: Model, inputs: Mapping[str, Any]) -> None:
    """Refuse inputs that the model does not take, and those that would be misread."""
    parameters = inspect.signature(model.module.forward).parameters
    named = [n for n, p in parameters.items() if p.kind not in (p.VAR_KEYWORD, p.VAR_POSITIONAL)]
    for name, value in inputs.items():
        if name not in named:
            message = f"the model's forward takes no `{name}`"
            notes = (f"it takes: {listing(named)}",)
            advice = did_you_mean(name, named)
            raise UsageError(Diagnostic("unknown-input", message, help=advice, notes=notes))
        if name.startswith("decoder_"):
            message = f"`{name}`: inputs of a decoder beside an encoder's are not built yet"
            raise UsageError(Diagnostic("not-yet", message))
        if "mask" in name and isinstance(value, Tensor) and not bool(value.bool().all()):
            message = f"`{name}` marks padding, which only goes with `input_ids`"
            advice = "give samples of equal length without padding, one call for each length"
            raise UsageError(Diagnostic("bad-inputs", message, help=advice))


def _count(inputs: Mapping[str, Any]) -> int:
    sizes = {n: v.shape[0] for n, v in inputs.items() if isinstance(v, Tensor) and v.ndim}
    if not sizes or len(set(sizes.values())) != 1 or 0 in sizes.values():
        message = "`inputs` must be tensors that share their first axis, the samples"
        notes = tuple(f"{n}: {tuple(v.shape)}" for n, v in inputs.items() if isinstance(v, Tensor))
        raise UsageError(Diagnostic("bad-inputs", message, notes=notes))
    return next(iter(sizes.values()))


def _tokenless(rows: int, positions: int, first: int) -> Batch:
    """A batch without ids: its positions are patches, frames or plain rows."""
    number = np.arange(first, first + rows, dtype=np.int64)
    zeros: npt.NDArray[np.int64] = np.zeros((rows, positions), np.int64)
    contexts = tuple(
        Context(
            ids=zeros[0],
            special=zeros[0].astype(bool),
            owner=zeros[0],
            samples=(Sample(int(index), "", {}),),
        )
        for index in number
    )
    return Batch(
        ids=zeros,
        mask=np.ones((rows, positions), dtype=bool),
        special=zeros.astype(bool),
        sample=np.repeat(number[:, None], positions, axis=1),
        contexts=contexts,
    )
