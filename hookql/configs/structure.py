"""Plain values to settings, by cattrs: nothing is converted silently, and all errors are found."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path

from cattrs import (
    AttributeValidationNote,
    ClassValidationError,
    ForbiddenExtraKeysError,
    IterableValidationError,
    IterableValidationNote,
)

from hookql.configs.converter import Wrong, converter
from hookql.configs.document import Document, Where, described, said
from hookql.configs.settings import (
    DataSettings,
    ModelSettings,
    QuerySettings,
    RunSettings,
    Settings,
    names_of,
)
from hookql.errors import Diagnostic, did_you_mean

_PLACES: Mapping[str, type] = {
    "": Settings,
    "model": ModelSettings,
    "data": DataSettings,
    "options": RunSettings,
    "queries.NAME": QuerySettings,
}


def structured(document: Document, folder: Path | None) -> tuple[Settings | None, list[Diagnostic]]:
    """The settings of a document, paths resolved against ``folder``; None where some are wrong."""
    plain = document.root.plain()
    if isinstance(plain, dict):
        plain.pop("$schema", None)  # which editors read
    try:
        return converter(folder).structure(plain, Settings), []
    except (ClassValidationError, Wrong) as error:
        return None, [each for leaf in _leaves(error) for each in _said(document, *leaf)]


def _leaves(error: BaseException, path: Where = ()) -> Iterator[tuple[Where, BaseException]]:
    """Each thing that is wrong, with the path to its value."""
    if not isinstance(error, ClassValidationError | IterableValidationError):
        yield path, error
        return
    for each in error.exceptions:
        steps = [
            note.name if isinstance(note, AttributeValidationNote) else note.index
            for note in getattr(each, "__notes__", ())
            if isinstance(note, AttributeValidationNote | IterableValidationNote)
        ]
        yield from _leaves(each, (*path, *steps))


def _said(document: Document, path: Where, error: BaseException) -> Iterator[Diagnostic]:
    """What is wrong there, in words."""
    if isinstance(error, ForbiddenExtraKeysError):
        where = f" in `{said(path)}`" if path else ""
        known = names_of(error.cl)
        for name in (key for key in document.node(path).value if key in error.extra_fields):
            message = f"unknown setting `{name}`{where}"
            help = did_you_mean(name, known) or _elsewhere(name, error.cl)
            notes = (f"settings there: {', '.join(known)}",)
            span = document.key((*path, name))
            yield document.wrong("unknown-setting", message, span, help, notes)
    elif isinstance(error, KeyError):
        where = f"`{said(path[:-1])}`" if path[:-1] else "the config"
        span = document.key(path[:-1]) or document.beginning
        help = "write `queries:`, and below it `NAME: capture ...`"
        yield document.wrong("missing-setting", f"{where} has no `{path[-1]}`", span, help)
    else:
        assert isinstance(error, Wrong), repr(error)
        where = f"`{said(path)}`" if path else "a config"
        message = f"{where} must be {error.wanted}, not {described(error.value)}"
        span = document.span(path) or document.beginning
        yield document.wrong("wrong-type", message, span, error.help)


def _elsewhere(name: str, kind: type) -> str | None:
    """Where a setting belongs that stands in the wrong place."""
    for place, other in _PLACES.items():
        if other is not kind and name in names_of(other):
            return f"`{name}` belongs into `{place}`" if place else f"`{name}` stands at the top"
    return None
