"""The numbers that a statistic is given: by name, or by place behind its value."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, TypeAlias

from attrs import define, field

from hookql.errors import did_you_mean
from hookql.language import ast
from hookql.language.report import Report

if TYPE_CHECKING:
    from hookql.statistics import Parameter, Statistic

Value: TypeAlias = int | float | tuple[float, ...]


@define
class Parameters:
    """Takes in the arguments of one statistic that are no value; wrong ones are reported."""

    report: Report
    node: ast.Statistic
    statistic: Statistic
    given: dict[str, Value] = field(factory=dict)
    fine: bool = True

    def take(self, argument: ast.Argument, number: int | float | None) -> None:
        """One argument, and the number that it writes out, None where it is none."""
        known = self.statistic.parameters
        # What takes the rest of the numbers is never full, unless its name was written.
        open_ = [p for p in known if p.name not in self.given or self._goes_on(p)]
        name = argument.name
        found = (
            next((p for p in known if p.name == name), None) if name else next(iter(open_), None)
        )
        if found is None:
            self._unknown(argument)
        elif name is not None and name in self.given:
            self._wrong("duplicate-parameter", f"`{name}` is given twice", argument)
        elif (must := _must(found, number)) is not None:
            message = f"`{found.name}` of `{self.node.name}` must be {must}"
            self._wrong("bad-parameter", message, argument.value)
        else:
            assert number is not None
            self._keep(found, number, argument)

    def complete(self) -> Mapping[str, Value] | None:
        """All parameters, those left out by their defaults; None where something was wrong."""
        if not self.fine:
            return None
        missing = [
            p.name
            for p in self.statistic.parameters
            if p.default is None and p.name not in self.given
        ]
        if missing:
            *most, last = (f"`{name}`" for name in missing)
            needs = f"{', '.join(most)} and {last}" if most else last
            message = f"`{self.node.name}` needs {needs}"
            notes = (f"parameters: {', '.join(p.name for p in self.statistic.parameters)}",)
            self._wrong("missing-parameter", message, self.node, None, notes)
            return None
        defaults = {p.name: p.default for p in self.statistic.parameters if p.default is not None}
        complete: dict[str, Value] = defaults | self.given
        wrong = self.statistic.check(**complete)
        if wrong is not None:
            self._wrong("bad-parameter", wrong, self.node)
            return None
        return complete

    def _goes_on(self, parameter: Parameter) -> bool:
        return parameter.kind == "rest" and parameter.name not in self._named()

    def _named(self) -> set[str | None]:
        return {argument.name for argument in self.node.arguments or ()}

    def _keep(self, parameter: Parameter, number: int | float, argument: ast.Argument) -> None:
        if parameter.kind == "rest":
            before = self.given.get(parameter.name, ())
            assert isinstance(before, tuple)
            if float(number) in before:
                message = f"`{number}` is given twice"
                self._wrong("duplicate-parameter", message, argument)
            self.given[parameter.name] = (*before, float(number))
        else:
            self.given[parameter.name] = int(number) if parameter.kind == "whole" else number

    def _unknown(self, argument: ast.Argument) -> None:
        taken = tuple(p.name for p in self.statistic.parameters)
        name = self.node.name
        self._wrong(
            "unknown-parameter",
            f"`{name}` has no parameter `{argument.name}`"
            if argument.name
            else f"`{name}` takes no {'more numbers' if taken else 'number'}",
            argument,
            did_you_mean(argument.name, taken) if argument.name else None,
            (f"parameters: {', '.join(taken)}",) if taken else (),
        )

    def _wrong(
        self,
        code: str,
        message: str,
        at: ast.Node,
        help: str | None = None,
        notes: tuple[str, ...] = (),
    ) -> None:
        self.report.error(code, message, at.span, help, notes)
        self.fine = False


def _must(parameter: Parameter, number: int | float | None) -> str | None:
    """What the number must be; None where it will do."""
    if parameter.kind == "whole" and (number is None or number != int(number)):
        return "a whole number"
    return "a number" if number is None else parameter.check(number)
