"""What many contexts begin with, in the model's cache: computed once, whoever goes on from it."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from contextlib import suppress
from typing import Any

import numpy as np
import torch
from attrs import define

from hookql.data.batches import Batch, Feeding, Ints
from hookql.engines.passes import Pass
from hookql.models.feed import TokenFeed
from hookql.models.hooks import StopForward
from hookql.models.precision import casting
from hookql.plan import Plan


@define(eq=False)
class Cached:
    """The cache of the latest prefix, as the model left it."""

    plan: Plan
    passes: Pass
    ran: bool = True  # whether the rows of the latest prefix were run for themselves
    _prefix: Ints | None = None
    _cache: Any = None

    def inputs(self, batch: Batch, inputs: Mapping[str, Any]) -> Mapping[str, Any]:
        """Model inputs of a batch; one that goes on from a prefix is given that in a cache."""
        feeding = batch.feeding
        if feeding is None or feeding.prefix is None:
            return inputs
        if self._prefix is None or not np.array_equal(self._prefix, feeding.prefix):
            self._fill(feeding.prefix)
        return continued(inputs, self._cache, feeding)

    def note(self, batch: Batch, ran: bool) -> None:
        """Take notice of a batch that is over, if it is that of a prefix."""
        if batch.feeding is not None and batch.fed is not None and not batch.feeding.start:
            self.ran = ran

    def _fill(self, prefix: Ints) -> None:
        """Run the prefix alone. Its rows count elsewhere, so nobody hears of them."""
        self._prefix = self._cache = None
        feed = self.plan.feed
        assert isinstance(feed, TokenFeed)
        cache = empty_cache(self.plan.model.module)
        given = feed.unpadded(torch.from_numpy(prefix)[None])
        self.passes.muted = True
        try:
            with suppress(StopForward), casting(self.plan.model):
                self.plan.model.module(**{**given, "use_cache": True, "past_key_values": cache})
        finally:
            self.passes.muted = False
        outcome = self.passes.outcome
        outcome.tokens += len(prefix)
        if self.ran:
            outcome.spared -= len(prefix)
        else:
            outcome.skipped -= len(prefix)
        self._prefix, self._cache = prefix, cache


def empty_cache(module: Any) -> Any:
    """A cache that grows with what it is given."""
    from transformers import DynamicCache

    return DynamicCache(config=module.config.get_text_config(decoder=True))


def continued(inputs: Mapping[str, Any], cache: Any, feeding: Feeding) -> dict[str, Any]:
    """Inputs (U, s) that go on from a prefix in a cache of one sample, which stays as it is."""
    rows, prefix = feeding.mask.shape[0], feeding.start
    shared = copy.copy(cache)
    shared.layers = [copy.copy(layer) for layer in cache.layers]
    for layer in shared.layers:
        if getattr(layer, "is_initialized", False):  # those behind the last needed module are not
            layer.keys = layer.keys.expand(rows, *layer.keys.shape[1:])
            layer.values = layer.values.expand(rows, *layer.values.shape[1:])
    ids = next(value for value in inputs.values() if isinstance(value, torch.Tensor))
    given = {**inputs, "use_cache": True, "past_key_values": shared}
    if "attention_mask" in inputs:
        mask = inputs["attention_mask"]
        given["attention_mask"] = torch.cat([mask.new_ones(rows, prefix), mask], 1)
    places = torch.arange(prefix, prefix + ids.shape[1], device=ids.device)
    return {**given, "position_ids": places[None].expand(rows, -1)}
