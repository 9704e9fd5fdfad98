"""Sources: what is run through a model, as batches with their model inputs, and its facts."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping, Sequence
from itertools import islice
from pathlib import Path
from typing import Any

import attrs
import torch

from hookql.data.encode import Context, Encoder
from hookql.data.messages import MESSAGES
from hookql.data.read import open_data
from hookql.data.samples import Dataset
from hookql.data.tokens import Skipped
from hookql.engines.local import Work
from hookql.errors import Diagnostic, UsageError
from hookql.given import IdSource, TensorSource
from hookql.language.query import During
from hookql.models.feed import Feed, TokenFeed
from hookql.models.load import Model
from hookql.options import RunOptions
from hookql.plan import Plan
from hookql.work import Source, token_work

# What a model that states no context is given: enough for pages, little enough for any machine.
_DEFAULT_CONTEXT = 2048


def open_texts(data: Any, texts: Sequence[str], inputs: Any, options: RunOptions) -> Dataset | None:
    """The data set that the arguments of `run` name; None where they name none.

    Raises UsageError where they clash, and whatever is wrong with the data's beginning.
    """
    if data is None and not texts:
        return None
    if inputs is not None:
        message = "give `inputs` or data, not both"
        raise UsageError(Diagnostic("two-sources", message))
    return open_data(
        data,
        texts=texts,
        column=options.get("column"),
        split=options.get("split"),
        limit=options.get("limit"),
        chat=bool(options.get("chat")),
    )


def open_source(
    model: Model,
    dataset: Dataset | None,
    inputs: Any,
    options: RunOptions,
    generation: During | None = None,
) -> Source:
    """Where the batches come from: the inputs, the data set, or the demo model's own text.

    With ``generation`` they are prompts, behind which there is room for what will be written.
    """
    if inputs is not None:
        _only_for_text(options)
        if not isinstance(inputs, Mapping):
            message = f"`inputs` is {type(inputs).__name__}, not tensors by name"
            advice = 'write `inputs={"pixel_values": tensor}`, or give what a tokenizer returns'
            raise UsageError(Diagnostic("bad-inputs", message, help=advice))
        if "input_ids" in inputs:
            return IdSource(model, inputs, options, generation)
        return TensorSource(model, inputs, options)
    if dataset is None and model.name == "demo":
        from hookql.demo import text_path

        dataset = open_texts(text_path(), (), None, options)
    if dataset is None:
        message = "there is no data to run"
        advice = 'give `--data FILE` or `--text "..."` (from Python: data= or texts=)'
        raise UsageError(Diagnostic("no-data", message, help=advice))
    if model.tokenizer is None:
        message = f"`{model.name}` has no tokenizer, so it cannot be run on text"
        advice = "from Python give `tokenizer=`, or model inputs with `inputs=`"
        raise UsageError(Diagnostic("needs-tokenizer", message, help=advice))
    return TextSource(model, dataset, options, generation)


def _only_for_text(options: RunOptions) -> None:
    """Refuse options that say how text is read, where the inputs are given."""
    for name in ("column", "split", "max_length", "overflow", "target", "chat"):
        if options.get(name) not in (None, False):
            message = f"`{name}` goes with text, not with `inputs`"
            raise UsageError(Diagnostic("bad-option", message))


class TextSource:
    """Samples of text, tokenised as they are read."""

    def __init__(
        self,
        model: Model,
        dataset: Dataset,
        options: RunOptions,
        generation: During | None = None,
    ) -> None:
        # A prompt that is cut in pieces would be several prompts, which nobody has written.
        usual = "split" if generation is None else "error"
        overflow: Any = options.get("overflow") or usual
        self.width = _max_length(model, options)
        room = self.width if generation is None else _prompt_room(self.width, generation, options)
        target = options.get("target")
        check_target(model, target)
        chat = (options.get("column") or MESSAGES) if options.get("chat") else None
        self.encoder = Encoder(model.tokenizer, room, overflow, target=target, chat=chat)
        self.encoder.add_generation_prompt = generation is not None
        self.encoder.on_error = "skip" if options.get("on_error") == "skip" else "stop"
        self.dataset = dataset
        self.feed: Feed = (feed := TokenFeed(model))
        feed.has_target = self.encoder.target is not None
        feed.knows_roles = chat is not None
        self.encoder.target_start = feed.decoder_start
        self.total: int | None = dataset.total
        self.reads_again = dataset.reads_again
        self.columns: Sequence[str] | None = dataset.columns
        self._model = model
        self._options = options

    def contexts(self, plan: Plan) -> Iterable[Context]:
        """The data's contexts in their order, with what the plan asks of tokens."""
        self.encoder.spans = plan.text
        # Chats are made texts one by one, in Python: nothing to gain, and more that can go wrong.
        self.encoder.ahead = self.encoder.chats is None and _idle(self._model)
        if self.encoder.ahead:
            return self.encoder(self.dataset.read(), self.dataset.note)
        return self.encoder(self.dataset)

    def work(self, plan: Plan) -> Work:
        return token_work(self._model, self.feed, self.contexts(plan), plan, self._options)

    def first(self, plan: Plan, samples: int) -> list[Context]:
        """The contexts of the first samples, of data that can be read again."""
        self.encoder.spans = plan.text
        return list(self.encoder(islice(self.dataset, samples)))

    @property
    def refused(self) -> Sequence[Skipped]:
        return self.encoder.refused

    def facts(self) -> dict[str, str | int]:
        counts = attrs.asdict(self.encoder.counts)
        counts["tokens_read"] = counts.pop("tokens")
        return {
            "data": self.dataset.source,
            "data_fingerprint": self.dataset.fingerprint,
            "max_length": self.width,
            "overflow": self.encoder.overflow,
            **(
                {} if self.encoder.chats is None else {"chat_template": self.encoder.chats.template}
            ),
            **counts,
        }


