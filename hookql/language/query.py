"""The meaning of a query, before anything is known about a model."""

from __future__ import annotations

import re
from collections.abc import Mapping

from attrs import field, frozen

from hookql.errors import Diagnostic, Source, Span
from hookql.language import ast


@frozen
class StatisticSpec:
    """One statistic that is asked for: of what, all its parameters, and the name of its result.

    Lets are expanded in `value`, which is `x` for a bare statistic and for `count`. A parameter
    that takes the rest of the numbers (`quantile(x, 0.5, 0.99)`) holds them as a tuple.
    """

    name: str
    value: ast.Expression
    parameters: Mapping[str, int | float | tuple[float, ...]]
    variable: str
    span: Span


@frozen
class Key:
    """One key of `by`: a column, and the name of the dimension that it becomes.

    The name is the column's own (`position`), for `row.label` it is `label`, or `row_label` where
    the result has something else of that name.
    """

    expression: ast.Name | ast.Row
    name: str
    span: Span


@frozen
class During:
    """When a capture looks: ``prompt`` or ``generate``, and the arguments of `generate(...)`."""

    phase: str
    arguments: Mapping[str, bool | int | float] = field(factory=dict)
    span: Span = field(default=Span(0, 0), eq=False)


@frozen
class CaptureSpec:
    """One capture: lets are expanded in `where`, names and kinds are checked.

    `name` and `into` are None where the query leaves them out; `text` is the canonical text.
    `pool_spans` says where in the query each pooled dimension stands, `into_span` the file's name.
    """

    statistics: tuple[StatisticSpec, ...]
    sites: tuple[ast.Site, ...]
    excepts: tuple[ast.PathSite, ...]
    where: ast.Expression | None
    pool: frozenset[str]
    name: str | None
    into: str | None
    text: str
    span: Span
    pool_spans: Mapping[str, Span]
    by: tuple[Key, ...] = ()
    into_span: Span | None = None
    during: During | None = None

    @property
    def raw(self) -> bool:
        """Whether rows are kept as they are."""
        return any(statistic.name == "values" for statistic in self.statistics)


@frozen
class Query:
    """All captures of a query, its canonical text, and what is odd about it but no error."""

    source: Source
    captures: tuple[CaptureSpec, ...]
    canonical: str
    warnings: tuple[Diagnostic, ...]

    @property
    def generation(self) -> During | None:
        """How the model is to generate, where the query asks for that: all its captures alike."""
        found = (spec.during for spec in self.captures)
        return next((during for during in found if during and during.phase == "generate"), None)


def capture_names(query: Query) -> list[str]:
    """A unique name for each capture: its `as` name, or the last name of its first site."""
    names: list[str] = []
    given = {spec.name for spec in query.captures if spec.name}
    for spec in query.captures:
        base = spec.name or _site_name(spec.sites[0])
        name, number = base, 2
        while name in names or (spec.name is None and name in given):
            name, number = f"{base}_{number}", number + 1
        names.append(name)
    return names


def _site_name(site: ast.Site) -> str:
    if isinstance(site, ast.ModelSite):
        return site.end
    if isinstance(site, ast.CanonicalSite):
        name = site.name
    else:
        plain = [name for step in site.path.steps if (name := _step_name(step))]
        name = plain[-1] if plain else site.isa or "modules"
    if site.port is not None and (site.port.name, site.port.element) != ("output", None):
        element = "" if site.port.element is None else f"_{site.port.element}"
        name += f"_{site.port.name}{element}"
    return re.sub(r"\W", "_", name)


def _step_name(step: ast.Step) -> str:
    """``attn``, or ``attn_mlp`` of ``{attn,mlp}``; nothing of an index or a wildcard."""
    names: tuple[str, ...] = ()
    if isinstance(step, ast.NameStep):
        names = (step.name,)
    elif isinstance(step, ast.GlobStep) and not re.search(r"[*?]", "".join(step.alternatives)):
        names = step.alternatives
    return "_".join(dict.fromkeys(name for name in names if not name.isdigit()))
