"""What is said of models and loops that hardly anybody has."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

import hookql
from hookql.engines.fed import Stretch
from tests.tiny import tiny


def warned(plan: Any) -> str:
    """What the result of a plan warns of."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        plan.result()
    return "".join(f"{each.message}\n" for each in caught)


def test_passes_that_fail_and_none_at_all(golden: Callable[[str, str], None]) -> None:
    """A plan that has seen nothing says so, and one whose passes failed midway."""
    model, tokenizer, _ = tiny("gpt2")
    plan = hookql.compile("capture count, mean from h[*]").bind(model, tokenizer)
    nothing = warned(plan)
    handle = model.transformer.h[2].register_forward_hook(lambda *_: 1 / 0)
    with plan, pytest.raises(ZeroDivisionError):
        model(**tokenizer("abc", return_tensors="pt"))
    handle.remove()
    with plan:
        model(**tokenizer("abcd", return_tensors="pt"))
    golden("live/warnings.txt", f"{nothing}\n{warned(plan)}")


class Twice(nn.Module):
    """A model that calls itself once more."""

    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Embedding(128, 8)
        self.layers = nn.ModuleList([nn.Linear(8, 8)])
        self.head = nn.Linear(8, 128)
        self.deep = False

    def forward(self, input_ids: torch.Tensor, again: bool = True) -> torch.Tensor:
        """Logits (B, S, 128)."""
        if self.deep and again:
            self(input_ids, again=False)
        return self.head(self.layers[0](self.embed(input_ids)))


def test_a_model_that_calls_itself(golden: Callable[[str, str], None]) -> None:
    """Which of its calls is the pass nobody can know, and it is said."""
    model = Twice().eval()
    plan = hookql.compile("capture mean from layers[0]").bind(model)
    model.deep = True
    with plan, pytest.raises(hookql.ModelError) as caught:
        model(torch.arange(4)[None])
    golden("live/nested.txt", f"{caught.value}\n")


def test_sequences_that_become_others(golden: Callable[[str, str], None]) -> None:
    """A decoding that feeds other sequences, or several tokens at once, is not followed."""
    said = []
    for *fine, wrong in ([(4, 3)], [(2, 3), (2, 2)], [(2, 2), (2, 2)]):
        stretch = Stretch(torch.zeros(2, 3, dtype=torch.int64), np.ones((2, 3), bool))
        for shape in fine:
            stretch.call(torch.zeros(shape, dtype=torch.int64))
        with pytest.raises(hookql.ModelError) as caught:
            stretch.call(torch.zeros(wrong, dtype=torch.int64))
        said.append(str(caught.value))
    golden("live/other-sequences.txt", "\n".join(said) + "\n")


def test_a_model_that_computes_otherwise_with_its_cache(golden: Callable[[str, str], None]) -> None:
    """Its generated tokens have other values than those of a plain pass: refused before the run."""
    model, tokenizer, _ = tiny("gpt2")
    handle = model.transformer.h[1].register_forward_hook(lambda m, given, out: out + out.shape[1])
    try:
        with pytest.raises(hookql.ModelError) as caught:
            hookql.run(
                "capture mean from h[*] during generate(max_new_tokens=3)",
                model=model,
                tokenizer=tokenizer,
                texts=["abc"],
            )
    finally:
        handle.remove()
    golden("generation/differs.txt", f"{caught.value}\n")


def test_a_plan_that_is_not_bound(golden: Callable[[str, str], None]) -> None:
    """Without a model there is nothing to look at, and it is said how one is given."""
    with pytest.raises(hookql.UsageError) as caught, hookql.compile("capture mean from h[*]"):
        pass
    golden("live/not-bound.txt", f"{caught.value}\n")
