"""Loading a model, or taking one that is there: the same `Model` either way."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from attrs import evolve, field, frozen
from torch import nn

from hookql.errors import Diagnostic, ModelError, UsageError, did_you_mean, listing
from hookql.models import hub
from hookql.models.context import context_length
from hookql.models.identity import Stamp, stamp, weights_identity
from hookql.models.locate import Checkpoint, locate
from hookql.models.pretrained import class_of, load_config, load_tokenizer, load_weights, quiet
from hookql.models.safety import bounded, check_files

_SHARDED = ("FullyShardedDataParallel", "FSDPModule", "DeepSpeedEngine")
_DTYPES = ("auto", "float32", "bfloat16", "float16")


@frozen(eq=False)
class Part:
    """A model of which only some weights were loaded: those of a pass that is left early.

    ``events`` are those of the whole pass, ("input" | "output", module) in execution order; the
    pass is to be left at ``leave``. The modules ``left_out`` are on the meta device. ``read`` and
    ``whole`` are bytes of weights in memory, and of all weights.
    """

    events: tuple[tuple[str, str], ...]
    leave: tuple[str, str]
    left_out: tuple[str, ...]
    read: int
    whole: int


@frozen(eq=False)
class Model:
    """A module ready to run, and what is known of it.

    ``device`` is where inputs go; ``context`` how many tokens fit, None where the model sets no
    limit; ``attn`` the attention implementation in use; ``revision`` the hub's commit; ``autocast``
    the dtype that passes are cast to, None where they run as the weights are; ``part`` what was
    loaded, None for the whole.
    """

    module: nn.Module
    tokenizer: Any
    name: str
    revision: str | None
    class_name: str
    dtype: str
    device: torch.device
    attn: str | None
    context: int | None
    is_encoder_decoder: bool
    loaded: Stamp | None = field(default=None, repr=False)
    autocast: str | None = None
    part: Part | None = field(default=None, repr=False)

    def identity(self) -> str:
        """``hub:NAME@COMMIT`` for hub weights untouched since they were loaded, else their hash.

        That of a model loaded in part begins with ``partial:`` and is over what was loaded.
        """
        if self.revision is not None and self.loaded == stamp(self.module):
            return f"hub:{self.name}@{self.revision}"
        if self.part is not None:
            return f"partial:{weights_identity(self.module, only_loaded=True)}"
        return weights_identity(self.module)


def load_model(
    name: str = "demo",
    *,
    revision: str | None = None,
    dtype: str = "auto",
    device: str = "auto",
    device_map: Any = None,
    attn: str | None = None,
    trust_remote_code: bool = False,
    allow_pickle: bool = False,
    tokenizer: Any = None,
) -> Model:
    """Load ``demo``, a folder, a ``.gguf`` file or a hub name, in eval mode.

    ``allow_pickle`` reads weights that are only there as a pickle. ``tokenizer`` replaces the
    checkpoint's own. ``device="auto"`` is CUDA where there is one, else
    the CPU: never MPS, which has no float64.

    Raises:
        UsageError: an option that is unknown or cannot be had here.
        ModelError: whatever keeps the model from being loaded as its authors saved it.
    """
    recipe = open_recipe(
        name,
        revision=revision,
        dtype=dtype,
        device=device,
        device_map=device_map,
        attn=attn,
        trust_remote_code=trust_remote_code,
        allow_pickle=allow_pickle,
        tokenizer=tokenizer,
    )
    return load_recipe(recipe, recipe.loader)


@frozen(eq=False)
class Recipe:
    """All that is known of a checkpoint before its weights are read: where, which class, how."""

    name: str
    checkpoint: Checkpoint
    folder: Path | None  # of its files, None for GGUF
    config: Any
    loader: Any  # a class of transformers
    options: dict[str, Any]  # of `from_pretrained`
    place: torch.device
    tokenizer: Any
    allow_pickle: bool


def open_recipe(
    name: str,
    *,
    revision: str | None = None,
    dtype: str = "auto",
    device: str = "auto",
    device_map: Any = None,
    attn: str | None = None,
    trust_remote_code: bool = False,
    allow_pickle: bool = False,
    tokenizer: Any = None,
    weights: bool = True,
) -> Recipe:
    """What `load_model` does before it reads weights, which without ``weights`` need not be there.

    Raises what it raises.
    """
    place, number = _device(device), _dtype(dtype)
    _check_attention(attn)
    if device_map is not None and device != "auto":
        message = "`--device` and `--device-map` both say where the model goes"
        raise UsageError(Diagnostic("conflicting-options", message, help="give one of them"))
    if device_map is not None and importlib.util.find_spec("accelerate") is None:
        message = "a device map needs the package `accelerate`"
        raise UsageError(
            Diagnostic("missing-package", message, help="run `pip install accelerate`")
        )
    checkpoint = locate(name, revision, allow_pickle, weights)
    folder = None
    if checkpoint.gguf is None:
        folder = hub.files_of(checkpoint.where, checkpoint.commit, checkpoint.offline)
        check_files(folder, name, allow_pickle=allow_pickle, trust_code=trust_remote_code)
    with quiet():
        config = load_config(checkpoint, name, trust_remote_code)
        loader = class_of(config, name, trust_remote_code)
        options: dict[str, Any] = {"dtype": number, **checkpoint.arguments}
        if attn is not None:
            options["attn_implementation"] = attn
        if device_map is not None:
            options["device_map"] = device_map
        if not hasattr(loader, "config_class"):  # an AutoModel class
            options["trust_remote_code"] = trust_remote_code
        if tokenizer is None and checkpoint.has_tokenizer:
            tokenizer = load_tokenizer(checkpoint, name, trust_remote_code)
    return Recipe(name, checkpoint, folder, config, loader, options, place, tokenizer, allow_pickle)


def load_recipe(
    recipe: Recipe, loader: Any, finish: Callable[[nn.Module], Part | None] = lambda _: None
) -> Model:
    """The model of a recipe, its weights read into an instance of ``loader``.

    ``finish`` is told of the module once its weights are where they stay, and gives what `Model`
    has as its ``part``.
    """
    name, checkpoint, place = recipe.name, recipe.checkpoint, recipe.place
    options = recipe.options
    with quiet(), bounded(recipe.folder if checkpoint.commit is None else None):
        module = load_weights(loader, recipe.config, checkpoint, name, options, recipe.allow_pickle)
    placed = "device_map" in options
    if not placed and (checkpoint.gguf or not _placed_already(module)):
        try:
            module.to(place)
        except torch.cuda.OutOfMemoryError as error:
            message = f"`{name}` does not fit into the memory of `{place}`"
            help = "try `--dtype bfloat16`, `--device-map auto` or `--device cpu`"
            raise ModelError(Diagnostic("out-of-memory", message, help=help)) from error
    part = finish(module)
    module.eval()
    found = describe_model(module, recipe.tokenizer, name, checkpoint.commit, stamp(module))
    return evolve(found, part=part)


def wrap_model(module: nn.Module, tokenizer: Any = None, name: str | None = None) -> Model:
    """Take a module from Python as it is: nothing is loaded, moved or switched to eval mode.

    Raises:
        ModelError: a module that hooks cannot observe (compiled, scripted, data parallel).
    """
    if not isinstance(module, nn.Module):
        message = f"a model is given as a name or a torch module, not as `{type(module).__name__}`"
        raise ModelError(Diagnostic("not-a-model", message))
    kind = type(module).__name__
    check_observable(module)
    return describe_model(module, tokenizer, name or kind, None, None)


def check_observable(module: nn.Module) -> None:
    """Raise ModelError for a module whose hooks would not be called, or not with whole tensors."""
    kind = type(module).__name__
    if isinstance(module, nn.DataParallel | nn.parallel.DistributedDataParallel):
        message = f"{kind} copies the model, and its copies cannot be observed"
        raise ModelError(Diagnostic("parallel-model", message, help="pass `model.module`"))
    for part in module.modules():
        if any(base.__name__ in _SHARDED for base in type(part).__mro__):
            message = f"{type(part).__name__} holds a part of each weight, on each machine another"
            help = "bind the query to the module before it is sharded, or gather it first"
            raise ModelError(Diagnostic("parallel-model", message, help=help))
        if isinstance(part, torch.jit.ScriptModule):
            message = "the model is compiled by TorchScript, which runs without hooks"
            original = "pass the module that was scripted or traced"
            raise ModelError(Diagnostic("compiled-model", message, help=original))
        in_place = getattr(part, "_compiled_call_impl", None) is not None
        if hasattr(part, "_orig_mod") or in_place:
            message = (
                "the model is compiled: hooks that are added after `torch.compile` are ignored"
            )
            original = "pass the module that was given to `torch.compile`"
            if in_place:
                message = (
                    "a module of the model is compiled: hooks that are added later are ignored"
                )
                original = "load or build the model anew, without its `compile()`"
            raise ModelError(Diagnostic("compiled-model", message, help=original))


def describe_model(
    module: nn.Module, tokenizer: Any, name: str, commit: str | None, loaded: Stamp | None
) -> Model:
    """A module with what can be read off it."""
    config = getattr(module, "config", None)
    floating = dict.fromkeys(p.dtype for p in module.parameters() if p.is_floating_point())
    dtypes = [str(dtype).removeprefix("torch.") for dtype in floating or [torch.float32]]
    return Model(
        module=module,
        tokenizer=tokenizer,
        name=name,
        revision=commit,
        class_name=type(module).__name__,
        dtype=" and ".join(dtypes),
        device=_input_device(module),
        attn=getattr(config, "_attn_implementation", None),
        context=context_length(module, tokenizer),
        is_encoder_decoder=getattr(config, "is_encoder_decoder", False) is True,
        loaded=loaded,
    )


def _input_device(module: nn.Module) -> torch.device:
    """Where inputs go: the first parameter's device, or that of a module split over several."""
    devices = (p.device for p in module.parameters() if p.device.type != "meta")
    return next(devices, torch.device("cpu"))


