"""Which rules are on: the option, its mistakes, and that each rule has its file."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

import hookql
from hookql.errors import UsageError
from hookql.optimizer.rules import ALL, RULES, chosen


@pytest.mark.parametrize(
    ("given", "on"),
    [
        (None, ALL),
        (True, ALL),
        ("all", ALL),
        (False, frozenset()),
        ("none", frozenset()),
        ("-rows", ALL - {"rows"}),
        ("-rows, -depth", ALL - {"rows", "depth"}),
        ("none,+rows", {"rows"}),
        ("all,-rows,+rows", ALL),
    ],
)
def test_chosen(given: Any, on: frozenset[str]) -> None:
    """Changes start from all, or from none where that is said first."""
    assert on == chosen(given)


def test_mistakes(golden: Any) -> None:
    """Said with the rules that there are."""
    said = []
    for given in ("rows", "+row", "-", "", "+rows,", "none,all", "rows,+depth", 3):
        with pytest.raises(UsageError) as caught:
            chosen(given)  # type: ignore[arg-type]
        said.append(f"{given!r}\n{caught.value}\n")
    golden("diagnostics/optimize.txt", "\n".join(said))


def test_each_rule_has_its_file() -> None:
    """A rule's code is in the file of its name."""
    folder = Path(hookql.__file__).parent / "optimizer"
    missing = [name for name in RULES if not (folder / f"{name}.py").is_file()]
    assert [] == missing
