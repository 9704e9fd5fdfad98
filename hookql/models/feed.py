"""Feeds: how samples become the arguments of a model's forward pass, and what to probe it with."""

from __future__ import annotations

import inspect
from typing import Any, Protocol

import torch
from attrs import frozen
from torch import Tensor, nn

from hookql.data.batches import Batch
from hookql.errors import Diagnostic, ModelError
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
        size = _vocabulary(model.module)
        self._plain_ids = _plain_ids(model, size)
        pad = getattr(model.tokenizer, "pad_token_id", None)
        # A pad token that was added without resizing the embedding has no row there.
        self.pad_id = pad if isinstance(pad, int) and pad < size else 0

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

    def other_id(self, token: int) -> int:
        """An ordinary id that is not this one."""
        return next((int(i) for i in self._plain_ids if int(i) != token), token)


def _decoder_start(module: nn.Module) -> int:
    config = getattr(module, "config", None)
    for name in ("decoder_start_token_id", "bos_token_id", "pad_token_id"):
        value = getattr(config, name, None)
        if isinstance(value, int):
            return value
    return 0


def _vocabulary(module: nn.Module) -> int:
    """The number of ids that the model embeds."""
    embedding: Any = None
    try:
        embedding = module.get_input_embeddings()  # type: ignore[operator]
    except (AttributeError, NotImplementedError):
        embedding = next((m for m in module.modules() if isinstance(m, nn.Embedding)), None)
    return int(getattr(embedding, "num_embeddings", 0) or 2)


def _plain_ids(model: Model, size: int) -> Tensor:
    """Ids that stand for ordinary text: in the embedding's range and not special."""
    config = getattr(model.module, "config", None)
    special = set(getattr(model.tokenizer, "all_special_ids", None) or ())
    special |= {getattr(config, f"{role}_token_id", None) for role in ("pad", "bos", "eos")}
    plain = [i for i in range(min(size, 5000)) if i not in special]
    return torch.tensor(plain or [0], dtype=torch.int64)
