"""Feeds: how samples become the arguments of a model's forward pass, and what to probe it with."""

from __future__ import annotations

import contextlib
import inspect
from typing import Any, Protocol

import torch
from attrs import frozen
from torch import Tensor, nn

from hookql.data.batches import Batch
from hookql.errors import Diagnostic, ModelError
from hookql.models.load import Model
from hookql.models.regime import length_group


@frozen
class Size:
    """The size of one probing input: samples, positions, and a decoder's positions."""

    batch: int
    positions: int
    decoder: int = 0

    def length(self, stream: str) -> int:
        """The number of positions of a stream, "text" or "target"."""
        return self.decoder if stream == "target" else self.positions


class Feed(Protocol):
    """What the probe and the engine need to know of a source of model inputs."""

    tokens: bool  # whether positions are tokens with ids
    has_target: bool  # whether the data say what an encoder-decoder's decoder is fed

    def sizes(self) -> list[Size]:
        """Four sizes whose batch, position and decoder axes can be told apart."""

    def example(self, size: Size) -> dict[str, Any]:
        """Deterministic model inputs of about that size, without padding."""

    def measure(self, size: Size) -> Size:
        """The size that the example of that size really has inside the model."""

    def trial(self, picks: list[int]) -> dict[str, Any]:
        """Inputs of the given samples, by number."""


