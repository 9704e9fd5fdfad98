"""Canonical sites proven by what they must add up to, for every family and design that is known.

Parameters are random throughout, biases and norms included, so that a wrong order, a missing bias
or another head's numbers show. Samples differ in length and are padded on the right.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack
from functools import cache
from typing import Any

import pytest
import torch
from attrs import frozen
from torch import Tensor, nn

from hookql.errors import Diagnostic
from hookql.models.canonical import Anatomy, Place, anatomy
from hookql.models.families.table import BLOCK_SITES
from hookql.models.hooks import hooked
from hookql.models.lens import Lens, find_lens
from hookql.models.load import wrap_model
from hookql.models.ports import HookPoint
from tests.models.attention import weights
from tests.tiny import DESIGNS, NAMES, VOCABULARY, tiny

KNOWN = tuple(name for name in (*NAMES, *DESIGNS) if name not in ("albert", "mamba"))
LENGTHS = (11, 7, 2)
CLOSE = {"rtol": 2e-5, "atol": 2e-5}


@frozen(eq=False)
class Run:
    """A model, its canonical sites, and the tensors of one forward pass with padding."""

    name: str
    model: nn.Module
    sites: Anatomy
    mask: Tensor  # (B, S), 1 at tokens
    seen: dict[HookPoint, Tensor]
    output: Any

    def read(self, site: str, layer: int | None = None) -> Tensor:
        """A site's rows at every token of every sample, (tokens, *axes)."""
        return self.whole(site, layer)[self.mask.bool()]

    def whole(self, site: str, layer: int | None = None) -> Tensor:
        """A site's rows with padding, (B, S, *axes)."""
        place = self.place(site, layer)
        tensor = self.seen[place.point]
        batch, length = self.mask.shape
        if tensor.ndim == 4 and tensor.shape[2] == length:  # (B, H, S, d)
            tensor = tensor.transpose(1, 2)
        rows = tensor.reshape(batch * length, *tensor.shape[1 if tensor.ndim == 2 else 2 :])
        if place.view is not None:
            rows = place.view(rows)
        return rows.unflatten(0, (batch, length))

    def place(self, site: str, layer: int | None = None) -> Place:
        """Where a site is."""
        place = self.sites.place(site, layer)
        assert isinstance(place, Place), place
        return place

    def module(self, site: str, layer: int) -> Any:
        """The module that a site is a port of."""
        return self.model.get_submodule(self.place(site, layer).point.module)

    @property
    def layers(self) -> range:
        """The numbers of the blocks."""
        return range(len(self.sites.blocks))

    def has(self, site: str, layer: int = 0) -> bool:
        """Whether there is such a site."""
        return isinstance(self.sites.place(site, layer), Place)


@cache
def run(name: str) -> Run:
    """One forward pass of the family's small model with every canonical site read."""
    model = tiny(name)[0]
    generator = torch.Generator().manual_seed(3)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn(parameter.shape, generator=generator), alpha=0.2)
    model.set_attn_implementation("eager")
    model.config._attn_implementation = "eager"  # Falcon refuses to be switched
    sites = anatomy(model)
    assert isinstance(sites, Anatomy), sites
    inputs, mask = _inputs(model, generator)
    points = _points(sites)
    seen: dict[HookPoint, Tensor] = {}
    taps = {p: _keep(seen, p) for p in points if p.side != "pattern"}
    with torch.no_grad(), hooked(model, taps), ExitStack() as stack:
        for point in points:
            if point.side == "pattern":
                module = model.get_submodule(point.module)
                hook = _keep_pattern(seen, point, mask.shape[1])
                stack.callback(module.register_forward_hook(hook).remove)
        output = model(**inputs, output_hidden_states=True, output_attentions=True)
    return Run(name, model, sites, mask, seen, output)


def _inputs(model: Any, generator: torch.Generator) -> tuple[dict[str, Tensor], Tensor]:
    if "pixel_values" in model.main_input_name:
        pixels = torch.randn(2, 3, 32, 32, generator=generator)
        return {"pixel_values": pixels}, torch.ones(2, 17, dtype=torch.long)
    ids = torch.randint(7, VOCABULARY, (len(LENGTHS), max(LENGTHS)), generator=generator)
    mask = (torch.arange(max(LENGTHS)) < torch.tensor(LENGTHS)[:, None]).long()
    inputs = {"input_ids": ids * mask, "attention_mask": mask}
    if model.config.is_encoder_decoder:
        decoder = torch.randint(7, VOCABULARY, (len(LENGTHS), 5), generator=generator)
        inputs["decoder_input_ids"] = decoder
    return inputs, mask


