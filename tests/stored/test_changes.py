"""Whatever changes a number, or might, is another question: it is never answered from the store."""

from __future__ import annotations

import types
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from attrs import define, field
from transformers.models.gpt2 import modeling_gpt2

import hookql.stored
from tests.stored.calls import QUERY, TEXTS, from_store, ran, run
from tests.tiny import tiny


@define
class Setting:
    """A model with its tokenizer, and how it is run; changes are made to it."""

    model: Any
    tokenizer: Any
    patch: pytest.MonkeyPatch
    options: dict[str, Any] = field(factory=dict)
    undo: list[Callable[[], None]] = field(factory=list)

    def run(self, store: Path) -> Any:
        """Run it."""
        return run(store, self.model, self.tokenizer, **self.options)


@pytest.fixture
def setting(monkeypatch: pytest.MonkeyPatch) -> Iterator[Setting]:
    """A small GPT-2, run on three texts."""
    model, tokenizer, _ = tiny("gpt2")
    made = Setting(model, tokenizer, monkeypatch)
    yield made
    for undo in made.undo:
        undo()


def block(setting: Setting) -> Any:
    """The first block."""
    return setting.model.transformer.h[0]


class Swapped(torch.nn.Module):
    """A module of the user's own, in the place of one of the model's."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Give back what comes."""
        return x


def own_gelu(x: torch.Tensor) -> torch.Tensor:
    """A function of the user's own."""
    return x * 2


def weight_in_place(s: Setting) -> None:
    """An edit that torch counts."""
    with torch.no_grad():
        block(s).attn.c_attn.weight.mul_(1.5)


def weight_data(s: Setting) -> None:
    """An edit that torch does not count."""
    before = block(s).attn.c_attn.weight._version
    block(s).attn.c_attn.weight.data.mul_(1.5)
    assert before == block(s).attn.c_attn.weight._version


def one_number_by_data(s: Setting) -> None:
    """A single number, past torch's counters."""
    block(s).ln_1.weight.data[3] += 1e-6


def weight_numpy(s: Setting) -> None:
    """An edit through NumPy, which torch cannot see."""
    block(s).mlp.c_fc.weight.detach().numpy()[0, 0] = 7.0


def rows_exchanged(s: Setting) -> None:
    """Two rows change places: their sum stays."""
    weight = s.model.transformer.wte.weight.data
    weight[[40, 41]] = weight[[41, 40]].clone()


def weights_exchanged(s: Setting) -> None:
    """Two tensors of one shape change places."""
    one, other = (block(s).ln_1.weight, block(s).ln_2.weight)
    kept = one.data.clone()
    one.data.copy_(other.data)
    other.data.copy_(kept)


def weight_replaced(s: Setting) -> None:
    """Another parameter in the place of one."""
    old = block(s).attn.c_attn.weight
    block(s).attn.c_attn.weight = torch.nn.Parameter(old.detach() * 1.1)


def adapter_merged(s: Setting) -> None:
    """A low-rank adapter added into a weight."""
    weight = block(s).attn.c_attn.weight
    weight.data += 0.1 * torch.ones(weight.shape[0], 1) @ torch.ones(1, weight.shape[1])


def adapter_hooked(s: Setting) -> None:
    """An adapter that works by a hook."""
    block(s).mlp.register_forward_hook(lambda module, given, out: out + 1)


def pre_hook(s: Setting) -> None:
    """A pre-hook, which may change the input."""
    block(s).mlp.register_forward_pre_hook(lambda module, given: None)


def hook_for_all(s: Setting) -> None:
    """A hook for all modules there are."""
    handle = torch.nn.modules.module.register_module_forward_hook(lambda *given: None)
    s.undo.append(handle.remove)


def forward_of_instance(s: Setting) -> None:
    """A method of one module replaced."""
    mlp = block(s).mlp
    mlp.forward = types.MethodType(lambda self, x: x, mlp)


def forward_of_class(s: Setting) -> None:
    """A method of a class replaced."""
    s.patch.setattr(modeling_gpt2.GPT2MLP, "forward", lambda self, x: x)


def forward_from_package(s: Setting) -> None:
    """A method replaced by another one of the same package."""
    other = transformers.models.gpt2.modeling_gpt2.GPT2Block.forward
    s.patch.setattr(modeling_gpt2.GPT2LMHeadModel, "never_called", other, raising=False)


def function_of_module(s: Setting) -> None:
    """A function that the model calls by a name of its module."""
    s.patch.setattr(modeling_gpt2, "eager_attention_forward", own_gelu)


def function_of_torch(s: Setting) -> None:
    """A function of torch's replaced."""
    real = torch.nn.functional.layer_norm
    s.patch.setattr(torch.nn.functional, "layer_norm", lambda *a, **k: real(*a, **k))


def code_of_function(s: Setting) -> None:
    """A function's code exchanged, the function the same."""
    function: Any = modeling_gpt2.GPT2MLP.forward
    s.patch.setattr(function, "__code__", torch.nn.Identity.forward.__code__)


def own_module(s: Setting) -> None:
    """A module of the user's class."""
    block(s).ln_2 = Swapped()


def own_activation(s: Setting) -> None:
    """A function of the user's as an attribute."""
    block(s).mlp.helper = own_gelu


def epsilon(s: Setting) -> None:
    """An attribute that no config has any more."""
    block(s).ln_1.eps = 0.1


