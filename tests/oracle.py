"""The oracle: what statistics must be, by the plainest means, sharing no code with HookQL.

One sample at a time, so that there is no padding; a three-line hook; NumPy in float64.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any

import numpy as np
import torch

STATISTICS: dict[str, Callable[[np.ndarray], np.ndarray]] = {
    "sum": lambda rows: rows.sum(0),
    "mean": lambda rows: rows.mean(0),
    "var": lambda rows: rows.var(0),
    "std": lambda rows: rows.std(0),
    "min": lambda rows: rows.min(0),
    "max": lambda rows: rows.max(0),
    "rms": lambda rows: np.sqrt((rows**2).mean(0)),
}
ALL = ", ".join(["count", *STATISTICS])


def encode(tokenizer: Any, texts: Iterable[str]) -> list[torch.Tensor]:
    """The ids (1, S) of every text that has any."""
    rows = [tokenizer(text, return_tensors="pt")["input_ids"].long() for text in texts]
    return [row for row in rows if row.shape[1]]


def outputs_of(
    model: torch.nn.Module, modules: Sequence[str], ids: Sequence[torch.Tensor], **extra: Any
) -> dict[str, list[np.ndarray]]:
    """For each module and sample, the first output tensor, float64 (S, ...)."""
    seen: dict[str, list[np.ndarray]] = {module: [] for module in modules}

    def keep(module: str) -> Callable[..., None]:
        def hook(_: Any, __: Any, output: Any) -> None:
            first = output[0] if isinstance(output, tuple) else output
            seen[module].append(first.detach().double().numpy()[0])

        return hook

    handles = [model.get_submodule(m).register_forward_hook(keep(m)) for m in modules]
    with torch.no_grad():
        for row in ids:
            model(input_ids=row, **extra)
    for handle in handles:
        handle.remove()
    return seen


def assert_agrees(result: Any, rows: np.ndarray, *, scale: float | None = None) -> None:
    """A result's statistics equal the oracle's of rows (n, ...), in the language's margins.

    Moments to 1e-5 of the feature's standard deviation, sums to that times n, extremes to 1e-5 of
    the largest |x|. A feature whose spread is below what float32 resolves beside the largest value
    of its row is held to that resolution instead.
    """
    n = len(rows)
    assert n == int(result["count"])
    std = rows.std(0)
    largest = np.abs(rows).max() if scale is None else scale
    margin = np.maximum(1e-5 * std, 4e-7 * largest)
    margins = {
        "sum": margin * n,
        "min": 1e-5 * largest,
        "max": 1e-5 * largest,
        # d(sigma**2) = 2 sigma d(sigma)
        "var": 2 * std * margin + margin**2,
    }
    for name, statistic in STATISTICS.items():
        if name not in result:
            continue
        got, expected = np.asarray(result[name]), statistic(rows)
        assert expected.shape == got.shape, name
        off = np.abs(got - expected) / margins.get(name, margin)
        assert np.nanmax(off) <= 1, f"{name} is off by {np.nanmax(off):.2f} margins"
        assert not np.isnan(got).any(), name
