"""Chats to tokens: each sample's messages rendered, and who says each token."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from hookql.data.samples import Sample
from hookql.data.speakers import roles_of
from hookql.data.templates import special_ids
from hookql.data.tokens import Encoded, all_or_each, has_spans, needs_offsets


def encode_chats(tokenizer: Any, samples: Sequence[Sample]) -> list[Encoded]:
    """The tokens of each chat's text, who says them, and where in the text they are from.

    The template has written the special tokens, so none are added; those ids are special that the
    tokenizer calls so, in whatever message they stand.

    Raises:
        UsageError: for a tokenizer that does not say where its tokens are from.
        DataError: naming the sample that it cannot encode.
    """
    if not has_spans(tokenizer):
        raise needs_offsets()
    special = special_ids(tokenizer)

    def encode(some: Sequence[Sample]) -> list[Encoded]:
        output = tokenizer(
            [sample.text for sample in some],
            add_special_tokens=False,
            padding=False,
            truncation=False,
            return_attention_mask=False,
            return_token_type_ids=False,
            return_offsets_mapping=True,
            verbose=False,
        )
        rows = []
        for sample, row, pairs in zip(
            some, output["input_ids"], output["offset_mapping"], strict=True
        ):
            ids = np.asarray(row, np.int64)
            spans = np.asarray(pairs, np.int32).reshape(-1, 2)
            rows.append(Encoded(ids, np.isin(ids, special), spans, roles_of(sample, spans)))
        return rows

    return all_or_each(encode, samples)
