"""Texts for the comparison: English words of the demo's text, cut to lengths, the same each time.

Lengths are in tokens of the model's own tokenizer: a text is a run of words from a random place of
the text, as many as its tokens allow.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from hookql.demo import text_path

SIZES = {"plain": 128, "rare": 5_000, "positions": 64, "header": 64}
QUICK = {"plain": 12, "rare": 200, "positions": 2, "header": 4}
RARE = "Paris"
"""A word that the texts do not have; one text in a hundred gets it."""
HEADER, BODY = 200, 20


def corpora(tokenizer: Any, sizes: Mapping[str, int]) -> dict[str, Any]:
    """The texts of every task by corpus, and the rare word with its token's id.

    `plain`: lengths log-normal between 8 and 200 tokens, median 36. `rare`: 5 to 20 tokens, every
    hundredth with the rare word. `positions`: 200 tokens each. `header`: 200 shared, 20 of its own.
    """
    # Words of which a tokenizer makes the same tokens wherever they stand: behind a space.
    words = [word for word in text_path().read_text(encoding="utf-8").split() if word.isalpha()]
    tokens = {word: len(tokenizer(f" {word}").input_ids) for word in set(words)}
    rng = np.random.default_rng(0)

    def text(length: int, exact: bool = False) -> str:
        """Words worth `length` tokens: at most so many, or exactly."""
        start, left, chosen = int(rng.integers(len(words))), length, ""
        for offset in range(len(words)):
            word = words[(start + offset) % len(words)]
            if tokens[word] <= left:
                chosen += f" {word}"
                left -= tokens[word]
            elif chosen and not exact:
                break
            if not left:
                break
        return chosen

    plain = np.clip(rng.lognormal(np.log(36), 0.8, sizes["plain"]), 8, 200).astype(int)
    rare = [text(int(length)) for length in rng.integers(5, 20, sizes["rare"])]
    for number in range(0, len(rare), 100):
        rare[number] += f" {RARE}{text(4)}"
    header = text(HEADER, exact=True)
    if len(tokenizer(f" {RARE}").input_ids) != 1:
        raise ValueError(f"{RARE!r} is not one token")
    return {
        "plain": [text(int(length)) for length in plain],
        "rare": rare,
        "positions": [text(HEADER, exact=True) for _ in range(sizes["positions"])],
        "header": [header + text(BODY, exact=True) for _ in range(sizes["header"])],
        "word": f" {RARE}",
        "word_id": tokenizer(f" {RARE}").input_ids[0],
    }
