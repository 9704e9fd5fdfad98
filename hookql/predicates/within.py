"""`within`: tokens that overlap a match in their sample's text."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import numpy.typing as npt
import regex
from attrs import frozen

from hookql.data.batches import Batch
from hookql.data.encode import Context
from hookql.data.samples import Sample
from hookql.errors import Diagnostic, QueryError, Source, Span
from hookql.language import ast
from hookql.predicates.patterns import compile_regex, find_all

Bools = npt.NDArray[np.bool_]


@frozen(eq=False)
class Found:
    """The matches in one text: sorted starts and stops, int64; the last sample that has it."""

    sample: int
    starts: npt.NDArray[np.int64]
    stops: npt.NDArray[np.int64]


class Matches:
    """Finds a text (exactly) or a pattern in the samples' texts, in each text once.

    What was found is kept while a batch may have tokens of the sample (`Batch.complete`).

    Raises:
        QueryError: for a bad pattern.
    """

    def __init__(self, pattern: ast.String | ast.Regex, source: Source | None = None) -> None:
        self._source = source
        self._span = pattern.span
        self._compiled = (
            regex.compile(regex.escape(pattern.value, special_only=True, literal_spaces=True))
            if isinstance(pattern, ast.String)
            else compile_regex(pattern.pattern, source, pattern.span)
        )
        self._found: dict[str, Found] = {}
        self._complete = 0

    def overlapping(self, batch: Batch, span: Span | None = None) -> Bools:
        """Which tokens share a character with a match, bool (B, S); special ones never do.

        Raises:
            QueryError: where there is no text, or the pattern takes too long.
        """
        spans = batch.spans
        if spans is None:
            raise QueryError(
                Diagnostic(
                    "no-text",
                    "there is no text to look into: the samples are given as token ids",
                    span,
                    self._source,
                    help='give texts, or look for tokens: `token == "text"`',
                )
            )
        self._forget(batch.complete)
        inside = np.zeros(batch.ids.shape, np.bool_)
        for row, context in enumerate(batch.contexts):
            for sample, tokens in _owned(context):
                found = self._of(sample)
                if len(found.starts):
                    inside[row, tokens] = _overlaps(found, spans[row, tokens])
        return inside

    def _forget(self, complete: int) -> None:
        """Let go of what no batch needs; that of the latest window others may still ask about."""
        if complete != self._complete:
            over = min(complete, self._complete)
            self._found = {text: f for text, f in self._found.items() if f.sample >= over}
            self._complete = complete

    def _of(self, sample: Sample) -> Found:
        found = self._found.get(sample.text)
        if found is None or found.sample < sample.index:
            pairs = (
                find_all(self._compiled, sample.text, self._source, self._span)
                if found is None
                else np.stack([found.starts, found.stops], axis=1)
            )
            # Sorted: a pattern may be matched from the end of the text, `(?r)`.
            both = np.sort(np.array(pairs, dtype=np.int64).reshape(-1, 2), axis=0)
            found = Found(sample.index, both[:, 0], both[:, 1])
            self._found[sample.text] = found
        return found


def _owned(context: Context) -> list[tuple[Sample, slice]]:
    """The samples of a context, and which of its tokens are each one's."""
    if len(context.samples) == 1:
        return [(context.samples[0], slice(len(context.ids)))]
    edges = np.searchsorted(context.owner, np.arange(len(context.samples) + 1)).tolist()
    tokens = [slice(first, end) for first, end in pairwise(edges)]
    return list(zip(context.samples, tokens, strict=True))


def _overlaps(found: Found, spans: npt.NDArray[np.int32]) -> Bools:
    """More matches begin before a token's end than end by its start: one of them is there.

    Matches are no empty ones and do not overlap each other.
    """
    start, stop = spans[:, 0], spans[:, 1]
    begun = np.searchsorted(found.starts, stop, side="left")
    ended = np.searchsorted(found.stops, start, side="right")
    overlaps: Bools = (start < stop) & (begun > ended)
    return overlaps