def _points(sites: Anatomy) -> list[HookPoint]:
    wanted: list[tuple[str, int | None]] = [("embed", None), ("final_norm", None)]
    wanted += [("unembed", None)]
    wanted += [(site, layer) for site in BLOCK_SITES for layer in range(len(sites.blocks))]
    places: list[Place | Diagnostic] = [sites.place(site, layer) for site, layer in wanted]
    if sites.family.stream == "target":
        places.append(Place(HookPoint("decoder.final_layer_norm", "input")))
    return list(dict.fromkeys(p.point for p in places if isinstance(p, Place)))


def _keep(seen: dict[HookPoint, Tensor], point: HookPoint) -> Callable[[Tensor], None]:
    # Cloned at once: Falcon writes into what its MLP returned.
    return lambda tensor: seen.__setitem__(point, tensor.clone())


def _keep_pattern(
    seen: dict[HookPoint, Tensor], point: HookPoint, length: int
) -> Callable[..., None]:
    """A reader of attention weights of the tests' own: the last square tensor that is returned."""

    def hook(module: nn.Module, args: Any, out: Any) -> None:
        square = [t for t in out if isinstance(t, Tensor) and t.shape[-2:] == (length, length)]
        seen[point] = square[-1].clone()

    return hook


@pytest.fixture(params=KNOWN)
def model(request: pytest.FixtureRequest) -> Run:
    """Each family and design in turn."""
    return run(request.param)


def test_stream_is_what_transformers_calls_hidden_states(model: Run) -> None:
    """@embed and every @resid_post but the last are the model's own hidden states."""
    hidden = getattr(model.output, "hidden_states", None)
    hidden = model.output.encoder_hidden_states if hidden is None else hidden
    kept = model.mask.bool()
    assert len(model.layers) + 1 == len(hidden)
    torch.testing.assert_close(model.read("embed"), hidden[0][kept], rtol=0, atol=0)
    for layer in model.layers:
        torch.testing.assert_close(model.read("resid_pre", layer), hidden[layer][kept], **CLOSE)
        if layer + 1 < len(model.layers):
            torch.testing.assert_close(
                model.read("resid_post", layer), hidden[layer + 1][kept], **CLOSE
            )


def test_halves_of_a_block_add_up(model: Run) -> None:
    """The stream before a half, plus what the half adds, is the stream after it."""
    for layer in model.layers:
        before, attn = model.read("resid_pre", layer), model.read("attn", layer)
        after, mlp = model.read("resid_post", layer), model.read("mlp", layer)
        if model.sites.family.design == "parallel":
            assert not model.has("resid_mid", layer)
            torch.testing.assert_close(before + attn + mlp, after, **CLOSE)
            continue
        first, second = _norms_between(model, layer)
        between = model.read("resid_mid", layer)
        torch.testing.assert_close(first(before + attn), between, **CLOSE)
        torch.testing.assert_close(second(between + mlp), after, **CLOSE)


def _norms_between(model: Run, layer: int) -> tuple[Callable[..., Tensor], Callable[..., Tensor]]:
    """What a post-norm block does to each sum; nothing for all others."""
    block: Any = model.sites.blocks[layer]
    match model.name:
        case "bert" | "bert-mlm" | "roberta" | "roberta-mlm" | "xlm_roberta":
            return block.attention.output.LayerNorm, block.output.LayerNorm
        case "distilbert":
            return block.sa_layer_norm, block.output_layer_norm
        case "opt-post-norm":
            return block.self_attn_layer_norm, block.final_layer_norm
    assert "post-norm" != model.sites.family.design
    return nn.Identity(), nn.Identity()


def test_z_through_the_output_projection_is_attn_out(model: Run) -> None:
    """@z with its heads side by side makes @attn_out."""
    for layer in model.layers:
        rows = model.read("z", layer)
        assert (model.sites.heads.queries, model.sites.heads.width) == rows.shape[1:]
        made = model.module("z", layer).forward(rows.flatten(1))
        torch.testing.assert_close(made, model.read("attn_out", layer), **CLOSE)


