"""Models that fail when told to, and runs of them on the engine alone."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import numpy as np
import xarray
from attrs import define, field, frozen
from torch import Tensor, nn

import hookql
from hookql.binding import bind
from hookql.engines.local import Outcome, Work, run
from hookql.loading import get_model
from hookql.plan import Plan
from hookql.results.collect import collect
from hookql.results.tree import build_tree
from hookql.source import open_source, open_texts
from hookql.work import Source
from tests.tiny import tiny

# Each begins with another letter: no two have a row in common, so that no maximum is a tie.
WORDS = [
    "Where were you?", "a", "In 1969, two people", "the the", "cccc bbbb", "O, to be!", "b",
    "En the Origin", "dll is well that ends", "xyz", "kne two three four", "17", "no",
]  # fmt: skip
DATA = [
    {"text": text, "label": "AB"[len(text) % 2], "answer": text[::-1][: 3 + n % 5]}
    for n, text in enumerate(WORDS)
]


@frozen(eq=False)
class Bound:
    """A query bound to a model and its data, ready to run as often as one likes."""

    module: nn.Module
    plan: Plan
    source: Source

    @property
    def work(self) -> Work:
        """The batches, from the first."""
        return self.source.work(self.plan)

    def run(self, **options: Any) -> Outcome:
        """A run of the engine."""
        return run(self.plan, self.work, width=self.source.width, **options)


def bound(
    query: str, name: str | nn.Module, data: Any = None, inputs: Any = None, **options: Any
) -> Bound:
    """A query bound to a tiny model, with tokens enough a batch for several contexts."""
    module, tokenizer = tiny(name)[:2] if isinstance(name, str) else (name, tiny("gpt2")[1])
    model = get_model(module, tokenizer, {})
    if inputs is None:
        options = {"tokens_per_batch": 64, **options}
    dataset = None if inputs is not None else open_texts(data or DATA, (), None, options)
    source = open_source(model, dataset, inputs, options)
    return Bound(module, bind(hookql.check(query), model, source.feed, source.columns), source)


@define(eq=False)
class Passes:
    """What is known of the model's passes: the size of this one, and how many there were."""

    rows: int = 0
    positions: int = 0
    number: int = 0
    sizes: list[tuple[int, int]] = field(factory=list)
    raised: int = 0


When = Callable[[Passes], bool]


@contextmanager
def failing(
    module: nn.Module,
    where: str,
    when: When,
    error: BaseException | None = None,
    after: bool = False,
) -> Iterator[Passes]:
    """Raise, by default MemoryError, before or after a submodule runs, ``when`` a pass is such."""
    passes = Passes()

    def begin(_: Any, args: Any, kwargs: Mapping[str, Any]) -> None:
        first = next(v for v in (*args, *kwargs.values()) if isinstance(v, Tensor))
        passes.rows, passes.positions = first.shape[0], first.shape[1]
        passes.number += 1
        passes.sizes.append((passes.rows, passes.positions))

    def fail(*_: Any) -> None:
        if when(passes):
            passes.raised += 1
            raise MemoryError("planted") if error is None else error

    place = module.get_submodule(where)
    handles = [module.register_forward_pre_hook(begin, with_kwargs=True)]
    plant = place.register_forward_hook if after else place.register_forward_pre_hook
    handles.append(plant(fail))
    try:
        yield passes
    finally:
        for handle in handles:
            handle.remove()


def several(passes: Passes) -> bool:
    """Every pass over more than one context."""
    return passes.rows > 1


def every_second(passes: Passes) -> bool:
    """Of those over more than one context, every second."""
    return passes.rows > 1 and passes.number % 2 == 1


def above(tokens: int) -> When:
    """Passes over more padded tokens, of several contexts."""
    return lambda passes: passes.rows > 1 and passes.rows * passes.positions > tokens


def tree(bound: Bound, outcome: Outcome) -> xarray.DataTree:
    """The results of an outcome, as a user gets them."""
    return build_tree(collect(bound.plan, outcome), {})


def assert_same(expected: xarray.DataTree, actual: xarray.DataTree, exactly: bool = False) -> None:
    """The same nodes, coordinates and counts; numbers within 1e-5 of their variable's largest."""
    assert [n.path for n in expected.subtree] == [n.path for n in actual.subtree]
    compared = 0
    for ours, theirs in zip(expected.subtree, actual.subtree, strict=True):
        assert list(ours.variables) == list(theirs.variables)
        for name in ours.variables:
            left, right = ours[name].values, theirs[name].values
            if exactly or left.dtype.kind != "f":
                np.testing.assert_array_equal(left, right, err_msg=f"{ours.path} {name}")
            else:
                largest = np.max(np.abs(left), where=np.isfinite(left), initial=0)
                np.testing.assert_allclose(left, right, 1e-5, 1e-5 * largest, err_msg=name)
            compared += left.size
    assert compared


def counted(outcome: Outcome) -> dict[str, Any]:
    """All that is counted of tokens, but for what depends on how batches are cut."""
    jobs = [job for detector in outcome.detectors.values() for job in detector.jobs.values()]
    return {
        "kept": outcome.kept,
        "undefined": outcome.undefined,
        "of jobs": [(job.kept, job.undefined) for job in jobs],
        "nonfinite": [{n: (f.count, f.first) for n, f in j.nonfinite.items()} for j in jobs],
        "of groups": [job.group_counts[job.group_counts > 0].sum() for job in jobs],
        "read": outcome.tokens + outcome.skipped + outcome.failed,
        "done": outcome.done,
    }


def left_clean(bound: Bound) -> None:
    """No hook is left on the model."""
    hooks = [*bound.module._forward_hooks.values(), *bound.module._forward_pre_hooks.values()]
    for module in bound.module.modules():
        hooks += [*module._forward_hooks.values(), *module._forward_pre_hooks.values()]
    assert [] == hooks


def without(data: list[Any], samples: set[int]) -> list[Any]:
    """Data whose samples of these numbers are empty: the others keep their numbers."""
    return [{**row, "text": ""} if n in samples else row for n, row in enumerate(data)]
