"""The lens beyond the identities: dtypes, widths, hooks, and models that have none."""

from __future__ import annotations

import copy

import pytest
import torch
import transformers as hf
from torch import nn

from hookql.errors import Diagnostic
from hookql.models.lens import Lens, find_lens
from hookql.models.load import wrap_model
from tests.tiny import VOCABULARY, tiny


def lens_of(module: nn.Module) -> Lens:
    """The lens of a model that has one."""
    lens = find_lens(wrap_model(module))
    assert isinstance(lens, Lens)
    return lens


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_logits_are_those_of_the_models_own_dtype(dtype: torch.dtype) -> None:
    """Widened rows are narrowed again without loss: the logits are the model's, bit for bit."""
    model = copy.deepcopy(tiny("gpt2")[0]).to(dtype)
    lens = lens_of(model)
    ids = torch.arange(7, 19)[None]
    stream: list[torch.Tensor] = []
    hook = lambda module, args, out: stream.append(out)  # noqa: E731
    with torch.no_grad(), model.transformer.h[-1].register_forward_hook(hook):
        logits = model(input_ids=ids).logits
        made = lens(stream[0][0].float())
    assert dtype == made.dtype
    assert torch.equal(logits[0], made)


def test_widths() -> None:
    """The width is the stream's, even where the head projects to another one first."""
    lens = lens_of(tiny("opt-post-norm")[0])
    assert (32, VOCABULARY, "text") == (lens.width, lens.vocabulary, lens.stream)
    with torch.no_grad():
        assert (5, VOCABULARY) == lens(torch.randn(5, 32)).shape


def test_a_resized_vocabulary_is_the_heads_own() -> None:
    """The head's size counts, not the config's."""
    model = copy.deepcopy(tiny("llama")[0])
    model.lm_head = nn.Linear(32, 140, bias=False)
    assert 140 == lens_of(model).vocabulary


def test_softcap_bounds_the_logits() -> None:
    """Gemma 2's logits stay below the cap however large the stream is."""
    lens = lens_of(tiny("gemma2-capped")[0])
    with torch.no_grad():
        assert lens(1e3 * torch.randn(4, 32)).abs().max() <= 3.0


def test_lens_of_t5_reads_the_decoder() -> None:
    """Encoder rows have the same width and no meaning to the lens: its stream says so."""
    lens = lens_of(tiny("t5")[0])
    assert ("target", "decoder.block") == (lens.stream, lens.blocks)


def test_no_hook_is_called_and_nothing_changes() -> None:
    """Hooks on the norm and the unembedding see nothing of the lens."""
    model = copy.deepcopy(tiny("bert-mlm")[0])
    called: list[object] = []
    for module in model.modules():
        module.register_forward_hook(lambda *_: called.append(1))
        module.register_forward_pre_hook(lambda *_: called.append(1))
    before = {name: value.clone() for name, value in model.state_dict().items()}
    with torch.no_grad():
        lens_of(model)(torch.randn(3, 32))
    assert [] == called
    assert all(torch.equal(before[name], value) for name, value in model.state_dict().items())


@pytest.mark.parametrize("name", ["bert", "vit", "albert", "mamba"])
def test_models_without_a_lens(name: str) -> None:
    """A headless model has none; of an unknown family it is not known."""
    problem = find_lens(wrap_model(tiny(name)[0]))
    assert isinstance(problem, Diagnostic)
    assert {"bert": "no-head", "vit": "no-head"}.get(name, "unknown-family") == problem.code


def test_a_classifier_is_no_unembedding() -> None:
    """Logits of classes are no logits of tokens."""
    config = tiny("llama")[0].config
    problem = find_lens(wrap_model(hf.LlamaForSequenceClassification(config)))
    assert isinstance(problem, Diagnostic)
    assert "no-head" == problem.code
