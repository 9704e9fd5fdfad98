"""`autocast`: the pass in half precision, the sums of what hooks see as ever."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

import hookql
from hookql.models.load import Model, load_model
from tests.told import Case, told

TEXTS = ["Once upon a time there was a big dog.", "Hello there, my friend", "The cat sat"]


@pytest.fixture(scope="module")
def demo() -> Model:
    """The demo model."""
    return load_model()


def by_hand(model: Model, path: str) -> tuple[torch.Tensor, torch.dtype]:
    """Real tokens' rows of a module in one padded batch of TEXTS, longest first, under autocast."""
    tokenizer, module = model.tokenizer, model.module
    ids = sorted((tokenizer(text)["input_ids"] for text in TEXTS), key=len, reverse=True)
    width = len(ids[0])
    mask = torch.tensor([[1] * len(one) + [0] * (width - len(one)) for one in ids])
    padded = torch.tensor([one + [0] * (width - len(one)) for one in ids])
    found = []
    handle = module.get_submodule(path).register_forward_hook(
        lambda m, args, out: found.append(out[0] if isinstance(out, tuple) else out)
    )
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
        module(input_ids=padded, attention_mask=mask)
    handle.remove()
    return found[0][mask.bool()].double(), found[0].dtype


@pytest.mark.parametrize("path", ["transformer.h.3.attn", "transformer.h.6"])
def test_it_is_a_plain_run_under_the_same_autocast(demo: Model, path: str) -> None:
    """Mean and spread of what transformers itself gives, taken in float64."""
    rows, dtype = by_hand(demo, path)
    result = hookql.run(
        f"capture mean, std from {path}", model=demo, texts=TEXTS, autocast="bfloat16"
    )
    spread = rows.std(0, unbiased=False)
    moved = (torch.from_numpy(result["mean"].values).flatten() - rows.mean(0)).abs() / spread
    assert float(moved.max()) < 0.02
    assert torch.allclose(torch.from_numpy(result["std"].values).flatten(), spread, rtol=0.02)
    assert dtype in (torch.bfloat16, torch.float32)


def test_it_stays_near_the_whole_precision(smollm2: Model) -> None:
    """Of a real model no mean moves by a twentieth of its spread; and the result says so."""
    query = "capture mean, std from model.layers[0:6]"
    plain = hookql.run(query, model=smollm2, texts=TEXTS)
    half = hookql.run(query, model=smollm2, texts=TEXTS, autocast="bfloat16")
    moved = abs(half["mean"] - plain["mean"]) / plain["std"]
    assert float(moved.max()) < 0.05
    assert float(moved.max()) > 0
    assert "bfloat16" == half.attrs["autocast"]
    assert "autocast" not in plain.attrs


def test_sums_are_not_rounded(demo: Model) -> None:
    """A mean of many equal rows is each of them, which a half precision sum would lose."""
    one = hookql.run(
        "capture mean, std from transformer.h[0].mlp where position == 0",
        model=demo, texts=["Once"], autocast="bfloat16",
    )  # fmt: skip
    many = hookql.run(
        "capture mean, std from transformer.h[0].mlp where position == 0",
        model=demo, texts=["Once"] * 300, autocast="bfloat16", batch_size=1,
    )  # fmt: skip
    assert 0.0 == float(abs(many["mean"] - one["mean"]).max())
    assert 0.0 == float(many["std"].max())


def test_no_cast_weight_is_left(demo: Model) -> None:
    """Inside a user's own autocast gradients still reach the weights afterwards."""
    weight = demo.module.get_submodule("transformer.h.0.mlp.c_fc").weight
    ids = torch.tensor([[1, 2, 3]])
    with torch.autocast("cpu", torch.bfloat16):
        hookql.run(
            "capture mean from transformer.h[0]", model=demo, texts=TEXTS, autocast="bfloat16"
        )
        demo.module(input_ids=ids).logits.float().sum().backward()
    assert weight.grad is not None
    demo.module.zero_grad(set_to_none=True)


def test_explain_says_so(demo: Model) -> None:
    """What is read has the dtype that it will have."""
    said = hookql.explain(
        "capture mean from transformer.h[0].attn", model=demo, autocast="bfloat16"
    )
    assert "float32 on cpu under autocast to bfloat16" in said
    assert "x 112 bfloat16" in said


def test_what_cannot_be(demo: Model, golden: Callable[[str, str], None], tmp_path: Path) -> None:
    """float16 on a CPU, a dtype that is none, generated texts, nothing to compile."""

    def case(query: str = "capture mean from transformer.h[0]", **options: Any) -> Case:
        return lambda patch: hookql.run(query, model=demo, texts=TEXTS, **options)

    during = "capture mean from transformer.h[0] during generate(max_new_tokens=2)"
    cases = {
        "float16 on a CPU": case(autocast="float16"),
        "no dtype": case(autocast="float8"),
        "generated and cast": case(during, autocast="bfloat16"),
        "generated and compiled": case(during, compile=True),
        "nothing to compile": case("capture mean from transformer.wte", compile=True),
    }
    golden("kernels/refused.txt", told(cases, tmp_path))
