"""What a run is: everything that its numbers depend on, so that only the same run is resumed."""

from __future__ import annotations

import hashlib
import json
import os
import platform
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from hookql.language.pieces import used_in
from hookql.models.identity import architecture
from hookql.options import RunOptions
from hookql.plan import Plan
from hookql.raw.survey import Survey
from hookql.results.outputs import Outputs
from hookql.results.provenance import installed
from hookql.work import Source

# Options that say how a run is stored or watched, and change no number of it.
_ASIDE = (
    "store",
    "checkpoint",
    "resume",
    "checkpoint_every",
    "force",
    "group_memory",
    "paranoid",
    "trust_remote_code",
)
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
    folder = options.get("checkpoint")
    files = [path for path in (outputs.main, *outputs.into) if path is not None]
    paths = [_beside(path, Path() if folder is None else Path(folder)) for path in files]
    return {
        "query": plan.query.canonical,
        "model class": model.class_name,
        "model config": architecture(model.module),
        "weights": model.identity(),
        "dtype": str(model.dtype),
        "device": str(model.device),
        "attention": model.attn,
        "tokenizer": f"{tokenizer_name(model.tokenizer)}, {_vocabulary(model.tokenizer)}",
        "data": found.fingerprint,
        "chat template": source.facts().get("chat_template", "none"),
        "samples": found.samples,
        "context": source.width,
        "tokens per batch": plan.tokens_per_batch,
        "rows": ", ".join(map(str, found.rows)),
        "outputs": ", ".join(paths),
        **used_in(plan.query.canonical),
        **{
            f"option {name}": _plain(value)
            for name, value in sorted(given.items())
            if name not in (*_ASIDE, *_MODEL) and value not in (None, False)
        },
        "threads (OMP_NUM_THREADS)": torch.get_num_threads(),
        "machine": platform.machine(),
        **{f"{name} version": number for name, number in installed().items()},
    }


def _beside(path: Path, folder: Path) -> str:
    """A path as it leads from the checkpoint's folder, the same whatever folder is current."""
    try:
        return Path(os.path.relpath(os.path.realpath(path), os.path.realpath(folder))).as_posix()
    except ValueError:  # on another drive
        return os.path.realpath(path)


def _vocabulary(tokenizer: Any) -> str:
    """A hash of all that a tokenizer does, as far as it can be written down."""
    if tokenizer is None:
        return "none"
    backend = getattr(tokenizer, "backend_tokenizer", None)
    if backend is not None:
        return _hash(backend.to_str())
    vocabulary = tokenizer.get_vocab() if hasattr(tokenizer, "get_vocab") else {}
    return _hash(json.dumps(sorted(vocabulary.items())))


def _hash(text: str) -> str:
    return f"sha256:{hashlib.sha256(text.encode('utf-8', 'surrogatepass')).hexdigest()[:16]}"


def tokenizer_name(tokenizer: Any) -> str:
    """``GPT2TokenizerFast (50257 tokens)``."""
    if tokenizer is None:
        return "none"
    size = len(tokenizer) if hasattr(tokenizer, "__len__") else "?"
    return f"{type(tokenizer).__name__} ({size} tokens)"


def _plain(value: Any) -> str | int | float:
    return value if isinstance(value, str | int | float) else str(value)
