"""A whole query, site by site and token by token: what its result must be."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
from attrs import frozen

from hookql.language import ast
from hookql.language.parser import parse
from tests.reference import sites as places
from tests.reference.evaluate import Token
from tests.reference.formulas import Expected, expected
from tests.reference.models import Subject
from tests.reference.sites import Site
from tests.reference.things import Id, Place, Text, Truth
from tests.reference.trees import OPERANDS, expanded, forget, mentions
from tests.reference.values import Value, measured

Key = tuple[Any, ...]


@frozen(eq=False)
class SiteExpected:
    """What one module, or after ``pool layer`` all of a role, must show."""

    role: str
    module: str | None
    layer: int | None
    count: Mapping[Key, int]
    variables: Mapping[str, Mapping[Key, Expected]]
    counts: Mapping[str, Mapping[Key, int]]
    """The rows of each variable, fewer than ``count`` where an expression is undefined."""


@frozen(eq=False)
class CaptureExpected:
    """One capture: its name, the names of its group keys, its sites."""

    name: str
    keys: tuple[str, ...]
    sites: Sequence[SiteExpected]
    undefined: int | None
    """Tokens dropped because ``where`` is undefined there; None where modules differ."""


@frozen(eq=False)
class Row:
    """One kept token: its group, where it was, and the value of each statistic."""

    key: Key
    place: tuple[int, int, int, int]
    values: tuple[Value | None, ...]


def evaluate(subject: Subject, text: str) -> list[CaptureExpected]:
    """What each capture of a query must show. Raises `things.Unsure`."""
    forget()
    program = parse(text)
    lets = {s.name: s.value for s in program.statements if isinstance(s, ast.Let)}
    captures = [s for s in program.statements if isinstance(s, ast.Capture)]
    return [_capture(subject, expanded(capture, lets)) for capture in captures]


def tokens(subject: Subject, site: Site, wanted: Sequence[ast.Node]) -> Iterator[Token]:
    """Each token that the model saw at a site, with the tensors that `wanted` reads."""
    names = [n for n in ("x", "input", "output") if any(mentions(node, [n]) for node in wanted)]
    operands = {name: _operand(subject, site, name) for name in names}
    for number, context in enumerate(subject.contexts):
        for at in range(len(context)):
            here = {name: operands[name][number][at] for name in names}
            yield Token(subject, number, at, here)


def _operand(subject: Subject, site: Site, name: str) -> list[list[Value]]:
    """The rows of ``x``, ``input`` or ``output``: for each context one for each token."""
    key = ("operand", site, name)
    if key not in subject.cache:
        place = None if name == "x" else (site.module, name, None)
        dims = site.dims if name == "x" else ("feature",)
        arrays = places.rows(subject, site, place)
        largest = max(float(np.abs(array).max()) for array in arrays)
        causal = subject.family != "bert"
        subject.cache[key] = [
            [
                measured(row[:, : at + 1] if causal and dims[-1] == "key" else row, dims, largest)
                for at, row in enumerate(array)
            ]
            for array in arrays
        ]
    found: list[list[Value]] = subject.cache[key]
    return found


def _capture(subject: Subject, capture: ast.Capture) -> CaptureExpected:
    found = places.sites(subject, capture.sites, capture.excepts)
    specs = [_spec(statistic) for statistic in capture.statistics]
    by_site, undefined = {}, set()
    chosen: list[Key | bool | None] = []
    own = capture.where is not None and mentions(capture.where, OPERANDS)
    for site in found:
        if own or not chosen:
            chosen = _chosen(subject, site, capture)
        by_site[site] = _rows(subject, site, chosen, [spec[2] for spec in specs])
        undefined.add(chosen.count(None))
    pool = tuple(name.id for name in capture.pool)
    merged: dict[tuple[str, int | None], list[Site]] = {}
    for site in found:
        merged.setdefault((site.role, None if "layer" in pool else site.layer), []).append(site)
    return CaptureExpected(
        capture.alias.id if capture.alias else "",
        tuple(_key_name(key) for key in capture.by),
        [
            _summary(role, layer, members, by_site, specs, pool, own)
            for (role, layer), members in merged.items()
        ],
        undefined.pop() if len(undefined) == 1 else None,
    )


def _chosen(subject: Subject, site: Site, capture: ast.Capture) -> list[Key | bool | None]:
    """For each token its group, False where it is not kept, None where that is undefined."""
    found: list[Key | bool | None] = []
    for token in tokens(subject, site, [] if capture.where is None else [capture.where]):
        kept = token.kept(capture.where)
        things = [token.thing(key) for key in capture.by] if kept else []
        if kept:
            kept = None if None in things else tuple(map(_plain, things))
        found.append(kept)
    return found


def _rows(
    subject: Subject,
    site: Site,
    chosen: Sequence[Key | bool | None],
    wanted: Sequence[ast.Expression | None],
) -> list[Row]:
    """The kept tokens of a site, with the value of each statistic there."""
    rows = []
    read = [node for node in wanted if node is not None]
    for token, key in zip(tokens(subject, site, read), chosen, strict=True):
        if isinstance(key, tuple):
            values = tuple(None if node is None else token.value(node) for node in wanted)
            context = subject.contexts[token.context]
            place = (context.sample, context.chunk, token.at, context.ids[token.at])
            rows.append(Row(key, place, values))
    return rows


def _plain(thing: Any) -> Any:
    """A group's value as a coordinate has it."""
    if isinstance(thing, Id):
        return thing.id
    if isinstance(thing, Place):
        return thing.at
    if isinstance(thing, Text):
        return thing.text
    if isinstance(thing, Truth):
        return thing.truth
    return float(thing.array)


