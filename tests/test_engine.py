"""The engine end to end: what is shared, where it stops, what a row is, against NumPy by hand."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import hookql
from hookql.models import hooks
from hookql.predicates.evaluate import Predicate
from hookql.statistics.moments import Moments
from tests import oracle
from tests.tiny import CLS, PAD, SEP, character_tokenizer, tiny

TEXTS = ["Where were you?", "a", "In 1969, two people", "the the", "aaaa bbbb", "O, to be!"]
ALL = oracle.ALL


def run(
    query: str, model: Any, tokenizer: Any, texts: Sequence[Any] = TEXTS, **options: Any
) -> Any:
    """`hookql.run` over texts."""
    return hookql.run(query, model=model, tokenizer=tokenizer, data=list(texts), **options)


def rows_of(
    model: nn.Module,
    module: str,
    ids: Sequence[Tensor],
    pick: Callable[[Any, Any, Any], Tensor] | None = None,
) -> list[np.ndarray]:
    """For each sample, what a plain hook picks of a module's (args, kwargs, output), copied."""
    seen: list[np.ndarray] = []

    def hook(_: Any, args: Any, kwargs: Any, output: Any) -> None:
        first = output[0] if isinstance(output, tuple) else output
        tensor = first if pick is None else pick(args, kwargs, output)
        seen.append(tensor.detach().double().numpy()[0].copy())

    handle = model.get_submodule(module).register_forward_hook(hook, with_kwargs=True)
    with torch.no_grad():
        for row in ids:
            model(row)
    handle.remove()
    return seen


def ids_of(tokenizer: Any, texts: Sequence[str] = TEXTS) -> list[Tensor]:
    """The token ids of each text, (1, S)."""
    return oracle.encode(tokenizer, texts)


# --- sharing ------------------------------------------------------------------------------------

SHARED = """
let late = position >= 1
capture mean, std, sum, var from transformer.h[*] as a
capture mean(x), max from transformer.h[1:3], h[2] where late as b
capture rms, std from transformer.h.2 where position >= 1 as c
capture count from transformer.h[*] as d
"""


def test_each_hook_point_is_registered_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Four captures of four blocks: in the data's pass there are four hooks."""
    model, tokenizer, _ = tiny("gpt2")
    registered: list[list[str]] = []
    original = hooks.hooked

    def counted(root: nn.Module, taps: Any) -> Any:
        registered.append([str(point) for point in taps])
        return original(root, taps)

    monkeypatch.setattr("hookql.engines.local.hooked", counted)
    run(SHARED, model, tokenizer)
    assert [[f"transformer.h.{i}:output" for i in range(4)]] == registered


def test_an_accumulator_is_updated_once_for_all_that_share_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """mean, std, sum and var of one point and mask, in several captures: one update a batch."""
    model, tokenizer, _ = tiny("gpt2")
    updates: list[int] = []
    original = Moments.update

    def update(self: Moments, rows: Tensor) -> None:
        updates.append(id(self))
        original(self, rows)

    monkeypatch.setattr(Moments, "update", update)
    result = run(SHARED, model, tokenizer, batch_size=2)
    batches = int(result.attrs["batches"])
    assert 3 == batches
    # Blocks 0 to 3 under no mask, blocks 1 and 2 under `position >= 1`.
    assert 6 == len(set(updates))
    # The batch of "a" and "the the" has rows under both masks.
    assert 6 * batches == len(updates)


def test_a_mask_is_computed_once_a_batch(monkeypatch: pytest.MonkeyPatch) -> None:
    """Predicates of one meaning, whatever their names, are evaluated once a batch."""
    model, tokenizer, _ = tiny("gpt2")
    calls: list[Any] = []
    original = Predicate.__call__

    def call(self: Predicate, batch: Any) -> Any:
        calls.append(self.key)
        return original(self, batch)

    monkeypatch.setattr(Predicate, "__call__", call)
    result = run(SHARED, model, tokenizer, batch_size=2)
    assert int(result.attrs["batches"]) == len(calls)


def test_sharing_does_not_change_the_numbers() -> None:
    """Each capture of a shared pass has the bits it has when it runs alone."""
    model, tokenizer, _ = tiny("gpt2")
    together = run(SHARED, model, tokenizer)
    for name, query in {
        "a": "capture mean, std, sum, var from transformer.h[*]",
        "b": "capture mean, max from transformer.h[1:3] where position >= 1",
        "c": "capture rms, std from transformer.h.2 where position >= 1",
    }.items():
        alone = run(query, model, tokenizer)
        shared = together[f"{name}/transformer.h"].dataset
        for variable in alone.dataset.data_vars:
            np.testing.assert_array_equal(alone[variable], shared[variable])


def test_sites_that_name_a_module_twice_read_it_once() -> None:
    """A module that two patterns of a capture match stands in the result once."""
    model, tokenizer, _ = tiny("gpt2")
    result = run("capture mean from h[1:3], transformer.h.2, h[*] except h[0]", model, tokenizer)
    assert [1, 2, 3] == result["layer"].values.tolist()


# --- stopping and skipping ----------------------------------------------------------------------


class Chain(nn.Module):
    """Four layers in a row that note when they run on data (the probe's ids have other sizes)."""

    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Embedding(128, 8)
        self.layers = nn.ModuleList([nn.Linear(8, 8) for _ in range(4)])
        self.ran: Counter[int] = Counter()
        for number, layer in enumerate(self.layers):
            layer.forward = self._noting(number, layer.forward)
        self.sizes: list[tuple[int, ...]] = []

    def _noting(self, number: int, forward: Callable[[Tensor], Tensor]) -> Callable[..., Tensor]:
        def noting(x: Tensor) -> Tensor:
            self.ran[number] += 1
            return forward(x)

        return noting

    def forward(self, input_ids: Tensor) -> Tensor:
        """Run all layers."""
        self.sizes.append(tuple(input_ids.shape))
        x = self.embed(input_ids)
        for layer in self.layers:
            x = layer(x)
        return x


def chain() -> Chain:
    """A chain with seeded weights."""
    with torch.random.fork_rng():
        torch.manual_seed(11)
        return Chain().eval()


