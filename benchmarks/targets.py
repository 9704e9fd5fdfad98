"""`python -m benchmarks.targets`: what HookQL's own batching costs beside the bare forward pass.

The bare pass runs the same texts, tokenised beforehand, in batches of 16: sorted by length, and in
natural order, the way people write it. HookQL is `hookql.run` from texts to numbers, its looking at
the model and its tokenising included. Ratios of interleaved rounds, limits beside them.
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
import transformers

import hookql
from benchmarks.peers import models
from benchmarks.peers.corpora import SIZES, corpora
from benchmarks.peers.worker import resident, settle
from benchmarks.ratios import ALL, CARD, TWO, compared, row

RAW = "capture values from transformer.h[6]"
TOP = "capture top(x, k=10) from transformer.h[6].mlp.act"
# Query, its limit beside the sorted pass, and beside the one in natural order where there is one.
LIMITS = (
    (CARD, 0.26, 0.13),
    (ALL, 0.57, 0.29),
    (RAW, 0.40, None),
    (TOP, 0.38, None),
    (TWO, 0.10, None),
)
HALF = ((CARD, 0.10), (ALL, 0.22))
MEGABYTES = 100


def encoded(tokenizer: Any, texts: list[str], by_length: bool) -> list[Any]:
    """Batches of 16, padded on the right."""
    ids = tokenizer(texts)["input_ids"]
    ids = sorted(ids, key=len) if by_length else ids
    return [
        tokenizer.pad({"input_ids": ids[start : start + 16]}, return_tensors="pt")
        for start in range(0, len(ids), 16)
    ]


def main() -> None:
    """The command line of this benchmark."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--texts", type=int, default=256)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    transformers.logging.set_verbosity_error()
    folder = models.folder("gpt2", Path(__file__).parent.parent / ".cache" / "peers")
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    module = transformers.AutoModelForCausalLM.from_pretrained(folder).eval()
    half = transformers.AutoModelForCausalLM.from_pretrained(folder, dtype=torch.bfloat16).eval()
    texts = corpora(tokenizer, {**SIZES, "plain": options.texts, "rare": 0})["plain"]

    def bare(by_length: bool) -> Callable[[], object]:
        work = encoded(tokenizer, texts, by_length)

        def whole() -> None:
            with torch.no_grad():
                for batch in work:
                    module(**batch)

        return whole

    def query(text: str, model: Any = module) -> Callable[[], object]:
        def ours() -> object:
            with tempfile.TemporaryDirectory() as out:
                where = {"output": Path(out) / "rows.nc"} if text == RAW else {}
                return hookql.run(text, model=model, tokenizer=tokenizer, texts=texts, **where)

        return ours

    asked = [query(text) for text, *_ in LIMITS] + [query(text, half) for text, _ in HALF]
    seconds = compared([bare(True), bare(False), *asked], options.repeats)
    by_length, natural, *ours = seconds
    print(f"{options.texts} texts, {options.threads} threads, torch {torch.__version__}")
    print("ratio to the bare forward pass, LM head included, batches of 16 sorted by length")
    for (text, limit, _), mine in zip(LIMITS, ours, strict=False):
        print(row(text.removeprefix("capture ")[:57], limit, mine, by_length))
    for (text, limit), mine in zip(HALF, ours[len(LIMITS) :], strict=True):
        print(row(f"bfloat16: {text.removeprefix('capture ')}"[:57], limit, mine, by_length))
    print("the same, batches of 16 in natural order")
    for (text, _, limit), mine in zip(LIMITS, ours, strict=False):
        if limit is not None:
            print(row(text.removeprefix("capture ")[:57], limit, mine, natural))
    print("peak memory above the model, MB")
    for (text, *_), again in zip(LIMITS, asked, strict=False):
        before = settle()
        again()
        above = (resident("VmHWM") - before) / 1024
        verdict = "ok" if above <= MEGABYTES else "OVER"
        print(
            f"{text.removeprefix('capture ')[:57]:<58} {above:6.0f}  at most {MEGABYTES}  {verdict}"
        )


if __name__ == "__main__":
    main()
