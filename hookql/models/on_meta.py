"""Models without their weights: built from the config alone, followed by the shapes of a pass."""

from __future__ import annotations

import contextlib
import copy
import inspect
import logging
import re
from collections.abc import Iterator, Sequence
from typing import Any

import torch
from attrs import evolve
from safetensors import safe_open
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode

from hookql.models.feed import Feed, TokenFeed
from hookql.models.hooks import observing, traced
from hookql.models.learning import Seen, learn
from hookql.models.load import Model, Recipe, describe_model
from hookql.models.mixing import Mixing
from hookql.models.paranoid import paranoid
from hookql.models.ports import HookPoint
from hookql.models.pretrained import quiet
from hookql.models.probe import Probe, sort_in
from hookql.models.safety import bounded
from hookql.models.signals import logits_point, unfit_logits
from hookql.models.trial import run_once

_DTYPES = {"F64": torch.float64, "F32": torch.float32, "F16": torch.float16, "BF16": torch.bfloat16}
_VALUES = "whether equal runs give equal values, and rows follow their samples and tokens"
_MIXING = "whether padding, or other samples of a batch, change a sample's values"
_PATTERNS = "which keys a query sees"
_CAUSAL = "whether the prediction knows no later token"


def can_be_on_meta(recipe: Recipe) -> bool:
    """Whether a config alone says how the model is built: neither GGUF, adapters, code of others
    nor quantised weights, and no map of devices that asks for the sizes of weights."""
    own = hasattr(recipe.loader, "config_class")
    folder, config = recipe.folder, recipe.config
    adapted = folder is not None and (folder / "adapter_config.json").exists()
    quantised = getattr(config, "quantization_config", None) is not None
    return (
        own and folder is not None and not (adapted or quantised or "device_map" in recipe.options)
    )


def is_on_meta(model: Model) -> bool:
    """Whether no weight of a model is in memory."""
    parameters = list(model.module.parameters())
    return bool(parameters) and all(parameter.is_meta for parameter in parameters)


def model_on_meta(recipe: Recipe) -> Model:
    """The whole model with every tensor on the meta device: modules, shapes and dtypes.

    Raises whatever the class raises that is built.
    """
    config = copy.deepcopy(recipe.config)
    asked = recipe.options["dtype"]
    dtype = asked if isinstance(asked, torch.dtype) else (config.dtype or _stored_dtype(recipe))
    more = {k: v for k, v in recipe.options.items() if k == "attn_implementation"}
    if "add_pooling_layer" in inspect.signature(recipe.loader.__init__).parameters:
        more["add_pooling_layer"] = _has_pooler(recipe)
    with quiet(), bounded(None), torch.device("meta"):
        module = recipe.loader._from_config(config, dtype=dtype, **more)
    _keep_in_float32(module, dtype)
    module.tie_weights()
    for part in module.modules():
        part.training = False
    found = describe_model(module, recipe.tokenizer, recipe.name, recipe.checkpoint.commit, None)
    return evolve(found, device=recipe.place)


def _stored_dtype(recipe: Recipe) -> torch.dtype:
    """What a checkpoint is loaded as whose config does not say: the type of its first weights."""
    assert recipe.folder is not None
    files = sorted(recipe.folder.glob("model*.safetensors")) or [
        *recipe.folder.glob("*.safetensors")
    ]
    for file in files[:1]:
        with contextlib.suppress(Exception), safe_open(file, "pt") as opened:
            for name in opened.keys():  # noqa: SIM118
                found = _DTYPES.get(opened.get_slice(name).get_dtype())
                if found is not None:
                    return found
    return torch.float32


def _keep_in_float32(module: nn.Module, dtype: torch.dtype) -> None:
    """The weights that a class keeps in float32 whatever the rest is loaded as."""
    named: Any = getattr(module, "_get_dtype_plan", None)
    # As transformers looks for them: anywhere in the name of a weight.
    kept = "|".join(map(str, named(dtype))).replace("*", ".*") if named is not None else ""
    for path, part in module.named_modules() if kept else ():
        for name, tensor in part._parameters.items():
            whole = f"{path}.{name}" if path else name
            if tensor is not None and re.search(kept, whole):
                part._parameters[name] = nn.Parameter(tensor.float(), tensor.requires_grad)


