"""Sources: what is run through a model, as batches with their model inputs, and its facts."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, Protocol

import attrs
import numpy as np
import torch

from hookql.data.batches import Batch, batches
from hookql.data.encode import Context, Encoder
from hookql.data.read import open_data
from hookql.data.samples import Dataset, Sample
from hookql.errors import Diagnostic, UsageError
from hookql.models.feed import Feed, TensorFeed, TokenFeed
from hookql.models.load import Model
from hookql.models.regime import length_group
from hookql.options import RunOptions
from hookql.plan import Plan

# What a model that states no context is given: enough for pages, little enough for any machine.
_DEFAULT_CONTEXT = 2048
# Cost follows padded tokens: a CPU is fastest on short batches, a GPU wants long ones.
_TOKENS_PER_BATCH = {"cpu": 512, "cuda": 8192}

Work = Iterable[tuple[Batch, Mapping[str, Any]]]


class Source(Protocol):
    """Where batches come from."""

    feed: Feed
    width: int  # at least the longest context
    total: int | None  # samples, where known
    columns: Sequence[str] | None  # for row.NAME, where known

    def work(self, plan: Plan) -> Work:
        """Batches with the model inputs of each."""

    def facts(self) -> dict[str, str | int]:
        """What the result's attributes say of the data; complete once the work is done."""


def open_source(
    model: Model,
    data: Any,
    texts: Sequence[str],
    inputs: Mapping[str, torch.Tensor] | None,
    options: RunOptions,
) -> Source:
    """The source that the arguments of `run` describe. Raises UsageError where they clash."""
    if inputs is not None:
        if data is not None or texts:
            message = "give `inputs` or data, not both"
            raise UsageError(Diagnostic("two-sources", message))
        if set(inputs) <= {"input_ids", "attention_mask", "special_tokens_mask"}:
            return IdSource(model, inputs, options)
        return TensorSource(model, inputs, options)
    if data is None and not texts and model.name == "demo":
        from hookql.demo import text_path

        data = text_path()
    if data is None and not texts:
        message = "there is no data to run"
        advice = 'give `--data FILE` or `--text "..."` (from Python: data= or texts=)'
        raise UsageError(Diagnostic("no-data", message, help=advice))
    if model.tokenizer is None:
        message = f"`{model.name}` has no tokenizer, so it cannot be run on text"
        advice = "from Python give `tokenizer=`, or model inputs with `inputs=`"
        raise UsageError(Diagnostic("needs-tokenizer", message, help=advice))
    dataset = open_data(
        data,
        texts=texts,
        column=options.get("column"),
        split=options.get("split"),
        limit=options.get("limit"),
    )
    return TextSource(model, dataset, options)


class TextSource:
    """Samples of text, tokenised as they are read."""

    def __init__(self, model: Model, dataset: Dataset, options: RunOptions) -> None:
        overflow: Any = options.get("overflow") or "split"
        self.width = _max_length(model, options)
        self.encoder = Encoder(model.tokenizer, self.width, overflow)
        self.dataset = dataset
        self.feed: Feed = TokenFeed(model)
        self.total: int | None = dataset.total
        self.columns: Sequence[str] | None = dataset.columns
        self._model = model
        self._options = options

    def work(self, plan: Plan) -> Work:
        contexts = self.encoder(self.dataset)
        return _token_work(self._model, self.feed, contexts, plan, self._options)

    def facts(self) -> dict[str, str | int]:
        counts = attrs.asdict(self.encoder.counts)
        counts["tokens_read"] = counts.pop("tokens")
        return {
            "data": self.dataset.source,
            "data_fingerprint": self.dataset.fingerprint,
            "max_length": self.width,
            "overflow": self.encoder.overflow,
            **counts,
        }


