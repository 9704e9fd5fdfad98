"""Results as text for a terminal: a table for each role, and where they came from."""

from __future__ import annotations

import re
import textwrap
from collections.abc import Hashable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import xarray

from hookql.language.names import CANONICAL
from hookql.models.names import compact
from hookql.results.cells import Column, plural
from hookql.results.columns import statistic_columns
from hookql.results.facts import facts, generated, run_line
from hookql.results.ranks import is_ranking, ranking_columns
from hookql.results.rows import (
    Rows,
    label_columns,
    main_variables,
    own_dims,
    raw_rows,
    raw_variables,
    rows_of,
)
from hookql.results.terminal import (
    cut,
    finished,
    needs_ascii,
    strong,
    terminal_width,
    visible,
    wrapped,
)
from hookql.statistics import STATISTICS

GAP = "  "


def render(
    tree: xarray.DataTree,
    width: int | None = None,
    color: bool = False,
    ascii: bool | None = None,
) -> str:
    """The tables of a result; what `hookql run` prints.

    ``width`` is the terminal's (100 where there is none); ``ascii`` is chosen by what stdout can
    show. The same tree at the same width gives the same text.
    """
    width, ascii = terminal_width(width), needs_ascii(ascii)
    shown: list[Column] = []
    blocks = [
        *_tables(tree, width, color, ascii, shown),
        wrapped(_legend(shown), width),
        "\n".join(cut(visible(line), width) for line in _wrote(tree)),
        run_line(tree.attrs),
    ]
    return finished("\n\n".join(block for block in blocks if block), ascii)


def _wrote(tree: xarray.DataTree) -> list[str]:
    """What the model wrote, under a heading."""
    lines = list(generated(tree))
    return ["written by the model:", *(f"  {line}" for line in lines)] if lines else []


def summary(
    tree: xarray.DataTree,
    width: int | None = None,
    color: bool = False,
    ascii: bool | None = None,
) -> str:
    """What a file holds and how it was made, then its tables; what `hookql show` prints."""
    width, ascii = terminal_width(width), needs_ascii(ascii)
    lines: list[str] = []
    said = ""
    for name, value in facts(tree):
        name, said = ("" if name == said else name), name
        texts = [visible(line) for line in value.splitlines()]
        rows = [part for text in texts for part in textwrap.wrap(text, width - 9)]
        lines += [f"{'' if number else name:<9}{row}" for number, row in enumerate(rows)]
    return f"{finished(chr(10).join(lines), ascii)}\n\n{render(tree, width, color, ascii)}"


def _tables(
    tree: xarray.DataTree, width: int, color: bool, ascii: bool, shown: list[Column]
) -> Iterator[str]:
    """The text of each table; the columns of numbers go to ``shown``, for the legend."""
    if "count" in tree.data_vars:
        yield _table(tree.to_dataset(), tree.attrs, width, color, ascii, shown)
    for name, capture in tree.children.items():
        if len(tree.children) > 1:
            query = re.sub(r"\s*\n\s*", " ", str(capture.attrs.get("query", "")).strip())
            heading = visible(f"{name}: {query}")
            yield strong(wrapped(heading, width), color)
        for role in capture.children.values():
            yield _table(role.to_dataset(), tree.attrs, width, color, ascii, shown)


