"""The rule `prefixes`: what many samples begin with (a system prompt, examples) is run once.

Their rows of it are one sample's rows, counted for each; what comes behind it is run with the
prefix in the model's key-value cache. Only where the model is causal and was seen to compute with
the cache what it computes without.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Hashable, Sequence
from typing import Any
from weakref import WeakKeyDictionary

import numpy as np
import torch

from hookql.data.batch import Feeding, Ints
from hookql.data.cutting import Fed, Shared
from hookql.engines.cached import continued, empty_cache
from hookql.models.feed import TokenFeed, forward_names
from hookql.models.hooks import observing
from hookql.models.mixing import Mixing, differs, distance, scale
from hookql.models.probe import Probe
from hookql.models.trial import Held, leaving_early, run_once
from hookql.optimizer.duplicates import feeds_part
from hookql.optimizer.rows import knows_no_later
from hookql.plan import Plan

SHORTEST = 32  # tokens: below it is hardly worth a pass of its own
_TRIED: WeakKeyDictionary[Probe, bool] = WeakKeyDictionary()
DEEPEST = 40  # prefixes of prefixes that are looked into


def shares(plan: Plan, tokens: int, group: Callable[[int], Hashable]) -> Shared | None:
    """What finds prefixes; None where nothing may share one.

    A prefix must spare more than ``tokens``, those of a batch; it is of one ``group`` of lengths
    with all that goes on from it.
    """
    return (lambda fed: _found(fed, tokens, group)) if continues(plan) else None


def continues(plan: Plan) -> bool:
    """Whether this model's rows can be computed from a cache, as far as small inputs show."""
    feed, model = plan.feed, plan.model
    if "prefixes" not in plan.rules or not feeds_part(plan) or plan.probe.open:
        return False
    assert isinstance(feed, TokenFeed)
    names = forward_names(model.module)
    if not {"past_key_values", "position_ids", "use_cache"} <= names or _windowed(model.module):
        return False
    seen = plan.probe.seen
    if plan.probe.mixing is not Mixing.NONE or any(info.layout.ragged for info in seen.values()):
        return False
    if any(info.calls != 1 or info.layout.batch is None for info in seen.values()):
        return False
    if plan.probe not in _TRIED:
        _TRIED[plan.probe] = knows_no_later(plan) and _tried(plan, feed)
    return _TRIED[plan.probe]


def saves(plan: Plan) -> str | None:
    """What the rule saves, in words."""
    if not continues(plan):
        return None
    return f"what many samples begin with, {SHORTEST} tokens or more, runs once"


def _windowed(module: torch.nn.Module) -> bool:
    """Whether some layer looks back only so far: small inputs would not show how it caches that."""
    config: Any = getattr(module, "config", None)
    text = config.get_text_config(decoder=True) if hasattr(config, "get_text_config") else config
    kinds = getattr(text, "layer_types", None) or ()
    window = getattr(text, "sliding_window", None) or getattr(text, "attention_chunk_size", None)
    return any(kind != "full_attention" for kind in kinds) or (not kinds and bool(window))


def _tried(plan: Plan, feed: TokenFeed) -> bool:
    """Whether two samples that go on from a prefix are as they are when run whole.

    Once with one of them shorter, and then, from the same cache, without padding: models take other
    ways where nothing is masked.
    """
    longest = max(feed.sizes(), key=lambda each: each.positions).positions
    if longest < 6:
        return False
    start, points = longest // 2, list(plan.probe.seen)
    ids = feed.random_ids(2, longest)
    ids[1, :start] = ids[0, :start]
    padded = torch.arange(longest)[None] < torch.tensor([longest, longest - 2])[:, None]
    prefix = ids[0, :start].numpy()
    try:
        with observing(plan.model.module), leaving_early(points, plan.probe.events):
            cache = empty_cache(plan.model.module)
            first = feed.unpadded(ids[:1, :start])
            run_once(plan.model, points, {**first, "use_cache": True, "past_key_values": cache})
            if cache.get_seq_length() != start:
                return False
            for mask in (padded, torch.ones_like(padded)):
                whole = run_once(plan.model, points, feed.inputs(ids, mask))
                rest, real = ids[:, start:], mask[:, start:]
                behind = Feeding(rest.numpy(), real.numpy(), np.arange(2), prefix)
                inputs = continued(feed.inputs(rest, real), cache, behind)
                parts = run_once(plan.model, points, inputs)
                if not _agree(plan, mask, start, whole, parts):
                    return False
    except Exception:  # whatever keeps a cache from being used here: then it is not
        return False
    return True


