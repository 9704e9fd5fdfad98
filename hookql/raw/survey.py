"""The survey: the data read once before the run, without the model, to know what will come.

How many rows there are says how large the file gets, and lets it lie in one piece. It costs one
more reading and tokenising of the data, little beside the model.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping

import numpy as np
from attrs import frozen

from hookql.data.batches import Batch
from hookql.plan import Plan


@frozen
class Survey:
    """What the data holds for a plan.

    ``rows`` are the tokens that each selector keeps, exact where ``exact`` says so, else at most
    so many; ``fingerprint`` and ``samples`` are those of the data's facts.
    """

    rows: tuple[int, ...]
    exact: tuple[bool, ...]
    samples: int
    tokens: int
    batches: int
    fingerprint: str


def survey(
    plan: Plan,
    batches: Iterable[Batch],
    facts: Callable[[], Mapping[str, str | int]],
    tick: Callable[[Batch], None] = lambda batch: None,
) -> Survey:
    """Go through the batches of a run and count. Raises what reading the data raises."""
    exact = tuple(
        not plan.own(number) and not plan.signals(number) for number in range(len(plan.selectors))
    )
    rows = [0] * len(plan.selectors)
    tokens = number_of_batches = 0
    for batch in batches:
        for number, selector in enumerate(plan.selectors):
            of_stream = batch.target if selector.stream == "target" else batch
            assert of_stream is not None
            predicate = plan.predicates[number]
            kept = of_stream.mask
            if predicate is not None and exact[number]:
                kept = predicate(of_stream)[0]
            rows[number] += int(np.count_nonzero(kept))
        tokens += int(np.count_nonzero(batch.mask))
        number_of_batches += 1
        tick(batch)
    said = facts()
    return Survey(
        tuple(rows),
        exact,
        int(said["samples"]),
        tokens,
        number_of_batches,
        str(said["data_fingerprint"]),
    )
