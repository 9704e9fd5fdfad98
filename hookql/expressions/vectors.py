"""Functions of vectors: of the last axis."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from hookql.expressions.functions import function, is_zero
from hookql.expressions.rows import Term
from hookql.language import ast
from hookql.statistics.core import Parameter


def _positive(p: float) -> str | None:
    return None if p > 0 else "a number above 0"


@function(
    "norm",
    parameters=(Parameter("p", 2, _positive),),
    axes="last",
    unseen=is_zero,
)
def norm(x: Tensor, p: float = 2) -> Tensor:
    """``sum(abs(x) ** p) ** (1 / p)``, the Euclidean length for p = 2."""
    length: Tensor = torch.linalg.vector_norm(x, p, dim=-1)
    return length


@function("dot", values=2, axes="last", unseen=is_zero)
def dot(a: Tensor, b: Tensor) -> Tensor:
    """``sum(a * b)``."""
    return (a * b).sum(-1)


@function("cos", values=2, axes="last", unseen=is_zero)
def cos(a: Tensor, b: Tensor) -> Tensor:
    """``dot(a, b) / (norm(a) * norm(b))``; NaN where a or b is all zeros, and has no direction."""
    return dot(a, b) / (norm(a) * norm(b))


def _is_lowest(term: Term) -> bool:
    """Nothing seen is less than what stands at unseen keys: attention weights are not below 0."""
    node = term.key
    while isinstance(node, ast.Subscript):
        node = node.value
    return term.hidden == -math.inf or (term.hidden == 0 and isinstance(node, ast.Name))


@function("argmax", axes="last", kind="id", exact=True, unseen=_is_lowest)
def argmax(x: Tensor) -> Tensor:
    """The index of the greatest number, from 0; of equals the first. NaN counts as greatest."""
    return x.argmax(-1).double()


@function("entropy", axes="last", unseen=is_zero)
def entropy(p: Tensor) -> Tensor:
    """``-sum(p * log(p))`` in nats, with ``0 * log(0) = 0``; NaN where p is below 0."""
    return 0 - torch.xlogy(p, p).sum(-1)


@function("kl", values=2, axes="last", unseen=is_zero)
def kl(p: Tensor, q: Tensor) -> Tensor:
    """``sum(p * (log(p) - log(q)))`` in nats; 0 where p is 0, infinite where only q is."""
    return (torch.xlogy(p, p) - torch.xlogy(p, q)).sum(-1)


def _is_minus_infinity(term: Term) -> bool:
    return term.hidden == -math.inf


@function("softmax", axes="along", unseen=_is_minus_infinity)
def softmax(x: Tensor) -> Tensor:
    """``exp(x) / sum(exp(x))`` along the last axis."""
    return x.softmax(-1)