def ran_on_data(query: str, **options: Any) -> tuple[list[int], list[tuple[int, ...]], Any]:
    """How often each layer of a chain ran on data, the batches that were run, the result."""
    model = chain()
    tokenizer = character_tokenizer()
    hookql.explain(query, model=model, tokenizer=tokenizer)
    probed, passes = Counter(model.ran), len(model.sizes)
    result = run(query, model, tokenizer, **options)
    ran = [model.ran[i] - 2 * probed[i] for i in range(4)]
    return ran, model.sizes[2 * passes :], result


@pytest.mark.parametrize(
    ("sites", "expected"),
    [
        ("layers[0]", [1, 0, 0, 0]),
        ("layers[0:3]", [1, 1, 1, 0]),
        ("layers[2], layers[0]", [1, 1, 1, 0]),
        ("layers[2]:input", [1, 1, 0, 0]),
        ("layers[0]:input, embed", [0, 0, 0, 0]),
        ("layers[1]:input, layers[1]", [1, 1, 0, 0]),
        ("input", [0, 0, 0, 0]),
        ("output", [1, 1, 1, 1]),
    ],
)
def test_the_pass_stops_after_what_is_needed(sites: str, expected: list[int]) -> None:
    """What comes after the last hook point never runs; an input port stops before its module."""
    ran, _, result = ran_on_data(f"capture mean from {sites}", batch_size=64)
    assert expected == ran
    assert 1 == result.attrs["batches"]


def test_the_last_of_all_captures_counts() -> None:
    """The pass goes as far as the most demanding capture needs, whatever their order."""
    ran, _, _ = ran_on_data("capture mean from layers[2] capture max from layers[0]")
    assert [1, 1, 1, 0] == ran


def test_batches_without_a_kept_row_are_not_run() -> None:
    """With one sample a batch, a predicate on the sample runs that sample alone."""
    query = "capture mean from layers[0] where sample == 2"
    ran, batches, result = ran_on_data(query, batch_size=1)
    length = len(TEXTS[2])
    assert [1, 0, 0, 0] == ran
    assert [(1, length)] == batches
    assert length == int(result["count"])
    assert length == result.attrs["tokens_run"]
    assert sum(map(len, TEXTS)) - length == result.attrs["tokens_skipped"]


def test_a_batch_that_one_capture_wants_is_run_for_it() -> None:
    """A batch is only skipped when no capture keeps a row of it."""
    query = """
    capture mean from layers[0] where sample == 2
    capture count from layers[0] where sample == 4
    """
    ran, batches, _ = ran_on_data(query, batch_size=1)
    assert [2, 0, 0, 0] == ran
    assert sorted([(1, len(TEXTS[2])), (1, len(TEXTS[4]))]) == sorted(batches)


# --- modules of all kinds -----------------------------------------------------------------------


@pytest.mark.parametrize("module", ["transformer.h.1.mlp", "transformer.h.1.self_attention"])
@pytest.mark.parametrize("parallel", [True, False])
def test_falcons_changes_in_place_do_not_spoil_the_numbers(module: str, parallel: bool) -> None:
    """Falcon adds attention onto the MLP's own output; what counts is what the module returned."""
    import transformers as hf

    torch.manual_seed(1)
    config = hf.FalconConfig(
        vocab_size=128, hidden_size=32, num_hidden_layers=2, num_attention_heads=4,
        parallel_attn=parallel, new_decoder_architecture=False,
    )  # fmt: skip
    model, tokenizer = hf.FalconForCausalLM(config).eval(), character_tokenizer()
    result = run(f"capture {ALL} from {module}", model, tokenizer)
    rows = np.concatenate(rows_of(model, module, ids_of(tokenizer)))
    oracle.assert_agrees(result.dataset.isel(layer=0), rows)


class InPlace(nn.Module):
    """Changes every part's output in place once it has it."""

    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Embedding(128, 8)
        self.first = nn.Linear(8, 8)
        self.second = nn.ReLU(inplace=True)

    def forward(self, input_ids: Tensor) -> Tensor:
        """Spoil what each part returned."""
        x = self.embed(input_ids).mul_(3)
        return self.second(self.first(x).add_(1).mul_(-1)).fill_(7)


@pytest.mark.parametrize("site", ["embed", "first", "second", "second:input", "first:input"])
def test_tensors_are_reduced_before_a_model_spoils_them(site: str) -> None:
    """Even `relu_` on a captured input and `fill_` on a captured output come too late."""
    torch.manual_seed(2)
    model, tokenizer = InPlace().eval(), character_tokenizer()
    result = run(f"capture {ALL} from {site}", model, tokenizer)
    module, _, port = site.partition(":")
    seen: list[np.ndarray] = []
    if port:
        handle = model.get_submodule(module).register_forward_pre_hook(
            lambda _, args: seen.append(args[0][0].double().numpy().copy())
        )
    else:
        handle = model.get_submodule(module).register_forward_hook(
            lambda _, __, output: seen.append(output[0].double().numpy().copy())
        )
    with torch.no_grad():
        for row in ids_of(tokenizer):
            model(row)
    handle.remove()
    oracle.assert_agrees(result.dataset, np.concatenate(seen))


class Loops(nn.Module):
    """Runs a layer as often as `times` says for a length."""

    def __init__(self, times: Callable[[int], int]) -> None:
        super().__init__()
        self.embed = nn.Embedding(128, 8)
        self.layer = nn.Linear(8, 8)
        self.times = times

    def forward(self, input_ids: Tensor) -> Tensor:
        """Run the layer some times."""
        x = self.embed(input_ids)
        for _ in range(self.times(input_ids.shape[1])):
            x = self.layer(x).tanh()
        return x


def test_a_module_that_runs_a_varying_number_of_times_is_refused() -> None:
    """As often as there are tokens: an error before any data is run."""
    with pytest.raises(hookql.QueryError) as caught:
        run("capture mean from layer", Loops(lambda n: n), character_tokenizer())
    assert "unaligned" == caught.value.code
    assert "varying number of times" in caught.value.message
    assert ("times run in four small passes: 5, 7, 11, 5",) == caught.value.notes


@pytest.mark.parametrize("times", [0, 1, 3])
def test_calls_that_vary_only_on_the_data_are_refused(times: int) -> None:
    """Two calls in the probe and another number on a longer sample: an error, not a number."""
    model = Loops(lambda n: 2 if n < 12 else times)
    with pytest.raises(hookql.ModelError) as caught:
        run("capture mean from layer", model, character_tokenizer())
    assert "varying-calls" == caught.value.code
    assert "`layer:output` ran 2 times" in caught.value.message


