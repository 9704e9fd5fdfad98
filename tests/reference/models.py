"""Three small models, with random weights, and what happens inside them, sample by sample."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
import transformers as hf
from attrs import field, frozen

from tests.reference.samples import Context, contexts
from tests.tiny import BOS, EOS, PAD, VOCABULARY, character_tokenizer

FAMILIES = ("gpt2", "llama", "bert")
CONTEXT = 32
LAYERS = 2

ROWS: tuple[Mapping[str, Any], ...] = (
    {"text": "hello world", "label": "ham", "weight": 0.5, "flag": True},
    {"text": "a", "label": "spam", "weight": 2.0, "flag": False},
    {"text": "The cat sat on a mat", "label": "ham", "weight": -1.0, "flag": True},
    {"text": "Caf\u00e9 \U0001f600 na\u00efve", "label": "spam", "weight": None, "flag": False},
    {"text": "", "label": "empty", "weight": 7.0, "flag": True},
    {"text": "hello world", "label": None, "weight": 3.0, "flag": False},
    {"text": "<bos>New York<eos>", "label": "New York", "weight": 0.0, "flag": None},
    {"text": "to be, or not to be: that is the question", "label": "ham", "weight": 1.5,
     "flag": True},
    {"text": "aab", "label": "spam", "weight": 2.0, "flag": False},
)  # fmt: skip

Place = tuple[str, str, int | str | None]
"""A module, "input" or "output", and which element of it: None is the first tensor."""


@frozen(eq=False)
class Subject:
    """A model, its tokenizer, and how samples become contexts."""

    family: str
    model: torch.nn.Module
    tokenizer: Any
    max_length: int
    overflow: str
    contexts: tuple[Context, ...]
    recorded: tuple[Mapping[Place, np.ndarray], ...]
    """For each context, float64 (S, ...) of each place that has a tensor of the context's."""
    cache: dict[Any, Any] = field(factory=dict)


@functools.cache
def subject(family: str, max_length: int = CONTEXT, overflow: str = "split") -> Subject:
    """The model of that family and all that it computes of `ROWS`."""
    model, tokenizer = _built(family)
    made = contexts(tokenizer, ROWS, max_length, overflow)
    recorded = [record(model, context.ids) for context in made]
    return Subject(family, model, tokenizer, max_length, overflow, tuple(made), tuple(recorded))


def record(model: torch.nn.Module, ids: Sequence[int]) -> dict[Place, np.ndarray]:
    """One context alone through the bare model: every tensor that goes in or out of a module."""
    seen: dict[Place, np.ndarray] = {}

    def keep(module: str, side: str, values: Any) -> None:
        named = list(values.items()) if isinstance(values, Mapping) else list(enumerate(values))
        tensors = [(key, v) for key, v in named if isinstance(v, torch.Tensor)]
        for place, (key, value) in enumerate(tensors):
            if value.is_floating_point() and value.ndim >= 2 and len(value) == 1:
                array = value.detach().double().numpy()[0].copy()
                seen.setdefault((module, side, key), array)
                if not place:
                    seen.setdefault((module, side, None), array)

    def before(module: str) -> Callable[..., None]:
        def hook(_: Any, args: Any, kwargs: Any) -> None:
            keep(module, "input", {**dict(enumerate(args)), **kwargs})

        return hook

    def behind(module: str) -> Callable[..., None]:
        def hook(_: Any, __: Any, output: Any) -> None:
            whole = isinstance(output, torch.Tensor)
            keep(module, "output", (output,) if whole else output)

        return hook

    handles = []
    for name, module in model.named_modules():
        handles.append(module.register_forward_pre_hook(before(name), with_kwargs=True))
        handles.append(module.register_forward_hook(behind(name)))
    try:
        with torch.no_grad():
            model(input_ids=torch.tensor([list(ids)]))
    finally:
        for handle in handles:
            handle.remove()
    return seen


@functools.cache
def _built(family: str) -> tuple[torch.nn.Module, Any]:
    state = torch.random.get_rng_state()
    torch.manual_seed(1969)
    try:
        model = _BUILDERS[family]()
        with torch.no_grad():
            # Initial biases of 0 and scales of 1 would hide errors in what reads them, and
            # weights as small as these families start with make every token much the same.
            for parameter in model.parameters():
                parameter.add_(torch.randn(parameter.shape), alpha=0.15)
    finally:
        torch.random.set_rng_state(state)
    model.config.architectures = [type(model).__name__]
    return model.float().eval(), character_tokenizer(cls=family == "bert")


_IDS = {"pad_token_id": PAD, "bos_token_id": BOS, "eos_token_id": EOS, "vocab_size": VOCABULARY}
_EAGER = {"attn_implementation": "eager"}
_COMMON = {
    **_IDS,
    "hidden_size": 16,
    "intermediate_size": 24,
    "num_hidden_layers": LAYERS,
    "num_attention_heads": 4,
    "max_position_embeddings": CONTEXT,
}


def _gpt2() -> torch.nn.Module:
    config = hf.GPT2Config(
        **_IDS, **_EAGER, n_layer=LAYERS, n_embd=16, n_head=4, n_positions=CONTEXT
    )
    return hf.GPT2LMHeadModel(config)


_BUILDERS: dict[str, Callable[[], torch.nn.Module]] = {
    "gpt2": _gpt2,
    "llama": lambda: hf.LlamaForCausalLM(
        hf.LlamaConfig(**_COMMON, **_EAGER, num_key_value_heads=2)
    ),
    "bert": lambda: hf.BertModel(hf.BertConfig(**_COMMON, **_EAGER)),
}
