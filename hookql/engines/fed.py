"""What a model is fed, call by call: prompts, then what it generates, a token at a time.

Only shapes are looked at while the model runs; which of the tokens are real is worked out at the
end, when all are known.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from attrs import define, field, frozen
from torch import Tensor

from hookql.errors import Diagnostic, ModelError

Ints = npt.NDArray[np.int64]
Bools = npt.NDArray[np.bool_]


@frozen(eq=False)
class Arranged:
    """Tokens without their padding, and where the rows of each lie among those that were held.

    ``ids`` are the tokens of each sequence, int64 (L,); ``prompts`` how many of each were given.
    ``columns`` int64 (B, S) says in which column of what was fed each of the tokens stood, ``flat``
    in which of the held rows it is, -1 where its row is not held; padding has 0 and -1. ``given``
    is how many columns there were.
    """

    ids: tuple[Ints, ...]
    prompts: tuple[int, ...]
    columns: Ints
    flat: Ints
    given: int

    @property
    def fed(self) -> Bools:
        """Whose rows are held, bool (B, S)."""
        return self.flat >= 0


@define(eq=False)
class Stretch:
    """Sequences that are fed together, in several calls.

    ``given`` are the prompts, int64 (B, P), ``mask`` bool (B, P), True where a token is: on either
    side. The first ``start`` columns were fed before. ``ends`` are the ids that end a sequence,
    ``pad`` what stands behind it.
    """

    given: Tensor
    mask: Bools
    start: int = 0
    ends: Collection[int] = ()
    pad: int | None = None
    loop: bool = False  # a loop of the user's own, which may feed several tokens at a time
    widths: list[int] = field(factory=list)  # the columns that each call added
    held_from: int = 0  # the first call whose rows are held
    _ids: list[Tensor] = field(factory=list)
    _masks: dict[int, Tensor] = field(factory=dict)  # of calls, where they are given one

    @property
    def total(self) -> int:
        """How many columns have been fed."""
        return self.start + sum(self.widths)

    @property
    def samples(self) -> int:
        """How many sequences there are."""
        return self.given.shape[0]

    def call(self, ids: Tensor, mask: Tensor | None = None) -> int:
        """A call with ids (B, s), and perhaps a mask that ends in theirs; how many columns are new.

        Without a cache everything is fed again with each token.
        """
        samples, width = ids.shape
        if samples != self.samples:
            message = f"the model is fed {samples} sequences where there were {self.samples}"
            help = "beams and assisted decoding are not followed: generate with num_beams=1"
            raise ModelError(Diagnostic("other-sequences", message, help=help))
        again = bool(self.widths) and width == self.total + 1
        new = 1 if again else width
        left = self.given.shape[1] - self.total
        if not self.loop and new > max(left, 1):
            where = f"the prompts have {left} left" if left > 0 else "one at a time is generated"
            message = f"the model is fed {new} tokens where {where}"
            help = "assisted and custom decoding are not followed: use greedy search or sampling"
            raise ModelError(Diagnostic("other-sequences", message, help=help))
        if self.loop and mask is not None and mask.ndim == 2:
            self._masks[len(self.widths)] = mask[:, mask.shape[1] - new :].detach().clone()
        self.widths.append(new)
        self._ids.append(ids[:, width - new :].detach().clone())
        return new

    def undo(self) -> None:
        """Forget the latest call: it did not come to its end."""
        self.widths.pop()
        self._ids.pop()
        self._masks.pop(len(self.widths), None)

    def arranged(self, output: Tensor | None = None) -> Arranged:
        """What has been fed so far, without padding; rows of the calls from ``held_from`` on.

        ``output`` (B, L) are the whole sequences where they are known. The last token of each is
        no row, whether it was fed beside longer ones or not: alone it would not be.
        """
        fed = [self.given[:, : self.start], *self._ids]
        ids: Ints = torch.cat([part.to(self.given.device) for part in fed], 1).cpu().numpy()
        prompt = min(self.given.shape[1], ids.shape[1])
        real = np.ones(ids.shape, np.bool_)
        real[:, :prompt] = self.mask[:, :prompt]
        for call, mask in self._masks.items():
            column = self.start + sum(self.widths[:call])
            real[:, column : column + self.widths[call]] = mask.cpu().numpy() != 0
        whole = None if output is None else output.cpu().numpy()
        if whole is not None:
            self._check_fed(ids, real, whole)
        lengths = [self._length(row, number, whole) for number, row in enumerate(ids)]
        real &= np.arange(ids.shape[1])[None] < np.array(lengths)[:, None]
        return _without_padding(ids, real, prompt, self._flat(ids.shape))

    def _check_fed(self, ids: Ints, real: Bools, output: Ints) -> None:
        """Raise ModelError unless what was fed is what stands in the sequences."""
        columns = min(ids.shape[1], output.shape[1])
        if ids.shape[1] > output.shape[1] or (ids != output[:, :columns])[real].any():
            message = "the model was fed other tokens, while it generated, than it has written"
            help = "guided decoding, and calls of the model meanwhile, are not followed"
            raise ModelError(Diagnostic("other-sequences", message, help=help))

    def _length(self, row: Ints, number: int, output: Ints | None) -> int:
        """How many columns of a sequence are rows, padding on its left included."""
        prompt, known = self.given.shape[1], row
        if output is not None:
            known = output[number]
        generated = known[prompt:]
        ended = np.flatnonzero(np.isin(generated, list(self.ends)))
        if len(ended):
            return min(len(row), prompt + int(ended[0]))
        length = len(known)
        if output is None:
            return len(row)
        while self.pad is not None and length > prompt and known[length - 1] == self.pad:
            length -= 1
        return min(len(row), max(prompt, length - 1))

    def _flat(self, shape: Sequence[int]) -> Ints:
        """In which of the held rows each column's is, (B, T); the calls lie behind one another."""
        flat = np.full(shape, -1, np.int64)
        column, base = self.start + sum(self.widths[: self.held_from]), 0
        for width in self.widths[self.held_from :]:
            rows = np.arange(shape[0] * width, dtype=np.int64).reshape(shape[0], width)
            flat[:, column : column + width] = base + rows
            column, base = column + width, base + rows.size
        return flat


