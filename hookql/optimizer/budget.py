"""The rule `budget`: how many tokens a batch holds, found by measuring on this machine.

What is quickest depends on the model and the machine, never on the data: it is measured once, on
made-up tokens, and remembered, so that two runs cut the same batches and give equal results, bit
for bit. Whether a run measures depends on the data alone, so that it does not matter which of two
runs came first. A short run, which measuring would lengthen, keeps the usual numbers.
"""

from __future__ import annotations

import contextlib
import os
import platform
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from hookql.data.batches import batches
from hookql.data.encode import Context
from hookql.data.samples import Sample
from hookql.detectors import out_of_memory
from hookql.models.feed import TokenFeed
from hookql.models.hooks import StopForward, hooked, leaving, observing
from hookql.models.identity import architecture
from hookql.models.mixing import Mixing
from hookql.optimizer.remembered import recalled, remember
from hookql.plan import Plan

Measure = Callable[[int], float]
"""The seconds that the same tokens take in batches of so many. Raises what the model raises."""

# Cost follows padded tokens: a CPU is fastest on short batches, a GPU wants long ones.
_USUAL = {"cpu": 512, "cuda": 8192}
_TRIED: Mapping[str, tuple[int, ...]] = {
    "cpu": (256, 512, 1024, 2048),
    "cuda": (4096, 8192, 16384, 32768),
}
_LENGTH = 32  # tokens of a sample that is measured: about a sentence
_REPEATS = 5
_SHARE = 50  # a run measures where it has this many times the work
_ALIKE = 1.03  # the smallest batch is taken of those that are as quick as this


def usual(device: str) -> int:
    """The tokens of a batch where nobody measures."""
    return _USUAL.get(device, _USUAL["cpu"])


def least(device: str) -> int:
    """How many tokens a run must have to measure: so many that it takes less than 2 % of it."""
    tried = _TRIED.get(device, ())
    return _SHARE * len(tried) * (_REPEATS + 1) * max(tried, default=0)


def can_measure(plan: Plan) -> bool:
    """Whether the size of batches matters for a plan, and can be measured without its data."""
    return (
        plan.model.device.type in _TRIED
        and isinstance(plan.feed, TokenFeed)
        and not plan.feed.has_target
        and plan.query.generation is None
        and plan.probe.mixing is not Mixing.SAMPLES
    )


def known(plan: Plan) -> int | None:
    """What was measured for a plan like this on this machine; None where nothing was."""
    found = recalled("budget", _key(plan)) if can_measure(plan) else None
    return None if found is None else _sound(found, plan.model.device.type)


def found(plan: Plan, measure: Measure | None = None) -> int:
    """The tokens of a batch that are quickest for a plan, remembered or measured now.

    Only for a plan that `can_measure`. Where the model fails, the usual ones.
    """
    if (before := known(plan)) is not None:
        return before
    device = plan.model.device.type
    seconds = timed(measure or passes(plan), _TRIED[device])
    if not seconds:
        return usual(device)
    fast = quickest(seconds)
    facts = {"tokens_per_batch": fast, "seconds": {str(b): s for b, s in seconds.items()}}
    return _sound(remember("budget", _key(plan), facts), device) or fast


def timed(measure: Measure, budgets: Sequence[int], repeats: int = _REPEATS) -> dict[int, float]:
    """The seconds of each budget, the least of several interleaved repeats.

    The least, for what else the machine does only ever adds. A budget for which memory does not
    suffice is left out with those above it; nothing is left where the model fails otherwise.
    """
    seconds: dict[int, list[float]] = {budget: [] for budget in sorted(budgets)}
    for repeat in range(repeats + 1):
        for budget in sorted(seconds, reverse=bool(repeat % 2)):
            if budget not in seconds:
                continue
            try:
                took = measure(budget)
            except Exception as error:
                if not out_of_memory(error):
                    return {}
                seconds = {b: times for b, times in seconds.items() if b < budget}
            else:
                if repeat:  # the first is to warm up
                    seconds[budget].append(took)
    return {budget: min(times) for budget, times in seconds.items() if times}


def quickest(seconds: Mapping[int, float]) -> int:
    """The smallest budget that is as quick as the quickest, or nearly: small ones save memory."""
    best = min(seconds.values())
    return min(budget for budget, took in seconds.items() if took <= best * _ALIKE)


def passes(plan: Plan, clock: Callable[[], float] = time.perf_counter) -> Measure:
    """Measures the truncated pass with its hooks, which do nothing, on made-up tokens."""
    feed, module, device = plan.feed, plan.model.module, plan.model.device
    assert isinstance(feed, TokenFeed)
    contexts = _contexts(feed, max(_TRIED[device.type]), plan.model.context or _LENGTH)

    def measure(budget: int) -> float:
        work = list(batches(contexts, tokens_per_batch=budget, pad_id=feed.pad_id))
        taps = dict.fromkeys(plan.points, lambda tensor: None)
        with (
            observing(module),
            hooked(module, taps, lambda point, error: None),
            leaving(module, plan.leave, lambda: True),
        ):
            _wait(device)
            started = clock()
            for batch in work:
                with contextlib.suppress(StopForward):
                    module(**feed.for_batch(batch))
            _wait(device)
            return clock() - started

    return measure


def saves(plan: Plan) -> str | None:
    """What the rule does for a plan, in words; None where it does nothing."""
    if not can_measure(plan):
        return None
    device = plan.model.device.type
    facts = recalled("budget", _key(plan))
    tokens = None if facts is None else _sound(facts, device)
    runs = f"runs of {least(device) / 1e6:,.0f} million tokens or more"
    if facts is None or tokens is None:
        return f"{runs} measure which batches are fastest; others take {usual(device):,} tokens"
    said = f"{runs} take batches of {tokens:,} tokens, as measured on this machine"
    with contextlib.suppress(AttributeError, KeyError, TypeError, ZeroDivisionError):
        gain = facts["seconds"][str(usual(device))] / facts["seconds"][str(tokens)]
        if tokens != usual(device):
            said += f": {gain:.2f} times as fast as {usual(device):,}"
    return said


def _contexts(feed: TokenFeed, tokens: int, context: int) -> list[Context]:
    """So many made-up tokens in contexts of ordinary length."""
    length = max(1, min(_LENGTH, context))
    return [
        Context(row, np.zeros(length, np.bool_), np.zeros(length, np.int64), (Sample(i, "", {}),))
        for i, row in enumerate(feed.random_ids(tokens // length, length).numpy())
    ]


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def _sound(facts: Mapping[str, Any], device: str) -> int | None:
    tokens = facts.get("tokens_per_batch")
    return tokens if type(tokens) is int and tokens in _TRIED[device] else None


def _key(plan: Plan) -> dict[str, str | int | None]:
    """All that the speed of a batch depends on, the weights' values aside."""
    model, leave = plan.model, plan.leave
    return {
        "architecture": architecture(model.module),
        "dtype": str(model.dtype),
        "device": _device(model.device),
        "attention": model.attn,
        "leaves": "nowhere" if leave is None else " ".join(leave),
        "threads": torch.get_num_threads(),
        "torch": torch.__version__,
        "tried": " ".join(map(str, _TRIED[model.device.type])),
    }


def _device(device: torch.device) -> str:
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    named = platform.processor()
    with contextlib.suppress(OSError):
        lines = Path("/proc/cpuinfo").read_text(errors="replace").splitlines()
        named = next((line for line in lines if line.startswith("model name")), named)
    return f"{platform.machine()} {named.partition(':')[2].strip() or named} {os.cpu_count()}"
