"""Sources of inputs given directly: token ids with what lies beside them, and other tensors."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt
import torch
from attrs import evolve

from hookql.data.batches import Batch
from hookql.data.encode import Context
from hookql.data.samples import Sample
from hookql.data.tokens import Skipped
from hookql.engines.local import Work
from hookql.errors import Diagnostic, UsageError
from hookql.language.query import During
from hookql.models.feed import Feed, TokenFeed
from hookql.models.load import Model
from hookql.models.mixing import Mixing
from hookql.models.tensors import TensorFeed
from hookql.options import RunOptions
from hookql.plan import Plan
from hookql.work import token_work

Ints: TypeAlias = npt.NDArray[np.int64]
Bools: TypeAlias = npt.NDArray[np.bool_]


class IdSource:
    """Token ids given directly, as a tokenizer returns them: ids, mask, and what lies beside them.

    They are taken apart into samples and batched like text, so that padding, on either side, does
    not matter here either. ``special_tokens_mask`` says what is special; without it the ids that
    the tokenizer calls special are. Other tensors of the same shape (token types) travel along.
    ``decoder_input_ids`` and their mask are the target of an encoder-decoder, taken apart likewise.
    """

    def __init__(
        self,
        model: Model,
        inputs: Mapping[str, Any],
        options: RunOptions,
        generation: During | None = None,
    ) -> None:
        decoder = _decoder(model, inputs)
        arrays = _same_shape({n: v for n, v in inputs.items() if not n.startswith("decoder_")})
        limit = options.get("limit") or len(arrays["input_ids"])
        arrays = {name: array[:limit] for name, array in arrays.items()}
        ids, mask = _ids_and_mask(arrays)
        given = arrays.pop("special_tokens_mask", None)
        special = np.isin(ids, _special_ids(model)) if given is None else given.bool().numpy()
        self.total: int | None = len(ids)
        self.reads_again = True
        self.refused: Sequence[Skipped] = ()
        self.width = max(1, ids.shape[1])
        self.columns: Sequence[str] | None = ()
        self.feed: Feed = (feed := TokenFeed(model))
        feed.has_target = decoder is not None
        feed.knows_special = model.tokenizer is not None or (given is not None and decoder is None)
        self._model = model
        self._options = options
        self._beside = arrays
        self._spans = [_span(row, number) for number, row in enumerate(mask)]
        self._contexts = _contexts(ids, special, self._spans)
        if decoder is not None:
            targets = _targets(model, {n: a[: len(ids)] for n, a in decoder.items()}, feed)
            self._contexts = [
                evolve(context, target=targets[context.samples[0].index])
                for context in self._contexts
            ]
        _check_lengths(model, self._contexts)
        if generation is not None:
            self.width = _with_room(model, self.width, generation, self._beside)

    def work(self, plan: Plan) -> Work:
        beside = self._extras if self._beside else None
        return token_work(self._model, self.feed, self._contexts, plan, self._options, beside)

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
            if context.target is not None:
                digest.update(b"target" + context.target.ids.tobytes())
            for name in sorted(self._beside):
                row = self._beside[name][context.samples[0].index, span]
                digest.update(name.encode() + row.contiguous().view(torch.uint8).numpy().tobytes())
        return digest.hexdigest()


def _decoder(model: Model, inputs: Mapping[str, Any]) -> dict[str, torch.Tensor] | None:
    """The decoder's ids and mask, on the CPU, under the names of an encoder's; None without."""
    names = [name for name in inputs if name.startswith("decoder_")]
    if not names:
        return None
    unknown = [n for n in names if n not in ("decoder_input_ids", "decoder_attention_mask")]
    if not model.is_encoder_decoder or unknown or "decoder_input_ids" not in names:
        message = f"`{(unknown or names)[0]}` cannot be taken here"
        notes = ("an encoder-decoder takes decoder_input_ids, decoder_attention_mask",)
        raise UsageError(Diagnostic("bad-inputs", message, notes=notes))
    arrays = _same_shape(
        {name.removeprefix("decoder_"): inputs[name] for name in names}, "decoder_"
    )
    texts, targets = len(inputs["input_ids"]), len(arrays["input_ids"])
    if texts != targets:
        message = f"`decoder_input_ids` has {targets} samples and `input_ids` has {texts}"
        raise UsageError(Diagnostic("bad-inputs", message))
    return arrays


def _ids_and_mask(arrays: dict[str, torch.Tensor]) -> tuple[Ints, Bools]:
    """Take the ids and the mask, all True where there is none, out of the arrays."""
    ids = arrays.pop("input_ids").long().numpy()
    return ids, arrays.pop("attention_mask", torch.ones(ids.shape)).bool().numpy()


def _contexts(ids: Ints, special: Bools, spans: Sequence[slice]) -> list[Context]:
    """The contexts of the samples that have any token."""
    return [
        Context(
            ids=ids[number, span],
            special=special[number, span],
            owner=np.zeros(span.stop - span.start, np.int64),
            samples=(Sample(number, "", {}),),
        )
        for number, span in enumerate(spans)
        if span.stop > span.start
    ]


def _targets(model: Model, arrays: dict[str, torch.Tensor], feed: TokenFeed) -> dict[int, Context]:
    """The decoder's row of each sample, by the sample's number."""
    ids, mask = _ids_and_mask(arrays)
    spans = [_span(row, number, "decoder's ") for number, row in enumerate(mask)]
    special = np.isin(ids, _special_ids(model))
    for number, span in enumerate(spans):
        if span.stop == span.start:
            message = f"sample {number} has no tokens for the decoder"
            raise UsageError(Diagnostic("bad-inputs", message))
        special[number, span.start] |= ids[number, span.start] == feed.decoder_start
    return {context.samples[0].index: context for context in _contexts(ids, special, spans)}


def _with_room(
    model: Model, width: int, generation: During, beside: Mapping[str, torch.Tensor]
) -> int:
    """The longest context with what is written behind it."""
    if beside:
        message = f"`{next(iter(beside))}` cannot be given where texts are continued"
        help = "give `input_ids` and `attention_mask` alone"
        raise UsageError(Diagnostic("bad-inputs", message, help=help))
    whole = width + int(generation.arguments["max_new_tokens"]) - 1
    if model.context is not None and whole > model.context:
        message = f"prompts of {width} tokens and what is written behind them come to {whole}, more"
        message += f" than the {model.context} of the model's context"
        raise UsageError(Diagnostic("too-long", message))
    return whole


def _check_lengths(model: Model, contexts: Sequence[Context]) -> None:
    rows = [*contexts, *(context.target for context in contexts if context.target is not None)]
    longest = max((len(row.ids) for row in rows), default=0)
    if model.context is not None and longest > model.context:
        message = f"`inputs` has samples of {longest} tokens, more than the {model.context} of "
        raise UsageError(Diagnostic("too-long", message + "the model's context"))


def _same_shape(inputs: Mapping[str, Any], prefix: str = "") -> dict[str, torch.Tensor]:
    """The tensors, on the CPU, of one shape, (samples, positions).

    ``prefix`` stands before the names that the user gave.
    """
    for name, value in inputs.items():
        if not isinstance(value, torch.Tensor):
            message = f"`{prefix}{name}` is {type(value).__name__}, not a tensor"
            advice = 'ask the tokenizer for tensors: return_tensors="pt", padding=True'
            raise UsageError(Diagnostic("bad-inputs", message, help=advice))
    if inputs["input_ids"].is_floating_point():
        message = f"`{prefix}input_ids` are {inputs['input_ids'].dtype}, not whole numbers"
        raise UsageError(Diagnostic("bad-inputs", message))
    shapes = {name: tuple(value.shape) for name, value in inputs.items()}
    wrong = [n for n, shape in shapes.items() if shape != shapes["input_ids"] or len(shape) != 2]
    if wrong:
        message = (
            f"`inputs` beside `{prefix}input_ids` must all have its shape, (samples, positions)"
        )
        notes = tuple(f"{prefix}{name}: {shape}" for name, shape in shapes.items())
        raise UsageError(Diagnostic("bad-inputs", message, notes=notes))
    for name in ("attention_mask", "special_tokens_mask"):
        if name in inputs and not bool(((inputs[name] == 0) | (inputs[name] == 1)).all()):
            message = f"`{prefix}{name}` has other values than 0 and 1"
            raise UsageError(Diagnostic("bad-inputs", message))
    return {name: value.detach().cpu() for name, value in inputs.items()}


def _span(mask: Bools, number: int, whose: str = "") -> slice:
    """Where a sample's tokens are: one run of ones."""
    places = np.flatnonzero(mask)
    if not len(places):
        return slice(0, 0)
    span = slice(int(places[0]), int(places[-1]) + 1)
    if len(places) != span.stop - span.start:
        message = (
            f"the {whose}attention mask of sample {number} has holes: only padding may be masked"
        )
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
        self.reads_again = True
        self.refused: Sequence[Skipped] = ()
        self.columns: Sequence[str] | None = ()
        self.width = 2**20
        self._rows = options.get("batch_size") or 16

    def work(self, plan: Plan) -> Work:
        alone = plan.probe.mixing is Mixing.SAMPLES
        return Work(self._tensors.batches(1 if alone else self._rows), self._tensors.for_batch)

    def facts(self) -> dict[str, str | int]:
        digest = hashlib.sha256()
        for part in self._tensors.fingerprint_parts():
            digest.update(part)
        return {
            "data": "<inputs>",
            "data_fingerprint": digest.hexdigest(),
            "samples": self._tensors.samples,
        }
