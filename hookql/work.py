"""Work: what an engine is given, batches with the model inputs of each, and who makes it."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, Protocol

from hookql.assembly import bytes_a_sample
from hookql.data.batches import WINDOW_CONTEXTS, Batch, batches
from hookql.data.encode import Context
from hookql.models.feed import Feed, TokenFeed
from hookql.models.load import Model
from hookql.models.mixing import Mixing
from hookql.models.regime import length_group
from hookql.options import RunOptions
from hookql.plan import Plan

# Cost follows padded tokens: a CPU is fastest on short batches, a GPU wants long ones.
_TOKENS_PER_BATCH = {"cpu": 512, "cuda": 8192}

Work = Iterable[tuple[Batch, Mapping[str, Any]]]


class Source(Protocol):
    """Where batches come from."""

    feed: Feed
    width: int  # at least the longest context
    total: int | None  # samples, where known
    columns: Sequence[str] | None  # for row.NAME, where known

    def work(self, plan: Plan) -> Work:
        """Batches with the model inputs of each."""

    def facts(self) -> dict[str, str | int]:
        """What the result's attributes say of the data; complete once the work is done."""


# What samples that are written out as they complete may hold meanwhile, in bytes.
_HELD = 256_000_000


def _window(plan: Plan) -> int:
    """How many contexts are gathered to be sorted: fewer where each keeps much until written."""
    if not plan.streams:
        return WINDOW_CONTEXTS
    return max(8, min(WINDOW_CONTEXTS, _HELD // bytes_a_sample(plan)))


def token_work(
    model: Model, feed: Feed, contexts: Iterable[Context], plan: Plan, options: RunOptions
) -> Iterator[tuple[Batch, Mapping[str, Any]]]:
    """Contexts as batches of the right size and kind for the model, with their inputs."""
    assert isinstance(feed, TokenFeed)
    alone = plan.probe.mixing is Mixing.SAMPLES
    cut = batches(
        contexts,
        window_contexts=_window(plan),
        tokens_per_batch=options.get("tokens_per_batch")
        or _TOKENS_PER_BATCH.get(model.device.type, 512),
        batch_size=1 if alone else options.get("batch_size"),
        group=length_group(model.module, plan.probe.mixing is Mixing.PADDING),
        pad_id=feed.pad_id,
    )
    for batch in cut:
        yield batch, feed.for_batch(batch)
