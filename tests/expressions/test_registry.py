"""The language's table of functions, which needs no torch, and the functions that compute."""

from __future__ import annotations

from hookql.expressions import FUNCTIONS
from hookql.language.functions import FUNCTIONS as CALLED


def test_language_and_package_agree() -> None:
    """Both know the same functions, taking the same; `lens` is the model's own."""
    told = {name: (known.values, known.literals, known.optional) for name, known in CALLED.items()}
    del told["lens"]
    computed = {
        name: (
            known.values,
            tuple(parameter.name for parameter in known.parameters),
            sum(parameter.default is not None for parameter in known.parameters),
        )
        for name, known in FUNCTIONS.items()
    }
    assert told == computed


def test_truths() -> None:
    """Both know which functions say true or false."""
    told = {name for name, known in CALLED.items() if known.kind == "truth"}
    assert told == {name for name, known in FUNCTIONS.items() if known.kind == "truth"}
