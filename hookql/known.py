"""What small inputs showed of a model, remembered while it is the same model to the last byte.

Many queries are asked of one model in memory, and some twice. Trying it out takes as long as some
hundred tokens; whether anything of it was touched since is seen at the speed of memory.
"""

from __future__ import annotations

from collections.abc import Sequence
from weakref import WeakKeyDictionary

from torch import nn

from hookql.models.feed import Feed, TokenFeed
from hookql.models.load import Model
from hookql.models.ports import HookPoint
from hookql.models.probe import Probe, probe
from hookql.stored.arithmetic import arithmetic
from hookql.stored.modules import state_in_memory
from hookql.stored.telling import Strange

_MOST = 64  # probes of a model
_Key = tuple[object, ...]
_KNOWN: WeakKeyDictionary[nn.Module, dict[_Key, Probe]] = WeakKeyDictionary()


def known_or_probed(model: Model, points: Sequence[HookPoint], feed: Feed) -> Probe:
    """What `probe` says, which is run only where it was not asked the same before.

    A model of which nobody can say whether it is the same (one with hooks of the user's, or of the
    user's own classes) is tried out each time.
    """
    key = _key(model, points, feed)
    if key is None:
        return probe(model, points, feed)
    probes = _KNOWN.setdefault(model.module, {})
    if key not in probes:
        found = probe(model, points, feed)
        if len(probes) >= _MOST:
            probes.clear()
        probes[key] = found
    return probes[key]


def _key(model: Model, points: Sequence[HookPoint], feed: Feed) -> _Key | None:
    """All that a probe depends on; None where that cannot be told."""
    if type(feed) is not TokenFeed or model.part is not None:
        return None
    try:
        state = state_in_memory(model.module)
    except Strange:
        return None
    of_model = (model.dtype, str(model.device), model.attn, model.context, model.autocast)
    return state, *of_model, arithmetic(model.device), feed.facts, tuple(points)
