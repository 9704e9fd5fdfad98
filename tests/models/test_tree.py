"""`hookql modules`: what the tree of a model says, and that its lines are sites."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from torch import nn

from hookql.errors import QueryError, Source
from hookql.language import ast
from hookql.language.parser import parse
from hookql.models.load import wrap_model
from hookql.models.paths import computes, match_sites
from hookql.models.tree import render_modules
from tests.tiny import NAMES, tiny


@pytest.mark.parametrize("name", ["gpt2", "t5", "mixtral"])
def test_whole_tree(name: str, golden: Callable[[str, str], None]) -> None:
    """Classes, weights and sites; equal layers once, tied weights said."""
    module, tokenizer, _ = tiny(name)
    golden(f"models/tree/{name}.txt", render_modules(wrap_model(module, tokenizer)))


@pytest.mark.parametrize("name", NAMES)
def test_lines_are_the_sites_of_all_modules(name: str) -> None:
    """Each line begins with a site, and together they select every module that computes."""
    module = tiny(name)[0]
    text = render_modules(wrap_model(module))
    assert max(map(len, text.splitlines())) <= 100
    lines = text.splitlines()[2:]
    # A class that did not fit beside its site stands alone, far to the right.
    sites = [line.split()[0] for line in lines if line[0] != " " or len(line) < 3 or _is_site(line)]
    program = parse("capture count from " + ", ".join(sites))
    capture = program.statements[0]
    assert isinstance(capture, ast.Capture)
    found = [match.module for match in match_sites(module, capture.sites, (), program.source)]
    assert [n for n, m in module.named_modules() if n and computes(m)] == found


def _is_site(line: str) -> bool:
    return len(line) - len(line.lstrip()) < 20 and "." in line.split()[0]


def test_filter(golden: Callable[[str, str], None]) -> None:
    """A pattern leaves what it matches, and folds only what it matches alike."""
    model = wrap_model(tiny("gpt2")[0])
    pattern = "h[0:2].attn, h[3].**, ** isa linear except lm_head"
    golden("models/tree/filtered.txt", render_modules(model, pattern))


@pytest.mark.parametrize(
    ("pattern", "code"),
    [("h[9]", "index-out-of-range"), ("h[0] where true", "bad-pattern"), ("h[0].atn", None)],
)
def test_wrong_patterns(pattern: str, code: str | None) -> None:
    """What is wrong with a pattern is shown in the pattern alone."""
    with pytest.raises(QueryError) as caught:
        render_modules(wrap_model(tiny("gpt2")[0]), pattern)
    assert (code or "unknown-module") == caught.value.code
    assert Source(pattern, "<pattern>") == (
        caught.value.diagnostics[0].source or Source(pattern, "<pattern>")
    )


def test_layers_that_differ_are_not_folded_together() -> None:
    """Alternating kinds of layers are two lines with their own indices."""
    layers = nn.ModuleList([nn.Linear(2, 2) if i % 2 else nn.ReLU() for i in range(6)])
    root = nn.Module()
    root.layers = layers
    lines = [line.split()[:3] for line in render_modules(wrap_model(root)).splitlines()[2:]]
    expected = [["layers[0:5:2]", "ReLU", "x3"], ["layers[1:6:2]", "Linear", "x3"]]
    assert expected == lines


def test_modules_under_a_second_name_are_shown_as_such() -> None:
    """A shared module's second line names the first, and does not repeat what is below."""
    shared = nn.Sequential(nn.Linear(1, 1))
    text = render_modules(wrap_model(nn.ModuleDict({"a": shared, "b": shared})))
    assert text.splitlines()[-1].split() == ["b", "Sequential", "is", "a"]
