"""Attention weights from queries and keys, as each family makes them: written for the tests alone.

Nothing here is read from a model's forward code: positions, scales, caps and masks are computed
from the config and, for T5, from the table of its relative biases.
"""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor, nn


def weights(
    name: str, model: nn.Module, layer: int, queries: Tensor, keys: Tensor, mask: Tensor
) -> Tensor:
    """Weights (B, H, S, S) of queries (B, S, H, d) and keys (B, S, K, d) that have no positions.

    ``mask`` (B, S) is 1 at tokens; padding is on the right.
    """
    config: Any = model.config
    family = name.split("-")[0]
    queries, keys = queries.double(), keys.double()
    if family in _ROTARY:
        queries, keys = (_rotated(family, config, layer, x) for x in (queries, keys))
    keys = keys.repeat_interleave(queries.shape[2] // keys.shape[2], dim=2)
    scores = torch.einsum("bqhd,bkhd->bhqk", queries, keys)
    scores = scores * _scale(family, config, queries.shape[-1])
    scores = scores + _bias(family, config, model, scores.shape[-1], queries.shape[-1])
    if family == "gemma2" and config.attn_logit_softcapping:
        scores = config.attn_logit_softcapping * torch.tanh(scores / config.attn_logit_softcapping)
    return scores.masked_fill(~_seen(family, config, layer, mask), -math.inf).softmax(-1)


_ROTARY = (
    *("llama", "mistral", "qwen2", "qwen3", "gemma", "gemma2", "gemma3", "phi", "phi3", "gpt_neox"),
    *(
        "gptj",
        "mixtral",
        "qwen2_moe",
        "qwen3_moe",
        "olmo2",
        "granite",
        "cohere",
        "stablelm",
        "falcon",
    ),
)
_ENCODERS = ("bert", "roberta", "xlm_roberta", "distilbert", "t5", "mt5", "vit")


def _rotated(family: str, config: Any, layer: int, x: Tensor) -> Tensor:
    """Rotary positions put on (B, S, H, d)."""
    if family == "falcon" and config.alibi:
        return x
    width = x.shape[-1]
    if family == "gptj":
        rotary, theta, pairs = config.rotary_dim, 10000.0, True
    else:
        settings = config.rope_parameters
        if family == "gemma3":
            settings = settings[config.layer_types[layer]]
        rotary = int(width * settings.get("partial_rotary_factor", 1.0))
        theta, pairs = settings["rope_theta"], family == "cohere"
    speeds = theta ** (-torch.arange(0, rotary, 2, dtype=torch.float64) / rotary)
    angles = torch.arange(x.shape[1], dtype=torch.float64)[:, None] * speeds
    turn = torch.polar(torch.ones_like(angles), angles)[None, :, None, :]
    moving, still = x[..., :rotary], x[..., rotary:]
    if pairs:
        real, imaginary = moving[..., 0::2], moving[..., 1::2]
    else:
        real, imaginary = moving[..., : rotary // 2], moving[..., rotary // 2 :]
    turned = torch.complex(real.contiguous(), imaginary.contiguous()) * turn
    if pairs:
        moved = torch.stack((turned.real, turned.imag), dim=-1).flatten(-2)
    else:
        moved = torch.cat((turned.real, turned.imag), dim=-1)
    return torch.cat((moved, still), dim=-1)


def _scale(family: str, config: Any, width: int) -> float:
    if family in ("t5", "mt5", "gpt_neo"):
        return 1.0
    if family in ("gemma2", "gemma3"):
        return float(config.query_pre_attn_scalar**-0.5)
    if family == "granite":
        return float(config.attention_multiplier)
    return float(width**-0.5)


def _bias(family: str, config: Any, model: nn.Module, length: int, width: int) -> Tensor | float:
    """What is added to the scores: alibi's slopes or T5's table of distances."""
    positions = torch.arange(length)
    if family in ("t5", "mt5"):
        buckets = torch.tensor([[_bucket(k - q) for k in range(length)] for q in range(length)])
        attention: Any = model.get_submodule("encoder.block.0.layer.0.SelfAttention")
        return attention.relative_attention_bias.weight.double()[buckets].permute(2, 0, 1)
    slopes = torch.tensor([2.0 ** (-8 * (h + 1) / 4) for h in range(4)], dtype=torch.float64)
    if family == "bloom":
        return (slopes[:, None] * positions)[:, None, :]
    if family == "falcon" and config.alibi:
        # transformers adds alibi twice in eager attention: to the scores and within the mask.
        return 2 * (slopes[:, None] * positions)[:, None, :] * width**-0.5
    return 0.0


def _bucket(distance: int, buckets: int = 32, furthest: int = 128) -> int:
    """T5's bucket of a distance in an encoder: by sign, then one each, then by logarithm."""
    half = buckets // 2
    start, distance = (half if distance > 0 else 0), abs(distance)
    exact = half // 2
    if distance < exact:
        return start + distance
    far = exact + int(math.log(distance / exact) / math.log(furthest / exact) * (half - exact))
    return start + min(far, half - 1)


def _seen(family: str, config: Any, layer: int, mask: Tensor) -> Tensor:
    """Which keys each query sees: (B, 1, S, S) bool."""
    length = mask.shape[1]
    query, key = torch.arange(length)[:, None], torch.arange(length)[None, :]
    seen = torch.ones(length, length, dtype=torch.bool)
    if family not in _ENCODERS:
        seen = key <= query
        window = _window(family, config, layer)
        if window is not None:
            seen = seen & (query - key < window)
    return seen[None, None] & mask.bool()[:, None, None, :]


def _window(family: str, config: Any, layer: int) -> int | None:
    if family == "gpt_neo":
        return config.window_size if config.attention_layers[layer] == "local" else None
    if family in ("gemma2", "gemma3"):
        sliding = config.layer_types[layer] == "sliding_attention"
        return config.sliding_window if sliding else None
    if family in ("mistral", "mixtral", "phi3"):
        return config.sliding_window
    return None
