"""One small forward pass, and what its hook points held."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from contextvars import ContextVar
from typing import Any

import torch
from torch import Tensor

from hookql.errors import Diagnostic, HookQLError, ModelError
from hookql.models.hooks import StopForward, hooked, leaving
from hookql.models.load import Model
from hookql.models.ports import HookPoint
from hookql.models.precision import casting
from hookql.models.stopping import Event, leave_of, stop_of

Until = tuple[Event | None, Mapping[HookPoint, int]]

_UNTIL: ContextVar[Until] = ContextVar("hookql_until", default=(None, {}))

Held = dict[HookPoint, list[Tensor]]  # each hook point's tensors, in the order of its calls


@contextmanager
def leaving_early(points: Iterable[HookPoint], events: Sequence[Event]) -> Iterator[None]:
    """Inside this context small passes are left behind the last of these hook points' calls.

    ``events`` are those of a whole pass. What comes after tells nothing of them, and may be most.
    """
    calls = {point: events.count(point.event) for point in points}
    ran = [point for point, number in calls.items() if number]
    event = leave_of(events, stop_of(ran, events)) if ran else None
    token = _UNTIL.set((event, calls))
    try:
        yield
    finally:
        _UNTIL.reset(token)


def run_once(
    model: Model,
    points: Sequence[HookPoint],
    inputs: dict[str, Any],
    absent: dict[HookPoint, Diagnostic] | None = None,
    only_shapes: bool = False,
    enough: tuple[tuple[str, str], Mapping[HookPoint, int]] | None = None,
) -> Held:
    """One forward pass; every hook point's tensors, copied, in call order.

    ``only_shapes`` keeps them on the meta device, without their numbers. Why a port held no tensor
    goes into ``absent`` where that is given; else it is raised. Of a model that was loaded in part
    the pass is left where its weights end; with ``enough`` at an event, once each point was called
    so often.
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

    event, calls = _UNTIL.get() if enough is None else enough
    if event is None and model.part is not None:
        event, calls = model.part.leave, {}  # what comes behind was not loaded

    def ready() -> bool:
        return all(len(values[point]) >= calls.get(point, 0) for point in points)

    taps = {point: keep(point) for point in points}
    try:
        with (
            hooked(model.module, taps, None if absent is None else missing),
            casting(model),
            leaving(model.module, event, ready),
            suppress(StopForward),
        ):
            model.module(**inputs)
    except HookQLError:
        raise
    except Exception as error:
        message = "the model cannot run the small input that HookQL tries it out with"
        notes = (f"{type(error).__name__}: {error}",)
        raise ModelError(Diagnostic("probe-failed", message, notes=notes)) from error
    return values
