"""The corpus of the demo model: the King James Bible, split into chapters and paragraphs."""

from __future__ import annotations

import random
import re
from pathlib import Path

from attrs import frozen

VERSE = re.compile(r"([1-3]?[A-Za-z]+\d+):\d+ (.+)")
HELD_OUT = 10  # chapters 10, 30, 50, … (counted from 0, over the whole Bible) are never trained on
DEVELOPMENT = 0  # chapters 0, 20, 40, … choose the n-gram models' smoothing, and are trained on
EVERY = 20
LONGEST_PARAGRAPH = 5  # verses
LINES = 90  # held-out paragraphs in the embedded text file
LINE_WORDS = range(5, 151)

# Every-day English, so that the demo's text is not all of one voice. None of it was trained on.
MODERN = (
    "The train to the coast leaves at nine, and we are late again.",
    "She opened the window, looked at the rain for a while, and decided to stay at home.",
    "Most of what a program does is move numbers from one place to another.",
    "My brother keeps bees; he says that they are better company than the people in his office.",
    "Please send the report before Friday. If a figure is missing, leave its cell empty, say why.",
    "Nobody had told the children that the shop would be closed, so they stood at the door with "
    "their coins in their hands and waited until it was dark.",
    "A good map leaves almost everything out.",
    "When the lights went off in the street, the old man lit a candle, sat down by the fire, and "
    "told the story of the great storm for the third time that week.",
    "Water boils at a lower temperature in the mountains.",
    "Thank you, I have already eaten.",
)


@frozen
class Corpus:
    """Chapters as texts; paragraphs of the held-out chapters, one text each."""

    train: tuple[str, ...]
    development: tuple[str, ...]
    held_out: tuple[str, ...]
    held_out_paragraphs: tuple[str, ...]


def read_corpus(path: Path, seed: int) -> Corpus:
    """Read `BOOKchapter:verse text` lines into chapters of paragraphs.

    A chapter is a document. Its verses are joined by spaces into paragraphs of 1 to 5 verses
    (drawn with `seed`), its paragraphs by newlines. `development` is a part of `train`.
    """
    chapters: dict[str, list[str]] = {}
    for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1):
        match = VERSE.fullmatch(line.strip())
        if match is None:
            raise SystemExit(f"{path}:{number}: expected `Book1:1 text`, found {line[:60]!r}")
        chapters.setdefault(match[1], []).append(" ".join(match[2].split()))
    draw = random.Random(seed)
    paragraphs = [_paragraphs(verses, draw) for verses in chapters.values()]
    texts = ["\n".join(chapter) for chapter in paragraphs]
    return Corpus(
        train=tuple(text for i, text in enumerate(texts) if i % EVERY != HELD_OUT),
        development=tuple(texts[DEVELOPMENT::EVERY]),
        held_out=tuple(texts[HELD_OUT::EVERY]),
        held_out_paragraphs=tuple(
            paragraph for chapter in paragraphs[HELD_OUT::EVERY] for paragraph in chapter
        ),
    )


def _paragraphs(verses: list[str], draw: random.Random) -> list[str]:
    """Join verses into paragraphs of a drawn number of verses."""
    paragraphs = []
    rest = verses
    while rest:
        size = draw.randint(1, LONGEST_PARAGRAPH)
        paragraphs.append(" ".join(rest[:size]))
        rest = rest[size:]
    return paragraphs


def held_out_lines(corpus: Corpus, seed: int) -> list[str]:
    """Return the held-out paragraphs of the embedded text file, drawn with `seed`, in order."""
    paragraphs = [p for p in corpus.held_out_paragraphs if len(p.split()) in LINE_WORDS]
    chosen = random.Random(seed).sample(range(len(paragraphs)), LINES)
    return [paragraphs[i] for i in sorted(chosen)]
