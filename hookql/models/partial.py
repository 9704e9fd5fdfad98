"""Loading a part of a model: its whole tree of modules, of which only some get their weights.

The class that the checkpoint names is built from its whole config, so that all it computes stays
what it was. Modules that a pass does not reach are taken out before the weights are read, and put
back on the meta device afterwards: what has no numbers can give none.
"""

from __future__ import annotations

import functools
from collections.abc import Collection, Sequence
from typing import Any

from torch import Tensor, nn

from hookql.models.feed import TokenFeed
from hookql.models.hooks import observing, traced
from hookql.models.load import Model, Part, Recipe, load_recipe
from hookql.models.trial import run_once

Events = Sequence[tuple[str, str]]


def unneeded(module: nn.Module, events: Events, leave: int, also: Collection[str]) -> list[str]:
    """The outermost modules with weights that nothing needs of a pass left at an event.

    ``events`` are those of the whole pass, ``also`` names modules that are needed besides. A module
    stays if anything in it runs earlier, if it never runs (others may read its weights), or if it
    shares a weight with one that stays.
    """
    first: dict[str, int] = {}
    for number, (_, name) in enumerate(events):
        first.setdefault(name, number)
    names = dict(module.named_modules())
    tied = _tied(module)
    found: list[str] = []
    for name, part in names.items():
        if not name or any(name.startswith(f"{outer}.") for outer in found):
            continue
        inner = [n for n, _ in part.named_modules(prefix=name, remove_duplicate=False)]
        late = first.get(name, -1) >= leave and all(first.get(n, leave) >= leave for n in inner)
        wanted = any(n in also for n in inner) or any(name.startswith(f"{n}.") for n in also)
        # A pooler is built or not after what the checkpoint holds.
        if not late or wanted or name.rpartition(".")[2] == "pooler" or not _own(part):
            continue
        if not any(n in tied for n, _ in part.named_parameters(name, remove_duplicate=False)):
            found.append(name)
    return _unshared(module, found)


def _own(part: nn.Module) -> list[Tensor]:
    return [*part.parameters(), *part.buffers()]


def _tied(module: nn.Module) -> set[str]:
    """Parameters that share their numbers with others, as their class says."""
    known: Any = getattr(module, "all_tied_weights_keys", None) or {}
    return {*known, *known.values()}


def _unshared(module: nn.Module, found: list[str]) -> list[str]:
    """Without those of which a module or a tensor is in use elsewhere too."""
    places: dict[int, set[str]] = {}
    for path, part in module.named_modules(remove_duplicate=False):
        things = [part, *part._parameters.values(), *part._buffers.values()]
        for thing in things:
            if thing is not None:
                places.setdefault(id(thing), set()).add(path)

    def inside(path: str, name: str) -> bool:
        return path == name or path.startswith(f"{name}.")

    return [
        name
        for name in found
        if all(inside(path, name) for paths in places.values() for path in paths
               if any(inside(other, name) for other in paths))
    ]  # fmt: skip


def bytes_of(module: nn.Module, left_out: Collection[str] = ()) -> int:
    """The bytes of a module's weights, each once, without those of the modules left out."""
    tensors: dict[int, int] = {}
    for path, part in module.named_modules():
        if not any(path == name or path.startswith(f"{name}.") for name in left_out):
            for tensor in part._parameters.values():
                if tensor is not None:
                    tensors[id(tensor)] = tensor.numel() * tensor.element_size()
    return sum(tensors.values())


def load_part(
    recipe: Recipe, whole: nn.Module, events: Events, leave: int, left_out: Sequence[str]
) -> Model | None:
    """The model with the weights that a pass left at an event needs; None where that is not sure.

    It must have the modules, with the shapes, of the ``whole`` on the meta device, weights but in
    the modules ``left_out``, and run in one pass what ``events`` say. Raises what
    `load_model` raises of the weights that are read.
    """
    taken: dict[str, nn.Module] = {}

    def put_back(module: nn.Module) -> Part:
        for name, part in taken.items():
            parent, _, last = name.rpartition(".")
            module.get_submodule(parent)._modules[last] = part
        module.__class__ = recipe.loader
        sizes = bytes_of(module, left_out), bytes_of(module)
        return Part(tuple(events), events[leave], tuple(left_out), *sizes)

    model = load_recipe(recipe, _without(recipe.loader, left_out, taken), put_back)
    sure = _alike(model.module, whole) and _as_asked(model.module, left_out)
    return model if sure and _runs_alike(model) else None


def _alike(one: nn.Module, other: nn.Module) -> bool:
    """Whether two models have the same modules with parameters of the same shapes."""

    def shape(root: nn.Module) -> list[tuple[str, type, list[tuple[str, Any]]]]:
        return [
            (name, type(part), [(k, p.shape) for k, p in part._parameters.items() if p is not None])
            for name, part in root.named_modules(remove_duplicate=False)
        ]

    return shape(one) == shape(other)


def _as_asked(module: nn.Module, left_out: Sequence[str]) -> bool:
    """Whether exactly the weights and buffers in those modules are missing."""
    tensors = [*module.named_parameters(), *module.named_buffers()]
    return all(
        tensor.is_meta == any(name.startswith(f"{part}.") for part in left_out)
        for name, tensor in tensors
    )


def _without(loader: Any, left_out: Sequence[str], taken: dict[str, nn.Module]) -> Any:
    """The class, whose instances lack modules: they are put into ``taken``."""

    @functools.wraps(loader.__init__)
    def init(self: nn.Module, *args: Any, **kwargs: Any) -> None:
        loader.__init__(self, *args, **kwargs)
        taken.clear()
        for name in left_out:
            parent, _, last = name.rpartition(".")
            owner = self.get_submodule(parent)
            taken[name] = owner.get_submodule(last)
            owner._modules[last] = nn.Identity()

    same = {"__module__": loader.__module__, "__init__": init}
    return type(loader.__name__, (loader,), same)


def _runs_alike(model: Model) -> bool:
    """Whether a pass runs what it is to run, and can, up to where it is left."""
    assert model.part is not None
    feed, events = TokenFeed(model), list[tuple[str, str]]()
    with observing(model.module), traced(model.module, events):
        run_once(model, (), feed.example(feed.sizes()[0]))
    whole = model.part.events
    return events == list(whole[: len(events)]) and events[-1:] == [model.part.leave]
