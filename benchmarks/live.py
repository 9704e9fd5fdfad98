"""What a live plan costs around a user's own `generate`: `python -m benchmarks.live`.

A GPT-2 of real size with random weights continues batches of prompts greedily, with its cache. The
same calls run on the model and on a copy that shares its weights, the one looked at by a plan, the
other not, in turn batch by batch; a ratio is of a whole repeat.
"""

from __future__ import annotations

import argparse
import copy
import time

import numpy as np
import torch
import transformers

import hookql
from benchmarks.ratios import contexts, row
from hookql.engines.generating import left_padded

QUERIES = (
    ("capture mean, std from transformer.h[*]", 1.05),
    ("capture mean, std from transformer.h[*] by phase", 1.05),
    ("capture mean, std from transformer.h[*], transformer.h[*].attn, transformer.h[*].mlp", 1.10),
)


def prompts(batches: int, rows: int) -> list[dict[str, torch.Tensor]]:
    """Batches of left-padded prompts of 8 to 64 random tokens."""
    drawn = [context for context in contexts(batches * rows * 4) if len(context.ids) <= 64]
    made = []
    for number in range(batches):
        ids, mask = left_padded(drawn[number * rows : (number + 1) * rows], 50256)
        made.append(
            {
                "input_ids": torch.from_numpy(ids),
                "attention_mask": torch.from_numpy(mask.astype(np.int64)),
            }
        )
    return made


def main() -> None:
    """The command line of this benchmark."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--batches", type=int, default=6)
    parser.add_argument("--rows", type=int, default=8)
    parser.add_argument("--new", type=int, default=32)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    torch.manual_seed(0)
    module = transformers.GPT2LMHeadModel(transformers.GPT2Config()).eval()
    shared = {id(tensor): tensor for tensor in (*module.parameters(), *module.buffers())}
    bare = copy.deepcopy(module, shared)
    work = prompts(options.batches, options.rows)
    given = {"max_new_tokens": options.new, "do_sample": False, "pad_token_id": 50256}
    print(
        f"{options.batches} batches of {options.rows} prompts of 8 to 64 tokens, {options.new} new "
        f"each, {options.threads} threads, torch {torch.__version__}"
    )
    print(f"{'a live plan around generate: ratio to the bare generate':<58} median")
    for query, limit in QUERIES:
        ours, theirs = [], []
        plan = hookql.compile(query).bind(module)
        for repeat in range(options.repeats + 1):
            with_plan = without = 0.0
            with plan:
                for number, inputs in enumerate(work):
                    for mine in (True, False) if (number + repeat) % 2 else (False, True):
                        started = time.perf_counter()
                        (module if mine else bare).generate(**inputs, **given)
                        spent = time.perf_counter() - started
                        with_plan, without = with_plan + spent * mine, without + spent * (not mine)
            if repeat:  # the first warms up
                ours.append(with_plan)
                theirs.append(without)
        print(row(query.removeprefix("capture ")[:57], limit, ours, theirs), flush=True)


if __name__ == "__main__":
    main()
