"""One run from end to end: model, data, plan, passes, result, files. Both faces call this."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any

import xarray
from attrs import evolve, frozen

from hookql.data.samples import Dataset
from hookql.engines.local import Outcome
from hookql.engines.local import run as run_local
from hookql.engines.replaying import replay
from hookql.errors import Diagnostic, Interrupted, QueryError, UsageError, did_you_mean, listing
from hookql.interrupts import interruptible
from hookql.language import ast
from hookql.language.pieces import used_in
from hookql.language.places import check_into
from hookql.language.query import Query
from hookql.language.walk import walk
from hookql.loading import AnyModel, model_for
from hookql.models.compiled import compiled
from hookql.models.load import Model
from hookql.models.paranoid import paranoid
from hookql.options import RunOptions, check_checkpoint, check_options
from hookql.plan import Plan
from hookql.planning import bound, check_generation
from hookql.progress import progress as progress_bar
from hookql.raw.schema import keeps_rows
from hookql.results.collect import collect
from hookql.results.outputs import Outputs, plan_outputs
from hookql.results.provenance import provenance
from hookql.running.batching import with_budget
from hookql.running.disk import Disk
from hookql.running.identity import tokenizer_name
from hookql.running.prepare import prepare
from hookql.running.remarks import data_changed, interrupted, remarks, stored_infinite
from hookql.running.saving import save_all, scratch, written_by
from hookql.source import TextSource, file_stamp, open_source, open_texts
from hookql.stored.answers import Asked, ask, outlook
from hookql.stored.copies import FROM_STORE
from hookql.stored.derived import Derived
from hookql.stored.described import values_of
from hookql.stored.rows import NotAsKept, not_as_kept
from hookql.work import Source, tokens_per_batch


@frozen(eq=False)
class Finished:
    """A run's result, with what the command line says about it."""

    tree: xarray.DataTree
    plan: Plan | None  # None of an answer from a store
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
    given = (query, model, data, texts, inputs, tokenizer, output, overwrite, progress, say)
    try:
        return _execute(*given, options, True)
    except NotAsKept as error:  # of values in a store, whose files were whole a moment ago
        finished = _execute(*given, options, False)
        return evolve(finished, warnings=(not_as_kept(error), *finished.warnings))


def _execute(
    query: Query,
    model: AnyModel,
    data: Any,
    texts: Sequence[str],
    inputs: Mapping[str, Any] | None,
    tokenizer: Any,
    output: Path | None,
    overwrite: bool,
    progress: bool | None,
    say: Callable[[str], None] | None,
    options: RunOptions,
    reuse: bool,
) -> Finished:
    """One attempt; without ``reuse`` values in a store are left alone. Raises NotAsKept with it."""
    check_options(options)
    check_checkpoint(options)
    check_texts(texts)
    folder = Path() if output is None else output.parent
    check_into(query, bool(options.get("into_anywhere")), folder)
    # What a run that is resumed has written already is no stranger's file: looked at below.
    outputs = plan_outputs(query, output, overwrite or bool(options.get("resume")))
    stamp = file_stamp(data)
    # Data first: what is wrong with it is said before a model takes its time to load.
    dataset = open_texts(data, texts, inputs, options)
    loaded = model_for(query, model, tokenizer, inputs, options)
    check_generation(query, loaded, options)
    source = open_source(loaded, dataset, inputs, options, query.generation)
    asked = asked_of_store(query, source, loaded, inputs, options)
    answer = None if asked is None or options.get("resume") else asked.answer(outputs)
    if answer is not None:
        if say is not None:
            say(answer.said)
        return Finished(answer.tree, None, answer.written, answer.warnings)
    derived = None
    if asked is not None and reuse:
        asked, derived = derived_of(asked, query, loaded, source, options)
    if derived is None:
        plan = with_budget(bound(query, loaded, source, options), source, options)
    else:
        plan = derived.plan
        if say is not None:
            say(derived.said)
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
        told: Any = {
            "width": source.width,
            "sink": disk,
            "group_bytes": (options.get("group_memory") or 1000) * 1_000_000,
            "outcome": outcome,
            "stop": (lambda: False) if stop is None else stop,
        }
        if derived is None:
            work = source.work(plan)
            stack.callback(getattr(work.batches, "close", lambda: None))
            parts = stack.enter_context(compiled_between(plan)) if options.get("compile") else ()
            on_error: Any = "skip" if options.get("on_error") == "skip" else "stop"
            with progress_bar(source.total, show=progress) as tick:
                run_local(plan, work, tick=tick, on_error=on_error, **told)
            beside = how_compiled(parts)
        else:
            assert isinstance(source, TextSource)
            contexts, tokens = source.contexts(plan), tokens_per_batch(plan, options)
            stack.callback(getattr(contexts, "close", lambda: None))
            rows = derived.rows(source.width, loaded.device, stack)
            with progress_bar(source.total, show=progress) as tick:
                replay(plan, contexts, rows, tokens=tokens, tick=tick, **told)
            beside = {FROM_STORE: derived.said}
        if outcome.interrupted and disk.checkpoint is not None:
            disk.save(outcome, ended=ended)
            raise Interrupted(interrupted(outcome, source, (), disk.checkpoint.folder))
        check_columns(plan, dataset)
        finished = conclude(plan, outcome, source, disk, outputs, started, options, beside, asked)
        if outcome.interrupted:
            raise Interrupted(interrupted(outcome, source, finished.written, None))
    noticed = [data_changed(data)] if stamp != file_stamp(data) else []
    return evolve(finished, warnings=(*noticed, *finished.warnings))


