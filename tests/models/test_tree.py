"""`hookql modules`: what the tree of a model says, and that its lines are sites."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from torch import nn

from hookql.errors import QueryError, Source
from hookql.language import ast
from hookql.language.parser import parse
from hookql.models.classes import computes
from hookql.models.load import wrap_model
from hookql.models.paths import match_sites
from hookql.models.tree import render_modules
from tests.tiny import NAMES, tiny


@pytest.mark.parametrize("name", ["gpt2", "t5", "mixtral", "falcon-grouped", "granite", "albert"])
def test_whole_tree(name: str, golden: Callable[[str, str], None]) -> None:
    """Classes, weights and sites; equal layers once, tied weights said; canonical names beside."""
    module, tokenizer, _ = tiny(name)
    golden(f"models/tree/{name}.txt", render_modules(wrap_model(module, tokenizer)))


@pytest.mark.parametrize("name", NAMES)
def test_lines_are_the_sites_of_all_modules(name: str) -> None:
    """Each line begins with a site, and together they select every module that computes."""
    module = tiny(name)[0]
    text = render_modules(wrap_model(module))
    assert max(map(len, text.splitlines())) <= 100
    lines = text.split("\n\n")[1].splitlines()
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
    text = render_modules(wrap_model(root)).split("\n\n")[1]
    lines = [line.split()[:3] for line in text.splitlines()]
    expected = [["layers[0:5:2]", "ReLU", "x3"], ["layers[1:6:2]", "Linear", "x3"]]
    assert expected == lines


def test_modules_under_a_second_name_are_shown_as_such() -> None:
    """A shared module's second line names the first, and does not repeat what is below."""
    shared = nn.Sequential(nn.Linear(1, 1))
    text = render_modules(wrap_model(nn.ModuleDict({"a": shared, "b": shared})))
    assert text.split("\n\n")[1].splitlines()[-1].split() == ["b", "Sequential", "is", "a"]


@pytest.mark.parametrize("name", [name for name in NAMES if name not in ("albert", "mamba")])
def test_canonical_names_stand_beside_what_they_select(name: str) -> None:
    """Each line of a canonical site names the hook points that the site selects."""
    module = tiny(name)[0]
    text = render_modules(wrap_model(module)).split("\n\n")[2]
    lines = [line.split() for line in text.splitlines() if line.startswith("@")]
    assert 18 == len(lines)
    for site, *where in lines:
        if where[0] == "none:":
            continue
        program = parse(f"capture count from {site}; capture count from {where[0]}")
        canonical, written = program.statements
        assert isinstance(canonical, ast.Capture)
        assert isinstance(written, ast.Capture)
        expected = match_sites(module, canonical.sites, (), program.source)
        found = match_sites(module, written.sites, (), program.source)
        assert [match.point for match in expected] == [match.point for match in found]


def test_filter_leaves_the_canonical_names_of_what_it_matches() -> None:
    """Below a filtered tree stand the sites of the modules in it, with their layers."""
    text = render_modules(wrap_model(tiny("gpt2")[0]), "h[1,3].attn.c_attn")
    names = [line.split()[0] for line in text.split("\n\n")[2].splitlines()[1:]]
    assert ["@q[1,3]", "@k[1,3]", "@v[1,3]"] == names
