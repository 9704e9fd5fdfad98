"""From detectors to results: names, shapes, pooled layers, what each capture is told."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import hookql
from hookql.binding import bind
from hookql.engines.local import Outcome, run
from hookql.loading import get_model
from hookql.plan import Plan
from hookql.results.collect import collect
from hookql.results.tree import CaptureResult
from hookql.source import open_source, open_texts
from tests.tiny import character_tokenizer, tiny

TEXTS = ["Where were you?", "a", "the the"]


def collected(query: str, model: nn.Module) -> tuple[list[CaptureResult], Plan, Outcome]:
    """The results of a run, before they become a tree."""
    wrapped = get_model(model, character_tokenizer(), {})
    source = open_source(wrapped, open_texts(None, TEXTS, None, {}), None, {})
    plan = bind(hookql.check(query), wrapped, source.feed, source.columns)
    outcome = run(plan, source.work(plan), width=source.width)
    return collect(plan, outcome), plan, outcome


class Widths(nn.Module):
    """Layers of two widths under one role, one of them called twice."""

    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Embedding(128, 8)
        self.layers = nn.ModuleList([nn.Linear(8, 8), nn.Linear(8, 6), nn.Linear(6, 6)])

    def forward(self, input_ids: Tensor) -> Tensor:
        """Run the last layer twice."""
        x = self.embed(input_ids)
        for layer in [*self.layers, self.layers[-1]]:
            x = layer(x)
        return x


def widths() -> Widths:
    """With seeded weights."""
    with torch.random.fork_rng():
        torch.manual_seed(8)
        return Widths().eval()


def test_captures_come_in_the_querys_order() -> None:
    """With their canonical texts and their own masks."""
    query = """
    capture max from transformer.h[2]
    capture mean from transformer.h[0], lm_head where position >= 1 as first
    """
    results, _, outcome = collected(query, tiny("gpt2")[0])
    assert ["h", "first"] == [r.name for r in results]
    assert "capture max\n  from transformer.h[2]" == results[0].text
    assert ["every token", "position >= 1"] == [r.attributes["mask"] for r in results]
    assert outcome.kept == [r.attributes["tokens_kept"] for r in results]
    assert [23, 20] == outcome.kept
    assert [23, 20] == [r.sites[0].count for r in results]


@pytest.mark.parametrize(
    ("query", "names"),
    [
        ("capture mean from h[0].attn", ["attn"]),
        ("capture mean from h[0].attn capture max from h[1].attn", ["attn", "attn_2"]),
        ("capture mean from h[0].attn as attn_2 capture max from h[1].attn capture min from "
         "h[2].attn", ["attn_2", "attn", "attn_3"]),
        ("capture mean from h[0].attn capture max from h[1].mlp as attn", ["attn_2", "attn"]),
        ("capture mean from h[0].mlp:input", ["mlp_input"]),
        ("capture mean from output capture mean from input", ["output", "input"]),
        ("capture mean from ** isa LayerNorm", ["LayerNorm"]),
        ("capture mean from *", ["modules"]),
        ("capture mean from transformer.h.0.mlp.c_fc, lm_head", ["c_fc"]),
    ],
)  # fmt: skip
def test_names_of_captures_are_unique(query: str, names: list[str]) -> None:
    """Derived from the first site, numbered where they meet, never an `as` name of another's."""
    model, tokenizer, _ = tiny("gpt2")
    wrapped = get_model(model, tokenizer, {})
    plan = bind(
        hookql.check(query),
        wrapped,
        open_source(wrapped, open_texts(None, TEXTS, None, {}), None, {}).feed,
    )
    assert names == [c.name for c in plan.captures]


def test_each_site_knows_its_module_and_layer() -> None:
    """Roles are paths without their indices; ports other than the output belong to them."""
    query = "capture mean from transformer.h[1:3].mlp:input, lm_head"
    (result,), _, _ = collected(query, tiny("gpt2")[0])
    assert [
        ("transformer.h.1.mlp", 1, "transformer.h.mlp:input", 1, ("feature",)),
        ("transformer.h.2.mlp", 2, "transformer.h.mlp:input", 1, ("feature",)),
        ("lm_head", None, "lm_head", 1, ("feature",)),
    ] == [(s.module, s.layer, s.role, s.calls, s.axes) for s in result.sites]


def test_calls_stand_in_front() -> None:
    """Two calls of a layer are the first axis of its numbers."""
    (result,), _, _ = collected("capture mean, count from layers[*]", widths())
    shapes = [(s.calls, s.variables["mean"].shape) for s in result.sites]
    assert [(1, (8,)), (1, (6,)), (2, (2, 6))] == shapes
    assert ["mean"] == list(result.sites[0].variables)


def test_layers_of_unequal_width_split_the_role() -> None:
    """Nothing is padded with NaN: each shape has a dataset of its own."""
    tree = hookql.run(
        "capture mean from layers[*]",
        model=widths(),
        tokenizer=character_tokenizer(),
        texts=TEXTS,
    )
    sizes = {tuple(sorted(node.sizes.items())) for node in tree.subtree if node.has_data}
    assert {
        (("feature", 8), ("layer", 1)),
        (("feature", 6), ("layer", 1)),
        (("call", 2), ("feature", 6), ("layer", 1)),
    } == sizes


def test_only_layers_of_one_shape_are_pooled_together() -> None:
    """Numbers of unequal axes, or of unequal calls, are not thrown together."""
    (result,), _, _ = collected("capture mean from layers[*] pool layer", widths())
    assert 3 == len({s.variables["mean"].shape for s in result.sites})
    for site in result.sites:
        assert site.layer is None


def test_pooling_merges_copies() -> None:
    """Collecting twice gives the same: the detectors' states are left as they are."""
    query = "capture mean, std from transformer.h[*] pool layer capture std from transformer.h[*]"
    model = tiny("gpt2")[0]
    first, plan, outcome = collected(query, model)
    again = collect(plan, outcome)
    for one, other in zip(first, again, strict=True):
        for a, b in zip(one.sites, other.sites, strict=True):
            assert a.count == b.count
            for name in a.variables:
                np.testing.assert_array_equal(a.variables[name], b.variables[name])


def test_variables_have_the_names_they_were_given() -> None:
    """`as` names, statistics twice with other parameters, and count on its own."""
    query = "capture var(ddof=1) as unbiased, var, mean as m, count from transformer.h[0]"
    (result,), _, _ = collected(query, tiny("gpt2")[0])
    found: Any = result.sites[0].variables
    assert {"unbiased", "var", "m"} == set(found)
    np.testing.assert_allclose(found["var"] * 23 / 22, found["unbiased"])


def test_count_alone_has_no_variables_of_features() -> None:
    """`capture count` is one number for each site, whatever the width."""
    tree = hookql.run(
        "capture count from transformer.h[*] where position == 0",
        model=tiny("gpt2")[0],
        tokenizer=character_tokenizer(),
        texts=TEXTS,
    )
    assert 3 == int(tree["count"])
    assert "feature" not in tree.sizes
