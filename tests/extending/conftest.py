"""Pieces that are there during one test."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from hookql.extending import column, function
from hookql.statistics import statistic
from tests.extending import made


@pytest.fixture(autouse=True)
def pieces() -> Iterator[None]:
    """Offer what tests/extending/made.py has."""
    with made.pieces_as_before():
        statistic("gini")(made.Gini)
        statistic("spread")(made.Spread)
        function("squash")(made.squash)
        function("gap", axes="last")(made.gap)
        column("odd", "truth")(made.odd)
        column("before", "id")(made.before)
        yield
