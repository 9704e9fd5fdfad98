"""Results as text for a terminal: a table for each role, and where they came from."""

from __future__ import annotations

import math
import re
import shutil
import sys
import textwrap
from collections.abc import Hashable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import xarray

from hookql.models.names import compact
from hookql.results.cells import Column, plural, statistic_column

# Parts of every dataset that are no statistic.
APART = {"count", "nonfinite", "first_nonfinite_sample", "first_nonfinite_position"}
MOST_ROWS = 24
GAP = "  "
ASCII = str.maketrans({"·": "-", "…": "...", "×": "x", "≤": "<="})


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
    width, ascii = _width(width), _needs_ascii(ascii)
    blocks = [
        *_tables(tree, width, color, ascii),
        _wrapped(_legend(tree), width),
        _run_line(tree.attrs),
    ]
    return _finished("\n\n".join(block for block in blocks if block), ascii)


def summary(
    tree: xarray.DataTree,
    width: int | None = None,
    color: bool = False,
    ascii: bool | None = None,
) -> str:
    """What a file holds and how it was made, then its tables; what `hookql show` prints."""
    width, ascii = _width(width), _needs_ascii(ascii)
    lines: list[str] = []
    said = ""
    for name, value in _facts(tree):
        name, said = ("" if name == said else name), name
        texts = [_visible(line) for line in value.splitlines()]
        rows = [part for text in texts for part in textwrap.wrap(text, width - 9)]
        lines += [f"{'' if number else name:<9}{row}" for number, row in enumerate(rows)]
    facts = _finished("\n".join(lines), ascii)
    return f"{facts}\n\n{render(tree, width, color, ascii)}"


def _tables(tree: xarray.DataTree, width: int, color: bool, ascii: bool) -> Iterator[str]:
    if tree.has_data:
        yield _table(tree.to_dataset(), tree.attrs, width, color, ascii)
    for name, capture in tree.children.items():
        if len(tree.children) > 1:
            query = re.sub(r"\s*\n\s*", " ", str(capture.attrs.get("query", "")).strip())
            heading = _visible(f"{name}: {query}")
            yield _strong(_wrapped(heading, width), color)
        for role in capture.children.values():
            yield _table(role.to_dataset(), tree.attrs, width, color, ascii)


def _table(
    data: xarray.Dataset, run: Mapping[Hashable, Any], width: int, color: bool, ascii: bool
) -> str:
    """Title, facts, table and warnings of one role."""
    rows = [dim for dim in ("layer", "call") if dim in data.dims]
    labels, module = _labels(data, rows)
    statistics = [
        statistic_column(data[name], rows, ascii) for name in data.data_vars if name not in APART
    ]
    if not statistics and not data["count"].ndim:
        statistics = [_count_column(data, rows)]
    # The modules' names are worth a column where all statistics still fit beside it.
    if module and _room([*labels, module, *statistics]) <= width:
        labels = [*labels, module]
    lines = [_strong(_title(data), color), _wrapped(_size_line(data, run), width), ""]
    for group in _groups(statistics, width - _room(labels)):
        columns = [*labels, *group]
        lines += [*_grid(columns, color), ""] if columns else []
    lines += [_wrapped(_visible(line), width) for line in _warnings(data)]
    return "\n".join(lines).rstrip()


def _labels(data: xarray.Dataset, rows: Sequence[str]) -> tuple[list[Column], Column | None]:
    """The columns that say which row it is, and the modules' names if there are layers."""
    if not rows:
        return [], None
    shape = [data.sizes[dim] for dim in rows]
    places = list(np.ndindex(*shape))
    labels = []
    for number, dim in enumerate(rows):
        values = data[dim].values if dim in data.coords else np.arange(data.sizes[dim])
        labels.append(Column(("", "", dim), tuple(str(values[place[number]]) for place in places)))
    if "layer" not in rows:
        return labels, None
    if data["count"].ndim:
        kept = tuple(f"{int(data['count'].values[place[0]]):,}" for place in places)
        labels.append(Column(("", "tokens", "kept"), kept))
    modules = tuple(str(data["module"].values[place[0]]) for place in places)
    return labels, Column(("", "", "module"), modules, left=True)


def _count_column(data: xarray.Dataset, rows: Sequence[str]) -> Column:
    """The tokens kept, the same in each row: the answer where nothing else was asked for."""
    number = math.prod(data.sizes[dim] for dim in rows)
    return Column(("", "", "count"), (f"{int(data['count']):,}",) * number)


def _title(data: xarray.Dataset) -> str:
    """The modules' names as a query writes them, with the port if it is not the output."""
    if "modules" in data.attrs:
        name = str(data.attrs["modules"])
    else:
        name = compact([str(module) for module in np.atleast_1d(data["module"].values)])
    _, colon, port = str(data.attrs.get("role", "")).partition(":")
    return _visible((name or "model") + colon + port)


def _size_line(data: xarray.Dataset, run: Mapping[Hashable, Any]) -> str:
    """``6 layers · 768 features · 1,234 tokens kept of 1,300``."""
    sizes = [f"{size:,} {plural(str(dim), size)}" for dim, size in data.sizes.items()]
    counts = np.unique(data["count"].values)
    kept = f"{counts[0]:,}" if len(counts) == 1 else f"{counts[0]:,} to {counts[-1]:,}"
    # What was never run, as no `where` wanted a token of its batch, was looked at too.
    looked_at = int(run.get("tokens_run", 0)) + int(run.get("tokens_skipped", 0))
    of = f" of {looked_at:,}" if "tokens_run" in run else ""
    noun = plural("token", int(counts[-1]))
    return " · ".join([*sizes, f"{kept} {noun} kept{of}"])


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