def _idle(model: Model) -> bool:
    """Whether a core has nothing to do while the model runs."""
    if model.device.type != "cpu":
        return True
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    return torch.get_num_threads() < (cores or 1)


def file_stamp(data: Any) -> tuple[int, ...] | None:
    """What changes when a data file does: its inode, size and time; None for what is no file."""
    if not isinstance(data, str | Path):
        return None
    try:
        found = os.stat(Path(data).expanduser())
    except (OSError, ValueError):
        return None
    return found.st_ino, found.st_size, found.st_mtime_ns


def check_target(model: Model, column: str | None) -> None:
    """Raise UsageError for a text for the decoder of a model that has none."""
    if column is not None and not model.is_encoder_decoder:
        message = f"`target` is for encoder-decoder models, and `{model.name}` is none"
        raise UsageError(Diagnostic("bad-option", message))


def _prompt_room(width: int, generation: During, options: RunOptions) -> int:
    """How many tokens a prompt may have: the last one that is written is never fed."""
    new, chat = int(generation.arguments["max_new_tokens"]), bool(options.get("chat"))
    # What is cut off a chat's end is the header of the answer that is to be written.
    fitting = ("error",) if chat else ("error", "truncate")
    overflow = options.get("overflow") or "error"
    if overflow not in fitting:
        message = f"`overflow` cannot be `{overflow}` where {'chats' if chat else 'texts'} are "
        notes = (f"it is {' or '.join(fitting)}",)
        raise UsageError(Diagnostic("bad-option", message + "continued", notes=notes))
    if new > width:
        message = f"{new} new tokens do not fit into a context of {width}"
        raise UsageError(Diagnostic("bad-max-length", message, help="ask for fewer"))
    return width - new + 1


def _max_length(model: Model, options: RunOptions) -> int:
    """How many tokens a context holds: what the user asks for, at most what the model can."""
    asked = options.get("max_length")
    if asked is not None and model.context is not None and asked > model.context:
        message = f"a max length of {asked} is more than the model's context of {model.context}"
        raise UsageError(Diagnostic("bad-max-length", message))
    return asked or model.context or _DEFAULT_CONTEXT
