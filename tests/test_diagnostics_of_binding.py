"""What is said of queries that are right by themselves and wrong for this model or this data."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import Any

import pytest

import hookql
from tests.tiny import tiny

TEXTS = [{"text": "Where were you?", "target": "here"}, {"text": "a", "target": "b c"}]

CASES: dict[str, tuple[str, str, dict[str, Any]]] = {
    "groups of two streams": (
        "t5",
        "capture mean from encoder.block[0], decoder.block[0] by position",
        {"target": "target"},
    ),
    "rows that differ in length": ("gpt2-eager", "capture values from @pattern[0]", {}),
    "rows that are not all there": (
        "gpt2",
        "capture values, values(argmax(lens(x)) == next) as hit from @resid_post[0]",
        {},
    ),
    "keys of a pattern by sample": ("gpt2-eager", "capture mean from @pattern[0] by sample", {}),
    "values of a module that runs twice": (
        "albert",
        "capture mean from ** isa AlbertLayer where norm(x) > 1",
        {},
    ),
    "too many groups": (
        "gpt2",
        "capture mean, std, cov from transformer.h[*] by sample, position",
        {"group_memory": 1},
    ),
    "a lens for the decoder": ("t5", "capture mean(norm(lens(x))) from @resid_post[0]", {}),
    "a matrix of no features": ("gpt2", "capture cov(norm(x)) from transformer.h[0]", {}),
    "the prediction of a headless model": (
        "bert",
        "capture mean from bert.encoder.layer[0] where surprisal > 2",
        {},
    ),
    "more than one number in a predicate": (
        "gpt2",
        "capture mean from transformer.h[0] where x > 0",
        {},
    ),
    "an index that is not there": ("gpt2", "capture mean(x[1000]) from transformer.h[0]", {}),
    "vectors of two lengths": (
        "gpt2",
        "capture mean(dot(x, x[0:3])) from transformer.h[0]",
        {},
    ),
    "a decoder without a text": ("t5", "capture mean from decoder.block[0]", {}),
    "a text that is several tokens": (
        "gpt2",
        'capture mean(token == "Paris") from transformer.h[0]',
        {},
    ),
    "a pool that a statistic lacks": (
        "gpt2",
        "capture mean(norm(x)) from transformer.h[0] pool feature",
        {},
    ),
    "a column that the data lacks": ("gpt2", "capture mean(row.weight) from transformer.h[0]", {}),
    "a target of a model without a decoder": (
        "gpt2",
        "capture mean from transformer.h[0]",
        {"target": "target"},
    ),
}


def test_numbers_that_are_none(golden: Callable[[str, str], None]) -> None:
    """An expression without a real value is NaN, and it is said."""
    model, tokenizer, _ = tiny("gpt2")
    query = "capture mean(entropy(x)) as e, mean(log(x)) as l, mean from transformer.h[*]"
    with warnings.catch_warnings(record=True) as warned:
        warnings.simplefilter("always", hookql.HookQLWarning)
        hookql.run(query, model=model, tokenizer=tokenizer, texts=["Where were you?"])
    said = [str(w.message) for w in warned if isinstance(w.message, hookql.HookQLWarning)]
    golden("not-a-number.txt", "\n\n".join(said) + "\n")
    assert 2 == len(said)


def test_diagnostics_of_binding(golden: Callable[[str, str], None]) -> None:
    """Each with what it is about, and what to do."""
    said = []
    for title, (name, query, options) in CASES.items():
        model, tokenizer, _ = tiny(name.removesuffix("-eager"))
        if name.endswith("-eager"):
            model.set_attn_implementation("eager")
        with pytest.raises(hookql.HookQLError) as error:
            hookql.run(query, model=model, tokenizer=tokenizer, data=TEXTS * 20, **options)
        said.append(f"# {title}\n{error.value}\n")
    golden("binding.txt", "\n".join(said))
