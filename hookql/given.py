"""Sources of inputs given directly: token ids with what lies beside them, and other tensors."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from hookql.data.batches import Batch
from hookql.data.encode import Context
from hookql.data.samples import Sample
from hookql.errors import Diagnostic, UsageError
from hookql.models.feed import Feed, TokenFeed
from hookql.models.load import Model
from hookql.models.mixing import Mixing
from hookql.models.tensors import TensorFeed
from hookql.options import RunOptions
from hookql.plan import Plan
from hookql.work import Work, token_work


class IdSource:
    """Token ids given directly, as a tokenizer returns them: ids, mask, and what lies beside them.

    They are taken apart into samples and batched like text, so that padding, on either side, does
    not matter here either. ``special_tokens_mask`` says what is special; without it the ids that
    the tokenizer calls special are. Other tensors of the same shape (token types) travel along.
    """

    def __init__(self, model: Model, inputs: Mapping[str, Any], options: RunOptions) -> None:
        arrays = _same_shape(inputs)
        limit = options.get("limit") or len(arrays["input_ids"])
        arrays = {name: array[:limit] for name, array in arrays.items()}
        ids = arrays.pop("input_ids").long().numpy()
        mask = arrays.pop("attention_mask", torch.ones(ids.shape)).bool().numpy()
        given = arrays.pop("special_tokens_mask", None)
        special = np.isin(ids, _special_ids(model)) if given is None else given.bool().numpy()
        self.total: int | None = len(ids)
        self.width = max(1, ids.shape[1])
        self.columns: Sequence[str] | None = ()
        self.feed: Feed = (feed := TokenFeed(model))
        feed.knows_special = given is not None or model.tokenizer is not None
        self._model = model
        self._options = options
        self._beside = arrays
        self._spans = [_span(row, number) for number, row in enumerate(mask)]
        self._contexts = [
            Context(
                ids=ids[number, span],
                special=special[number, span],
                owner=np.zeros(span.stop - span.start, np.int64),
                samples=(Sample(number, "", {}),),
            )
            for number, span in enumerate(self._spans)
            if span.stop > span.start
        ]
        longest = max((len(context.ids) for context in self._contexts), default=0)
        if model.context is not None and longest > model.context:
            message = f"`inputs` has samples of {longest} tokens, more than the {model.context} of "
            raise UsageError(Diagnostic("too-long", message + "the model's context"))

    def work(self, plan: Plan) -> Work:
        for batch, inputs in token_work(
            self._model, self.feed, self._contexts, plan, self._options
        ):
            yield batch, {**inputs, **self._extras(batch)}

    def facts(self) -> dict[str, str | int]:
        return {
            "data": "<inputs>",
            "data_fingerprint": self._fingerprint(),
            "max_length": self.width,
            "samples": self.total or 0,
            "samples_empty": (self.total or 0) - len(self._contexts),
            "tokens_read": sum(len(context.ids) for context in self._contexts),
        }

    def _extras(self, batch: Batch) -> dict[str, torch.Tensor]:
        """The tensors beside the ids, padded like the batch."""
        extras = {}
        for name, array in self._beside.items():
            padded = torch.zeros(batch.ids.shape, dtype=array.dtype)
            for row, context in enumerate(batch.contexts):
                index = context.samples[0].index
                padded[row, : len(context.ids)] = array[index, self._spans[index]]
            extras[name] = padded.to(self._model.device)
        return extras

    def _fingerprint(self) -> str:
        digest = hashlib.sha256()
        for context in self._contexts:
            span = self._spans[context.samples[0].index]
            digest.update(b"%d:" % context.samples[0].index)
            digest.update(context.ids.tobytes())
            digest.update(context.special.tobytes())
            for name in sorted(self._beside):
                row = self._beside[name][context.samples[0].index, span]
                digest.update(name.encode() + row.contiguous().view(torch.uint8).numpy().tobytes())
        return digest.hexdigest()


def _same_shape(inputs: Mapping[str, Any]) -> dict[str, torch.Tensor]:
    """The tensors, on the CPU, of one shape, (samples, positions)."""
    for name, value in inputs.items():
        if not isinstance(value, torch.Tensor):
            message = f"`{name}` is {type(value).__name__}, not a tensor"
            advice = 'ask the tokenizer for tensors: return_tensors="pt", padding=True'
            raise UsageError(Diagnostic("bad-inputs", message, help=advice))
    if inputs["input_ids"].is_floating_point():
        message = f"`input_ids` are {inputs['input_ids'].dtype}, not whole numbers"
        raise UsageError(Diagnostic("bad-inputs", message))
    shapes = {name: tuple(value.shape) for name, value in inputs.items()}
    decoder = [name for name in inputs if name.startswith("decoder_")]
    if decoder:
        message = f"`{decoder[0]}`: inputs of a decoder beside an encoder's are not built yet"
        raise UsageError(Diagnostic("not-yet", message))
    wrong = [n for n, shape in shapes.items() if shape != shapes["input_ids"] or len(shape) != 2]
    if wrong:
        message = "`inputs` beside `input_ids` must all have its shape, (samples, positions)"
        notes = tuple(f"{name}: {shape}" for name, shape in shapes.items())
        raise UsageError(Diagnostic("bad-inputs", message, notes=notes))
    for name in ("attention_mask", "special_tokens_mask"):
        if name in inputs and not bool(((inputs[name] == 0) | (inputs[name] == 1)).all()):
            message = f"`{name}` has other values than 0 and 1"
            raise UsageError(Diagnostic("bad-inputs", message))
    return {name: value.detach().cpu() for name, value in inputs.items()}


def _span(mask: npt.NDArray[np.bool_], number: int) -> slice:
    """Where a sample's tokens are: one run of ones."""
    places = np.flatnonzero(mask)
    if not len(places):
        return slice(0, 0)
    span = slice(int(places[0]), int(places[-1]) + 1)
    if len(places) != span.stop - span.start:
        message = f"the attention mask of sample {number} has holes: only padding may be masked"
        raise UsageError(Diagnostic("bad-inputs", message))
    return span


def _special_ids(model: Model) -> list[int]:
    return list(getattr(model.tokenizer, "all_special_ids", None) or ())


class TensorSource:
    """Other model inputs given directly: pixels, frames, embeddings."""

    def __init__(self, model: Model, inputs: Mapping[str, Any], options: RunOptions) -> None:
        self._tensors = TensorFeed(model, inputs, options.get("limit"))
        self.feed: Feed = self._tensors
        self.total: int | None = self._tensors.samples
        self.columns: Sequence[str] | None = ()
        self.width = 2**20
        self._rows = options.get("batch_size") or 16

    def work(self, plan: Plan) -> Work:
        alone = plan.probe.mixing is Mixing.SAMPLES
        return self._tensors.batches(1 if alone else self._rows)

    def facts(self) -> dict[str, str | int]:
        digest = hashlib.sha256()
        for part in self._tensors.fingerprint_parts():
            digest.update(part)
        return {
            "data": "<inputs>",
            "data_fingerprint": digest.hexdigest(),
            "samples": self._tensors.samples,
        }
