"""Canonical sites in queries: where they lead, by which index, and what is said of the others."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
import transformers as hf
from torch import nn

from hookql.errors import Diagnostic, QueryError
from hookql.language import ast
from hookql.language.parser import parse
from hookql.models.canonical import Anatomy, Place, anatomy
from hookql.models.families import FAMILIES
from hookql.models.families.table import BLOCK_SITES, CANONICAL_NAMES, Spot
from hookql.models.paths import Match, match_sites
from hookql.models.ports import HookPoint
from hookql.models.views import View
from tests.tiny import DESIGNS, NAMES, tiny


def matches(root: nn.Module, sites: str) -> list[Match]:
    """What a `from` clause selects."""
    program = parse(f"capture mean from {sites}")
    capture = program.statements[0]
    assert isinstance(capture, ast.Capture)
    return match_sites(root, capture.sites, capture.excepts, program.source)


def points(root: nn.Module, sites: str) -> list[str]:
    """The hook points that a `from` clause selects, as text."""
    return [str(match.point) for match in matches(root, sites)]


@pytest.fixture(scope="module")
def gpt2() -> nn.Module:
    """A GPT-2 of four layers."""
    return tiny("gpt2")[0]


@pytest.mark.parametrize(
    ("index", "layers"),
    [
        ("[*]", [0, 1, 2, 3]),
        ("[0:2]", [0, 1]),
        ("[-1]", [3]),
        ("[-3:-1]", [1, 2]),
        ("[::2]", [0, 2]),
        ("[::-1]", [0, 1, 2, 3]),
        ("[3,0,3]", [0, 3]),
        ("[2:]", [2, 3]),
        ("[:4]", [0, 1, 2, 3]),
        ("[0:1,-1]", [0, 3]),
    ],
)
def test_index_is_pythons_on_the_layers(gpt2: nn.Module, index: str, layers: list[int]) -> None:
    """Negative indices, slices and lists count layers as Python does."""
    found = matches(gpt2, f"@resid_post{index}")
    assert layers == [match.layer for match in found]
    assert [f"transformer.h.{n}:output" for n in layers] == [str(m.point) for m in found]


def test_roles_are_canonical_names(gpt2: nn.Module) -> None:
    """The role is the bare name and the module the real one; a path's role keeps its port."""
    found = matches(gpt2, "@q[1], @logits, @embed, @final_norm, h[1]:input, output")
    said = [(match.module, match.layer, match.role) for match in found]
    expected = [
        ("", None, "logits"),
        ("", None, "model"),
        ("transformer.h.0", None, "embed"),
        ("transformer.h.1", 1, "transformer.h:input"),
        ("transformer.h.1.attn.c_attn", 1, "q"),
        ("transformer.ln_f", None, "final_norm"),
    ]
    assert expected == said


def test_view_of_a_fused_projection(gpt2: nn.Module) -> None:
    """@k is the second third of GPT-2's projection, by head."""
    (match,) = matches(gpt2, "@k[2]")
    view = match.view
    assert view is not None
    assert (("head", "feature"), (4, 8)) == view.axes(96)
    rows = torch.arange(192.0).reshape(2, 96)
    assert torch.equal(rows[:, 32:64].reshape(2, 4, 8), view(rows))
    with pytest.raises(ValueError, match="rows of 32"):
        view.axes(32)


def test_view_interleaved_by_group() -> None:
    """Two groups of two queries, a key and a value each: queries are in order, keys one a group."""
    rows = torch.arange(8.0)[None]
    queries = View((2, 4, 1), 1, 0, 2, 4)
    keys = View((2, 4, 1), 1, 2, 3, 2)
    assert [[0.0, 1.0, 4.0, 5.0]] == queries(rows).flatten(1).tolist()
    assert [[2.0, 6.0]] == keys(rows).flatten(1).tolist()


def test_pattern_is_a_port_of_the_attention_module(gpt2: nn.Module) -> None:
    """@pattern is read from what the attention module returns."""
    (match,) = matches(gpt2, "@pattern[0]")
    assert HookPoint("transformer.h.0.attn", "pattern") == match.point
    assert ("output", "transformer.h.0.attn") == match.point.event


def test_one_tensor_under_two_names_is_two_matches(gpt2: nn.Module) -> None:
    """@attn and @attn_out share a hook point in GPT-2 and keep their roles."""
    found = matches(gpt2, "@attn[0], @attn_out[0], h[0].attn, @attn[0]")
    assert ["attn", "attn_out", "transformer.h.attn"] == [match.role for match in found]
    assert 1 == len({match.point for match in found})


def test_block_has_the_ports_of_its_module(gpt2: nn.Module) -> None:
    """A canonical site that is a whole module may be read at another port."""
    (match,) = matches(gpt2, "@block[1]:input")
    assert ("transformer.h.1:input", "block:input") == (str(match.point), match.role)


