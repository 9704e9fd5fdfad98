"""What the bare models told, and results of many captures in one run, kept for the session."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import pytest

import hookql
from tests.weights import minilm_folder, smollm2_folder
from tests.whole.alone import SAMPLES, Told, tell
from tests.whole.margins import Case

SMOLLM2 = [
    "model.embed_tokens:output",
    *(f"model.layers.{i}:{port}" for i in (0, 3, 10, 11, 28, 29) for port in ("input", "output")),
    "model.layers.10.post_attention_layernorm:input",
    "model.layers.10.self_attn:output",
    "model.layers.10.mlp:output",
    "model.layers.10.mlp.down_proj:input",
    "model.layers.10.self_attn.q_proj:output",
    "model.layers.10.self_attn.k_proj:output",
    "model.layers.10.self_attn.v_proj:output",
    "model.layers.10.self_attn.o_proj:input",
    "model.norm:output",
    ":output",
]
MINILM = [f"encoder.layer.{i}:{port}" for i in (0, 3, 5) for port in ("input", "output")]


@pytest.fixture(scope="session")
def told(smollm2: Any) -> Told:
    """SmolLM2, each text alone."""
    return tell(smollm2.module, smollm2.tokenizer, SMOLLM2, head=True)


@pytest.fixture(scope="session")
def encoded(minilm: Any) -> Told:
    """MiniLM, each text alone."""
    return tell(minilm.module, minilm.tokenizer, MINILM)


@pytest.fixture(scope="session")
def eager_smollm2() -> Any:
    """SmolLM2's first six blocks with the attention that gives its weights."""
    model = hookql.load_model(smollm2_folder(), attn="eager")
    model.module.model.layers = model.module.model.layers[:6]
    return model


@pytest.fixture(scope="session")
def eager_minilm() -> Any:
    """MiniLM with the attention that gives its weights."""
    return hookql.load_model(minilm_folder(), attn="eager")


@pytest.fixture(scope="session")
def together() -> Callable[..., Any]:
    """Run all captures of a table in one pass, and return the tree."""

    def run(model: Any, told: Told, cases: Mapping[str, Case], **options: Any) -> Any:
        queries = []
        for name, case in cases.items():
            query = case.query(told) if callable(case.query) else case.query
            queries.append(f"capture {query} as {name}")
        return hookql.run("\n".join(queries), model=model, data=SAMPLES, **options)

    return run
