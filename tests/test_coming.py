"""The pages for those who come from elsewhere say all that they promise, in code that parses.

Our side of each pair runs with the other pages' Python, in tests/test_docs.py; what theirs needs is
not installed here.
"""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

DOCS = Path(__file__).parent.parent / "docs"
# What mi-crow's guide to detectors does, in its order.
GUIDE = (
    "Capture a layer",
    "Model input",
    "Model output",
    "Running statistics",
    "Accumulating batches",
    "Saving",
    "Many layers",
    "One example at a time",
    "Activations for an SAE",
    "Top activating texts",
    "Clearing",
    "Memory",
    "Errors",
    "Metadata",
)
# Of these the guide has words, and no code.
WORDS = {"Clearing", "Memory", "Errors", "Metadata"}


def sections(page: str) -> dict[str, str]:
    """The text under each heading of the second level."""
    text = (DOCS / page).read_text(encoding="utf-8")
    parts = re.split(r"^## (.+)$", text, flags=re.MULTILINE)
    return dict(zip(parts[1::2], parts[2::2], strict=True))


def fences(text: str, language: str) -> list[str]:
    """The blocks of a language."""
    return re.findall(rf"^```{language}\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)


@pytest.mark.parametrize("thing", GUIDE)
def test_each_thing_of_the_guide_is_shown(thing: str) -> None:
    """Each has code of ours that runs, beside theirs where the guide has code, and a line above."""
    found = sections("coming-from-mi-crow.md")[thing]
    assert fences(found, "python")
    assert (thing in WORDS) == (not fences(found, "py"))
    table = (DOCS / "coming-from-mi-crow.md").read_text(encoding="utf-8").partition("```")[0]
    assert f"](#{thing.lower().replace(' ', '-')})" in table


@pytest.mark.parametrize("page", sorted(p.name for p in DOCS.glob("coming-from-*.md")))
def test_what_is_not_run_is_marked_and_parses(page: str) -> None:
    """Blocks of other libraries say whose they are in their first line, and are Python."""
    text = (DOCS / page).read_text(encoding="utf-8")
    names = {"mi-crow", "nnsight", "TransformerLens"}
    for block in fences(text, "py"):
        assert any(block.startswith(f"# {name}") for name in names)
        assert ast.parse(block).body


@pytest.mark.parametrize("page", sorted(p.name for p in DOCS.glob("coming-from-*.md")))
def test_each_page_says_what_is_not_there(page: str) -> None:
    """Each page has a heading for what the other does and HookQL does not."""
    found = [text for name, text in sections(page).items() if "not" in name or "stays" in name]
    assert 1 == len(found)
    assert "only looks" in (DOCS / page).read_text(encoding="utf-8")
