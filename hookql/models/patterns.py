"""Attention patterns: whether a tensor is one, and which keys a query sees in it.

What the model shows on a small input is the law; the config says what only longer ones would show.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from attrs import frozen
from torch import Tensor, nn

# Windows up to this many keys are tried out; wider ones are taken from the config.
_TRIED = 300
# A window that no config states must be clearly shorter than the input that shows it.
_CLEARLY = 4
# Half precision rounds small weights of some queries to nothing.
_SEEN = 0.9
_ROUNDING = {torch.float64: 1e-6, torch.float32: 1e-3}


@frozen
class Claim:
    """What the config says of a layer: it attends to a window of keys, or to chunks of them."""

    window: int | None = None
    chunk: int | None = None


@frozen
class Visible:
    """Which keys a query sees: none later than itself if ``causal``, none ``window`` away."""

    causal: bool
    window: int | None


def claim_of(root: nn.Module, name: str) -> Claim:
    """The window or chunk that the config states for the attention module of that name."""
    module = root.get_submodule(name)
    parts: list[Any] = list(module.modules())
    own = [c for part in parts if (c := getattr(part, "config", None)) is not None]
    config: Any = own[0] if own else getattr(root, "config", None)
    if not own and hasattr(config, "get_text_config"):
        config = config.get_text_config()
    if any(getattr(part, "attention_type", None) == "local" for part in parts):  # GPT-Neo
        return Claim(window=_whole(config, "window_size"))
    layers = getattr(config, "layer_types", None)
    layer = _layer(parts, name)
    window = _whole(config, "sliding_window")
    chunk = _whole(config, "attention_chunk_size")
    if window is not None and _sees_both_ways(config, parts):
        window += 0 if getattr(config, "use_bidirectional_attention", False) else 1
    if isinstance(layers, Sequence) and layer is not None and layer < len(layers):
        kind = str(layers[layer])
        return Claim(window if "sliding" in kind else None, chunk if "chunked" in kind else None)
    if getattr(config, "use_sliding_window", True) is False:
        window = None
    return Claim(window, chunk)


def trial_length(claims: Sequence[Claim], context: int | None) -> int:
    """The length of an input that shows the windows claimed, as far as one may be tried."""
    windows = [c.window for c in claims if c.window is not None and c.window <= _TRIED]
    longest = max([24, *(window + 9 for window in windows)])
    return longest if context is None else min(longest, context)


def visible_keys(weights: Tensor, claim: Claim, context: int | None, sinks: bool) -> Visible | str:
    """Which keys the queries of weights (B, H, S, S) see, or why these are no pattern.

    Weights are not negative and add up to 1 for each query, or to less where a learnt sink takes a
    part (``sinks``). A query sees what any head of any sample gives weight.
    """
    broken = _no_distribution(weights, sinks)
    if broken is not None:
        return broken
    if claim.chunk is not None and (context is None or claim.chunk < context):
        return f"their queries see only the keys of their own chunk of {claim.chunk}"
    length = weights.shape[-1]
    seen = (weights != 0).flatten(0, 1).any(0)
    place = torch.arange(length, device=weights.device)
    offset = place[:, None] - place
    causal = not bool((seen & (offset < 0)).any())
    reach = int(offset.abs()[seen].max()) + 1 if bool(seen.any()) else 0
    window = _window(reach, length, claim.window)
    expected = offset.abs() < (window or length)
    if causal:
        expected &= offset >= 0
    outside, inside = seen & ~expected, seen & expected
    if bool(outside.any()) or int(inside.sum()) < _SEEN * int(expected.sum()):
        return "which keys their queries see follows neither causality nor a window"
    return Visible(causal and length > 1, window)


def _window(reach: int, length: int, claimed: int | None) -> int | None:
    """The window that the input shows or that, being wider than the input, it cannot show."""
    if (reach == claimed and reach < length) or reach <= length - _CLEARLY:
        return reach
    return claimed if claimed is not None and claimed >= length else None


def _no_distribution(weights: Tensor, sinks: bool) -> str | None:
    rounding = _ROUNDING.get(weights.dtype, 0.05)
    sums = weights.double().sum(-1)
    if bool((weights < 0).any()) or bool((sums > 1 + rounding).any()):
        return "they are no distribution over the keys"
    if not sinks and bool((sums < 1 - rounding).any()):
        return "they do not add up to 1 over the keys"
    return None


def has_sinks(module: nn.Module) -> bool:
    """Whether learnt sinks take a part of the attention, so that less than 1 is left."""
    return any(getattr(part, "sinks", None) is not None for part in module.modules())


def _sees_both_ways(config: Any, parts: Sequence[Any]) -> bool:
    return not all(getattr(part, "is_causal", True) for part in parts) or not getattr(
        config, "is_causal", True
    )


def _layer(parts: Sequence[Any], name: str) -> int | None:
    """The layer's number: what its attention module knows, else the first index of its path."""
    for part in parts:
        for attribute in ("layer_idx", "layer_id", "layer_index"):
            if isinstance(number := getattr(part, attribute, None), int):
                return number
    return next((int(step) for step in name.split(".") if step.isdecimal()), None)


def _whole(config: Any, name: str) -> int | None:
    value = getattr(config, name, None)
    return value if isinstance(value, int) and not isinstance(value, bool) and value > 0 else None
