"""A model as a readable tree of sites: each line a path that a query can be written with."""

from __future__ import annotations

from collections.abc import Iterator

from attrs import evolve, field, frozen
from torch import nn

from hookql.errors import Diagnostic, QueryError, Source, Span
from hookql.language import ast
from hookql.models.classes import computes
from hookql.models.load import Model
from hookql.models.names import indices
from hookql.models.path_errors import children_of
from hookql.models.paths import match_sites
from hookql.models.site_lines import site_lines

_WIDTH = 100
_PREFIX = "capture count from "
_PATTERNS = "write for example `h[0].**` or `** isa Linear except lm_head`"


@frozen(eq=False)
class _Line:
    """One line: a site as a query writes it, the class, and the weights."""

    depth: int
    site: str
    kind: str
    weights: str


def render_modules(model: Model, pattern: str | None = None) -> str:
    """The modules with their classes and weights, equal layers folded into one line.

    ``pattern`` is what can stand after ``from`` (``h[0].**``, ``** isa Linear except lm_head``)
    and leaves only what it matches. Canonical names stand below, each beside its real path. The
    text has at most 100 columns and ends with a newline.

    Raises:
        QueryError: a pattern that is wrong or does not fit the model.
    """
    root = model.module
    picked = None if pattern is None else _picked(root, pattern)
    lines = list(_Fold(root, picked).lines(root, "", "", 0))
    if picked is not None:
        lines = [evolve(line, depth=0) for line in lines]
    text = "\n".join([_header(model), "", *_layout(lines)]) + "\n"
    names = "\n".join(site_lines(root, picked, _WIDTH))
    return f"{text}\n{names}\n" if names else text


def _header(model: Model) -> str:
    count = sum(p.numel() for p in model.module.parameters())
    fits = f", context of {model.context} tokens" if model.context else ""
    name = "" if model.name == model.class_name else f"{model.name}: "
    return f"{name}{model.class_name}, {count:,} parameters, {model.dtype}{fits}"


def _picked(root: nn.Module, pattern: str) -> set[str]:
    """The names that a pattern matches; its errors point into the pattern alone."""
    from hookql.language.parser import parse

    try:
        program = parse(_PREFIX + pattern, "<pattern>")
        capture = program.statements[0]
        if len(program.statements) > 1 or not isinstance(capture, ast.Capture):
            message = "a pattern is what can stand after `from`, not a whole query"
            raise QueryError(Diagnostic("bad-pattern", message, help=_PATTERNS))
        if capture != ast.Capture(capture.statistics, capture.sites, capture.excepts):
            message = "a pattern has none of a capture's clauses, such as `where` or `pool`"
            raise QueryError(Diagnostic("bad-pattern", message, help=_PATTERNS))
        matches = match_sites(root, capture.sites, capture.excepts, program.source)
    except QueryError as error:
        source = Source(pattern, "<pattern>")
        raise QueryError(_shifted(d, source) for d in error.diagnostics) from None
    return {match.module for match in matches}


def _shifted(diagnostic: Diagnostic, source: Source) -> Diagnostic:
    if diagnostic.span is None:
        return diagnostic
    ends = (diagnostic.span.start, diagnostic.span.end)
    start, end = (max(0, at - len(_PREFIX)) for at in ends)
    return evolve(diagnostic, span=Span(start, max(end, start + 1)), source=source)


