"""Which samples a batch completes: those that no later batch has a token of."""

from __future__ import annotations

from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from hookql.data.batches import EVERYTHING, batches
from hookql.data.encode import Encoder
from hookql.data.samples import Sample
from tests.data.toys import slow


@settings(max_examples=200, deadline=None)
@given(
    st.lists(st.integers(0, 30), max_size=30),
    st.sampled_from(["split", "truncate", "pack"]),
    st.integers(4, 40),
    st.integers(1, 60),
    st.integers(1, 3),
)
def test_complete(lengths: list[int], overflow: Any, budget: int, window: int, groups: int) -> None:
    """No later batch has a completed sample; at a window's end none is completed too late."""
    samples = [Sample(i, "a" * length, {}) for i, length in enumerate(lengths)]
    found = list(
        batches(
            Encoder(slow(), 8, overflow)(samples),
            tokens_per_batch=budget,
            window_tokens=window,
            group=lambda length: length % groups,
        )
    )
    held = [{s.index for c in batch.contexts for s in c.samples} for batch in found]
    before = 0
    for number, batch in enumerate(found):
        later = set().union(*held[number + 1 :])
        assert before <= batch.complete <= min(later, default=EVERYTHING)
        before = batch.complete
    assert [EVERYTHING] * bool(found) == [batch.complete for batch in found[-1:]]


def test_windows_complete_all_but_the_cut_sample() -> None:
    """After a window only the sample that goes on in the next one is open."""
    samples = [Sample(i, "a" * length, {}) for i, length in enumerate([7, 0, 20, 5])]
    contexts = Encoder(slow(), 8)(samples)
    found = [
        (b.complete, [(c.samples[0].index, c.chunk) for c in b.contexts])
        for b in batches(contexts, tokens_per_batch=8, window_tokens=15)
    ]
    expected = [
        (0, [(0, 0)]),
        (2, [(2, 0)]),
        (2, [(2, 1)]),
        (3, [(2, 2)]),
        (EVERYTHING, [(3, 0)]),
    ]
    assert expected == found
