"""`compile`: the same numbers from compiled parts, and the user's model as it was."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn

import hookql
from hookql.binding import bind
from hookql.errors import ModelError
from hookql.models.compiled import compiled, regions
from hookql.models.feed import TokenFeed
from hookql.models.load import Model, load_model, wrap_model
from hookql.plan import Plan

TEXTS = ["Once upon a time there was a big dog.", "Hello there, my friend", "The cat sat"]
QUERY = "capture mean, std from transformer.h[0:2], transformer.h[0:2].attn"


@pytest.fixture(scope="module")
def demo() -> Model:
    """The demo model."""
    return load_model()


def plan_of(model: Model, query: str) -> Plan:
    """A query bound to a model."""
    return bind(hookql.compile(query).query, model, TokenFeed(model))


def using(plan: Plan, backend: Any) -> Any:
    """The model of a plan, compiled by another backend than torch's own."""
    found = plan.probe
    return compiled(plan.model, plan.feed, found.seen, found.events, plan.stop, plan.leave, backend)


def state_of(module: nn.Module) -> dict[str, dict[str, Any]]:
    """All that stands in the model's modules, by identity."""
    return {
        name: {key: id(value) for key, value in vars(part).items()}
        for name, part in module.named_modules()
    }


def test_the_same_numbers(demo: Model) -> None:
    """By torch's own compiler, to 1e-4 of a standard deviation, and the result says so."""
    before = state_of(demo.module)
    plain = hookql.run(QUERY, model=demo, texts=TEXTS)
    fast = hookql.run(QUERY, model=demo, texts=TEXTS, compile=True)
    for one, other in zip(plain.leaves, fast.leaves, strict=True):
        assert float((abs(one["mean"] - other["mean"]) / one["std"]).max()) < 1e-4
        assert float(abs(other["std"] / one["std"] - 1).max()) < 1e-4
    assert "4 modules by torch.compile" == fast.attrs["compiled"]
    assert "compiled" not in plain.attrs
    assert before == state_of(demo.module)


@pytest.mark.parametrize(
    ("query", "expected"),
    [
        ("capture mean from transformer.h[0:2]", ("transformer.h.0", "transformer.h.1")),
        (
            "capture mean from transformer.h[1].attn",
            ("transformer.h.0", "transformer.h.1.attn"),
        ),
        (
            "capture mean from transformer.h[0].mlp.act",
            ("transformer.h.0.attn", "transformer.h.0.mlp.c_fc", "transformer.h.0.mlp.act"),
        ),
    ],
)
def test_what_is_compiled(demo: Model, query: str, expected: tuple[str, ...]) -> None:
    """The outermost modules that hold no hook point, of those that run."""
    plan = plan_of(demo, query)
    with using(plan, "eager") as parts:
        assert expected == parts


def test_a_module_with_a_users_hook_is_left(demo: Model) -> None:
    """What a user hung into the model runs as it did."""
    block = demo.module.get_submodule("transformer.h.0.mlp.c_fc")
    handle = block.register_forward_hook(lambda *given: None)
    running = {name for name, _ in demo.module.named_modules()}
    try:
        found = regions(demo.module, {"transformer.h.1"}, running)
    finally:
        handle.remove()
    assert "transformer.h.0" not in found
    assert "transformer.h.0.attn" in found
    assert "transformer.h.1" in found


def test_put_back_after_an_error(demo: Model) -> None:
    """An exception inside, or in the compiler, leaves the model as it was."""
    plan, before = plan_of(demo, QUERY), state_of(demo.module)
    with pytest.raises(RuntimeError, match="of mine"), using(plan, "eager"):
        raise RuntimeError("of mine")
    assert before == state_of(demo.module)

    def failing(graph: object, inputs: object) -> Any:
        raise RuntimeError("no compiler here")

    torch._dynamo.reset()
    with pytest.raises(ModelError) as caught, using(plan, failing):
        pass
    assert "cannot-compile" == caught.value.diagnostics[0].code
    assert "no compiler here" in str(caught.value)
    assert before == state_of(demo.module)


def test_other_numbers_are_refused(demo: Model) -> None:
    """A compiler that computes something else is caught before the data is run."""

    def wrong(graph: Any, inputs: object) -> Any:
        return lambda *given: tuple(
            out * 1.01 if isinstance(out, torch.Tensor) and out.is_floating_point() else out
            for out in graph(*given)
        )

    torch._dynamo.reset()
    plan = plan_of(demo, QUERY)
    with pytest.raises(ModelError, match="computes other values"), using(plan, wrong):
        pass
    torch._dynamo.reset()


def test_a_model_of_torchs_own_layers() -> None:
    """There is nothing to compile where every module is torch's own layer or holds a hook point."""

    class Plain(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.embed, self.layer = nn.Embedding(100, 8), nn.Linear(8, 8)

        def forward(self, input_ids: torch.Tensor) -> torch.Tensor:
            return self.layer(self.embed(input_ids))  # type: ignore[no-any-return]

    model = wrap_model(Plain().eval())
    plan = plan_of(model, "capture mean from layer")
    with pytest.raises(ModelError, match="finds no part"), using(plan, "eager"):
        pass