def _key_name(key: ast.Expression) -> str:
    return key.column if isinstance(key, ast.Row) else key.id  # type: ignore[union-attr]


Spec = tuple[str, str, ast.Expression | None, dict[str, Any]]
"""The variable, the statistic, the value (None: `count`) and the parameters."""

_PARAMETERS: dict[str, tuple[str, ...]] = {
    "var": ("ddof",),
    "std": ("ddof",),
    "hist": ("bins", "lo", "hi"),
    "top": ("k",),
    "bottom": ("k",),
    "cov": ("ddof",),
}


def _spec(node: ast.Statistic) -> Spec:
    given: dict[str, Any] = {}
    value: ast.Expression | None = None if node.name == "count" else ast.Name("x")
    literals: list[float] = []
    for argument in node.arguments or ():
        plain = _literal(argument.value)
        if argument.name is not None:
            given[argument.name] = plain
        elif plain is not None:
            literals.append(plain)
        else:
            value = argument.value
    if node.name == "quantile":
        given["q"] = tuple(literals)
    else:
        free = [name for name in _PARAMETERS.get(node.name, ()) if name not in given]
        given.update(zip(free, literals, strict=False))
    return node.alias or node.name, node.name, value, given


def _literal(node: ast.Expression) -> int | float | None:
    if isinstance(node, ast.Unary):
        below = _literal(node.operand)
        return None if below is None else -below
    return node.value if isinstance(node, ast.Number) else None


def _summary(
    role: str,
    layer: int | None,
    members: Sequence[Site],
    by_site: Mapping[Site, Sequence[Row]],
    specs: Sequence[Spec],
    pool: tuple[str, ...],
    own: bool,
) -> SiteExpected:
    rows = [row for site in members for row in by_site[site]]
    # Tokens are counted once, however many layers are pooled, unless each layer keeps its own.
    first = rows if own else by_site[members[0]]
    groups: dict[Key, list[Row]] = {}
    for row in rows:
        groups.setdefault(row.key, []).append(row)
    variables: dict[str, dict[Key, Expected]] = {}
    counts: dict[str, dict[Key, int]] = {}
    for number, (variable, name, value, parameters) in enumerate(specs):
        if value is None:
            continue
        variables[variable], counts[variable] = {}, {}
        for key, members_of in groups.items():
            mine = [row for row in members_of if row.values[number] is not None]
            counts[variable][key] = sum(
                row.key == key and row.values[number] is not None for row in first
            )
            found = _statistic(name, parameters, mine, number, pool)
            if found is not None:
                variables[variable][key] = found
    return SiteExpected(
        role,
        members[0].module if "layer" not in pool else None,
        layer,
        {key: sum(row.key == key for row in first) for key in groups},
        variables,
        counts,
    )


def _statistic(
    name: str,
    parameters: Mapping[str, Any],
    rows: Sequence[Row],
    number: int,
    pool: tuple[str, ...],
) -> Expected | None:
    """One statistic of rows; None where there is not one, so that nothing tells its axes."""
    if not rows:
        return None
    given = [row.values[number] for row in rows]
    values = [value for value in given if value is not None]
    dims = values[0].dims
    if "key" in dims:
        return _by_key(name, parameters, rows, values)
    array = np.stack([np.asarray(value.array) for value in values])
    err = np.stack([np.asarray(value.err) for value in values])
    over = [i + 1 for i, dim in enumerate(dims) if dim in pool]
    if over:
        rest = [i for i in range(1, array.ndim) if i not in over]
        shape = (-1, *(array.shape[i] for i in rest))
        array = array.transpose(0, *over, *rest).reshape(shape)
        err = err.transpose(0, *over, *rest).reshape(shape)
    dims = tuple(dim for dim in dims if dim not in pool)
    return expected(name, parameters, array, err, dims, [row.place for row in rows])


def _by_key(
    name: str, parameters: Mapping[str, Any], rows: Sequence[Row], values: Sequence[Value]
) -> Expected:
    """Of attention's weights: each key over the queries that see it."""
    axis = values[0].dims.index("key")
    dims = tuple(dim for dim in values[0].dims if dim != "key")
    found = []
    for key in range(max(value.array.shape[axis] for value in values)):
        seeing = [value for value in values if value.array.shape[axis] > key]
        array = np.stack([np.take(value.array, key, axis) for value in seeing])
        err = np.stack([np.take(value.err, key, axis) for value in seeing])
        found.append(expected(name, parameters, array, err, dims))
    low = np.stack([one.low for one in found], axis)
    high = np.stack([one.high for one in found], axis)
    own = found[0].dims
    return Expected(low, high, (*own[:axis], "key", *own[axis:]), found[0].cumulative)
