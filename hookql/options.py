"""The options that Python callers and the command line share, and their checks."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, TypedDict

from hookql.errors import Diagnostic, UsageError, did_you_mean


class ModelOptions(TypedDict, total=False):
    """How a model given by name is loaded."""

    revision: str | None
    dtype: str | None
    device: str | None
    device_map: str | None
    attn: str | None
    trust_remote_code: bool


class RunOptions(ModelOptions, total=False):
    """How the data is read and run, besides."""

    column: str | None
    split: str | None
    limit: int | None
    max_length: int | None
    overflow: str | None
    target: str | None
    batch_size: int | None
    tokens_per_batch: int | None
    group_memory: int | None


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
        wrong = isinstance(value, bool) or not isinstance(value, int) or value < 1
        if name in _COUNTS and value is not None and wrong:
            message = f"`{name}` must be a whole number of 1 or more, not {value!r}"
            raise UsageError(Diagnostic("bad-option", message))


def model_options(options: Mapping[str, Any]) -> dict[str, Any]:
    """Those options that say how a model is loaded, as far as they are given."""
    names = ModelOptions.__annotations__
    given = {n: v for n, v in options.items() if n in names and v not in (None, False)}
    for name in ("dtype", "device"):  # torch.bfloat16 and torch.device("cpu") are their names
        if name in given:
            given[name] = str(given[name]).removeprefix("torch.")
    return given
