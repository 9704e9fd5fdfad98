"""No value is read back from a device while a batch runs.

Tensors on torch's meta device have no values: whoever asks one for a number, for the places where
it is not 0, or for a copy on the host is told so by an error. HookQL takes any device that is not
the CPU for a GPU, so a batch of them goes where a GPU's would go.
"""

from __future__ import annotations

import numpy as np
import pytest
import torch

import hookql
from benchmarks.gpu import looks_back
from hookql.binding import bind
from hookql.data.batches import batches
from hookql.data.encode import Context
from hookql.data.samples import Sample
from hookql.engines.outcome import Outcome
from hookql.engines.passes import Pass
from hookql.models.feed import TokenFeed
from hookql.models.load import Model, load_model

ON_THE_DEVICE = [
    "mean, std",
    "mean, std where position > 1",
    "mean, var, sum, rms, min, max, skew, kurtosis",
    "top(x, k=3), bottom(x, k=2)",
    "hist(x, lo=-1, hi=1, bins=4)",
    "mean, std by position",
    "mean(norm(x)), max(abs(x)), mean(x[3] > 0)",
    "cov, gram",
]


@pytest.fixture(scope="module")
def demo() -> Model:
    """The demo model."""
    return load_model()


def observe_without_values(model: Model, what: str) -> Outcome:
    """Two batches of a query on the model's first attention, whose tensors have no values."""
    statistics, _, rest = what.partition(" where ")
    statistics, _, by = statistics.partition(" by ")
    tail = (f" where {rest}" if rest else "") + (f" by {by}" if by else "")
    query = hookql.compile(f"capture {statistics} from transformer.h[0].attn{tail}").query
    plan = bind(query, model, TokenFeed(model))
    outcome = Outcome.of(plan, 64)
    passes = Pass(plan, outcome)
    contexts = [
        Context(np.arange(n), np.zeros(n, bool), np.zeros(n, np.int64), (Sample(i, "", {}),))
        for i, n in enumerate((7, 9, 5, 12))
    ]
    for batch in batches(contexts, tokens_per_batch=24):
        passes.begin(batch)
        for detector in outcome.detectors.values():
            detector.observe("x", torch.empty(*batch.ids.shape, 112, device="meta"))
        passes.finish()
    return outcome


@pytest.mark.parametrize("what", ON_THE_DEVICE)
def test_nothing_is_read_back(demo: Model, what: str) -> None:
    """Of all that statistics do with a batch on a device."""
    outcome = observe_without_values(demo, what)
    assert [1] == [detector.fired for detector in outcome.detectors.values()]
    assert outcome.kept[0] > 0


@pytest.mark.parametrize("what", ["mean where norm(x) > 1", "median"])
def test_reading_back_is_noticed(demo: Model, what: str) -> None:
    """A predicate over a site's own values is read on the host; so is a sketch's range."""
    with pytest.raises(hookql.HookQLError, match="meta"):
        observe_without_values(demo, what)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no GPU")
def test_the_profiler_sees_no_sync() -> None:
    """On a GPU: neither waiting nor a copy to the host inside the loop."""
    assert {} == looks_back()
