# ruff: noqa: D101, D103
"""The tasks with hooks as an expert writes them.

Texts sorted by length, the pass left after the last hook, running sums, and texts that cannot
contribute left out or cut first.
"""

import contextlib
from pathlib import Path

import numpy as np
import torch
import transformers


def load(folder):
    """The model and its tokenizer, from transformers."""
    model = transformers.AutoModelForCausalLM.from_pretrained(folder).eval()
    return model, transformers.AutoTokenizer.from_pretrained(folder)


class Stop(Exception):
    pass


class Running:
    def __init__(self):
        self.count, self.mean, self.squares = 0, 0.0, 0.0

    def add(self, rows):
        n, mean = len(rows), rows.mean(0)
        if not n:
            return
        squares, mean = (rows - mean).square().sum(0).double(), mean.double()
        delta, total = mean - self.mean, self.count + n
        self.squares += squares + delta.square() * (self.count * n / total)
        self.mean += delta * (n / total)
        self.count = total


def passes(model, tokenizer, texts, paths, batch, take, inputs=False, **options):
    handles, encoded = [], tokenizer(texts, **options)["input_ids"]
    for number, path in enumerate(paths):

        def hook(module, args, output, number=number):
            value = args if inputs else output
            take(number, (value[0] if isinstance(value, tuple) else value)[mask], tokens)
            if number == len(paths) - 1:
                raise Stop

        handles.append(model.get_submodule(path).register_forward_hook(hook))
    encoded.sort(key=len)
    for start in range(0, len(encoded), batch):
        padded = tokenizer.pad({"input_ids": encoded[start : start + batch]}, return_tensors="pt")
        mask = padded["attention_mask"].bool()
        tokens = padded["input_ids"][mask]
        with torch.no_grad(), contextlib.suppress(Stop):
            model(**padded, use_cache=False)
    for handle in handles:
        handle.remove()


def statistics(model, tokenizer, texts, paths, batch, **options):
    running = [Running() for _ in paths]

    def take(number, rows, tokens):
        running[number].add(rows)

    passes(model, tokenizer, texts, paths, batch, take, **options)
    return moments(running)


def moments(running):
    return {
        "mean": torch.stack([r.mean for r in running]),
        "std": torch.stack([(r.squares / r.count).sqrt() for r in running]),
    }


def card(model, tokenizer, texts, at):
    return statistics(model, tokenizer, texts, at.attention[:6], at.batch)


def everything(model, tokenizer, texts, at):
    order = [path for layer in zip(at.attention, at.mlp, at.blocks, strict=True) for path in layer]
    return statistics(model, tokenizer, texts, order, at.batch)


def raw(model, tokenizer, texts, at):
    with open(at.out / "rows.f32", "wb") as file:

        def take(number, rows, tokens):
            rows.numpy().tofile(file)

        passes(model, tokenizer, texts, [at.middle], at.batch, take)


def top(model, tokenizer, texts, at):
    best = [(torch.empty(0), torch.empty(0, dtype=torch.long)) for _ in at.neurons]

    def take(number, rows, tokens):
        values, ids = best[number]
        ids = torch.cat([ids.view(-1, rows.shape[1]), tokens[:, None].expand_as(rows)])
        values = torch.cat([values.view(-1, rows.shape[1]), rows])
        values, chosen = values.topk(min(10, len(values)), dim=0)
        best[number] = values, ids.gather(0, chosen)

    passes(model, tokenizer, texts, at.neurons, at.batch, take, inputs=True)
    values, ids = zip(*best, strict=True)
    return {"top": torch.cat(values, -1), "token": torch.cat(ids, -1)}


def two(model, tokenizer, texts, at):
    return statistics(model, tokenizer, texts, at.blocks[:2], at.batch)


def rare(model, tokenizer, texts, at):
    running = Running()

    def take(number, rows, tokens):
        running.add(rows[tokens == at.word_id])

    texts = [text for text in texts if at.word in text]
    passes(model, tokenizer, texts, [at.middle], at.batch, take)
    return moments([running])


def positions(model, tokenizer, texts, at):
    options = {"truncation": True, "max_length": 8}
    return statistics(model, tokenizer, texts, [at.middle], at.batch, **options)


def header(model, tokenizer, texts, at):
    running = Running()

    def take(number, rows, tokens):
        running.add(rows.view(-1, 220, rows.shape[1])[:, 200:].flatten(0, 1))

    passes(model, tokenizer, texts, [at.middle], at.batch, take)
    return moments([running])


def again(model, tokenizer, texts, at):
    return card(model, tokenizer, texts, at)


def stored(folder: Path):
    """What `raw` wrote: bare numbers, 768 or 576 a row, told by the size of the model."""
    return np.fromfile(folder / "rows.f32", np.float32)
