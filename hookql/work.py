"""Sources: who makes the work of an engine, and how contexts become batches of it."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Protocol

from hookql.assembly import bytes_a_row, bytes_a_sample
from hookql.data.batches import WINDOW_CONTEXTS, WINDOW_TOKENS, Batch, batches
from hookql.data.encode import Context
from hookql.data.tokens import Skipped
from hookql.engines.local import Work
from hookql.models.feed import Feed, TokenFeed
from hookql.models.load import Model
from hookql.models.mixing import Mixing
from hookql.models.regime import length_group
from hookql.options import RunOptions
from hookql.plan import Plan

# Cost follows padded tokens: a CPU is fastest on short batches, a GPU wants long ones.
_TOKENS_PER_BATCH = {"cpu": 512, "cuda": 8192}
# A token at a time a batch costs little more than a sample: prompts and what is written together.
_GENERATING = 4


class Source(Protocol):
    """Where batches come from."""

    feed: Feed
    width: int  # at least the longest context
    total: int | None  # samples, where known
    columns: Sequence[str] | None  # for row.NAME, where known
    reads_again: bool  # whether the work can be gone through twice

    def work(self, plan: Plan) -> Work:
        """Batches, and what makes the model inputs of each."""

    @property
    def refused(self) -> Sequence[Skipped]:
        """The samples that the tokenizer refused and that were skipped; complete likewise."""

    def facts(self) -> dict[str, str | int]:
        """What the result's attributes say of the data; complete once the work is done."""


# What samples that are written out as they complete may hold meanwhile, in bytes.
_HELD = 256_000_000


def _window_contexts(plan: Plan) -> int:
    """How many contexts are gathered to be sorted: fewer where each keeps much until written."""
    if not plan.streams:
        return WINDOW_CONTEXTS
    return max(8, min(WINDOW_CONTEXTS, _HELD // bytes_a_sample(plan)))


def _window_tokens(plan: Plan, batch: int) -> int:
    """The same of tokens, whose raw rows wait until they can be written in order."""
    return max(4 * batch, min(WINDOW_TOKENS, _HELD // max(1, bytes_a_row(plan))))


def token_work(
    model: Model,
    feed: Feed,
    contexts: Iterable[Context],
    plan: Plan,
    options: RunOptions,
    beside: Callable[[Batch], Mapping[str, Any]] = lambda batch: {},
) -> Work:
    """Contexts as batches of the right size and kind for the model.

    ``beside`` makes model inputs of a batch besides those of its tokens.
    """
    assert isinstance(feed, TokenFeed)
    alone = plan.probe.mixing is Mixing.SAMPLES
    tokens = options.get("tokens_per_batch") or _TOKENS_PER_BATCH.get(model.device.type, 512)
    rows = options.get("batch_size")
    if plan.query.generation is not None:
        asked = plan.query.generation.arguments
        # Samples that draw their tokens do so alone, so that none depends on another.
        alone = alone or bool(asked.get("do_sample"))
        if options.get("tokens_per_batch") is None:
            tokens *= _GENERATING
        most = max(1, tokens // int(asked["max_new_tokens"]))
        rows = most if rows is None else min(rows, most)
    cut = batches(
        contexts,
        window_contexts=_window_contexts(plan),
        window_tokens=_window_tokens(plan, tokens),
        tokens_per_batch=tokens,
        batch_size=1 if alone else rows,
        group=length_group(model.module, plan.probe.mixing is Mixing.PADDING),
        pad_id=feed.pad_id,
    )
    return Work(cut, lambda batch: {**feed.for_batch(batch), **beside(batch)})
