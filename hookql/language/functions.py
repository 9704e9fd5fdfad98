"""The functions of expressions: how each is called, and what is said of a call that is not so.

Which axes a call needs is known only at a model; here a vector is anything that reads the site.
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from typing import Any

import attrs
from attrs import frozen

from hookql.errors import Span, did_you_mean
from hookql.language import ast
from hookql.language.formatter import format_expression
from hookql.language.report import Report
from hookql.language.values import mentions_values
from hookql.language.walk import fields, literal


@frozen
class Function:
    """How a function is called: ``values`` expressions, then ``literals``, which may be named.

    ``vector`` says that the values have an axis to be reduced or searched, ``optional`` how many
    of the literals, counted from the last, may be left out.
    """

    usage: str
    values: int = 1
    vector: bool = False
    kind: str = "number"
    literals: tuple[str, ...] = ()
    optional: int = 0


FUNCTIONS = {
    "abs": Function("abs(x)"),
    "sqrt": Function("sqrt(x)"),
    "square": Function("square(x)"),
    "exp": Function("exp(x)"),
    "log": Function("log(x)"),
    "relu": Function("relu(x)"),
    "sign": Function("sign(x)"),
    "clip": Function("clip(x, -1, 1)", literals=("lo", "hi")),
    "isfinite": Function("isfinite(x)", kind="truth"),
    "isnan": Function("isnan(x)", kind="truth"),
    "norm": Function("norm(x)", vector=True, literals=("p",), optional=1),
    "dot": Function("dot(input, output)", values=2, vector=True),
    "cos": Function("cos(input, output)", values=2, vector=True),
    "argmax": Function("argmax(x)", vector=True),
    "entropy": Function("entropy(softmax(x))", vector=True),
    "kl": Function("kl(softmax(input), softmax(output))", values=2, vector=True),
    "softmax": Function("softmax(x)", vector=True),
    "lens": Function("lens(x)", vector=True),
}
"""Every function of value expressions, those of other packages too; `random` stands by itself."""


def positional(node: Any) -> Any:
    """An expression whose calls have their literals by place: ``norm(x, p=1)`` is ``norm(x, 1)``.

    For resolved expressions; `random`, which the predicates read by name, stays as it is.
    """
    changes: dict[str, Any] = {}
    for name, value in fields(node).items():
        changes[name] = (
            tuple(map(positional, value)) if isinstance(value, tuple) else positional(value)
        )
    node = attrs.evolve(node, **changes) if changes else node
    if not isinstance(node, ast.Call) or node.function not in FUNCTIONS:
        return node
    known = FUNCTIONS[node.function]
    values = node.arguments[: known.values]
    given = _literals(known, node)
    ordered: list[ast.Argument] = []
    for place, name in enumerate(known.literals):
        if name in given:
            # Behind one that is left out, the place says nothing: the name does.
            named = None if place == len(ordered) else name
            ordered.append(attrs.evolve(given[name], name=named))
    return attrs.evolve(node, arguments=(*values, *ordered))


def _literals(known: Function, node: ast.Call) -> dict[str, ast.Argument]:
    """The literals of a call by their names; those of a wrong call as far as they have one."""
    given: dict[str, ast.Argument] = {}
    for argument in node.arguments[known.values :]:
        free = (name for name in known.literals if name not in given)
        name = argument.name or next(free, None)
        if name is not None:
            given[name] = argument
    return given


@frozen
class Calls:
    """Checks calls; ``kind`` finds the kind of an expression and reports what has none."""

    report: Report
    kind: Callable[[ast.Expression], str]
    number: Callable[[ast.Expression], None]  # reports what cannot be reckoned with

    def check(self, node: ast.Call, statistics: Collection[str]) -> str:
        """The kind of a call, whose arguments are checked; `statistics` are names to know."""
        if node.function == "random":
            self._random(node)
            return "truth"
        known = FUNCTIONS.get(node.function)
        if known is None:
            unknown_function(self.report, node, statistics)
            for argument in node.arguments:
                self.kind(argument.value)
            return "unknown"
        if not (self._names(node, known) and self._arity(node, known)):
            for argument in node.arguments:
                self.kind(argument.value)
            return "unknown"
        values = [self._value(node, a.value, known) for a in node.arguments[: known.values]]
        return known.kind if self._constants(node, known) and all(values) else "unknown"

    def _names(self, node: ast.Call, known: Function) -> bool:
        """Whether only literals are named, rightly and once each."""
        plain = sum(argument.name is None for argument in node.arguments)
        taken = list(known.literals[: max(0, plain - known.values)])
        for argument in node.arguments:
            name = argument.name
            if name is None:
                continue
            if name not in known.literals:
                self.report.error(
                    "unknown-parameter",
                    f"`{node.function}` has no parameter `{name}`",
                    argument.span,
                    did_you_mean(name, known.literals) or f"write `{known.usage}`",
                    (f"parameters: {', '.join(known.literals)}",) if known.literals else (),
                )
                return False
            if name in taken:
                message = f"`{name}` is given twice"
                self.report.error("duplicate-parameter", message, argument.span)
                return False
            taken.append(name)
        return True

    def _arity(self, node: ast.Call, known: Function) -> bool:
        """Whether there are as many arguments as the function takes, its values first."""
        most, number = known.values + len(known.literals), len(node.arguments)
        least = most - known.optional
        first = [argument for argument in node.arguments[: known.values] if argument.name is None]
        if least <= number <= most and len(first) == known.values:
            return True
        message = f"the literals of `{node.function}` follow what it is of"
        if not least <= number <= most:
            takes = f"{least} or {most}" if least < most else f"{most}"
            given = f"{number or 'none'} {'are' if number > 1 else 'is'} given"
            noun = "argument" if most == 1 else "arguments"
            message = f"`{node.function}` takes {takes} {noun}, and {given}"
        self.report.error("wrong-arity", message, node.span, f"write `{known.usage}`")
        return False

    def _value(self, node: ast.Call, value: ast.Expression, known: Function) -> bool:
        """Whether a value is a number, and where a vector is due something that can be one."""
        if not known.vector or mentions_values(value):
            self.number(value)
            return True
        if self.kind(value) != "unknown":
            text = format_expression(value)
            shown = f"`{text}`" if len(text) <= 40 else "this"
            message = f"`{node.function}` is of a vector, and {shown} is none"
            self.report.error("wrong-kind", message, value.span, f"write `{known.usage}`")
        return False

    def _constants(self, node: ast.Call, known: Function) -> bool:
        """Whether the literals will do: all of them numbers, norms above 0, bounds in order."""
        numbers: dict[str, int | float] = {}
        given = _literals(known, node)
        for name, argument in given.items():
            number = literal(argument.value)
            positive = node.function == "norm"
            if number is None or (positive and number <= 0):
                must = "a number above 0" if positive else "a number"
                message = f"`{name}` of `{node.function}` must be {must}"
                self.report.error("bad-parameter", message, argument.value.span)
            else:
                numbers[name] = number
        bounds = node.function == "clip" and len(numbers) == 2
        if bounds and numbers["lo"] > numbers["hi"]:
            message = "the lower bound of `clip` is above the upper one"
            self.report.error("bad-parameter", message, node.span)
        return len(numbers) == len(given)

    def _random(self, node: ast.Call) -> None:
        """``random(rate, seed=0)``: both written out."""
        given: dict[str, ast.Expression] = {}
        for argument in node.arguments:
            name = argument.name or ("rate" if "rate" not in given else "")
            if name not in ("rate", "seed") or name in given:
                message = "`random` takes a rate and `seed=`, once each"
                self.report.error("bad-argument", message, argument.span)
                return
            given[name] = argument.value
        rate, seed = given.get("rate"), given.get("seed", ast.Number(0))
        if not isinstance(rate, ast.Number) or rate.value > 1:
            message = "the rate of `random` is a number from 0 to 1"
            at = node.span if rate is None else rate.span
            self.report.error("bad-argument", message, at, "write `random(0.01, seed=0)`")
        if not isinstance(seed, ast.Number) or isinstance(seed.value, float):
            message = "the seed of `random` is a whole number from 0"
            self.report.error("bad-argument", message, seed.span)


def unknown_function(report: Report, node: ast.Call, statistics: Collection[str]) -> None:
    """Report a call of what is no function."""
    name = node.function
    span = Span(node.span.start, node.span.start + len(name))
    if name in statistics:
        message = f"`{name}` is a statistic, of many tokens: no function of one"
        report.error("unknown-function", message, span)
        return
    known = [*FUNCTIONS, "random", "not"]
    message = f"there is no function `{name}`"
    notes = (f"functions: {', '.join([*FUNCTIONS, 'random'])}",)
    report.error("unknown-function", message, span, did_you_mean(name, known), notes)
