"""Which lengths may share a batch without changing each other's values."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from torch import nn


def length_group(module: nn.Module, padding_leaks: bool) -> Callable[[int], int]:
    """A key for each length; only lengths of one key may share a batch.

    Where padding changes real rows, every length is alone. Rotary embeddings that switch to other
    frequencies when the longest sample of the batch passes a bound (longrope), which a probe with
    short inputs cannot see, are read off the config: short and long ones never mix.
    """
    if padding_leaks:
        return lambda length: length
    for rope in _ropes(getattr(module, "config", None)):
        kind = rope.get("rope_type", rope.get("type"))
        bound = rope.get("original_max_position_embeddings") or getattr(
            module.config, "original_max_position_embeddings", None
        )
        if kind == "longrope" and bound:
            return lambda length, bound=int(bound): int(length > bound)  # type: ignore[misc]
    return lambda length: 0


def _ropes(config: Any) -> list[Mapping[str, Any]]:
    """The rotary settings of a config: one, or one for each kind of layer."""
    text = config.get_text_config() if hasattr(config, "get_text_config") else config
    found = getattr(text, "rope_parameters", None) or getattr(text, "rope_scaling", None)
    if not isinstance(found, Mapping):
        return []
    nested = [value for value in found.values() if isinstance(value, Mapping)]
    return nested or [found]
