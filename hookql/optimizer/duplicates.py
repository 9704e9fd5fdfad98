"""The rule `duplicates`: samples that are the same to the model run once, and each counts.

Their rows are taken as often as there are samples, each with its own place in the data: so it does
not matter what tells them apart, labels or numbers of samples.
"""

from __future__ import annotations

from hookql.models.feed import TokenFeed
from hookql.plan import Plan


def merges(plan: Plan) -> bool:
    """Whether contexts of equal tokens are fed to the model once."""
    return "duplicates" in plan.rules and feeds_part(plan)


def feeds_part(plan: Plan) -> bool:
    """Whether the engine can feed less than a batch has.

    Not where the model writes, nor where the whole batch's prediction is read, nor where a decoder
    has rows of its own.
    """
    feed = plan.feed
    plain = isinstance(feed, TokenFeed) and not feed.is_encoder_decoder and not feed.live
    return plain and plan.query.generation is None and plan.logits is None


def saves(plan: Plan) -> str | None:
    """What the rule saves, in words."""
    return "samples of equal tokens run once in each window" if merges(plan) else None
