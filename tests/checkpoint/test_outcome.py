"""A run that is taken out of one outcome and put into a fresh one goes on to the very same bits."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from hookql.binding import bind
from hookql.checkpoint.outcome import restore, state_of
from hookql.checkpoint.state import dump, load
from hookql.data.batches import EVERYTHING
from hookql.data.read import open_data
from hookql.engines.local import Outcome, run
from hookql.errors import HookQLError
from hookql.jobs import Job, Want
from hookql.language import ast
from hookql.language.parser import parse
from hookql.language.resolve import resolve
from hookql.models.load import wrap_model
from hookql.predicates.groups import GroupTable
from hookql.source import TextSource
from hookql.statistics import STATISTICS, Groups, Places, Statistic
from tests.tiny import tiny

X = ast.Name("x")
GIVEN: dict[str, dict[str, Any]] = {
    "quantile": {"q": (0.1, 0.5)},
    "hist": {"bins": 7, "lo": -2.0, "hi": 5.0},
    "top": {"k": 4},
    "bottom": {"k": 4},
}
NAMES = [name for name in STATISTICS if not STATISTICS[name].raw]


class Last:
    """As a plug-in may have it: knows nothing of groups, holds a function, and has a slot."""

    __slots__ = ("__dict__", "last")
    places = True

    def __init__(self) -> None:
        self.last: torch.Tensor | None = None
        self.seen = lambda rows: rows[-1].double()
        self.count = 0

    def update(self, rows: torch.Tensor, places: Places) -> None:
        """Remember the last row."""
        self.count += len(rows)
        if len(rows):
            self.last = self.seen(rows)

    @property
    def nbytes(self) -> int:
        """Next to nothing."""
        return 0


def plugin() -> Statistic:
    """A statistic of somebody else's package."""
    return Statistic("last", "", (), Last, "last", 0, "point", lambda s: s.last, f"{__name__}.last")


def outcome_of(wanted: Sequence[tuple[Statistic, dict[str, Any]]], grouped: bool) -> Outcome:
    """The outcome of a plan of one place, made by hand."""
    expression: Any = SimpleNamespace(node=X, leaves=())
    table = GroupTable([]) if grouped else None
    job = Job([Want(expression, wanted)], 1, table)
    detector: Any = SimpleNamespace(jobs={0: job})
    place: Any = "place"
    tables: dict[object, GroupTable] = {} if table is None else {"t": table}
    return Outcome({place: detector}, tables, {}, {}, [0], [0])


def states(outcome: Outcome) -> list[Any]:
    """Its accumulators."""
    return [
        state
        for detector in outcome.detectors.values()
        for job in detector.jobs.values()
        for call in job.states
        for of_node in call.values()
        for state in of_node.values()
    ]


def blocks(dtype: torch.dtype, axes: tuple[int, ...]) -> list[torch.Tensor]:
    """Rows of several batches: ties, columns that are often 0, a constant one, large means."""
    generator = torch.Generator().manual_seed(3)
    found = []
    for n in (37, 5, 1, 64, 0, 20):
        rows = torch.randn(n, *axes, generator=generator)
        rows = torch.where(torch.rand(n, *axes, generator=generator) < 0.3, 0.0, rows)
        rows[..., :1] = 2.5
        rows[..., 1:2] += 1000.0
        found.append(rows.to(dtype).to(torch.float64 if dtype == torch.float64 else torch.float32))
    return found


def take(outcome: Outcome, number: int, rows: torch.Tensor, grouped: bool) -> None:
    """Give one batch to every accumulator; more groups come with each."""
    n = len(rows)
    generator = np.random.default_rng(number)
    index = generator.integers(0, 2 + 2 * number, n)
    groups = [Groups(index.astype(np.int64), 2 + 2 * number)] if grouped else []
    order = torch.from_numpy(1000 * number + generator.permutation(n))
    for state in states(outcome):
        places = [Places(order, order % 50)] if getattr(state, "places", False) else []
        state.update(rows, *groups, *places)


def through_a_file(outcome: Outcome, fresh: Outcome, path: Path) -> Outcome:
    """A fresh outcome that has what another one has."""
    dump(path, state_of(outcome))
    restore(fresh, load(path))
    return fresh


def bits(outcome: Outcome, path: Path) -> bytes:
    """All that an outcome holds, hidden buffers included."""
    outcome.seconds = 0.0
    dump(path, state_of(outcome))
    return path.read_bytes()