def test_a_module_that_runs_twice_has_two_calls() -> None:
    """Each call stands apart under `call`, and equals the plain hook's."""
    model, tokenizer = Loops(lambda n: 2), character_tokenizer()
    result = run(f"capture {ALL} from layer", model, tokenizer)
    assert {"call": 2, "feature": 8} == dict(result.sizes)
    samples = rows_of(model, "layer", ids_of(tokenizer))
    for call in range(2):
        oracle.assert_agrees(result.dataset.isel(call=call), np.concatenate(samples[call::2]))


class Tied(nn.Module):
    """One layer under two names."""

    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Embedding(128, 8)
        self.first = self.second = nn.Linear(8, 8)

    def forward(self, input_ids: Tensor) -> Tensor:
        """Run it under either name."""
        return self.second(self.first(self.embed(input_ids)))


@pytest.mark.parametrize("name", ["first", "second"])
def test_a_module_under_two_names_has_the_calls_of_both(name: str) -> None:
    """A shared module is one module: whichever name is written, both calls are there."""
    torch.manual_seed(4)
    model, tokenizer = Tied().eval(), character_tokenizer()
    result = run(f"capture {ALL} from {name}", model, tokenizer)
    samples = rows_of(model, "first", ids_of(tokenizer))
    for call in range(2):
        oracle.assert_agrees(result.dataset.isel(call=call), np.concatenate(samples[call::2]))


def test_tied_weights_are_two_modules() -> None:
    """GPT-2's embedding and head share weights, not calls."""
    model, tokenizer, _ = tiny("gpt2")
    assert model.lm_head.weight is model.transformer.wte.weight
    result = run(f"capture {ALL} from lm_head, transformer.wte", model, tokenizer)
    for module in ("lm_head", "transformer.wte"):
        rows = np.concatenate(rows_of(model, module, ids_of(tokenizer)))
        oracle.assert_agrees(result[f"lm_head/{module}"].dataset, rows)


# --- ports --------------------------------------------------------------------------------------


def test_input_is_the_first_tensor_even_by_keyword() -> None:
    """Llama calls attention with keywords only: `:input` is still the normed hidden state."""
    model, tokenizer, _ = tiny("llama")
    query = """
    capture mean, std, max from model.layers[*].self_attn:input as inputs
    capture mean, std, max from model.layers[*].input_layernorm as norms
    """
    result = run(query, model, tokenizer)
    inputs = result["inputs/model.layers.self_attn:input"]
    norms = result["norms/model.layers.input_layernorm"]
    for name in ("mean", "std", "max"):
        np.testing.assert_array_equal(norms[name], inputs[name])


def test_the_input_of_a_block_is_the_output_of_the_one_before() -> None:
    """`h[1:4]:input` equals `h[0:3]`, bit by bit."""
    model, tokenizer, _ = tiny("gpt2")
    query = "capture mean, std from h[1:4]:input as i capture mean, std from h[0:3] as o"
    result = run(query, model, tokenizer)
    for name in ("mean", "std"):
        np.testing.assert_array_equal(
            result["o/transformer.h"][name], result["i/transformer.h:input"][name]
        )


def test_an_input_by_name() -> None:
    """`:input.position_ids` of Llama's rotary embedding: the positions, one number a token."""
    model, tokenizer, _ = tiny("llama")
    result = run(
        "capture mean, max from model.layers[0].self_attn:input.hidden_states, "
        "model.layers[0].input_layernorm:input.hidden_states",
        model,
        tokenizer,
    )
    rows = np.concatenate(rows_of(model, "model.layers.0.input_layernorm", ids_of(tokenizer)))
    role = "self_attn_input_hidden_states/model.layers.self_attn:input.hidden_states"
    np.testing.assert_allclose(rows.mean(0), result[role]["mean"][0], atol=1e-6)
    embedded = np.concatenate(rows_of(model, "model.embed_tokens", ids_of(tokenizer)))
    role = "self_attn_input_hidden_states/model.layers.input_layernorm:input.hidden_states"
    np.testing.assert_allclose(embedded.mean(0), result[role]["mean"][0], atol=1e-6)


def test_a_name_that_is_no_input_is_refused() -> None:
    """What the module was called with instead is said."""
    model, tokenizer, _ = tiny("llama")
    with pytest.raises(hookql.QueryError) as caught:
        run("capture mean from model.layers[0].self_attn:input.nothing", model, tokenizer)
    assert "no-tensor" == caught.value.code
    assert "hidden_states: tensor (2, 5, 32) float32" in caught.value.notes[0]


def test_attention_weights_are_not_there_under_sdpa() -> None:
    """The second output is None: the error says what it found, and leads into no dead end."""
    model, tokenizer, _ = tiny("gpt2")
    assert "sdpa" == model.config._attn_implementation
    with pytest.raises(hookql.QueryError) as caught:
        run("capture mean from h[0].attn:output[1]", model, tokenizer)
    assert "no-tensor" == caught.value.code
    assert hookql.Span(18, 37) == caught.value.span
    assert "attention weights are `transformer.h.0.attn:pattern`" == caught.value.help
    assert "1: None" in caught.value.notes[0]


def test_attention_weights_have_two_position_axes() -> None:
    """Under eager attention they are there, and refused: two axes follow the tokens."""
    model, tokenizer, _ = tiny("gpt2")
    model.set_attn_implementation("eager")
    with pytest.raises(hookql.QueryError) as caught:
        run("capture mean from h[0].attn:output[1]", model, tokenizer)
    assert "unaligned" == caught.value.code
    assert "two of its axes follow the tokens" in caught.value.message


def test_a_second_output_that_is_aligned() -> None:
    """`:output[1]` and `:output[0]` are elements of a tuple."""

    class Two(nn.Module):
        """Returns two tensors."""

        def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
            """Two times and three times the input."""
            return 2 * x, 3 * x

    model, tokenizer = chain(), character_tokenizer()
    model.layers[3] = nn.Sequential()
    model.layers[2] = Two()
    model.layers[3].forward = lambda pair: pair[0]
    query = "capture mean from layers[2], layers[2]:output[0], layers[2]:output[1], layers[2]:input"
    result = run(query, model, tokenizer)["layers"]
    whole = result["layers:input"]["mean"].values
    np.testing.assert_allclose(2 * whole, result["layers"]["mean"], rtol=1e-6)
    np.testing.assert_allclose(2 * whole, result["layers:output[0]"]["mean"], rtol=1e-6)
    np.testing.assert_allclose(3 * whole, result["layers:output[1]"]["mean"], rtol=1e-6)


