"""The demo model's card, filled in with its figures."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

CARD = """\
---
license: apache-2.0
language: en
library_name: transformers
pipeline_tag: text-generation
---

# HookQL's demo model

A small GPT-2 that HookQL carries so that its first query runs anywhere, offline: `--model demo`,
which is also the default. It is real and trained, and it is for demonstrations and tests only: it
knows one old book, and nothing that it writes should be believed.

| | |
| --- | --- |
| architecture | `GPT2LMHeadModel`, {model[layers]} layers, width {model[width]}, \
{model[heads]} heads, context {model[context]} |
| parameters | {model[parameters]:,}, float32 ({megabytes:.1f} MB) |
| tokenizer | its own byte-level BPE, {model[vocabulary]} tokens; `<|endoftext|>` begins and ends \
a document; like GPT-2's it has no padding token |
| trained on | the King James Bible as Debian's package `bible-kjv-text` has it, \
{chapters[train]:,} of {all_chapters:,} chapters, {corpus[tokens]:,} tokens |
| rights | the text is in the public domain (translated in 1611); the weights are under HookQL's \
own licence, Apache-2.0 |
| trained for | {training[steps]:,} steps of {training[batch]} contexts of {model[context]} \
tokens: {training[tokens]:,} tokens ({epochs:.1f} times the corpus), {minutes:.0f} minutes on \
one CPU core shared with other work |
| optimizer | AdamW, peak learning rate {training[peak_learning_rate]}, weight decay 0.1; \
warmed up for {training[warmup]} steps, let down along a half cosine over the last \
{training[let_down]:.0%} |

## Held-out loss

Every 20th chapter ({chapters[held_out]} in all, {held_out[tokens]:,} tokens) was kept out of the
training of the model and of its tokenizer. Losses are in nats a token, on the same tokens:

| | held-out chapters | held-out lines of `text.txt` |
| --- | --- | --- |
| **this model** | **{held_out[model]:.3f}** | **{text[model]:.3f}** |
| bigram ({smoothing[bigram]}) | {held_out[bigram]:.3f} | {text[bigram]:.3f} |
| unigram ({smoothing[unigram]}) | {held_out[unigram]:.3f} | {text[unigram]:.3f} |
| uniform | {uniform:.3f} | {uniform:.3f} |

Each chapter is read from `<|endoftext|>` to `<|endoftext|>`, and each of its tokens is predicted
exactly once, by windows of {model[context]} tokens that slide by {stride}. The n-gram models
count the training chapters; their smoothing, named above with its parameter, is the best of three
kinds (one for the unigram) on every 20th training chapter, left uncounted while choosing. Lines
of `text.txt` are read alone, and every token but the first is predicted. The Bible repeats itself
(Kings and Chronicles, the four Gospels), so a held-out chapter may have a near twin in training;
that helps all of these models. `training.json` has the figures in full.

## What it writes

> {sample}

## Files

`config.json`, `model.safetensors`, `tokenizer.json` and `tokenizer_config.json` are what
`transformers` loads. `text.txt` is the demo's text, a sample a line:
{text[held_out_lines]} paragraphs drawn from the held-out chapters, then
{text[modern_lines]} lines of today's English written for it.

## Make it again

    apt-get install bible-kjv
    bible -f gen1:1-rev22:21 > bible.txt
    python scripts/train_demo.py --corpus bible.txt --out hookql/demo

SHA-256 of `bible.txt`: `{corpus[sha256]}`.
The seed is fixed ({training[seed]}), but other processors and versions round differently, so
weights made elsewhere are not these, and their figures differ slightly. Made with
{versions}.
"""


def card(figures: Mapping[str, Any], sample: str, size: int) -> str:
    """Return the card of a model file of `size` bytes that wrote `sample`."""
    corpus, model, training = figures["corpus"], figures["model"], figures["training"]
    chapters = corpus["chapters"]
    return CARD.format(
        corpus=corpus,
        model=model,
        training=training,
        smoothing=figures["smoothing"],
        held_out=figures["held_out"],
        text=figures["text"],
        uniform=figures["uniform"],
        megabytes=size / 1e6,
        chapters=chapters,
        all_chapters=chapters["train"] + chapters["held_out"],
        epochs=training["tokens"] / corpus["tokens"],
        minutes=training["seconds"] / 60,
        stride=model["context"] // 2,
        sample=sample.replace("\n", "\n> "),
        versions=", ".join(f"{name} {number}" for name, number in figures["versions"].items()),
    )
