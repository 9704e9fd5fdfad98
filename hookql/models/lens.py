"""The logit lens: what the model would predict from the stream at any depth.

Rows of the stream go through the final norm and the unembedding, with every scale and cap that the
family puts around them. Modules' ``forward`` is called, never the modules: hooks stay untouched.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from attrs import field, frozen
from torch import Tensor, nn

from hookql.errors import Diagnostic
from hookql.models.canonical import Anatomy, anatomy
from hookql.models.families.table import Step
from hookql.models.load import Model


@frozen(eq=False)
class Lens:
    """Makes logits (n, ``vocabulary``) of rows (n, ``width``) of the stream.

    ``stream`` is "target" where the rows must be a decoder's, of the blocks below ``blocks``.
    Logits have the dtype that the model's own have. Nothing is moved but the rows, to the device of
    the modules; call it without gradients.
    """

    width: int
    vocabulary: int
    stream: str
    blocks: str
    head: nn.Module = field(repr=False)
    steps: tuple[nn.Module | Callable[[Tensor, Any], Tensor], ...] = field(repr=False)
    config: Any = field(repr=False)

    def __call__(self, rows: Tensor) -> Tensor:
        """Logits of the rows, which are first cast to the model's own dtype."""
        rows = _onto(self.head, rows)
        for step in self.steps:
            if isinstance(step, nn.Module):
                rows = step.forward(_onto(step, rows))
            else:
                rows = step(rows, self.config)
        return rows


def find_lens(model: Model) -> Lens | Diagnostic:
    """The lens of a model; a diagnostic without a place where its family is unknown or headless."""
    found = anatomy(model.module)
    if isinstance(found, Diagnostic):
        return found
    problem = found.headless
    if problem is not None:
        return problem
    steps = tuple(_step(found, step) for step in found.family.head if not _is_absent(found, step))
    if None in steps:
        message = f"the head of this {found.family.name} model is not the family's own"
        return Diagnostic("no-head", message)
    head = next(step for step in reversed(steps) if isinstance(step, nn.Module))
    vocabulary = getattr(head, "out_features", None) or found.config.vocab_size
    blocks = found.path(found.family.lens_blocks or found.family.blocks)
    # A model that somebody wrote may have no config; its head says how wide a row is.
    width: Any = getattr(found.config, "hidden_size", None) or head.in_features
    return Lens(int(width), int(vocabulary), found.family.stream, blocks, head, steps, found.config)


def _step(found: Anatomy, step: Step) -> Any:
    """The module of a step, or its function."""
    return step if callable(step) else found.find(step.removeprefix("?"))


def _is_absent(found: Anatomy, step: Step) -> bool:
    """Whether a step is a module that the design may leave out, and that this model leaves out."""
    return isinstance(step, str) and step.startswith("?") and _step(found, step) is None


def _onto(module: nn.Module, rows: Tensor) -> Tensor:
    """Rows where the module's weights are, in their dtype; as they are for one without weights."""
    for parameter in module.parameters(recurse=False):
        if parameter.is_floating_point() and parameter.device.type != "meta":
            return rows.to(device=parameter.device, dtype=parameter.dtype)
    return rows if rows.dtype != torch.float64 else rows.float()
