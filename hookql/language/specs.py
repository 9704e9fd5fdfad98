"""What is asked of each site: statistics, their parameters and the names of their results."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from attrs import frozen

from hookql.errors import Span, did_you_mean
from hookql.language import ast, names
from hookql.language.kinds import unknown_function, unknown_name
from hookql.language.lets import UNKNOWN, Lets
from hookql.language.query import StatisticSpec
from hookql.language.report import Report
from hookql.language.walk import literal, parts

if TYPE_CHECKING:
    from hookql.statistics import Parameter, Statistic

_HABITS = {"avg": "mean", "average": "mean", "variance": "var", "stdev": "std", "sd": "std"}


@frozen
class Specs:
    """Checks statistics against those that exist."""

    report: Report
    lets: Lets
    known: Mapping[str, Statistic]

    def all(self, nodes: tuple[ast.Statistic, ...]) -> tuple[StatisticSpec, ...]:
        """The statistics of one capture; those with errors are reported and left out."""
        specs: dict[str, StatisticSpec] = {}
        for node in nodes:
            spec = self.one(node)
            if spec is None:
                continue
            if spec.variable in specs:
                twice = specs[spec.variable]
                same = (twice.name, twice.parameters) == (spec.name, spec.parameters)
                help = None if same else f"give one a name: `… as {spec.variable}_2`"
                message = f"two statistics of this capture are called `{spec.variable}`"
                self.report.error("duplicate-variable", message, spec.span, help)
            else:
                specs[spec.variable] = spec
        return tuple(specs.values())

    def one(self, node: ast.Statistic) -> StatisticSpec | None:
        """One statistic."""
        statistic = self.known.get(node.name)
        if statistic is None:
            self._unknown(node)
            return None
        given = self._arguments(node, statistic.parameters)
        if given is None:
            return None
        variable = node.alias or "_".join([node.name, *(f"{k}_{v}" for k, v in given.items())])
        variable = re.sub(r"\W+", "_", variable)
        if variable in names.RESULT_NAMES and (variable, node.name) != ("count", "count"):
            message = f"a result's own `{variable}` has this name"
            self.report.error("reserved-name", message, node.span, "choose another name")
            return None
        parameters = {p.name: p.default for p in statistic.parameters} | given
        return StatisticSpec(node.name, parameters, variable, node.span)

    def _unknown(self, node: ast.Statistic) -> None:
        span = Span(node.span.start, node.span.start + len(node.name))
        if node.name in names.LATER_STATISTICS:
            self.report.not_yet(f"the statistic `{node.name}` is", span)
            return
        known = tuple(self.known)
        self.report.error(
            "unknown-statistic",
            f"there is no statistic `{node.name}`",
            span,
            did_you_mean(_HABITS.get(node.name.lower(), node.name), known),
            (f"statistics: {', '.join(known)}",),
        )

    def _arguments(
        self, node: ast.Statistic, parameters: tuple[Parameter, ...]
    ) -> dict[str, int | float] | None:
        """The parameters that are given; None where something about the arguments is wrong."""
        given: dict[str, int | float] = {}
        fine, open_ = True, [p.name for p in parameters]
        for place, argument in enumerate(node.arguments or ()):
            value = self.lets.expand(argument.value)
            if value is None or value is UNKNOWN:
                fine = False
                continue
            number = literal(value)
            if argument.name is None and number is None:
                fine &= self._value(node, value, argument.span, first=place == 0)
                continue
            name = argument.name or (open_[0] if open_ else "")
            found = next((p for p in parameters if p.name == name), None)
            wrong = self._parameter(node, parameters, found, argument, number, name in given)
            if wrong or found is None or number is None:
                fine = False
                continue
            given[name] = number
            open_ = [other for other in open_ if other != name]
        return given if fine else None

    def _parameter(
        self,
        node: ast.Statistic,
        parameters: tuple[Parameter, ...],
        found: Parameter | None,
        argument: ast.Argument,
        number: int | float | None,
        twice: bool,
    ) -> bool:
        """Report what is wrong with one parameter; whether something is."""
        taken = tuple(p.name for p in parameters)
        if found is None:
            self.report.error(
                "unknown-parameter",
                f"`{node.name}` has no parameter `{argument.name}`"
                if argument.name
                else f"`{node.name}` takes no {'more numbers' if taken else 'number'}",
                argument.span,
                did_you_mean(argument.name, taken) if argument.name else None,
                (f"parameters: {', '.join(taken)}",) if taken else (),
            )
            return True
        if twice:
            message = f"`{found.name}` is given twice"
            self.report.error("duplicate-parameter", message, argument.span)
            return True
        must = "a number" if number is None else found.check(number)
        if must is not None:
            message = f"`{found.name}` of `{node.name}` must be {must}"
            self.report.error("bad-parameter", message, argument.value.span)
        return must is not None

    def _value(self, node: ast.Statistic, value: Any, span: Span, *, first: bool) -> bool:
        """Check what a statistic is of: `x`, until value expressions are built."""
        if not self._words(value):
            return False
        if node.name == "count":
            message = "`count` counts tokens and takes no argument"
            self.report.error("bad-argument", message, span, "write `count`")
        elif not first:
            message = f"`{node.name}` is of one value, which comes first"
            self.report.error("bad-argument", message, span)
        elif isinstance(value, ast.String | ast.Regex):
            self.report.error("bad-argument", "a statistic is of numbers, not of text", span)
        elif value != ast.Name("x"):
            self.report.not_yet("a statistic of anything but `x` is", span)
        else:
            return True
        return False

    def _words(self, value: Any) -> bool:
        """Report names and functions in a value expression that nobody knows; True for none."""
        fine, waiting = True, [value]
        known = {*names.COLUMNS, *names.LATER_COLUMNS, *names.VALUES, *names.CONSTANTS}
        functions = {*names.LATER_FUNCTIONS, *names.FUNCTIONS}
        while waiting:
            node = waiting.pop()
            if isinstance(node, ast.Name) and node.id not in known | set(names.ROLES):
                unknown_name(self.report, node, frozenset(self.lets.lets))
                fine = False
            elif isinstance(node, ast.Call) and node.function not in functions:
                unknown_function(self.report, node)
                fine = False
            waiting += parts(node)
        return fine