class IdSource:
    """Token ids given directly, with an optional mask and an optional mask of special tokens.

    They are taken apart into samples and batched like text, so that padding, on either side, does
    not matter here either.
    """

    def __init__(
        self, model: Model, inputs: Mapping[str, torch.Tensor], options: RunOptions
    ) -> None:
        if "input_ids" not in inputs:
            raise UsageError(Diagnostic("bad-inputs", "`inputs` lacks `input_ids`"))
        shapes = {name: tuple(tensor.shape) for name, tensor in inputs.items()}
        if len(set(shapes.values())) > 1 or len(shapes["input_ids"]) != 2:
            message = "`inputs` must be tensors of one shape, (samples, positions)"
            notes = tuple(f"{name}: {shape}" for name, shape in shapes.items())
            raise UsageError(Diagnostic("bad-inputs", message, notes=notes))
        ids = inputs["input_ids"].cpu().numpy().astype(np.int64)
        mask = inputs.get("attention_mask", torch.ones(ids.shape)).cpu().numpy().astype(bool)
        special = inputs.get("special_tokens_mask", torch.zeros(ids.shape)).cpu().numpy()
        self._contexts = [
            Context(
                ids=row[real],
                special=marked[real].astype(bool),
                owner=np.zeros(int(real.sum()), np.int64),
                samples=(Sample(number, "", {}),),
                chunk=0,
            )
            for number, (row, real, marked) in enumerate(zip(ids, mask, special, strict=True))
            if real.any()
        ]
        self.width = max(1, ids.shape[1])
        if model.context is not None and self.width > model.context:
            message = f"`inputs` has {self.width} positions, more than the model's {model.context}"
            raise UsageError(Diagnostic("too-long", message))
        self.total: int | None = len(ids)
        self.columns: Sequence[str] | None = ()
        self.feed: Feed = TokenFeed(model)
        self._model = model
        self._options = options

    def work(self, plan: Plan) -> Work:
        return _token_work(self._model, self.feed, self._contexts, plan, self._options)

    def facts(self) -> dict[str, str | int]:
        return {
            "data": "<inputs>",
            "max_length": self.width,
            "samples": self.total or 0,
            "samples_empty": (self.total or 0) - len(self._contexts),
        }


class TensorSource:
    """Other model inputs given directly: pixels, frames, embeddings."""

    def __init__(
        self, model: Model, inputs: Mapping[str, torch.Tensor], options: RunOptions
    ) -> None:
        self.feed: Feed = (feed := TensorFeed(model, inputs))
        self.total: int | None = feed.samples
        self.columns: Sequence[str] | None = ()
        self.width = 2**20
        self._tensors = feed
        self._rows = options.get("batch_size") or 16

    def work(self, plan: Plan) -> Work:
        return self._tensors.batches(self._rows)

    def facts(self) -> dict[str, str | int]:
        return {"data": "<inputs>", "samples": self._tensors.samples}


def _token_work(
    model: Model, feed: Feed, contexts: Iterable[Context], plan: Plan, options: RunOptions
) -> Iterator[tuple[Batch, Mapping[str, Any]]]:
    assert isinstance(feed, TokenFeed)
    pad = getattr(model.tokenizer, "pad_token_id", None)
    cut = batches(
        contexts,
        tokens_per_batch=options.get("tokens_per_batch")
        or _TOKENS_PER_BATCH.get(model.device.type, 512),
        batch_size=options.get("batch_size"),
        group=length_group(model.module, plan.probe.padding_leaks),
        pad_id=pad if isinstance(pad, int) else 0,
    )
    for batch in cut:
        yield batch, feed.for_batch(batch)


def _max_length(model: Model, options: RunOptions) -> int:
    """How many tokens a context holds: what the user asks for, at most what the model can."""
    asked = options.get("max_length")
    if asked is not None and model.context is not None and asked > model.context:
        message = f"a max length of {asked} is more than the model's context of {model.context}"
        raise UsageError(Diagnostic("bad-max-length", message))
    return asked or model.context or _DEFAULT_CONTEXT
