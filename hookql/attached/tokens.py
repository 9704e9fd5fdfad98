"""The tokens of a model's own pass: ids and padding, read from what it was called with."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from functools import cached_property
from typing import Any

import torch
from torch import Tensor, nn


class Tokens:
    """What one call of a model says of its tokens; read where somebody asks.

    ``unclear`` says why ``mask`` is None, None where it is known, or where there are no tokens.
    """

    def __init__(self, given: Mapping[str, Any], foreign: str | None = None) -> None:
        """``given``: the model's arguments by name; ``foreign``: why these are another's tokens."""
        self._given = given
        self._foreign = foreign

    @cached_property
    def ids(self) -> Tensor | None:
        """The ids, (samples, positions) of some integer dtype, or None."""
        if self._foreign is not None:
            return None
        named = self._given.get("input_ids")
        if isinstance(named, Tensor):
            return named.detach() if named.ndim == 2 else None
        if "input_ids" in self._given:
            return None
        found = [
            value
            for name, value in self._given.items()
            if isinstance(value, Tensor) and value.ndim == 2 and not _other(name)
        ]
        whole = [v for v in found if not v.is_floating_point() and v.dtype != torch.bool]
        return whole[0].detach() if whole else None

    @property
    def mask(self) -> Tensor | None:
        """Which positions are no padding, bool (samples, positions), or None."""
        return self._mask[0]

    @property
    def unclear(self) -> str | None:
        """Why there is no mask though there may be padding."""
        return self._mask[1]

    @cached_property
    def _mask(self) -> tuple[Tensor | None, str | None]:
        if self._foreign is not None:
            return None, self._foreign
        embedded = self._given.get("inputs_embeds")
        shown = self.ids if self.ids is not None else embedded
        if not isinstance(shown, Tensor):
            return None, None
        shape = shown.shape[:2]
        mask = self._given.get("attention_mask")
        if mask is None:
            other = [n for n, v in self._given.items() if "mask" in n and v is not None]
            if other:
                return None, f"the model is called with `{other[0]}`, which may mean anything"
            return torch.ones(shape, dtype=torch.bool, device=shown.device), None
        if not isinstance(mask, Tensor) or mask.ndim != 2 or mask.shape[0] != shape[0]:
            return None, "`attention_mask` is none of 0 and 1 with a column for each token"
        known = mask.shape[1] == shape[1]
        # With a cache the mask is of all tokens so far, and the new ones are the last of them.
        grown = mask.shape[1] > shape[1] and self._given.get("past_key_values") is not None
        if not (known or grown):
            return None, f"`attention_mask` has {mask.shape[1]} columns for {shape[1]} tokens"
        if mask.is_floating_point() and bool(((mask != 0) & (mask != 1)).any()):
            return None, "`attention_mask` holds other numbers than 0 and 1"
        return mask[:, mask.shape[1] - shape[1] :].detach() != 0, None


class TokenReader:
    """Reads the calls of one model."""

    def __init__(self, root: nn.Module) -> None:
        self._names = _parameters(root)
        config = getattr(root, "config", None)
        self._encoder: set[int] | None = None
        if getattr(config, "is_encoder_decoder", False):
            find: Any = getattr(root, "get_encoder", None)
            self._encoder = set() if find is None else {id(m) for m in find().modules()}

    def read(self, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Tokens:
        """The tokens of a call of the model."""
        return Tokens(self._given(args, kwargs))

    def of(self, module: nn.Module, tokens: Tokens) -> Tokens:
        """The tokens that a module sees: beside an encoder's there are the decoder's."""
        if self._encoder is None or id(module) in self._encoder:
            return tokens
        return Tokens({}, "outside the encoder the tokens are the decoder's, which are not read")

    def _given(self, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> dict[str, Any]:
        names = [*self._names, *(f"argument {i}" for i in range(len(self._names), len(args)))]
        return {**dict(zip(names, args, strict=False)), **kwargs}


def _parameters(root: nn.Module) -> list[str]:
    """The names of a model's arguments by place; a wrapper's are those of what it wraps."""
    parameters = inspect.signature(root.forward).parameters.values()
    inner = getattr(root, "module", None)
    if any(p.kind == p.VAR_POSITIONAL for p in parameters) and isinstance(inner, nn.Module):
        return _parameters(inner)
    return [p.name for p in parameters if p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD)]


def _other(name: str) -> bool:
    """Whether an argument is called like something else than the tokens."""
    return any(word in name for word in ("mask", "position", "type", "label", "target"))
