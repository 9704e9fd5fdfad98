"""What is asked of each site: statistics, what they are of, their parameters and names."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import TYPE_CHECKING, Any

from attrs import evolve, frozen

from hookql.errors import Span, did_you_mean
from hookql.language import ast, names
from hookql.language.functions import positional
from hookql.language.identifiers import LONGEST, identifier, number
from hookql.language.kinds import Kinds
from hookql.language.lets import UNKNOWN, Lets
from hookql.language.parameters import Parameters, Value
from hookql.language.query import StatisticSpec
from hookql.language.report import Report
from hookql.language.values import mentions_values
from hookql.language.walk import literal

if TYPE_CHECKING:
    from hookql.statistics import Statistic

_HABITS = {
    "avg": "mean",
    "average": "mean",
    "variance": "var",
    "stdev": "std",
    "sd": "std",
    "histogram": "hist",
    "percentile": "quantile",
    "topk": "top",
    "covariance": "cov",
    "correlation": "corr",
    "kurt": "kurtosis",
    "raw": "values",
    "acts": "values",
    "activations": "values",
}
X = ast.Name("x")


@frozen
class Specs:
    """Checks statistics against those that exist."""

    report: Report
    lets: Lets
    kinds: Kinds
    known: Mapping[str, Statistic]

    def all(
        self,
        nodes: tuple[ast.Statistic, ...],
        pooled: Collection[str] = (),
        grouped: bool = False,
    ) -> tuple[StatisticSpec, ...]:
        """The statistics of one capture; those with errors are reported and left out."""
        specs: list[StatisticSpec] = []
        taken: dict[str, StatisticSpec] = {}
        for node in nodes:
            spec = self.one(node)
            if spec is None:
                continue
            statistic = self.known[spec.name]
            if not statistic.poolable and set(pooled) - _merged(statistic):
                message = f"`{spec.name}` cannot be pooled"
                help = "it can be merged, with `pool layer`" if statistic.layers else None
                self.report.error("not-poolable", message, spec.span, help)
            if grouped and self.known[spec.name].raw:
                message = f"`{spec.name}` keeps every row by itself, so there is nothing to group"
                help = "leave `by` out: the result says of each row which sample and token it is"
                self.report.error("not-groupable", message, spec.span, help)
            made = made_by(spec, self.known[spec.name])
            clash = next((name for name in made if name in taken), None)
            if clash is None:
                specs.append(spec)
                taken |= dict.fromkeys(made, spec)
            else:
                self._twice(spec, taken[clash], clash)
        return tuple(specs)

    def one(self, node: ast.Statistic) -> StatisticSpec | None:
        """One statistic."""
        statistic = self.known.get(node.name)
        if statistic is None:
            self._unknown(node)
            return None
        parameters = Parameters(self.report, node, statistic)
        value: ast.Expression = X
        written: ast.Expression | None = None  # as the query has it: names of lets are shorter
        fine = True
        for place, argument in enumerate(node.arguments or ()):
            expanded = self.lets.expand(argument.value)
            if expanded is None or expanded is UNKNOWN:
                fine = False
            elif argument.name is not None or literal(expanded) is not None:
                parameters.take(argument, literal(expanded))
            elif not self._value(node, statistic, expanded, argument.span, first=place == 0):
                fine = False
            elif expanded != X:
                value, written = positional(expanded), argument.value
        complete = parameters.complete() if fine else None
        if complete is None:
            return None
        variable = node.alias or self._name(node, written, parameters.given)
        return self._named(StatisticSpec(node.name, value, complete, variable, node.span), node)

    def _name(
        self,
        node: ast.Statistic,
        written: ast.Expression | None,
        given: Mapping[str, Value],
    ) -> str:
        """The canonical text of a statistic made an identifier."""
        parts = [node.name] if written is None else [node.name, identifier(written)]
        for name, value in given.items():
            # Numbers without end need no name before them: `quantile_0_5_0_99`.
            parts += (
                map(number, value) if isinstance(value, tuple) else (f"{name}_{number(value)}",)
            )
        return "_".join(parts)

    def _named(self, spec: StatisticSpec, node: ast.Statistic) -> StatisticSpec | None:
        """The specification, unless its variable cannot be called so."""
        name = spec.variable
        axis = name.removeprefix("axis_")
        if name in names.RESULT_NAMES or (axis != name and axis.isdecimal()):
            if (name, spec.name) == ("count", "count"):
                return spec
            if node.alias is None and spec.name == name and spec.parameters:
                # `top` is the dimension; the statistic is called as if all were written out.
                given = "_".join(f"{key}_{value}" for key, value in spec.parameters.items())
                return evolve(spec, variable=f"{name}_{given}")
            self._reserved(node, f"a result's own `{name}` has this name")
            return None
        if node.alias is None and len(name) > LONGEST:
            message = f"this would be called by a name of {len(name)} characters"
            self.report.error("long-name", message, spec.span, "give it one: `… as NAME`")
            return None
        for other in made_by(spec, self.known[spec.name])[1:]:
            if other in names.RESULT_NAMES:
                self._reserved(node, f"`{name}` brings `{other}` along, which a result has already")
                return None
        return spec

    def _reserved(self, node: ast.Statistic, message: str) -> None:
        help = "give it one of its own: `… as NAME`" if node.alias is None else None
        self.report.error("reserved-name", message, node.span, help or "choose another name")

    def _twice(self, spec: StatisticSpec, other: StatisticSpec, clash: str) -> None:
        same = (other.name, other.value, other.parameters) == (
            spec.name,
            spec.value,
            spec.parameters,
        )
        message = f"two statistics of this capture are called `{clash}`"
        help = None if same else f"give one a name: `… as {spec.variable}_2`"
        self.report.error("duplicate-variable", message, spec.span, help)

    def _unknown(self, node: ast.Statistic) -> None:
        span = Span(node.span.start, node.span.start + len(node.name))
        known = tuple(self.known)
        self.report.error(
            "unknown-statistic",
            f"there is no statistic `{node.name}`",
            span,
            did_you_mean(_HABITS.get(node.name.lower(), node.name), known),
            (f"statistics: {', '.join(known)}",),
        )

    def _value(
        self, node: ast.Statistic, statistic: Statistic, value: Any, span: Span, *, first: bool
    ) -> bool:
        """Whether a statistic can be of this, so far as is known without a model."""
        before = len(self.report.found)
        if node.name == "count":
            message = "`count` counts tokens and takes no argument"
            help = "`sum(x > 0)` counts what is true" if value != X else "write `count`"
            self.report.error("bad-argument", message, span, help)
        elif not first:
            message = f"`{node.name}` is of one value, which comes first"
            self.report.error("bad-argument", message, span)
        else:
            self.kinds.value(value)
            if statistic.needs is not None and not mentions_values(value):
                message = f"`{node.name}` is of a vector, and this is one number a token"
                self.report.error("wrong-kind", message, span)
        return len(self.report.found) == before


def _merged(statistic: Statistic) -> set[str]:
    """The dimensions that are pooled by merging alone, where that is all a statistic can."""
    return {"layer"} if statistic.layers else set()


def made_by(spec: StatisticSpec, statistic: Statistic) -> tuple[str, ...]:
    """The names of all variables that a statistic can have in a result, its own first.

    What depends on the data is among them: chunks, texts, and the tokens that a value was
    undefined at.
    """
    suffixes = [suffix.strip("_") for suffix in statistic.variables]
    if "order" in suffixes:  # a result says which token that is
        suffixes = ["sample", "position", "chunk", *suffixes]
    suffixes += ["text"] * ("token" in suffixes)
    suffixes += ["count"] * (spec.value != X)
    made = [f"{spec.variable}_{suffix}" for suffix in suffixes if suffix not in ("", "order")]
    return (spec.variable, *made)
