"""`StatisticsDetector`: a site's rows into the statistics that queries have, as they come by."""

from __future__ import annotations

from collections.abc import Hashable
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from hookql.attached.detector import Detector
from hookql.attached.keys import statistics
from hookql.attached.rows import reducible, same_axes, token_rows
from hookql.errors import Diagnostic, UsageError
from hookql.language import ast
from hookql.language.query import StatisticSpec
from hookql.models.hooks import undisturbed
from hookql.statistics import STATISTICS
from hookql.statistics.core import accumulators, state_key


class StatisticsDetector(Detector):
    """Running statistics of a site's rows, one row for each token that is no padding.

    >>> with attach(model, {"h[*]": lambda: StatisticsDetector("mean", "std")}) as found: ...

    Padding is read from the model's own call, on either side. Nothing of a pass is kept. The site's
    tensor must have (samples, positions) as its first axes; a query finds the axes by itself, and
    takes predicates and expressions.
    """

    shareable: ClassVar[bool] = False

    def __init__(self, *names: str) -> None:
        """``names``: as a query writes them, ``"mean"``, ``"quantile(0.5, 0.99)"``; mean and std.

        Raises QueryError for what is no statistic, or one that needs a query.
        """
        self._specs = statistics(", ".join(names or ("mean", "std")))
        for spec in self._specs:
            _check(spec)
        self._states = self._fresh()
        self._axes: tuple[int, ...] | None = None
        self._device = torch.device("cpu")
        self._count = 0

    def process_activations(self, module: nn.Module, input: tuple[Any, ...], output: Any) -> None:
        """Reduce one call's rows."""
        with undisturbed():
            rows = reducible(token_rows(self.call))
            self._axes, self._device = same_axes(rows, self._axes), rows.device
            for state in self._states.values():
                state.update(rows)
        self._count += len(rows)
        self.metadata["rows"] = self._count

    def get_captured(self) -> dict[str, Tensor]:
        """Each statistic by its name in a result, float64 of a row's shape; nothing before a row.

        What a statistic brings along stands beside it: ``hist``, ``hist_below``, ...
        """
        found: dict[str, Tensor] = {}
        if self._axes is None:
            return found
        for spec in self._specs:
            statistic = STATISTICS[spec.name]
            state = self._states[state_key(statistic, spec.parameters)]
            with undisturbed():
                value = statistic.finish(state, **spec.parameters)
            parts = value if isinstance(value, dict) else {"": value}
            found |= {f"{spec.variable}{suffix}": part for suffix, part in parts.items()}
        self.tensor_metadata = dict(found)
        return found

    def clear_captured(self) -> None:
        """Begin anew."""
        super().clear_captured()
        self._states, self._axes, self._count = self._fresh(), None, 0

    def _fresh(self) -> dict[Hashable, Any]:
        return accumulators((STATISTICS[spec.name], spec.parameters) for spec in self._specs)


def _check(spec: StatisticSpec) -> None:
    """Refuse what takes more than rows to know."""
    statistic = STATISTICS[spec.name]
    given = statistic, spec.parameters
    reason = None
    if statistic.raw:
        reason = f"`{spec.name}` keeps rows, which BatchAccumulator does"
    elif any(getattr(state, "places", False) for state in accumulators([given]).values()):
        reason = f"`{spec.name}` says where in the data its values stand, which only a query knows"
    elif spec.value != ast.Name("x"):
        reason = f"`{spec.name}` is of the site's rows alone here; a query works out expressions"
    if reason is not None:
        help = 'bind a query: `hookql.compile("capture ... from ...")`'
        raise UsageError(Diagnostic("needs-query", reason, help=help))
