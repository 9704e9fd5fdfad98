"""What a run has found out so far, taken out of its outcome and put into a fresh one.

Everything is told apart by its order in the plan, which a run that is continued makes anew, equal.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import attrs
import numpy as np

from hookql.checkpoint.state import Kept, attributes_of
from hookql.data.tokens import Skipped
from hookql.engines.outcome import Generated, Outcome
from hookql.errors import Diagnostic, HookQLError
from hookql.jobs import Job, NonFinite
from hookql.predicates.groups import GroupTable
from hookql.statistics.each_group import EachGroup
from hookql.statistics.offered import Offered

# What the plan makes; all other fields are numbers, or lists of them.
_MADE = ("detectors", "tables", "pairs", "group_bytes")


def state_of(outcome: Outcome) -> dict[str, Any]:
    """All that a fresh outcome of an equal plan needs to go on as this one would.

    For ``dump``, at once: it holds the accumulators themselves. Between batches only, when the rows
    that are kept as they are have been taken.
    """
    detectors = outcome.detectors.values()
    return {
        "counts": {
            a.name: _plain(getattr(outcome, a.name))
            for a in attrs.fields(Outcome)
            if a.name not in _MADE
        },
        "tables": [_of_table(table) for table in outcome.tables.values()],
        "pairs": [table.pairs() for table in outcome.pairs.values()],
        "jobs": [[_of_job(job) for job in d.jobs.values()] for d in detectors],
    }


def restore(outcome: Outcome, state: Mapping[str, Any]) -> None:
    """Put a state into a fresh outcome, which then goes on as the one did that it was taken from.

    Raises HookQLError where it is the state of another plan, or of another version of HookQL.
    """
    try:
        _restore(outcome, state)
    except (KeyError, TypeError, ValueError, AttributeError, IndexError) as error:
        message = "what the checkpoint holds does not fit the run"
        notes = (f"{type(error).__name__}: {error}",)
        advice = "start again with an empty folder for `--checkpoint`, without `--resume`"
        raise HookQLError(
            Diagnostic("checkpoint-damaged", message, help=advice, notes=notes)
        ) from error


def _restore(outcome: Outcome, state: Mapping[str, Any]) -> None:
    counts = dict(state["counts"])
    counts["skipped_contexts"] = [Skipped(*each) for each in counts["skipped_contexts"]]
    counts["generated"] = [Generated(*each) for each in counts["generated"]]
    _same(len(outcome.kept), len(counts["kept"]))
    for name, value in counts.items():
        _same(hasattr(outcome, name), True)
        setattr(outcome, name, value)
    outcome.interrupted = False
    for table, of_table in zip(outcome.tables.values(), state["tables"], strict=True):
        _fill_table(table, of_table)
    for pairs, numbers in zip(outcome.pairs.values(), state["pairs"], strict=True):
        pairs._numbers = {(int(g), int(k)): n for n, (g, k) in enumerate(numbers)}
    for detector, jobs in zip(outcome.detectors.values(), state["jobs"], strict=True):
        for job, of_job in zip(detector.jobs.values(), jobs, strict=True):
            _fill_job(job, of_job)


def _plain(value: Any) -> Any:
    """Numbers as they are; what was skipped, and what was generated, as tuples."""
    if isinstance(value, list):
        return [attrs.astuple(each) if attrs.has(type(each)) else each for each in value]
    return value


def _of_table(table: GroupTable) -> dict[str, Any]:
    """The keys of the groups in the order of their numbers, column by column."""
    groups: list[tuple[Any, ...]] = list(table._numbers)
    columns = list(zip(*groups, strict=True))
    types = [kind.str if isinstance(kind, np.dtype) else kind for kind in table._types]
    return {
        "keys": [_packed(list(column)) for column in columns],
        "types": types,
        "arrays": [isinstance(kind, np.dtype) for kind in table._types],
    }


def _packed(keys: list[Any]) -> Any:
    """Keys of one type as an array, which is a fraction of the size: never of two, 1 and 1.0."""
    kinds = {type(key) for key in keys}
    if kinds in ({int}, {float}, {bool}):
        return np.array(keys, dtype={int: np.int64, float: np.float64, bool: np.bool_}[kinds.pop()])
    return keys


def _fill_table(table: GroupTable, state: Mapping[str, Any]) -> None:
    _same(len(table._types), len(state["types"]))
    table._types = [
        np.dtype(kind) if array else kind
        for kind, array in zip(state["types"], state["arrays"], strict=True)
    ]
    columns = [
        keys.tolist() if isinstance(keys, np.ndarray) else list(keys) for keys in state["keys"]
    ]
    # Of a column of the data every NaN is this one object, so that it is one key.
    for column, kind in zip(columns, table._types, strict=False):
        if not isinstance(kind, np.dtype):
            column[:] = [math.nan if key != key else key for key in column]
    table._numbers = {key: n for n, key in enumerate(zip(*columns, strict=True))}
    _same(len(columns[0]) if columns else 0, table.number)


def _of_job(job: Job) -> dict[str, Any]:
    assert not job.pieces, "rows that nobody has taken would be lost"
    return {
        "kept": job.kept,
        "undefined": job.undefined,
        "group_counts": job.group_counts,
        "nonfinite": {name: (n._count, n._first) for name, n in job.nonfinite.items()},
        "states": [
            [list(states.values()) for states in of_call.values()] for of_call in job.states
        ],
    }


def _fill_job(job: Job, state: Mapping[str, Any]) -> None:
    job.kept, job.undefined = state["kept"], state["undefined"]
    job.group_counts = state["group_counts"]
    job.nonfinite = {}
    for name, (count, first) in state["nonfinite"].items():
        job.nonfinite[name] = found = NonFinite()
        found._count, found._first = count, first
    for of_call, saved_call in zip(job.states, state["states"], strict=True):
        for states, saved in zip(of_call.values(), saved_call, strict=True):
            _same(len(states), len(saved))
            for key, accumulator in zip(list(states), saved, strict=True):
                _complete(accumulator, states[key])
                states[key] = accumulator


def _complete(accumulator: Any, fresh: Any) -> None:
    """Give a loaded accumulator what no file holds, its functions, as a fresh one has them."""
    _same(type(fresh).__qualname__, type(accumulator).__qualname__)
    theirs = attributes_of(fresh)
    mine = attributes_of(accumulator)
    _same(sorted(theirs), sorted(mine))
    for name, value in mine.items():
        if isinstance(value, Kept):
            object.__setattr__(accumulator, name, theirs[name])
    if isinstance(accumulator, Offered):
        accumulator.renew(Kept)
    if isinstance(fresh, EachGroup):
        for each in accumulator.states:
            _complete(each, fresh.make())


def _same(expected: object, actual: object) -> None:
    """Of an equal plan they are equal."""
    if expected != actual:
        raise ValueError(f"{expected} was expected, {actual} is there")
