"""Signals of the model's own prediction: surprisal, loss, prob, rank and entropy of each token."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

import numpy as np
import torch
from torch import Tensor

from hookql.data.batches import Batch
from hookql.errors import Diagnostic
from hookql.models.learning import Seen
from hookql.models.load import Model
from hookql.models.ports import HookPoint
from hookql.predicates.values import Values

# Logits are worked on in pieces: this many bytes for a piece and what is made of it, together.
_PIECE_BYTES = 64 * 2**20
_COPIES = 4
_KNOWN = ("surprisal", "loss", "prob", "rank", "entropy")


def logits_point(model: Model) -> HookPoint | Diagnostic:
    """Where the model's logits are read, or why it has none that predict the next token.

    Whether later tokens stay out of them only a run tells: `Probe.causal`.
    """
    module, kind = model.module, model.class_name
    if model.is_encoder_decoder:
        return not_causal(model, "its decoder reads the whole text before it predicts")
    head: Any = getattr(module, "get_output_embeddings", None)
    if head is None:  # no model of transformers: a plain module
        return HookPoint("", "output", 0)
    if kind.endswith("ForMaskedLM"):
        return not_causal(model, "it predicts masked tokens from both sides")
    if head() is None:
        return no_logits(model)
    return HookPoint("", "output", "logits")


def unfit_logits(model: Model, seen: Seen, vocabulary: int) -> Diagnostic | None:
    """Why what a plain module returns are no logits of every token, or None."""
    shaped = seen.layout.batch == 0 and seen.layout.position == 1 and seen.axes == ("feature",)
    width = seen.sizes[-1] if shaped else None
    if width is not None and width >= vocabulary:
        return None
    shape = ", ".join(map(str, seen.shape))
    message = f"{model.class_name} returns no logits for each token"
    notes = (f"it returns a tensor ({shape}), and its vocabulary has {vocabulary:,} tokens",)
    return Diagnostic("no-logits", message, notes=notes)


def no_logits(model: Model) -> Diagnostic:
    """The diagnostic for a model without a language-model head."""
    kind = model.class_name
    head = _class_with_head(model)
    if head is None or head == kind:
        advice = "signals of the prediction need a causal language model"
    else:
        advice = f"load the same model with its head, as {head}"
    return Diagnostic("no-logits", f"{kind} has no head that predicts tokens", help=advice)


def not_causal(model: Model, why: str = "its logits know the tokens that come after") -> Diagnostic:
    """The diagnostic for a model whose logits do not predict the next token."""
    message = f"{model.class_name} is no causal language model: {why}"
    advice = "signals of the prediction need a causal language model"
    return Diagnostic("not-causal", message, help=advice)


def read_signals(logits: Tensor, batch: Batch, wanted: Collection[str]) -> dict[str, Values]:
    """Signals of a batch's tokens as columns, (B, S), undefined where they mean nothing.

    ``logits`` (B, S, V) of the batch. See `signals`.
    """
    ids, real = batch.ids, batch.mask
    followed = np.zeros_like(real)
    followed[:, :-1] = real[:, 1:]
    preceded = real.copy()
    preceded[:, :1] = False
    defined = {"surprisal": preceded, "entropy": real}
    found = signals(logits, torch.from_numpy(ids), torch.from_numpy(real), wanted)
    return {
        name: Values(values.cpu().numpy(), defined.get(name, followed))
        for name, values in found.items()
    }


def signals(
    logits: Tensor, ids: Tensor, mask: Tensor, wanted: Collection[str]
) -> dict[str, Tensor]:
    """Signals of each token from a causal model's logits.

    Args:
        logits: (B, S, V), of any floating dtype; row t predicts token t + 1.
        ids: int64 (B, S), the tokens that were run, padded on the right.
        mask: bool (B, S), True where a token is.
        wanted: of ``surprisal``, ``loss``, ``prob``, ``rank``, ``entropy``.

    Returns:
        float64 (B, S) each, on the logits' device, in nats. ``surprisal`` at t is -log p of token
        t and means nothing at 0; ``loss`` (-log p), ``prob`` and ``rank`` (the number of tokens
        with a strictly greater logit) at t concern token t + 1 and mean nothing at a context's
        last; ``entropy`` at t is that of the distribution of token t + 1. Where logits of a row
        are NaN, so are its signals. In padding nothing means anything.

    Exponentials are float32 (float64 for float64 logits), sums float64. Memory beyond the results
    is bounded.
    """
    assert set(wanted) <= set(_KNOWN)
    batch, length, width = logits.shape
    device = logits.device
    following = ids.to(device).roll(-1, 1).reshape(-1)
    flat = logits.reshape(batch * length, width)
    numbers: dict[str, list[Tensor]] = {name: [] for name in _computed(wanted)}
    size = 8 if logits.dtype == torch.float64 else 4
    rows = max(1, _PIECE_BYTES // (width * size * _COPIES))
    for start in range(0, batch * length, rows):
        piece = _piece(flat[start : start + rows], following[start : start + rows], set(numbers))
        for name, values in piece.items():
            numbers[name].append(values)
    found = {name: torch.cat(parts).reshape(batch, length) for name, parts in numbers.items()}
    if "surprisal" in wanted:
        found["surprisal"] = found["loss"].roll(1, 1)
    if "prob" in wanted:
        found["prob"] = found["loss"].neg().exp()
    real = mask.to(device)
    return {name: found[name].masked_fill(~real, 0.0) for name in wanted}


def _computed(wanted: Collection[str]) -> list[str]:
    """What is computed of the logits themselves: surprisal and prob follow from the loss."""
    loss = ["loss"] if {"loss", "surprisal", "prob"} & set(wanted) else []
    return loss + [name for name in ("rank", "entropy") if name in wanted]


def _piece(logits: Tensor, following: Tensor, wanted: Collection[str]) -> dict[str, Tensor]:
    """Signals of rows of logits (n, V) and the ids (n,) that followed, float64 (n,)."""
    found = {}
    # A head may be narrower than the embedding: what it cannot predict has no number.
    unknown = following >= logits.shape[1]
    place = following.clamp(max=logits.shape[1] - 1)[:, None]
    if "loss" in wanted or "entropy" in wanted:
        # Single numbers are float32, sums over the vocabulary float64: 50,000 terms lose digits.
        wide = logits if logits.dtype == torch.float64 else logits.float()
        below = wide - wide.amax(-1, keepdim=True)
        weight = below.exp()
        total = weight.sum(-1, dtype=torch.float64)
        if "loss" in wanted:
            loss = total.log() - below.gather(1, place)[:, 0].double()
            found["loss"] = loss.masked_fill(unknown, torch.nan)
        if "entropy" in wanted:
            # What cannot be predicted adds nothing, not 0 * inf.
            weighted = weight.mul_(below.clamp_(min=-1e30))
            found["entropy"] = total.log() - weighted.sum(-1, dtype=torch.float64) / total
    if "rank" in wanted:
        own = logits.gather(1, place)
        rank = (logits > own).sum(-1).double()
        broken = unknown | logits.amax(-1).isnan()
        found["rank"] = rank.masked_fill(broken, torch.nan)
    return found


def _class_with_head(model: Model) -> str | None:
    """The class of transformers that has this architecture's causal head, if it is a decoder."""
    from transformers import AutoModelForCausalLM, AutoModelForMaskedLM

    config = getattr(model.module, "config", None)
    causal: Any = AutoModelForCausalLM._model_mapping
    masked: Any = AutoModelForMaskedLM._model_mapping
    encoder = type(config) in masked and not getattr(config, "is_decoder", False)
    if encoder or type(config) not in causal:
        return None
    found = causal[type(config)]
    return str((found[0] if isinstance(found, tuple) else found).__name__)
