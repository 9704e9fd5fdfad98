"""The meaning of a query, before anything is known about a model."""

from __future__ import annotations

from collections.abc import Mapping

from attrs import frozen

from hookql.errors import Diagnostic, Source, Span
from hookql.language import ast


@frozen
class StatisticSpec:
    """One statistic that is asked for: all its parameters, and the name of its result."""

    name: str
    parameters: Mapping[str, int | float]
    variable: str
    span: Span


@frozen
class CaptureSpec:
    """One capture: lets are expanded in `where`, names and kinds are checked.

    `name` and `into` are None where the query leaves them out; `text` is the canonical text.
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


@frozen
class Query:
    """All captures of a query, its canonical text, and what is odd about it but no error."""

    source: Source
    captures: tuple[CaptureSpec, ...]
    canonical: str
    warnings: tuple[Diagnostic, ...]