@pytest.mark.parametrize("grouped", [False, True], ids=["whole", "grouped"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16], ids=str)
@pytest.mark.parametrize("name", [*NAMES, "a plug-in"])
def test_every_statistic_goes_on_as_it_would(
    name: str, dtype: torch.dtype, grouped: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Interrupted after any batch and restored: the same bits, in the state and in the result."""
    STATISTICS.get("mean")
    monkeypatch.setitem(STATISTICS.registered, "last", plugin())
    statistic = STATISTICS["last"] if name == "a plug-in" else STATISTICS[name]
    wanted = [(statistic, GIVEN.get(name, {p.name: p.default for p in statistic.parameters}))]
    rows = blocks(dtype, (2, 4))
    whole = outcome_of(wanted, grouped)
    for number, block in enumerate(rows):
        take(whole, number, block, grouped)
    expected = bits(whole, tmp_path / "whole")
    for boundary in range(len(rows) + 1):
        outcome = outcome_of(wanted, grouped)
        for number, block in enumerate(rows):
            if number == boundary:
                outcome = through_a_file(outcome, outcome_of(wanted, grouped), tmp_path / "state")
            take(outcome, number, block, grouped)
        assert expected == bits(outcome, tmp_path / "again")


def test_shared_accumulators_go_on_too(tmp_path: Path) -> None:
    """All statistics at once, as a capture shares their accumulators, saved after every batch."""
    wanted = [
        (s, GIVEN.get(s.name, {p.name: p.default for p in s.parameters}))
        for s in (STATISTICS[name] for name in NAMES)
    ]
    whole, outcome = outcome_of(wanted, False), outcome_of(wanted, False)
    for number, block in enumerate(blocks(torch.float32, (3, 5))):
        take(whole, number, block, False)
        take(outcome, number, block, False)
        outcome = through_a_file(outcome, outcome_of(wanted, False), tmp_path / "state")
    assert len(states(whole)) > 8
    assert bits(whole, tmp_path / "whole") == bits(outcome, tmp_path / "again")


def test_a_state_of_another_plan_is_refused(tmp_path: Path) -> None:
    """A mean's state is not put into a maximum, nor one place's into two."""
    mean = outcome_of([(STATISTICS["mean"], {})], False)
    for other in (
        outcome_of([(STATISTICS["max"], {})], False),
        outcome_of([(STATISTICS["mean"], {}), (STATISTICS["max"], {})], False),
        outcome_of([(STATISTICS["mean"], {})], True),
    ):
        with pytest.raises(HookQLError) as raised:
            through_a_file(mean, other, tmp_path / "state")
        assert "checkpoint-damaged" == raised.value.code


# --- the engine ---------------------------------------------------------------------------------

QUERY = """
capture mean, std, top(3), median from transformer.h[*] by token as a
capture var, skew, hist(9, -3, 3), cov, count from transformer.h[1:3] where norm(x) > 6 as b
capture rms, max, bottom(2) from transformer.h[0].mlp by row.kind as c
capture mean, max from transformer.h[0].attn:pattern where position > 1 as d
capture mean from transformer.h[3] by sample as g
capture mean(x), mean(surprisal), mean(norm(x)) from transformer.h.2 where surprisal > 4 as e
capture sum from transformer.h.1 by row.number, position as f
"""
KINDS: list[Any] = ["short", "long", "", "täxt\ud800", "long", "short"]
NUMBERS = [1, 2.5, float("nan"), 1.0, float("nan"), -0.0]
TEXTS = ["Where were you?", "a", "In 1969, two people", "the the", "aaaa bbbb", "O, to be!"]


class Run:
    """A query over some texts, in batches of one or two samples."""

    def __init__(self, dtype: torch.dtype = torch.float32) -> None:
        module, tokenizer, _ = tiny("gpt2")
        module.set_attn_implementation("eager")
        self.model = wrap_model(module.to(dtype), tokenizer)
        rows = zip(TEXTS * 2, KINDS * 2, NUMBERS * 2, strict=True)
        data = [{"text": text, "kind": k, "number": n} for text, k, n in rows]
        self.source = TextSource(self.model, open_data(data), {"batch_size": 2})
        self.plan = bind(resolve(parse(QUERY)), self.model, self.source.feed, self.source.columns)

    def go(self, stop_after: int = EVERYTHING, outcome: Outcome | None = None) -> Outcome:
        """Run, or go on, until so many batches are done."""
        outcome = Outcome.of(self.plan, self.source.width) if outcome is None else outcome
        return run(
            self.plan,
            self.source.work(self.plan),
            width=self.source.width,
            outcome=outcome,
            stop=lambda: outcome.done >= stop_after,
        )


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
def test_a_run_goes_on_as_it_would(dtype: torch.dtype, tmp_path: Path) -> None:
    """Stopped after any batch and continued in a fresh outcome: the same bits, keys and counts.

    Groups of tokens, of texts and of numbers that are NaN, a ragged key, values that the predicate
    asks for, the model's own prediction.
    """
    whole = Run(dtype).go()
    assert 6 == whole.done
    assert {"short", "long", "", "täxt\ud800"} == set(tables(whole)[1].keys()[0])
    expected, counts = bits(whole, tmp_path / "whole"), [t.number for t in tables(whole)]
    for boundary in range(1, whole.done):
        first = Run(dtype).go(boundary)
        assert first.interrupted
        second = Run(dtype)
        fresh = Outcome.of(second.plan, second.source.width)
        outcome = second.go(outcome=through_a_file(first, fresh, tmp_path / "state"))
        assert not outcome.interrupted
        assert counts == [table.number for table in tables(outcome)]
        assert expected == bits(outcome, tmp_path / "again")


def tables(outcome: Outcome) -> list[GroupTable]:
    """The tables of groups, in the order of the plan."""
    return list(outcome.tables.values())


def test_groups_are_the_same_objects_where_it_matters(tmp_path: Path) -> None:
    """1 and 1.0 are one key and keep the type of the first, every NaN is one key."""
    first = Run().go(3)
    second = Run()
    fresh = Outcome.of(second.plan, second.source.width)
    through_a_file(first, fresh, tmp_path / "state")
    for ours, theirs in zip(tables(first), tables(fresh), strict=True):
        assert repr(list(ours._numbers.items())) == repr(list(theirs._numbers.items()))
        assert ours._types == theirs._types
        for mine, other in zip(ours.keys(), theirs.keys(), strict=True):
            assert mine.dtype == other.dtype