def arrange(ids: Ints, mask: Bools) -> Arranged:
    """One call of its own: ids and mask (B, S), padded on either side or with holes."""
    return _without_padding(ids, mask, ids.shape[1], np.arange(ids.size).reshape(ids.shape))


def _without_padding(ids: Ints, real: Bools, prompt: int, flat: Ints) -> Arranged:
    longest = max(1, int(real.sum(1).max(initial=0)))
    columns = np.zeros((len(ids), longest), np.int64)
    rows = np.full((len(ids), longest), -1, np.int64)
    tokens, prompts = [], []
    for number, mask in enumerate(real):
        places = np.flatnonzero(mask)
        tokens.append(ids[number, places].astype(np.int64))
        prompts.append(int(np.count_nonzero(places < prompt)))
        columns[number, : len(places)] = places
        rows[number, : len(places)] = flat[number, places]
    return Arranged(tuple(tokens), tuple(prompts), columns, rows, real.shape[1])


def past_length(arguments: Any) -> int | None:
    """How many tokens lie in the cache that a call is given; None where a cache does not say."""
    found = 0
    for name in ("past_key_values", "past_key_value", "cache_params", "state"):
        cache = arguments.get(name)
        if cache is None:
            continue
        if hasattr(cache, "get_seq_length"):
            try:
                found = max(found, int(cache.get_seq_length()))
            except (ValueError, NotImplementedError):  # a state, which does not say
                return None
        elif isinstance(cache, tuple | list) and cache and isinstance(cache[0], tuple | list):
            found = max(found, int(cache[0][0].shape[-2]))
        else:
            return None
    return found
