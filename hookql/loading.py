"""The model that a query is run or explained with: whole, in part, or without its weights."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from hookql.errors import (
    Diagnostic,
    UsageError,
)
from hookql.language.query import Query
from hookql.models.load import Model, load_model, wrap_model
from hookql.models.precision import with_autocast
from hookql.optimizer.rules import chosen
from hookql.optimizer.weights import explained_model, load_for
from hookql.options import (
    ModelOptions,
    RunOptions,
    model_options,
)

AnyModel = str | Path | torch.nn.Module | Model


def get_model(model: AnyModel, tokenizer: Any, options: ModelOptions) -> Model:
    """The model that a name, a module or a `Model` stands for."""
    given = model_options(options)
    autocast: str | None = options.get("autocast")  # type: ignore[assignment]
    if isinstance(tokenizer, str | Path):
        message = "`tokenizer` is a name, not a tokenizer"
        advice = "give `AutoTokenizer.from_pretrained(...)`"
        raise UsageError(Diagnostic("bad-option", message, help=advice))
    if isinstance(model, str | Path):
        return with_autocast(load_model(str(model), **given), autocast)
    if given:
        message = f"`{next(iter(given))}` only goes with a model that HookQL loads by name"
        help = "leave it out, or give it to `hookql.load_model(...)`: a module is run as it is"
        raise UsageError(Diagnostic("model-option", message, help=help))
    found = model if isinstance(model, Model) else wrap_model(model, tokenizer)
    return with_autocast(found, autocast)


def model_for(
    query: Query,
    model: AnyModel,
    tokenizer: Any,
    inputs: Mapping[str, Any] | None,
    options: RunOptions,
) -> Model:
    """The same, of a name with no more weights than the query needs, where the rules say so."""
    by_name = isinstance(model, str | Path) and not isinstance(tokenizer, str | Path)
    # Inputs that are no tokens may run other modules.
    if inputs is None and by_name and {"depth", "weights"} <= chosen(options.get("optimize")):
        given = model_options(options)
        has_target = options.get("target") is not None
        found = load_for([query], str(model), has_target, tokenizer=tokenizer, **given)
        return with_autocast(found, options.get("autocast"))
    return get_model(model, tokenizer, options)


def model_to_explain(model: AnyModel, tokenizer: Any, options: ModelOptions | RunOptions) -> Model:
    """The same, of a name without any weights, where the rules say so and it can be had."""
    by_name = isinstance(model, str | Path) and not isinstance(tokenizer, str | Path)
    rules: Any = options.get("optimize")
    if by_name and "weights" in chosen(rules):
        found = explained_model(str(model), tokenizer=tokenizer, **model_options(options))
        if found is not None:
            return found
    return get_model(model, tokenizer, options)
