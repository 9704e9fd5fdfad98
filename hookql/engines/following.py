"""Following sequences that a model is fed in several calls, as `generate` does with its cache.

The rows of all calls are held and reduced together: once, with everything known of a token that a
plain forward pass over the whole sequence would know, and without the cost of an update each step.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial

import numpy as np
from attrs import define, evolve, field
from torch import Tensor

from hookql.data.batches import Batch, collate
from hookql.data.encode import Context
from hookql.engines.fed import Arranged, Stretch
from hookql.engines.held import Held, join, ready
from hookql.engines.passes import Pass, Taken
from hookql.language import ast, names
from hookql.language.walk import walk
from hookql.models.ports import HookPoint
from hookql.models.probe import varying_calls
from hookql.plan import Plan

Contexts = Callable[[Arranged], Sequence[Context]]
"""What makes contexts of sequences: they know samples, roles, what is special."""

# What asks at a token for what comes after it; and `surprisal`, for what the model made of the
# token before, whose row has been let go of where rows are reduced in pieces.
_WHOLE = ("next", "length", "loss", "prob", "rank", "last", "surprisal")


@define(eq=False)
class Follower:
    """Holds the rows of one stretch, and hands them to a pass when it is over."""

    passes: Pass
    stretch: Stretch | None = None
    held: Held = field(init=False)
    _call: tuple[int, int, int] | None = None  # sequences, columns and new columns of this call

    def __attrs_post_init__(self) -> None:
        self.held = Held(self.passes.plan.probe.seen)

    def begin(self, stretch: Stretch) -> None:
        """Follow sequences from here on; what is held of others is let go of."""
        self.held.clear()
        self.stretch = stretch

    def call(self, ids: Tensor, mask: Tensor | None = None) -> None:
        """A call of the model begins. Raises ModelError where it does not go on with these."""
        assert self.stretch is not None
        new = self.stretch.call(ids, mask)
        self._call = (ids.shape[0], ids.shape[1], new)
        self.held.begin()

    def ended(self, *, failed: bool = False) -> None:
        """The call is over; of one that failed nothing counts.

        Raises ModelError where a module ran more or less often in it than in the probe.
        """
        call, self._call = self._call, None
        if call is None:
            return
        assert self.stretch is not None
        other = None if failed else self.held.other_than_expected()
        if failed or other is not None:
            self.held.undo()
            self.stretch.undo()
        if other is not None:
            raise varying_calls(other, self.held.seen[other].calls)

    def keep(self, point: HookPoint, tensor: Tensor) -> None:
        """Hold a hook point's rows of the call that goes on."""
        if self._call is not None:
            assert self.stretch is not None
            self.held.keep(point, tensor, *self._call, self.stretch.total)

    def flush(
        self,
        contexts: Contexts,
        output: Tensor | None = None,
        *,
        pad_id: int = 0,
        taken: Taken | None = None,
        template: Batch | None = None,
    ) -> Batch | None:
        """Reduce what is held; the batch that it was, None where it held no token.

        ``output`` are the whole sequences where they are known. ``template`` says what is known of
        the batch besides its tokens.
        """
        assert self.stretch is not None
        tokens = self.stretch.arranged(output)
        made = contexts(tokens)
        if not tokens.fed.any():
            self._flushed()
            return None
        batch = collate(made, pad_id)
        if (tokens.fed != batch.mask).any():
            batch = evolve(batch, fed=tokens.fed)
        if template is not None:
            batch = evolve(batch, complete=template.complete)
        if self.passes.begin(batch, taken, ready):
            seen, give = self.passes.plan.probe.seen, self.passes.taps()
            for point, chunks in self.held.joined():
                give[point](join(chunks, seen[point].layout, tokens))
            self.passes.finish()
        self._flushed()
        return batch

    def _flushed(self) -> None:
        assert self.stretch is not None
        self.held.clear()
        self.stretch.held_from = len(self.stretch.widths)

    def taps(self) -> dict[HookPoint, Callable[[Tensor], None]]:
        """What to call with each hook point's tensor, to have it held."""
        return {point: partial(self.keep, point) for point in self.passes.taps()}


def needs_whole(plan: Plan) -> bool:
    """Whether something of a query asks at a token for more than the tokens up to it."""
    wholes = [s.where for s in plan.selectors if s.where is not None]
    return any(_whole(whole) for whole in (*wholes, *plan.columns))


def _whole(whole: ast.Expression) -> bool:
    nodes = list(walk(whole))
    words = {node.id for node in nodes if isinstance(node, ast.Name)}
    negative = any(isinstance(node, ast.Unary) for node in nodes)
    from_the_end = negative and bool(words & {"position", "content_position"})
    # Nobody knows what a column of another package looks at.
    return bool(words & {*_WHOLE, *names.OFFERED}) or from_the_end


def extended(context: Context, ids: np.ndarray, prompt: int, special: np.ndarray) -> Context:
    """A prompt's context with what was generated behind it: ``ids`` int64 (L,) are the whole."""
    more = len(ids) - prompt
    roles = context.roles
    if roles is not None:
        roles = np.concatenate([roles, np.full(more, "assistant", roles.dtype)])
    spans = context.spans
    if spans is not None:  # what is generated is not of the sample's text
        spans = np.concatenate([spans, np.full((more, 2), -1, spans.dtype)])
    return evolve(
        context,
        ids=ids,
        special=np.concatenate([context.special, special]),
        owner=np.zeros(len(ids), np.int64),
        offset=np.concatenate([context.offset, np.zeros(more, np.int64)]),
        spans=spans,
        prompt=prompt,
        roles=roles,
    )
