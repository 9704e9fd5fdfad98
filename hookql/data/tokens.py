"""One batch call to a tokenizer, whatever its kind: ids, and which of them it added."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt
from attrs import frozen

from hookql.data.samples import Sample
from hookql.errors import DataError, Diagnostic

_OPTIONS = {"padding": False, "truncation": False, "verbose": False}


@frozen(eq=False)
class Encoded:
    """A text's token ids, int64 (L,), and which of them the tokenizer added, bool (L,)."""

    ids: npt.NDArray[np.int64]
    special: npt.NDArray[np.bool_]


Rows: TypeAlias = Iterator[tuple[Sample, Encoded]]


def encode_texts(tokenizer: Any, samples: Sequence[Sample]) -> list[Encoded]:
    """The tokens of each sample's text, nothing padded or cut.

    Raises:
        DataError: naming the sample that the tokenizer cannot encode.
    """
    try:
        return _encode(tokenizer, [sample.text for sample in samples])
    except Exception:
        return [_encode_one(tokenizer, sample) for sample in samples]


def ends(special: npt.NDArray[np.bool_]) -> tuple[int, int]:
    """How many special tokens lead and trail a row that has at least one other token."""
    return int(np.argmin(special)), int(np.argmin(special[::-1]))


def _encode_one(tokenizer: Any, sample: Sample) -> Encoded:
    try:
        return _encode(tokenizer, [sample.text])[0]
    except Exception as error:
        why = (str(error).strip() or type(error).__name__).split("\n")[0]
        raise DataError(
            Diagnostic(
                "cannot-tokenise",
                f"{sample.describe()} cannot be tokenised: {_surrogate(sample.text) or why}",
            )
        ) from None


def _surrogate(text: str) -> str | None:
    """What is wrong with a text that no tokenizer takes, though JSON can spell it."""
    at = next((i for i, c in enumerate(text) if "\ud800" <= c <= "\udfff"), None)
    return None if at is None else f"its character {at} is a lone surrogate, not a character"


def _encode(tokenizer: Any, texts: list[str]) -> list[Encoded]:
    output = tokenizer(
        texts,
        add_special_tokens=True,
        return_special_tokens_mask=True,
        return_attention_mask=False,
        return_token_type_ids=False,
        **_OPTIONS,
    )
    ids = [np.asarray(row, dtype=np.int64) for row in output["input_ids"]]
    if "special_tokens_mask" in output:
        masks = [np.asarray(row, dtype=np.bool_) for row in output["special_tokens_mask"]]
        if any(mask.any() for mask in masks) or not _adds_any(tokenizer):
            return [Encoded(i, m) for i, m in zip(ids, masks, strict=True)]
    # No mask, or one that shows nothing of what the tokenizer says it adds.
    plain = tokenizer(texts, add_special_tokens=False, return_attention_mask=False, **_OPTIONS)
    return [
        Encoded(row, _added(row, np.asarray(bare, dtype=np.int64), tokenizer))
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
