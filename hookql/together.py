"""Several queries over one model: those that share data run in one pass, each with its own result.

What a query's result is does not depend on its company. A pass that fails is not blamed on anybody:
its queries run one by one then, and what fails, fails by itself.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from datetime import UTC, datetime
from itertools import islice
from pathlib import Path
from typing import Any

from attrs import evolve, frozen

from hookql.binding import bind
from hookql.data.batches import EVERYTHING, Batch
from hookql.engines.local import Outcome
from hookql.engines.local import run as run_local
from hookql.errors import Diagnostic, HookQLError, Interrupted, UsageError
from hookql.execute import (
    Finished,
    check_columns,
    compiled_between,
    conclude,
    execute,
    how_compiled,
)
from hookql.interrupts import interruptible
from hookql.known import known_or_probed
from hookql.language.query import Query
from hookql.models.load import Model
from hookql.models.paranoid import paranoid
from hookql.models.precision import with_autocast
from hookql.optimizer.rules import chosen
from hookql.optimizer.sharing import Passes, merged, part, together
from hookql.optimizer.splitting import split
from hookql.options import RunOptions, check_options
from hookql.plan import Plan
from hookql.planning import bound, check_generation
from hookql.progress import progress as progress_bar
from hookql.raw.room import check_room
from hookql.raw.schema import keeps_rows
from hookql.raw.survey import Survey
from hookql.results.collect import settle
from hookql.results.outputs import Outputs, plan_outputs
from hookql.results.stream import Stream
from hookql.running.batching import with_budget
from hookql.running.disk import Disk
from hookql.running.outlook import counted, file_shelves, outlooks
from hookql.running.prepare import prepare
from hookql.running.remarks import data_changed, interrupted
from hookql.running.saving import scratch
from hookql.source import file_stamp, open_source, open_texts
from hookql.work import Source

# What is looked at to know how many tokens each query needs.
_SAMPLES, _BATCHES = 256, 64


@frozen(eq=False)
class Order:
    """A query and all that its run takes, but for the model."""

    name: str
    query: Query
    data: Any
    texts: Sequence[str]
    inputs: Mapping[str, Any] | None
    output: Path | None
    overwrite: bool
    options: RunOptions


@frozen(eq=False)
class _Part:
    """One query within a pass: its part of the plan, where its result goes, and what writes it."""

    order: Order
    plan: Plan
    outputs: Outputs
    disk: Disk


def passes_for(orders: Sequence[Order], plans: Mapping[str, Plan], model: Model) -> Passes:
    """Which of the queries run together; ``plans`` are they by themselves, by name."""
    alike: list[list[Order]] = []
    why: dict[str, str] = {}
    for order in orders:
        why |= {order.name: reason} if (reason := _by_itself(order)) else {}
        company = next((g for g in alike if order.name not in why and _same(g[0], order)), None)
        if order.name in why:
            continue
        if company is None:
            alike.append([order])
        else:
            company.append(order)
    groups: list[tuple[str, ...]] = [(name,) for name in why]
    for of_data in alike:
        found = _over(of_data, plans, model)
        groups += found.groups
        why |= found.why
    names = [order.name for order in orders]
    return Passes(tuple(sorted(groups, key=lambda group: names.index(group[0]))), why)


def _by_itself(order: Order) -> str | None:
    options = order.options
    if "sharing" not in chosen(options.get("optimize")):
        return "the rule `sharing` is off"
    if options.get("checkpoint") is not None:
        return "it has a checkpoint of its own"
    if options.get("store") is not None:
        return "its answer is looked up, and kept, by itself"
    if options.get("on_error") == "skip":
        return "with `on_error: skip`, samples that fail for another query would be left out here"
    return None


def _same(one: Order, other: Order) -> bool:
    """Whether two queries are run on the same, in the same way."""
    same = one.data is other.data or (isinstance(one.data, str | Path) and one.data == other.data)
    return (
        same
        and tuple(one.texts) == tuple(other.texts)
        and one.inputs is other.inputs
        and one.options == other.options
    )


def _over(orders: Sequence[Order], plans: Mapping[str, Plan], model: Model) -> Passes:
    """The passes of queries over the same data."""
    first = orders[0]
    looks = len(orders) > 1 and _source(first, model, {}).reads_again

    def beginning() -> Iterable[Batch]:
        most = min(_SAMPLES, first.options.get("limit") or _SAMPLES)
        only = {} if first.inputs is not None else {"limit": most}
        source = _source(first, model, only)
        texts = any(plan.text for plan in plans.values())
        plan = next((p for o in orders if (p := plans[o.name]).text or not texts), None)
        return islice(source.work(plan or plans[first.name]).batches, _BATCHES)

    mine = {order.name: plans[order.name] for order in orders}
    try:
        return together(mine, beginning if looks else None)
    except HookQLError:  # of the data: said by the run that it is the error of
        why = "a look at the data's beginning met an error"
        return Passes(tuple((name,) for name in mine), dict.fromkeys(mine, why))


def check_data(orders: Sequence[Order], passes: Passes, model: Model) -> None:
    """Refuse data that several passes would each have a part of: it can be read only once.

    ``orders`` are over the same data.
    """
    if len(passes.groups) < 2 or _source(orders[0], model, {}).reads_again:
        return
    message = f"the data can be read only once, and {len(passes.groups)} passes are needed"
    alone = [f"`{name}` runs alone: {reason}" for name, reason in passes.why.items()]
    help = "give data that can be read again, such as a list or a file"
    raise UsageError(Diagnostic("data-read-once", message, help=help, notes=tuple(alone)))


def _source(order: Order, model: Model, more: Mapping[str, Any]) -> Source:
    options: Any = {**order.options, **more}
    dataset = open_texts(order.data, order.texts, order.inputs, options)
    return open_source(model, dataset, order.inputs, options, order.query.generation)


def plans_of(orders: Iterable[Order], model: Model) -> dict[str, Plan]:
    """The plan of each query by itself. Raises what is wrong with the first that is."""
    found = {}
    for order in orders:
        check_options(order.options)
        model = with_autocast(model, order.options.get("autocast"))
        check_generation(order.query, model, order.options)
        source = _source(order, model, {})
        query, rules = order.query, chosen(order.options.get("optimize"))
        found[order.name] = bind(query, model, source.feed, source.columns, rules, known_or_probed)
    return found


def run_each(
    orders: Sequence[Order],
    passes: Passes,
    plans: Mapping[str, Plan],
    model: Model,
    progress: bool | None,
    say: Callable[[str], None] | None,
) -> Iterator[tuple[tuple[str, ...], Finished | HookQLError]]:
    """Run all, pass by pass, and yield each query's result, or the error that is its own.

    Of a pass those with a result come first. Only an error that says that a pass was asked to stop
    is of several queries: what there is of each is written.
    """
    named = {order.name: order for order in orders}
    for group in passes.groups:
        members = [named[name] for name in group]
        try:
            found = _joint(members, plans, model, progress, say) if len(members) > 1 else {}
        except Interrupted as error:
            yield group, error
            continue
        for name, each in sorted(found.items(), key=lambda f: isinstance(f[1], HookQLError)):
            yield (name,), each
        for order in members if not found else ():
            yield (order.name,), _alone(order, model, progress, say)


def _joint(
    orders: Sequence[Order],
    plans: Mapping[str, Plan],
    model: Model,
    progress: bool | None,
    say: Callable[[str], None] | None,
) -> dict[str, Finished | HookQLError]:
    """What queries have of one pass; nothing where it fails, and each may be run by itself."""
    if say is not None:
        say(f"{len(orders)} queries in one pass: {', '.join(order.name for order in orders)}")
    try:
        return run_pass(orders, plans, model, progress, say)
    except Interrupted:
        raise
    except HookQLError as error:
        if not _source(orders[0], model, {}).reads_again:
            return {order.name: error for order in orders}
        return {}


def naming(
    error: HookQLError, names: Sequence[str], done: Sequence[str], every: Sequence[str]
) -> HookQLError:
    """An error of one of several queries, or of those of a pass, that says of which."""
    if len(every) == 1:
        return error
    first, *others = error.diagnostics
    left = [name for name in every if name not in (*done, *names)]
    said = ", ".join(f"`{name}`" for name in names)
    note = f"this was the query {said}" if len(names) == 1 else f"these were the queries {said}"
    note += f"; finished: {', '.join(done)}" if done else ""
    note += f"; not run: {', '.join(left)}" if left else ""
    return type(error)([evolve(first, notes=(*first.notes, note)), *others])


def _alone(
    order: Order, model: Model, progress: bool | None, say: Callable[[str], None] | None
) -> Finished | HookQLError:
    try:
        return execute(
            order.query,
            model=model,
            data=order.data,
            texts=order.texts,
            inputs=order.inputs,
            output=order.output,
            overwrite=order.overwrite,
            progress=progress,
            say=say,
            options=order.options,
        )
    except HookQLError as error:
        return error


def run_pass(
    orders: Sequence[Order],
    plans: Mapping[str, Plan],
    model: Model,
    progress: bool | None,
    say: Callable[[str], None] | None,
) -> dict[str, Finished | HookQLError]:
    """Run queries over the same data in one pass; the result of each, or why it has none.

    Raises HookQLError where the pass itself fails, and `Interrupted` once what there is of each
    query is written.
    """
    first, options = orders[0], orders[0].options
    model = with_autocast(model, options.get("autocast"))
    for order in orders:
        check_generation(order.query, model, options)
    stamp = file_stamp(first.data)
    dataset = open_texts(first.data, first.texts, first.inputs, options)
    source = open_source(model, dataset, first.inputs, options, first.query.generation)
    whole = bound(merged(order.query for order in orders), model, source, options)
    whole = with_budget(whole, source, options)
    started = datetime.now(UTC)
    with contextlib.ExitStack() as stack:
        stack.enter_context(paranoid(bool(options.get("paranoid")) or None))
        parts = _parts(orders, plans, whole, source, progress, say, stack)
        outcome = Outcome.of(whole, source.width)
        made = stack.enter_context(compiled_between(whole)) if options.get("compile") else ()
        stop = stack.enter_context(interruptible(say)) if say is not None else None
        with progress_bar(source.total, show=progress) as tick:
            run_local(
                whole,
                source.work(whole),
                width=source.width,
                tick=tick,
                sink=lambda outcome, batch: _take(whole, parts, outcome, batch),
                group_bytes=(options.get("group_memory") or 1000) * 1_000_000,
                outcome=outcome,
                stop=(lambda: False) if stop is None else stop,
            )
        found: dict[str, Finished | HookQLError] = {}
        noticed = (data_changed(first.data),) if stamp != file_stamp(first.data) else ()
        for each in parts:
            with contextlib.suppress(HookQLError):  # which its own `conclude` raises again
                each.disk.drain()
        for each in parts:
            others = [order.name for order in orders if order is not each.order]
            try:
                check_columns(plans[each.order.name], dataset)
                mine = split(each.plan, outcome)
                beside = {"pass_shared_with": ", ".join(others), **how_compiled(made)}
                done = conclude(
                    each.plan, mine, source, each.disk, each.outputs, started, options, beside
                )
                found[each.order.name] = evolve(done, warnings=(*noticed, *done.warnings))
            except HookQLError as error:
                found[each.order.name] = error
        if outcome.interrupted:
            raise Interrupted(_stopped(outcome, source, found))
    return found


def _stopped(
    outcome: Outcome, source: Source, found: Mapping[str, Finished | HookQLError]
) -> list[Diagnostic]:
    files = [f for each in found.values() if isinstance(each, Finished) for f in each.written]
    wrong = [d for e in found.values() if isinstance(e, HookQLError) for d in e.diagnostics]
    return [interrupted(outcome, source, files, None), *wrong]


def _parts(
    orders: Sequence[Order],
    plans: Mapping[str, Plan],
    whole: Plan,
    source: Source,
    progress: bool | None,
    say: Callable[[str], None] | None,
    stack: contextlib.ExitStack,
) -> list[_Part]:
    """What each query writes to, made and checked; closed with the stack."""
    found = counted(whole, source, progress) if keeps_rows(whole) else None
    options = orders[0].options
    planned = []
    for order in orders:
        plan = part(whole, plans[order.name])
        outputs = plan_outputs(order.query, order.output, order.overwrite)
        if keeps_rows(plan) and not outputs.has_all:
            outputs = evolve(outputs, main=stack.enter_context(scratch()) / "values.nc")
        planned.append((order, plan, outputs))
    _check_room([(p, o) for _, p, o in planned if keeps_rows(p)], source, options, found)
    parts = []
    for order, plan, outputs in planned:
        rows = found if keeps_rows(plan) else None
        disk = prepare(plan, source, outputs, options, say or (lambda line: None), progress, rows)
        stack.callback(disk.close)
        parts.append(_Part(order, plan, outputs, disk))
    return parts


def _check_room(
    writing: Sequence[tuple[Plan, Outputs]],
    source: Source,
    options: RunOptions,
    found: Survey | None,
) -> None:
    """Refuse the files of all queries together where they do not fit beside each other."""
    needed: dict[Path, int] = {}
    for plan, outputs in writing if len(writing) > 1 else ():
        for each in outlooks(file_shelves(plan, source, outputs, options, found), found):
            folder = each.path.absolute().parent
            needed[folder] = needed.get(folder, 0) + (each.size or 0)
    check_room(needed, bool(options.get("force")))


def _take(whole: Plan, parts: Sequence[_Part], outcome: Outcome, batch: Batch) -> None:
    """After a batch: each query's rows to its disk, and then out of memory."""
    for each in parts:
        if each.disk.shelves or each.plan.streams:
            each.disk(split(each.plan, outcome), batch)
    for detector in outcome.detectors.values():
        for job in detector.jobs.values():
            job.pieces.clear()
    if whole.streams and 0 < batch.complete < EVERYTHING:
        settle(whole, outcome)
        Stream(whole).forget(outcome, batch.complete)
