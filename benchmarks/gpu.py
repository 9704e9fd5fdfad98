"""`python -m benchmarks.gpu`: what a query costs on a GPU, and whether it ever waits for it.

Three checks, on a GPT-2 of real size with random weights at 8,192 tokens a batch: mean and std of
all sites beside the same forward pass, truncated (at most 1.05); nothing read back inside the loop,
as torch's profiler sees it; raw capture to the host beside the same pass (at most 1.10).
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from collections import Counter
from pathlib import Path

import torch
import transformers

import hookql
from benchmarks.ratios import (
    ALL,
    Work,
    compared,
    contexts,
    prepared,
    row,
    truncated,
)
from hookql.api import parse_query
from hookql.binding import bind
from hookql.data.batches import batches
from hookql.engines.local import run
from hookql.models.feed import TokenFeed
from hookql.models.load import Model, wrap_model
from hookql.plan import Plan

RAW = "capture values from transformer.h[6]"
TOKENS = 8192
# What makes the host wait for the device, by the names that torch's profiler has for it.
WAITING = (
    "cudaStreamSynchronize",
    "cudaDeviceSynchronize",
    "cudaEventSynchronize",
    "Memcpy DtoH",
    "aten::item",
    "aten::_local_scalar_dense",
    "aten::nonzero",
)


def prepare(samples: int = 2000) -> tuple[Model, TokenFeed, Work]:
    """The model on the GPU, and batches whose inputs are there already."""
    torch.manual_seed(0)
    module = transformers.GPT2LMHeadModel(transformers.GPT2Config()).eval().cuda()
    model = wrap_model(module, name="GPT2Config()")
    feed = TokenFeed(model)
    cut = batches(contexts(samples), tokens_per_batch=TOKENS)
    return model, feed, [(batch, feed.for_batch(batch)) for batch in cut]


def looks_back(query: str = ALL, samples: int = 800) -> dict[str, int]:
    """How often each thing that waits for the device came inside the loop; empty: never."""
    model, feed, work = prepare(samples)
    plan = bind(parse_query(query), model, feed)
    run(plan, prepared(work), width=1024)  # memory, kernels and indices are there afterwards
    torch.cuda.synchronize()
    kinds = [torch.profiler.ProfilerActivity.CPU, torch.profiler.ProfilerActivity.CUDA]
    with torch.profiler.profile(activities=kinds) as profile:
        run(plan, prepared(work), width=1024)
        with torch.profiler.record_function("behind the loop"):
            pass
    found: Counter[str] = Counter()
    events = list(profile.events() or ())
    end = min(e.time_range.start for e in events if e.name == "behind the loop")
    for event in events:
        if event.time_range.start < end and event.name.startswith(WAITING):
            found[event.name] += 1
    return dict(found)


def beside_truncated(plan: Plan, work: Work, repeats: int) -> tuple[list[float], list[float]]:
    """Seconds of a query's runs, and of the same passes without detectors."""

    def ours() -> None:
        run(plan, prepared(work), width=1024)
        torch.cuda.synchronize()

    def theirs() -> None:
        truncated(plan, work, plan.model.module)
        torch.cuda.synchronize()

    ours_s, theirs_s = compared([ours, theirs], repeats)
    return ours_s, theirs_s


def raw(model: Model, repeats: int) -> tuple[list[float], list[float]]:
    """Seconds of a raw capture into a file, and of the mean of the same site over the same data."""
    ids = [list(map(int, context.ids)) for context in contexts(2000)]
    width = max(map(len, ids))
    inputs = {
        "input_ids": torch.tensor([one + [0] * (width - len(one)) for one in ids]),
        "attention_mask": torch.tensor([[1] * len(one) + [0] * (width - len(one)) for one in ids]),
    }
    with tempfile.TemporaryDirectory() as folder:

        def once(query: str) -> None:
            hookql.run(
                query,
                model=model,
                inputs=inputs,
                tokens_per_batch=TOKENS,
                output=Path(folder) / "raw.nc",
                overwrite=True,
                progress=False,
            )

        ours, theirs = compared(
            [lambda: once(RAW), lambda: once("capture count from transformer.h[6]")], repeats
        )
    return ours, theirs


def main() -> int:
    """The command line of this benchmark; 1 where something is over, 0 also without a GPU."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--repeats", type=int, default=7)
    options = parser.parse_args()
    transformers.logging.set_verbosity_error()
    if not torch.cuda.is_available():
        print("there is no GPU here: nothing was measured, and nothing is shown by this")
        return 0
    print(f"{torch.cuda.get_device_name()}, torch {torch.__version__}, {TOKENS} tokens a batch")
    model, feed, work = prepare()
    lines = [
        row(
            "mean and std of all sites, to the pass truncated",
            1.05,
            *beside_truncated(bind(parse_query(ALL), model, feed), work, options.repeats),
        ),
        row("raw middle layer to a file, to its count", 1.10, *raw(model, options.repeats)),
    ]
    found = looks_back()
    said = ", ".join(f"{name} {count}x" for name, count in found.items()) or "nothing"
    lines.append(f"read back or waited for inside the loop: {said}  {'OVER' if found else 'ok'}")
    print("\n".join(lines))
    return int(any("OVER" in line for line in lines))


if __name__ == "__main__":
    sys.exit(main())
