# ruff: noqa: D103
"""The tasks with HookQL: one query each."""

from pathlib import Path

import numpy as np
import transformers

import hookql
from hookql.options import RunOptions


def load(folder):
    """The model and its tokenizer, from transformers."""
    model = transformers.AutoModelForCausalLM.from_pretrained(folder).eval()
    return model, transformers.AutoTokenizer.from_pretrained(folder)


def card(model, tokenizer, texts, at):
    query = f"capture mean, std from {at.path}[0:6].{at.attn} where token != pad"
    return hookql.run(query, model=model, tokenizer=tokenizer, texts=texts)


def everything(model, tokenizer, texts, at):
    query = f"capture mean, std from {at.path}[*], {at.path}[*].{at.attn}, {at.path}[*].mlp"
    return hookql.run(query, model=model, tokenizer=tokenizer, texts=texts)


def raw(model, tokenizer, texts, at):
    query = f"capture values from {at.path}[{at.layer}]"
    hookql.run(query, model=model, tokenizer=tokenizer, texts=texts, output=at.out / "rows.nc")


def top(model, tokenizer, texts, at):
    query = f"capture top(x, k=10) from @mlp_act[{at.neuron_layers[0]}:{at.neuron_layers[-1] + 1}]"
    return hookql.run(query, model=model, tokenizer=tokenizer, texts=texts)


def two(model, tokenizer, texts, at):
    query = f"capture mean, std from {at.path}[0:2]"
    return hookql.run(query, model=model, tokenizer=tokenizer, texts=texts)


def rare(model, tokenizer, texts, at):
    query = f'capture mean, std from {at.path}[{at.layer}] where token == "{at.word}"'
    return hookql.run(query, model=model, tokenizer=tokenizer, texts=texts)


def positions(model, tokenizer, texts, at):
    query = f"capture mean, std from {at.path}[{at.layer}] where position < 8"
    return hookql.run(query, model=model, tokenizer=tokenizer, texts=texts)


def header(model, tokenizer, texts, at):
    query = f"capture mean, std from {at.path}[{at.layer}] where position >= 200"
    return hookql.run(query, model=model, tokenizer=tokenizer, texts=texts)


def again(model, tokenizer, texts, at):
    query = f"capture mean, std from {at.path}[0:6].{at.attn} where token != pad"
    store = {"store": at.out / "store"} if "store" in RunOptions.__annotations__ else {}
    return hookql.run(query, model=model, tokenizer=tokenizer, texts=texts, **store)


def numbers(result):
    """A result as plain arrays, in the order of the other contestants."""
    if "top_k_10" in result.dataset:
        found = {"top": result["top_k_10"].values, "token": result["top_k_10_token"].values}
        return {name: np.concatenate(list(x)).T for name, x in found.items()}
    if "mean" in result.dataset:
        return {name: result[name].values for name in ("mean", "std")}
    groups = [group for group in result.groups if "mean" in result[group]]
    groups.sort(key=lambda group: (not group.endswith("attn"), not group.endswith("mlp")))
    found = {name: [result[group][name].values for group in groups] for name in ("mean", "std")}
    return {name: np.stack(x, 1).reshape(-1, x[0].shape[-1]) for name, x in found.items()}


def stored(folder: Path):
    """What `raw` wrote."""
    return hookql.load(folder / "rows.nc")["values"].values[0]
