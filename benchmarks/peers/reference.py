"""The numbers as they should be: in float64, texts of one length together, so no padding."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Sequence
from types import SimpleNamespace
from typing import Any

import numpy as np
import torch
import transformers

Rows = dict[str, np.ndarray]


def rows(
    model: Any,
    tokenizer: Any,
    texts: Sequence[str],
    paths: Sequence[str],
    keep: Callable[[torch.Tensor], torch.Tensor],
) -> tuple[Rows, np.ndarray]:
    """Of each module the rows that `keep` (of token ids, (batch, position)) keeps, and their ids.

    A path that ends in `:input` is of what the module is given.
    """
    found: dict[str, list[np.ndarray]] = {path: [] for path in paths}
    ids, kept, handles = [], torch.empty(0), []
    for path in paths:

        def hook(_: Any, given: Any, output: Any, path: str = path) -> None:
            value = given if path.endswith(":input") else output
            value = value[0] if isinstance(value, tuple) else value
            found[path].append(value[kept].numpy())

        module = model.get_submodule(path.removesuffix(":input"))
        handles.append(module.register_forward_hook(hook))
    lengths = defaultdict(list)
    for encoded in tokenizer(list(texts))["input_ids"]:
        lengths[len(encoded)].append(encoded)
    for group in lengths.values():
        for start in range(0, len(group), 16):
            batch = torch.tensor(group[start : start + 16])
            kept = keep(batch)
            if kept.any():
                ids.append(batch[kept].numpy())
                with torch.no_grad():
                    model.base_model(batch, use_cache=False)
    for handle in handles:
        handle.remove()
    return {path: np.concatenate(parts) for path, parts in found.items()}, np.concatenate(ids)


def moments(found: Sequence[np.ndarray]) -> Rows:
    """Mean and standard deviation of each site."""
    return {
        "mean": np.stack([x.mean(0) for x in found]),
        "std": np.stack([x.std(0) for x in found]),
    }


def whole(ids: torch.Tensor) -> torch.Tensor:
    """Every token."""
    return torch.ones_like(ids, dtype=torch.bool)


def after(first: int, last: int) -> Callable[[torch.Tensor], torch.Tensor]:
    """Tokens at positions from `first` and before `last`."""
    return lambda ids: whole(ids).cumsum(1).sub(1).ge(first) & whole(ids).cumsum(1).le(last)


def reference(folder: str, texts: dict[str, list[str]], at: SimpleNamespace) -> dict[str, Rows]:
    """The right answer to every task."""
    model = transformers.AutoModelForCausalLM.from_pretrained(folder).double().eval()
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    sites = [path for layer in zip(at.attention, at.mlp, at.blocks, strict=True) for path in layer]
    neurons = [f"{path}:input" for path in at.neurons]
    found, ids = rows(model, tokenizer, texts["plain"], [*sites, *neurons], whole)
    acts = np.concatenate([found[path] for path in neurons], 1)
    best = np.argsort(-acts, axis=0, kind="stable")[:10]
    card = moments([found[path] for path in at.attention[:6]])
    answers: dict[str, Rows] = {
        "card": card,
        "again": card,
        "everything": moments([found[path] for path in sites]),
        "two": moments([found[path] for path in at.blocks[:2]]),
        "raw": {"rows": np.array(len(ids)), **moments([found[at.middle]])},
        "top": {
            "top": np.take_along_axis(acts, best, 0),
            "token": ids[best],
            "spread": acts.std(0),
        },
    }
    selections = {
        "rare": lambda ids: ids == at.word_id,
        "positions": after(0, 8),
        "header": after(200, 10_000),
    }
    for task, keep in selections.items():
        if task in texts:
            found, _ = rows(model, tokenizer, texts[task], [at.middle], keep)
            answers[task] = moments([found[at.middle]])
    return answers
