"""What the model predicts: the logit lens, and of each token surprisal, loss, rank and so on."""

from __future__ import annotations

import numpy as np

from tests.reference.models import Subject
from tests.reference.values import DISCRETE, NOISE, Array, Value


def lens(subject: Subject, value: Value) -> Value:
    """Final norm and unembedding of a row of the residual stream, in float64."""
    weights = _weights(subject)
    x, e = value.array, value.err
    if subject.family == "gpt2":
        centred = x - x.mean()
        scale = np.sqrt((centred**2).mean() + weights["eps"])
        normed = centred / scale * weights["gain"] + weights["bias"]
    else:
        scale = np.sqrt((x**2).mean() + weights["eps"])
        centred = x
        normed = x / scale * weights["gain"]
    moved = np.abs(weights["gain"]) / scale * (2 * e.max() * (1 + np.abs(centred) / scale))
    err = np.abs(weights["head"]) @ (moved + NOISE * np.abs(normed).max())
    return Value(weights["head"] @ normed, err, ("feature",))


def _weights(subject: Subject) -> dict[str, Array]:
    if "weights" not in subject.cache:
        state = {k: v.detach().double().numpy() for k, v in subject.model.state_dict().items()}
        if subject.family == "gpt2":
            found = {
                "gain": state["transformer.ln_f.weight"],
                "bias": state["transformer.ln_f.bias"],
                "eps": np.float64(1e-5),
            }
        else:
            found = {"gain": state["model.norm.weight"], "eps": np.float64(1e-6)}
        subject.cache["weights"] = {**found, "head": state["lm_head.weight"]}
    weights: dict[str, Array] = subject.cache["weights"]
    return weights


SIGNALS = ("surprisal", "loss", "prob", "rank", "entropy")


def signal(subject: Subject, context: int, at: int, name: str) -> tuple[float, float] | None:
    """A signal at one token and its error; None where it is undefined."""
    key = ("signals", context)
    if key not in subject.cache:
        subject.cache[key] = _signals(subject, context)
    answer: tuple[float, float] | None = subject.cache[key][at][name]
    return answer


def _signals(subject: Subject, context: int) -> list[dict[str, tuple[float, float] | None]]:
    ids = subject.contexts[context].ids
    logits = subject.recorded[context]["", "output", None]
    largest = max(np.abs(seen["", "output", None]).max() for seen in subject.recorded)
    noise = NOISE * largest
    found = []
    for at in range(len(ids)):
        one: dict[str, tuple[float, float] | None] = {}
        logs = _log_softmax(logits[at])
        one["entropy"] = (float(-(np.exp(logs) * logs).sum()), noise * 2 * float(-logs.min()))
        if at + 1 < len(ids):
            then = ids[at + 1]
            loss = float(-logs[then])
            one["loss"] = (loss, 2 * noise)
            one["prob"] = (float(np.exp(-loss)), float(np.exp(-loss)) * 2 * noise)
            above = int((logits[at] > logits[at][then]).sum())
            near = np.abs(logits[at] - logits[at][then]) <= 2 * DISCRETE * noise
            one["rank"] = (float(above), float(near.sum() - 1))
        else:
            one["loss"] = one["prob"] = one["rank"] = None
        one["surprisal"] = found[at - 1]["loss"] if at else None
        found.append(one)
    return found


def _log_softmax(logits: Array) -> Array:
    shifted = logits - logits.max()
    return np.asarray(shifted - np.log(np.exp(shifted).sum()))
