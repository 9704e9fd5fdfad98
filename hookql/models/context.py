"""How many tokens fit into a model."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import nn

# Where configs state it: most; GPT-2's kin; Bloom; MPT; speech and summarising decoders.
_LIMITS = (
    "max_position_embeddings",
    "n_positions",
    "n_ctx",
    "seq_length",
    "max_seq_len",
    "max_sequence_length",
    "max_target_positions",
)
# Tokenizers without a limit say 1e30; some say a number that stands for none.
_SANE = 10_000_000


def context_length(module: nn.Module, tokenizer: Any) -> int | None:
    """The model's limit in tokens, special ones included; None where it states none.

    The smaller of what the config and the tokenizer say. RoBERTa kinds number their positions from
    the padding id on, which the table of positions must leave room for.
    """
    limits = [_tokenizer_limit(tokenizer)]
    config = getattr(module, "config", None)
    get_text = getattr(config, "get_text_config", None)
    text = get_text() if callable(get_text) else config
    for source in (text, config):
        stated = [getattr(source, name, None) for name in _LIMITS]
        known = [n for n in stated if isinstance(n, int) and not isinstance(n, bool) and n > 0]
        if known:
            limits.append(known[0] - _positions_lost(module, known[0]))
            break
    limits.append(_dynamic_bound(text))
    given = [limit for limit in limits if limit is not None]
    return min(given) if given else None


def _dynamic_bound(config: Any) -> int | None:
    """Where dynamic rotary embeddings begin to depend on what ran before; None for others."""
    rope = getattr(config, "rope_parameters", None) or getattr(config, "rope_scaling", None)
    if isinstance(rope, Mapping) and rope.get("rope_type", rope.get("type")) == "dynamic":
        bound = rope.get("original_max_position_embeddings")
        return int(bound) if bound else None
    return None


def _positions_lost(module: nn.Module, limit: int) -> int:
    """How many rows of the position table no token gets, because counting starts at padding."""
    for name, part in module.named_modules():
        if not isinstance(part, nn.Embedding) or part.padding_idx is None:
            continue
        if "position" in name.rpartition(".")[2] and part.num_embeddings == limit:
            return part.padding_idx + 1
    return 0


def _tokenizer_limit(tokenizer: Any) -> int | None:
    limit = getattr(tokenizer, "model_max_length", None)
    return int(limit) if isinstance(limit, int | float) and 0 < limit < _SANE else None
