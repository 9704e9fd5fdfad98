"""`make bench`: what a query costs beside the bare forward pass of the same batches.

A GPT-2 of real size with random weights, samples of 8 to 200 tokens (median 36), two threads.
Only ratios of interleaved runs mean anything on a shared machine, so every contestant runs the same
batches in turn, several times over; the median ratio is printed with the range of its middle half.
"""

from __future__ import annotations

import argparse
import contextlib
import copy
import resource
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import torch
import transformers

from hookql.api import parse_query
from hookql.binding import bind
from hookql.data.batches import Batch, batches
from hookql.data.encode import Context
from hookql.data.samples import Sample
from hookql.engines.local import Work as EngineWork
from hookql.engines.local import run
from hookql.models.feed import TokenFeed
from hookql.models.hooks import StopForward, observing
from hookql.models.load import wrap_model
from hookql.plan import Plan

CARD = "capture mean, std from transformer.h[0:6].attn where token != pad"
ALL = "capture mean, std from transformer.h[*], transformer.h[*].attn, transformer.h[*].mlp"
TWO = "capture mean, std from transformer.h[0:2]"
# What the statistics of the whole language may cost beside the same pass, truncated.
HOOKS = (
    (CARD, 1.05),
    (ALL, 1.05),
    (TWO, 1.05),
    ("capture top(x, k=10) from transformer.h[6].mlp.act", 1.05),
    (f"{ALL} by position", 1.10),
    ("capture quantile(x, 0.5, 0.99) from transformer.h[*]", 1.15),
)

Work = list[tuple[Batch, Mapping[str, Any]]]


def lengths(samples: int) -> np.ndarray:
    """English-like lengths: 8 to 200 tokens, median 36."""
    drawn = np.random.default_rng(0).lognormal(np.log(36), 0.8, samples)
    return np.clip(drawn, 8, 200).astype(int)


def contexts(samples: int) -> list[Context]:
    """Random ids of those lengths."""
    rng = np.random.default_rng(1)
    return [
        Context(
            ids=rng.integers(0, 50_000, n),
            special=np.zeros(n, bool),
            owner=np.zeros(n, np.int64),
            samples=(Sample(i, "", {}),),
        )
        for i, n in enumerate(lengths(samples))
    ]


def prepared(work: Work, batches: Iterable[Batch] | None = None) -> EngineWork:
    """Work whose inputs have been made beforehand, the batches in their order or by others."""
    inputs = {id(batch): made for batch, made in work}
    order = (batch for batch, _ in work) if batches is None else batches
    return EngineWork(order, lambda batch: inputs[id(batch)])


def bare(model: torch.nn.Module, work: Work) -> None:
    """Every batch through the whole model, LM head included."""
    with observing(model):
        for _, inputs in work:
            model(**inputs)


def truncated(plan: Plan, work: Work, root: torch.nn.Module) -> None:
    """The same, stopped by an empty hook where the plan stops: all of a query's cost but HookQL."""
    kind, name = plan.probe.events[plan.stop]

    def stop(*_: Any) -> None:
        raise StopForward

    module = root.get_submodule(name)
    hook = module.register_forward_pre_hook if kind == "input" else module.register_forward_hook
    handle = hook(stop)
    try:
        with observing(root):
            for _, inputs in work:
                with contextlib.suppress(StopForward):
                    root(**inputs)
    finally:
        handle.remove()


def compared(contestants: Sequence[Callable[[], object]], repeats: int) -> list[list[float]]:
    """Seconds of each contestant in each repeat, run in turn, their order reversed every time."""
    seconds: list[list[float]] = [[] for _ in contestants]
    for contestant in contestants:
        contestant()
    for repeat in range(repeats):
        order = range(len(contestants))
        for number in order if repeat % 2 else reversed(order):
            started = time.perf_counter()
            contestants[number]()
            seconds[number].append(time.perf_counter() - started)
    return seconds


def row(name: str, limit: float, ours: Sequence[float], theirs: Sequence[float]) -> str:
    """The ratio of two contestants, repeat by repeat."""
    ratios = sorted(a / b for a, b in zip(ours, theirs, strict=True))
    quarter = len(ratios) // 4
    middle = ratios[quarter : len(ratios) - quarter]
    median = statistics.median(ratios)
    verdict = "ok" if median <= limit else "OVER"
    return (
        f"{name:<58} {median:6.3f}  ({middle[0]:.3f} to {middle[-1]:.3f})"
        f"  at most {limit:.2f}  {verdict}"
    )


