"""Notices: what a user is told of a run that had bad days."""

from __future__ import annotations

from collections.abc import Sequence

from hookql.data.tokens import Skipped
from hookql.engines.outcome import Outcome
from hookql.errors import Diagnostic

_SHOWN = 5


def notices(outcome: Outcome, refused: Sequence[Skipped] = ()) -> list[Diagnostic]:
    """Warnings of batches run in parts, contexts skipped, and samples refused by the tokenizer."""
    found = []
    if outcome.halved:
        said = "batch did" if outcome.halved == 1 else "batches did"
        message = f"{outcome.halved:,} {said} not fit into memory and had to be run in parts"
        advice = "make them smaller from the start: `--tokens-per-batch` or `--batch-size`"
        notes: tuple[str, ...] = ()
        if outcome.fits:
            notes = (f"the largest that did fit had {outcome.fits:,} tokens, padding included",)
        found.append(_warning("batch-halved", message, notes, advice))
    if skipped := outcome.skipped_contexts:
        samples = len({s.sample for s in skipped})
        message = f"the model failed on {_number(samples, 'sample')}, left out of every number"
        notes = (*_listed(skipped), f"{_number(outcome.failed, 'token')} in all")
        found.append(_warning("samples-skipped", message, notes))
    if refused:
        message = f"the tokenizer refused {_number(len(refused), 'sample')}, left out"
        found.append(_warning("samples-refused", message, _listed(refused)))
    return found


def _listed(skipped: Sequence[Skipped]) -> tuple[str, ...]:
    lines = [
        f"sample {s.sample}{f', chunk {s.chunk}' if s.chunk > 0 else ''}: {s.reason}"
        for s in skipped[:_SHOWN]
    ]
    rest = len(skipped) - len(lines)
    return (*lines, f"and {rest:,} more") if rest else tuple(lines)


def _number(count: int, what: str) -> str:
    return f"{count:,} {what}{'' if count == 1 else 's'}"


def _warning(
    code: str, message: str, notes: tuple[str, ...], advice: str | None = None
) -> Diagnostic:
    return Diagnostic(code, message, notes=notes, help=advice, severity="warning")
