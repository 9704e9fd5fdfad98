# ruff: noqa: D103
"""The tasks with TransformerLens: caches of batches of texts, put together at the end."""

from pathlib import Path

import torch
import transformers
from transformer_lens.model_bridge import TransformerBridge


def load(folder):
    """The bridge; its tokenizer goes with it."""
    model = transformers.AutoModelForCausalLM.from_pretrained(folder)
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    name = {"gpt2": "gpt2", "llama": "HuggingFaceTB/SmolLM2-135M"}[model.config.model_type]
    return TransformerBridge.boot_transformers(name, hf_model=model, tokenizer=tokenizer), None


def statistics(model, texts, names, stop, batch):
    kept = {name: [] for name in names}
    for start in range(0, len(texts), batch):
        with torch.no_grad():
            _, cache = model.run_with_cache(
                texts[start : start + batch],
                names_filter=names,
                stop_at_layer=stop,
                prepend_bos=False,
            )
        for name in names:
            kept[name].append(cache[name].flatten(0, 1))
    found = [torch.cat(rows) for rows in kept.values()]
    return {
        "mean": torch.stack([x.mean(0) for x in found]),
        "std": torch.stack([x.std(0, correction=0) for x in found]),
    }


def card(model, tokenizer, texts, at):
    names = [f"blocks.{layer}.hook_attn_out" for layer in range(6)]
    return statistics(model, texts, names, 6, at.batch)


def everything(model, tokenizer, texts, at):
    sites = ("hook_attn_out", "hook_mlp_out", "hook_resid_post")
    names = [f"blocks.{layer}.{site}" for layer in range(len(at.blocks)) for site in sites]
    return statistics(model, texts, names, None, at.batch)


def raw(model, tokenizer, texts, at):
    name, kept = f"blocks.{at.layer}.hook_resid_post", []
    for start in range(0, len(texts), at.batch):
        with torch.no_grad():
            _, cache = model.run_with_cache(
                texts[start : start + at.batch],
                names_filter=name,
                stop_at_layer=at.layer + 1,
                prepend_bos=False,
            )
        kept.append(cache[name].flatten(0, 1))
    torch.save(torch.cat(kept), at.out / "rows.pt")


def top(model, tokenizer, texts, at):
    names = [f"blocks.{layer}.mlp.hook_post" for layer in at.neuron_layers]
    neurons, tokens = [], []
    for start in range(0, len(texts), at.batch):
        ids = model.to_tokens(texts[start : start + at.batch], prepend_bos=False)
        with torch.no_grad():
            _, cache = model.run_with_cache(
                ids, names_filter=names, stop_at_layer=at.neuron_layers[-1] + 1
            )
        mask = ids != model.tokenizer.pad_token_id
        neurons.append(torch.cat([cache[name] for name in names], -1)[mask])
        tokens.append(ids[mask])
    best = torch.cat(neurons).topk(10, dim=0)
    return {"top": best.values, "token": torch.cat(tokens)[best.indices]}


def two(model, tokenizer, texts, at):
    return statistics(model, texts, [f"blocks.{i}.hook_resid_post" for i in range(2)], 2, at.batch)


def selected(model, texts, at, wanted):
    name, kept = f"blocks.{at.layer}.hook_resid_post", []
    for start in range(0, len(texts), at.batch):
        ids = model.to_tokens(texts[start : start + at.batch], prepend_bos=False)
        with torch.no_grad():
            _, cache = model.run_with_cache(ids, names_filter=name, stop_at_layer=at.layer + 1)
        kept.append(cache[name][wanted(ids)])
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