def test_mlp_act_through_the_down_projection_is_mlp_out(model: Run) -> None:
    """@mlp_act makes @mlp_out, where the MLP is one and not a mixture of experts."""
    for layer in model.layers:
        if not model.has("mlp_act", layer):
            assert model.name in ("mixtral", "qwen2_moe", "qwen3_moe")
            continue
        made = model.module("mlp_act", layer).forward(model.read("mlp_act", layer))
        torch.testing.assert_close(made, model.read("mlp_out", layer), **CLOSE)


def test_what_a_half_adds_is_its_output_or_that_normed_or_scaled(model: Run) -> None:
    """@attn is @attn_out and @mlp is @mlp_out, but for sandwich norms and Granite's multiplier."""
    for layer in model.layers:
        block: Any = model.sites.blocks[layer]
        for site, norm in (
            ("attn", "post_attention_layernorm"),
            ("mlp", "post_feedforward_layernorm"),
        ):
            out = model.read(f"{site}_out", layer)
            if model.name.startswith(("gemma2", "gemma3", "olmo2")):
                out = getattr(block, norm)(out)
            if model.name == "granite":
                out = out * 0.3
            torch.testing.assert_close(out, model.read(site, layer), **CLOSE)


def test_softmax_of_queries_and_keys_is_the_pattern(model: Run) -> None:
    """@q and @k, given positions, scale, bias, cap and mask by the test, make @pattern."""
    for layer in model.layers:
        queries, keys = model.whole("q", layer), model.whole("k", layer)
        assert model.sites.heads.keys == keys.shape[2]
        made = weights(model.name, model.model, layer, queries, keys, model.mask)
        pattern = model.seen[model.place("pattern", layer).point].double()
        kept = model.mask.bool()
        torch.testing.assert_close(
            made.transpose(1, 2)[kept], pattern.transpose(1, 2)[kept], **CLOSE
        )


def test_pattern_and_values_make_z(model: Run) -> None:
    """@z is each query's mean of @v, weighted by @pattern, with a value for each group of heads."""
    for layer in model.layers:
        pattern = model.seen[model.place("pattern", layer).point]
        values = model.whole("v", layer)
        values = values.repeat_interleave(pattern.shape[1] // values.shape[2], dim=2)
        made = torch.einsum("bhqk,bkhd->bqhd", pattern, values)[model.mask.bool()]
        torch.testing.assert_close(made, model.read("z", layer), **CLOSE)


def test_lens_of_the_last_block_is_the_logits(model: Run) -> None:
    """The lens at the end of the stream says what the model says, and touches no hook."""
    lens = find_lens(wrap_model(model.model))
    if not hasattr(model.output, "logits"):
        assert isinstance(lens, Diagnostic)
        assert "no-head" == lens.code
        return
    assert isinstance(lens, Lens)
    logits = model.output.logits
    kept = model.mask.bool()
    if lens.stream == "target":
        kept = torch.ones(logits.shape[:2], dtype=torch.bool)
        stream = _last_of_decoder(model)
    else:
        stream = model.whole("resid_post", len(model.layers) - 1)
    called: list[str] = []
    handles = [
        m.register_forward_hook(lambda *_: called.append("x")) for m in model.model.modules()
    ]
    with torch.no_grad():
        made = lens(stream[kept])
    for handle in handles:
        handle.remove()
    assert [] == called
    assert (lens.width, lens.vocabulary) == (stream.shape[-1], logits.shape[-1])
    torch.testing.assert_close(made, logits[kept], **CLOSE)


def _last_of_decoder(model: Run) -> Tensor:
    """The stream that T5's decoder ends with, before its norm."""
    return model.seen[HookPoint("decoder.final_layer_norm", "input")]


def test_final_norm_and_unembedding(model: Run) -> None:
    """@final_norm is what the unembedding reads, where nothing stands between them."""
    if isinstance(model.sites.place("final_norm"), Diagnostic):
        assert "post-norm" == model.sites.family.design
        return
    normed = model.seen[model.place("final_norm").point]
    if isinstance(model.sites.place("unembed"), Diagnostic):
        torch.testing.assert_close(normed, model.output.last_hidden_state, rtol=0, atol=0)
        return
    if model.name.startswith(("t5", "mt5")):
        tied = getattr(model.model.config, "scale_decoder_outputs", False)
        normed = normed * 32**-0.5 if tied else normed
    head: Any = model.model.get_output_embeddings()
    made = head.forward(normed)
    torch.testing.assert_close(made, model.seen[model.place("unembed").point], **CLOSE)
