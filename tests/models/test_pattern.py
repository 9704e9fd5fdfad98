"""Attention patterns: where they are, which keys a query sees, and what is said where none are."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
import transformers as hf
from torch import Tensor, nn

import hookql
from hookql.models.feed import TokenFeed
from hookql.models.load import Model, load_model, wrap_model
from hookql.models.mixing import Mixing
from hookql.models.patterns import Claim, Visible, visible_keys
from hookql.models.ports import HookPoint
from hookql.models.probe import Probe, probe
from hookql.models.tensors import TensorFeed
from tests import oracle
from tests.tiny import NAMES, character_tokenizer, tiny
from tests.weights import smollm2_folder

COMMON: dict[str, Any] = {
    "vocab_size": 128, "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2,
    "num_attention_heads": 4, "max_position_embeddings": 64, "attn_implementation": "eager",
}  # fmt: skip
LLAMA = {**COMMON, "num_key_value_heads": 2}


def eager(name: str) -> Model:
    """A tiny model whose attention shows its weights."""
    module, tokenizer, _ = tiny(name)
    for part in module.modules():
        if getattr(part, "config", None) is not None:
            part.config._attn_implementation = "eager"
    if name == "falcon":  # chooses its attention when it is built
        state = module.state_dict()
        module = type(module)._from_config(module.config, attn_implementation="eager").eval()
        module.load_state_dict(state)
    return wrap_model(module, tokenizer)


def patterns(model: Model, *modules: str, side: str = "pattern") -> Probe:
    """What the probe says of the patterns of these modules."""
    feed = TokenFeed(model)
    feed.has_target = True
    return probe(model, [HookPoint(module, side) for module in modules], feed)


def of_class(module: nn.Module, ending: str) -> list[str]:
    """The modules whose class ends so."""
    return [n for n, m in module.named_modules() if type(m).__name__.endswith(ending)]


def built(make: Any, **options: Any) -> Model:
    """A model of that class, from its config's options, the same every time."""
    with torch.random.fork_rng():
        torch.manual_seed(3)
        return wrap_model(make(make.config_class(**options)).eval(), character_tokenizer())


@pytest.mark.parametrize("name", [n for n in NAMES if n not in ("vit", "mamba", "albert")])
def test_patterns_of_every_family(name: str) -> None:
    """(head, key) at each query; causal in decoders, both ways in encoders; padding is not seen."""
    model = eager(name)
    modules = of_class(model.module, "SelfAttention" if name == "t5" else "Attention")
    found = patterns(model, *modules)
    assert {} == found.problems
    assert Mixing.NONE is found.mixing
    for point, seen in found.seen.items():
        both_ways = name in ("bert", "roberta") or point.module.startswith("encoder.")
        assert ("head", "key") == seen.axes
        assert (4, None) == seen.sizes
        assert ("batch", 4, "position", "key") == seen.shape
        assert (not both_ways) is seen.causal
        assert ("target" if point.module.startswith("decoder.") else "text") == seen.layout.stream


def test_a_shared_layers_pattern_has_calls() -> None:
    """ALBERT's attention runs three times."""
    model = eager("albert")
    (module,) = of_class(model.module, "Attention")
    assert [3] == [seen.calls for seen in patterns(model, module).seen.values()]