@pytest.mark.parametrize(
    ("name", "site", "whole"),
    [
        ("gpt2", "@block[0]", True),
        ("gpt2", "@attn_out[0]", True),
        ("gpt2", "@resid_post[0]", False),
        ("gpt2", "h[0]", True),
        ("gpt2", "h[0]:output", False),
        ("bert", "@attn_out[0]", False),
        ("opt", "@mlp_out[0]", False),
        ("bloom", "@attn_out[0]", False),
        ("mixtral", "@mlp_out[0]", True),
    ],
)
def test_whole_modules(name: str, site: str, whole: bool) -> None:
    """Where a last projection stands for its half, its input is not that of the half."""
    (match,) = matches(tiny(name)[0], site)
    assert whole == match.whole


def test_bloom_whose_residuals_begin_behind_norms_has_no_running_stream() -> None:
    """What a half adds is added to the normed stream: such sites are refused."""
    config = hf.BloomConfig(
        vocab_size=16,
        hidden_size=8,
        n_layer=1,
        n_head=2,
        apply_residual_connection_post_layernorm=True,
    )
    found = anatomy(hf.BloomForCausalLM(config))
    assert isinstance(found, Anatomy)
    kinds = [type(found.place(site, 0)) for site in ("resid_mid", "attn", "mlp", "attn_out")]
    assert [Diagnostic, Diagnostic, Diagnostic, Place] == kinds


def test_except_takes_modules_away_from_canonical_sites(gpt2: nn.Module) -> None:
    """`except` names paths, and takes away what is read from those modules."""
    assert ["transformer.h.1.attn:output"] == points(gpt2, "@attn[0:2] except h[0].attn")


@pytest.mark.parametrize(
    ("name", "canonical"),
    [
        ("blocks.2.hook_resid_pre", "@resid_pre[2]"),
        ("blocks[0:2].hook_resid_mid", "@resid_mid[0:2]"),
        ("blocks.*.hook_resid_post", "@resid_post[*]"),
        ("blocks.1.hook_attn_out", "@attn[1]"),
        ("blocks.1.hook_mlp_out", "@mlp[1]"),
        ("blocks.1.attn.hook_q", "@q[1]"),
        ("blocks.1.attn.hook_k", "@k[1]"),
        ("blocks.1.attn.hook_v", "@v[1]"),
        ("blocks[-1].attn.hook_z", "@z[-1]"),
        ("blocks.3.attn.hook_pattern", "@pattern[3]"),
        ("blocks.1.mlp.hook_post", "@mlp_act[1]"),
        ("ln_final.hook_normalized", "@final_norm"),
    ],
)
def test_names_of_transformer_lens(gpt2: nn.Module, name: str, canonical: str) -> None:
    """TransformerLens's names select what the canonical sites do, under the canonical role."""
    expected = [(m.point, m.view, m.layer, m.role) for m in matches(gpt2, canonical)]
    assert expected == [(m.point, m.view, m.layer, m.role) for m in matches(gpt2, name)]


def test_hook_embed_is_the_token_embedding_alone(gpt2: nn.Module) -> None:
    """Where positions are added it is not the stream's start, and else it is."""
    assert ["transformer.wte:output"] == points(gpt2, "hook_embed")
    assert ["model.layers.0:input"] == points(tiny("llama")[0], "hook_embed")


def test_a_module_of_that_name_comes_first() -> None:
    """In a model that has `blocks`, the path is a path."""
    root = nn.Module()
    root.blocks = nn.ModuleList([nn.Module()])
    root.blocks[0].hook_z = nn.ReLU()
    assert ["blocks.0.hook_z:output"] == points(root, "blocks.0.hook_z")


@pytest.mark.parametrize(
    ("headless", "headed"),
    [
        (hf.GPT2Model, "gpt2"),
        (hf.LlamaModel, "llama"),
        (hf.OPTModel, "opt"),
        (hf.BloomModel, "bloom"),
        (hf.BertModel, "bert-mlm"),
        (hf.GPTNeoXModel, "gpt_neox"),
        (hf.DistilBertModel, "distilbert"),
    ],
)
def test_base_models_have_the_same_sites(headless: type, headed: str) -> None:
    """Without a head every path loses its prefix, and only the head's sites are gone."""
    whole = anatomy(tiny(headed)[0])
    assert isinstance(whole, Anatomy)
    base = anatomy(headless(whole.config))  # type: ignore[call-arg]
    assert isinstance(base, Anatomy)
    for name in BLOCK_SITES:
        there, here = whole.place(name, 1), base.place(name, 1)
        assert isinstance(there, Place) == isinstance(here, Place)
        if isinstance(there, Place) and isinstance(here, Place):
            assert there.point.module.endswith(f".{here.point.module}")
            assert (there.view, there.point.side) == (here.view, here.point.side)
    for name in ("unembed", "logits"):
        problem = base.place(name)
        assert isinstance(problem, Diagnostic)
        assert "no-head" == problem.code


