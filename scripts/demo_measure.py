"""Held-out losses of the demo model and of n-gram models on the same tokens, in nats a token."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import pairwise

import numpy as np
import torch
from attrs import frozen
from numpy.typing import NDArray
from transformers import PreTrainedModel

Documents = Sequence[Sequence[int]]
Counts = NDArray[np.float64]  # (token, next token)
Probabilities = NDArray[np.float64]  # (token, next token) or (next token,)


@frozen
class Smoothing:
    """A way to turn counts into next-token probabilities, and the number it depends on."""

    name: str
    apply: Callable[[Counts, float], Probabilities]
    choices: tuple[float, ...]


@frozen
class Losses:
    """Mean losses in nats a token; every token but each document's first is predicted once."""

    tokens: int
    model: float
    bigram: float
    unigram: float


def model_losses(model: PreTrainedModel, ids: Sequence[int], context: int) -> torch.Tensor:
    """Return float64[len(ids) - 1], the loss of each token but the first.

    Windows of `context` tokens slide by half of it, and each scores only the tokens that the one
    before did not: a token sees at least half a context where the document has it.
    """
    parts, start, scored = [], 0, 1
    while scored < len(ids):
        end = min(start + context, len(ids) - 1)
        window = torch.tensor([ids[start : end + 1]])
        with torch.inference_mode():
            logits = model(input_ids=window[:, :-1]).logits[0].double()
        loss = torch.nn.functional.cross_entropy(logits, window[0, 1:], reduction="none")
        parts.append(loss[scored - start - 1 :])
        start, scored = start + context // 2, end + 1
    return torch.cat(parts) if parts else torch.empty(0, dtype=torch.float64)


def count(documents: Documents, vocabulary: int) -> Counts:
    """Count each pair of neighbours."""
    counts = np.zeros((vocabulary, vocabulary))
    for ids in documents:
        np.add.at(counts, (np.asarray(ids[:-1]), np.asarray(ids[1:])), 1)
    return counts


def unigram(counts: Counts, k: float) -> Probabilities:
    """Add `k` to each token's count."""
    total = counts.sum(axis=0) + k
    return np.asarray(total / total.sum())


def add_k(counts: Counts, k: float) -> Probabilities:
    """Add `k` to each pair's count."""
    smooth = counts + k
    return np.asarray(smooth / smooth.sum(axis=1, keepdims=True))


def interpolated(counts: Counts, weight: float) -> Probabilities:
    """Mix the pair's frequency, at `weight`, with the unigram."""
    seen = counts.sum(axis=1, keepdims=True)
    frequency = counts / np.maximum(seen, 1)
    weights = np.where(seen > 0, weight, 0.0)
    return np.asarray(weights * frequency + (1 - weights) * unigram(counts, 0.5))


def kneser_ney(counts: Counts, discount: float) -> Probabilities:
    """Discount each pair; the mass freed goes by how many tokens each token is seen to follow."""
    seen = counts.sum(axis=1, keepdims=True)
    kept = np.maximum(counts - discount, 0)
    lower = (counts > 0).sum(axis=0) + 0.5
    freed = np.where(seen > 0, seen - kept.sum(axis=1, keepdims=True), 1.0)
    return np.asarray((kept + freed * (lower / lower.sum())) / np.maximum(seen, 1))


UNIGRAMS = (Smoothing("add-k", unigram, (0.01, 0.1, 0.5, 1.0, 2.0)),)
BIGRAMS = (
    Smoothing("add-k", add_k, (0.0003, 0.001, 0.003, 0.01, 0.03, 0.1, 0.3, 1.0)),
    Smoothing("interpolation with the unigram", interpolated, tuple(np.arange(0.5, 1, 0.05))),
    Smoothing("interpolated Kneser-Ney", kneser_ney, tuple(np.arange(0.3, 1, 0.05))),
)


def table_loss(table: Probabilities, documents: Documents) -> float:
    """Return the mean loss of the documents' tokens but each one's first."""
    pairs = np.array([pair for ids in documents for pair in pairwise(ids)])
    chosen = table[pairs[:, 1]] if table.ndim == 1 else table[pairs[:, 0], pairs[:, 1]]
    return float(-np.log(chosen).mean())


def best_table(
    smoothings: Sequence[Smoothing], train: Documents, development: Documents, vocabulary: int
) -> tuple[Probabilities, str]:
    """Choose the smoothing that predicts `development` best, then count all of `train` with it.

    `development` is a part of `train`; while choosing, it is not counted.
    """
    everything = count(train, vocabulary)
    rest = everything - count(development, vocabulary)
    tried = [
        (table_loss(smoothing.apply(rest, value), development), i, value)
        for i, smoothing in enumerate(smoothings)
        for value in smoothing.choices
    ]
    _, i, value = min(tried)
    return smoothings[i].apply(everything, value), f"{smoothings[i].name}, {value:.4g}"


def measure(
    model: PreTrainedModel,
    bigrams: Probabilities,
    unigrams: Probabilities,
    documents: Documents,
    context: int,
) -> Losses:
    """Return the three models' losses on the same tokens."""
    losses = torch.cat([model_losses(model, ids, context) for ids in documents])
    return Losses(
        tokens=len(losses),
        model=float(losses.mean()),
        bigram=table_loss(bigrams, documents),
        unigram=table_loss(unigrams, documents),
    )
