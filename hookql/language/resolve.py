"""Syntax tree to meaning: names, parameters and kinds are checked, lets expanded, all at once."""

from __future__ import annotations

from pathlib import PurePosixPath
from typing import cast

from attrs import define, field

from hookql.errors import Span, did_you_mean
from hookql.language import ast, names
from hookql.language.formatter import format_program, format_statement
from hookql.language.functions import positional
from hookql.language.generation import check_one_way, read_during
from hookql.language.keys import read_keys
from hookql.language.kinds import Kinds
from hookql.language.lets import Lets
from hookql.language.plugins import load_plugins
from hookql.language.query import CaptureSpec, During, Query
from hookql.language.report import Report
from hookql.language.sites import check_site
from hookql.language.specs import Specs
from hookql.language.values import operands_in


def resolve(program: ast.Program) -> Query:
    """What a query means, before anything is known about a model.

    Raises `QueryError` with everything that is wrong, in the order of the text.
    """
    # The names of statistics live a floor up; they are looked up, never used, down here.
    from hookql.statistics import STATISTICS

    load_plugins()
    report = Report(program.source)
    lets = Lets(report)
    lets.define(program.statements)
    kinds = Kinds(report, frozenset(lets.lets), STATISTICS)
    for value in lets.values():
        kinds.kind(value)
    reader = _Captures(report, lets, kinds, Specs(report, lets, kinds, STATISTICS))
    captures = tuple(reader.read(s) for s in program.statements if isinstance(s, ast.Capture))
    if not captures:
        message = "nothing is captured: there is no `capture`"
        report.error("no-capture", message, program.span)
    if reader.during_fine:
        check_one_way(report, captures)
    lets.warn_unused()
    warnings = report.warnings()
    return Query(program.source, captures, format_program(program), warnings)


@define
class _Captures:
    """Reads the captures of one query."""

    report: Report
    lets: Lets
    kinds: Kinds
    specs: Specs
    taken: dict[str, set[str]] = field(factory=lambda: {"as": set(), "into": set()})
    during_fine: bool = True

    def read(self, capture: ast.Capture) -> CaptureSpec:
        """One capture; where something is wrong it is reported and the rest is read."""
        statistics = self.specs.all(
            capture.statistics, {name.id for name in capture.pool}, bool(capture.by)
        )
        where = self._where(capture.where)
        read = [spec.value for spec in statistics] + ([where] if where is not None else [])
        operands = frozenset[str]().union(*map(operands_in, read))
        for site in capture.sites:
            check_site(self.report, site, operands)
        alias = capture.alias
        if alias is not None and alias.id == names.CHECKSUMS:
            message = f"a result's own `{alias.id}` has this name"
            self.report.error("reserved-name", message, alias.span, "choose another name")
        elif alias is not None:
            self._once("as", alias.id, alias.span, f"two captures are called `{alias.id}`")
        variables = {spec.variable for spec in statistics}
        return CaptureSpec(
            statistics,
            capture.sites,
            capture.excepts,
            where,
            self._pool(capture.pool),
            alias.id if alias is not None else None,
            self._into(capture.into),
            format_statement(capture),
            capture.span,
            {name.id: name.span for name in capture.pool},
            read_keys(self.report, self.lets, capture.by, variables),
            capture.into.span if capture.into is not None else None,
            self._during(capture.during),
        )

    def _during(self, node: ast.During | None) -> During | None:
        before = len(self.report.found)
        during = read_during(self.report, self.lets, node)
        self.during_fine = self.during_fine and len(self.report.found) == before
        return during

    def _where(self, where: ast.Expression | None) -> ast.Expression | None:
        if where is None:
            return None
        expanded = self.lets.expand(where)
        if expanded is None:
            return None
        self.kinds.predicate(expanded)
        return cast(ast.Expression, positional(expanded))

    def _pool(self, pool: tuple[ast.Name, ...]) -> frozenset[str]:
        seen: set[str] = set()
        for name in pool:
            if name.id not in names.DIMENSIONS:
                self.report.error(
                    "unknown-dimension",
                    f"`pool` takes no dimension `{name.id}`",
                    name.span,
                    did_you_mean(name.id, names.DIMENSIONS),
                    (f"dimensions: {', '.join(names.DIMENSIONS)}",),
                )
            elif name.id in seen:
                message = f"`{name.id}` is pooled already"
                self.report.error("duplicate-dimension", message, name.span)
            seen.add(name.id)
        return frozenset(seen)

    def _into(self, into: ast.String | None) -> str | None:
        """The name of a NetCDF file; whether it may lie there, `outside` says."""
        if into is None:
            return None
        path = into.value
        posix = PurePosixPath(path)
        wrong = None
        if not path.strip():
            wrong = "is empty"
        elif not path.isprintable():
            wrong = "has characters that no file's name should have"
        elif posix.suffix != ".nc":
            wrong = "does not end in `.nc`"
        if wrong is not None:
            self.report.error("bad-file", f"this file's path {wrong}", into.span)
        else:
            file = str(posix)
            self._once("into", file, into.span, f"two captures are written into `{file}`")
        return path

    def _once(self, clause: str, name: str, span: Span, message: str) -> None:
        if name in self.taken[clause]:
            code = "duplicate-capture" if clause == "as" else "duplicate-file"
            self.report.error(code, message, span)
        self.taken[clause].add(name)