def test_encoder_of_t5_alone() -> None:
    """T5EncoderModel ends with its own norm."""
    config = tiny("t5")[0].config
    found = anatomy(hf.T5EncoderModel(config))
    assert isinstance(found, Anatomy)
    assert Place(HookPoint("encoder.final_layer_norm", "output")) == found.place("final_norm")


def test_every_table_names_every_site_of_a_block() -> None:
    """A family says of each site where it is, or why nowhere."""
    common = {"block", "resid_pre", "resid_post"}
    for family in FAMILIES:
        assert set(BLOCK_SITES) - common == set(family.sites), family.name
        assert family.design in ("sequential", "parallel", "post-norm")
        assert isinstance(family.sites["resid_mid"], Spot) == (family.design != "parallel") or (
            "Bloom" == family.name
        )
    assert len(set(CANONICAL_NAMES)) == len(CANONICAL_NAMES) == len(BLOCK_SITES) + 4


def test_every_spot_is_a_module_of_its_family() -> None:
    """No table names a module that the family's blocks do not have."""
    for name in (*NAMES, *DESIGNS):
        found = anatomy(tiny(name)[0])
        if isinstance(found, Diagnostic):
            assert name in ("albert", "mamba")
            continue
        for site, spot in found.family.sites.items():
            place = found.place(site, 0)
            assert isinstance(place, Place) == isinstance(spot, Spot), (name, site)


# --- families by structure ------------------------------------------------------------------------

_SMALL = {
    "vocab_size": 128,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 8,
    "pad_token_id": 0,
    "bos_token_id": 1,
    "eos_token_id": 2,
}


def test_a_family_whose_code_is_llamas_has_llamas_sites() -> None:
    """Helium has no table, and its code is Llama's statement by statement."""
    found = anatomy(hf.HeliumForCausalLM(hf.HeliumConfig(**_SMALL)))
    assert isinstance(found, Anatomy)
    assert "its code is that of Llama" == found.family.note
    place = Place(HookPoint("model.layers.1.self_attn.k_proj", "output"), View((16,), heads=2), 1)
    assert place == found.place("k", 1)


def test_another_attention_loses_the_sites_within() -> None:
    """SmolLM3 leaves rotary positions out of some layers: its attention is other code."""
    found = anatomy(hf.SmolLM3ForCausalLM(hf.SmolLM3Config(**_SMALL)))
    assert isinstance(found, Anatomy)
    assert isinstance(found.place("q", 0), Diagnostic)
    assert Place(HookPoint("model.layers.0.self_attn", "output"), None, 0) == found.place("attn", 0)


def test_llamas_names_alone_prove_nothing() -> None:
    """A block with Llama's children and a forward of its own is of no known family."""
    model = tiny("llama")[0]

    class Doubled(type(model.model.layers[0])):  # type: ignore[misc]
        def forward(self, hidden_states: torch.Tensor, **kwargs: object) -> torch.Tensor:
            return super().forward(hidden_states, **kwargs) * 2

    model.model.layers[1].__class__ = Doubled
    found = anatomy(model)
    assert isinstance(found, Diagnostic)
    assert "unknown-family" == found.code


# --- what is said ---------------------------------------------------------------------------------

_WRONG = {
    "index": ("gpt2", "@resid_post[4]"),
    "slice": ("gpt2", "@attn[0:9]"),
    "empty": ("gpt2", "@attn[2:1]"),
    "no-index": ("gpt2", "@resid_post"),
    "index-of-one": ("gpt2", "@embed[0]"),
    "port": ("gpt2", "@q[0]:input"),
    "port-of-projection": ("bert", "@attn_out[0]:input"),
    "unknown-name": ("gpt2", "@resid_pst[0]"),
    "parallel": ("falcon", "@resid_mid[*]"),
    "experts": ("mixtral", "@mlp_act[0]"),
    "headless": ("bert", "@logits"),
    "headless-lens": ("vit", "@unembed"),
    "no-final-norm": ("bert", "@final_norm"),
    "unknown-family": ("albert", "@resid_post[*]"),
    "near": ("gpt2", "blocks.0.attn.hook_attn_scores"),
    "not-a-hook": ("gpt2", "blocks.0.hook_nothing"),
    "idle-except": ("gpt2", "@attn[0] except h[1].attn"),
    "several": ("gpt2", "@embed[0], @resid_post[9], h[9]"),
}


@pytest.mark.parametrize("case", _WRONG)
def test_wrong_sites(case: str, golden: Callable[[str, str], None]) -> None:
    """Every way to be wrong about a canonical site, and what helps."""
    name, sites = _WRONG[case]
    with pytest.raises(QueryError) as caught:
        matches(tiny(name)[0], sites)
    golden(f"models/canonical/{case}.txt", f"{caught.value}\n")
