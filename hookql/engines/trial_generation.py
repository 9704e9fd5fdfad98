"""Trying out how a model generates: is what it computes with its cache what a plain pass computes?

Some models take the positions of left-padded prompts wrong, or compute otherwise a token at a time.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from attrs import evolve
from torch import Tensor

from hookql.data.encode import Context
from hookql.data.samples import Sample
from hookql.engines.fed import Arranged
from hookql.engines.generating import Generator
from hookql.engines.held import join
from hookql.engines.outcome import Outcome
from hookql.engines.passes import Pass
from hookql.errors import Diagnostic, ModelError
from hookql.models.feed import TokenFeed
from hookql.models.hooks import observing
from hookql.models.learning import describe
from hookql.models.mixing import Mixing, differs, distance, scale
from hookql.models.ports import HookPoint
from hookql.models.trial import run_once
from hookql.plan import Plan

_NEW = 3  # tokens that are generated
_LENGTHS = (9, 5)

Rows = dict[HookPoint, list[list[Tensor]]]


def tried_generation(plan: Plan) -> Plan:
    """The plan, told what generating needs: which prompts may share a batch, and that all runs.

    Raises ModelError where a token fed with the cache has other values than in a plain pass.
    """
    feed = plan.feed
    assert isinstance(feed, TokenFeed)
    context = plan.model.context
    lengths = [n for n in _LENGTHS if context is None or n + _NEW <= context] or [1]
    mixing = plan.probe.mixing
    with observing(plan.model.module):
        singles = [feed.random_ids(1, length)[0] for length in lengths]
        for ids in singles:
            wrong = _differing(plan, [ids])
            if wrong is not None:
                raise ModelError(_not_equal(plan, wrong))
        if mixing is Mixing.NONE and len(singles) > 1 and _differing(plan, singles) is not None:
            mixing = Mixing.PADDING
    events = plan.probe.events
    return evolve(plan, probe=evolve(plan.probe, mixing=mixing), stop=len(events) - 1, share=1.0)


def untried_generation(plan: Plan) -> Plan:
    """The same of a model without weights: only that all runs."""
    still = (*plan.probe.open, "whether a token fed with the cache has its values of a plain pass")
    learnt = evolve(plan.probe, open=still)
    return evolve(plan, probe=learnt, stop=len(plan.probe.events) - 1, share=1.0)


def _differing(plan: Plan, prompts: Sequence[Tensor]) -> HookPoint | None:
    """The first hook point that has other rows than in a plain pass over prompt and text."""
    tokens, held = _generated(plan, prompts)
    points = list(plan.probe.seen)
    for number, ids in enumerate(tokens.ids):
        feed = plan.feed
        assert isinstance(feed, TokenFeed)
        plain = run_once(plan.model, points, feed.unpadded(torch.from_numpy(ids)[None]))
        for point in points:
            layout = plan.probe.seen[point].layout
            for call, tensor in enumerate(plain[point]):
                expected = layout.rows(tensor, 1, len(ids))
                rows = join(held[point][call], layout, tokens)
                rows = rows.reshape(*tokens.flat.shape, *rows.shape[1:])[number, : len(ids)]
                if layout.ragged:
                    rows = rows[..., : len(ids)]
                moved = distance(expected, rows, scale(expected))
                if differs(moved, 0.0, tensor.dtype):
                    return point
    return None


def _generated(plan: Plan, prompts: Sequence[Tensor]) -> tuple[Arranged, Rows]:
    generator = Generator(
        plan, Pass(plan, Outcome.of(plan, 1)), {"max_new_tokens": _NEW, "min_new_tokens": _NEW}
    )
    contexts = [
        Context(
            ids.numpy(),
            np.zeros(len(ids), np.bool_),
            np.zeros(len(ids), np.int64),
            (Sample(number, "", {}),),
        )
        for number, ids in enumerate(prompts)
    ]
    with generator.attached():
        output = generator.feed(contexts)
    stretch = generator.follower.stretch
    assert stretch is not None
    held: Rows = {}
    for point, chunks in generator.follower.held.joined():
        held.setdefault(point, []).append(chunks)
    return stretch.arranged(output), held


def _not_equal(plan: Plan, point: HookPoint) -> Diagnostic:
    message = f"{describe(plan.model, point)} computes otherwise while the model generates than in "
    message += "a plain pass, so that its rows are not those of the text"
    help = "run the texts that it wrote as data, without `during generate`"
    return Diagnostic("generation-differs", message, help=help)
