"""What the engine's tests share."""

from __future__ import annotations

import gc
from collections.abc import Iterator

import pytest


@pytest.fixture(autouse=True)
def _little_to_collect() -> Iterator[None]:
    """Each failure for memory collects garbage; what was there before the test need not be seen."""
    gc.freeze()
    yield
    gc.unfreeze()