def _has_pooler(recipe: Recipe) -> bool:
    """Whether a checkpoint has the layer that encoders are often saved without; or none is here."""
    names: list[str] = []
    assert recipe.folder is not None
    for file in sorted(recipe.folder.glob("*.safetensors")):
        with contextlib.suppress(Exception), safe_open(file, "pt") as opened:
            names += opened.keys()
    return not names or any(".pooler." in f".{name}" for name in names)


def probe_shapes(model: Model, points: Sequence[HookPoint], feed: Feed) -> Probe:
    """What a pass without numbers tells of a model on the meta device: shapes, order, the stop.

    What only numbers tell is named in ``open``. Raises ModelError `probe-failed` where the pass
    depends on numbers.
    """
    sizes = feed.sizes()
    measured = [feed.measure(size) for size in sizes]
    examples = [feed.example(size) for size in sizes]
    events: list[tuple[str, str]] = []
    absent: dict[HookPoint, Any] = {}
    with observing(model.module), paranoid(False), without_numbers(model):
        with traced(model.module, events):
            first = run_once(model, points, examples[0], absent, only_shapes=True)
        enough = _enough(events, {point: len(first[point]) for point in points})
        runs = [first]
        for example in examples[1:]:
            runs.append(run_once(model, points, example, absent, True, enough))
    seen: dict[HookPoint, Seen] = {}
    problems: dict[HookPoint, Any] = {}
    for point in points:
        found = absent.get(point) or learn(model, point, runs, measured, events, feed.has_target)
        sort_in(point, found, seen, problems)
    still = [_VALUES, _MIXING]
    if any(point.side == "pattern" for point in seen):
        still.append(_PATTERNS)
    logits = logits_point(model)
    if isinstance(feed, TokenFeed) and logits in seen:
        assert isinstance(logits, HookPoint)
        unfit = unfit_logits(model, seen[logits], feed.vocabulary)
        sort_in(logits, unfit or seen[logits], seen, problems)
        still.append(_CAUSAL)
    return Probe(seen, problems, tuple(events), Mixing.NONE, None, tuple(still))


def _enough(
    events: Sequence[tuple[str, str]], calls: dict[HookPoint, int]
) -> tuple[tuple[str, str], dict[HookPoint, int]] | None:
    """Where a pass can be left, after how many calls of each point; None: at its end.

    A module without numbers is as slow as one with few: most of a deep model is left out.
    """
    wanted = {point.event for point in calls}
    after = 1 + max((n for n, event in enumerate(events) if event in wanted), default=-1)
    whole = after >= len(events) or not all(calls.values())
    return None if whole else (events[after], calls)


@contextlib.contextmanager
def without_numbers(model: Model) -> Iterator[None]:
    """While the model's tensors have devices, shapes and dtypes, but neither numbers nor memory.

    Experts are run the one way that needs no counts of rows; this changes no shape.
    """
    config: Any = getattr(model.module, "config", None)
    experts = getattr(config, "_experts_implementation", None)
    kept = [(p, dict(p._parameters), dict(p._buffers)) for p in model.module.modules()]
    fakes: dict[int, Tensor] = {}
    chatter = logging.getLogger("torch._subclasses.fake_tensor")
    was_silent = chatter.disabled

    def fake(tensor: Tensor) -> Tensor:
        if id(tensor) not in fakes:
            made = torch.empty(tensor.shape, dtype=tensor.dtype, device=model.device)
            made = nn.Parameter(made, False) if isinstance(tensor, nn.Parameter) else made
            fakes[id(tensor)] = made
        return fakes[id(tensor)]

    try:
        chatter.disabled = True  # an error is said by whoever catches it
        if experts == "grouped_mm":
            config._experts_implementation = "batched_mm"
        with FakeTensorMode(allow_non_fake_inputs=True):
            for part, parameters, buffers in kept:
                for name, tensor in (parameters | buffers).items():
                    place: Any = part._parameters if name in parameters else part._buffers
                    place[name] = None if tensor is None else fake(tensor)
            yield
    finally:
        chatter.disabled = was_silent
        if experts == "grouped_mm":
            config._experts_implementation = experts
        for part, parameters, buffers in kept:
            part._parameters.update(parameters)
            part._buffers.clear()
            part._buffers.update(buffers)