@frozen(eq=False)
class _Fold:
    """Walks a model and folds numbered children that are built alike (and picked alike)."""

    root: nn.Module
    picked: set[str] | None
    names: dict[int, str] = field(init=False)
    first_use: dict[int, str] = field(init=False)
    shapes: dict[object, int] = field(factory=dict)

    @names.default
    def _first_names(self) -> dict[int, str]:
        return {id(module): name for name, module in self.root.named_modules()}

    @first_use.default
    def _first_names_of_parameters(self) -> dict[int, str]:
        return {id(parameter): name for name, parameter in self.root.named_parameters()}

    def lines(
        self, module: nn.Module, name: str, site: str, depth: int, count: int = 1, inner: str = ""
    ) -> Iterator[_Line]:
        """The lines of a module and all below it; ``inner`` is the site as its children have it."""
        first = self.names[id(module)]
        if name and (computes(module) or module._parameters) and self._shows(first):
            times = f" x{count}" if count > 1 else ""
            if first != name and count == 1:
                yield _Line(depth, site, type(module).__name__, f"is {first}")
                return
            weights = self._weights(module, name, count)
            yield _Line(depth, site, type(module).__name__ + times, weights)
            depth += 1
        prefix = inner or site
        for child_name, label, below, child, many in self._children(module, name):
            dot = "" if label.startswith("[") or not prefix else "."
            yield from self.lines(
                child,
                f"{name}.{child_name}" if name else child_name,
                f"{prefix}{dot}{label}",
                depth,
                many,
                f"{prefix}{dot}{below}",
            )

    def _shows(self, name: str) -> bool:
        return self.picked is None or name in self.picked

    def _children(
        self, module: nn.Module, name: str
    ) -> Iterator[tuple[str, str, str, nn.Module, int]]:
        """(name, label, label for what is below, module, how many) of each child or fold."""
        groups: dict[int, list[int]] = {}
        children = children_of(module)
        numbered = [n for n in children if n.isascii() and n.isdigit()]
        for number in numbered:
            path = f"{name}.{number}" if name else number
            groups.setdefault(self._shape(children[number], path), []).append(int(number))
        done: set[str] = set()
        for child_name, child in children.items():
            if child_name in done:
                continue
            if child_name not in numbered:
                yield child_name, child_name, child_name, child, 1
                continue
            group = next(g for g in groups.values() if int(child_name) in g)
            done.update(map(str, group))
            label = indices(group)
            below = "[*]" if 1 < len(group) == len(numbered) else label
            yield child_name, label, below, child, len(group)

    def _shape(self, module: nn.Module, name: str) -> int:
        """A number that is the same for modules built alike."""
        parameters = tuple(
            (key, None if p is None else (tuple(p.shape), p.dtype))
            for key, p in module._parameters.items()
        )
        below = tuple((n, self._shape(c, f"{name}.{n}")) for n, c in children_of(module).items())
        shown = self.picked is not None and self.names[id(module)] in self.picked
        key = (type(module), parameters, below, shown)
        return self.shapes.setdefault(key, len(self.shapes))

    def _weights(self, module: nn.Module, name: str, count: int) -> str:
        """A module's own weights and their shapes; else how many parameters lie below it."""
        own = {n: p for n, p in module._parameters.items() if p is not None}
        if not own:
            total = sum(p.numel() for p in module.parameters())
            each = " each" if count > 1 else ""
            return f"{total:,} parameters{each}" if total else ""
        texts = []
        for key, parameter in own.items():
            shape = "x".join(map(str, parameter.shape)) or "scalar"
            owner = self.first_use[id(parameter)]
            tied = "" if owner == f"{name}.{key}" else f" = {owner}"
            texts.append(f"{key} {shape}{tied}")
        return ", ".join(texts[:4]) + (f", … ({len(texts) - 4} more)" if len(texts) > 4 else "")


def _layout(lines: list[_Line]) -> Iterator[str]:
    """Three columns; what does not fit beside goes on a line of its own, never past column 100."""
    sites = [" " * 2 * line.depth + line.site for line in lines]
    first = min(56, max(map(len, sites), default=0)) + 2
    second = min(30, max((len(line.kind) for line in lines), default=0)) + 2
    for site, line in zip(sites, lines, strict=True):
        text = f"{site:<{first}}{line.kind:<{second}}"
        if len(site) + 2 > first:
            yield site
            text = f"{'':<{first}}{line.kind:<{second}}"
        if len(text) + len(line.weights) > _WIDTH:
            yield text.rstrip()
            indent = max(0, min(first, _WIDTH - len(line.weights)))
            text = " " * indent
        yield (text + line.weights).rstrip()
