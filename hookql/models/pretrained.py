"""What transformers loads, each step with the words for what goes wrong in it."""

from __future__ import annotations

import contextlib
import importlib
import inspect
import logging
import warnings
from collections.abc import Iterator
from typing import Any

from torch import nn

from hookql.errors import Diagnostic, ModelError, UsageError, listing
from hookql.models import hub
from hookql.models.locate import Checkpoint, pickle_only


def load_config(checkpoint: Checkpoint, name: str, trust: bool) -> Any:
    """The config.json, read by the class for its model type."""
    from transformers import AutoConfig

    try:
        return AutoConfig.from_pretrained(
            checkpoint.where, trust_remote_code=trust, **checkpoint.arguments
        )
    except Exception as error:
        if not trust and "trust_remote_code" in str(error):
            raise _remote_code(name) from error
        if "does not recognize this architecture" in str(error):
            message = f"`{name}` is of a kind that this version of transformers does not know"
            help = "a newer transformers may know it: `pip install -U transformers`"
            raise ModelError(Diagnostic("unknown-architecture", message, help=help)) from error
        raise _failed("the configuration", name, error) from error


def class_of(config: Any, name: str, trust: bool) -> Any:
    """The class that the checkpoint says it is, else the Auto class that knows its config."""
    import transformers

    remote = getattr(config, "auto_map", None) or {}
    architecture = next(iter(getattr(config, "architectures", None) or ()), None)
    own = getattr(transformers, architecture, None) if architecture else None
    if remote and trust:
        named = [key for key, ref in remote.items() if str(ref).endswith(f".{architecture}")]
        for key in [*named, "AutoModelForCausalLM", "AutoModel"]:
            if key in remote and key.startswith("AutoModel"):
                return getattr(transformers, key)
    if isinstance(own, type) and issubclass(own, transformers.PreTrainedModel):
        return own
    if any(key.startswith("AutoModel") for key in remote):
        raise _remote_code(name)
    for auto in (transformers.AutoModelForCausalLM, transformers.AutoModel):
        if type(config) in auto._model_mapping:
            return auto
    message = f"transformers has no model class for `{name}` ({type(config).__name__})"
    help = "if it is another library's model, load it there and give HookQL the module"
    raise ModelError(Diagnostic("unknown-architecture", message, help=help))


def load_weights(
    loader: Any,
    config: Any,
    checkpoint: Checkpoint,
    name: str,
    options: dict[str, Any],
    allow_pickle: bool = False,
) -> nn.Module:
    """The module with every weight from the checkpoint: none made up, none of another shape.

    Weights are safetensors or GGUF; with ``allow_pickle`` those that are only there as a pickle are
    read too, by torch's reader of tensors alone (``weights_only``).
    """

    def load(**more: Any) -> tuple[nn.Module, set[str]]:
        # None: safetensors where they are, else pickles.
        safe = {} if checkpoint.gguf else {"use_safetensors": None if allow_pickle else True}
        module, report = loader.from_pretrained(
            checkpoint.where,
            config=config,
            output_loading_info=True,
            weights_only=True,
            **safe,
            **options,
            **more,
        )
        return module, set(report["missing_keys"]) | {str(k) for k in report["mismatched_keys"]}

    try:
        module, missing = load()
        # Encoders are often saved without the pooler that nothing else in the model reads.
        poolers = all(".pooler." in f".{key}" for key in missing)
        if missing and poolers and "add_pooling_layer" in _parameters(type(module).__init__):
            module, missing = load(add_pooling_layer=False)
    except Exception as error:
        raise _weights_error(checkpoint, name, options, error) from error
    if missing:
        message = f"the checkpoint of `{name}` lacks weights that {type(module).__name__} needs"
        help = "random weights would give wrong numbers: load it from Python as the class it is"
        notes = (f"missing: {listing(sorted(missing), 6)}",)
        raise ModelError(Diagnostic("missing-weights", message, help=help, notes=notes))
    return module


def _weights_error(
    checkpoint: Checkpoint, name: str, options: dict[str, Any], error: Exception
) -> ModelError | UsageError:
    text = str(error)
    if checkpoint.commit is not None and checkpoint.offline and isinstance(error, OSError):
        return hub.unreachable(name)  # the cache holds the config, but not the weights
    if "safetensors" in text and isinstance(error, OSError) and "no file" in text.lower():
        return pickle_only(name, [])
    if "does not appear to have a file named model.safetensors" in text:
        return pickle_only(name, [])
    if "ignore_mismatched_sizes" in text:
        message = f"the weights of `{name}` have other shapes than its config.json says"
        help = "one of the two is another model's: fetch both again from where they came"
        return ModelError(Diagnostic("mismatched-weights", message, help=help))
    if "attn_implementation" in text or "Attention" in text or "attention" in text:
        asked = options.get("attn_implementation")
        which = f"the attention implementation `{asked}`" if asked else "the attention it asks for"
        message = f"{which} cannot be had for `{name}` here"
        help = "try another, such as `--attn sdpa` or `--attn eager`"
        notes = (_first_line(text),)
        return UsageError(Diagnostic("attention-unavailable", message, help=help, notes=notes))
    return _failed("the weights", name, error)


def load_tokenizer(checkpoint: Checkpoint, name: str, trust: bool) -> Any:
    """The checkpoint's own tokenizer."""
    from transformers import AutoTokenizer

    try:
        return AutoTokenizer.from_pretrained(
            checkpoint.where, trust_remote_code=trust, **checkpoint.arguments
        )
    except Exception as error:
        if not trust and "trust_remote_code" in str(error):
            raise _remote_code(name) from error
        raise _failed("the tokenizer", name, error) from error


def _parameters(function: Any) -> set[str]:
    return set(inspect.signature(function).parameters)


def _remote_code(name: str) -> ModelError:
    message = f"`{name}` needs code from its own repository, which is not run unasked"
    help = "if you trust its authors, add `--trust-remote-code`"
    return ModelError(Diagnostic("remote-code", message, help=help))


def _failed(what: str, name: str, error: Exception) -> ModelError:
    message = f"{what} of `{name}` cannot be loaded"
    note = f"{type(error).__name__}: {_first_line(str(error))}"
    return ModelError(Diagnostic("load-failed", message, notes=(note,)))


def _first_line(text: str) -> str:
    return (text.strip().splitlines() or ["no reason given"])[0][:300]


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Without transformers' reports and bars; what they say of errors is said by us."""
    from huggingface_hub.utils.tqdm import (
        are_progress_bars_disabled,
        disable_progress_bars,
        enable_progress_bars,
    )
    from transformers.utils import logging as chatter

    level, bars = chatter.get_verbosity(), chatter.is_progress_bar_enabled()
    downloads = not are_progress_bars_disabled()
    chatter.set_verbosity(logging.CRITICAL)
    chatter.disable_progress_bar()  # type: ignore[no-untyped-call]
    if downloads:  # the one bar worth having: it also was switched off just now
        enable_progress_bars()
    gguf: Any = importlib.import_module("transformers.modeling_gguf_pytorch_utils")
    gguf_bar = getattr(gguf, "tqdm", None)  # heeds no setting
    gguf.tqdm = lambda items, **_: items
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        gguf.tqdm = gguf_bar
        chatter.set_verbosity(level)
        if bars:
            chatter.enable_progress_bar()  # type: ignore[no-untyped-call]
        if not downloads:
            disable_progress_bars()
