"""What the tests of expressions share: texts compiled for a site of known axes."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from hookql.errors import Diagnostic, Source
from hookql.expressions import Axes, Expression, Lens, compile_expression
from hookql.language import ast
from hookql.language.parser import parse

FEATURES = Axes(("feature",), (6,))
HEADS = Axes(("head", "feature"), (3, 4))
PATTERN = Axes(("head", "key"), (3, None))
NO_LEAVES: Mapping[ast.Expression, str] = {}


def read(text: str) -> tuple[ast.Expression, Source]:
    """The expression of a statistic, and the query around it."""
    program = parse(f"capture mean({text}) from h")
    capture = program.statements[0]
    assert isinstance(capture, ast.Capture)
    arguments = capture.statistics[0].arguments
    assert arguments is not None
    return arguments[0].value, program.source


def compiled(
    text: str,
    axes: Axes | Mapping[str, Axes] = FEATURES,
    leaves: Mapping[ast.Expression, str] = NO_LEAVES,
    lens: Lens | Diagnostic | None = None,
) -> Expression:
    """An expression compiled; one `Axes` alone is that of `x`, `input` and `output`."""
    if isinstance(axes, Axes):
        axes = {"x": axes, "input": axes, "output": axes}
    node, source = read(text)
    return compile_expression(node, axes, leaves, lens, source)


class Unembedding:
    """A lens that is one matrix, and counts the rows of each call."""

    def __init__(self, width: int, vocabulary: int) -> None:
        self.width, self.vocabulary = width, vocabulary
        generator = torch.Generator().manual_seed(0)
        self.matrix = torch.randn(width, vocabulary, generator=generator)
        self.calls: list[int] = []

    def __call__(self, rows: Tensor) -> Tensor:
        self.calls.append(len(rows))
        return rows.float() @ self.matrix
