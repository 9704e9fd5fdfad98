"""One run from end to end: model, data, plan, passes, result, files. Both faces call this."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import torch
import xarray
from attrs import evolve, frozen

from hookql.binding import bind
from hookql.data.samples import Dataset
from hookql.engines.local import Outcome
from hookql.engines.local import run as run_local
from hookql.errors import Diagnostic, QueryError, UsageError, did_you_mean, listing
from hookql.language import ast
from hookql.language.query import Query
from hookql.language.walk import walk
from hookql.models.feed import TokenFeed
from hookql.models.load import Model, load_model, wrap_model
from hookql.models.names import folded
from hookql.options import ModelOptions, RunOptions, check_options, model_options
from hookql.plan import Plan, PlannedCapture
from hookql.progress import progress as progress_bar
from hookql.results.captured import CaptureResult
from hookql.results.collect import collect
from hookql.results.outputs import plan_outputs
from hookql.results.provenance import provenance
from hookql.results.stream import Stream
from hookql.results.tree import build_tree
from hookql.source import check_target, open_source, open_texts
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
    options: RunOptions,
) -> Finished:
    """Run a query; see `hookql.run` for what the arguments mean and what is raised."""
    check_options(options)
    _check_texts(texts)
    outputs = plan_outputs(query, output, overwrite)
    # Data first: what is wrong with it is said before a model takes its time to load.
    dataset = open_texts(data, texts, inputs, options)
    loaded = get_model(model, tokenizer, options)
    source = open_source(loaded, dataset, inputs, options)
    plan = bind(query, loaded, source.feed, source.columns)
    started = datetime.now(UTC)
    with progress_bar(source.total, show=progress) as tick:
        folder = None if output is None else output.absolute().parent
        stream = Stream.of(plan, folder)
        outcome = run_local(
            plan,
            source.work(plan),
            width=source.width,
            tick=tick,
            sink=stream,
            group_bytes=(options.get("group_memory") or 1000) * 1_000_000,
        )
    _check_columns(plan, dataset)
    attributes = _attributes(plan, outcome, source, started)
    results = collect(plan, outcome, None if stream is None else stream.finished(outcome))
    tree = build_tree(results, attributes)
    rest = [r for r, path in zip(results, outputs.into, strict=True) if path is None]
    remaining: xarray.DataTree | None = tree
    if len(rest) < len(results):
        remaining = build_tree(rest, attributes) if rest else None
    written = outputs.write(results, attributes, remaining)
    warnings = (*plan.warnings, *_warnings(plan, outcome, source), *_no_numbers(plan, results))
    return Finished(tree, plan, written, warnings)


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
        help = "leave it out: a module is run as it is"
        raise UsageError(Diagnostic("model-option", message, help=help))
    return model if isinstance(model, Model) else wrap_model(model, tokenizer)


def plan_for(
    query: Query, model: AnyModel, tokenizer: Any, target: str | None, options: ModelOptions
) -> Plan:
    """The plan of a query for a model, bound without data."""
    check_options(options)
    loaded = get_model(model, tokenizer, options)
    check_target(loaded, target)
    feed = TokenFeed(loaded)
    feed.has_target = target is not None
    return bind(query, loaded, feed)


def _attributes(
    plan: Plan, outcome: Outcome, source: Source, started: datetime
) -> dict[str, str | int | float]:
    model = plan.model
    return provenance(
        query=plan.query.source.text,
        canonical=plan.query.canonical,
        model=model.name,
        model_class=model.class_name,
        revision=model.revision,
        weights=model.identity(),
        dtype=model.dtype,
        attention=model.attn,
        device=str(model.device),
        tokenizer=_tokenizer_name(model.tokenizer),
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


def _tokenizer_name(tokenizer: Any) -> str:
    if tokenizer is None:
        return "none"
    size = len(tokenizer) if hasattr(tokenizer, "__len__") else "?"
    return f"{type(tokenizer).__name__} ({size} tokens)"


def _warnings(plan: Plan, outcome: Outcome, source: Source) -> list[Diagnostic]:
    """What a user should look at in a finished run."""
    found = []
    for capture in plan.captures:
        jobs = [outcome.detectors[t.place].jobs[t.selector] for t in capture.targets]
        if any(job.kept for job in jobs):
            found += _empty_sites(capture, outcome)
        else:
            message = f"`{capture.name}` kept no token: all but its count is NaN"
            undefined = max(
                (
                    *(job.undefined for job in jobs),
                    *(outcome.undefined[n] for n in capture.selectors),
                )
            )
            why = f" (its `where` is undefined at {undefined:,} tokens)" if undefined else ""
            found.append(_warning("empty-selection", message + why))
    for detector in outcome.detectors.values():
        faulty = [item for job in detector.jobs.values() for item in job.nonfinite.items()]
        for operand, faults in faulty:
            point = detector.points[operand]
            if faults.first is not None:
                sample, chunk, position = outcome.place(faults.first)
                values = "values" if faults.count > 1 else "value"
                message = f"`{point}` has {faults.count:,} NaN or infinite {values}"
                part = f", chunk {chunk}," if chunk else ""
                where = f"the first in sample {sample}{part} at position {position}"
                found.append(_warning("non-finite", f"{message}, {where}"))
    facts = dict(source.facts())
    if facts.get("overflow") == "pack":
        facts.pop("samples_split")  # samples that straddle two contexts are what packing means
    for code, one, many in (
        ("tokens-dropped", "token was", "tokens were cut off by --overflow truncate"),
        ("samples-empty", "sample was", "samples were empty and not run"),
        ("samples-split", "sample was", "samples were longer than the context and split"),
    ):
        if number := int(facts.get(code.replace("-", "_"), 0)):
            said = many if number > 1 else one + many[many.index(" were ") + 5 :]
            found.append(_warning(code, f"{number:,} {said}"))
    return found


def _no_numbers(plan: Plan, results: Sequence[CaptureResult]) -> list[Diagnostic]:
    """Warnings for expressions that made NaN of finite values: `entropy(x)` of no distribution."""
    found = []
    for capture, result in zip(plan.captures, results, strict=True):
        for number, spec in enumerate(capture.spec.statistics if not capture.keys else ()):
            plain = spec.value == ast.Name("x") or "key" in capture.targets[0].asked[number].axes
            if spec.name not in ("mean", "sum", "min", "max", "rms") or plain:
                continue
            for site in result.sites:
                kept = site.counts.get(spec.variable, site.count)
                if kept and not site.nonfinite and np.isnan(site.variables[spec.variable]).any():
                    message = (
                        f"`{spec.variable}` of `{capture.name}` is NaN, though all values were "
                        "finite: its expression has no real value at some token"
                    )
                    found.append(
                        evolve(
                            _warning("not-a-number", message),
                            span=spec.span,
                            source=plan.query.source,
                            help=_distribution(spec.value),
                        )
                    )
                    break
    return found


def _distribution(value: ast.Expression) -> str | None:
    calls = {node.function for node in walk(value) if isinstance(node, ast.Call)}
    if {"entropy", "kl"} & calls and "softmax" not in calls:
        return "`entropy` and `kl` are of distributions: `entropy(softmax(lens(x)))`"
    return None


def _empty_sites(capture: PlannedCapture, outcome: Outcome) -> list[Diagnostic]:
    """A warning for the places at which a predicate about their own values kept nothing."""
    empty = [
        str(target.point)
        for target in capture.targets
        if not outcome.detectors[target.place].jobs[target.selector].kept
    ]
    if not empty:
        return []
    many = f"{len(empty)} of the {len(capture.targets)} modules of `{capture.name}`"
    message = f"no token was kept at {many}: all but their count is NaN"
    return [evolve(_warning("empty-selection", message), notes=(listing(folded(empty)),))]


def _warning(code: str, message: str) -> Diagnostic:
    return Diagnostic(code, message, severity="warning")
