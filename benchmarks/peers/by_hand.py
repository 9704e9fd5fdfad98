# ruff: noqa: D103
"""The tasks with plain forward hooks: everything is stored, then computed at the end."""

from pathlib import Path

import torch
import transformers


def load(folder):
    """The model and its tokenizer, from transformers."""
    model = transformers.AutoModelForCausalLM.from_pretrained(folder).eval()
    return model, transformers.AutoTokenizer.from_pretrained(folder)


def captured(model, tokenizer, texts, paths, batch, inputs=False):
    kept, handles = {path: [] for path in paths}, []
    for path in paths:

        def hook(module, args, output, rows=kept[path]):
            value = args if inputs else output
            rows.append((value[0] if isinstance(value, tuple) else value)[mask])

        handles.append(model.get_submodule(path).register_forward_hook(hook))
    tokens = []
    for start in range(0, len(texts), batch):
        encoded = tokenizer(texts[start : start + batch], return_tensors="pt", padding=True)
        mask = encoded["attention_mask"].bool()
        with torch.no_grad():
            model(**encoded)
        tokens.append(encoded["input_ids"][mask])
    for handle in handles:
        handle.remove()
    return [torch.cat(rows) for rows in kept.values()], torch.cat(tokens)


def moments(found):
    return {
        "mean": torch.stack([x.mean(0) for x in found]),
        "std": torch.stack([x.std(0, correction=0) for x in found]),
    }


def card(model, tokenizer, texts, at):
    return moments(captured(model, tokenizer, texts, at.attention[:6], at.batch)[0])


def everything(model, tokenizer, texts, at):
    order = [path for layer in zip(at.attention, at.mlp, at.blocks, strict=True) for path in layer]
    return moments(captured(model, tokenizer, texts, order, at.batch)[0])


def raw(model, tokenizer, texts, at):
    (rows,), _ = captured(model, tokenizer, texts, [at.middle], at.batch)
    torch.save(rows, at.out / "rows.pt")


def top(model, tokenizer, texts, at):
    found, tokens = captured(model, tokenizer, texts, at.neurons, at.batch, inputs=True)
    best = torch.cat(found, -1).topk(10, dim=0)
    return {"top": best.values, "token": tokens[best.indices]}


def two(model, tokenizer, texts, at):
    return moments(captured(model, tokenizer, texts, at.blocks[:2], at.batch)[0])


def rare(model, tokenizer, texts, at):
    (rows,), tokens = captured(model, tokenizer, texts, [at.middle], at.batch)
    return moments([rows[tokens == at.word_id]])


def positions(model, tokenizer, texts, at):
    (rows,), _ = captured(model, tokenizer, texts, [at.middle], at.batch)
    return moments([rows.view(len(texts), 200, -1)[:, :8].flatten(0, 1)])


def header(model, tokenizer, texts, at):
    (rows,), _ = captured(model, tokenizer, texts, [at.middle], at.batch)
    return moments([rows.view(len(texts), 220, -1)[:, 200:].flatten(0, 1)])


def again(model, tokenizer, texts, at):
    return card(model, tokenizer, texts, at)


def stored(folder: Path):
    """What `raw` wrote."""
    return torch.load(folder / "rows.pt").numpy()
