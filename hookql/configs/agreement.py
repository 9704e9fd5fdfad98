"""What settings must not say together, and what one of them has to say."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

from hookql.configs.document import Document, Where, said
from hookql.configs.settings import DataSettings, QuerySettings, Settings
from hookql.errors import Diagnostic, did_you_mean

_NAME = re.compile(r"\w[\w.-]{0,99}")


def disagreements(document: Document, settings: Settings) -> Iterator[Diagnostic]:
    """Everything that is wrong with settings that are right one by one."""
    if not settings.queries:
        span = document.span(("queries",))
        yield document.wrong("missing-setting", "`queries` has none", span, _EXAMPLE)
    yield from _data(document, ("data",), settings.data)
    for name, query in settings.queries.items():
        if not _NAME.fullmatch(name):
            message = f"`{name}` cannot be the name of a query, which names its files"
            help = "a name is made of letters, digits, `_`, `-` and `.`, and has no `.` first"
            span = document.key(("queries", name))
            yield document.wrong("bad-query-name", message, span, help)
        yield from _query(document, ("queries", name), query)
        yield from _no_data(document, name, settings)
    yield from _stdin(document, settings)
    yield from _outputs(document, settings)


_EXAMPLE = "write `NAME: capture mean from h[*]` below it"


def _query(document: Document, path: Where, query: QuerySettings) -> Iterator[Diagnostic]:
    where = said(path)
    if query.query is not None and query.file is not None:
        message = f"`{where}` has a `query` and a `file`"
        yield document.wrong("conflicting-settings", message, document.key(path), "keep one")
    if query.query is None and query.file is None:
        message = f"`{where}` has neither `query` nor `file`"
        yield document.wrong("missing-setting", message, document.key(path), _ONE)
    yield from _data(document, (*path, "data"), query.data)


_ONE = "give the query itself, or the .hq file that holds it"


def _data(document: Document, path: Where, data: DataSettings | None) -> Iterator[Diagnostic]:
    if data is None:
        return
    where = said(path)
    if data.path is not None and data.texts is not None:
        message = f"`{where}` has a `path` and `texts`"
        yield document.wrong("conflicting-settings", message, document.key(path), "keep one")
    if data.texts == []:
        span = document.span((*path, "texts"))
        yield document.wrong("missing-setting", f"`{where}.texts` has no text", span)


def _no_data(document: Document, name: str, settings: Settings) -> Iterator[Diagnostic]:
    """A model that has no text of its own needs some."""
    data = settings.queries[name].data or settings.data
    if settings.model.name != "demo" and not _named(data):
        message = f"there is no data for the query `{name}`"
        help = "write `data: FILE` at the top, or `data: {texts: [...]}`"
        span = document.key(("queries", name))
        yield document.wrong("missing-setting", message, span, help)


def _named(data: DataSettings | None) -> bool:
    return data is not None and (data.path is not None or data.texts is not None)


def _stdin(document: Document, settings: Settings) -> Iterator[Diagnostic]:
    reading = [
        name
        for name, query in settings.queries.items()
        if (data := query.data or settings.data) is not None and data.path == "-"
    ]
    if len(reading) > 1:
        message = f"stdin can be read only once, and {len(reading)} queries read it"
        help = "write the data into a file, and give that"
        own = [name for name in reading if settings.queries[name].data is not None]
        path: Where = ("queries", own[-1], "data", "path") if own else ("data", "path")
        yield document.wrong("stdin-twice", message, document.span(path), help)


def _outputs(document: Document, settings: Settings) -> Iterator[Diagnostic]:
    named = settings.outputs if isinstance(settings.outputs, dict) else {}
    for name in named:
        span = document.key(("outputs", name))
        if name not in settings.queries:
            message = f"`outputs` names `{name}`, and no query has that name"
            help = did_you_mean(name, settings.queries)
            notes = (f"queries: {', '.join(settings.queries) or 'none'}",)
            yield document.wrong("unknown-setting", message, span, help, notes)
        elif settings.queries[name].output is not None:
            message = f"the output of `{name}` stands in `outputs` and with the query"
            yield document.wrong("conflicting-settings", message, span, "keep one")


def output_of(settings: Settings, name: str) -> Path | None:
    """The file of a query's result; None where the config names none."""
    own = settings.queries[name].output
    if own is not None:
        return Path(own)
    if isinstance(settings.outputs, dict):
        given = settings.outputs.get(name)
        return None if given is None else Path(given)
    return None if settings.outputs is None else Path(settings.outputs) / f"{name}.nc"