@pytest.mark.parametrize("name", ["gpt2", "llama", "bert"])
def test_the_model_itself_as_a_site(name: str) -> None:
    """`output` is the logits, or an encoder's last hidden state; `input` the token ids."""
    model, tokenizer, _ = tiny(name)
    result = run(f"capture {ALL} from output as o capture {ALL} from input as i", model, tokenizer)
    ids = ids_of(tokenizer)
    with torch.no_grad():
        rows = np.concatenate([model(row)[0][0].double().numpy() for row in ids])
    oracle.assert_agrees(result["o/model"].dataset, rows)
    tokens = np.concatenate([row[0].double().numpy() for row in ids])
    oracle.assert_agrees(result["i/model:input"].dataset, tokens)


def test_decoder_sites_of_an_encoder_decoder_are_refused() -> None:
    """Without a text for it, T5's decoder has no tokens; its encoder has."""
    model, tokenizer, _ = tiny("t5")
    for site in ("decoder.block[0]", "decoder.final_layer_norm", "lm_head", "output"):
        with pytest.raises(hookql.QueryError) as caught:
            run(f"capture mean from {site}", model, tokenizer)
        assert "needs-target" == caught.value.code
        assert "decoder" in caught.value.message
    assert 2 == run("capture mean from encoder.block[*]", model, tokenizer).sizes["layer"]


# --- dtypes, NaN and infinity -------------------------------------------------------------------


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float64])
@pytest.mark.parametrize("name", ["gpt2", "llama"])
def test_other_dtypes_are_reduced_exactly(dtype: torch.dtype, name: str) -> None:
    """What a half-precision model produces is widened, never rounded again: float64 oracle."""
    model, tokenizer, _ = tiny(name)
    model.to(dtype)
    site = {"gpt2": "transformer.h.2", "llama": "model.layers.2"}[name]
    # One sample a batch: other shapes round differently in half precision.
    result = run(f"capture {ALL} from {site}", model, tokenizer, batch_size=1)
    rows = np.concatenate(rows_of(model, site, ids_of(tokenizer)))
    oracle.assert_agrees(result.dataset.isel(layer=0), rows)
    np.testing.assert_array_equal(rows.max(0), result["max"][0])
    np.testing.assert_array_equal(rows.min(0), result["min"][0])
    assert str(dtype).removeprefix("torch.") == result.attrs["dtype_run"]
    assert np.float64 == result["mean"].dtype
    assert np.int64 == result["count"].dtype


def test_a_mean_of_many_bfloat16_values_is_not_a_bfloat16() -> None:
    """1,000 rows of 1 and 0: summed in bfloat16 the mean would stick."""
    model, tokenizer = chain().to(torch.bfloat16), character_tokenizer()
    with torch.no_grad():
        model.embed.weight.zero_()
        model.embed.weight[tokenizer.convert_tokens_to_ids("a")] = 1.0
    result = run("capture mean, sum from embed", model, tokenizer, ["a" * 50 + "b" * 3] * 30)
    np.testing.assert_allclose(50 / 53, result["mean"], rtol=1e-12)
    np.testing.assert_allclose(1500, result["sum"], rtol=1e-12)


FAULTY = ["abc", "xxq", "b?c", "q", "??q"]  # `?` is NaN or infinite
FAULTS = 8 * 3
FIRST = (2, 1)


def faulty(value: float) -> tuple[Chain, Any]:
    """A chain whose embedding of `?` is NaN or infinite."""
    model, tokenizer = chain(), character_tokenizer()
    with torch.no_grad():
        model.embed.weight[tokenizer.convert_tokens_to_ids("?")] = value
    return model, tokenizer


@pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf")])
@pytest.mark.parametrize("options", [{}, {"batch_size": 1}, {"batch_size": 2}])
def test_nan_and_infinity_propagate_and_are_located(value: float, options: Any) -> None:
    """How many there were, and the smallest (sample, position), whatever the batches."""
    model, tokenizer = faulty(value)
    with pytest.warns(hookql.HookQLWarning, match="has 24 NaN or infinite values, the first in "
                      "sample 2 at position 1"):  # fmt: skip
        result = run(f"capture {ALL} from embed", model, tokenizer, FAULTY, **options)
    assert FAULTS == int(result["nonfinite"])
    found = int(result["first_nonfinite_sample"]), int(result["first_nonfinite_position"])
    assert FIRST == found
    assert sum(map(len, FAULTY)) == int(result["count"])
    with np.errstate(all="ignore"):
        rows = np.concatenate(rows_of(model, "embed", ids_of(tokenizer, FAULTY)))
        for name, statistic in oracle.STATISTICS.items():
            expected = statistic(rows)
            np.testing.assert_allclose(result[name], expected, rtol=1e-6, err_msg=name)


def test_only_kept_rows_are_looked_at_for_nan() -> None:
    """A NaN that the predicate leaves out, or that stands in padding, is none."""
    model, tokenizer = faulty(float("nan"))
    result = run('capture mean from embed where token != "?"', model, tokenizer, FAULTY)
    assert 0 == int(result["nonfinite"])
    assert -1 == int(result["first_nonfinite_sample"])
    assert not np.isnan(result["mean"]).any()
    # Padding takes the id of `<pad>`: whatever is there must not count.
    with torch.no_grad():
        model.embed.weight[PAD] = float("nan")
    result = run('capture mean from embed where token != "?"', model, tokenizer, FAULTY)
    assert 0 == int(result["nonfinite"])


def test_each_module_has_its_own_faults() -> None:
    """A layer that has them, one that has none."""
    model, tokenizer = faulty(float("nan"))
    with torch.no_grad():
        model.layers[1].weight.zero_()
    model.layers[1].forward = lambda x: torch.zeros_like(x)
    with pytest.warns(hookql.HookQLWarning):
        result = run("capture mean from layers[0:3]", model, tokenizer, FAULTY)
    assert [FAULTS, 0, 0] == result["nonfinite"].values.tolist()
    assert [2, -1, -1] == result["first_nonfinite_sample"].values.tolist()


