"""Where a forward pass can be left: after the last event that somebody needs."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from hookql.models.ports import HookPoint

Event = tuple[str, str]  # ("input" | "output", module)


def stop_of(points: Iterable[HookPoint], events: Sequence[Event]) -> int:
    """The last of the events, in execution order, that some hook point needs."""
    wanted = {point.event for point in points}
    return max(number for number, event in enumerate(events) if event in wanted)


def leave_of(events: Sequence[Event], stop: int) -> Event | None:
    """The event at which the pass is left: when another module begins, after the last needed.

    Not at once, so that a module that runs more often on the data than in the probe is noticed.
    Behind the input of a module its work is not waited for. None: the pass runs to its end.
    """
    after = stop + 1
    kind, module = events[stop]
    if kind == "input":
        at_work = after < len(events) and events[after] != ("output", module)
        return events[after] if at_work else events[stop]
    for event in events[after:]:
        if event[0] == "input" and not _related(event[1], module):
            return event
    return None


def _related(one: str, other: str) -> bool:
    """Whether one module is the other, inside it or around it."""
    return f"{one}.".startswith(f"{other}.") or f"{other}.".startswith(f"{one}.")
