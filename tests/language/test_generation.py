"""What `during`, `phase`, `step` and `role` mean in a right query."""

from __future__ import annotations

import pytest

from hookql.data.encode import ROLE
from hookql.language import names
from hookql.language.formatter import format_expression
from hookql.language.generation import ARGUMENTS, OF_SAMPLING, REFUSED
from hookql.language.parser import parse
from hookql.language.query import During
from hookql.language.resolve import resolve

ALL = """max_new_tokens=32, min_new_tokens=0, do_sample=true, temperature=2, top_k=5, top_p=1,
repetition_penalty=1.5, seed=0"""

CLAUSES = {
    "": None,
    "during prompt": During("prompt"),
    "during generate": During("generate"),
    "during generate()": During("generate"),
    "during generate(max_new_tokens=3.0)": During("generate", {"max_new_tokens": 3}),
    "during generate(do_sample=false)": During("generate", {"do_sample": False}),
    "during generate(max_new_tokens=n, do_sample=t)": During(
        "generate", {"max_new_tokens": 7, "do_sample": True}
    ),
    f"during generate({ALL})": During(
        "generate",
        {
            "max_new_tokens": 32,
            "min_new_tokens": 0,
            "do_sample": True,
            "temperature": 2.0,
            "top_k": 5,
            "top_p": 1.0,
            "repetition_penalty": 1.5,
            "seed": 0,
        },
    ),
}


@pytest.mark.parametrize("clause", CLAUSES)
def test_during(clause):
    """The phase and the arguments of `generate`, each of its own type; none without a clause."""
    query = resolve(parse(f"let n = 7 let t = true capture mean from h {clause}"))
    during, expected = query.captures[0].during, CLAUSES[clause]
    assert expected == during
    generates = expected is not None and expected.phase == "generate"
    assert (expected if generates else None) == query.generation
    if expected is not None:
        typed = {name: type(value) for name, value in expected.arguments.items()}
        assert typed == {name: type(value) for name, value in during.arguments.items()}
        assert clause == query.source.text[during.span.start : during.span.end]


SAME = [
    "capture mean from h during generate(top_k=2, do_sample=true) "
    "capture std from h during generate(do_sample=true, top_k=2.0)",
    "capture mean from h during prompt capture std from h",
    "capture mean from h during generate capture std from h during generate()",
]


@pytest.mark.parametrize("text", SAME)
def test_captures_of_one_generation(text):
    """Arguments in another order are the same, and `prompt` is what goes without saying."""
    assert 2 == len(resolve(parse(text)).captures)


def test_the_arguments_are_known_once():
    """What is refused by name is not also taken."""
    assert set() == set(REFUSED) & set(ARGUMENTS)
    assert set(OF_SAMPLING) < set(ARGUMENTS)


def _where(text, lets=""):
    return format_expression(resolve(parse(f"{lets} capture mean from h {text}")).captures[0].where)


BARE = {
    "phase == generated": 'phase == "generated"',
    "prompt != phase": '"prompt" != phase',
    "phase in {prompt, generated}": 'phase in {"prompt", "generated"}',
    "role == user and not (role == assistant)": 'role == "user" and not role == "assistant"',
    'role not in {system, "narrator", tool, none}': (
        'role not in {"system", "narrator", "tool", none}'
    ),
    "x[0] * (role == user) > 2": 'x[0] * (role == "user") > 2',
}


@pytest.mark.parametrize("text", BARE)
def test_bare_words(text):
    """A bare word beside `phase` or `role` is its text, everywhere that expressions stand."""
    assert BARE[text] == _where(f"where {text}")


def test_bare_words_in_lets_and_statistics():
    """Lets come first: their names win over words, and columns that they stand for have words."""
    lets = 'let prompt = special let r = role let user = "narrator" let late = phase == generated'
    text = "where prompt and r == assistant and late and r == user"
    said = 'special and role == "assistant" and phase == "generated" and role == "narrator"'
    assert said == _where(text, lets)
    query = resolve(parse("capture mean(x * (role == user)) as m from h"))
    value = query.captures[0].statistics[0].value
    assert 'x * (role == "user")' == format_expression(value)
    assert "capture mean(x * (role == user)) as m\n  from h\n" == query.canonical


def test_bare_words_are_equal_to_texts():
    """Both ways of writing it are one predicate, so that both share one mask."""
    bare, quoted = (
        resolve(parse(f"capture mean from h where {text}")).captures[0].where
        for text in (
            "role in {user} and phase == generated",
            'role in {"user"} and phase == "generated"',
        )
    )
    assert quoted == bare


def test_words_do_not_reserve_names():
    """What stands without quotes is no keyword: a query that has such a name keeps it."""
    words = (*names.PHASES, *names.SPEAKERS)
    assert [] == [word for word in words if word in names.DEFINED]
    lets = " ".join(f"let {word} = position" for word in words)
    uses = " and ".join(f"{word} > 1" for word in words)
    assert " and ".join(["position > 1"] * len(words)) == _where(f"where {uses}", lets)


def test_the_longest_role():
    """What the language calls too long is what a batch has no room for."""
    assert ROLE.itemsize // 4 == names.LONGEST_ROLE
    assert max(map(len, (*names.PHASES, *names.SPEAKERS))) < names.LONGEST_ROLE


def test_keys():
    """`by phase, step, role` become dimensions of these names, taken from no column."""
    query = resolve(parse("capture mean from h by phase, step, role, row.role, row.step"))
    names_ = [key.name for key in query.captures[0].by]
    assert ["phase", "step", "role", "row_role", "row_step"] == names_
