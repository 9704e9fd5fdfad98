"""One batch call to a tokenizer, whatever its kind: ids, and which of them it added."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt
from attrs import frozen

from hookql.data.samples import Sample
from hookql.errors import DataError, Diagnostic, UsageError

_OPTIONS = {"padding": False, "truncation": False, "verbose": False}


@frozen(eq=False)
class Encoded:
    """A text's token ids, int64 (L,), and which of them the tokenizer added, bool (L,).

    ``spans`` int32 (L, 2), where they were asked for: the characters of the text that each token
    is from, half-open, -1 where the tokenizer added it. ``roles`` text (L,), of a chat: who says
    each token.
    """

    ids: npt.NDArray[np.int64]
    special: npt.NDArray[np.bool_]
    spans: npt.NDArray[np.int32] | None = None
    roles: npt.NDArray[np.str_] | None = None

    def cut(self, *parts: slice) -> Encoded:
        """These parts of it, joined; one part is a view."""
        some = [self._part(part) for part in parts]
        return some[0] if len(some) == 1 else joined(some)

    def _part(self, part: slice) -> Encoded:
        spans = None if self.spans is None else self.spans[part]
        roles = None if self.roles is None else self.roles[part]
        return Encoded(self.ids[part], self.special[part], spans, roles)


def joined(rows: Sequence[Encoded]) -> Encoded:
    """One row of several, one behind the other."""
    spans = [row.spans for row in rows if row.spans is not None]
    roles = [row.roles for row in rows if row.roles is not None]
    return Encoded(
        np.concatenate([row.ids for row in rows]),
        np.concatenate([row.special for row in rows]),
        np.concatenate(spans) if spans else None,
        np.concatenate(roles) if roles else None,
    )


@frozen
class Skipped:
    """A context, or a whole sample (chunk -1), that was left out, and why.

    Of a packed context each sample has one.
    """

    sample: int
    chunk: int
    reason: str


Rows: TypeAlias = Iterator[tuple[Sample, Encoded]]


def encode_texts(
    tokenizer: Any, samples: Sequence[Sample], spans: bool = False, target: bool = False
) -> list[Encoded]:
    """The tokens of each sample's text, nothing padded or cut.

    With ``spans`` also where in the text each token is from. With ``target`` the texts are a
    decoder's, which some tokenizers encode in another way.

    Raises:
        UsageError: for ``spans`` of a tokenizer that cannot tell them.
        DataError: naming the sample that the tokenizer cannot encode.
    """
    if spans and not has_spans(tokenizer):
        raise needs_offsets()

    def encode(some: Sequence[Sample]) -> list[Encoded]:
        return _encode(tokenizer, [sample.text for sample in some], spans, target)

    return all_or_each(encode, samples)


def all_or_each(
    encode: Callable[[Sequence[Sample]], list[Encoded]], samples: Sequence[Sample]
) -> list[Encoded]:
    """What ``encode`` makes of the samples, one by one where it fails on all at once.

    Raises:
        DataError: naming the sample that it fails on.
    """
    try:
        return encode(samples)
    except BaseException as error:
        if not _refuses(error):
            raise
        return [_encode_one(encode, sample) for sample in samples]


def has_spans(tokenizer: Any) -> bool:
    """Whether a tokenizer says where in the text each token is from: only the fast ones do."""
    return bool(getattr(tokenizer, "is_fast", False))


def needs_offsets() -> UsageError:
    """The error for a tokenizer that does not say where in a text its tokens are from."""
    return UsageError(
        Diagnostic(
            "needs-offsets",
            "this tokenizer does not say where in the text its tokens are from",
            help="give a fast one, with a `tokenizer.json`",
        )
    )


def ends(row: Encoded) -> tuple[int, int]:
    """How many special tokens lead and trail a row that has at least one other token.

    In a chat only those count that nobody says: headers stand in the middle of it too.
    """
    added = row.special if row.roles is None else row.special & (row.roles == "")
    return int(np.argmin(added)), int(np.argmin(added[::-1]))


def _encode_one(encode: Callable[[Sequence[Sample]], list[Encoded]], sample: Sample) -> Encoded:
    try:
        return encode([sample])[0]
    except BaseException as error:
        if not _refuses(error):
            raise
        why = (str(error).strip() or type(error).__name__).split("\n")[0]
        raise DataError(
            Diagnostic(
                "cannot-tokenise",
                f"{sample.describe()} cannot be tokenised: {_surrogate(sample.text) or why}",
            )
        ) from None


def _refuses(error: BaseException) -> bool:
    """Whether an error is about the text: a tokenizer in Rust may also panic, no `Exception`."""
    return isinstance(error, Exception) or type(error).__name__ == "PanicException"


def _surrogate(text: str) -> str | None:
    """What is wrong with a text that no tokenizer takes, though JSON can spell it."""
    at = next((i for i, c in enumerate(text) if "\ud800" <= c <= "\udfff"), None)
    return None if at is None else f"its character {at} is a lone surrogate, not a character"


def _encode(tokenizer: Any, texts: list[str], spans: bool, target: bool) -> list[Encoded]:
    output = _call(
        tokenizer,
        texts,
        target,
        add_special_tokens=True,
        return_special_tokens_mask=True,
        return_token_type_ids=False,
        **({"return_offsets_mapping": True} if spans else {}),
    )
    ids = [np.asarray(row, dtype=np.int64) for row in output["input_ids"]]
    masks = _special(tokenizer, texts, target, output, ids)
    if not spans:
        return [Encoded(row, mask) for row, mask in zip(ids, masks, strict=True)]
    found = [_spans(row, mask) for row, mask in zip(output["offset_mapping"], masks, strict=True)]
    return [Encoded(*row) for row in zip(ids, masks, found, strict=True)]


def _call(tokenizer: Any, texts: list[str], target: bool, **options: Any) -> Any:
    options = {**options, "return_attention_mask": False, **_OPTIONS}
    return tokenizer(text_target=texts, **options) if target else tokenizer(texts, **options)


def _spans(pairs: Any, special: npt.NDArray[np.bool_]) -> npt.NDArray[np.int32]:
    spans = np.asarray(pairs, dtype=np.int32).reshape(-1, 2)
    spans[special] = -1
    return spans


def _special(
    tokenizer: Any,
    texts: list[str],
    target: bool,
    output: Any,
    ids: list[npt.NDArray[np.int64]],
) -> list[npt.NDArray[np.bool_]]:
    """Which tokens of each row the tokenizer added."""
    if "special_tokens_mask" in output:
        masks = [np.asarray(row, dtype=np.bool_) for row in output["special_tokens_mask"]]
        if any(mask.any() for mask in masks) or not _adds_any(tokenizer):
            return masks
    # No mask, or one that shows nothing of what the tokenizer says it adds.
    plain = _call(tokenizer, texts, target, add_special_tokens=False)
    return [
        _added(row, np.asarray(bare, dtype=np.int64), tokenizer)
        for row, bare in zip(ids, plain["input_ids"], strict=True)
    ]


def _adds_any(tokenizer: Any) -> bool:
    count = getattr(tokenizer, "num_special_tokens_to_add", None)
    return bool(count()) if callable(count) else False


def _added(
    row: npt.NDArray[np.int64], bare: npt.NDArray[np.int64], tokenizer: Any
) -> npt.NDArray[np.bool_]:
    """Which tokens of a row stand around its encoding without special tokens."""
    special = np.ones(len(row), np.bool_)
    for start in range(len(row) - len(bare) + 1):
        if np.array_equal(row[start : start + len(bare)], bare):
            special[start : start + len(bare)] = False
            return special
    # The two encodings differ in the text itself: go by the ids.
    return np.isin(row, np.asarray(getattr(tokenizer, "all_special_ids", []), dtype=np.int64))
