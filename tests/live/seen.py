"""What a live plan must have seen, by plain hooks and NumPy: nothing of HookQL's engines."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from torch import nn

import hookql
from tests.generation.plain import Array, assert_close, rows_of

QUERY = "capture mean, var, sum, max, count from transformer.h[1]"


def plan_for(model: Any, tokenizer: Any = None, query: str = QUERY) -> Any:
    """A query bound to a model."""
    return hookql.compile(query).bind(model, tokenizer)


@contextmanager
def recorded(model: nn.Module, module: str = "transformer.h.1") -> Iterator[list[Array]]:
    """The outputs of each call of a module, (B, S, F), widened to float64."""
    seen: list[Array] = []

    def hook(_: Any, __: Any, output: Any) -> None:
        first = output[0] if isinstance(output, tuple) else output
        seen.append(first.detach().double().cpu().numpy().copy())

    handle = model.get_submodule(module).register_forward_hook(hook)
    try:
        yield seen
    finally:
        handle.remove()


def alone(model: nn.Module, fed: list[list[int]], module: str = "transformer.h.1") -> Array:
    """The rows of texts, each by itself without padding, one behind another."""
    return np.concatenate(rows_of(model, module, fed))


def check(tree: Any, rows: Array) -> None:
    """All of the query's statistics are those of the rows, in float64."""
    node = tree.dataset.isel(layer=0)
    assert len(rows) == int(node["count"])
    assert_close(rows.mean(0), node["mean"], "mean")
    assert_close(rows.var(0), node["var"], "var")
    assert_close(rows.sum(0), node["sum"], "sum")
    np.testing.assert_array_equal(rows.max(0), node["max"])


def near(tree: Any, rows: Array) -> None:
    """The same where the largest was computed in another pass, so that it is not bit for bit."""
    node = tree.dataset.isel(layer=0)
    assert len(rows) == int(node["count"])
    for name, expected in (("mean", rows.mean(0)), ("var", rows.var(0)), ("max", rows.max(0))):
        assert_close(expected, node[name], name)


def hooks(model: nn.Module) -> int:
    """How many hooks of any kind there are on a model's modules."""
    return sum(
        len(m._forward_hooks) + len(m._forward_pre_hooks) + len(m._backward_hooks)
        for m in model.modules()
    )


Act = Callable[[], object]


def ids_of(*shape: int, seed: int = 0) -> torch.Tensor:
    """Ids of plain characters, int64."""
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(8, 128, shape, generator=generator)