def test_the_first_fault_of_a_split_sample_is_in_its_first_piece() -> None:
    """Pieces of a sample come in order, though batches hold the longest first."""
    model, tokenizer = faulty(float("nan"))
    texts = ["abcdefg?", "abcd?fghijk?"]
    for size in (1, 2, 64):
        with pytest.warns(hookql.HookQLWarning):
            result = run(
                "capture mean from embed where sample == 1",
                model, tokenizer, texts, max_length=6, batch_size=size,
            )  # fmt: skip
        assert 16 == int(result["nonfinite"])
        assert (1, 4) == (
            int(result["first_nonfinite_sample"]), int(result["first_nonfinite_position"])
        )  # fmt: skip


# --- few rows -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "where", ["position >= 1000", 'token == "@"', "prev == none and next == 5"]
)
def test_an_empty_selection_is_counted_and_warned_of(where: str) -> None:
    """Nothing kept: count 0, NaN in the right shape, a warning."""
    model, tokenizer, _ = tiny("gpt2")
    with pytest.warns(hookql.HookQLWarning, match="kept no token: all but its count is NaN"):
        result = run(f"capture {ALL} from transformer.h[*] where {where}", model, tokenizer)
    assert 0 == int(result["count"])
    for name in oracle.STATISTICS:
        assert (4, 32) == result[name].shape
        assert np.isnan(result[name]).all()
    assert 0 == result.attrs["batches"]


def test_an_empty_selection_beside_a_full_one() -> None:
    """The empty one is NaN, the other one untouched by it."""
    model, tokenizer, _ = tiny("gpt2")
    query = "capture mean from h[1] where sample > 99 as none_ capture mean from h[1] as all_"
    with pytest.warns(hookql.HookQLWarning, match="`none_` kept no token"):
        result = run(query, model, tokenizer)
    assert np.isnan(result["none_/transformer.h"]["mean"]).all()
    rows = np.concatenate(rows_of(model, "transformer.h.1", ids_of(tokenizer)))
    np.testing.assert_allclose(rows.mean(0), result["all_/transformer.h"]["mean"][0], atol=1e-6)


def test_one_row() -> None:
    """A single token: its spread is 0, its extremes are itself, ddof=1 has no number."""
    model, tokenizer, _ = tiny("gpt2")
    result = run(
        "capture mean, std, var, min, max, rms, sum, var(ddof=1) as unbiased from h[1] "
        "where sample == 2 and position == 3",
        model,
        tokenizer,
    ).dataset.isel(layer=0)
    row = rows_of(model, "transformer.h.1", ids_of(tokenizer))[2][3]
    assert 1 == int(result["count"])
    for name in ("mean", "min", "max", "sum"):
        np.testing.assert_allclose(row, result[name], atol=1e-6)
    np.testing.assert_allclose(np.abs(row), result["rms"], atol=1e-6)
    np.testing.assert_array_equal(0, result["std"])
    np.testing.assert_array_equal(0, result["var"])
    assert np.isnan(result["unbiased"]).all()


def test_one_sample_of_one_token() -> None:
    """The smallest data there is."""
    model, tokenizer, _ = tiny("llama")
    result = run(f"capture {ALL} from model.layers[*]", model, tokenizer, ["a"])
    assert 1 == int(result["count"])
    rows = rows_of(model, "model.layers.1", ids_of(tokenizer, ["a"]))[0]
    np.testing.assert_allclose(rows[0], result["mean"][1], atol=1e-6)


# --- pooling ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("pool", "axes", "dims"),
    [
        ("feature", (0, 2), ("layer",)),
        ("layer", (0, 1), ("feature",)),
        ("feature, layer", (0, 1, 2), ()),
    ],
)
def test_pooling_equals_numpy_over_the_pooled_numbers(
    pool: str, axes: tuple[int, ...], dims: tuple[str, ...]
) -> None:
    """A pooled dimension's numbers count as more rows; count stays the number of tokens."""
    model, tokenizer, _ = tiny("gpt2")
    query = (
        f"capture {ALL}, var(ddof=1) as unbiased from h[1:4].mlp where position >= 1 pool {pool}"
    )
    result = run(query, model, tokenizer).dataset
    ids = ids_of(tokenizer)
    layers = [
        np.concatenate([r[1:] for r in rows_of(model, f"transformer.h.{i}.mlp", ids)])
        for i in (1, 2, 3)
    ]
    rows = np.stack(layers, 1)  # (tokens, layer, feature)
    assert len(rows) == int(result["count"])
    numpy: dict[str, Any] = {
        "sum": rows.sum(axes),
        "mean": rows.mean(axes),
        "var": rows.var(axes),
        "std": rows.std(axes),
        "min": rows.min(axes),
        "max": rows.max(axes),
        "rms": np.sqrt((rows**2).mean(axes)),
        "unbiased": rows.var(axes, ddof=1),
    }
    for name, expected in numpy.items():
        assert dims == result[name].dims
        np.testing.assert_allclose(result[name], expected, rtol=1e-5, atol=1e-7, err_msg=name)


def test_pooling_does_not_spoil_what_is_shared() -> None:
    """The same accumulators pooled in one capture stand whole in another."""
    model, tokenizer, _ = tiny("gpt2")
    alone = run("capture mean, std from h[*]", model, tokenizer)
    query = """
    capture mean, std from h[*] pool layer as pooled
    capture mean, std from h[*] pool feature, layer as number
    capture mean, std from h[*] as whole
    """
    together = run(query, model, tokenizer)
    for name in ("mean", "std"):
        np.testing.assert_array_equal(alone[name], together["whole/transformer.h"][name])
    assert {"feature": 32} == dict(together["pooled/transformer.h"].sizes)
    assert {} == dict(together["number/transformer.h"].sizes)


def test_nan_of_pooled_layers_is_counted_together() -> None:
    """The first one of any layer is the first."""
    model, tokenizer = faulty(float("nan"))
    with pytest.warns(hookql.HookQLWarning):
        result = run("capture mean from layers[0:2] pool layer", model, tokenizer, FAULTY)
    assert 2 * FAULTS == int(result["nonfinite"])
    assert FIRST[0] == int(result["first_nonfinite_sample"])
    assert FIRST[1] == int(result["first_nonfinite_position"])