class TokenFeed:
    """Token ids and a mask, right-padded, under the names that the model's forward takes.

    The decoder of an encoder-decoder is fed the batch's target; without one, a start token alone.
    """

    tokens = True

    def __init__(self, model: Model) -> None:
        self._device = model.device
        names = _named(model.module.forward) or _named(type(model.module).forward)[1:]
        self.ids = "input_ids" if "input_ids" in names or not names else names[0]
        self.knows_special = True  # whether tokens are marked that the tokenizer added
        self.has_target = False
        self.live = False  # whether somebody else runs the model, and only ids are known
        self.knows_roles = False  # whether tokens are marked with who says them, as in a chat
        self.takes_mask = "attention_mask" in names
        self._takes_target_mask = "decoder_attention_mask" in names
        # A cache is memory for nothing: no token is ever fed twice here.
        self._constant: dict[str, Any] = {"use_cache": False} if "use_cache" in names else {}
        self.is_encoder_decoder = model.is_encoder_decoder
        self.decoder_start = _decoder_start(model.module)
        self._context = model.context
        self._group = length_group(model.module, padding_leaks=False)
        self.vocabulary = size = _vocabulary(model)  # the number of ids that the model embeds
        self._plain_ids = _plain_ids(model, size)
        self._target_vocabulary = _target_vocabulary(model.module, size)
        pad = getattr(model.tokenizer, "pad_token_id", None)
        # A pad token that was added without resizing the embedding has no row there.
        self.pad_id = pad if isinstance(pad, int) and pad < size else 0

    def inputs(
        self, ids: Tensor, mask: Tensor, target: tuple[Tensor, Tensor] | None = None
    ) -> dict[str, Any]:
        """Keyword arguments for ids int64 (B, S) and a mask bool (B, S), True where real.

        ``target``: the same two, (B, T), of what an encoder-decoder's decoder is fed.
        """
        inputs = {self.ids: ids.to(self._device, non_blocking=True), **self._constant}
        if self.takes_mask:
            inputs["attention_mask"] = mask.to(self._device, torch.int64, non_blocking=True)
        if not self.is_encoder_decoder:
            return inputs
        if target is None:
            start = torch.full((ids.shape[0], 1), self.decoder_start, device=self._device)
            return {**inputs, "decoder_input_ids": start}
        inputs["decoder_input_ids"] = target[0].to(self._device, non_blocking=True)
        if self._takes_target_mask:
            real = target[1].to(self._device, torch.int64, non_blocking=True)
            inputs["decoder_attention_mask"] = real
        return inputs

    @property
    def facts(self) -> tuple[object, ...]:
        """All that small inputs depend on, the model aside; equal ones make equal inputs."""
        told = {name: value for name, value in vars(self).items() if name != "_group"}
        told["_plain_ids"] = tuple(self._plain_ids.tolist())
        return tuple(repr(item) for item in sorted(told.items()))

    def for_batch(self, batch: Batch) -> dict[str, Any]:
        """Keyword arguments for a batch of the data."""
        target = None if batch.target is None else _as_tensors(batch.target)
        return self.inputs(*_as_tensors(batch), target)

    def sizes(self) -> list[Size]:
        longest = 11 if self._context is None else min(11, self._context)
        lengths = (5, 7, 11) if longest == 11 else (max(1, longest - 2), longest - 1, longest)
        if lengths[1] <= lengths[0]:
            tokens = f"{longest} token" + "s" * (longest != 1)
            message = f"the model takes {tokens} at most, and HookQL needs 3 to try it out"
            raise ModelError(Diagnostic("context-too-short", message))
        short, middle, long = lengths
        return [
            Size(2, short, 9),
            Size(3, middle, 13),
            Size(2, long, 9),
            Size(5, short, 17),
        ]

    def example(self, size: Size) -> dict[str, Any]:
        return self.unpadded(self.random_ids(size.batch, size.positions), self.random_target(size))

    def measure(self, size: Size) -> Size:
        return size

    def trial(self, picks: list[int]) -> dict[str, Any]:
        ids = self.random_ids(max(picks) + 1, self.trial_lengths()[0])[picks]
        return self.unpadded(ids)

    def unpadded(self, ids: Tensor, target: Tensor | None = None) -> dict[str, Any]:
        """Keyword arguments for ids (B, S), and a target's (B, T), without padding."""
        mask = torch.ones_like(ids, dtype=torch.bool)
        if target is None:
            return self.inputs(ids, mask)
        return self.inputs(ids, mask, (target, torch.ones_like(target, dtype=torch.bool)))

    def random_ids(self, batch: int, positions: int) -> Tensor:
        """Ids int64 (batch, positions) of ordinary tokens, the same at every call."""
        generator = torch.Generator().manual_seed(batch * 1000 + positions)
        picks = torch.randint(len(self._plain_ids), (batch, positions), generator=generator)
        return self._plain_ids[picks]

    def random_target(self, size: Size) -> Tensor | None:
        """The same for a decoder, (batch, decoder), its start token first; None without one."""
        if not self.is_encoder_decoder:
            return None
        generator = torch.Generator().manual_seed(size.batch * 1000 + size.decoder + 500)
        known = self._plain_ids[self._plain_ids < self._target_vocabulary]
        picks = torch.randint(len(known), (size.batch, size.decoder), generator=generator)
        ids = known[picks]
        ids[:, 0] = self.decoder_start
        return ids

    def other_id(self, token: int, number: int) -> int:
        """An ordinary id that is not this one: several, by number."""
        others = [int(i) for i in self._plain_ids[:16] if int(i) != token] or [token]
        return others[number % len(others)]

    def trial_lengths(self) -> list[int]:
        """Lengths, longest first, that share a batch to see what padding does."""
        longest = min(24, self._context or 24)
        while self._group(longest) != self._group(1):  # no two of which may share a batch
            longest -= 1
        lengths = {longest, longest - 1, longest - 4, longest // 3, 1}
        return sorted((n for n in lengths if n > 0), reverse=True)

    def trial_target_lengths(self) -> list[int]:
        """Those of the samples' targets: the first the longest too, else in another order."""
        first, *others = self.trial_lengths()
        return [first, *others[::-1]]


def _as_tensors(batch: Batch) -> tuple[Tensor, Tensor]:
    ids, mask = batch.given
    return torch.from_numpy(ids), torch.from_numpy(mask)


def forward_names(module: nn.Module) -> frozenset[str]:
    """The names of what a module's forward takes."""
    return frozenset((*_named(module.forward), *_named(type(module).forward)))


def _named(forward: Any) -> list[str]:
    """The parameters of a forward that have names of their own."""
    parameters = inspect.signature(forward).parameters.values()
    return [p.name for p in parameters if p.kind not in (p.VAR_KEYWORD, p.VAR_POSITIONAL)]


def _decoder_start(module: nn.Module) -> int:
    config = getattr(module, "config", None)
    for name in ("decoder_start_token_id", "bos_token_id", "pad_token_id"):
        value = getattr(config, name, None)
        if isinstance(value, int):
            return value
    return 0


def _vocabulary(model: Model) -> int:
    """The number of ids that the model embeds: what its own table, its config or, for a plain
    module, its largest table says."""
    embedding: Any = None
    with contextlib.suppress(AttributeError, NotImplementedError):
        embedding = model.module.get_input_embeddings()  # type: ignore[operator]
    weight = getattr(embedding, "weight", None)
    if isinstance(weight, Tensor) and weight.ndim == 2:
        return int(weight.shape[0])
    stated = getattr(getattr(model.module, "config", None), "vocab_size", None)
    if isinstance(stated, int):
        return stated
    tables = [m.num_embeddings for m in model.module.modules() if isinstance(m, nn.Embedding)]
    return max(tables, default=len(model.tokenizer) if model.tokenizer is not None else 2)


def _target_vocabulary(module: nn.Module, size: int) -> int:
    """The number of ids that a decoder embeds: the encoder's, unless the config says another."""
    config = getattr(module, "config", None)
    own = getattr(getattr(config, "decoder", None), "vocab_size", None)
    stated = own or getattr(config, "decoder_vocab_size", None)
    return min(size, stated) if isinstance(stated, int) else size


def _plain_ids(model: Model, size: int) -> Tensor:
    """Ids that stand for ordinary text: in the embedding's range and not special."""
    config = getattr(model.module, "config", None)
    special = set(getattr(model.tokenizer, "all_special_ids", None) or ())
    special |= {getattr(config, f"{role}_token_id", None) for role in ("pad", "bos", "eos")}
    plain = [i for i in range(min(size, 5000)) if i not in special]
    return torch.tensor(plain if len(plain) > 1 else list(range(size)), dtype=torch.int64)
