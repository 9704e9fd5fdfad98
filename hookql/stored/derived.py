"""Statistics from kept values: whether a question can be answered so, and from which rows."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from attrs import evolve, field, frozen

from hookql.detectors import Place
from hookql.errors import Diagnostic, HookQLError
from hookql.language import ast
from hookql.language.query import Query
from hookql.language.walk import walk
from hookql.models.feed import Feed
from hookql.models.load import Model
from hookql.models.ports import HookPoint
from hookql.models.probe import Probe
from hookql.options import RunOptions
from hookql.plan import Plan
from hookql.stored.address import Address
from hookql.stored.described import Values, conditions, read
from hookql.stored.entries import Damaged, whole
from hookql.stored.families import Relative, relatives
from hookql.stored.rows import Rows

Look = Callable[[Model, Sequence[HookPoint], Feed], Probe]
"""What tells a binding of the model: as `probe`, which runs it."""

# Positions of a batch of kept rows, and the bytes that a place's rows of it may take.
_TOKENS, _BYTES = 4096, 1 << 25


class _NotKept(Exception):
    """The query needs something of the model that was not kept."""


@frozen(eq=False)
class Derived:
    """A plan whose rows are all kept: where those of each place are, and what is said of it."""

    plan: Plan
    tokens: int  # positions of a batch
    said: str
    _values: dict[Place, tuple[Path, Values]]
    _viewed: frozenset[Place]

    def rows(self, width: int, device: torch.device, stack: contextlib.ExitStack) -> Rows:
        """The rows, their files open until the stack is left. Raises NotAsKept."""
        return Rows(self._values, self._viewed, width, device, stack)


@frozen(eq=False)
class Found:
    """What a store has for a question: an answer from kept values, if there is one.

    ``damage`` says what is wrong with values that might have served.
    """

    derived: Derived | None = None
    damage: tuple[Diagnostic, ...] = field(default=())


def derive(
    store: Path,
    address: Address,
    query: Query,
    options: RunOptions,
    bind: Callable[[Look], Plan],
) -> Found:
    """Find kept values that a query's answer can be worked out from; the model is not run.

    ``bind`` makes the query's plan, given what tells it of the model. Nothing is found where
    anything is in doubt.
    """
    if query.generation is not None or options.get("checkpoint") or _asks_model(query):
        return Found()
    damage: list[Diagnostic] = []
    kept: list[tuple[Relative, Values]] = []
    probes: list[Probe] = []
    for folder, each in relatives(store, address):
        if isinstance(each, Damaged):
            damage.append(damaged_values(folder, each))
        elif each.about.get("values") is not None:
            places, probe = read(each.about["values"])
            kept += [(each, place) for place in places]
            probes.append(probe)
    if not kept:
        return Found(None, tuple(damage))
    try:
        plan = bind(_look(probes))
        chosen = {place: _choose(place, plan, kept) for place in _places(plan)}
    except (_NotKept, HookQLError):  # an error of the query's is said by those who run it
        return Found(None, tuple(damage))
    used = {relative.folder: relative for relative, _ in chosen.values()}
    files: dict[Path, Path] = {}
    for folder in used:
        try:
            files[folder] = folder / whole(folder).about["whole"]
        except Damaged as error:
            damage.append(damaged_values(folder, error))
    if len(files) < len(used):
        return Found(None, tuple(damage))
    return Found(_derived(plan, chosen, files, options), tuple(damage))


def damaged_values(folder: Path, error: Exception) -> Diagnostic:
    """The warning about values that are not what was written."""
    message = f"the stored values `{folder}` are damaged: {error}"
    help = "the model runs in their place; keep them anew, or remove that folder"
    return Diagnostic("damaged-store", message, help=help, severity="warning")


def _derived(
    plan: Plan,
    chosen: dict[Place, tuple[Relative, Values]],
    files: dict[Path, Path],
    options: RunOptions,
) -> Derived:
    kept = sorted({str(relative.about["kept"]) for relative, _ in chosen.values()})
    said = f"computed from kept values, without running the model; kept {' and '.join(kept)}"
    values = {place: (files[of.folder], each) for place, (of, each) in chosen.items()}
    viewed = frozenset(p for p, (_, each) in chosen.items() if p.view and each.place.view)
    widest = max(8 * _size(each) for _, each in values.values())
    tokens = options.get("tokens_per_batch") or max(64, min(_TOKENS, _BYTES // widest))
    plan = evolve(plan, share=0.0, tokens_per_batch=tokens)
    return Derived(plan, tokens, said, values, viewed)


def _size(each: Values) -> int:
    size = 1
    for number in each.shape:
        size *= max(1, number)
    return size


def _asks_model(query: Query) -> bool:
    """Whether an expression reads the model's own weights."""
    found: list[Any] = [
        part
        for capture in query.captures
        for whole in (capture.where, *(k.expression for k in capture.by),
                      *(s.value for s in capture.statistics))
        if whole is not None
        for part in walk(whole)
    ]  # fmt: skip
    return any(isinstance(part, ast.Call) and part.function == "lens" for part in found)


def _look(probes: Sequence[Probe]) -> Look:
    """What was learnt of the model when the values were kept."""

    def look(model: Model, points: Sequence[HookPoint], feed: Feed) -> Probe:
        known = {point: seen for probe in probes for point, seen in probe.seen.items()}
        if any(point not in known for point in points):
            raise _NotKept
        if any(probe.events != probes[0].events for probe in probes):
            raise _NotKept
        return evolve(probes[0], seen={point: known[point] for point in points})

    return look


def _places(plan: Plan) -> list[Place]:
    """Every place whose rows a plan looks at, modules' inputs beside their outputs too."""
    if plan.logits is not None:
        raise _NotKept
    places = [t.place for capture in plan.captures for t in capture.targets]
    points = {place.point for place in places}
    return list(dict.fromkeys([*places, *(Place(p) for p in plan.points if p not in points)]))


def _choose(
    place: Place, plan: Plan, kept: Sequence[tuple[Relative, Values]]
) -> tuple[Relative, Values]:
    """Kept rows of a place that has all that the plan wants of it. Raises _NotKept."""
    numbers = [
        number
        for target in _users(place, plan)
        for number in (target.selector, *(asked.selector for asked in target.asked))
    ]
    wheres = [conditions(plan.selectors[number].where) for number in numbers]
    for relative, each in kept:
        same = each.place == place or each.place == Place(place.point)
        enough = all(each.wheres <= where for where in wheres)
        # What looks at rows to know which are wanted has to see all of them.
        if same and enough and not (each.wheres and any(plan.own(n) for n in numbers)):
            return relative, each
    raise _NotKept


def _users(place: Place, plan: Plan) -> list[Any]:
    """The targets that read a place: their `x`, or the `input` beside it."""
    return [
        target
        for capture in plan.captures
        for target in capture.targets
        if target.place == place
        or (place.view is None and place.point == HookPoint(target.point.module, "input"))
    ]
