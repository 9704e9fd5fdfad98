"""The bare models, one text at a time: rows of every site and columns of every token, float64.

No code of HookQL's. A text is alone, so there is no padding; everything is kept whole, in NumPy.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from attrs import field, frozen

Array = np.ndarray[Any, Any]
NAN = float("nan")

SAMPLES: list[dict[str, Any]] = [
    {"text": "The Eiffel Tower stands in Paris.", "label": "place", "w": 1.5, "flag": True},
    {"text": "Hello", "label": "other", "w": -2.0, "flag": False},
    {
        "text": "New York is a big city, and New York never sleeps.",
        "label": "place",
        "w": 0.25,
        "flag": True,
    },
    {"text": "In 1969, two people walked on the Moon.", "label": "fact", "w": 3.0, "flag": False},
    {"text": "the the the the the", "label": "other", "w": 1.5, "flag": False},
    {"text": "Water boils at one hundred degrees.", "label": "fact", "w": 0.25, "flag": True},
    {
        "text": "She said that the cat, which was black, sat on the mat and looked at the dog.",
        "label": "other",
        "w": 7.0,
        "flag": True,
    },
    {"text": "To be, or not to be?", "label": "other", "w": -2.0, "flag": False},
    {"text": "Berlin and Paris", "label": "place", "w": 3.0, "flag": True},
    {"text": "One two three four five six seven.", "label": "fact", "w": 1.5, "flag": False},
]
TEXTS = [sample["text"] for sample in SAMPLES]


@frozen(eq=False)
class Piece:
    """One row that enters the model: ids, what the tokenizer added, and where it lies."""

    ids: list[int]
    special: list[bool]
    sample: int
    spans: list[tuple[int, int]]
    chunk: int = 0
    offset: int = 0


@frozen(eq=False)
class Told:
    """All tokens of all texts one below the other: ``rows[site]`` (N, ...), ``[column]`` (N,)."""

    rows: Mapping[str, Array]
    columns: Mapping[str, Array]
    spans: Array
    patterns: Sequence[Mapping[str, Array]] = field(factory=list)
    tokenizer: Any = None

    def __getitem__(self, column: str) -> Array:
        return self.columns[column]

    def text(self, keep: Array) -> list[str]:
        """The text of the tokens kept."""
        return [self.tokenizer.decode([int(i)]) for i in self["token"][keep]]


def pieces_of(tokenizer: Any, max_length: int | None = None) -> list[Piece]:
    """The texts as rows of ids, cut into pieces of at most ``max_length`` with their specials."""
    pieces = []
    for number, text in enumerate(TEXTS):
        row = tokenizer(text, return_offsets_mapping=True, return_special_tokens_mask=True)
        ids, spans = row["input_ids"], row["offset_mapping"]
        special = [bool(s) for s in row["special_tokens_mask"]]
        content = [i for i, s in enumerate(special) if not s]
        head = list(range(content[0]))
        tail = list(range(content[-1] + 1, len(ids)))
        room = len(content) if max_length is None else max_length - len(head) - len(tail)
        if len(ids) <= (max_length or len(ids)):
            room = len(content)
        for chunk, start in enumerate(range(0, len(content), room)):
            take = [*head, *content[start : start + room], *tail]
            pieces.append(
                Piece(
                    [ids[i] for i in take],
                    [special[i] for i in take],
                    number,
                    [spans[i] for i in take],
                    chunk,
                    start,
                )
            )
    return pieces


def tell(
    module: torch.nn.Module,
    tokenizer: Any,
    sites: Sequence[str],
    *,
    max_length: int | None = None,
    head: bool = False,
    patterns: Sequence[int] = (),
) -> Told:
    """Run every piece alone. A site is ``module:input`` or ``module:output``; "" the model itself.

    ``head`` asks for the signals of the prediction, ``patterns`` for the attention weights of those
    layers (H, S, S), a piece at a time.
    """
    rows: dict[str, list[Array]] = {site: [] for site in sites}
    columns: dict[str, list[Array]] = {}
    weights: list[Mapping[str, Array]] = []
    handles = [_keep(module, site, rows[site]) for site in sites]
    pieces = pieces_of(tokenizer, max_length)
    for piece in pieces:
        with torch.no_grad():
            out = module(
                input_ids=torch.tensor([piece.ids]),
                attention_mask=torch.ones(1, len(piece.ids), dtype=torch.long),
                **({"output_attentions": True} if patterns else {}),
            )
        found = _columns(piece)
        if head:
            found |= signals_of(out.logits[0].double().numpy(), piece.ids)
        for name, values in found.items():
            columns.setdefault(name, []).append(values)
        weights.append({str(i): out.attentions[i][0].double().numpy() for i in patterns})
    for handle in handles:
        handle.remove()
    return Told(
        {site: np.concatenate(parts) for site, parts in rows.items()},
        {name: np.concatenate(parts) for name, parts in columns.items()},
        np.concatenate([np.array(piece.spans) for piece in pieces]),
        weights,
        tokenizer,
    )


def signals_of(logits: Array, ids: Sequence[int]) -> dict[str, Array]:
    """Surprisal, loss, prob, rank and entropy by log-softmax in float64, NaN where undefined."""
    shifted = logits - logits.max(-1, keepdims=True)
    logs = shifted - np.log(np.exp(shifted).sum(-1, keepdims=True))
    size, following = len(ids), np.array(ids[1:], dtype=int)
    at = (np.arange(size - 1), following)
    loss, rank = np.full(size, NAN), np.full(size, NAN)
    loss[:-1] = -logs[at]
    rank[:-1] = (logits[:-1] > logits[at][:, None]).sum(-1)
    # How far the nearest other logit is: where that is tiny, the rank may differ by rounding.
    others = np.abs(logits[:-1] - logits[at][:, None])
    others[at] = np.inf
    return {
        "loss": loss,
        "surprisal": np.concatenate([[NAN], loss[:-1]]),
        "prob": np.exp(-loss),
        "rank": rank,
        "rank_apart": np.concatenate([others.min(-1), [NAN]]),
        "entropy": -(np.exp(logs) * logs).sum(-1),
        "guess": logits.argmax(-1).astype(float),
    }


def _columns(piece: Piece) -> dict[str, Array]:
    size, ids = len(piece.ids), np.array(piece.ids, dtype=float)
    special = np.array(piece.special)
    content = np.where(special, NAN, np.cumsum(~special) - 1.0)
    columns = {
        "token": ids,
        "prev": np.concatenate([[NAN], ids[:-1]]),
        "next": np.concatenate([ids[1:], [NAN]]),
        "position": np.arange(size, dtype=float),
        "content_position": content,
        "content_length": np.full(size, float((~special).sum())),
        "length": np.full(size, float(size)),
        "special": special,
        "sample": np.full(size, float(piece.sample)),
        "chunk": np.full(size, float(piece.chunk)),
        "offset": np.full(size, float(piece.offset)),
    }
    for name in ("label", "w", "flag"):
        columns[f"row.{name}"] = np.full(size, SAMPLES[piece.sample][name])
    return columns


def _keep(module: torch.nn.Module, site: str, into: list[Array]) -> Any:
    """A hook that keeps a site's tensor of a run of one piece, without its batch axis."""
    path, port = site.split(":")
    owner = module.get_submodule(path)

    def keep(value: Any) -> None:
        if not isinstance(value, torch.Tensor):
            value = value.logits if hasattr(value, "logits") else value[0]
        into.append(value[0].double().numpy())

    if port == "input":

        def before(_: Any, args: Any, kwargs: Any) -> None:
            keep(args[0] if args else kwargs["hidden_states"])

        return owner.register_forward_pre_hook(before, with_kwargs=True)
    return owner.register_forward_hook(lambda _, __, output: keep(output))
