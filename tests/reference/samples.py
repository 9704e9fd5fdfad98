"""Samples to contexts, and the columns of their tokens: each sample alone, no padding."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from attrs import frozen


@frozen(eq=False)
class Context:
    """What the model reads at once: a sample, or a piece of one that is too long."""

    sample: int
    chunk: int
    offset: int
    ids: tuple[int, ...]
    special: tuple[bool, ...]
    spans: tuple[tuple[int, int] | None, ...]
    """(start, stop) of each token in the sample's text; None of those that the tokenizer added."""
    text: str
    row: Mapping[str, Any]

    def __len__(self) -> int:
        return len(self.ids)

    def content_position(self, at: int) -> int | None:
        """The place among the tokens that are not special; None at a special one."""
        return None if self.special[at] else sum(not s for s in self.special[:at])

    def content_length(self) -> int:
        return sum(not s for s in self.special)


def contexts(
    tokenizer: Any, rows: Sequence[Mapping[str, Any]], max_length: int, overflow: str
) -> list[Context]:
    """The contexts of all samples, in order; an empty sample has none."""
    made = []
    for sample, row in enumerate(rows):
        text = row["text"]
        encoded = tokenizer(
            text, return_offsets_mapping=True, return_special_tokens_mask=True, verbose=False
        )
        added = _added(tokenizer, text)
        ids, spans = encoded["input_ids"], encoded["offset_mapping"]
        before, after = added
        content = range(before, len(ids) - after)
        room = max_length - before - after
        for chunk, start in enumerate(range(0, len(content), room)):
            if chunk and overflow == "truncate":
                break
            piece = content[start : start + room]
            made.append(
                Context(
                    sample=sample,
                    chunk=chunk,
                    offset=start,
                    ids=(*ids[:before], *(ids[i] for i in piece), *ids[len(ids) - after :]),
                    special=(True,) * before + (False,) * len(piece) + (True,) * after,
                    spans=((None,) * before + tuple(spans[i] for i in piece) + (None,) * after),
                    text=text,
                    row=row,
                )
            )
    return made


def _added(tokenizer: Any, text: str) -> tuple[int, int]:
    """How many special tokens the tokenizer puts before and behind a text."""
    bare = len(tokenizer(text, add_special_tokens=False, verbose=False)["input_ids"])
    whole = len(tokenizer(text, verbose=False)["input_ids"])
    # The tokenizers of these tests wrap a text in one token on either side, or in none.
    return {0: (0, 0), 2: (1, 1)}[whole - bare]
