"""How a result was made: the root attributes of every file."""

from __future__ import annotations

import platform
from collections.abc import Mapping
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version


def provenance(
    *,
    query: str,
    canonical: str,
    model: str,
    model_class: str,
    revision: str | None,
    weights: str,
    dtype: str,
    attention: str | None,
    device: str,
    tokenizer: str,
    data: Mapping[str, str | int],
    tokens_run: int,
    tokens_padding: int,
    tokens_skipped: int,
    tokens_spared: int,
    optimize: str,
    batches: int,
    share: float,
    seconds: float,
    started: datetime,
    ended: datetime,
    versions: Mapping[str, str] | None = None,
) -> dict[str, str | int | float]:
    """The attributes of a run, from plain values.

    ``data`` holds the data's own facts (``data``, ``data_fingerprint``, ``samples``, ...), which
    become attributes of those names. ``share`` is the part of the forward pass that was run, 0 to
    1; ``tokens_spared`` are tokens of batches that ran, without them; ``optimize`` names the rules
    that were on; ``seconds`` is the time of the passes; ``started`` and ``ended`` need a time zone.
    ``versions`` are the installed ones unless given.
    """
    versions = installed() if versions is None else versions
    maker = f"HookQL {versions.get('hookql', 'unknown')}"
    return {
        "title": "Statistics of a neural network's activations",
        "source": maker,
        "history": f"{_iso(ended)}: written by {maker}",
        "query": query,
        "query_canonical": canonical,
        "model": model,
        "model_class": model_class,
        "model_revision": revision or "none",
        "model_weights": weights,
        "tokenizer": tokenizer,
        **data,
        "tokens_run": tokens_run,
        "tokens_padding": tokens_padding,
        "tokens_skipped": tokens_skipped,
        "tokens_spared": tokens_spared,
        "optimize": optimize,
        "batches": batches,
        "dtype_run": dtype.removeprefix("torch."),
        "dtype_stored": "float64",
        "attention": attention or "none",
        "device": device,
        "forward_share": float(share),
        "seconds": round(float(seconds), 6),
        "started": _iso(started),
        "ended": _iso(ended),
        **{f"{name}_version": number for name, number in versions.items()},
    }


def installed() -> dict[str, str]:
    """The versions of what makes a result: hookql, torch, transformers, numpy, xarray, python."""
    found = {}
    for package in ("hookql", "torch", "transformers", "numpy", "xarray"):
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            found[package] = "unknown"
    return {**found, "python": platform.python_version()}


def _iso(moment: datetime) -> str:
    """ISO 8601 in UTC to the millisecond: ``2026-01-31T12:00:00.000Z``."""
    return moment.astimezone(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
