# ruff: noqa: D103
"""The tasks with mi-crow: activations saved to its store batch by batch, then read from there."""

from pathlib import Path

import torch
from mi_crow.language_model.language_model import LanguageModel
from mi_crow.store.local_store import LocalStore


def load(folder):
    """The language model; its tokenizer goes with it."""
    return LanguageModel.from_local_torch(folder, folder, LocalStore("unused")), None


def signatures(model, paths):
    name = type(model.model).__name__.lower()
    return [f"{name}_{path.replace('.', '_')}" for path in paths]


def saved(model, texts, paths, at):
    model.store, names = LocalStore(at.out), signatures(model, paths)
    run = model.activations.save_activations(texts, names, "run", batch_size=at.batch)
    for number in range(-(-len(texts) // at.batch)):
        _, tensors = model.store.get_detector_metadata(run, number)
        yield [tensors[name]["activations"] for name in names]


def moments(found):
    return {
        "mean": torch.stack([x.mean(0) for x in found]),
        "std": torch.stack([x.std(0, correction=0) for x in found]),
    }


def statistics(model, texts, paths, at):
    kept = [[] for _ in paths]
    for batch in saved(model, texts, paths, at):
        for rows, x in zip(kept, batch, strict=True):
            rows.append(x.flatten(0, 1))
    return moments([torch.cat(rows) for rows in kept])


def card(model, tokenizer, texts, at):
    return statistics(model, texts, at.attention[:6], at)


def everything(model, tokenizer, texts, at):
    order = [path for layer in zip(at.attention, at.mlp, at.blocks, strict=True) for path in layer]
    return statistics(model, texts, order, at)


def raw(model, tokenizer, texts, at):
    model.store = LocalStore(at.out)
    layer = signatures(model, [at.middle])
    model.activations.save_activations(texts, layer, "run", batch_size=at.batch)


def two(model, tokenizer, texts, at):
    return statistics(model, texts, at.blocks[:2], at)


def selected(model, texts, at, wanted):
    kept = []
    for number, (x,) in enumerate(saved(model, texts, [at.middle], at)):
        batch = texts[number * at.batch : (number + 1) * at.batch]
        ids = model.tokenizer(batch, return_tensors="pt", padding=True)["input_ids"]
        kept.append(x[wanted(ids)])
    return moments([torch.cat(kept)])


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
    """What `raw` wrote, batch by batch."""
    store, parts = LocalStore(folder), []
    for number in range(len(list((folder / "runs" / "run").glob("batch_*")))):
        _, tensors = store.get_detector_metadata("run", number)
        parts += [x["activations"].flatten(0, 1) for x in tensors.values()]
    return torch.cat(parts).numpy()


MISSING = {"top": "its detectors see outputs only; top texts are there for autoencoders' latents"}
