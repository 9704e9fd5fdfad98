"""A query's plan for a model: what is checked, how the model is tried out, what `explain` needs."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from attrs import evolve

from hookql.binding import bind
from hookql.binding_errors import needs_generation
from hookql.engines.trial_generation import tried_generation, untried_generation
from hookql.errors import Diagnostic, ModelError, QueryError, UsageError
from hookql.known import known_or_probed
from hookql.language.query import Query
from hookql.loading import AnyModel, get_model, model_to_explain
from hookql.models.feed import Feed, TokenFeed
from hookql.models.generation import cannot_generate
from hookql.models.load import Model
from hookql.models.on_meta import is_on_meta, probe_shapes
from hookql.optimizer.rules import chosen
from hookql.options import ModelOptions, RunOptions, check_options
from hookql.plan import Plan
from hookql.raw.schema import keeps_rows
from hookql.results.outputs import plan_outputs
from hookql.running.outlook import Outlook, counted, file_shelves, outlooks
from hookql.source import check_target, open_source, open_texts
from hookql.stored.derived import Look
from hookql.work import Source


def check_generation(query: Query, model: Model, options: ModelOptions) -> None:
    """Raise QueryError where a query asks for generated tokens that cannot be had.

    UsageError where the options ask for what only plain passes can do.
    """
    for name in ("autocast", "compile"):
        if query.generation is not None and options.get(name):
            message = f"`{name}` does not go with `during generate`"
            raise UsageError(Diagnostic("conflicting-options", message, help="leave one out"))
    wrong = [found for found in needs_generation(query) if found.severity == "error"]
    during = query.generation
    if during is not None:
        refused = cannot_generate(model)
        if refused is None and "max_new_tokens" not in during.arguments:
            message = "`during generate` does not say how much"
            help = "write `during generate(max_new_tokens=32)`"
            refused = Diagnostic("no-length", message, help=help)
        if refused is not None:
            wrong.append(evolve(refused, span=during.span, source=query.source))
    if wrong:
        raise QueryError(wrong)


def plan_for(
    query: Query,
    model: AnyModel,
    tokenizer: Any,
    target: str | None,
    options: ModelOptions | RunOptions,
    chat: bool = False,
    explaining: bool = False,
) -> Plan:
    """The plan of a query for a model, bound without data; to explain it, without weights too."""
    check_options(options)

    def planned(loaded: Model) -> Plan:
        check_target(loaded, target)
        check_generation(query, loaded, options)
        feed = TokenFeed(loaded)
        feed.has_target, feed.knows_roles = target is not None, chat
        return _tried(query, loaded, feed, None, options)

    if explaining:
        return _explained(planned, model, tokenizer, options)
    return planned(get_model(model, tokenizer, options))


def _explained(
    planned: Callable[[Model], Plan],
    model: AnyModel,
    tokenizer: Any,
    options: ModelOptions | RunOptions,
) -> Plan:
    """A plan without the model's weights, where that is enough to see what its pass does."""
    loaded = model_to_explain(model, tokenizer, options)
    try:
        return planned(loaded)
    except ModelError as error:
        if not is_on_meta(loaded) or error.code != "probe-failed":
            raise
    return planned(get_model(model, tokenizer, options))  # its pass depends on numbers


def bound(
    query: Query, model: Model, source: Source, options: RunOptions, look: Look | None = None
) -> Plan:
    """The plan of a query for a model and a source; where it generates, that was tried out.

    ``look`` tells of the model what is known of it, where it need not be tried out.
    """
    if look is None:
        plan = _tried(query, model, source.feed, source.columns, options)
    else:
        rules = chosen(options.get("optimize"))
        plan = bind(query, model, source.feed, source.columns, rules, look)
    return evolve(plan, warnings=(*plan.warnings, *needs_generation(query)))


def _tried(
    query: Query,
    model: Model,
    feed: Feed,
    columns: Sequence[str] | None,
    options: ModelOptions | RunOptions,
) -> Plan:
    """The plan, by trying the model out; of one without weights, by the shapes of its pass."""
    asked: Any = options.get("optimize")
    rules = chosen(asked)
    if is_on_meta(model):
        plan = bind(query, model, feed, columns, rules, probe_shapes)
        return plan if query.generation is None else untried_generation(plan)
    plan = bind(query, model, feed, columns, rules, known_or_probed)
    return plan if query.generation is None else tried_generation(plan)


def outlook_for(
    query: Query,
    model: AnyModel,
    tokenizer: Any,
    data: Any,
    texts: Sequence[str],
    output: Path | None,
    options: RunOptions,
) -> tuple[Plan, list[Outlook]]:
    """The plan of a query for a model and data, and what raw rows it will give."""
    check_options(options)
    outputs = plan_outputs(query, output or Path("values.nc"), overwrite=True)
    dataset = open_texts(data, texts, None, options)

    def planned(loaded: Model) -> Plan:
        check_generation(query, loaded, options)
        source = open_source(loaded, dataset, None, options, query.generation)
        return bound(query, loaded, source, options)

    plan = _explained(planned, model, tokenizer, options)
    if not keeps_rows(plan):
        return plan, []
    source = open_source(plan.model, dataset, None, options, query.generation)
    found = counted(plan, source, progress=None)
    return plan, outlooks(file_shelves(plan, source, outputs, options, found), found)
