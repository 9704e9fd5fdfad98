# ruff: noqa: D103
"""The tasks with nnsight: traces of batches of texts, what is saved put together at the end."""

from pathlib import Path

import nnsight
import torch
from nnsight import TransformersModel


def load(folder):
    """The traced model; its tokenizer goes with it."""
    return TransformersModel(folder, task="text-generation", dispatch=True), None


def statistics(model, texts, paths, batch):
    modules = [model.get(path) for path in paths]
    kept = [[] for _ in paths]
    for start in range(0, len(texts), batch):
        with torch.no_grad(), model.trace(texts[start : start + batch]) as tracer:
            saved = nnsight.save([])
            for module in modules:
                output = module.output
                saved.append(output[0] if isinstance(output, tuple) else output)
            tracer.stop()
        for rows, output in zip(kept, saved, strict=True):
            rows.append(output.flatten(0, 1))
    found = [torch.cat(rows) for rows in kept]
    return {
        "mean": torch.stack([x.mean(0) for x in found]),
        "std": torch.stack([x.std(0, correction=0) for x in found]),
    }


def card(model, tokenizer, texts, at):
    return statistics(model, texts, at.attention[:6], at.batch)


def everything(model, tokenizer, texts, at):
    order = [path for layer in zip(at.attention, at.mlp, at.blocks, strict=True) for path in layer]
    return statistics(model, texts, order, at.batch)


def raw(model, tokenizer, texts, at):
    kept = []
    for start in range(0, len(texts), at.batch):
        with torch.no_grad(), model.trace(texts[start : start + at.batch]) as tracer:
            hidden = model.get(at.middle).output.save()
            tracer.stop()
        kept.append(hidden.flatten(0, 1))
    torch.save(torch.cat(kept), at.out / "rows.pt")


def top(model, tokenizer, texts, at):
    neurons, tokens = [], []
    for start in range(0, len(texts), at.batch):
        batch = texts[start : start + at.batch]
        inputs = model.tokenizer(batch, return_tensors="pt", padding=True)
        mask = inputs["attention_mask"].bool()
        with torch.no_grad(), model.trace(inputs) as tracer:
            saved = nnsight.save([])
            for path in at.neurons:
                saved.append(model.get(path).input)
            tracer.stop()
        neurons.append(torch.cat(saved, -1)[mask])
        tokens.append(inputs["input_ids"][mask])
    best = torch.cat(neurons).topk(10, dim=0)
    return {"top": best.values, "token": torch.cat(tokens)[best.indices]}


def two(model, tokenizer, texts, at):
    return statistics(model, texts, at.blocks[:2], at.batch)


def selected(model, texts, at, wanted):
    kept = []
    for start in range(0, len(texts), at.batch):
        batch = texts[start : start + at.batch]
        inputs = model.tokenizer(batch, return_tensors="pt", padding=True)
        with torch.no_grad(), model.trace(inputs) as tracer:
            hidden = model.get(at.middle).output.save()
            tracer.stop()
        kept.append(hidden[wanted(inputs["input_ids"])])
    found = torch.cat(kept)
    return {"mean": found.mean(0)[None], "std": found.std(0, correction=0)[None]}


def rare(model, tokenizer, texts, at):
    return selected(model, texts, at, lambda ids: ids == at.word_id)


def positions(model, tokenizer, texts, at):
    return selected(model, texts, at, lambda ids: (torch.arange(ids.shape[1]) < 8).expand_as(ids))


def header(model, tokenizer, texts, at):
    def wanted(ids):
        return (torch.arange(ids.shape[1]) >= 200).expand_as(ids)

    return selected(model, texts, at, wanted)


def again(model, tokenizer, texts, at):
    return card(model, tokenizer, texts, at)


def stored(folder: Path):
    """What `raw` wrote."""
    return torch.load(folder / "rows.pt").numpy()
