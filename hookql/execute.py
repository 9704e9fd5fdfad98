"""One run from end to end: model, data, plan, passes, result, files. Both faces call this."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any

import torch
import xarray
from attrs import evolve, frozen

from hookql.binding import bind
from hookql.binding_errors import needs_generation
from hookql.data.samples import Dataset
from hookql.engines.local import Outcome
from hookql.engines.local import run as run_local
from hookql.engines.trial_generation import tried_generation
from hookql.errors import (
    Diagnostic,
    Interrupted,
    QueryError,
    UsageError,
    did_you_mean,
    listing,
)
from hookql.interrupts import interruptible
from hookql.language import ast
from hookql.language.pieces import used_in
from hookql.language.places import check_into
from hookql.language.query import Query
from hookql.language.walk import walk
from hookql.models.feed import TokenFeed
from hookql.models.generation import cannot_generate
from hookql.models.load import Model, load_model, wrap_model
from hookql.models.paranoid import paranoid
from hookql.options import (
    ModelOptions,
    RunOptions,
    check_checkpoint,
    check_options,
    model_options,
)
from hookql.plan import Plan
from hookql.progress import progress as progress_bar
from hookql.raw.schema import keeps_rows
from hookql.results.collect import collect
from hookql.results.outputs import plan_outputs
from hookql.results.provenance import provenance
from hookql.running.identity import tokenizer_name
from hookql.running.outlook import Outlook, counted, file_shelves, outlooks
from hookql.running.prepare import prepare
from hookql.running.remarks import data_changed, interrupted, remarks, stored_infinite
from hookql.running.saving import save_all, scratch, written_by
from hookql.source import check_target, file_stamp, open_source, open_texts
from hookql.work import Source

AnyModel = str | Path | torch.nn.Module | Model


@frozen(eq=False)
class Finished:
    """A run's result, with what the command line says about it."""

    tree: xarray.DataTree
    plan: Plan
    written: tuple[Path, ...]
    warnings: tuple[Diagnostic, ...]


def execute(
    query: Query,
    *,
    model: AnyModel,
    data: Any = None,
    texts: Sequence[str] = (),
    inputs: Mapping[str, Any] | None = None,
    tokenizer: Any = None,
    output: Path | None = None,
    overwrite: bool = False,
    progress: bool | None = None,
    say: Callable[[str], None] | None = None,
    options: RunOptions,
) -> Finished:
    """Run a query; see `hookql.run` for what the arguments mean and what is raised.

    ``say`` is given lines about the run while it goes on; with it, and only then, SIGINT, SIGTERM
    and SIGHUP end the run after the batch that is being run, and `Interrupted` is raised.
    """
    check_options(options)
    check_checkpoint(options)
    _check_texts(texts)
    folder = Path() if output is None else output.parent
    check_into(query, bool(options.get("into_anywhere")), folder)
    # What a run that is resumed has written already is no stranger's file: looked at below.
    outputs = plan_outputs(query, output, overwrite or bool(options.get("resume")))
    stamp = file_stamp(data)
    # Data first: what is wrong with it is said before a model takes its time to load.
    dataset = open_texts(data, texts, inputs, options)
    loaded = get_model(model, tokenizer, options)
    check_generation(query, loaded)
    source = open_source(loaded, dataset, inputs, options, query.generation)
    plan = _bound(query, loaded, source)
    started = datetime.now(UTC)
    with contextlib.ExitStack() as stack:
        stack.enter_context(paranoid(bool(options.get("paranoid")) or None))
        if keeps_rows(plan) and not outputs.has_all:
            _check_rows_can_resume(options)
            outputs = evolve(outputs, main=stack.enter_context(scratch()) / "values.nc")
        disk = prepare(plan, source, outputs, options, say or (lambda line: None), progress)
        stack.callback(disk.close)
        ended = disk.checkpoint is not None and bool(disk.checkpoint.facts.get("ended"))
        outputs = evolve(outputs, overwrite=overwrite)
        outputs.check(mine=partial(written_by, plan, disk.survey) if ended else None)
        outputs = evolve(outputs, overwrite=overwrite or ended)
        outcome = Outcome.of(plan, source.width)
        disk.resume(outcome)
        if say is not None and outcome.done:
            say(f"resuming after {outcome.done:,} batches, {outcome.tokens:,} tokens")
        stop = stack.enter_context(interruptible(say)) if say is not None else None
        with progress_bar(source.total, show=progress) as tick:
            run_local(
                plan,
                source.work(plan),
                width=source.width,
                tick=tick,
                sink=disk,
                group_bytes=(options.get("group_memory") or 1000) * 1_000_000,
                outcome=outcome,
                stop=(lambda: False) if stop is None else stop,
                on_error="skip" if options.get("on_error") == "skip" else "stop",
            )
        if outcome.interrupted and disk.checkpoint is not None:
            disk.save(outcome, ended=ended)
            raise Interrupted(interrupted(outcome, source, (), disk.checkpoint.folder))
        _check_columns(plan, dataset)
        facts = source.facts()
        disk.check_data(outcome, facts)
        written = disk.finish(outcome, int(facts["samples"]))
        results = collect(plan, outcome, written.streamed, int(facts["samples"]))
        attributes = _attributes(plan, outcome, source, started)
        skipped = sorted(
            [*source.refused, *outcome.skipped_contexts], key=lambda each: (each.sample, each.chunk)
        )
        early = f"after {outcome.done:,} batches" if outcome.interrupted else None
        tree, files = save_all(
            results, attributes, skipped, outputs, written, early, disk.token, outcome.generated
        )
        if outcome.interrupted:
            raise Interrupted(interrupted(outcome, source, files, None))
        disk.saved(files)
    noticed = [data_changed(data)] if stamp != file_stamp(data) else []
    noticed += [stored_infinite(written.infinite)] if written.infinite else []
    return Finished(tree, plan, files, (*noticed, *remarks(plan, outcome, source, results)))


