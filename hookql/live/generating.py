"""What a user's own `generate` is asked: its prompts, what ends them, and whether it goes here."""

from __future__ import annotations

import inspect
from collections.abc import Collection, Mapping
from typing import Any

import numpy as np
import numpy.typing as npt
from attrs import frozen
from torch import Tensor

from hookql.engines.fed import past_length
from hookql.errors import Diagnostic, ModelError
from hookql.models.generation import cannot_generate
from hookql.models.load import Model

_NOT_FOLLOWED = {
    "assistant_model": "assisted decoding",
    "prompt_lookup_num_tokens": "assisted decoding",
    "assistant_early_exit": "assisted decoding",
    "custom_generate": "custom decoding",
    "penalty_alpha": "contrastive search",
    "dola_layers": "DoLa decoding",
    "negative_prompt_ids": "classifier-free guidance",
}
# "hybrid", of older checkpoints, means the ordinary cache to transformers by now.
_COMPILED = ("static", "offloaded_static", "sliding_window")


_PLAIN = "use greedy search or sampling: num_beams=1, with input_ids and attention_mask"
# Of a `generate` that hands on what it is given.
_PLACES = ("inputs", "generation_config", "logits_processor", "stopping_criteria")


@frozen(eq=False)
class Asked:
    """Prompts int64 (B, P), their mask bool (B, P), columns in the cache, and what ends a text.

    Without ids it is one that nobody follows.
    """

    ids: Tensor | None = None
    mask: npt.NDArray[np.bool_] | None = None
    past: int = 0
    ends: Collection[int] = ()
    pad: int | None = None


def read_generate(model: Model, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Asked:
    """Read the arguments of a `generate`. Raises ModelError where it cannot be followed."""
    wrong = cannot_generate(model)
    if wrong is not None:
        raise ModelError(wrong)
    kwargs = _named(model, args, kwargs)
    config = kwargs.get("generation_config")

    def setting(name: str) -> Any:
        """What holds of a setting: the call's, its config's, or the model's."""
        if name in kwargs:  # None too, which takes the model's own away
            return kwargs[name]
        given = getattr(config, name, None)
        if given is not None:
            return given
        return getattr(getattr(model.module, "generation_config", None), name, None)

    _check_decoding(kwargs, setting)
    ids = kwargs.get("input_ids", kwargs.get("inputs"))
    if not isinstance(ids, Tensor) or ids.ndim != 2 or ids.is_floating_point():
        what = "it is given no `input_ids` of shape (samples, positions)"
        raise _refused(f"HookQL cannot read the prompts of this `generate`: {what}")
    if ids.shape[1] == 0:
        raise _refused("HookQL cannot read the prompts of this `generate`: they are empty")
    past = past_length(kwargs)
    if past is None or past >= ids.shape[1]:
        raise _refused("this `generate` goes on from a cache without the tokens that are in it")
    stated = setting("eos_token_id")
    ends = [stated] if isinstance(stated, int) else [int(e) for e in _listed(stated)]
    pad = setting("pad_token_id")
    pad = ends[0] if pad is None and ends else pad
    own = kwargs.get("stopping_criteria") or setting("stop_strings")
    return Asked(
        ids.detach(),
        _mask(ids, kwargs.get("attention_mask"), setting("pad_token_id"), ends),
        past,
        ends,
        pad if own and ends else None,  # without ends nothing is padded: all go on to the last
    )


def _named(model: Model, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> dict[str, Any]:
    """All arguments by name, those given by place too."""
    generate: Any = model.module.generate
    places = [
        p.name
        for p in inspect.signature(generate).parameters.values()
        if p.kind == p.POSITIONAL_OR_KEYWORD
    ]
    return {**dict(zip(places or _PLACES, args, strict=False)), **kwargs}


def _check_decoding(kwargs: Mapping[str, Any], setting: Any) -> None:
    for name, what in _NOT_FOLLOWED.items():
        if setting(name) not in (None, False):
            raise _refused(f"{what} (`{name}`) feeds tokens that are no one sequence's")
    if (setting("num_beams") or 1) > 1:
        raise _refused("beams feed tokens that are no one sequence's")
    if (setting("num_return_sequences") or 1) > 1:
        raise _refused("several sequences of one prompt (`num_return_sequences`) are not followed")
    if setting("guidance_scale") not in (None, 1, 1.0):
        raise _refused("classifier-free guidance (`guidance_scale`) feeds other sequences beside")
    static = getattr(kwargs.get("past_key_values"), "is_compileable", False)
    static = static or setting("cache_implementation") in _COMPILED
    if static and not setting("disable_compile"):
        message = "a static cache has the model compiled, and hooks are ignored then"
        raise _refused(message, "leave the cache to `generate`, or give disable_compile=True")
    if kwargs.get("inputs_embeds") is not None:
        raise _refused("it is given `inputs_embeds`, which are no tokens")


def _mask(ids: Tensor, mask: Any, pad: Any, ends: list[int]) -> npt.NDArray[np.bool_]:
    """Which of the prompts' columns are tokens; without a mask as `generate` guesses it."""
    if isinstance(mask, Tensor) and mask.ndim == 2 and mask.shape == ids.shape:
        given: npt.NDArray[np.bool_] = mask.detach().cpu().numpy() != 0
        return given
    if mask is not None:
        raise _refused("the attention mask of this `generate` is not of its ids' shape")
    found = np.ones(tuple(ids.shape), np.bool_)
    numbers = ids.detach().cpu().numpy()
    if isinstance(pad, int) and pad not in ends and (numbers == pad).any():
        found = numbers != pad
    return found


def _listed(value: Any) -> list[int]:
    if value is None:
        return []
    return [int(each) for each in (value.tolist() if isinstance(value, Tensor) else value)]


def _refused(message: str, help: str = _PLAIN) -> ModelError:
    return ModelError(Diagnostic("not-followed", message, help=help))
