"""What a run hands over: plain numbers of each capture at each hook point, not yet labelled."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Any

import numpy as np
from attrs import frozen

from hookql.language.query import StatisticSpec


@frozen(eq=False)
class SiteResult:
    """The numbers of one hook point, or of the layers of one role pooled.

    ``module`` is a full name, or those of all pooled layers, whose ``layer`` is None. ``variables``
    have shape (calls, *axes) if calls > 1 and else axes, or () for one number; ``axes`` are the
    names of what is left after pooling. ``first_nonfinite`` is a (sample, position).
    """

    module: str | tuple[str, ...]
    layer: int | None
    role: str
    calls: int
    axes: tuple[str, ...]
    count: int
    variables: Mapping[str, np.ndarray[Any, Any]]
    nonfinite: int = 0
    first_nonfinite: tuple[int, int] | None = None


@frozen(eq=False)
class CaptureResult:
    """The numbers of one capture; ``text`` is its canonical text, ``pool`` what it pools."""

    name: str
    text: str
    statistics: Sequence[StatisticSpec]
    sites: Sequence[SiteResult]
    attributes: Mapping[str, object]
    pool: Collection[str] = ()
