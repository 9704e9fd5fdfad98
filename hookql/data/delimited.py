"""CSV and TSV: a header line, then a sample a row; quoted fields may hold line breaks."""

from __future__ import annotations

import csv
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping

from hookql.data.limits import LONGEST, too_long
from hookql.data.samples import Field
from hookql.errors import DataError, Diagnostic, listing

_EMPTY: Mapping[str, object] = {}
# The largest limit that every platform's C long takes.
_NO_LIMIT = 2**31 - 1


def read_delimited(
    lines: Iterable[tuple[int, str]], name: str, delimiter: str
) -> tuple[tuple[str, ...], Iterator[tuple[str, Mapping[str, object]]]]:
    """The header, and place and fields of each row; a blank line is an empty record.

    Fields are `Field` texts, so that a query may compare them as numbers.

    Raises:
        DataError: on a header with a name twice, bad quoting, or a row of another width.
    """
    rows = _rows(lines, name, delimiter)
    place, header = next(rows, (f"{name}:1", []))
    twice = [column for column, times in Counter(header).items() if times > 1]
    if twice:
        raise DataError(
            Diagnostic("bad-csv", f"{place}: the header names `{twice[0]}` more than once")
        )
    return tuple(header), _records(rows, header)


def _records(
    rows: Iterator[tuple[str, list[str]]], header: list[str]
) -> Iterator[tuple[str, Mapping[str, object]]]:
    for place, fields in rows:
        if not fields:
            yield place, _EMPTY
            continue
        if len(fields) != len(header):
            raise DataError(
                Diagnostic(
                    "bad-csv",
                    f"{place}: {len(fields)} field{'s' * (len(fields) > 1)} where the header has "
                    f"{len(header)}",
                    notes=(f"columns: {listing(header)}",),
                )
            )
        yield place, {c: Field(f) for c, f in zip(header, fields, strict=True)}


def _rows(
    lines: Iterable[tuple[int, str]], name: str, delimiter: str
) -> Iterator[tuple[str, list[str]]]:
    """Each row with the place of its first line."""
    place, taken = f"{name}:1", 0

    def counted() -> Iterator[str]:
        """The lines, as long as those of one row stay together below the limit."""
        nonlocal taken
        for _, line in lines:
            taken += len(line)
            if taken > LONGEST:
                raise too_long(place)
            yield line

    reader = csv.reader(counted(), delimiter=delimiter, strict=True)
    while True:
        place, taken = f"{name}:{reader.line_num + 1}", 0
        # The limit is one for the whole process: it is lifted for this row alone.
        before = csv.field_size_limit(_NO_LIMIT)
        try:
            row = next(reader)
        except StopIteration:
            return
        except csv.Error as error:
            raise DataError(Diagnostic("bad-csv", f"{place}: {_why(error)}")) from None
        finally:
            csv.field_size_limit(before)
        yield place, row


def _why(error: csv.Error) -> str:
    said = str(error)
    if "unexpected end of data" in said:
        return "a quoted field that starts in this row is never closed"
    if "new-line character" in said:
        return "a lone carriage return outside quotes"
    return said
