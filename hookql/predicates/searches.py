"""`~` and `within`: looking for patterns in the text of tokens, of columns and of samples."""

from __future__ import annotations

import time

import numpy as np

from hookql.data.batches import Batch
from hookql.data.samples import Sample
from hookql.data.tokens import has_spans
from hookql.errors import QueryError
from hookql.language import ast
from hookql.predicates import rows
from hookql.predicates.operands import NEVER, Operands, Read
from hookql.predicates.patterns import PATIENCE, compile_regex, search
from hookql.predicates.values import Values, everywhere


class Searches(Operands):
    """Compiles what searches text."""

    def match(self, node: ast.Match) -> Read:
        """``token ~ /re/`` by a table over the vocabulary, ``row.NAME ~ /re/`` sample by sample.

        ``role ~ /re/`` by the roles that a batch has, each once.
        """
        pattern, span = node.regex.pattern, node.regex.span
        kind = self.kind(node.value)
        if kind not in ("id", "row", "word"):
            return self.unusable(node.value, "text to match")
        try:
            if isinstance(node.value, ast.Row):
                return self._match_row(node.value, node.regex)
            if kind == "word":
                return self._match_word(node.value, node.regex)
            if self.vocabulary.tokenizer is None:
                return self.needs_tokenizer(node.regex, "a pattern")
            table = self.vocabulary.matching(pattern, self.source, span)
        except QueryError as error:
            self.diagnostics.extend(error.diagnostics)
            return lambda batch: NEVER
        assert isinstance(node.value, ast.Name)
        read = self.column(node.value.id)

        def look_up(batch: Batch) -> Values:
            ids = read(batch)
            known = (ids.value >= 0) & (ids.value < len(table))
            return Values(table[np.where(known, ids.value, 0)] & known, ids.defined)

        return look_up

    def within(self, node: ast.Within) -> Read:
        """Whether the token overlaps a match in its sample's text."""
        tokenizer, pattern = self.vocabulary.tokenizer, node.pattern
        if isinstance(pattern, ast.String) and not pattern.value:
            return self.wrong(
                "bad-argument", "`within` looks for a text, and this one is empty", pattern
            )
        if tokenizer is None:
            return self.needs_tokenizer(node, "`within`")
        if not has_spans(tokenizer):
            return self.wrong(
                "needs-offsets",
                "this tokenizer does not say where in the text its tokens are from",
                node,
                "give a fast one, with a `tokenizer.json`",
            )
        self.text = True
        try:
            matches = self.vocabulary.matches(pattern, self.source)
        except QueryError as error:
            self.diagnostics.extend(error.diagnostics)
            return lambda batch: NEVER
        return lambda batch: everywhere(matches.overlapping(batch, node.span))

    def _match_row(self, node: ast.Row, pattern: ast.Regex) -> Read:
        place = self.place(node)
        compiled = compile_regex(pattern.pattern, self.source, pattern.span)

        def find(sample: Sample) -> bool | None:
            text = rows.text(sample, place)
            if text is None:
                return None
            deadline = time.monotonic() + PATIENCE
            return search(compiled, text, deadline, self.source, pattern.span)

        return lambda batch: rows.truths(batch, find)

    def _match_word(self, node: ast.Expression, pattern: ast.Regex) -> Read:
        read = self.word(node)
        compiled = compile_regex(pattern.pattern, self.source, pattern.span)

        def find(batch: Batch) -> Values:
            words = read(batch)
            distinct, codes = np.unique(words.value, return_inverse=True)
            deadline = time.monotonic() + PATIENCE
            texts = map(str, distinct.tolist())
            found = [search(compiled, text, deadline, self.source, pattern.span) for text in texts]
            return Values(np.array(found, np.bool_)[codes].reshape(codes.shape), words.defined)

        return find
