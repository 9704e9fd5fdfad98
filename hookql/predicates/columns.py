"""The columns a predicate can ask of a token: one small registered function each."""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal, TypeAlias

import numpy as np
import numpy.typing as npt
from attrs import frozen

from hookql.data.batches import Batch
from hookql.data.encode import ROLE
from hookql.language.pieces import Known, Piece
from hookql.predicates.offered import guarded
from hookql.predicates.values import Values, everywhere

Kind: TypeAlias = Literal["id", "number", "bool", "word"]
Read: TypeAlias = Callable[[Batch], Values]
Extent: TypeAlias = Callable[[Batch], npt.NDArray[np.int64]]


@frozen
class TokenColumn:
    """A column: its name, what its values are (a ``word`` is text), how a batch says them.

    ``extent`` (B, 1) is what ``last`` and negative numbers count from the end of, where they may.
    A ``signal`` is there only once the model has run.
    """

    name: str
    kind: Kind
    read: Read
    extent: Extent | None = None
    signal: bool = False


def _offered(piece: Piece) -> TokenColumn:
    """A column that somebody offers."""
    kind: Kind = "bool" if piece.value.kind == "truth" else piece.value.kind
    return TokenColumn(piece.name, kind, guarded(piece))


COLUMNS: Known[TokenColumn] = Known("column", _offered)


def column(
    kind: Kind, extent: Extent | None = None, signal: bool = False
) -> Callable[[Read], Read]:
    """Register the function below as the column of its name."""

    def register(read: Read) -> Read:
        COLUMNS.own[read.__name__] = TokenColumn(read.__name__, kind, read, extent, signal)
        return read

    return register


def context_length(batch: Batch) -> npt.NDArray[np.int64]:
    """Tokens in each context, int64 (B, 1)."""
    return _count(batch.mask)


def content_length(batch: Batch) -> npt.NDArray[np.int64]:
    """Tokens in each context that are not special, int64 (B, 1)."""
    return _count(batch.mask & ~batch.special)


def _count(flags: npt.NDArray[np.bool_]) -> npt.NDArray[np.int64]:
    counts: npt.NDArray[np.int64] = flags.sum(axis=1, keepdims=True, dtype=np.int64)
    return counts


@column("id")
def token(batch: Batch) -> Values:
    """The token's id."""
    return everywhere(batch.ids)


@column("bool")
def special(batch: Batch) -> Values:
    """Whether the tokenizer added the token."""
    return everywhere(batch.special)


@column("number", extent=context_length)
def position(batch: Batch) -> Values:
    """Where the token stands in its context, from 0."""
    return everywhere(np.arange(batch.ids.shape[1], dtype=np.int64)[np.newaxis])


@column("number", extent=content_length)
def content_position(batch: Batch) -> Values:
    """Where the token stands among the context's tokens that are not special (there undefined)."""
    content = batch.mask & ~batch.special
    return Values(np.cumsum(content, axis=1, dtype=np.int64) - 1, content)


@column("number")
def length(batch: Batch) -> Values:
    """The number of tokens in the context."""
    return everywhere(context_length(batch))


@column("number")
def sample(batch: Batch) -> Values:
    """The index of the token's sample in the data."""
    return everywhere(batch.sample)


@column("id")
def prev(batch: Batch) -> Values:
    """The id of the token before it in the context; undefined at the first."""
    ids, defined = np.zeros_like(batch.ids), np.zeros_like(batch.mask)
    ids[:, 1:] = batch.ids[:, :-1]
    defined[:, 1:] = batch.mask[:, 1:]
    return Values(ids, defined)


@column("id")
def next(batch: Batch) -> Values:
    """The id of the token after it in the context; undefined at the last."""
    ids, defined = np.zeros_like(batch.ids), np.zeros_like(batch.mask)
    ids[:, :-1] = batch.ids[:, 1:]
    defined[:, :-1] = batch.mask[:, 1:]
    return Values(ids, defined)


@column("number")
def chunk(batch: Batch) -> Values:
    """The number of the token's context among those of its sample, from 0."""
    return everywhere(batch.chunk)


@column("number")
def offset(batch: Batch) -> Values:
    """How many tokens of the token's sample, special ones aside, lie in earlier contexts."""
    return everywhere(batch.offset)


@column("word")
def phase(batch: Batch) -> Values:
    """Whether the token was given (``prompt``) or the model generated it (``generated``)."""
    words = np.array(["prompt", "generated"], ROLE)
    return everywhere(words[(batch.generated >= 0).astype(np.int64)])


@column("number")
def step(batch: Batch) -> Values:
    """The number of the token among those that the model generated; undefined in the prompt."""
    return Values(batch.generated, batch.generated >= 0)


@column("word")
def role(batch: Batch) -> Values:
    """Who says the token in a chat; undefined where nobody does."""
    said = batch.role
    if said is None:
        said = np.zeros(batch.ids.shape, ROLE)
    return Values(said, said != "")


# --- of the model's own prediction; logarithms are natural --------------------------------------


@column("number", signal=True)
def surprisal(batch: Batch) -> Values:
    """-log p of the token given those before it in the context; undefined at the first."""
    return batch.signals["surprisal"]


@column("number", signal=True)
def loss(batch: Batch) -> Values:
    """-log p of the next token; undefined at the last."""
    return batch.signals["loss"]


@column("number", signal=True)
def prob(batch: Batch) -> Values:
    """The probability of the next token; undefined at the last."""
    return batch.signals["prob"]


@column("number", signal=True)
def rank(batch: Batch) -> Values:
    """How many tokens the model holds likelier than the next one; undefined at the last."""
    return batch.signals["rank"]


@column("number", signal=True)
def entropy(batch: Batch) -> Values:
    """The entropy of the distribution of the next token."""
    return batch.signals["entropy"]


# --- random(rate, seed) -------------------------------------------------------------------------

_GOLDEN = 0x9E3779B97F4A7C15


def random(batch: Batch, rate: float, seed: int) -> Values:
    """True for a fraction ``rate`` of the tokens, by hash of (seed, sample, chunk, position).

    The same tokens whatever the batches, the order or the machine.
    """
    place = np.arange(batch.ids.shape[1], dtype=np.int64)[np.newaxis]
    state = _mix(np.full((1, 1), seed % 2**64, np.uint64))
    for part in (batch.sample, batch.chunk, place):
        state = _mix(state ^ part.astype(np.uint64))
    # The upper 53 bits, as the fraction of a double.
    uniform = (state >> np.uint64(11)).astype(np.float64) * 2.0**-53
    return everywhere(uniform < rate)


def _mix(x: npt.NDArray[np.uint64]) -> npt.NDArray[np.uint64]:
    """One step of splitmix64 (Steele, Lea and Flood 2014); arithmetic modulo 2**64."""
    x = x + np.uint64(_GOLDEN)
    x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return x ^ (x >> np.uint64(31))
