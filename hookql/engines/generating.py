"""Generating: a batch of prompts continued by the model, each token that it is fed followed."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from attrs import define, field
from torch import Tensor

from hookql.data.batches import Batch
from hookql.data.encode import Context
from hookql.engines.fed import Arranged, Stretch
from hookql.engines.following import Follower, extended
from hookql.engines.outcome import Generated
from hookql.engines.passes import Pass, Taken
from hookql.errors import Diagnostic, ModelError
from hookql.models.feed import TokenFeed
from hookql.models.generation import (
    ends_of,
    generation_config,
    needs_all_logits,
    settings_of,
)
from hookql.models.hooks import hooked, root_calls
from hookql.models.regime import length_group
from hookql.plan import Plan


@define(eq=False)
class Generator:
    """Continues prompts, and hands the rows of all tokens that were fed to a pass."""

    plan: Plan
    passes: Pass
    arguments: Mapping[str, Any]
    follower: Follower = field(init=False)
    made: list[Generated] = field(factory=list)  # of the latest batch

    def __attrs_post_init__(self) -> None:
        self.follower = Follower(self.passes)

    @contextmanager
    def attached(self) -> Iterator[None]:
        """Follow the model's calls inside this context."""
        root, taps = self.plan.model.module, self.follower.taps()
        # Around the root's own taps: first before its pass, last behind it.
        with (
            root_calls(root, self._before, _nothing),
            hooked(root, taps),
            root_calls(root, _nothing, self._after),
        ):
            yield

    def __call__(self, batch: Batch, taken: Taken | None = None) -> Batch:
        """Generate, and reduce the rows of what was fed: that batch, the prompts its beginning.

        A sample that draws its tokens is alone in its batch, with a seed of its own, so that they
        do not depend on the others.
        """
        feed = self.plan.feed
        assert isinstance(feed, TokenFeed)
        self.passes.expect(taken)
        try:
            with _seeded(batch, self.arguments, self.plan.model.device):
                output = self.feed(batch.contexts)
            self.made = self._texts(batch.contexts, output)
            fed = self.follower.flush(
                lambda tokens: self._contexts(batch.contexts, tokens),
                output,
                pad_id=feed.pad_id,
                taken=taken,
                template=batch,
            )
        finally:
            self.follower.held.clear()
        assert fed is not None
        return fed

    def feed(self, contexts: Sequence[Context]) -> Tensor:
        """Generate behind these prompts; the whole sequences, int64 (B, L). Rows are held."""
        model, feed = self.plan.model, self.plan.feed
        assert isinstance(feed, TokenFeed)
        ids, mask = left_padded(contexts, feed.pad_id)
        self._check_regime(ids.shape[1])
        ends = ends_of(model)
        # Only an end of its own ends a text here, so that no padding has to be told from tokens.
        self.follower.begin(Stretch(torch.from_numpy(ids), mask, ends=ends))
        arguments: dict[str, Any] = {
            "input_ids": torch.from_numpy(ids).to(model.device),
            "attention_mask": torch.from_numpy(mask).to(model.device, torch.int64),
        }
        if needs_all_logits(self.plan.points, self.plan.logits, model.module):
            arguments["logits_to_keep"] = 0
        config = generation_config(model, self.arguments, ends, feed.pad_id)
        module: Any = model.module
        with settings_of(module, config):
            output: Tensor = module.generate(**arguments, generation_config=config)
        return output

    def _check_regime(self, width: int) -> None:
        """Refuse what would be written across a bound at which the model's frequencies change.

        What lies in the cache then has those of before, and a plain pass has none of these.
        """
        group = length_group(self.plan.model.module, padding_leaks=False)
        whole = width + int(self.arguments["max_new_tokens"]) - 1
        if group(width) != group(whole):
            message = (
                f"prompts of {width} tokens and what is written behind them, {whole} together, lie "
                "on both sides of the length at which this model changes its rotary frequencies"
            )
            raise ModelError(Diagnostic("regime-crossed", message, help="ask for fewer new tokens"))

    def _before(self, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> None:
        self.follower.call(kwargs["input_ids"] if "input_ids" in kwargs else args[0])

    def _after(self, args: tuple[Any, ...], kwargs: Mapping[str, Any], output: Any) -> None:
        self.follower.ended()

    def _contexts(self, prompts: Sequence[Context], tokens: Arranged) -> list[Context]:
        special = list(getattr(self.plan.model.tokenizer, "all_special_ids", None) or ())
        return [
            extended(context, ids, given, np.isin(ids[given:], special))
            for context, ids, given in zip(prompts, tokens.ids, tokens.prompts, strict=True)
        ]

    def _texts(self, contexts: Sequence[Context], output: Tensor) -> list[Generated]:
        """What was generated of each sample, from whole sequences."""
        tokenizer, ends = self.plan.model.tokenizer, ends_of(self.plan.model)
        prompt = max(len(context.ids) for context in contexts)
        found = []
        for context, row in zip(contexts, output[:, prompt:].tolist(), strict=True):
            ended = next((n for n, token in enumerate(row) if token in ends), None)
            ids = row if ended is None else row[: ended + 1]
            text = "" if tokenizer is None else tokenizer.decode(ids, skip_special_tokens=True)
            found.append(Generated(context.samples[0].index, text, len(ids), ended is not None))
        return found


def _nothing(*given: Any) -> None:
    """What stands at the end of a call that nobody asks for."""


def left_padded(contexts: Sequence[Context], pad_id: int) -> tuple[np.ndarray, np.ndarray]:
    """Ids int64 and a mask bool (B, P) of contexts, padded on the left: they end together."""
    width = max(len(context.ids) for context in contexts)
    ids = np.full((len(contexts), width), pad_id, np.int64)
    mask = np.zeros((len(contexts), width), np.bool_)
    for row, context in enumerate(contexts):
        ids[row, width - len(context.ids) :] = context.ids
        mask[row, width - len(context.ids) :] = True
    return ids, mask


@contextmanager
def _seeded(batch: Batch, arguments: Mapping[str, Any], device: torch.device) -> Iterator[None]:
    """Random numbers of the sample's own; the caller's are as they were afterwards."""
    if not arguments.get("do_sample"):
        yield
        return
    (context,) = batch.contexts
    named = f"{arguments.get('seed', 0)}:{context.samples[0].index}".encode()
    seed = int.from_bytes(hashlib.sha256(named).digest()[:8], "little") >> 1
    devices = [device] if device.type == "cuda" else []
    with torch.random.fork_rng(devices):
        torch.manual_seed(seed)
        yield
