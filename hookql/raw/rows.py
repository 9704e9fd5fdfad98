"""What a raw row is: the dtype that its expression gives, found by giving it a row of zeros."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch

from hookql.detectors import Detector
from hookql.expressions import Rows
from hookql.plan import Asked


def row_dtype(detector: Detector, asked: Asked) -> np.dtype[Any]:
    """float32 where the expression rounds nothing and the source has no more, else float64."""
    if asked.expression.kind == "truth":
        return np.dtype(np.float32)
    operands = {}
    for name, seen in detector.watched.seen.items():
        sizes = [size or 1 for size in seen.sizes]
        row = torch.zeros((1, *sizes), dtype=seen.dtype)
        view = detector.watched.place.view
        operands[name] = row if view is None or name != "x" else view(row)
    leaves = {leaf: torch.zeros(1) for leaf in asked.expression.leaves}
    values = asked.expression(Rows(operands, leaves))
    return np.dtype(np.float64 if values.dtype == torch.float64 else np.float32)
