"""Many module names as few: ``h.0.attn``, ``h.1.attn``, ``h.2.attn`` are ``h[0:3].attn``."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence

from attrs import evolve

from hookql.errors import Diagnostic, listing


def compact(names: Sequence[str]) -> str:
    """The names as one text: what `folded` makes of them, with commas between."""
    return ", ".join(folded(names))


def folded(names: Sequence[str]) -> list[str]:
    """The names with those as one that differ in indices alone and are all that these allow.

    A port behind a name stays there. The order is that of the first of each.

    >>> folded(["h.0.attn", "h.1.attn", "h.0.mlp", "h.1.mlp", "lm_head"])
    ['h[0:2].attn', 'h[0:2].mlp', 'lm_head']
    >>> folded(["h.0.e.0:input", "h.0.e.1:input", "h.4.e.0:input", "h.4.e.1:input"])
    ['h[0,4].e[0:2]:input']
    """
    groups: dict[tuple[str, ...], list[str]] = {}
    for name in names:
        path, colon, port = name.partition(":")
        kind = ("" if _is_index(step) else step for step in path.split("."))
        groups.setdefault((*kind, colon + port), []).append(name)
    found: list[str] = []
    for (*_, port), members in groups.items():
        one = _as_one([name.removesuffix(port).split(".") for name in members])
        found += members if one is None else [one + port]
    return found


def _as_one(names: list[list[str]]) -> str | None:
    """Names alike but for indices as one, None where some combination is missing."""
    columns = [list(dict.fromkeys(column)) for column in zip(*names, strict=True)]
    if math.prod(map(len, columns)) != len(names):
        return None
    text = ""
    for column in columns:
        if len(column) > 1:
            text += f"[{_slice([int(index) for index in column])}]"
        else:
            text += f".{column[0]}" if text else column[0]
    return text


def _slice(numbers: Sequence[int]) -> str:
    if list(numbers) == list(range(numbers[0], numbers[-1] + 1)):
        return f"{numbers[0]}:{numbers[-1] + 1}"
    return ",".join(map(str, numbers))


def indices(numbers: list[int]) -> str:
    """``[3]``, ``[0:12]``, ``[0:12:2]`` or ``[0,1,5]`` for ascending numbers."""
    if len(numbers) == 1:
        return f"[{numbers[0]}]"
    steps = {b - a for a, b in itertools.pairwise(numbers)}
    if steps == {1}:
        return f"[{numbers[0]}:{numbers[-1] + 1}]"
    if len(steps) == 1 and len(numbers) > 2:
        return f"[{numbers[0]}:{numbers[-1] + 1}:{min(steps)}]"
    return f"[{','.join(map(str, numbers))}]"


def _is_index(step: str) -> bool:
    return step.isascii() and step.isdigit()


def reason(problem: Diagnostic) -> tuple[str, ...]:
    """What a diagnostic says, less the names in backquotes: alike where the trouble is."""
    return (problem.code, *problem.message.split("`")[::2])


def as_one_problem(problems: Sequence[Diagnostic], names: Sequence[str]) -> Diagnostic:
    """Diagnostics of one `reason`, each about one of the names, as one about all of them.

    Its message is about the first of the folded names; a note names the others.
    """
    first = problems[0]
    message = _joined([problem.message for problem in problems], first_only=True)
    help = first.help and _joined([problem.help or "" for problem in problems])
    notes = first.notes
    if others := folded(names)[1:]:
        notes = (*notes, f"the same holds of {listing(others)}")
    return evolve(first, message=message, help=help, notes=notes)


def _joined(texts: Sequence[str], *, first_only: bool = False) -> str:
    """Texts that differ only in names in backquotes as one text; else the first of them."""
    parts = [text.split("`") for text in texts]
    if len({tuple(part[::2]) for part in parts}) > 1:
        return texts[0]
    joined = ""
    for number, column in enumerate(zip(*parts, strict=True)):
        if number % 2 == 0:
            joined += column[0]
            continue
        names = folded(list(dict.fromkeys(column)))
        joined += listing([f"`{name}`" for name in names[: 1 if first_only else None]], 4)
    return joined
