"""How large a run's batches are: what the user, a checkpoint or a measurement says."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from attrs import evolve

from hookql.checkpoint import begun
from hookql.checkpoint.manifest import read
from hookql.data.batches import batches
from hookql.data.encode import Context
from hookql.errors import HookQLError
from hookql.optimizer.budget import can_measure, found, least
from hookql.optimizer.duplicates import merges
from hookql.optimizer.rows import ends
from hookql.options import RunOptions
from hookql.plan import Plan
from hookql.source import TextSource
from hookql.work import Source

# So many samples tell how long the others are, and how many of them will run.
_SAMPLES = 256


def with_budget(plan: Plan, source: Source, options: RunOptions) -> Plan:
    """The plan with the tokens of a batch, where they are not the usual ones.

    A run that is resumed goes on with what it was begun with, whatever was measured since.
    """
    if options.get("tokens_per_batch") is not None:
        return plan
    folder = options.get("checkpoint")
    if folder is not None and options.get("resume") and begun(Path(folder)):
        return evolve(plan, tokens_per_batch=_begun_with(Path(folder)))
    wanted = "budget" in plan.rules and options.get("batch_size") is None
    if wanted and can_measure(plan) and _pays(plan, source):
        return evolve(plan, tokens_per_batch=found(plan))
    return plan


def _begun_with(folder: Path) -> int | None:
    """What a checkpoint says; of a damaged one nothing, which opening it will tell."""
    try:
        manifest = read(folder)
    except HookQLError:
        return None
    tokens = None if manifest is None else manifest.identity.get("tokens per batch")
    return tokens if type(tokens) is int and tokens > 0 else None


def _pays(plan: Plan, source: Source) -> bool:
    """Whether a run is so long that measuring is next to nothing, as far as its beginning tells."""
    if not isinstance(source, TextSource) or not source.reads_again or source.total is None:
        return False
    needed, total = least(plan.model.device.type), source.total
    if total <= _SAMPLES or total * source.width < needed:
        return False
    try:
        tokens = _run_of(plan, source.first(plan, _SAMPLES))
    except Exception:
        return False  # the run will come to it, and say what it is
    return tokens * total >= needed * _SAMPLES


def _run_of(plan: Plan, contexts: Sequence[Context]) -> int:
    """How many tokens of contexts will enter the model: what its rules leave of them."""
    wanted, once = ends(plan), merges(plan)
    known: set[bytes] = set()
    tokens = 0
    for batch in batches(contexts, tokens_per_batch=4096):
        found = batch.length if wanted is None else wanted(batch)
        for ids, end in zip(batch.ids, found, strict=True):
            fed = ids[:end].tobytes()
            tokens += 0 if once and fed in known else int(end)
            known.add(fed)
    return tokens
