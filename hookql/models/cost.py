"""What share of a forward pass runs before a hook stops it, estimated from the weights.

A token costs two operations for each number of a weight matrix it is multiplied with, which in
transformers of ordinary context lengths is nearly all of the work.
"""

from __future__ import annotations

from collections.abc import Sequence

from torch import nn


def share_run(root: nn.Module, events: Sequence[tuple[str, str]], stop: int) -> float:
    """The share, 0 to 1, of the pass's matrix work done by the modules that end up to event stop.

    events: ("input" | "output", module) in execution order, as the probe saw them.
    """
    modules = dict(root.named_modules())
    costs = [_cost(modules[name]) if kind == "output" else 0 for kind, name in events]
    total = sum(costs)
    return sum(costs[: stop + 1]) / total if total else (stop + 1) / len(events)


def _cost(module: nn.Module) -> int:
    """Numbers in a module's own weight matrices; a lookup table is not multiplied."""
    if isinstance(module, nn.Embedding):
        return 0
    return sum(p.numel() for p in module.parameters(recurse=False) if p.ndim >= 2)
