"""The two models of the comparison as folders, and what their modules are called.

Both are given SmolLM2's tokenizer, so that all tasks have the same texts on both.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
import transformers

from tests.weights import smollm2_folder

NAMES = {"gpt2": "GPT-2 size (124M, random weights)", "smollm2": "SmolLM2-135M"}


def folder(name: str, cache: Path) -> Path:
    """Where that model's weights and tokenizer are; a GPT-2 is made the first time."""
    smollm2 = smollm2_folder()
    if name == "smollm2":
        return smollm2
    where = cache / "models" / "gpt2"
    if not (where / "tokenizer_config.json").exists():
        torch.manual_seed(0)
        model = transformers.GPT2LMHeadModel(transformers.GPT2Config())
        model.save_pretrained(where)
        transformers.AutoTokenizer.from_pretrained(smollm2).save_pretrained(where)
    return where


def names(name: str) -> dict[str, Any]:
    """What the tasks ask for, as this model's modules are called.

    blocks, attention, mlp: a path for each layer; middle and layer: the middle block's path and
    number; neurons: the modules whose inputs are MLP neurons, of neuron_layers, 3,072 in all.
    """
    if name == "gpt2":
        path, attn, out, layers, neurons = "transformer.h", "attn", "mlp.c_proj", 12, [6]
    else:
        path, attn, out, layers, neurons = (
            "model.layers",
            "self_attn",
            "mlp.down_proj",
            30,
            [14, 15],
        )
    return {
        "path": path,
        "attn": attn,
        "layer": layers // 2,
        "neuron_layers": neurons,
        "middle": f"{path}.{layers // 2}",
        "blocks": [f"{path}.{i}" for i in range(layers)],
        "attention": [f"{path}.{i}.{attn}" for i in range(layers)],
        "mlp": [f"{path}.{i}.mlp" for i in range(layers)],
        "neurons": [f"{path}.{i}.{out}" for i in neurons],
        "width": 768 if name == "gpt2" else 576,
    }