WINDOWS: dict[str, tuple[Callable[[], Model], list[int | None]]] = {
    "every layer": (lambda: built(hf.MistralForCausalLM, **LLAMA, sliding_window=4), [4, 4]),
    "switched off": (
        lambda: built(hf.Qwen2ForCausalLM, **LLAMA, sliding_window=4, use_sliding_window=False),
        [None, None],
    ),
    "the upper layers": (
        lambda: built(
            hf.Qwen2ForCausalLM, **LLAMA, sliding_window=4, use_sliding_window=True,
            max_window_layers=1,
        ),
        [None, 4],
    ),
    "by layer types": (
        lambda: built(
            hf.Gemma2ForCausalLM, **LLAMA, head_dim=8, sliding_window=40,
            layer_types=["full_attention", "sliding_attention"],
        ),
        [None, 40],
    ),
    "too wide to be tried": (
        lambda: built(
            hf.MistralForCausalLM, **{**LLAMA, "max_position_embeddings": 2048}, sliding_window=900
        ),
        [900, 900],
    ),
    "wider than the context": (
        lambda: built(hf.MistralForCausalLM, **LLAMA, sliding_window=4096), [4096, 4096],
    ),
    "of GPT-Neo": (
        lambda: built(
            hf.GPTNeoForCausalLM, vocab_size=128, hidden_size=32, num_layers=2, num_heads=4,
            attention_types=[[["local", "global"], 1]], window_size=5, max_position_embeddings=64,
            attn_implementation="eager",
        ),
        [5, None],
    ),
    "beside sinks": (
        lambda: built(
            hf.GptOssForCausalLM, **LLAMA, head_dim=8, num_local_experts=4, num_experts_per_tok=2,
            sliding_window=6,
        ),
        [6, None],
    ),
    "to both sides": (
        lambda: built(hf.ModernBertModel, **COMMON, pad_token_id=0, local_attention=8,
                      global_attn_every_n_layers=2),
        [None, 5],
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", WINDOWS)
def test_windows_are_found(case: str) -> None:
    """A query sees the keys less than a window away: as the config says, and as the model does."""
    make, expected = WINDOWS[case]
    model = make()
    modules = [m for m in of_class(model.module, "Attention") if not m.endswith("attn.attention")]
    seen = patterns(model, *modules).seen
    assert expected == [info.window for info in seen.values()]
    assert {case != "to both sides"} == {info.causal for info in seen.values()}


def weights(visible: Callable[[Tensor, Tensor], Tensor], length: int = 24) -> Tensor:
    """A pattern (1, 2, S, S) whose queries see these keys."""
    place = torch.arange(length)
    scores = torch.randn(1, 2, length, length, generator=torch.Generator().manual_seed(0))
    return scores.masked_fill(~visible(place[:, None], place), -torch.inf).softmax(-1)


@pytest.mark.parametrize(
    ("visible", "claim", "expected"),
    [
        (lambda q, k: k <= q, Claim(), Visible(True, None)),
        (lambda q, k: k <= q, Claim(window=7), Visible(True, None)),  # stated and not so
        (lambda q, k: k <= q, Claim(window=24), Visible(True, 24)),
        (lambda q, k: k <= q, Claim(window=99), Visible(True, 99)),
        (lambda q, k: (k <= q) & (q - k < 7), Claim(window=7), Visible(True, 7)),
        (lambda q, k: (k <= q) & (q - k < 23), Claim(window=23), Visible(True, 23)),
        (lambda q, k: (k <= q) & (q - k < 7), Claim(), Visible(True, 7)),  # not stated and so
        (lambda q, k: (k <= q) & (q - k < 6), Claim(window=7), Visible(True, 6)),
        (lambda q, k: k == k, Claim(), Visible(False, None)),
        (lambda q, k: (q - k).abs() < 3, Claim(window=3), Visible(False, 3)),
        (lambda q, k: (k <= q) & (k // 8 == q // 8), Claim(), "neither causality nor a window"),
        (lambda q, k: (k <= q) | (k < 5), Claim(), "neither causality nor a window"),
        (lambda q, k: k >= q, Claim(), "neither causality nor a window"),
        (lambda q, k: (q - k) % 3 == 0, Claim(), "neither causality nor a window"),
        (lambda q, k: k <= q, Claim(chunk=32), "the keys of their own chunk of 32"),
        (lambda q, k: k <= q, Claim(chunk=64), Visible(True, None)),  # never reached
    ],
)
def test_which_keys_are_seen(visible: Any, claim: Claim, expected: Visible | str) -> None:
    """What a small pattern shows, against what the config says of it."""
    found = visible_keys(weights(visible), claim, 64, sinks=False)
    assert expected in found if isinstance(expected, str) else expected == found


@pytest.mark.parametrize(
    ("spoil", "expected"),
    [
        (lambda w: w - 0.1, "no distribution"),
        (lambda w: w * 2, "no distribution"),
        (lambda w: w * 0.9, "do not add up to 1"),
        (lambda w: w.log(), "no distribution"),
    ],
)
def test_what_is_no_distribution_is_no_pattern(
    spoil: Callable[[Tensor], Tensor], expected: str
) -> None:
    """Scores, biases and scaled weights have the shape of a pattern."""
    spoilt = spoil(weights(lambda q, k: k <= q))
    assert expected in visible_keys(spoilt, Claim(), None, sinks=False)


def test_sinks_take_their_part() -> None:
    """Rows may add up to less than 1 where the module has sinks."""
    some = weights(lambda q, k: k <= q) * 0.9
    assert Visible(True, None) == visible_keys(some, Claim(), None, sinks=True)


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_patterns_of_real_weights(dtype: str) -> None:
    """All nine heads and thirty layers of SmolLM2 are causal, however faint their weights."""
    model = load_model(str(smollm2_folder()), dtype=dtype, device="cpu", attn="eager")
    found = patterns(model, *of_class(model.module, "Attention"))
    assert {} == found.problems
    assert Mixing.NONE is found.mixing
    assert [(True, None)] * 30 == [(seen.causal, seen.window) for seen in found.seen.values()]


class Leaking(nn.Module):
    """Attention that knows no mask."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.embed = nn.Embedding(128, 16)
        self.attention = Weights()

    def forward(self, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        """One layer."""
        return self.attention(self.embed(input_ids))[0]


class Weights(nn.Module):
    """Attention weights of four heads."""

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """The output and the weights."""
        heads = x.unflatten(-1, (4, 4)).transpose(1, 2)
        weights = (heads @ heads.transpose(-1, -2)).softmax(-1)
        return (weights @ heads).transpose(1, 2).flatten(2), weights


def test_attention_to_padding_is_found() -> None:
    """Weights on the padding are not 0: only equal lengths may share a batch."""
    model = wrap_model(Leaking().eval(), character_tokenizer())
    assert Mixing.PADDING is patterns(model, "attention").mixing


def test_patterns_of_patches() -> None:
    """A ViT's patches see each other; its class token is the first of them."""
    model = eager("vit")
    feed = TensorFeed(model, {"pixel_values": torch.randn(2, 3, 32, 32)})
    modules = of_class(model.module, "SelfAttention") or of_class(model.module, "Attention")
    found = probe(model, [HookPoint(module, "pattern") for module in modules], feed)
    assert {} == found.problems
    assert [((4, None), False, None)] * 3 == [
        (seen.sizes, seen.causal, seen.window) for seen in found.seen.values()
    ]


@pytest.mark.parametrize("name", ["qwen3", "gemma3"])
def test_norms_by_head_have_heads(name: str) -> None:
    """(B, S, H, d) in Qwen3, (B, H, S, d) in Gemma 3: the same axes."""
    module, tokenizer, _ = tiny(name)
    model = wrap_model(module, tokenizer)
    for norm, heads in (("q_norm", 4), ("k_norm", 2)):
        point = HookPoint(f"model.layers.0.self_attn.{norm}", "output")
        seen = probe(model, [point], TokenFeed(model)).seen[point]
        assert ("head", "feature") == seen.axes
        assert (heads, 8) == seen.sizes


def test_what_is_said_where_there_is_no_pattern(golden: Callable[[str, str], None]) -> None:
    """Hidden weights, modules that have none, other shapes, and weights asked for as an output."""

    def told(model: Model, point: HookPoint) -> str:
        feed = TokenFeed(model)
        feed.has_target = True
        return str(probe(model, [point], feed).problems[point])

    gpt2, tokenizer, _ = tiny("gpt2")
    hidden = wrap_model(gpt2, tokenizer)
    t5 = wrap_model(*tiny("t5")[:2])
    llama4 = built(
        hf.Llama4ForCausalLM, **LLAMA, intermediate_size_mlp=48, num_local_experts=2, head_dim=8,
        attention_chunk_size=8,
    )  # fmt: skip
    at = HookPoint("transformer.h.0.attn", "pattern")
    crossed = HookPoint("decoder.block.0.layer.1.EncDecAttention", "pattern")
    cases = {
        "hidden weights": told(hidden, at),
        "hidden weights as an output": told(hidden, HookPoint(at.module, "output", 1)),
        "hidden behind a bias": told(t5, HookPoint("encoder.block.0.layer.0", "pattern")),
        "no attention": told(hidden, HookPoint("transformer.h.0.mlp", "pattern")),
        "no attention, eager": told(eager("gpt2"), HookPoint("transformer.h.0.mlp", "pattern")),
        "weights as an output": told(eager("gpt2"), HookPoint(at.module, "output", 1)),
        "across": told(eager("t5"), crossed),
        "across as an output": told(eager("t5"), HookPoint(crossed.module, "output", 2)),
        "chunks": told(llama4, HookPoint("model.layers.0.self_attn", "pattern")),
    }
    golden("models/patterns.txt", "\n".join(f"# {name}\n{text}\n" for name, text in cases.items()))


@pytest.mark.parametrize(
    ("name", "module", "sees"),
    [
        ("gemma2", "model.layers.0.self_attn", lambda q, k: 0 <= q - k < 16),
        ("llama", "model.layers.0.self_attn", lambda q, k: k <= q),
        ("bert", "encoder.layer.0.attention.self", lambda q, k: True),
    ],
)
def test_each_key_is_pooled_over_the_queries_that_see_it(
    name: str, module: str, sees: Callable[[int, int], bool]
) -> None:
    """Against loops over every query and key, in a batch with padding."""
    model = eager(name)
    texts = ["Where were you all the long day?", "a", "abc def", "To be, or not"]
    sums, counts = np.zeros((4, 64)), np.zeros(64)
    for ids in oracle.encode(model.tokenizer, texts):
        with torch.no_grad():
            shown = model.module(ids, output_attentions=True).attentions[0][0].double().numpy()
        for query, key in np.ndindex(shown.shape[1:]):
            if sees(query, key):
                sums[:, key] += shown[:, query, key]
                counts[key] += 1
    result = hookql.run(
        f"capture mean from {module}:pattern",
        model=model.module,
        tokenizer=model.tokenizer,
        texts=texts,
    )
    keys = int((counts > 0).sum())
    mean = result["mean"].isel(layer=0).transpose("head", "key").values
    np.testing.assert_allclose(mean, sums[:, :keys] / counts[:keys], rtol=1e-5, atol=1e-7)
