"""A user's own passes, followed: plain ones reduced as they run, generated ones at their end."""

from __future__ import annotations

import hashlib
import threading
import time
import weakref
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
from hookql.engines.following import Follower, needs_whole
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
    recomputing,
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
    _thread: int = 0  # whose call it is
    _raised: bool = False  # whether something went wrong in our own hooks during it
    _batch: Batch | None = None
    _asked: Asked | None = None  # of the `generate` that goes on
    _known: tuple[Arranged, int] | None = None  # of the latest call, and its first sample
    _cache: Any = None  # a weak reference to the cache that the latest call left, if it has one
    _first: int = 0  # the first sample of the stretch
    _whole: bool = field(init=False)

    def __attrs_post_init__(self) -> None:
        self.passes = Pass(self.plan, self.outcome)
        self.follower = Follower(self.passes)
        feed = self.plan.feed
        assert isinstance(feed, TokenFeed)
        self._reader = CallReader(self.plan.model, feed.ids)
        self._taps = self.passes.taps()
        self._whole = needs_whole(self.plan)

    @property
    def busy(self) -> bool:
        """Whether a call of the model goes on, whose rows count."""
        return bool(self._mode)

    @property
    def generating(self) -> bool:
        """Whether a `generate` goes on."""
        return self._asked is not None

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
        if torch.compiler.is_compiling():
            _refuse_compiled()
        if _not_theirs():
            return
        if self._open:
            if self._thread != threading.get_ident():
                message = f"two threads call `{self.plan.model.name}` at once"
                help = "a plan follows one call at a time: take turns"
                raise ModelError(Diagnostic("two-threads", message, help=help))
            self._failed()  # the call before was left by Ctrl-C or the like
        self._open, self._mode, self._raised = True, "", False
        self._thread = threading.get_ident()
        if self._asked is not None:
            if self.follower.stretch is not None:  # else one that began while it was paused
                self.follower.call(self._reader.ids(args, kwargs))
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
        if _not_theirs() or (self._open and self._thread != threading.get_ident()):
            return
        if not self._open and output is None:
            return  # what began it was refused
        if not self._open:
            message = f"`{self.plan.model.name}` calls itself while it runs, which is not followed"
            raise ModelError(Diagnostic("nested-call", message))
        self._open = False
        try:
            # torch calls this with the output also where a hook of the root raised.
            if output is None or self._raised:
                self._failed()
            elif self._mode == "held":
                self._held_call()
            elif self._mode == "direct":
                self._finish()
            self._cache = _cache_of(output)
        finally:
            self._mode = ""

    def _held_call(self) -> None:
        self.follower.ended()
        stretch = self.follower.stretch
        # Where criteria of the user's own end texts, only the output says what was padding.
        certain = stretch is not None and stretch.pad is None
        if self.follower.held.nbytes > _HELD and certain and not self._whole:
            self._flush(None)

    def _finish(self) -> None:
        assert self._batch is not None
        for failure in self.passes.failures():
            raise failure
        with undisturbed():
            self.passes.finish()
        self._count(self._batch)

    def _failed(self) -> None:
        """A call did not come to its end: what can be taken back is."""
        if self._mode == "held":
            self.follower.ended(failed=True)
        elif self._mode == "direct":
            self.failed += any(self.passes.abandon().values())
        self._mode = ""

    def _tap(self, point: HookPoint, tensor: Tensor) -> None:
        if not self._mode or _not_theirs() or self._thread != threading.get_ident():
            return
        try:
            if self._mode == "held":
                self.follower.keep(point, tensor)
            else:
                with undisturbed():
                    self._taps[point](tensor)
        except Exception:
            self._raised = True
            raise

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
        if stretch is None or stretch.total != call.past or not self._same_cache(call.cache):
            self.settle()
            same = self._known is not None and self._known[0].given == call.past
            if not same or not self._same_cache(call.cache):
                message = f"this call goes on from a cache of {call.past} tokens that were not seen"
                message += ", or not as the latest"
                help = "begin inside the `with`, or generate with `model.generate(...)`"
                raise ModelError(Diagnostic("unknown-past", message, help=help))
            if self._whole:
                message = (
                    "the query asks at a token for what comes after it, or for `surprisal`, and "
                )
                message += "a loop of calls with a cache does not say that at once"
                help = "generate with `model.generate(...)`, or feed the whole text at once"
                raise ModelError(Diagnostic("looks-ahead", message, help=help))
            assert self._known is not None
            tokens, self._first = self._known
            self.follower.begin(_stretch_of(tokens, call.past))
        self.follower.call(call.ids, call.mask)
        self._mode = "held"

    # --- generate -----------------------------------------------------------------------------

    def _generate(self, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> None:
        """A `generate` begins. Raises ModelError for one that cannot be followed."""
        if _not_theirs():
            return
        if self._asked is not None:
            message = "a `generate` began inside another one, which is not followed"
            raise ModelError(Diagnostic("not-followed", message, help="pause the plan meanwhile"))
        self.settle()
        if self.paused:
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
        if _not_theirs():
            return
        asked, self._asked = self._asked, None
        if self._open:  # left by Ctrl-C or the like
            self._open = False
            self._failed()
        if asked is None or asked.ids is None or self.follower.stretch is None:
            return
        stretch, self._known = self.follower.stretch, None
        sequences = getattr(output, "sequences", output)
        try:
            if isinstance(sequences, Tensor) and not stretch.widths:
                message = f"this `generate` of `{self.plan.model.name}` runs another module than "
                message += "the one that the plan is bound to"
                help = "bind the query to the model inside, whose `generate` it is"
                raise ModelError(Diagnostic("not-followed", message, help=help))
            self._flush(sequences if isinstance(sequences, Tensor) else None)
        finally:
            self.follower.held.clear()
            self.follower.stretch = None

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

    def _same_cache(self, cache: Any) -> bool:
        """Whether a cache is the one that the latest call left, as far as that can be known."""
        return self._cache is None or self._cache() is cache


_COMPILED = Diagnostic(
    "compiled-model",
    "the model is being compiled while a plan looks on: its hooks would be compiled with it",
    help="run the model that was given to `torch.compile`",
)


def _refuse_compiled() -> None:
    """Refuse a call that `torch.compile` traces; in words that it can trace."""
    raise ModelError(_COMPILED)


def _not_theirs() -> bool:
    """Whether HookQL runs the model itself, or a backward pass runs a part of it once more."""
    return own_passes() or recomputing()


def _cache_of(output: Any) -> Any:
    """A weak reference to the cache in an output; None where there is none that can have one."""
    cache = getattr(output, "past_key_values", None)
    if cache is None and isinstance(output, tuple):
        cache = next((each for each in output if hasattr(each, "get_seq_length")), None)
    return weakref.ref(cache) if hasattr(cache, "get_seq_length") else None


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