def test_roles_are_pooled_apart() -> None:
    """`pool layer` over two kinds of modules gives one number for each kind."""
    model, tokenizer, _ = tiny("gpt2")
    result = run("capture mean from h[*].{attn,mlp} pool layer, feature", model, tokenizer)
    ids = ids_of(tokenizer)
    for role in ("attn", "mlp"):
        rows = [np.concatenate(rows_of(model, f"transformer.h.{i}.{role}", ids)) for i in range(4)]
        (found,) = [
            float(node["mean"]) for node in result.subtree
            if node.has_data and node.attrs["role"] == f"transformer.h.{role}"
        ]  # fmt: skip
        np.testing.assert_allclose(np.concatenate(rows).mean(), found, rtol=1e-5)


@pytest.mark.parametrize(("pool", "site"), [("head", "h[0].attn"), ("layer", "lm_head")])
def test_pooling_what_is_not_there_is_refused(pool: str, site: str) -> None:
    """The error names the dimensions that there are."""
    model, tokenizer, _ = tiny("gpt2")
    with pytest.raises(hookql.QueryError) as caught:
        run(f"capture mean from {site} pool {pool}", model, tokenizer)
    assert "no-such-dimension" == caught.value.code
    assert "feature" in caught.value.notes[0]


def test_heads_are_told_apart_and_pooled() -> None:
    """Qwen3 norms queries by head: (head, feature), and `pool head` merges them."""
    model, tokenizer, _ = tiny("qwen3")
    site = "model.layers[1].self_attn.q_norm"
    ids = ids_of(tokenizer)
    rows = np.concatenate(rows_of(model, "model.layers.1.self_attn.q_norm", ids))
    whole = run(f"capture {ALL} from {site}", model, tokenizer)
    assert {"layer": 1, "head": 4, "feature": 8} == dict(whole.sizes)
    oracle.assert_agrees(whole.dataset.isel(layer=0), rows)
    pooled = run(f"capture mean, std from {site} pool head", model, tokenizer)
    assert {"layer": 1, "feature": 8} == dict(pooled.sizes)
    np.testing.assert_allclose(rows.mean((0, 1)), pooled["mean"][0], atol=1e-6)
    np.testing.assert_allclose(rows.std((0, 1)), pooled["std"][0], atol=1e-6)
    both = run(f"capture mean, std from {site} pool feature, head", model, tokenizer)
    assert {"layer": 1} == dict(both.sizes)
    np.testing.assert_allclose(rows.mean(), both["mean"][0], atol=1e-6)
    np.testing.assert_allclose(rows.std(), both["std"][0], atol=1e-6)


# --- predicates, end to end ---------------------------------------------------------------------

DATA = [
    {"text": "Where were you?", "label": "question", "score": 3, "good": True},
    {"text": "a", "label": "letter", "score": 1.5, "good": False},
    {"text": "In 1969, two people", "label": "fact", "score": None, "good": True},
    {"text": "the the", "label": None, "score": 7, "good": None},
    {"text": "aaaa bbbb", "label": "letter", "score": -2, "good": False},
]


class Token:
    """What a predicate may ask of one token, worked out by hand."""

    def __init__(self, tokenizer: Any, row: dict[str, Any], sample: int, ids: list[int], at: int):
        content = [i for i, t in enumerate(ids) if t not in (CLS, SEP)]
        self.id = ids[at]
        self.text = tokenizer.decode([ids[at]])
        self.special = at not in content
        self.position, self.length, self.sample, self.row = at, len(ids), sample, row
        self.content = None if self.special else content.index(at)
        self.contents = len(content)
        self.prev = tokenizer.decode([ids[at - 1]]) if at else None
        self.next = tokenizer.decode([ids[at + 1]]) if at + 1 < len(ids) else None


SELECTIONS: dict[str, Callable[[Token], bool]] = {
    'token == "e"': lambda t: t.text == "e",
    'token in {"e", "a"}': lambda t: t.text in ("e", "a"),
    'token not in {"e", "a"}': lambda t: t.text not in ("e", "a"),
    'token != "e"': lambda t: t.text != "e",
    "token ~ /^[a-e0-9]$/": lambda t: re.fullmatch("[a-e0-9]", t.text) is not None,
    "not token ~ /[a-e]/": lambda t: re.search("[a-e]", t.text) is None,
    "token == 77": lambda t: t.id == 77,
    "token == cls": lambda t: t.id == CLS,
    "token != pad": lambda t: True,
    "special": lambda t: t.special,
    "not special": lambda t: not t.special,
    "position == 0": lambda t: t.position == 0,
    "position == -1": lambda t: t.position == t.length - 1,
    "position == last": lambda t: t.position == t.length - 1,
    "position >= -3": lambda t: t.position >= t.length - 3,
    "1 <= position < 4": lambda t: 1 <= t.position < 4,
    "position in {0, 2, -2}": lambda t: t.position in (0, 2, t.length - 2),
    "position < last - 1": lambda t: t.position < t.length - 2,
    "content_position == 0": lambda t: t.content == 0,
    "content_position == -1": lambda t: t.content == t.contents - 1,
    "content_position == last": lambda t: t.content == t.contents - 1,
    "content_position >= 2": lambda t: t.content is not None and t.content >= 2,
    "not content_position >= 2": lambda t: t.content is not None and t.content < 2,
    "content_position == none": lambda t: t.content is None,
    "length > 10": lambda t: t.length > 10,
    "position + 1 == length": lambda t: t.position + 1 == t.length,
    "sample == 2": lambda t: t.sample == 2,
    "sample in {0, 3}": lambda t: t.sample in (0, 3),
    'prev == "e"': lambda t: t.prev == "e",
    'prev != "e"': lambda t: t.prev not in ("e", None),
    'not prev == "e"': lambda t: t.prev not in ("e", None),
    "prev == none": lambda t: t.prev is None,
    "prev != none": lambda t: t.prev is not None,
    'next == "e"': lambda t: t.next == "e",
    'next not in {"e", "r"}': lambda t: t.next not in ("e", "r", None),
    'next == "e" or position == 0': lambda t: t.next == "e" or t.position == 0,
    "prev == next": lambda t: None not in (t.prev, t.next) and t.prev == t.next,
    'row.label == "letter"': lambda t: t.row["label"] == "letter",
    'row.label != "letter"': lambda t: t.row["label"] not in ("letter", None),
    'row.label in {"fact", "question"}': lambda t: t.row["label"] in ("fact", "question"),
    "row.label == none": lambda t: t.row["label"] is None,
    "row.label ~ /^.e/": lambda t: (t.row["label"] or "")[1:2] == "e",
    "row.score > 1": lambda t: t.row["score"] is not None and t.row["score"] > 1,
    "not row.score > 1": lambda t: t.row["score"] is not None and t.row["score"] <= 1,
    "row.score > 1 or row.score == none": lambda t: t.row["score"] is None or t.row["score"] > 1,
    "row.good": lambda t: t.row["good"] is True,
    "not row.good": lambda t: t.row["good"] is False,
    "row.score + position > 6": lambda t: (
        t.row["score"] is not None and t.row["score"] + t.position > 6
    ),
    'token == "e" and not (position < 3 or sample == 0)': lambda t: (
        t.text == "e" and t.position >= 3 and t.sample != 0
    ),
    "true": lambda t: True,
}


