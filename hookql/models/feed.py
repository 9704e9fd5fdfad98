"""Feeds: how samples become the arguments of a model's forward pass, and small inputs to probe it.

A `TokenFeed` makes them from token ids, a `TensorFeed` slices model inputs that the user gave.
"""

from __future__ import annotations

import inspect
from collections.abc import Iterator, Mapping
from typing import Any, Protocol

import numpy as np
import torch
from attrs import frozen
from torch import Tensor, nn

from hookql.data.batches import Batch
from hookql.data.encode import Context
from hookql.data.samples import Sample
from hookql.errors import Diagnostic, ModelError, UsageError, listing
from hookql.models.load import Model


@frozen
class Size:
    """The size of one probing input: samples, positions, and a decoder's positions."""

    batch: int
    positions: int
    decoder: int = 0


class Feed(Protocol):
    """What the probe and the engine need to know of a source of model inputs."""

    tokens: bool  # whether positions are tokens with ids

    def sizes(self) -> list[Size]:
        """Four sizes whose batch, position and decoder axes can be told apart."""

    def example(self, size: Size) -> dict[str, Any]:
        """Deterministic model inputs of about that size, without padding."""

    def measure(self, size: Size) -> Size:
        """The size that the example of that size really has inside the model."""


class TokenFeed:
    """Token ids and a mask, right-padded, under the names that the model's forward takes."""

    tokens = True

    def __init__(self, model: Model) -> None:
        self._device = model.device
        parameters = inspect.signature(model.module.forward).parameters
        names = [n for n, p in parameters.items() if p.kind is not p.VAR_KEYWORD]
        self._ids = "input_ids" if "input_ids" in names or not names else names[0]
        self.takes_mask = "attention_mask" in names
        # A cache is memory for nothing: no token is ever fed twice here.
        self._constant: dict[str, Any] = {"use_cache": False} if "use_cache" in names else {}
        self._decoder = model.is_encoder_decoder
        self._decoder_start = _decoder_start(model.module)
        self._context = model.context
        self._plain_ids = _plain_ids(model)

    def inputs(self, ids: Tensor, mask: Tensor, decoder: int = 1) -> dict[str, Any]:
        """Keyword arguments for ids int64 (B, S) and a mask bool (B, S), True where real."""
        inputs = {self._ids: ids.to(self._device, non_blocking=True), **self._constant}
        if self.takes_mask:
            inputs["attention_mask"] = mask.to(self._device, torch.int64, non_blocking=True)
        if self._decoder:
            shape = (ids.shape[0], decoder)
            start = torch.full(shape, self._decoder_start, dtype=torch.int64, device=self._device)
            inputs["decoder_input_ids"] = start
        return inputs

    def for_batch(self, batch: Batch) -> dict[str, Any]:
        """Keyword arguments for a batch of the data."""
        return self.inputs(torch.from_numpy(batch.ids), torch.from_numpy(batch.mask))

    def sizes(self) -> list[Size]:
        longest = 11 if self._context is None else min(11, self._context)
        lengths = (5, 7, 11) if longest == 11 else (max(1, longest - 2), longest - 1, longest)
        if lengths[1] <= lengths[0]:
            message = f"a context of {longest} tokens is too short to probe the model"
            raise ModelError(Diagnostic("context-too-short", message))
        short, middle, long = lengths
        return [
            Size(2, short, 9),
            Size(3, middle, 13),
            Size(2, long, 9),
            Size(5, short, 17),
        ]

    def example(self, size: Size) -> dict[str, Any]:
        ids = self.random_ids(size.batch, size.positions)
        return self.inputs(ids, torch.ones_like(ids, dtype=torch.bool), size.decoder)

    def measure(self, size: Size) -> Size:
        return size

    def random_ids(self, batch: int, positions: int) -> Tensor:
        """Ids int64 (batch, positions) of ordinary tokens, the same at every call."""
        generator = torch.Generator().manual_seed(batch * 1000 + positions)
        picks = torch.randint(len(self._plain_ids), (batch, positions), generator=generator)
        return self._plain_ids[picks]


def _decoder_start(module: nn.Module) -> int:
    config = getattr(module, "config", None)
    for name in ("decoder_start_token_id", "bos_token_id", "pad_token_id"):
        value = getattr(config, name, None)
        if isinstance(value, int):
            return value
    return 0


def _plain_ids(model: Model) -> Tensor:
    """Ids that stand for ordinary text: in the embedding's range and not special."""
    embed = getattr(model.module, "get_input_embeddings", lambda: None)
    embedding: Any = None
    try:
        embedding = embed()
    except (AttributeError, NotImplementedError):
        embedding = None
    if embedding is None:
        embedding = next((m for m in model.module.modules() if isinstance(m, nn.Embedding)), None)
    size = int(getattr(embedding, "num_embeddings", 0) or 2)
    config = getattr(model.module, "config", None)
    special = set(getattr(model.tokenizer, "all_special_ids", None) or ())
    special |= {getattr(config, f"{r}_token_id", None) for r in ("pad", "bos", "eos")}
    plain = [i for i in range(min(size, 5000)) if i not in special]
    return torch.tensor(plain or [0], dtype=torch.int64)