def _agree(plan: Plan, mask: torch.Tensor, start: int, whole: Held, parts: Held) -> bool:
    """Whether the rows behind a prefix are the same at every hook point."""
    longest, real = mask.shape[1], mask[:, start:]
    for point, info in plan.probe.seen.items():
        a = info.layout.rows(whole[point][0], 2, longest)
        b = info.layout.rows(parts[point][0], 2, longest - start)
        a, b = (rows.reshape(2, -1, *rows.shape[1:]) for rows in (a, b))
        if differs(distance(a[:, start:][real], b[real], scale(a[mask])), 0.0, a.dtype):
            return False
    return True


def _found(
    fed: Sequence[Fed], tokens: int, group: Callable[[int], Hashable]
) -> tuple[list[tuple[Ints, list[Fed]]], list[Fed]]:
    """Prefixes that are worth it with what goes on from each, and the rest."""
    if len(fed) < 3:
        return [], list(fed)
    ordered = sorted(fed, key=lambda each: _key(each))
    ids = [each.contexts[0].ids[: each.end] for each in ordered]
    common = [_common(a, b) for a, b in itertools.pairwise(ids)]
    together: list[tuple[Ints, list[Fed]]] = []
    taken: set[int] = set()
    for first, last, length in _best(common, [len(each) for each in ids], tokens):
        members = ordered[first:last]
        if any(group(each.end) != group(length) for each in members):
            continue
        taken.update(range(first, last))
        prefix = ids[first][:length].astype(np.int64)
        together.append((prefix, sorted(members, key=lambda each: -each.end)))
    shared = {id(ordered[number]) for number in taken}
    return together, [each for each in fed if id(each) not in shared]


def _key(fed: Fed) -> bytes:
    """Bytes in whose order common beginnings lie side by side."""
    return fed.contexts[0].ids[: fed.end].astype(">i8").tobytes()


def _common(a: Ints, b: Ints) -> int:
    """How many tokens two contexts begin with in common."""
    width = min(len(a), len(b))
    other = np.flatnonzero(a[:width] != b[:width])
    return int(other[0]) if len(other) else width


def _best(common: Sequence[int], ends: Sequence[int], tokens: int) -> list[tuple[int, int, int]]:
    """Runs of neighbours, (first, last, prefix's length), that spare the most tokens together.

    Of each run with a common beginning, either all of it or what is best of its parts. The prefix
    is run twice, for its rows and for the cache, and each sample is left a token to be fed.
    """
    found: list[tuple[int, int, int]] = []
    start = 0
    for place in range(len(common) + 1):
        if place == len(common) or common[place] < SHORTEST:
            if place - start + 1 >= 3:
                found += _of_run(common, ends, start, place + 1, tokens, DEEPEST)[1]
            start = place + 1
    return found


def _of_run(
    common: Sequence[int], ends: Sequence[int], first: int, last: int, tokens: int, depth: int
) -> tuple[int, list[tuple[int, int, int]]]:
    """The tokens that the best choice within a run spares, and the choice."""
    if last - first < 3:
        return 0, []
    least = min(common[first : last - 1])
    length = min(least, min(ends[first:last]) - 1)
    whole = length * (last - first - 2)
    best = (whole, [(first, last, length)])
    if length < SHORTEST or whole <= tokens:
        best = (0, [])
    spared, start = 0, first
    parts: list[tuple[int, int, int]] = []
    if depth and max(common[first : last - 1]) > least:
        for place in range(first, last):
            if place == last - 1 or common[place] == least:
                more, chosen = _of_run(common, ends, start, place + 1, tokens, depth - 1)
                spared, parts, start = spared + more, parts + chosen, place + 1
    return best if best[0] >= spared else (spared, parts)
