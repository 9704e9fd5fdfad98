"""Fixtures of the tests of training data."""

from __future__ import annotations

import pytest

from hookql.training.finding import find


@pytest.fixture
def at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Files are looked into here, not in a process of its own, which takes its time."""
    monkeypatch.setattr("hookql.training.entry.look", find)
