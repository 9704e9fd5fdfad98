"""Make HookQL's demo model from nothing.

The corpus is the King James Bible (public domain), as Debian's packages carry it:

    apt-get install bible-kjv            # brings bible-kjv-text
    bible -f gen1:1-rev22:21 > bible.txt # a verse a line, after its reference
    python scripts/train_demo.py --corpus bible.txt --out hookql/demo

It trains a byte-level BPE tokenizer and a small GPT-2, measures both against a bigram and a
unigram model on held-out chapters, and writes the model, its card (README.md), its figures
(training.json) and the embedded text file (text.txt) into the folder. One CPU core is enough.

The learning rate is warmed up, held, and let down over the last 40 % of the steps, so a run that
was stopped goes on from `--checkpoint`, and may be given another `--steps` until then, with the
result of one that never stopped.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import math
import platform
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from attrs import asdict
from demo_card import card
from demo_corpus import MODERN, held_out_lines, read_corpus
from demo_measure import BIGRAMS, UNIGRAMS, best_table, measure
from demo_training import (
    BATCH,
    CONTEXT,
    HEADS,
    LAYERS,
    LET_DOWN,
    PEAK,
    SEED,
    VOCABULARY,
    WARMUP,
    WIDTH,
    new_model,
    train,
    train_tokenizer,
    training_stream,
)
from transformers import AutoTokenizer, GPT2LMHeadModel


def save(model: GPT2LMHeadModel, tokenizer: Any, folder: Path) -> None:
    """Write what transformers loads: config.json, model.safetensors and the tokenizer's files."""
    folder.mkdir(parents=True, exist_ok=True)
    model.config.activation_function = "gelu_new"  # the same function, by GPT-2's own name for it
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    (folder / "generation_config.json").unlink(missing_ok=True)  # it says nothing config.json lacks


def write_figures(corpus_file: Path, folder: Path, steps: int, seconds: float) -> None:
    """Measure the saved model and write text.txt, training.json and README.md beside it."""
    corpus = read_corpus(corpus_file, SEED)
    model = GPT2LMHeadModel.from_pretrained(folder, dtype=torch.float32)
    tokenizer: Any = AutoTokenizer.from_pretrained(folder)
    end = tokenizer.eos_token_id

    def encode(texts: Sequence[str]) -> list[list[int]]:
        return list(tokenizer(list(texts), verbose=False).input_ids)

    def documents(texts: Sequence[str]) -> list[list[int]]:
        return [[end, *ids, end] for ids in encode(texts)]

    train, held_out = documents(corpus.train), documents(corpus.held_out)
    development = documents(corpus.development)
    bigrams, bigram_smoothing = best_table(BIGRAMS, train, development, VOCABULARY)
    unigrams, unigram_smoothing = best_table(UNIGRAMS, train, development, VOCABULARY)
    lines = held_out_lines(corpus, SEED)
    text = "\n".join((*lines, *MODERN)) + "\n"
    (folder / "text.txt").write_text(text, encoding="utf-8", newline="\n")
    figures = {
        "corpus": {
            "name": "King James Bible, Debian package bible-kjv-text",
            "licence": "public domain",
            "sha256": hashlib.sha256(corpus_file.read_bytes()).hexdigest(),
            "chapters": {"train": len(corpus.train), "held_out": len(corpus.held_out)},
            "tokens": sum(len(ids) - 1 for ids in train),
        },
        "model": {
            "parameters": model.num_parameters(),
            "layers": LAYERS,
            "heads": HEADS,
            "width": WIDTH,
            "context": CONTEXT,
            "vocabulary": VOCABULARY,
        },
        "training": {
            "seed": SEED,
            "steps": steps,
            "tokens": steps * BATCH * CONTEXT,
            "batch": BATCH,
            "peak_learning_rate": PEAK,
            "warmup": WARMUP,
            "let_down": LET_DOWN,
            "seconds": round(seconds),
            "hardware": "one CPU core",
        },
        "smoothing": {"bigram": bigram_smoothing, "unigram": unigram_smoothing},
        "uniform": math.log(VOCABULARY),
        "held_out": asdict(measure(model, bigrams, unigrams, held_out, CONTEXT)),
        "text": {
            "held_out_lines": len(lines),
            "modern_lines": len(MODERN),
            **asdict(measure(model, bigrams, unigrams, encode(lines), CONTEXT)),
        },
        "versions": {
            "python": platform.python_version(),
            **{name: version(name) for name in ("torch", "transformers", "tokenizers")},
        },
    }
    (folder / "training.json").write_text(json.dumps(figures, indent=2) + "\n", encoding="utf-8")
    sample = write_sample(model, tokenizer)
    size = (folder / "model.safetensors").stat().st_size
    (folder / "README.md").write_text(card(figures, sample, size), encoding="utf-8")
    print(json.dumps(figures, indent=2))


def write_sample(model: Any, tokenizer: Any) -> str:
    """Return a text that the model writes, the same each time."""
    torch.manual_seed(SEED)
    prompt = tokenizer("And the king said unto", return_tensors="pt")
    ids = model.generate(
        **prompt, do_sample=True, temperature=0.7, max_new_tokens=60, pad_token_id=0
    )
    return str(tokenizer.decode(ids[0], skip_special_tokens=True))


def main() -> None:
    """Read the corpus, train, measure, and write the folder."""
    parser = argparse.ArgumentParser(description="Make HookQL's demo model from nothing.")
    parser.add_argument("--corpus", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--steps", type=int, default=3600)
    parser.add_argument("--checkpoint", type=Path, default=Path("train_demo.checkpoint.pt"))
    options = parser.parse_args()
    torch.set_num_threads(1)
    corpus = read_corpus(options.corpus, SEED)
    tokenizer = train_tokenizer(corpus.train)
    stream, line_starts = training_stream(tokenizer, corpus.train)
    print(f"{len(stream)} training tokens, {len(line_starts)} lines")
    model = new_model(tokenizer.eos_token_id)
    print(f"{model.num_parameters()} parameters")
    seconds = train(model, stream, line_starts, options.steps, options.checkpoint)
    save(model, tokenizer, options.out)
    write_figures(options.corpus, options.out, options.steps, seconds)
    options.checkpoint.unlink()


if __name__ == "__main__":
    main()
