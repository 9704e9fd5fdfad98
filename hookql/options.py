"""The options that Python callers and the command line share, and their checks."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypedDict

from hookql.errors import Diagnostic, UsageError, did_you_mean
from hookql.optimizer.rules import chosen


class ModelOptions(TypedDict, total=False):
    """How a model given by name is loaded."""

    revision: str | None
    dtype: str | None
    device: str | None
    device_map: str | None
    attn: str | None
    trust_remote_code: bool
    allow_pickle: bool


class RunOptions(ModelOptions, total=False):
    """How the data is read and run, besides."""

    column: str | None
    split: str | None
    limit: int | None
    max_length: int | None
    overflow: str | None
    target: str | None
    chat: bool
    batch_size: int | None
    tokens_per_batch: int | None
    group_memory: int | None
    compress: str | None
    store_dtype: str | None
    store: str | Path | None
    checkpoint: str | Path | None
    resume: bool
    checkpoint_every: float | None
    on_error: str | None
    force: bool
    into_anywhere: bool
    paranoid: bool
    optimize: str | bool | None
    autocast: str | None
    compile: bool


CHOICES = {
    "compress": ("none", "zstd", "zlib"),
    "store_dtype": ("float32", "float64"),
    "on_error": ("stop", "skip"),
    "autocast": ("bfloat16", "float16"),
}
"""The options that are one word of a few."""
_COUNTS = ("limit", "max_length", "batch_size", "tokens_per_batch", "group_memory")


def check_options(options: Mapping[str, Any], kind: type = RunOptions) -> None:
    """Raise UsageError for an option that is none of its kind, or a count that is none."""
    known = tuple(kind.__annotations__)
    for name, value in options.items():
        if name not in known:
            raise UsageError(
                Diagnostic(
                    "unknown-option",
                    f"unknown option `{name}`",
                    help=did_you_mean(name, known),
                    notes=(f"options: {', '.join(known)}",),
                )
            )
        if name in CHOICES and value is not None and value not in CHOICES[name]:
            message = f"`{name}` cannot be {value!r}"
            notes = (f"it is one of {', '.join(CHOICES[name])}",)
            help = did_you_mean(str(value), CHOICES[name])
            raise UsageError(Diagnostic("bad-option", message, help=help, notes=notes))
        wrong = isinstance(value, bool) or not isinstance(value, int) or value < 1
        if name in _COUNTS and value is not None and wrong:
            message = f"`{name}` must be a whole number of 1 or more, not {value!r}"
            raise UsageError(Diagnostic("bad-option", message))
    chosen(options.get("optimize"))


def check_checkpoint(options: Mapping[str, Any]) -> None:
    """Raise UsageError for options of a checkpoint that is not there, or one that is no time."""
    every = options.get("checkpoint_every")
    number = isinstance(every, int | float) and not isinstance(every, bool)
    if every is not None and not (number and 0 < every < math.inf):
        message = f"`checkpoint_every` is a number of seconds above 0, not {every!r}"
        raise UsageError(Diagnostic("bad-option", message))
    for name in ("resume", "checkpoint_every"):
        if options.get(name) and options.get("checkpoint") is None:
            message = f"`{name}` goes with a checkpoint, and none is given"
            help = "name its folder: `--checkpoint DIR` (from Python: checkpoint=...)"
            raise UsageError(Diagnostic("needs-checkpoint", message, help=help))


def model_options(options: Mapping[str, Any]) -> dict[str, Any]:
    """Those options that say how a model is loaded, as far as they are given."""
    names = ModelOptions.__annotations__
    given = {n: v for n, v in options.items() if n in names and v not in (None, False)}
    for name in ("dtype", "device"):  # torch.bfloat16 and torch.device("cpu") are their names
        if name in given:
            given[name] = str(given[name]).removeprefix("torch.")
    return given