def _table(
    data: xarray.Dataset,
    run: Mapping[Hashable, Any],
    width: int,
    color: bool,
    ascii: bool,
    shown: list[Column],
) -> str:
    """Title, facts, table and warnings of one role."""
    rows = rows_of(data)
    names = main_variables(data)
    rankings = [name for name in names if is_ranking(data[name])]
    statistics = [
        column
        for name in names
        if name not in rankings
        for column in statistic_columns(data, name, rows, ascii)
    ]
    labels, module = label_columns(data, rows, width)
    raw = raw_rows(data)
    if not names and not raw and "count" in data and not data["count"].ndim:
        kept = f"{int(data['count']):,}"  # the answer where nothing else was asked for
        statistics = [Column(("", "", "count"), (kept,) * len(rows))]
    # The modules' names are worth a column where all statistics still fit beside it.
    if module and _room([*labels, module, *statistics]) <= width:
        labels = [*labels, module]
    shown += statistics
    lines = [strong(_title(data), color), wrapped(_size_line(data, rows, run), width), ""]
    lines += [wrapped(visible(f"{name}: {said}"), width) for name, said in raw]
    lines += [""] if raw else []
    if statistics or not (rankings or raw):
        note = f"… {rows.left_out:,} more rows, in the result" if rows.left_out else ""
        for group in _groups(statistics, width - _room(labels)):
            columns = [*labels, *group]
            lines += [*_grid(columns, color, note, len(rows) // 2), ""] if columns else []
    for name in rankings:
        columns, note = ranking_columns(data, name, rows, width, len(GAP))
        lines += [*_grid(columns, color, note), ""]
    lines += [wrapped(visible(line), width) for line in _warnings(data)]
    return "\n".join(lines).rstrip()


def _title(data: xarray.Dataset) -> str:
    """The modules' names as a query writes them, with the port if it is not the output."""
    if "modules" in data.attrs:
        name = str(data.attrs["modules"])
    else:
        name = compact([str(module) for module in np.atleast_1d(data["module"].values)])
    role, colon, port = str(data.attrs.get("role", "")).partition(":")
    canonical = role in CANONICAL and role != name
    shown = f"@{role} · " if canonical else ""
    return visible(shown + (name or "model") + colon + port)


def _size_line(data: xarray.Dataset, rows: Rows, run: Mapping[Hashable, Any]) -> str:
    """``6 layers · 768 features · 1,234 tokens kept of 1,300``."""
    again = _second_dims(data)
    apart = ("skipped", "generated", *(("obs", "sample") if raw_variables(data) else ()))
    sizes = [
        visible(f"{size:,} {plural(str(dim), size)}")
        for dim, size in data.sizes.items()
        if dim not in (*again, *apart)
    ]
    keys = [dim for dim in data["count"].dims if dim != "layer"]
    counts = np.unique(data["count"].sum(keys).values)
    kept = f"{counts[0]:,}" if len(counts) == 1 else f"{counts[0]:,} to {counts[-1]:,}"
    # What was never run, as no `where` wanted a token of its batch, was looked at too.
    beside = ("tokens_run", "tokens_skipped", "tokens_spared")
    looked_at = sum(int(run.get(name, 0)) for name in beside)
    # A decoder's tokens are others than those that were read; so are layers pooled together.
    of = f" of {looked_at:,}" if "tokens_run" in run and counts[-1] <= looked_at else ""
    noun = plural("token", int(counts[-1]))
    return " · ".join([*sizes, f"{kept} {noun} kept{of}"])


def _second_dims(data: xarray.Dataset) -> set[str]:
    """The dimensions of matrices that are another one's features once more."""
    return {
        own_dims(values)[-1]
        for values in data.data_vars.values()
        if (statistic := STATISTICS.get(str(values.attrs.get("statistic", "")))) is not None
        and statistic.dims == ("feature_2",)
    }


def _groups(columns: Sequence[Column], room: int) -> list[list[Column]]:
    """The columns in groups that fit into a width, each of one at least."""
    groups: list[list[Column]] = [[]]
    for column in columns:
        if groups[-1] and _room([*groups[-1], column]) > room:
            groups.append([])
        groups[-1].append(column)
    return groups


def _room(columns: Sequence[Column]) -> int:
    return sum(column.width + len(GAP) for column in columns)


def _grid(
    columns: Sequence[Column], color: bool, note: str = "", before: int | None = None
) -> list[str]:
    """The columns side by side, empty heading lines left out; the note after ``before`` rows."""
    lines = [GAP.join(parts).rstrip() for parts in zip(*(c.lines() for c in columns), strict=True)]
    heading, rows = [line for line in lines[:3] if line], lines[3:]
    if note:
        at = len(rows) if before is None else before
        rows = [*rows[:at], note, *rows[at:]]
    return [*(f"\x1b[2m{line}\x1b[0m" if color else line for line in heading), *rows]


def _warnings(data: xarray.Dataset) -> list[str]:
    """What must not be overlooked: nothing kept, or numbers that are not finite."""
    found = []
    if not np.any(data["count"].values):
        left = "there is no row" if raw_variables(data) else "every number is NaN"
        found.append(f"warning: no token was kept, so {left}")
    spoilt = np.atleast_1d(data["nonfinite"].values)
    where = np.flatnonzero(spoilt)
    if len(where):
        first = where[0]
        if "modules" in data.attrs:
            module = data.attrs["modules"]
        else:
            module = np.atleast_1d(data["module"].values)[first]
        sample, position = (
            np.atleast_1d(data[f"first_nonfinite_{part}"].values)[first]
            for part in ("sample", "position")
        )
        others = len(where) - 1
        more = f"; {others} more {plural('layer', others)} too" if others else ""
        found.append(
            f"warning: {int(spoilt[first]):,} values of {module} are NaN or infinite, "
            f"the first at sample {sample}, position {position}{more}"
        )
    return found


def _legend(columns: Sequence[Column]) -> str:
    """What bars and stars mean, where there are any."""
    found = []
    if any(column.barred for column in columns):
        found.append("Bars compare the rows of a column by size, sign aside; the largest is full.")
    if any(column.starred for column in columns):
        found.append("* leaves out what is NaN or infinite.")
    return "\n".join(found)
