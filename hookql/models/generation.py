"""How a model generates here: greedily unless asked otherwise, with its cache, no beams."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

from torch import nn

from hookql.errors import Diagnostic
from hookql.models.load import Model
from hookql.models.ports import HookPoint


def cannot_generate(model: Model) -> Diagnostic | None:
    """Why a model cannot be followed while it generates, or None."""
    can: Any = getattr(model.module, "can_generate", None)
    what = f"`{model.name}` ({model.class_name})"
    help = None
    if model.is_encoder_decoder:
        why = f"{what} is an encoder-decoder, whose generating is not followed"
        help = "give the decoder's text with `--target` instead"
    elif not hasattr(model.module, "generate") or can is None or not can():
        why = f"{what} does not generate: it has no `generate`, or no language-model head"
        help = "load it with its head, as ...ForCausalLM"
    else:
        return None
    return Diagnostic("cannot-generate", why, help=help)


def generation_config(
    model: Model, arguments: Mapping[str, Any], ends: Sequence[int], pad: int
) -> Any:
    """What `generate` is told: the query's arguments, and nothing of the model's own taste.

    A checkpoint's generation settings (a temperature, a repetition penalty) change texts, so they
    count only where the query asks for them. What ends a text stays the model's.
    """
    import transformers

    sampling = bool(arguments.get("do_sample"))
    given = {
        "repetition_penalty": 1.0,
        "no_repeat_ngram_size": 0,
        "min_new_tokens": None,
        **{name: value for name, value in arguments.items() if name != "seed"},
    }
    if sampling:
        given = {"temperature": 1.0, "top_k": 0, "top_p": 1.0, **given}
    fixed = {
        "do_sample": sampling,
        "num_beams": 1,
        "num_return_sequences": 1,
        "use_cache": True,
        "return_dict_in_generate": False,
        "disable_compile": True,
        "eos_token_id": list(ends) or None,
        "pad_token_id": ends[0] if ends else pad,
    }
    return transformers.GenerationConfig(**{**given, **fixed})  # type: ignore[no-untyped-call]


@contextmanager
def settings_of(module: Any, config: Any) -> Iterator[None]:
    """The model's own generation settings are these inside this context.

    `generate` takes from them whatever its caller leaves open: suppressed tokens, biases, n-grams.
    """
    own = module.generation_config
    module.generation_config = config
    try:
        yield
    finally:
        module.generation_config = own


def ends_of(model: Model) -> list[int]:
    """The ids that end a text: the model's own, else the tokenizer's."""
    stated = getattr(getattr(model.module, "generation_config", None), "eos_token_id", None)
    if stated is None:
        stated = getattr(model.tokenizer, "eos_token_id", None)
    if stated is None:
        return []
    return [stated] if isinstance(stated, int) else [int(each) for each in stated]


def needs_all_logits(
    points: Sequence[HookPoint], logits: HookPoint | None, module: nn.Module
) -> bool:
    """Whether logits of every prompt token are asked for, not only of the last."""
    if logits is not None:
        return True
    head: Any = getattr(module, "get_output_embeddings", lambda: None)()
    return any(not point.module or module.get_submodule(point.module) is head for point in points)
