"""Being told of a model's own calls and of `generate`, which others build on."""

from __future__ import annotations

import copy
import inspect
import pickle
from typing import Any

import pytest
import torch

from hookql.models.generate_calls import around_generate
from hookql.models.hooks import root_calls
from tests.attached.made import batch, gpt2, hook_count


def test_root_calls_are_told_of_each_pass() -> None:
    """Before and after, with keywords; after an exception there is no output."""
    model, _ = gpt2()
    told: list[Any] = []
    before = hook_count(model)
    with root_calls(
        model,
        lambda args, kwargs: told.append(sorted(kwargs)),
        lambda args, kwargs, output: told.append(type(output).__name__),
    ):
        model(**batch())
        with pytest.raises(IndexError):
            model(input_ids=torch.tensor([[9999]]))
    model(**batch())
    assert [["attention_mask", "input_ids"], "CausalLMOutputWithCrossAttentions",
            ["input_ids"], "NoneType"] == told  # fmt: skip
    assert before == hook_count(model)


def test_listeners_of_generate_leave_in_any_order() -> None:
    """One wrapper for all of them, gone with the last; the signature is the original's."""
    model, _ = gpt2()
    ids, told = torch.tensor([[8, 9, 10]]), list[str]()
    signature = inspect.signature(model.generate)

    def listener(name: str) -> Any:
        return around_generate(
            model,
            lambda args, kwargs: told.append(f"{name} begins"),
            lambda output: told.append(f"{name} ends: {type(output).__name__}"),
        )

    one, two = listener("one"), listener("two")
    one.__enter__()
    two.__enter__()
    assert signature == inspect.signature(model.generate)
    model.generate(ids, max_new_tokens=2, do_sample=False)
    assert ["one begins", "two begins", "two ends: Tensor", "one ends: Tensor"] == told
    one.__exit__(None, None, None)
    told.clear()
    with pytest.raises(ValueError, match="max_new_tokens"):
        model.generate(ids, max_new_tokens=-1)
    assert ["two begins", "two ends: NoneType"] == told
    two.__exit__(None, None, None)
    assert "generate" not in vars(model)


def test_a_users_own_generate_comes_back() -> None:
    """An attribute that was there is there again; one that is put over ours stays."""
    model, _ = gpt2()
    mine: Any = lambda ids: ids + 1  # noqa: E731
    model.generate = mine
    told: list[int] = []
    with around_generate(model, lambda args, kwargs: told.append(1), lambda output: None):
        assert 3 == int(model.generate(torch.tensor(2)))
    assert mine is model.generate
    with around_generate(model, lambda args, kwargs: told.append(1), lambda output: None):
        over = model.generate
        model.generate = lambda ids: over(ids) * 2
    assert 6 == int(model.generate(torch.tensor(2)))
    assert [1] == told


def test_copies_generate_by_themselves() -> None:
    """A copy or a pickle made meanwhile calls its own `generate`, and tells nobody."""
    model, _ = gpt2()
    told: list[int] = []
    with around_generate(model, lambda args, kwargs: told.append(1), lambda output: None):
        for other in (copy.deepcopy(model), pickle.loads(pickle.dumps(model))):
            assert other is other.generate.__self__
            other.generate(torch.tensor([[8]]), max_new_tokens=1)
    assert [] == told


def test_without_a_generate_nothing_is_done() -> None:
    """A plain module gets none."""
    plain = torch.nn.Linear(2, 2)
    with around_generate(plain, lambda args, kwargs: None, lambda output: None):
        assert not hasattr(plain, "generate")
