"""Calls of functions as terms: their arguments, and the vectors that they need."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

import torch
from attrs import frozen
from torch import Tensor

from hookql.errors import did_you_mean
from hookql.expressions import elementwise, vectors  # noqa: F401  (they register functions)
from hookql.expressions.axes import Axes, spread
from hookql.expressions.combine import Ground, Read, shown
from hookql.expressions.functions import FUNCTIONS, Function
from hookql.expressions.operators import Value
from hookql.expressions.rows import Rows, Term
from hookql.language import ast
from hookql.language.walk import literal
from hookql.statistics.core import Given


@frozen
class Called:
    """A call read: the function, the values that it is of, its literals by name."""

    node: ast.Call
    function: Function
    values: tuple[ast.Expression, ...]
    literals: dict[str, Given]


def read_call(ground: Ground, node: ast.Call) -> Called:
    """Look up the function of a call and sort its arguments."""
    function = FUNCTIONS.get(node.function)
    if function is None:
        message = f"there is no function `{node.function}`"
        help = did_you_mean(node.function, [*FUNCTIONS, "lens"])
        raise ground.wrong("unknown-function", message, node, help)
    number = len(node.arguments)
    least, most = function.arity
    values = [a.value for a in node.arguments[: function.values] if a.name is None]
    if not least <= number <= most or len(values) < function.values:
        takes = f"{least} or {most}" if least < most else f"{most}"
        noun = "argument" if most == 1 else "arguments"
        given = f"{number or 'none'} {'are' if number > 1 else 'is'} given"
        message = f"`{node.function}` takes {takes} {noun}, and {given}"
        raise ground.wrong("wrong-arity", message, node)
    return Called(node, function, tuple(values), _literals(ground, node, function))


def _literals(ground: Ground, node: ast.Call, function: Function) -> dict[str, Given]:
    """The literals that a call gives, by name."""
    given: dict[str, Given] = {}
    known = {parameter.name: parameter for parameter in function.parameters}
    for place, argument in enumerate(node.arguments[function.values :]):
        name = argument.name or list(known)[place]
        if name not in known:
            message = f"`{node.function}` has no parameter `{name}`"
            raise ground.wrong("unknown-parameter", message, argument)
        if name in given:
            raise ground.wrong("duplicate-parameter", f"`{name}` is given twice", argument)
        value = literal(argument.value)
        must = "a number" if value is None else known[name].check(value)
        if value is None or must is not None:
            message = f"`{name}` of `{node.function}` must be {must}"
            raise ground.wrong("bad-parameter", message, argument.value)
        given[name] = value
    problem = function.check(**given)
    if problem is not None:
        raise ground.wrong("bad-parameter", problem, node)
    return given


def call(ground: Ground, called: Called, parts: Sequence[Term]) -> Term:
    """A function of terms."""
    node, function = called.node, called.function
    compute = partial(_with_tensors, function, called.literals)
    read: Read = Rows.numbers if function.exact else Rows.doubles
    if function.axes == "each":
        return ground.each(node, parts, function.kind, read, compute)
    _check_vectors(ground, called, parts)
    axes = ground.meet(node, parts)
    last = parts[0].axes.names[-1]
    others = axes.without(last)
    names = (*others.names, last)

    def run(rows: Rows) -> Tensor:
        return compute(*(spread(read(rows, part), part.axes, names) for part in parts))

    kept = Axes(names, (*others.sizes, axes.size(last)))
    return Term(node, others if function.axes == "last" else kept, function.kind, run, tuple(parts))


def _check_vectors(ground: Ground, called: Called, parts: Sequence[Term]) -> None:
    """Whether all values have one and the same last axis, which may be taken whole."""
    name = called.node.function
    pairs = list(zip(called.values, parts, strict=True))
    notes = tuple(f"{shown(node)} has {part.axes}" for node, part in pairs if part.axes.names)
    for node, part in pairs:
        if not part.axes.names:
            needs = "a vector" if len(parts) == 1 else f"{_COUNT.get(len(parts), '')} vectors"
            message = f"`{name}` needs {needs}; {shown(node)} is one number"
            raise ground.wrong("bad-axes", message, node, None, notes)
    if len({part.axes.names[-1] for part in parts}) > 1:
        message = f"`{name}` needs vectors along the same axis"
        raise ground.wrong("bad-axes", message, called.node, None, notes)
    for node, part in pairs:
        if part.axes.sizes[-1] is None and not called.function.unseen(part):
            message = f"`{name}` of {shown(node)} would count keys that the query cannot see"
            help = "take one key, as `x[key=0]`"
            raise ground.wrong("bad-axes", message, node, help, notes)


_COUNT = {2: "two", 3: "three"}


def check_lens(ground: Ground, node: ast.Call, part: Term, width: int) -> None:
    """Whether the lens can be put to a term."""
    if part.axes.names and part.axes.sizes[-1] == width:
        return
    value = node.arguments[0].value
    message = f"`lens` takes a residual stream, {width} numbers wide"
    has = "has" if part.axes.names else "is"
    notes = (f"{shown(value)} {has} {part.axes}",)
    raise ground.wrong("bad-axes", message, value, None, notes)


def _with_tensors(function: Function, given: dict[str, Given], *values: Value) -> Tensor:
    """Call a function with tensors alone: a literal becomes float64 (1, 1, ...)."""
    like = next(value for value in values if isinstance(value, Tensor))
    tensors = [
        value
        if isinstance(value, Tensor)
        else torch.full((1,) * like.dim(), value, dtype=torch.float64, device=like.device)
        for value in values
    ]
    return function.compute(*tensors, **given)
