"""Statistics: streaming accumulators, and what is read off them. Importing this needs no torch."""

from hookql.statistics.core import (
    STATISTICS,
    Accumulator,
    Parameter,
    Statistic,
    accumulators,
    statistic,
)

__all__ = ["STATISTICS", "Accumulator", "Parameter", "Statistic", "accumulators", "statistic"]
