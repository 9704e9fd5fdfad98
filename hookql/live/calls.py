"""What a user's own call of a model feeds it: ids, mask, and how much lies in its cache."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt
from attrs import frozen
from torch import Tensor

from hookql.engines.fed import past_length
from hookql.errors import Diagnostic, ModelError
from hookql.models.load import Model


@frozen(eq=False)
class Call:
    """One call: ``ids`` int64 (B, S); ``mask`` (B, past + S) or None; tokens in the ``past``."""

    ids: Tensor
    mask: Tensor | None
    past: int
    cache: Any = None  # what it goes on from
    target: tuple[Tensor, Tensor | None] | None = None  # what a decoder is fed: ids and mask

    def real(self) -> npt.NDArray[np.bool_]:
        """Which of the ids are tokens, bool (B, S)."""
        return _real(self.ids, self.mask)

    def real_target(self) -> npt.NDArray[np.bool_]:
        """The same of the decoder's."""
        assert self.target is not None
        return _real(*self.target)


class CallReader:
    """Reads the calls of one model, whose arguments may stand by place or by name."""

    def __init__(self, model: Model, ids: str) -> None:
        """``ids``: the name of the argument that the token ids are."""
        parameters = inspect.signature(model.module.forward).parameters.values()
        self._names = [p.name for p in parameters if p.kind == p.POSITIONAL_OR_KEYWORD]
        self._ids = ids
        self._decoder = model.is_encoder_decoder
        self._shift = getattr(model.module, "prepare_decoder_input_ids_from_labels", None)
        self._name = model.name

    def ids(self, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Tensor:
        """The ids of a call, int64 (B, S). Raises ModelError where it does not say them."""
        given = {**dict(zip(self._names, args, strict=False)), **kwargs}
        ids = given.get(self._ids)
        if not isinstance(ids, Tensor) or ids.ndim != 2 or ids.is_floating_point():
            what = f"`{self._ids}` is {_described(ids)}"
            if ids is None and given.get("inputs_embeds") is not None:
                what = "it is given `inputs_embeds`"
            raise self._unreadable(what, "ids of shape (samples, positions)")
        return ids

    def read(self, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Call:
        """The tokens of a call. Raises ModelError where it does not say them."""
        given = {**dict(zip(self._names, args, strict=False)), **kwargs}
        ids, mask = self.ids(args, kwargs), given.get("attention_mask")
        past = past_length(given)
        if past is None:
            what = "it goes on from a state that does not say how many tokens it has seen"
            raise self._unreadable(what, "the whole text at once, or use `model.generate(...)`")
        if past and self._decoder:
            what = "it goes on from a cache, which in an encoder-decoder is the decoder's"
            raise self._unreadable(what, "the decoder's whole text at once")
        self._check_mask(mask, ids.shape[1] + past, past)
        _check_packed(given.get("position_ids"), ids, mask)
        return Call(ids, mask, past, given.get("past_key_values"), self._target(given))

    def _target(self, given: Mapping[str, Any]) -> tuple[Tensor, Tensor | None] | None:
        ids, labels = given.get("decoder_input_ids"), given.get("labels")
        if not self._decoder:
            return None
        if isinstance(ids, Tensor):
            return ids, given.get("decoder_attention_mask")
        if isinstance(labels, Tensor) and self._shift is not None:
            # As the model makes them itself; what is no label is padding.
            return self._shift(labels=labels), labels != -100
        return None

    def _check_mask(self, mask: Any, columns: int, past: int) -> None:
        if mask is None:
            return
        if not isinstance(mask, Tensor) or mask.ndim != 2:
            raise self._unreadable(f"`attention_mask` is {_described(mask)}", "a mask of 0 and 1")
        if mask.shape[1] not in (columns, columns - past):
            what = f"`attention_mask` has {mask.shape[1]} columns for {columns} tokens"
            raise self._unreadable(what, "one column for each token, those in the cache too")

    def _unreadable(self, what: str, help: str) -> ModelError:
        message = f"this call of `{self._name}` does not say which tokens it feeds: {what}"
        return ModelError(Diagnostic("unreadable-call", message, help=f"give {help}"))


def _real(ids: Tensor, mask: Tensor | None) -> npt.NDArray[np.bool_]:
    if mask is None:
        return np.ones(tuple(ids.shape), np.bool_)
    found: npt.NDArray[np.bool_] = mask[:, -ids.shape[1] :].detach().cpu().numpy() != 0
    return found


def _check_packed(positions: Any, ids: Tensor, mask: Tensor | None) -> None:
    """Refuse several samples in one row, which only their position ids tell apart."""
    if not isinstance(positions, Tensor) or positions.ndim != 2 or positions.shape[1] < 2:
        return
    steps = positions.detach().cpu().diff(dim=1)
    real = _real(ids, mask)
    if positions.shape[1] == ids.shape[1] and bool((steps < 0)[..., : real.shape[1]].any()):
        falls = (steps < 0).numpy() & (real[:, 1:] & real[:, :-1])[: len(steps)]
        if falls.any():
            message = "the rows of this call hold several samples each: position ids start again"
            help = "give each sample a row of its own, padded, with an attention mask"
            raise ModelError(Diagnostic("packed-call", message, help=help))


def _described(value: Any) -> str:
    if isinstance(value, Tensor):
        return f"a tensor {tuple(value.shape)} of {str(value.dtype).removeprefix('torch.')}"
    return "not there" if value is None else f"of type {type(value).__name__}"
