"""Which modules a class filter means: ``isa Linear``, ``isa linear``; and which ever compute."""

from __future__ import annotations

import fnmatch
import re
from collections.abc import Callable, Iterable

from torch import nn


def is_a(module: nn.Module, isa: str) -> bool:
    """Whether the module's class or a base class has that name; ``linear`` is any affine map."""
    if isa == "linear":
        return _is_affine(module)
    fits = glob([isa])
    return any(fits(cls.__name__) for cls in type(module).__mro__)


def _is_affine(module: nn.Module) -> bool:
    """nn.Linear, transformers' Conv1D, and quantised kinds, known by name and by their widths."""
    if isinstance(module, nn.Linear):
        return True
    names = [cls.__name__ for cls in type(module).__mro__]
    if "Conv1D" in names:
        return hasattr(module, "nf")
    widths = hasattr(module, "in_features") and hasattr(module, "out_features")
    widths = widths or (hasattr(module, "infeatures") and hasattr(module, "outfeatures"))
    return widths and any("linear" in name.lower() for name in names)


def glob(patterns: Iterable[str]) -> Callable[[str], bool]:
    """Whether a name matches one of the patterns, whose only wildcards are ``*`` and ``?``."""
    regex = re.compile("|".join(fnmatch.translate(p.replace("[", "[[]")) for p in patterns))
    return lambda name: regex.match(name) is not None


def computes(module: nn.Module) -> bool:
    """Whether the module has a forward of its own: `nn.ModuleList` and its kin have none."""
    return "forward" in vars(module) or type(module).forward is not nn.Module.forward
