"""Reading raw rows back by the file's own words, and what plain hooks see; no code of HookQL's."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch

Array = np.ndarray[Any, Any]


def by_sample(data: Any, name: str = "values") -> list[Array]:
    """The rows of each sample, ([layer,] n, ...), split by `row_size` as CF says."""
    values = data[name]
    axis = values.dims.index("obs")
    sizes = data["row_size"].values
    assert "obs" == data["row_size"].attrs["sample_dimension"]
    assert int(sizes.sum()) == values.sizes["obs"]
    return np.split(values.values, np.cumsum(sizes)[:-1], axis=axis)


def labels(data: Any) -> list[tuple[int, int, int, int]]:
    """(sample, chunk, position, token id) of each row."""
    sample = np.repeat(np.arange(data.sizes["sample"]), data["row_size"].values)
    columns = (sample, data["chunk"].values, data["position"].values, data["token_id"].values)
    return [tuple(map(int, row)) for row in zip(*columns, strict=True)]  # type: ignore[misc]


@contextmanager
def watching(model: torch.nn.Module, modules: Sequence[str]) -> Iterator[dict[Any, Array]]:
    """What modules give in every batch that anybody runs: rows by (module, ids, position)."""
    seen: dict[Any, Array] = {}
    current: dict[str, torch.Tensor] = {}

    def inputs(_: Any, __: Any, given: dict[str, Any]) -> None:
        current.update(ids=given["input_ids"].clone(), mask=given["attention_mask"].clone())

    def outputs(module: str) -> Callable[..., None]:
        def hook(_: Any, __: Any, output: Any) -> None:
            first = output[0] if isinstance(output, tuple) else output
            for ids, mask, rows in zip(current["ids"], current["mask"], first, strict=True):
                text = tuple(ids[mask.bool()].tolist())
                for position, row in enumerate(rows[mask.bool()]):
                    seen[module, text, position] = row.float().numpy().copy()

        return hook

    handles = [model.register_forward_pre_hook(inputs, with_kwargs=True)]
    handles += [model.get_submodule(m).register_forward_hook(outputs(m)) for m in modules]
    try:
        yield seen
    finally:
        for handle in handles:
            handle.remove()