@pytest.mark.filterwarnings("ignore::hookql.HookQLWarning")
@pytest.mark.parametrize("where", SELECTIONS)
def test_predicates_select_what_numpy_selects(where: str) -> None:
    """Every column, end to end: count, mean and max of exactly the tokens chosen by hand."""
    model, tokenizer, _ = tiny("bert")
    site = "encoder.layer.1"
    query = f"capture {ALL} from {site} where {where}"
    result = run(query, model, tokenizer, DATA, batch_size=3).dataset.isel(layer=0)
    ids = ids_of(tokenizer, [row["text"] for row in DATA])
    kept = []
    for number, (row, values) in enumerate(zip(ids, rows_of(model, site, ids), strict=True)):
        for at in range(row.shape[1]):
            if SELECTIONS[where](Token(tokenizer, DATA[number], number, row[0].tolist(), at)):
                kept.append(values[at])
    assert kept, "a selection that keeps nothing tests nothing"
    oracle.assert_agrees(result, np.stack(kept), scale=float(np.abs(np.stack(kept)).max()))


def test_tokens_where_a_predicate_is_undefined_are_counted() -> None:
    """`prev` has no value at the first token of each sample."""
    model, tokenizer, _ = tiny("gpt2")
    result = run('capture mean from h[0] where prev != "e"', model, tokenizer)
    assert len(TEXTS) == result.attrs["tokens_undefined"]
    tokens = sum(map(len, TEXTS))
    e_before = sum(text[:-1].count("e") for text in TEXTS)
    assert tokens - len(TEXTS) - e_before == int(result["count"])


def test_random_keeps_a_fraction_whatever_the_batches() -> None:
    """`random` is a hash: the same tokens at any batch size, others with another seed."""
    model, tokenizer, _ = tiny("gpt2")
    texts = [f"sample number {i} of some" for i in range(60)]

    def kept(where: str, **options: Any) -> Any:
        return run(f"capture mean from transformer.wte where {where}", model, tokenizer, texts,
                   **options)  # fmt: skip

    first = kept("random(0.3, seed=1)")
    again = kept("random(0.3, seed=1)", batch_size=7)
    other = kept("random(0.3, seed=2)")
    tokens = sum(map(len, texts))
    assert abs(int(first["count"]) / tokens - 0.3) < 0.05
    assert int(first["count"]) == int(again["count"])
    np.testing.assert_allclose(first["mean"], again["mean"], atol=1e-8)
    assert not np.allclose(first["mean"], other["mean"], atol=1e-9)
    rest = kept("not random(0.3, seed=1)")
    assert tokens == int(first["count"]) + int(rest["count"])


def test_a_column_that_the_data_lacks_is_refused() -> None:
    """The columns that there are are named."""
    model, tokenizer, _ = tiny("gpt2")
    with pytest.raises(hookql.QueryError) as caught:
        run('capture mean from h[0] where row.labl == "x"', model, tokenizer, DATA)
    assert "unknown-column" == caught.value.code
    assert "did you mean `label`?" == caught.value.help


# --- long samples -------------------------------------------------------------------------------

LONG = ["abcdefghijklm", "xy", "0123456789"]
PIECES = {
    "split": ["abcde", "fghij", "klm", "xy", "01234", "56789"],
    "truncate": ["abcde", "xy", "01234"],
}


@pytest.mark.filterwarnings("ignore::hookql.HookQLWarning")
@pytest.mark.parametrize("overflow", ["split", "truncate"])
def test_long_samples_are_split_or_cut(overflow: str) -> None:
    """Each piece is a context of its own; what is dropped is counted."""
    model, tokenizer, _ = tiny("gpt2")
    query = f"capture {ALL} from h[2]"
    result = run(query, model, tokenizer, LONG, max_length=5, overflow=overflow)
    rows = np.concatenate(
        rows_of(model, "transformer.h.2", ids_of(tokenizer, PIECES[overflow]))
    )  # fmt: skip
    oracle.assert_agrees(result.dataset.isel(layer=0), rows)
    dropped = sum(map(len, LONG)) - sum(map(len, PIECES[overflow]))
    assert dropped == result.attrs["tokens_dropped"]
    assert (2 if overflow == "split" else 0) == result.attrs["samples_split"]
    assert (2 if overflow == "truncate" else 0) == result.attrs["samples_truncated"]


@pytest.mark.parametrize(
    ("overflow", "said"),
    [("truncate", "13 tokens were cut off"), ("split", "2 samples were longer than the context")],
)
def test_what_becomes_of_long_samples_is_said(overflow: str, said: str) -> None:
    """A warning for what was cut off or split; none where nothing was."""
    model, tokenizer, _ = tiny("gpt2")
    with pytest.warns(hookql.HookQLWarning, match=said):
        run("capture mean from h[2]", model, tokenizer, LONG, max_length=5, overflow=overflow)


def test_packed_samples_fill_their_contexts() -> None:
    """Contexts of five tokens from successive samples with `<eos>` between them."""
    model, tokenizer, _ = tiny("gpt2")
    query = f"capture {ALL} from h[2]"
    result = run(query, model, tokenizer, LONG, max_length=5, overflow="pack")
    stream: list[int] = []
    for row in ids_of(tokenizer, LONG):
        stream += [*row[0].tolist(), tokenizer.eos_token_id]
    contexts = [stream[i : i + 5] for i in range(0, len(stream), 5)]
    counted = int(result["count"])
    # A separator after the very last sample is a matter of taste.
    assert counted in (len(stream), len(stream) - 1)
    contexts[-1] = contexts[-1][: len(contexts[-1]) - (len(stream) - counted)]
    rows = rows_of(model, "transformer.h.2", [torch.tensor([c]) for c in contexts if c])
    oracle.assert_agrees(result.dataset.isel(layer=0), np.concatenate(rows))


