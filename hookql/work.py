"""Sources: who makes the work of an engine, and how contexts become batches of it."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Protocol

from hookql.assembly import bytes_a_row, bytes_a_sample
from hookql.data.batches import WINDOW_CONTEXTS, WINDOW_TOKENS, Batch, batches
from hookql.data.encode import Context
from hookql.data.tokens import Skipped
from hookql.engines.local import Work
from hookql.language import ast
from hookql.models.feed import Feed, TokenFeed
from hookql.models.load import Model
from hookql.models.mixing import Mixing
from hookql.models.regime import length_group
from hookql.optimizer.budget import usual
from hookql.optimizer.duplicates import merges
from hookql.optimizer.prefixes import shares
from hookql.optimizer.rows import ends
from hookql.options import RunOptions
from hookql.plan import Plan

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


def _over_all_rows(plan: Plan) -> bool:
    """Whether more is worked out of a place's rows than of those that a mask keeps."""
    targets = [target for capture in plan.captures for target in capture.targets]
    nodes = {asked.expression.node for target in targets for asked in target.asked}
    return any(target.values for target in targets) or bool(nodes - {ast.Name("x")})


def tokens_per_batch(plan: Plan, options: RunOptions) -> int:
    """The most tokens of a batch, padding included: what the user says, or the plan, or usual."""
    if (given := options.get("tokens_per_batch")) is not None:
        return given
    tokens = plan.tokens_per_batch or usual(plan.model.device.type)
    return tokens if plan.query.generation is None else tokens * _GENERATING


def token_work(
    model: Model,
    feed: Feed,
    contexts: Iterable[Context],
    plan: Plan,
    options: RunOptions,
    beside: Callable[[Batch], Mapping[str, Any]] | None = None,
) -> Work:
    """Contexts as batches of the right size and kind for the model.

    ``beside`` makes model inputs of a batch besides those of its tokens, all of which are fed then.
    """
    assert isinstance(feed, TokenFeed)
    alone = plan.probe.mixing is Mixing.SAMPLES
    tokens = tokens_per_batch(plan, options)
    rows = options.get("batch_size")
    if plan.query.generation is not None:
        asked = plan.query.generation.arguments
        # Samples that draw their tokens do so alone, so that none depends on another.
        alone = alone or bool(asked.get("do_sample"))
        most = max(1, tokens // int(asked["max_new_tokens"]))
        rows = most if rows is None else min(rows, most)
    group = length_group(model.module, plan.probe.mixing is Mixing.PADDING)
    # A sample that is skipped must leave nothing behind, also not the rows of its beginning.
    prefixes = beside is None and options.get("on_error") != "skip"
    cut = batches(
        contexts,
        window_contexts=_window_contexts(plan),
        window_tokens=_window_tokens(plan, tokens),
        tokens_per_batch=tokens,
        batch_size=1 if alone else rows,
        group=group,
        pad_id=feed.pad_id,
        ends=ends(plan, alone=beside is not None),
        once=beside is None and merges(plan),
        shared=shares(plan, tokens, group) if prefixes else None,
        # Expressions over all rows of a batch have them all in memory, fed or not.
        each=1 if _over_all_rows(plan) else 32,
    )
    if beside is None:
        return Work(cut, feed.for_batch)
    return Work(cut, lambda batch: {**feed.for_batch(batch), **beside(batch)})