def _grid(columns: Sequence[Column], color: bool) -> list[str]:
    """The columns side by side, empty heading lines left out, the middle of many rows too."""
    lines = [GAP.join(parts).rstrip() for parts in zip(*(c.lines() for c in columns), strict=True)]
    heading, rows = [line for line in lines[:3] if line], lines[3:]
    if len(rows) > MOST_ROWS:
        half = MOST_ROWS // 2
        note = f"… {len(rows) - 2 * half:,} more rows, in the result"
        rows = [*rows[:half], note, *rows[-half:]]
    return [*(f"\x1b[2m{line}\x1b[0m" if color else line for line in heading), *rows]


def _warnings(data: xarray.Dataset) -> list[str]:
    """What must not be overlooked: nothing kept, or numbers that are not finite."""
    found = []
    if not np.any(data["count"].values):
        found.append("warning: no token was kept, so every number is NaN")
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


def _legend(tree: xarray.DataTree) -> str:
    """What bars and stars mean, where there are any."""
    found = []
    several = starred = False
    for node in tree.subtree:
        rows = [dim for dim in ("layer", "call") if dim in node.sizes]
        for name, values in node.data_vars.items():
            if name in APART or values.dtype.kind != "f":
                continue
            several |= bool(rows) and max(node.sizes[dim] for dim in rows) > 1
            finite = np.isfinite(values.values).reshape(*(node.sizes[d] for d in rows), -1)
            starred |= bool(np.any(finite.any(-1) & ~finite.all(-1)))
    if several:
        found.append("Bars compare the rows of a column by size, sign aside; the largest is full.")
    if starred:
        found.append("* leaves out what is NaN or infinite.")
    return "\n".join(found)


def _run_line(attributes: Mapping[Hashable, Any]) -> str:
    """``1.2 s for 36 samples · ran 48 % of the model``."""
    parts = []
    if "seconds" in attributes:
        samples = attributes.get("samples")
        what = f" for {int(samples):,} {plural('sample', int(samples))}" if samples else ""
        parts.append(f"{float(attributes['seconds']):.3g} s{what}")
    if "forward_share" in attributes and attributes.get("tokens_run", 1):
        parts.append(f"ran {100 * float(attributes['forward_share']):.0f} % of the model")
    return " · ".join(parts)


def _facts(tree: xarray.DataTree) -> Iterator[tuple[str, str]]:
    """What is worth reading of the attributes, by a short name."""

    def given(*names: str) -> list[str]:
        return [str(tree.attrs[n]) for n in names if tree.attrs.get(n) not in (None, "", "none")]

    yield "query", str(tree.attrs.get("query", "")).strip()
    yield "model", ", ".join(given("model", "model_class", "dtype_run", "device"))
    yield "data", " · ".join([*given("data"), *_counts(tree.attrs)])
    yield "made", ", ".join(given("ended", "source"))
    for node in tree.subtree:
        if node.has_data:
            sizes = ", ".join(f"{dim} {size}" for dim, size in node.sizes.items())
            names = ", ".join(str(name) for name in node.data_vars if name not in APART - {"count"})
            where = "" if node is tree else f"{node.path[1:]}: "
            yield "holds", f"{where}{names} ({sizes or 'no dimension'})"


def _counts(attributes: Mapping[Hashable, Any]) -> Iterator[str]:
    for name, words in (
        ("samples", "sample"),
        ("tokens_run", "token run"),
        ("tokens_skipped", "token skipped"),
        ("tokens_dropped", "token dropped"),
        ("samples_truncated", "sample truncated"),
        ("samples_split", "sample split"),
        ("samples_empty", "sample empty"),
    ):
        if number := int(attributes.get(name) or 0):
            noun, _, rest = words.partition(" ")
            yield f"{number:,} {plural(noun, number)} {rest}".rstrip()


def _width(width: int | None) -> int:
    return max(20, shutil.get_terminal_size((100, 24)).columns if width is None else width)


def _needs_ascii(ascii: bool | None) -> bool:
    if ascii is not None:
        return ascii
    try:
        "█▏·…×".encode(getattr(sys.stdout, "encoding", None) or "ascii")
    except (UnicodeEncodeError, LookupError):
        return True
    return False


def _wrapped(text: str, width: int) -> str:
    """Lines broken at spaces, what goes on indented; a longer word stays whole."""
    return "\n".join(
        textwrap.fill(line, width, subsequent_indent="  ", break_long_words=False)
        for line in text.splitlines()
    )


def _visible(text: str) -> str:
    """A name or a line of a query without characters that would steer the terminal."""
    return "".join(c if c.isprintable() else "\ufffd" for c in text.expandtabs(4))


def _finished(text: str, ascii: bool) -> str:
    """The text as the stream can show it."""
    if not ascii:
        return text
    return text.translate(ASCII).encode("ascii", "backslashreplace").decode()


def _strong(text: str, color: bool) -> str:
    return f"\x1b[1m{text}\x1b[0m" if color else text
