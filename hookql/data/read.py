"""Opening data: a file of any known format, a data set, stdin, or Python's own texts."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from itertools import islice
from typing import TypeAlias

from attrs import field, frozen

from hookql.data.jsonl import kind
from hookql.data.limits import LONGEST, too_long
from hookql.data.messages import MESSAGES
from hookql.data.samples import Dataset, no_samples, numbered
from hookql.data.sources import TEXT, Opened, Record, has_splits, in_memory, open_source
from hookql.errors import DataError, Diagnostic, UsageError, did_you_mean, listing

_Text: TypeAlias = Callable[[object, str, str], str]  # of a value, its column, its place


def open_data(
    data: object = None,
    *,
    texts: Iterable[str] = (),
    column: str | None = None,
    split: str | None = None,
    limit: int | None = None,
    chat: bool = False,
) -> Dataset:
    """Open data for reading, sample by sample; nothing is held in memory that need not be.

    Args:
        data: a path (.txt, .jsonl, .ndjson, .csv, .tsv, .parquet, or a folder that `datasets`
            saved), a hub data set's name, ``"-"`` (stdin, a text a line), a list or other iterable
            of texts or of mappings, or a `datasets` object.
        texts: texts given directly, instead of ``data``.
        column: the column that holds the text; by default ``text``, else the only text column.
        split: the split of a data set.
        limit: read at most this many samples, in data order.
        chat: the column (by default ``messages``) holds a chat's messages instead; the text of a
            sample is "" then, until a tokenizer's template makes it.

    Raises:
        UsageError: where the arguments do not go together or name nothing.
        DataError: where the data cannot be read; also later, while it is iterated.
    """
    given = tuple(texts)
    if data is not None and given:
        raise _usage("two-sources", "both data and texts are given", "give one of them")
    if data is None and not given:
        raise _usage("no-data", "there is no data", 'give --data FILE or --text "..."')
    if limit is not None and limit < 1:
        raise _usage("bad-limit", f"the limit must be 1 or more, not {limit}")
    if chat and given:
        help = "give a .jsonl file with a list of messages a line, in a column `messages`"
        raise _usage("texts-are-no-chat", "texts given directly are no chats", help)
    opened = in_memory(given, "<text>") if data is None else open_source(data, split)
    if split is not None and not has_splits(data):
        raise _usage("no-splits", f"{opened.source} has no splits", "leave --split out")
    if chat:
        return _dataset(opened, column or MESSAGES, limit, _empty)
    return _dataset(opened, column, limit, _text)


def _dataset(opened: Opened, column: str | None, limit: int | None, text: _Text) -> Dataset:
    if opened.columns is not None and column is not None:
        _check_column(column, opened.columns, opened.source)
    if opened.strings is not None and column is None:
        column = _choose(opened.strings, opened.columns or (), opened.source)
    start = _Once(opened.records, opened.source, opened.reads_again)
    if opened.reads_again and next(start(), None) is None:
        # Also finds at once what is wrong with the very first record.
        raise no_samples(opened.source)
    return Dataset(
        opened.source,
        opened.columns,
        lambda: numbered(islice(_texts(start(), column, opened.source, text), limit)),
        lambda: _limited(opened.count(limit), limit),
        opened.reads_again,
    )


@frozen
class _Once:
    """Starts reading; a second time only where the source allows it."""

    records: Callable[[], Iterator[Record]]
    source: str
    again: bool
    _started: list[bool] = field(factory=list)

    def __call__(self) -> Iterator[Record]:
        if self._started and not self.again:
            raise DataError(
                Diagnostic(
                    "read-once",
                    f"{self.source} can be read only once, and was read already",
                    help="give a file or a list",
                )
            )
        self._started.append(True)
        return self.records()


def _limited(total: int | None, limit: int | None) -> int | None:
    return total if total is None or limit is None else min(total, limit)


# --- from records to texts ----------------------------------------------------------------------


def _texts(
    records: Iterator[Record], column: str | None, source: str, text: _Text
) -> Iterator[tuple[str | None, str, Mapping[str, object]]]:
    """Place, text and row of each record; an empty record is an empty text."""
    for number, (place, row) in enumerate(records):
        if not row:
            yield place, "", row
            continue
        if column is None:
            strings = tuple(str(k) for k, v in row.items() if isinstance(v, str))
            column = _choose(strings, tuple(map(str, row)), place or source)
        where = place or f"{source}, sample {number}"
        if column not in row:
            raise DataError(
                Diagnostic(
                    "missing-column",
                    f"{where}: there is no column `{column}`",
                    notes=(f"columns there: {listing(tuple(map(str, row)))}",),
                )
            )
        yield place, text(row[column], column, where), row


def _empty(value: object, column: str, where: str) -> str:
    """The text of a chat, which only a tokenizer's template can make."""
    return ""


def _text(value: object, column: str, where: str) -> str:
    if not isinstance(value, str):
        raise DataError(
            Diagnostic("not-text", f"{where}: column `{column}` is {kind(value)}, not text")
        )
    if len(value) > LONGEST:
        raise too_long(where)
    # A plain str: a CSV field is one with a wider meaning, which only the row needs.
    return value if type(value) is str else str(value)


def _choose(strings: Sequence[str], columns: Sequence[str], where: str) -> str:
    if TEXT in strings:
        return TEXT
    if len(strings) == 1:
        return strings[0]
    if TEXT in columns:
        raise DataError(Diagnostic("not-text", f"{where}: column `{TEXT}` is not text"))
    said = "has several text columns" if strings else "has no text column"
    raise UsageError(
        Diagnostic(
            "needs-column",
            f"{where} {said}" + (", and none is named `text`" if strings else ""),
            help=f"name one with --column {strings[0]}" if strings else None,
            notes=(f"columns: {listing(tuple(columns))}",),
        )
    )


def _check_column(column: str, columns: Sequence[str], source: str) -> None:
    if column not in columns:
        raise UsageError(
            Diagnostic(
                "unknown-column",
                f"{source} has no column `{column}`",
                help=did_you_mean(column, columns),
                notes=(f"columns: {listing(tuple(columns))}",),
            )
        )


def _usage(code: str, message: str, help: str | None = None) -> UsageError:
    return UsageError(Diagnostic(code, message, help=help))
