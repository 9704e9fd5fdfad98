"""The rule `rows`: what no row is wanted of does not enter the model.

A sample none of whose tokens a mask keeps is left out. Where the model is causal, the others are
cut behind the last token that some mask keeps: what stands there changes no row before it. That is
not taken from the model's name but shown, on the model at hand, by changing and cutting the ends
of small inputs.
"""

from __future__ import annotations

from weakref import WeakKeyDictionary

import numpy as np
import numpy.typing as npt

from hookql.data.batch import Batch
from hookql.data.cutting import Ends
from hookql.errors import ModelError
from hookql.models.cutting import may_be_cut
from hookql.models.feed import TokenFeed
from hookql.models.probe import Probe
from hookql.optimizer.duplicates import feeds_part
from hookql.plan import Plan
from hookql.predicates.evaluate import Predicate

_LOOKED: WeakKeyDictionary[Probe, bool] = WeakKeyDictionary()


def ends(plan: Plan, alone: bool = False) -> Ends | None:
    """How many tokens of each context are needed; None where all of all are.

    ``alone``: whole contexts only.
    """
    masks = token_masks(plan)
    if masks is None:
        return None
    cut = not alone and cuts(plan)

    def ends_of(batch: Batch) -> npt.NDArray[np.int64]:
        last = np.zeros(len(batch.contexts), np.int64)
        for mask, stream in masks:
            of_stream = batch.target if stream == "target" else batch
            if of_stream is None:
                continue
            kept = mask(of_stream)[0]
            place = np.where(kept, np.arange(1, kept.shape[1] + 1), 0).max(axis=1, initial=0)
            last = np.maximum(last, place if cut else np.where(place, batch.length, 0))
        return last

    return ends_of


def token_masks(plan: Plan) -> list[tuple[Predicate, str]] | None:
    """The plan's masks with their streams, if tokens alone decide about each; else None."""
    if "rows" not in plan.rules or not isinstance(plan.feed, TokenFeed):
        return None
    if plan.query.generation is not None or plan.feed.live:
        return None
    found = []
    for number, predicate in enumerate(plan.predicates):
        if predicate is None or predicate.signals or predicate.values:
            return None
        found.append((predicate, plan.selectors[number].stream))
    return found


def cuts(plan: Plan) -> bool:
    """Whether contexts may be cut behind their last wanted token."""
    if token_masks(plan) is None or not feeds_part(plan) or plan.probe.open:
        return False
    return knows_no_later(plan)


def knows_no_later(plan: Plan) -> bool:
    """Whether no hook point's rows know a later token; looked at once for a probe."""
    if plan.probe not in _LOOKED:
        assert isinstance(plan.feed, TokenFeed)
        try:
            found = may_be_cut(plan.model, plan.feed, plan.probe.seen, plan.probe.events)
        except ModelError:  # it cannot run so short an input
            found = False
        _LOOKED[plan.probe] = found
    return _LOOKED[plan.probe]


def saves(plan: Plan) -> str | None:
    """What the rule saves, in words."""
    if token_masks(plan) is None:
        return None
    if cuts(plan):
        return "samples with no token wanted do not run, others only up to their last wanted token"
    if plan.probe.open:
        return "samples with no token wanted do not run"
    return "samples with no token wanted do not run, others run whole"