def test_long_samples_as_an_error() -> None:
    """`error` refuses the first one, by name."""
    model, tokenizer, _ = tiny("gpt2")
    with pytest.raises(hookql.DataError) as caught:
        run("capture mean from h[2]", model, tokenizer, LONG, max_length=5, overflow="error")
    assert "too-long" == caught.value.code
    assert "sample 0 has 13 tokens" in caught.value.message


# --- what cannot be captured --------------------------------------------------------------------


def test_a_wildcard_leaves_out_what_cannot_be_captured() -> None:
    """`**` takes what there is: a warning names the rest, and the result records it."""
    model, tokenizer, _ = tiny("mixtral")
    with pytest.warns(hookql.HookQLWarning, match="cannot be captured and are left out"):
        result = run("capture mean from **", model, tokenizer)
    left_out = result["modules"].attrs["modules_left_out"]
    assert "model.layers.0.mlp.experts.act_fn:output" in left_out
    roles = {node.attrs.get("role") for node in result.subtree}
    assert {"model.layers.self_attn", "model.norm", "lm_head"} <= roles
    assert not any("act_fn" in str(role) for role in roles)


def test_a_wildcard_leaves_out_ports_without_a_tensor() -> None:
    """`**:output[1]` is few modules' port: those that have it are captured."""

    class Pair(nn.Module):
        """Returns two tensors."""

        def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
            """The input and its double."""
            return x, 2 * x

    model, tokenizer = chain(), character_tokenizer()
    model.layers[3] = Pair()
    with pytest.warns(hookql.HookQLWarning, match="no-tensor"):
        result = run("capture mean from layers[*].**:output[1], layers[*] as a", model, tokenizer)
    left_out = "layers.0:output[1], layers.1:output[1], layers.2:output[1]"
    assert left_out == result["a"].attrs["modules_left_out"]
    doubled = result["a/layers:output[1]"]
    assert [3] == doubled["layer"].values.tolist()
    np.testing.assert_allclose(2 * result["a/layers"]["mean"][3], doubled["mean"][0])


@pytest.mark.parametrize(
    "site", ["model.layers[0].mlp.experts.act_fn", "model.layers[*].mlp.experts.{act_fn,act_fn}"]
)
def test_what_is_named_and_cannot_be_captured_is_an_error(site: str) -> None:
    """A name is a promise: no number, and no silence."""
    model, tokenizer, _ = tiny("mixtral")
    with pytest.raises(hookql.QueryError) as caught:
        run(f"capture mean from {site}", model, tokenizer)
    assert "unaligned" == caught.value.code


def test_a_module_that_never_runs_is_an_error() -> None:
    """BERT's dropout module inside sdpa attention is there and is never called."""
    model, tokenizer, _ = tiny("bert")
    with pytest.raises(hookql.QueryError) as caught:
        run("capture mean from encoder.layer[0].attention.self.dropout", model, tokenizer)
    assert "never-ran" == caught.value.code
    assert "query" in caught.value.notes[0]


def test_what_is_wrong_with_many_modules_is_said_once() -> None:
    """One error for one reason at one site, and one warning for what a wildcard leaves out."""
    model, tokenizer, _ = tiny("bert")
    query = "capture mean from **.self.dropout capture max from **.layer[:2].**.self.dropout"
    with pytest.raises(hookql.QueryError) as caught:
        run(query, model, tokenizer)
    assert ["never-ran"] * 2 == [d.code for d in caught.value.diagnostics]
    names = [d.message.split("`")[1] for d in caught.value.diagnostics]
    layers = model.config.num_hidden_layers
    assert [f"encoder.layer[0:{n}].attention.self.dropout" for n in (layers, 2)] == names
    with pytest.warns(hookql.HookQLWarning, match="modules-left-out") as warned:
        run("capture mean from ** isa Dropout", model, tokenizer)
    assert "note: encoder.layer[0:" in str(warned[0].message)


def test_all_that_cannot_be_captured_is_reported_at_once() -> None:
    """Errors of several captures come together, each under its own site."""
    model, tokenizer, _ = tiny("bert")
    query = """
    capture mean from encoder.layer[0].attention.self.dropout
    capture mean from pooler.dense
    """
    with pytest.raises(hookql.QueryError) as caught:
        run(query, model, tokenizer)
    assert ["never-ran", "unaligned"] == [d.code for d in caught.value.diagnostics]


# --- batching -----------------------------------------------------------------------------------


@pytest.mark.parametrize("tokens", [1, 16, 40, 10_000])
def test_the_token_budget_does_not_matter(tokens: int) -> None:
    """However batches are cut, the numbers agree with the oracle's."""
    model, tokenizer, _ = tiny("gpt2")
    result = run(f"capture {ALL} from h[3]", model, tokenizer, tokens_per_batch=tokens)
    rows = np.concatenate(rows_of(model, "transformer.h.3", ids_of(tokenizer)))
    oracle.assert_agrees(result.dataset.isel(layer=0), rows)


def test_a_tokenizer_without_a_pad_token() -> None:
    """GPT-2 has none: padding is a fact of the mask, and `eos` in a text is a token."""
    model, tokenizer, _ = tiny("gpt2")
    tokenizer.pad_token = None
    texts = [*TEXTS, "end<eos>", "<eos>"]
    result = run(f"capture {ALL} from h[3]", model, tokenizer, texts, batch_size=4)
    rows = np.concatenate(rows_of(model, "transformer.h.3", ids_of(tokenizer, texts)))
    oracle.assert_agrees(result.dataset.isel(layer=0), rows)


def test_pad_ids_in_a_text_are_tokens() -> None:
    """`<pad>` written in a text counts: only the mask makes padding."""
    model, tokenizer, _ = tiny("gpt2")
    texts = [*TEXTS, "a<pad>b", "<pad>"]
    query = f"capture {ALL} from h[3] where token != pad"
    result = run(query, model, tokenizer, texts, batch_size=4)
    rows = np.concatenate(rows_of(model, "transformer.h.3", ids_of(tokenizer, texts)))
    oracle.assert_agrees(result.dataset.isel(layer=0), rows)
