"""The tasks: what is asked, of which texts, and of which of HookQL's rules they are the test."""

from __future__ import annotations

from attrs import frozen


@frozen
class Task:
    """One row of the comparison."""

    title: str
    corpus: str


TASKS = {
    "card": Task("mean, std of attention, layers 0 to 5", "plain"),
    "everything": Task("mean, std of all blocks, attention and MLP", "plain"),
    "raw": Task("raw residual stream of the middle layer, to disk", "plain"),
    "top": Task("top 10 tokens of 3,072 neurons", "plain"),
    "two": Task("mean, std of the first two layers", "plain"),
    "rare": Task("one rare word, in 1 of 100 texts", "rare"),
    "positions": Task("first 8 positions of 200-token texts", "positions"),
    "header": Task("20-token bodies behind a shared 200-token header", "header"),
    "again": Task("the first query a second time", "plain"),
}
