"""A user's own passes, followed: plain ones reduced as they run, generated ones at their end."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from functools import partial
from typing import Any

import numpy as np
import torch
from attrs import define, evolve, field
from torch import Tensor

from hookql.data.batches import Batch, collate
from hookql.data.encode import Context
from hookql.data.samples import Sample
from hookql.engines.fed import Arranged, Stretch, arrange
from hookql.engines.following import Follower, looks_ahead
from hookql.engines.held import reader
from hookql.engines.outcome import Outcome
from hookql.engines.passes import Pass
from hookql.errors import Diagnostic, ModelError
from hookql.live.calls import Call, CallReader
from hookql.live.generating import Asked, read_generate
from hookql.models.feed import TokenFeed
from hookql.models.generate_calls import around_generate
from hookql.models.hooks import (
    hooked,
    own_passes,
    root_calls,
    undisturbed,
)
from hookql.models.ports import HookPoint
from hookql.plan import Plan

# What is held of a stretch before it is reduced, in bytes, where nothing asks for what comes after.
_HELD = 256_000_000


@define(eq=False)
class Live:
    """What runs of a plan while somebody else calls the model.

    ``samples`` counts the sequences so far, ``failed`` the passes that ended in an error after some
    of their rows had been counted.
    """

    plan: Plan
    outcome: Outcome
    passes: Pass = field(init=False)
    follower: Follower = field(init=False)
    paused: bool = False
    samples: int = 0
    failed: int = 0
    digest: Any = field(factory=hashlib.sha256)
    _reader: CallReader = field(init=False)
    _taps: Mapping[HookPoint, Callable[[Tensor], None]] = field(init=False)
    _mode: str = ""  # "direct" or "held" while a call runs whose rows count
    _open: bool = False  # whether a call of the model goes on
    _batch: Batch | None = None
    _asked: Asked | None = None  # of the `generate` that goes on
    _known: tuple[Arranged, int] | None = None  # of the latest call, and its first sample
    _first: int = 0  # the first sample of the stretch
    _ahead: bool = field(init=False)

    def __attrs_post_init__(self) -> None:
        self.passes = Pass(self.plan, self.outcome)
        self.follower = Follower(self.passes)
        feed = self.plan.feed
        assert isinstance(feed, TokenFeed)
        self._reader = CallReader(self.plan.model, feed.ids)
        self._taps = self.passes.taps()
        self._ahead = looks_ahead(self.plan)

    @property
    def busy(self) -> bool:
        """Whether a call of the model goes on, whose rows count."""
        return bool(self._mode)

    @contextmanager
    def attached(self) -> Iterator[None]:
        """Look on inside this context; what is held is reduced at its end."""
        root, started = self.plan.model.module, time.perf_counter()
        with ExitStack() as stack:
            stack.enter_context(around_generate(root, self._generate, self._generated))
            taps = {point: partial(self._tap, point) for point in self._taps}
            # Around the root's own taps: first before its pass, last behind it.
            stack.enter_context(root_calls(root, self._before, _nothing))
            stack.enter_context(hooked(root, taps))
            stack.enter_context(root_calls(root, _nothing, self._after))
            try:
                yield
                self.settle()
            finally:
                self._mode, self._open, self._asked = "", False, None
                self.outcome.seconds += time.perf_counter() - started

    def settle(self, *, over: bool = True) -> None:
        """Reduce what is held of a loop of the user's own; what `generate` is at waits for it.

        Unless it is ``over`` the loop may go on from there.
        """
        if self._asked is None and self.follower.stretch is not None:
            self._flush(None)
            if over:
                self.follower.stretch = None

    # --- calls of the model -------------------------------------------------------------------

    def _before(self, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> None:
        if own_passes():
            return
        if self._open:  # the call before was left by Ctrl-C or the like
            self._failed()
        self._open, self._mode = True, ""
        generating = self._asked is not None
        if generating:
            if self.follower.stretch is not None:  # else one that began while it was paused
                self.follower.call(self._reader.read(args, kwargs).ids)
                self._mode = "held"
        elif self.paused or self.plan.query.generation is not None:
            self.settle()
            self._known = None
        else:
            call = self._reader.read(args, kwargs)
            if call.past:
                self._go_on(call)
            else:
                self.settle()
                self._begin(call)

    def _after(self, args: tuple[Any, ...], kwargs: Mapping[str, Any], output: Any) -> None:
        if own_passes():
            return
        if not self._open:
            message = f"`{self.plan.model.name}` calls itself while it runs, which is not followed"
            raise ModelError(Diagnostic("nested-call", message))
        self._open = False
        if output is None:
            self._failed()
        elif self._mode == "held":
            self.follower.ended()
            stretch = self.follower.stretch
            # Where criteria of the user's own end texts, only the output says what was padding.
            certain = stretch is not None and stretch.pad is None
            if self.follower.held.nbytes > _HELD and certain and not self._ahead:
                self._flush(None)
        elif self._mode == "direct":
            assert self._batch is not None
            for failure in self.passes.failures():
                raise failure
            with undisturbed():
                self.passes.finish()
            self._count(self._batch)
        self._mode = ""

    def _failed(self) -> None:
        """A call did not come to its end: what can be taken back is."""
        if self._mode == "held":
            self.follower.ended(failed=True)
        elif self._mode == "direct":
            self.failed += any(self.passes.abandon().values())
        self._mode = ""

    def _tap(self, point: HookPoint, tensor: Tensor) -> None:
        if self._mode == "held":
            self.follower.keep(point, tensor)
        elif self._mode == "direct" and not own_passes():
            with undisturbed():
                self._taps[point](tensor)

    def _begin(self, call: Call) -> None:
        """A pass of its own: its rows are reduced inside the hooks."""
        real = call.real()
        tokens = arrange(call.ids.detach().cpu().numpy(), real)
        self._first, self.samples = self.samples, self.samples + len(real)
        self._known = tokens, self._first
        if not real.any():
            return
        batch = collate(self._contexts(tokens))
        width = call.ids.shape[1]
        straight = (tokens.columns == np.arange(width)[None, : batch.ids.shape[1]])[batch.mask]
        plain = batch.ids.shape[1] == width and bool(straight.all())
        batch = evolve(batch, target=self._target(call))
        self._batch = batch
        size = (len(real), width)
        if self.passes.begin(batch, read=None if plain else reader(tokens, size)):
            self._mode = "direct"
        else:
            self._count(batch)

    def _target(self, call: Call) -> Batch | None:
        """The decoder's rows of a call."""
        if call.target is None:
            streams = {selector.stream for selector in self.plan.selectors}
            if "target" in streams:
                message = "this call does not say what the decoder is fed"
                help = "give `decoder_input_ids` beside the ids"
                raise ModelError(Diagnostic("unreadable-call", message, help=help))
            return None
        ids, real = call.target[0].detach().cpu().numpy(), call.real_target()
        right = np.arange(real.shape[1])[None] < real.sum(1)[:, None]
        if not (real == right).all() or int(real.sum(1).max(initial=0)) != real.shape[1]:
            message = "the decoder's tokens are padded on the left, or all of them beyond their end"
            raise ModelError(Diagnostic("unreadable-call", message))
        return collate(self._contexts(arrange(ids, real)))

    def _go_on(self, call: Call) -> None:
        """A call that goes on from its cache, in a loop of the user's own."""
        stretch = self.follower.stretch
        if stretch is None or stretch.total != call.past:
            self.settle()
            if self._known is None or self._known[0].given != call.past:
                message = f"this call goes on from a cache of {call.past} tokens that were not seen"
                help = "begin inside the `with`, or generate with `model.generate(...)`"
                raise ModelError(Diagnostic("unknown-past", message, help=help))
            if self._ahead:
                message = "the query asks what comes after a token, which a loop of calls with a "
                message += "cache says only later"
                help = "generate with `model.generate(...)`, or feed the whole text at once"
                raise ModelError(Diagnostic("looks-ahead", message, help=help))
            tokens, self._first = self._known
            self.follower.begin(_stretch_of(tokens, call.past))
        self.follower.call(call.ids, call.mask)
        self._mode = "held"

    # --- generate -----------------------------------------------------------------------------

    def _generate(self, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> None:
        """A `generate` begins. Raises ModelError for one that cannot be followed."""
        self.settle()
        if self.paused or own_passes():
            self._asked = Asked()
            return
        self._asked = asked = read_generate(self.plan.model, args, kwargs)
        assert asked.ids is not None
        assert asked.mask is not None
        self._first, self.samples = self.samples, self.samples + len(asked.ids)
        self.follower.begin(
            Stretch(asked.ids, asked.mask, asked.past, ends=asked.ends, pad=asked.pad)
        )

    def _generated(self, output: Any) -> None:
        """It is over; of one that failed there is no output."""
        asked, self._asked = self._asked, None
        if self._open:  # left by Ctrl-C or the like
            self._open = False
            self._failed()
        if asked is None or asked.ids is None or self.follower.stretch is None:
            return
        sequences = getattr(output, "sequences", output)
        self._flush(sequences if isinstance(sequences, Tensor) else None)
        self.follower.stretch = None
        self._known = None

    def _flush(self, output: Tensor | None) -> None:
        with undisturbed():
            batch = self.follower.flush(self._contexts, output)
        if batch is not None:
            self._count(batch)

    # --- what a batch is ----------------------------------------------------------------------

    def _contexts(self, tokens: Arranged) -> list[Context]:
        special = list(getattr(self.plan.model.tokenizer, "all_special_ids", None) or ())
        return [
            Context(
                ids=ids,
                special=np.isin(ids, special),
                owner=np.zeros(len(ids), np.int64),
                samples=(Sample(self._first + number, "", {}),),
                prompt=prompt,
            )
            for number, (ids, prompt) in enumerate(zip(tokens.ids, tokens.prompts, strict=True))
        ]

    def _count(self, batch: Batch) -> None:
        outcome = self.outcome
        outcome.tokens += int(np.count_nonzero(batch.rows))
        outcome.padding += int(np.count_nonzero(~batch.mask))
        outcome.batches += 1
        outcome.done += 1
        self.digest.update(np.ascontiguousarray(batch.ids[batch.rows]).tobytes())


def _nothing(*given: Any) -> None:
    """What stands at the end of a call that nobody asks for."""


def _stretch_of(tokens: Arranged, past: int) -> Stretch:
    """What has been fed already, to be gone on with."""
    ids = np.zeros((len(tokens.ids), past), np.int64)
    mask = np.zeros(ids.shape, np.bool_)
    for number, row in enumerate(tokens.ids):
        places = tokens.columns[number, : len(row)]
        ids[number, places], mask[number, places] = row, True
    return Stretch(torch.from_numpy(ids), mask, start=past, loop=True)
