"""Results made by hand, for the tests of this folder."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import numpy as np

from hookql.errors import NOWHERE
from hookql.language import ast
from hookql.language.query import StatisticSpec
from hookql.results.captured import CaptureResult, GroupAxis, SiteResult
from hookql.results.provenance import provenance

WHEN = datetime(2026, 1, 31, 12, 30, 5, 250_000, tzinfo=UTC)


X = ast.Name("x")


def spec(
    name: str, variable: str | None = None, value: ast.Expression = X, **parameters: Any
) -> StatisticSpec:
    """A statistic asked for."""
    return StatisticSpec(name, value, parameters, variable or name, NOWHERE)


def numbers(*shape: int, start: float = 0.0) -> np.ndarray[Any, Any]:
    """Numbers that differ: start, start + 1, ..."""
    return start + np.arange(np.prod(shape, dtype=int), dtype=np.float64).reshape(shape)


def site(
    layer: int | None = 0,
    names: tuple[str, ...] = ("mean",),
    shape: tuple[int, ...] = (4,),
    axes: tuple[str, ...] | None = None,
    calls: int = 1,
    scale: float = 1.0,
    role: str = "transformer.h.attn",
    **given: Any,
) -> SiteResult:
    """One hook point's results."""
    axes = ("head", "feature")[2 - len(shape) :] if axes is None else axes
    full = (calls, *shape) if calls > 1 else shape
    variables = {
        n: scale * numbers(*full, start=10 * i + (layer or 0)) for i, n in enumerate(names)
    }
    values: dict[str, Any] = {
        "module": role.replace(".h.", f".h.{layer}.") if layer is not None else role,
        "layer": layer,
        "role": role,
        "calls": calls,
        "axes": axes,
        "count": 1234,
        "variables": variables,
    }
    return SiteResult(**(values | given))


def capture(
    *sites: SiteResult, names: tuple[str, ...] = ("mean",), name: str = "attn", **given: Any
) -> CaptureResult:
    """One capture's results."""
    text = f"capture {', '.join(names)} from transformer.h[0:6].attn"
    specs = tuple(spec(n, ddof=0) if n in ("std", "var") else spec(n) for n in names)
    values: dict[str, Any] = {
        "name": name,
        "text": text,
        "statistics": specs,
        "sites": sites,
        "attributes": {"tokens_kept": 1234},
    }
    return CaptureResult(**(values | given))


def attributes(**given: Any) -> dict[str, Any]:
    """How a made-up run was made."""
    values: dict[str, Any] = {
        "query": "capture mean, std\n  from transformer.h[0:6].attn where token != pad\n",
        "canonical": "capture mean, std from transformer.h[0:6].attn where token != pad",
        "model": "demo",
        "model_class": "GPT2LMHeadModel",
        "revision": None,
        "weights": "sha256:0123",
        "dtype": "float32",
        "attention": "sdpa",
        "device": "cpu",
        "tokenizer": "GPT2Tokenizer (4096 tokens)",
        "data": {"data": "first.txt", "data_fingerprint": "ab12", "samples": 36},
        "tokens_run": 1300,
        "tokens_padding": 84,
        "tokens_skipped": 0,
        "tokens_spared": 0,
        "optimize": "depth, rows",
        "batches": 4,
        "share": 0.4832,
        "seconds": 1.23,
        "started": WHEN,
        "ended": WHEN,
        "versions": {"hookql": "0.1.0", "torch": "2.13.0", "python": "3.11.9"},
    }
    return provenance(**(values | given))


def grouped(
    keys: tuple[GroupAxis, ...],
    variables: dict[str, np.ndarray[Any, Any]],
    count: np.ndarray[Any, Any],
    **given: Any,
) -> CaptureResult:
    """One capture of a module without layers, by keys."""
    one = site(None, variables=variables, count=count, role="lm_head")
    return capture(one, keys=keys, **given)


def normal(layer: int, *shape: int) -> np.ndarray[Any, Any]:
    """Numbers that look like a layer's."""
    return (1 + layer) * np.random.default_rng(layer).standard_normal(shape)
