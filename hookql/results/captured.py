"""What a run hands over: plain numbers of each capture at each hook point, not yet labelled."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any

import numpy as np
from attrs import field, frozen

from hookql.language.query import StatisticSpec

Array = np.ndarray[Any, Any]


@frozen(eq=False)
class GroupAxis:
    """One `by` key: its value for each of the G groups (several groups may share one).

    ``values`` (G,) are int64, float64, bool or text; ``texts`` (G,) what the tokens of a key of
    token ids spell, None for other keys.
    """

    name: str
    values: Array
    texts: Array | None = None
    long_name: str = ""


@frozen(eq=False)
class SiteResult:
    """The numbers of one hook point, or of the layers of one role pooled.

    ``module`` is a full name, or those of all pooled layers, whose ``layer`` is None.

    ``variables`` have shape ([calls,] [G,] \\*axes, \\*extra): calls where there are several, G
    where the capture is grouped, ``extra`` the statistic's own dimensions. ``variable_axes`` names
    the axes of each; one that is not in it has ``axes``, or none where its shape leaves no room.
    A statistic of several arrays has them as ``top``, ``top_sample``, ... Any may be memory-mapped.
    The rows of `values` are written elsewhere: here stands an array of their shape ([calls,] rows,
    \\*axes) and dtype that holds nothing.

    ``count`` is the rows kept, int64 (G,) if grouped; ``counts`` has the statistics (by variable)
    that took in fewer. ``coordinates`` are the labels of axes that are not 0, 1, 2, ...;
    ``variable_coordinates`` the same for one variable. ``first_nonfinite`` is a (sample, position).
    """

    module: str | tuple[str, ...]
    layer: int | None
    role: str
    calls: int
    axes: tuple[str, ...]
    count: int | Array
    variables: Mapping[str, Array]
    nonfinite: int = 0
    first_nonfinite: tuple[int, int] | None = None
    counts: Mapping[str, int | Array] = field(factory=dict)
    variable_axes: Mapping[str, tuple[str, ...]] = field(factory=dict)
    coordinates: Mapping[str, Array] = field(factory=dict)
    variable_coordinates: Mapping[str, Mapping[str, Array]] = field(factory=dict)


@frozen(eq=False)
class CaptureResult:
    """The numbers of one capture; ``text`` is its canonical text, ``pool`` what it pools.

    ``keys`` are all G long and together say what each group is; () if not grouped. ``token_text``
    says what ids spell, for the results that hold ids.
    """

    name: str
    text: str
    statistics: Sequence[StatisticSpec]
    sites: Sequence[SiteResult]
    attributes: Mapping[str, object]
    pool: Collection[str] = ()
    keys: tuple[GroupAxis, ...] = ()
    token_text: Callable[[Sequence[int]], list[str]] | None = None
    own: bool = False  # whether each module keeps rows of its own, by its own values
    samples: int = 0  # how many samples there are, which raw rows are counted by
