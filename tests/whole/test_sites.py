"""Canonical sites, heads, the lens and statistics of both ports, on SmolLM2."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from tests.whole.alone import Told
from tests.whole.margins import Case, Truth, check, data_of, gap, mean_of

pytestmark = [pytest.mark.real_weights, pytest.mark.xdist_group("smollm2")]
L10 = "model.layers.10"


def heads(path: str, number: int) -> Any:
    """Rows of a projection by head."""
    return lambda t: t.rows[path].reshape(len(t["token"]), number, -1)


def rows(path: str) -> Any:
    """Rows of a site as they are."""
    return lambda t: t.rows[path]


SITES: dict[str, tuple[str, Any]] = {
    "embed": ("@embed", rows("model.embed_tokens:output")),
    "block": ("@block[10]", rows(f"{L10}:output")),
    "block_input": ("@block[10]:input", rows(f"{L10}:input")),
    "resid_pre": ("@resid_pre[10]", rows(f"{L10}:input")),
    "resid_mid": ("@resid_mid[10]", rows(f"{L10}.post_attention_layernorm:input")),
    "resid_post": ("@resid_post[-1]", rows("model.layers.29:output")),
    "attn": ("@attn[10]", rows(f"{L10}.self_attn:output")),
    "attn_out": ("@attn_out[10]", rows(f"{L10}.self_attn:output")),
    "mlp": ("@mlp[10]", rows(f"{L10}.mlp:output")),
    "mlp_out": ("@mlp_out[10]", rows(f"{L10}.mlp:output")),
    "mlp_act": ("@mlp_act[10]", rows(f"{L10}.mlp.down_proj:input")),
    "q": ("@q[10]", heads(f"{L10}.self_attn.q_proj:output", 9)),
    "k": ("@k[10]", heads(f"{L10}.self_attn.k_proj:output", 3)),
    "v": ("@v[10]", heads(f"{L10}.self_attn.v_proj:output", 3)),
    "z": ("@z[10]", heads(f"{L10}.self_attn.o_proj:input", 9)),
    "final_norm": ("@final_norm", rows("model.norm:output")),
    "logits": ("@logits", rows(":output")),
    "synonym": ("blocks.10.hook_resid_post", rows(f"{L10}:output")),
    "synonym_z": ("blocks[10].attn.hook_z", heads(f"{L10}.self_attn.o_proj:input", 9)),
}
LENS = {"lens_28": 28, "lens_29": 29, "lens_3": 3}
CASES = {
    **{n: Case(f"mean from {s}", f) for n, (s, f) in SITES.items()},
    **{
        n: Case(
            f"mean(argmax(lens(x)) == next) as hits, mean(entropy(softmax(lens(x)))) as entropy,"
            f" mean(lens(x)) as logits from @resid_post[{i}]",
            None,
        )
        for n, i in LENS.items()
    },
    "by_head_and_position": Case("mean from @z[10] where position < 5 by position", None),
    "chosen_head": Case("mean(norm(x)) as v from @q[10] where row.flag by row.label", None),
    "head_predicate": Case(
        lambda t: f"count, mean from @z[10] where norm(x[head=4]) > {threshold(t)}", None
    ),
}


def threshold(t: Told) -> float:
    """A gap in the norms of a head."""
    z = heads(f"{L10}.self_attn.o_proj:input", 9)(t)[:, 4]
    return gap(np.sqrt((z**2).sum(-1)))


@pytest.fixture(scope="module")
def results(together: Any, smollm2: Any, told: Told) -> Any:
    """All sites in one pass."""
    return together(smollm2, told, CASES)


def one(results: Any, name: str) -> Any:
    """A capture's dataset, without its one layer."""
    data = data_of(results[name])
    return data.isel(layer=0) if "layer" in data.dims else data