def conclude(
    plan: Plan,
    outcome: Outcome,
    source: Source,
    disk: Disk,
    outputs: Outputs,
    started: datetime,
    options: RunOptions,
    beside: Mapping[str, str] | None = None,
    asked: Asked | None = None,
) -> Finished:
    """The passes are over: results made and written, of an interrupted run what there is.

    ``beside`` are attributes besides those of every run; ``asked`` is who keeps the answer.
    """
    facts = source.facts()
    disk.check_data(outcome, facts)
    written = disk.finish(outcome, int(facts["samples"]))
    results = collect(plan, outcome, written.streamed, int(facts["samples"]))
    attributes = {**_attributes(plan, outcome, source, started, options), **(beside or {})}
    skipped = sorted(
        [*source.refused, *outcome.skipped_contexts], key=lambda each: (each.sample, each.chunk)
    )
    early = f"after {outcome.done:,} batches" if outcome.interrupted else None
    tree, files = save_all(
        results, attributes, skipped, outputs, written, early, disk.token, outcome.generated
    )
    if outcome.interrupted:
        return Finished(tree, plan, files, ())
    disk.saved(files)
    noticed = [stored_infinite(written.infinite)] if written.infinite else []
    noticed += remarks(plan, outcome, source, results)
    if asked is not None:
        parts = results, attributes, skipped, outcome.generated
        fingerprint, values = facts.get("data_fingerprint"), values_of(plan, results, options)
        noticed += asked.keep(*parts, outputs, noticed, fingerprint, values)
    return Finished(tree, plan, files, tuple(noticed))


def asked_of_store(
    query: Query,
    source: Source,
    model: Model,
    inputs: Mapping[str, Any] | None,
    options: RunOptions,
    make: bool = True,
) -> Asked | None:
    """What a store says of a run, before anything of the model runs; None without a store."""
    return ask(query, model, getattr(source, "dataset", None), inputs, options, make)


def said_of_store(
    query: Query,
    model: AnyModel,
    tokenizer: Any,
    data: Any,
    texts: Sequence[str],
    options: RunOptions,
) -> str | None:
    """What `explain` says of the store; None where none is given, or no data to look up."""
    if options.get("store") is None or (data is None and not texts and model != "demo"):
        return None
    dataset = open_texts(data, texts, None, options)
    loaded = model_for(query, model, tokenizer, None, options)
    source = open_source(loaded, dataset, None, options, query.generation)
    asked = asked_of_store(query, source, loaded, None, options, make=False)
    if asked is None:
        return None
    asked, derived = derived_of(asked, query, loaded, source, options)
    return outlook(asked, derived)


def derived_of(
    asked: Asked, query: Query, model: Model, source: Source, options: RunOptions
) -> tuple[Asked, Derived | None]:
    """How a query is answered from values that its store has kept; None where the model runs."""
    if not isinstance(source, TextSource) or options.get("resume"):
        return asked, None
    return asked.derived(lambda look: bound(query, model, source, options, look))


def _check_rows_can_resume(options: RunOptions) -> None:
    """Refuse a checkpoint of rows without a file: they lie in a folder of this process alone."""
    if options.get("checkpoint") is not None:
        message = "raw values of a run with a checkpoint have to go into a file, and none is given"
        help = "give `-o FILE.nc` (from Python: output=...)"
        raise UsageError(Diagnostic("no-output", message, help=help))


def compiled_between(plan: Plan) -> contextlib.AbstractContextManager[tuple[str, ...]]:
    """The plan's model compiled between its hook points; the names of what is."""
    found = plan.probe
    return compiled(plan.model, plan.feed, found.seen, found.events, plan.stop, plan.leave)


def check_columns(plan: Plan, dataset: Dataset | None) -> None:
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


def check_texts(texts: object) -> None:
    """A text is a sequence of texts too, of its characters: surely not what was meant."""
    if isinstance(texts, str | bytes):
        message = f"`texts` is one text ({type(texts).__name__}), not a list of texts"
        raise UsageError(Diagnostic("bad-texts", message, help="write `texts=[...]`"))


def _attributes(
    plan: Plan, outcome: Outcome, source: Source, started: datetime, options: RunOptions
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
        tokens_spared=outcome.spared,
        optimize=", ".join(sorted(plan.rules)) or "none",
        batches=outcome.batches,
        share=plan.share,
        seconds=outcome.seconds,
        started=started,
        ended=datetime.now(UTC),
    )
    if plan.feed.tokens:
        found["tokens_per_batch"] = tokens_per_batch(plan, options)
    said = {"extensions": offered, "autocast": model.autocast or ""}
    return {**found, **{name: words for name, words in said.items() if words}}


def how_compiled(parts: Sequence[str]) -> dict[str, str]:
    """What a result says of the parts that were compiled."""
    return {"compiled": f"{len(parts)} modules by torch.compile"} if parts else {}