class TensorFeed:
    """Model inputs given directly: tensors whose first axis is the samples.

    With ``attention_mask`` or ``input_ids`` the second axis is the positions; otherwise the
    positions are found by running the model on inputs of different size.
    """

    tokens = False

    def __init__(self, model: Model, inputs: Mapping[str, Tensor]) -> None:
        self._model = model
        self._inputs = dict(inputs)
        self._positions: dict[int, int] = {}  # by the step that they were resized by
        self.samples = _count(self._inputs)
        parameters = inspect.signature(model.module.forward).parameters
        unknown = [n for n in self._inputs if n not in parameters]
        takes_any = any(p.kind is p.VAR_KEYWORD for p in parameters.values())
        if unknown and not takes_any:
            message = f"the model's forward takes no `{unknown[0]}`"
            notes = (f"it takes: {listing(list(parameters))}",)
            raise UsageError(Diagnostic("unknown-input", message, notes=notes))
        self._resizable = "interpolate_pos_encoding" in parameters
        self._hidden = "output_hidden_states" in parameters or takes_any

    def batches(self, rows: int) -> Iterator[tuple[Batch, dict[str, Any]]]:
        """Slices of at most that many samples, each with a `Batch` that says what its rows are."""
        positions = self._positions[0]  # the probe has measured the inputs as they are
        for start in range(0, self.samples, rows):
            stop = min(self.samples, start + rows)
            sliced = self._slice(start, stop)
            mask = self._mask(sliced, stop - start, positions)
            yield _tokenless(mask, start), self._to_device(sliced)

    def sizes(self) -> list[Size]:
        # The position axis changes only where the input can be resized; see `example`.
        return [Size(2, 0), Size(3, 1), Size(2, 2), Size(5, 0)]

    def example(self, size: Size) -> dict[str, Any]:
        # Samples are repeated where the user gave fewer than a probe needs.
        picks = torch.arange(size.batch) % self.samples
        inputs = {
            n: v.cpu()[picks] if isinstance(v, Tensor) else v for n, v in self._inputs.items()
        }
        return self._to_device(self._resized(inputs, size.positions))

    def measure(self, size: Size) -> Size:
        if size.positions not in self._positions:
            self._positions[size.positions] = self._measured(self.example(size))
        return Size(size.batch, self._positions[size.positions])

    def _measured(self, inputs: dict[str, Any]) -> int:
        """How many positions inputs have: as the mask says, or the model's own hidden states."""
        mask = inputs.get("attention_mask", inputs.get("input_ids"))
        if isinstance(mask, Tensor) and mask.ndim == 2:
            return mask.shape[1]
        if not self._hidden:
            return 1
        output = self._model.module(**inputs, output_hidden_states=True)
        states = getattr(output, "hidden_states", None)
        return int(states[-1].shape[1]) if states and states[-1].ndim == 3 else 1

    def _resized(self, inputs: dict[str, Any], step: int) -> dict[str, Any]:
        """The same inputs, longer or larger by a step, where that is possible."""
        ids = inputs.get("input_ids")
        if isinstance(ids, Tensor) and ids.ndim == 2 and ids.shape[1] > 3:
            cut = ids.shape[1] - step
            full = ids.shape[1]
            return {
                n: v[:, :cut] if isinstance(v, Tensor) and v.ndim >= 2 and v.shape[1] == full else v
                for n, v in inputs.items()
            }
        pixels = inputs.get("pixel_values")
        if isinstance(pixels, Tensor) and pixels.ndim == 4 and self._resizable:
            config = getattr(self._model.module, "config", None)
            patch = int(getattr(config, "patch_size", 16) or 16)
            size = (pixels.shape[-2] + patch * step, pixels.shape[-1] + 2 * patch * step)
            resized = nn.functional.interpolate(pixels.float(), size=size).to(pixels.dtype)
            return {**inputs, "pixel_values": resized, "interpolate_pos_encoding": True}
        return inputs

    def _slice(self, start: int, stop: int) -> dict[str, Any]:
        return {n: v[start:stop] if isinstance(v, Tensor) else v for n, v in self._inputs.items()}

    def _to_device(self, inputs: dict[str, Any]) -> dict[str, Any]:
        device = self._model.device
        return {n: v.to(device) if isinstance(v, Tensor) else v for n, v in inputs.items()}

    def _mask(self, inputs: dict[str, Any], rows: int, positions: int) -> np.ndarray:
        mask = inputs.get("attention_mask")
        if isinstance(mask, Tensor) and mask.ndim == 2 and mask.shape[1] == positions:
            return mask.cpu().numpy().astype(bool)
        return np.ones((rows, positions), dtype=bool)


def _count(inputs: Mapping[str, Any]) -> int:
    sizes = {n: v.shape[0] for n, v in inputs.items() if isinstance(v, Tensor) and v.ndim}
    if not sizes or len(set(sizes.values())) != 1 or 0 in sizes.values():
        message = "`inputs` must be tensors that share their first axis, the samples"
        notes = tuple(f"{n}: {tuple(v.shape)}" for n, v in inputs.items() if isinstance(v, Tensor))
        raise UsageError(Diagnostic("bad-inputs", message, notes=notes))
    return next(iter(sizes.values()))


def _tokenless(mask: np.ndarray, first: int) -> Batch:
    """A batch without ids: its positions are patches, frames or plain rows."""
    rows, positions = mask.shape
    number = np.arange(first, first + rows, dtype=np.int64)
    contexts = tuple(
        Context(
            ids=np.zeros(positions, np.int64),
            special=np.zeros(positions, bool),
            owner=np.zeros(positions, np.int64),
            samples=(Sample(int(i), "", {}),),
            chunk=0,
        )
        for i in number
    )
    return Batch(
        ids=np.zeros((rows, positions), np.int64),
        mask=mask,
        special=np.zeros((rows, positions), bool),
        sample=np.where(mask, number[:, None], -1),
        contexts=contexts,
    )
