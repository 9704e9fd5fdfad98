"""The decoder's text of each sample, from a column of the data."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from attrs import evolve

from hookql.data.jsonl import kind
from hookql.data.samples import Field, Sample
from hookql.data.tokens import Encoded, encode_texts
from hookql.errors import DataError, Diagnostic, UsageError


def target_sample(sample: Sample, column: str) -> Sample:
    """The sample with the decoder's text as its text.

    Raises:
        DataError: where the column has no text at that sample.
    """
    value = sample.row.get(column)
    if isinstance(value, str) and (value or not isinstance(value, Field)):
        return evolve(sample, text=str(value))
    absent = value is None or isinstance(value, Field)
    said = "has no" if absent else f"has {kind(value)} as"
    raise DataError(
        Diagnostic(
            "no-target",
            f"{sample.describe()} {said} text for the decoder in column `{column}`",
        )
    )


def encode_targets(
    tokenizer: Any, samples: Sequence[Sample], start: int, spans: bool = False
) -> list[Encoded]:
    """What is fed to a decoder that is to write each sample's text.

    As in training: the token ``start`` (special), then the text as the tokenizer encodes targets,
    less the end token that the last step would predict.
    """
    rows = encode_texts(tokenizer, samples, spans, target=True)
    return [_fed(row, start, getattr(tokenizer, "eos_token_id", None)) for row in rows]


def _fed(row: Encoded, start: int, end: int | None) -> Encoded:
    if len(row.ids) and row.special[-1] and row.ids[-1] == end:
        row = row.cut(slice(-1))
    nowhere = np.full((1, 2), -1, np.int32)
    return Encoded(
        np.concatenate([[start], row.ids]).astype(np.int64),
        np.concatenate([[True], row.special]).astype(np.bool_),
        None if row.spans is None else np.concatenate([nowhere, row.spans]),
    )


def packed_target() -> UsageError:
    """The error for packing samples that have a text for the decoder."""
    return UsageError(
        Diagnostic(
            "target-cut",
            "samples with a text for the decoder cannot be packed",
            help="choose --overflow truncate",
        )
    )


def split_target(sample: Sample, length: int, most: int) -> DataError:
    """The error for splitting a sample that has a text for the decoder."""
    return DataError(
        Diagnostic(
            "target-cut",
            f"{sample.describe()} has {length} tokens, more than the limit of {most}, and cannot "
            "be split: the text for the decoder belongs to all of it",
            help="choose --overflow truncate",
        )
    )
