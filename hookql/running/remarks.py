"""What a user should look at in a finished run, as warnings."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from attrs import evolve

from hookql.engines.local import Outcome
from hookql.engines.notices import notices
from hookql.errors import Diagnostic, listing
from hookql.language import ast
from hookql.language.walk import walk
from hookql.models.names import folded
from hookql.plan import Plan, PlannedCapture
from hookql.results.captured import CaptureResult
from hookql.work import Source


def remarks(
    plan: Plan, outcome: Outcome, source: Source, results: Sequence[CaptureResult]
) -> tuple[Diagnostic, ...]:
    """All warnings about a run: of the plan, of what was read and run, of the numbers."""
    run = (*notices(outcome, source.refused), *_warnings(plan, outcome, source))
    return (*plan.warnings, *run, *_no_numbers(plan, results))


def data_changed(data: object) -> Diagnostic:
    """The warning about a file that somebody wrote to while it was read."""
    message = f"`{data}` changed while it was read: the result is of what was read of it"
    help = "its fingerprint is in the result: `data_fingerprint`"
    return evolve(warning("data-changed", message), help=help)


def stored_infinite(number: int) -> Diagnostic:
    """The warning about numbers that became infinite by being stored."""
    values = "values are" if number > 1 else "value is"
    message = f"{number:,} {values} too large for float32, and stored as infinite"
    return evolve(warning("stored-infinite", message), help="leave `--store-dtype float32` out")


def interrupted(
    outcome: Outcome, source: Source, files: Sequence[Path], checkpoint: Path | None
) -> Diagnostic:
    """What became of a run that was asked to stop."""
    samples = source.total
    of = f" of the data's {samples:,} samples" if samples else ""
    message = f"the run was stopped after {outcome.done:,} batches, before the end{of}"
    if checkpoint is not None:
        help = f"go on with the same command and `--resume`: `{checkpoint}` has all of it"
        return Diagnostic("interrupted", message, help=help)
    notes = tuple(f"what ran is in `{file}`, which is not the whole result" for file in files)
    return Diagnostic("interrupted", message, notes=notes or ("nothing was written",))


def _warnings(plan: Plan, outcome: Outcome, source: Source) -> list[Diagnostic]:
    found = []
    for capture in plan.captures:
        jobs = [outcome.detectors[t.place].jobs[t.selector] for t in capture.targets]
        if any(job.kept for job in jobs):
            found += _empty_sites(capture, outcome)
        else:
            left = "it has no row" if capture.spec.raw else "all but its count is NaN"
            message = f"`{capture.name}` kept no token: {left}"
            undefined = max(
                (
                    *(job.undefined for job in jobs),
                    *(outcome.undefined[n] for n in capture.selectors),
                )
            )
            why = f" (its `where` is undefined at {undefined:,} tokens)" if undefined else ""
            found.append(warning("empty-selection", message + why))
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
                found.append(warning("non-finite", f"{message}, {where}"))
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
            found.append(warning(code, f"{number:,} {said}"))
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
                            warning("not-a-number", message),
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
    return [evolve(warning("empty-selection", message), notes=(listing(folded(empty)),))]


def warning(code: str, message: str) -> Diagnostic:
    """One warning."""
    return Diagnostic(code, message, severity="warning")