def speed(repeats: int) -> None:
    """Queries beside the bare forward pass of the same batches."""
    torch.manual_seed(0)
    module = transformers.GPT2LMHeadModel(transformers.GPT2Config()).eval()
    model = wrap_model(module, name="GPT2Config()")
    feed = TokenFeed(model)
    plans = {query: bind(parse_query(query), model, feed) for query in (CARD, ALL, TWO)}
    cut = batches(contexts(96), tokens_per_batch=512)
    work: Work = [(batch, feed.for_batch(batch)) for batch in cut]
    tokens = sum(int(batch.mask.sum()) for batch, _ in work)
    padding = sum(int((~batch.mask).sum()) for batch, _ in work)
    print(
        f"{len(work)} length-sorted batches of at most 512 tokens: {tokens:,} tokens and "
        f"{padding:,} of padding, {torch.get_num_threads()} threads, torch {torch.__version__}\n"
    )

    def hookql(query: str, part: Work) -> Callable[[], object]:
        return lambda: run(plans[query], prepared(part), width=1024)

    seconds = compared(
        [lambda: bare(module, work), *(hookql(query, work) for query in plans)], repeats
    )
    full = seconds[0]
    print(f"bare forward pass: {tokens / statistics.median(full):,.0f} tokens/s")
    print(f"{'ratio to the bare forward pass (LM head included)':<58} median")
    for query, limit, ours in zip(plans, (0.37, 0.80, 0.13), seconds[1:], strict=True):
        print(row(query.removeprefix("capture ")[:57], limit, ours, full))


def hooks(repeats: int, samples: int = 256) -> None:
    """Queries beside the same pass, stopped where they stop, with no detectors in it.

    Each query runs over all batches in order, for the first ones cost the most. The two take turns
    batch by batch, so that what else the machine does falls on both; a ratio is of whole runs.
    """
    torch.manual_seed(0)
    module = transformers.GPT2LMHeadModel(transformers.GPT2Config()).eval()
    model = wrap_model(module, name="GPT2Config()")
    feed = TokenFeed(model)
    cut = batches(contexts(samples), tokens_per_batch=512)
    work: Work = [(batch, feed.for_batch(batch)) for batch in cut]
    print(f"{len(work)} batches of {samples} samples")
    print(f"{'hooks alone: ratio to the same pass, truncated, no detectors':<58} median")
    for query, limit in HOOKS:
        plan = bind(parse_query(query), model, feed)
        truncated(plan, work[:1], module)
        ours, theirs = zip(*(in_turn(plan, work) for _ in range(repeats)), strict=True)
        print(row(query.removeprefix("capture ")[:57], limit, ours, theirs), flush=True)


def in_turn(plan: Plan, work: Work) -> tuple[float, float]:
    """Seconds of one run of a query, and of the bare passes taken between its batches."""
    module = plan.model.module
    shared = {id(tensor): tensor for tensor in (*module.parameters(), *module.buffers())}
    bare_module = copy.deepcopy(module, shared)  # the same weights, without the query's hooks
    spent = 0.0

    def with_bare() -> Iterator[Batch]:
        nonlocal spent
        for number, item in enumerate(work):
            # Whichever comes first warms the caches for the other: now the one, now the other.
            for before in (True, False):
                if before == bool(number % 2):
                    started = time.perf_counter()
                    truncated(plan, [item], bare_module)
                    spent += time.perf_counter() - started
                if before:
                    yield item[0]

    started = time.perf_counter()
    run(plan, prepared(work, with_bare()), width=1024)
    return time.perf_counter() - started - spent, spent


def memory(samples: int) -> None:
    """Run that many samples and print the peak memory of this process in MB."""
    import hookql
    from hookql.demo import model_path, text_path

    module = transformers.GPT2LMHeadModel(transformers.GPT2Config()).eval()
    tokenizer = transformers.AutoTokenizer.from_pretrained(model_path())
    lines = text_path().read_text(encoding="utf-8").splitlines()
    texts = (f"{i} {lines[i % len(lines)][:120]}" for i in range(samples))
    hookql.run(
        "capture mean, std, min, max, top(x, k=10), quantile(x, 0.5, 0.99) "
        "from transformer.h[0].attn",
        model=module,
        tokenizer=tokenizer,
        data=texts,
    )
    print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024)


def peaks(few: int = 200, many: int = 20_000) -> None:
    """Peak memory with few and with many samples, each in a process of its own."""
    found = []
    for samples in (few, many):
        command = [sys.executable, "-m", "benchmarks.ratios", "--memory", str(samples)]
        output = subprocess.run(command, capture_output=True, text=True, check=True).stdout
        found.append(float(output.splitlines()[-1]))
        print(f"peak memory with {samples:>6,} samples: {found[-1]:,.0f} MB", flush=True)
    ratio = found[1] / found[0]
    verdict = "ok" if ratio <= 1.05 else "OVER"
    print(f"ratio {ratio:.3f}, at most 1.05  {verdict}")


def main() -> None:
    """The command line of this benchmark."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--hooks", action="store_true", help="only: what the hooks cost")
    parser.add_argument("--memory", type=int, help="only: peak memory with so many samples")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    transformers.logging.set_verbosity_error()
    if options.memory:
        memory(options.memory)
        return
    if not options.hooks:
        speed(options.repeats)
        print()
    hooks(max(3, options.repeats // 2))
    if not options.hooks:
        print()
        peaks()


if __name__ == "__main__":
    main()
