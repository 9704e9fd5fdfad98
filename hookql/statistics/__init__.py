"""Statistics: streaming accumulators, and what is read off them. Importing this needs no torch."""

from hookql.statistics.core import (
    STATISTICS,
    Accumulator,
    GroupedAccumulator,
    Parameter,
    Statistic,
    accumulators,
    state_key,
    statistic,
)
from hookql.statistics.groups import Groups
from hookql.statistics.places import Places

__all__ = [
    "STATISTICS",
    "Accumulator",
    "GroupedAccumulator",
    "Groups",
    "Parameter",
    "Places",
    "Statistic",
    "accumulators",
    "state_key",
    "statistic",
]