@pytest.mark.parametrize("name", SITES)
def test_a_site_is_what_a_hook_at_the_module_sees(name: str, results: Any, told: Told) -> None:
    """The mean at each canonical site, by head where it has heads."""
    x = SITES[name][1](told)
    data = one(results, name)
    assert len(x) == int(data["count"])
    assert ("head", "feature")[-(x.ndim - 1) :] == data["mean"].dims
    check(*reordered(mean_of(x), data["mean"]), name)


def reordered(expected: tuple[Any, Any], actual: Any) -> tuple[Any, Any, Any]:
    """Expected, actual and margin in the order of `check`."""
    return expected[0], actual, expected[1]


@pytest.mark.parametrize("name", LENS)
def test_the_lens_is_the_final_norm_and_the_head(
    name: str, results: Any, told: Told, smollm2: Any
) -> None:
    """RMS norm and unembedding in NumPy; at the last layer the model's own logits."""
    module = smollm2.module
    x = told.rows[f"model.layers.{LENS[name]}:output"]
    weight = module.model.norm.weight.detach().double().numpy()
    scaled = x / np.sqrt((x**2).mean(-1, keepdims=True) + module.config.rms_norm_eps) * weight
    logits = scaled @ module.lm_head.weight.detach().double().numpy().T
    if name == "lens_29":
        assert np.abs(logits - told.rows[":output"]).max() < 1e-4 * np.abs(logits).max()
    data = one(results, name)
    check(*reordered(mean_of(logits, 2e-6), data["logits"]), "logits")
    shifted = logits - logits.max(-1, keepdims=True)
    logs = shifted - np.log(np.exp(shifted).sum(-1, keepdims=True))
    entropy = -(np.exp(logs) * logs).sum(-1)
    check(entropy.mean(), data["entropy"], 1e-4 * entropy.max(), "entropy")
    followed = ~np.isnan(told["next"])
    best = np.sort(logits, -1)[:, -2:]
    apart = best[:, 1] - best[:, 0]
    hits = Truth(
        (logits.argmax(-1) == told["next"])[followed], apart[followed], 1e-5 * np.abs(logits).max()
    )
    assert followed.sum() == int(data["hits_count"])
    check(*reordered(mean_of(hits), data["hits"]), "hits")


def test_the_lens_at_the_end_guesses_as_the_model_does(results: Any, told: Told) -> None:
    """Accuracy at the last layer is the share of tokens of rank 0."""
    followed = ~np.isnan(told["next"])
    expected = (told["rank"][followed] == 0).mean()
    assert expected > 0.1
    check(expected, one(results, "lens_29")["hits"], 1e-6)


def test_heads_by_position_and_by_label(results: Any, told: Told) -> None:
    """Head and feature axes stand behind the groups."""
    z = heads(f"{L10}.self_attn.o_proj:input", 9)(told)
    data = one(results, "by_head_and_position")
    assert ("position", "head", "feature") == data["mean"].dims
    for position in range(5):
        kept = told["position"] == position
        expected = z[kept].mean(0)
        check(expected, data["mean"].sel(position=position), 2e-6 * np.abs(z).max())
    q = heads(f"{L10}.self_attn.q_proj:output", 9)(told)
    norms = np.sqrt((q**2).sum(-1))
    data = one(results, "chosen_head")
    assert ["other", "place"] == [
        label for label in data["label"].values.tolist() if label != "fact"
    ]
    for label in data["label"].values.tolist():
        kept = (told["row.label"] == label) & told["row.flag"]
        check(norms[kept].mean(0), data["v"].sel(label=label), 1e-5 * norms.max(), label)


def test_a_predicate_on_one_head(results: Any, told: Told) -> None:
    """A threshold on the norm of head 4 keeps rows of all heads."""
    z = heads(f"{L10}.self_attn.o_proj:input", 9)(told)
    kept = np.sqrt((z[:, 4] ** 2).sum(-1)) > threshold(told)
    data = one(results, "head_predicate")
    assert kept.sum() == int(data["count"])
    check(*reordered(mean_of(z[kept]), data["mean"]))
