"""Failures: what becomes of an error of the model."""

from __future__ import annotations

from attrs import frozen

from hookql.data.batches import Batch
from hookql.data.tokens import Skipped
from hookql.detectors import memory_advice, out_of_memory
from hookql.errors import Diagnostic, ModelError


@frozen
class Failure:
    """Why a pass failed."""

    reason: str
    memory: bool


def model_failed(batch: Batch, error: Exception) -> ModelError:
    """The error for a batch that the model fails on."""
    samples = sorted({s.index for c in batch.contexts for s in c.samples})
    rows, positions = batch.mask.shape
    message = f"the model failed on a batch of {rows} x {positions} tokens"
    held = f"samples {samples[0]} to {samples[-1]}" if samples else "no samples"
    held = f"sample {samples[0]}" if len(samples) == 1 else held
    notes = (f"{type(error).__name__}: {error}", f"the batch holds {held}")
    return ModelError(Diagnostic("model-failed", message, help=memory_advice(error), notes=notes))


def reason_of(error: Exception) -> str:
    """An error in one short line."""
    said = " ".join(str(error).split())
    return f"{type(error).__name__}: {said}"[:300] if said else type(error).__name__


def device_lost(error: Exception) -> bool:
    """Whether every later pass would fail as well: after an error of CUDA the device is gone."""
    return "CUDA error" in str(error) and not out_of_memory(error)


def skipped_of(batch: Batch, reason: str) -> list[Skipped]:
    """The samples of a batch of one context, each with the chunk of it that is there."""
    (context,) = batch.contexts
    return [
        Skipped(sample.index, context.earlier if number == 0 else 0, reason)
        for number, sample in enumerate(context.samples)
    ]
