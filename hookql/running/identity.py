"""What a run is: everything that its numbers depend on, so that only the same run is resumed."""

from __future__ import annotations

import platform
from collections.abc import Mapping
from typing import Any

import torch

from hookql.options import RunOptions
from hookql.plan import Plan
from hookql.raw.survey import Survey
from hookql.results.outputs import Outputs
from hookql.results.provenance import installed
from hookql.work import Source

# Options that say how a run is stored or watched, and change no number of it.
_ASIDE = ("checkpoint", "resume", "checkpoint_every", "force", "group_memory", "trust_remote_code")
# The model's are known by what they lead to.
_MODEL = ("revision", "dtype", "device", "device_map", "attn", "allow_pickle")


def identity(
    plan: Plan, source: Source, options: RunOptions, outputs: Outputs, found: Survey
) -> dict[str, str | int | float | None]:
    """Facts by name, equal for two runs if and only if one can go on where the other stopped.

    Where the data lie does not matter, nor what the model is called; the threads do, for sums
    rounded in another order are other sums.
    """
    model = plan.model
    given: Mapping[str, Any] = options
    paths = [str(path) for path in (outputs.main, *outputs.into) if path is not None]
    return {
        "query": plan.query.canonical,
        "model class": model.class_name,
        "weights": model.identity(),
        "dtype": str(model.dtype),
        "device": str(model.device),
        "attention": model.attn,
        "tokenizer": tokenizer_name(model.tokenizer),
        "data": found.fingerprint,
        "samples": found.samples,
        "context": source.width,
        "rows": ", ".join(map(str, found.rows)),
        "outputs": ", ".join(paths),
        **{
            f"option {name}": _plain(value)
            for name, value in sorted(given.items())
            if name not in (*_ASIDE, *_MODEL) and value not in (None, False)
        },
        "threads": torch.get_num_threads(),
        "machine": platform.machine(),
        **{f"{name} version": number for name, number in installed().items()},
    }


def tokenizer_name(tokenizer: Any) -> str:
    """``GPT2TokenizerFast (50257 tokens)``."""
    if tokenizer is None:
        return "none"
    size = len(tokenizer) if hasattr(tokenizer, "__len__") else "?"
    return f"{type(tokenizer).__name__} ({size} tokens)"


def _plain(value: Any) -> str | int | float:
    return value if isinstance(value, str | int | float) else str(value)
