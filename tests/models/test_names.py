"""Many module names as few, and diagnostics about many modules as one."""

from __future__ import annotations

import doctest

import pytest

from hookql.errors import Diagnostic
from hookql.models import names


@pytest.mark.parametrize(
    ("modules", "expected"),
    [
        (["h.0.attn"], "h.0.attn"),
        (["h.0.attn", "h.1.attn", "h.2.attn"], "h[0:3].attn"),
        (["h.0.attn", "h.4.attn"], "h[0,4].attn"),
        (["0", "1"], "[0:2]"),
        (["h.0.attn", "h.1.mlp"], "h.0.attn, h.1.mlp"),
        (["h.0.e.1", "h.1.e.0"], "h.0.e.1, h.1.e.0"),
        (["h.0.e.1", "h.0.e.2", "h.3.e.1", "h.3.e.2"], "h[0,3].e[1:3]"),
        (["h.0.a", "h.0.b", "h.1.a", "h.1.b"], "h[0:2].a, h[0:2].b"),
        (["h.0:input", "h.1:input", "h.0"], "h[0:2]:input, h.0"),
        (["a", "a.b"], "a, a.b"),
        (["h.0", "h.0"], "h.0, h.0"),
    ],
)
def test_compact(modules: list[str], expected: str) -> None:
    """Names that differ in indices are written as one, where nothing is added by it."""
    assert expected == names.compact(modules)


def test_the_examples_of_the_docstring() -> None:
    """What `folded` shows is what happens."""
    failed, tried = doctest.testmod(names)
    assert (0, True) == (failed, tried > 0)


def never(module: str, help: str | None = None, note: str = "beside it: b") -> Diagnostic:
    """A diagnostic about one module."""
    return Diagnostic("never-ran", f"`{module}` (Dropout) never runs", help=help, notes=(note,))


def test_diagnostics_of_one_reason_become_one() -> None:
    """Message and help name the folded modules; what folds into another name is in a note."""
    modules = ["h.0.a", "h.1.a", "h.0.b", "h.1.b"]
    problems = [never(module, f"capture `{module[:3]}` instead") for module in modules]
    assert 1 == len({names.reason(problem) for problem in problems})
    one = names.as_one_problem(problems, modules)
    assert "`h[0:2].a` (Dropout) never runs" == one.message
    assert "capture `h[0:2]` instead" == one.help
    assert ("beside it: b", "the same holds of h[0:2].b") == one.notes


def test_a_single_diagnostic_stays_as_it_is() -> None:
    """Nothing to fold."""
    assert never("h.0.a") == names.as_one_problem([never("h.0.a")], ["h.0.a"])


def test_help_that_differs_in_more_than_names_is_the_first_ones() -> None:
    """One piece of advice that is right for one module, instead of a mixture."""
    problems = [never("h.0.a", "did you mean `b`?"), never("h.1.a", "capture `h` instead")]
    assert "did you mean `b`?" == names.as_one_problem(problems, ["h.0.a", "h.1.a"]).help


def test_other_reasons_stay_apart() -> None:
    """Another class, code or sentence is another reason."""
    others = [
        never("h.0.a"),
        Diagnostic("never-ran", "`h.0.a` (Linear) never runs"),
        Diagnostic("unaligned", "`h.0.a` (Dropout) never runs"),
    ]
    assert 3 == len({names.reason(problem) for problem in others})
