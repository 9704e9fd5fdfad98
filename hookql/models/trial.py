"""One small forward pass, and what its hook points held."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from hookql.errors import Diagnostic, HookQLError, ModelError
from hookql.models.hooks import hooked
from hookql.models.load import Model
from hookql.models.ports import HookPoint

Held = dict[HookPoint, list[Tensor]]  # each hook point's tensors, in the order of its calls


def run_once(
    model: Model,
    points: Sequence[HookPoint],
    inputs: dict[str, Any],
    absent: dict[HookPoint, Diagnostic] | None = None,
    only_shapes: bool = False,
) -> Held:
    """One forward pass; every hook point's tensors, copied, in call order.

    ``only_shapes`` keeps them on the meta device, without their numbers. Why a port held no tensor
    goes into ``absent`` where that is given; else it is raised.
    """
    values: Held = {point: [] for point in points}

    def copy(tensor: Tensor) -> Tensor:
        return torch.empty_like(tensor, device="meta") if only_shapes else tensor.detach().clone()

    def keep(point: HookPoint) -> Any:
        def look(tensor: Tensor) -> None:
            if tensor.is_nested:
                message = f"`{point}` is a nested tensor, which has no rows"
                missing(point, ModelError(Diagnostic("unaligned", message)))
            else:
                values[point].append(copy(tensor))

        return look

    def missing(point: HookPoint, error: ModelError) -> None:
        if absent is None:
            raise error
        absent.setdefault(point, error.diagnostics[0])

    taps = {point: keep(point) for point in points}
    try:
        with hooked(model.module, taps, None if absent is None else missing):
            model.module(**inputs)
    except HookQLError:
        raise
    except Exception as error:
        message = "the model cannot run the small input that HookQL tries it out with"
        notes = (f"{type(error).__name__}: {error}",)
        raise ModelError(Diagnostic("probe-failed", message, notes=notes)) from error
    return values