def _check_rows_can_resume(options: RunOptions) -> None:
    """Refuse a checkpoint of rows without a file: they lie in a folder of this process alone."""
    if options.get("checkpoint") is not None:
        message = "raw values of a run with a checkpoint have to go into a file, and none is given"
        help = "give `-o FILE.nc` (from Python: output=...)"
        raise UsageError(Diagnostic("no-output", message, help=help))


def check_generation(query: Query, model: Model) -> None:
    """Raise QueryError where a query asks for generated tokens that cannot be had."""
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


def _check_columns(plan: Plan, dataset: Dataset | None) -> None:
    """Refuse a column that no sample had, where the data could not say so beforehand."""
    if dataset is None or dataset.columns is not None:
        return
    wrong = {
        node.column: Diagnostic(
            "unknown-column",
            f"no sample has a column `{node.column}`",
            span=node.span,
            source=plan.query.source,
            help=did_you_mean(node.column, sorted(dataset.seen)),
            notes=(f"columns: {listing(sorted(dataset.seen)) or 'none'}",),
        )
        for node in _asked(plan)
        if isinstance(node, ast.Row) and node.column not in dataset.seen
    }
    if wrong:
        raise QueryError(wrong.values())


def _asked(plan: Plan) -> list[ast.Node]:
    """All that the query says of tokens."""
    wheres = [selector.where for selector in plan.selectors]
    return [n for whole in (*wheres, *plan.columns) if whole is not None for n in walk(whole)]


def _check_texts(texts: object) -> None:
    """A text is a sequence of texts too, of its characters: surely not what was meant."""
    if isinstance(texts, str | bytes):
        message = f"`texts` is one text ({type(texts).__name__}), not a list of texts"
        raise UsageError(Diagnostic("bad-texts", message, help="write `texts=[...]`"))


def get_model(model: AnyModel, tokenizer: Any, options: ModelOptions) -> Model:
    """The model that a name, a module or a `Model` stands for."""
    given = model_options(options)
    if isinstance(tokenizer, str | Path):
        message = "`tokenizer` is a name, not a tokenizer"
        advice = "give `AutoTokenizer.from_pretrained(...)`"
        raise UsageError(Diagnostic("bad-option", message, help=advice))
    if isinstance(model, str | Path):
        return load_model(str(model), **given)
    if given:
        message = f"`{next(iter(given))}` only goes with a model that HookQL loads by name"
        help = "leave it out, or give it to `hookql.load_model(...)`: a module is run as it is"
        raise UsageError(Diagnostic("model-option", message, help=help))
    return model if isinstance(model, Model) else wrap_model(model, tokenizer)


def plan_for(
    query: Query,
    model: AnyModel,
    tokenizer: Any,
    target: str | None,
    options: ModelOptions,
    chat: bool = False,
) -> Plan:
    """The plan of a query for a model, bound without data."""
    check_options(options)
    loaded = get_model(model, tokenizer, options)
    check_target(loaded, target)
    check_generation(query, loaded)
    feed = TokenFeed(loaded)
    feed.has_target, feed.knows_roles = target is not None, chat
    plan = bind(query, loaded, feed)
    return plan if query.generation is None else tried_generation(plan)


def _bound(query: Query, model: Model, source: Source) -> Plan:
    plan = bind(query, model, source.feed, source.columns)
    plan = evolve(plan, warnings=(*plan.warnings, *needs_generation(query)))
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
    loaded = get_model(model, tokenizer, options)
    check_generation(query, loaded)
    source = open_source(loaded, dataset, None, options, query.generation)
    plan = _bound(query, loaded, source)
    if not keeps_rows(plan):
        return plan, []
    found = counted(plan, source, progress=None)
    return plan, outlooks(file_shelves(plan, source, outputs, options, found), found)


def _attributes(
    plan: Plan, outcome: Outcome, source: Source, started: datetime
) -> dict[str, str | int | float]:
    model = plan.model
    offered = "; ".join(
        f"{name} of {whose}" for name, whose in used_in(plan.query.canonical).items()
    )
    found = provenance(
        query=plan.query.source.text,
        canonical=plan.query.canonical,
        model=model.name,
        model_class=model.class_name,
        revision=model.revision,
        weights=model.identity(),
        dtype=model.dtype,
        attention=model.attn,
        device=str(model.device),
        tokenizer=tokenizer_name(model.tokenizer),
        data=source.facts(),
        tokens_run=outcome.tokens,
        tokens_padding=outcome.padding,
        tokens_skipped=outcome.skipped,
        batches=outcome.batches,
        share=plan.share,
        seconds=outcome.seconds,
        started=started,
        ended=datetime.now(UTC),
    )
    return {**found, "extensions": offered} if offered else found