# --- options --------------------------------------------------------------------------------------


def _dtype(dtype: str) -> torch.dtype | str:
    if dtype not in _DTYPES:
        raise _usage("unknown-dtype", f"unknown dtype `{dtype}`", dtype, _DTYPES)
    return "auto" if dtype == "auto" else getattr(torch, dtype)


def _device(device: str) -> torch.device:
    count = torch.cuda.device_count() if torch.cuda.is_available() else 0
    if device == "auto":
        return torch.device("cuda" if count else "cpu")
    known = ("auto", "cpu", "cuda", "cuda:0")
    try:
        place = torch.device(device)
    except RuntimeError:
        raise _usage("unknown-device", f"unknown device `{device}`", device, known) from None
    if place.type not in {"cpu", "cuda"}:
        raise _usage("unknown-device", f"the device `{device}` is not supported", device, known)
    if place.type == "cuda" and (place.index or 0) >= count:
        here = "no CUDA device" if not count else "only cuda:0"
        here = f"only cuda:0 to cuda:{count - 1}" if count > 1 else here
        message = f"there is no device `{device}`: this machine has {here}"
        help = "give another, or leave `--device` out"
        raise UsageError(Diagnostic("no-such-device", message, help=help))
    return place


def _check_attention(attn: str | None) -> None:
    if attn is None:
        return
    from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

    known = ["eager", *ALL_ATTENTION_FUNCTIONS.valid_keys()]
    if attn not in known:
        message = f"unknown attention implementation `{attn}`"
        raise _usage("unknown-attention", message, attn, sorted(known))


def _usage(code: str, message: str, word: str, known: Any) -> UsageError:
    notes = (f"known: {listing(list(known))}",)
    return UsageError(Diagnostic(code, message, help=did_you_mean(word, known), notes=notes))


def _placed_already(module: nn.Module) -> bool:
    """Quantised modules are placed by their quantiser and refuse to be moved."""
    return getattr(module, "quantization_method", None) is not None
