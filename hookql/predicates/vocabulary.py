"""What the tokens of a tokenizer spell: ids of a literal, of a role, of a pattern."""

from __future__ import annotations

import time
from collections.abc import Iterable
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt

from hookql.errors import Source, Span
from hookql.language import ast
from hookql.predicates.patterns import PATIENCE, compile_regex, search
from hookql.predicates.within import Matches

# The roles that compare ids; `pad` is a fact of the mask and no id at all.
ROLES = ("bos", "eos", "unk", "cls", "sep", "mask")
_ANCHORS = ("a", "Ġa", "▁a", "A", "0", "1", ".", "the", "x")


class Vocabulary:
    """The texts of all tokens of a tokenizer, read once when first needed; None has no tokens.

    A token's text is what it adds to a text that is already there: `` Paris`` with its space for
    ``ĠParis``, ``▁Paris`` and a WordPiece word, ``ing`` for ``##ing``. Bytes that are no character
    by themselves are U+FFFD.
    """

    def __init__(self, tokenizer: Any) -> None:
        self.tokenizer = tokenizer
        self._tables: dict[str, npt.NDArray[np.bool_]] = {}
        self._matches: dict[ast.String | ast.Regex, Matches] = {}

    @cached_property
    def size(self) -> int | None:
        """One more than the largest token id; None without a tokenizer."""
        if self.tokenizer is None:
            return None
        return max(len(self.tokenizer), max(self.tokenizer.get_vocab().values(), default=-1) + 1)

    @cached_property
    def texts(self) -> list[str]:
        """The text of each token id; empty for an id that is no token."""
        return _token_texts(self.tokenizer, self.size or 0)

    def text(self, ids: Iterable[int]) -> list[str]:
        """The text of each of these ids; empty for one outside the vocabulary."""
        known = self.texts
        return [known[i] if 0 <= i < len(known) else "" for i in ids]

    def ids_of(self, literal: str) -> npt.NDArray[np.int64]:
        """The ids that ``token == "literal"`` means, sorted, int64.

        A literal with space at an end is exact; else any token that is the literal once the space
        around it is taken off.
        """
        exact = literal != literal.strip()
        found = self._exact if exact else self._stripped
        return np.array(found.get(literal, ()), dtype=np.int64)

    def role_ids(self, role: str) -> npt.NDArray[np.int64]:
        """The ids of a role (none or one, int64): what the tokenizer lacks is never equal."""
        token = getattr(self.tokenizer, f"{role}_token_id", None) if role in ROLES else None
        return np.array([] if token is None else [token], dtype=np.int64)

    def split(self, literal: str) -> list[str]:
        """The texts of the tokens that a literal is split into."""
        ids = self.tokenizer(literal, add_special_tokens=False, verbose=False)["input_ids"]
        return self.text(ids)

    def matching(
        self, pattern: str, source: Source | None = None, span: Span | None = None
    ) -> npt.NDArray[np.bool_]:
        """Whether each token's text has a match of the pattern, bool (size,); kept for next time.

        Raises:
            QueryError: for a bad pattern, or one that takes too long.
        """
        if pattern not in self._tables:
            compiled = compile_regex(pattern, source, span)
            deadline = time.monotonic() + PATIENCE
            found = [search(compiled, text, deadline, source, span) for text in self.texts]
            self._tables[pattern] = np.array(found, dtype=np.bool_)
        return self._tables[pattern]

    def matches(self, pattern: ast.String | ast.Regex, source: Source | None = None) -> Matches:
        """Where a text or a pattern stands in samples: one finder, whoever looks for the same.

        Raises:
            QueryError: for a bad pattern.
        """
        if pattern not in self._matches:
            self._matches[pattern] = Matches(pattern, source)
        return self._matches[pattern]

    @cached_property
    def _exact(self) -> dict[str, list[int]]:
        return _index(self.texts)

    @cached_property
    def _stripped(self) -> dict[str, list[int]]:
        return _index([text.strip() for text in self.texts])


def _index(texts: list[str]) -> dict[str, list[int]]:
    """The ids of each text; the empty text is no token's."""
    index: dict[str, list[int]] = {}
    for token, text in enumerate(texts):
        if text:
            index.setdefault(text, []).append(token)
    return index


def _token_texts(tokenizer: Any, size: int) -> list[str]:
    """Every token's text as it reads after another token.

    A decoder treats the first token differently (it drops the space of ``▁Paris``), so each token
    is decoded behind an anchor, whose own text is then taken off.
    """
    anchor = _anchor(tokenizer)
    if anchor is None:
        texts = _decode(tokenizer, [[token] for token in range(size)])
    else:
        (lead,) = _decode(tokenizer, [[anchor]])
        pairs = _decode(tokenizer, [[anchor, token] for token in range(size)])
        texts = [pair.removeprefix(lead) for pair in pairs]
    for token, added in getattr(tokenizer, "added_tokens_decoder", {}).items():
        if 0 <= token < size:
            texts[token] = str(added)
    return texts


def _anchor(tokenizer: Any) -> int | None:
    """A token whose text stays the same whatever follows it, or None."""
    vocabulary = tokenizer.get_vocab()
    for name in _ANCHORS:
        token = vocabulary.get(name)
        if token is None:
            continue
        (once,) = _decode(tokenizer, [[token]])
        (twice,) = _decode(tokenizer, [[token, token]])
        if once and "\ufffd" not in once and twice.startswith(once) and len(twice) > len(once):
            return int(token)
    return None


def _decode(tokenizer: Any, rows: list[list[int]]) -> list[str]:
    """The text of each row of ids, special tokens and spaces kept as they are."""
    backend = getattr(tokenizer, "backend_tokenizer", None)
    if backend is not None:
        decoded: list[str] = backend.decode_batch(rows, skip_special_tokens=False)
        return decoded
    return [_decode_one(tokenizer, row) for row in rows]


def _decode_one(tokenizer: Any, row: list[int]) -> str:
    try:
        return str(
            tokenizer.decode(row, skip_special_tokens=False, clean_up_tokenization_spaces=False)
        )
    except Exception:
        # A slow tokenizer may have ids that are no token.
        return ""