def config_field(s: Setting) -> None:
    """A field of the config."""
    s.model.config.scale_attn_weights = False


def attention(s: Setting) -> None:
    """Another attention implementation."""
    s.model.set_attn_implementation("eager")


def class_constant(s: Setting) -> None:
    """A number that a class holds."""
    s.patch.setattr(modeling_gpt2.GPT2MLP, "scale", 2.0, raising=False)


def module_order(s: Setting) -> None:
    """Two blocks change places."""
    h = s.model.transformer.h
    h._modules["0"], h._modules["1"] = h._modules["1"], h._modules["0"]


def tied(s: Setting) -> None:
    """One module twice, in the place of two."""
    s.model.transformer.h[1].mlp = block(s).mlp


def buffer_changed(s: Setting) -> None:
    """A buffer that no state dict holds."""
    block(s).register_buffer("extra", torch.ones(3), persistent=False)


def training(s: Setting) -> None:
    """The mode, on which dropout depends."""
    s.model.train()


def half(s: Setting) -> None:
    """Another dtype."""
    s.model.to(torch.bfloat16)


def tensor_subclass(s: Setting) -> None:
    """Weights of a kind that is not known, as quantised ones are."""

    class Own(torch.nn.Parameter):
        pass

    block(s).ln_1.weight = Own(block(s).ln_1.weight.data)


def token_added(s: Setting) -> None:
    """A tokenizer with one more token."""
    s.tokenizer.add_tokens(["zz"])


def padding_side(s: Setting) -> None:
    """A setting of the tokenizer's."""
    s.tokenizer.padding_side = "left"


def normaliser(s: Setting) -> None:
    """What the tokenizer does to a text first."""
    from tokenizers import normalizers

    s.tokenizer.backend_tokenizer.normalizer = normalizers.Lowercase()


def threads(s: Setting) -> None:
    """Sums in another order."""
    before = torch.get_num_threads()
    s.undo.append(lambda: torch.set_num_threads(before))
    torch.set_num_threads(before + 1)


def precision(s: Setting) -> None:
    """How exactly torch multiplies."""
    before = torch.get_float32_matmul_precision()
    s.undo.append(lambda: torch.set_float32_matmul_precision(before))
    torch.set_float32_matmul_precision("medium")


def numeric_version(s: Setting) -> None:
    """Numbers that HookQL works out otherwise."""
    s.patch.setattr(hookql.stored, "NUMERIC_VERSION", hookql.stored.NUMERIC_VERSION + 1)


def variable(s: Setting) -> None:
    """A variable that a library of torch's reads."""
    s.patch.setenv("MKL_CBWR", "COMPATIBLE")


def option(**given: Any) -> Callable[[Setting], None]:
    """A change of the run's options."""

    def change(s: Setting) -> None:
        s.options.update(given)

    change.__name__ = ",".join(given)
    return change


CHANGES: list[Callable[[Setting], None]] = [
    weight_in_place, weight_data, one_number_by_data, weight_numpy, rows_exchanged,
    weights_exchanged, weight_replaced, adapter_merged, adapter_hooked, pre_hook, hook_for_all,
    forward_of_instance, forward_of_class, forward_from_package, function_of_module,
    function_of_torch, code_of_function, own_module, own_activation, epsilon, config_field,
    attention, class_constant, module_order, tied, buffer_changed, training, half, tensor_subclass,
    token_added, padding_side, normaliser, threads, precision, numeric_version, variable,
    option(texts=[*TEXTS, "more"]), option(texts=TEXTS[::-1]),
    option(texts=["Hello there!", *TEXTS[1:]]),
    option(query=QUERY.replace("> 0", "> 1")), option(query=QUERY.replace("std", "var")),
    option(query=QUERY.replace("attn", "mlp")), option(max_length=8),
    option(max_length=8, overflow="truncate"), option(limit=2), option(tokens_per_batch=32),
    option(batch_size=1), option(on_error="skip"), option(store_dtype="float64"),
]  # fmt: skip


@pytest.mark.parametrize("change", CHANGES, ids=lambda change: change.__name__)
def test_what_changed_is_never_answered_from_the_store(
    change: Callable[[Setting], None], setting: Setting, tmp_path: Path
) -> None:
    """The same again is served without the model; with the change, the answer is not served."""
    setting.run(tmp_path)
    assert not ran(lambda: setting.run(tmp_path))
    change(setting)
    try:
        found = setting.run(tmp_path)
    except Exception:  # what was changed does not even run: then nothing was served
        return
    assert not from_store(found)


def test_every_change_is_a_change() -> None:
    """There are many ways to be stale, and each stands in the list once."""
    names = [change.__name__ for change in CHANGES]
    assert len(names) == len(CHANGES)
    assert len(CHANGES) >= 25


@pytest.mark.parametrize("change", [weight_data, one_number_by_data, weight_in_place])
def test_what_is_changed_back_is_served_again(
    change: Callable[[Setting], None], setting: Setting, tmp_path: Path
) -> None:
    """The address is of the contents: weights that are as they were have their answer again."""
    kept = {name: tensor.clone() for name, tensor in setting.model.state_dict().items()}
    setting.run(tmp_path)
    change(setting)
    assert not from_store(setting.run(tmp_path))
    setting.model.load_state_dict(kept)
    assert from_store(setting.run(tmp_path))
