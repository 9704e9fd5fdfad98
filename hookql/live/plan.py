"""A query bound to a model that somebody else runs: `hookql.compile(...).bind(...)`."""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import xarray
from attrs import define, evolve, field, frozen
from torch import nn

from hookql.binding import bind
from hookql.conditions import joined
from hookql.data.tokens import Skipped
from hookql.engines.outcome import Outcome
from hookql.errors import Diagnostic, HookQLWarning, QueryError, UsageError
from hookql.language import ast
from hookql.language.parser import parse
from hookql.language.query import CaptureSpec, Query
from hookql.language.resolve import resolve
from hookql.language.walk import walk
from hookql.live.passes import Live
from hookql.loading import AnyModel, get_model
from hookql.models.feed import TokenFeed
from hookql.models.generation import cannot_generate
from hookql.models.load import Model, check_observable
from hookql.plan import Plan
from hookql.results.collect import collect
from hookql.results.netcdf import save
from hookql.results.provenance import provenance
from hookql.results.tree import build_tree
from hookql.running.identity import tokenizer_name
from hookql.running.remarks import remarks, warning

# A context is one row of a call: there are no chunks to be told apart.
_WIDTH = 1 << 30


@frozen(eq=False)
class Compiled:
    """A query, checked, to be bound to models."""

    query: Query

    def __enter__(self) -> LivePlan:
        message = "the query is bound to no model yet"
        help = "write `plan = hookql.compile(...).bind(model)`, then `with plan:`"
        raise UsageError(Diagnostic("not-bound", message, help=help))

    def __exit__(self, *failure: Any) -> None:
        """Nothing was entered."""

    def bind(self, model: AnyModel, tokenizer: Any = None) -> LivePlan:
        """Bind it to a model that you will run yourself; the model is tried out on small inputs.

        Args:
            model: a torch module, a `Model`, or a name as `hookql.run` takes it. A
                DistributedDataParallel is seen through.
            tokenizer: the module's tokenizer, for texts and special tokens in the query.

        Raises:
            QueryError: what is wrong with the query for this model.
            ModelError: a model that cannot be looked into: compiled, scripted, sharded.
        """
        if isinstance(model, nn.parallel.DistributedDataParallel):
            model = model.module
        loaded = get_model(model, tokenizer, {})
        query = _for_live(self.query)
        feed = TokenFeed(loaded)
        feed.has_target, feed.live = loaded.is_encoder_decoder, True
        feed.knows_special = loaded.tokenizer is not None
        if query.generation is not None and (wrong := cannot_generate(loaded)) is not None:
            raise QueryError([evolve(wrong, span=query.generation.span, source=query.source)])
        plan = bind(query, loaded, feed, columns=())
        if plan.text:
            raise QueryError([_no_text(plan)])
        return LivePlan(plan)


class LivePlan:
    """Collects what a query asks for while you run the model inside ``with plan:``.

    Forward passes count as they are, in training too; of ``generate`` each token that is fed counts
    once. Passes of `hookql.run` do not count; of a forward pass that fails midway only what ran
    before does, module by module, and `result` warns of it.
    """

    def __init__(self, plan: Plan) -> None:
        self.plan = plan
        self._stack: ExitStack | None = None
        self._live = self._fresh()
        self._started = datetime.now(UTC)

    @property
    def model(self) -> Model:
        """The model it is bound to."""
        return self.plan.model

    def __enter__(self) -> LivePlan:
        if self._stack is not None:
            message = "this plan looks on already: it is inside its own `with`"
            help = "bind the query again for another plan"
            raise UsageError(Diagnostic("live-entered", message, help=help))
        check_observable(self.model.module)
        stack = ExitStack()
        stack.enter_context(self._live.attached())
        self._stack = stack
        return self

    def __exit__(self, *failure: Any) -> None:
        stack, self._stack = self._stack, None
        if stack is not None:
            stack.__exit__(*(failure or (None, None, None)))

    def reset(self) -> None:
        """Forget all that was collected."""
        self._check_idle("reset")
        looking, paused = self._stack is not None, self._live.paused
        self.__exit__()
        self._live, self._started = self._fresh(), datetime.now(UTC)
        self._live.paused = paused
        if looking:
            self.__enter__()

    def _fresh(self) -> Live:
        return Live(self.plan, Outcome.of(self.plan, _WIDTH))

    def pause(self) -> AbstractContextManager[None]:
        """Look away until `resume`, or until the end of ``with plan.pause():``.

        A ``generate`` that began before is followed to its end.
        """
        self._live.paused = True
        return self._pausing()

    def resume(self) -> None:
        """Look on again."""
        self._live.paused = False

    @contextmanager
    def _pausing(self) -> Iterator[None]:
        try:
            yield
        finally:
            self.resume()

    def result(self) -> xarray.DataTree:
        """What has been collected so far, labelled as `hookql.run` does; collecting goes on.

        Of a ``generate`` that has not come to its end nothing is in it yet. Warns (HookQLWarning)
        of what one should look at.
        """
        self._check_idle("result")
        live = self._live
        live.settle(over=False)
        outcome = live.outcome
        results = collect(self.plan, outcome, None, live.samples)
        source = _Facts(live)
        # The accumulators go on: what was read off them must not change with them.
        tree = build_tree(results, self._attributes(source)).copy(deep=True)
        for each in (*self._seen_nothing(), *remarks(self.plan, outcome, source, results)):
            warnings.warn(str(each), HookQLWarning, stacklevel=2)
        return tree

    def save(self, path: str | Path, *, overwrite: bool = False) -> Path:
        """Write the result so far into a NetCDF file, whole or not at all; returns the path."""
        save(self.result(), Path(path), overwrite)
        return Path(path)

    def _check_idle(self, what: str) -> None:
        if self._live.busy or (what == "reset" and self._live.generating):
            message = f"`{what}` was called while the model runs"
            raise UsageError(Diagnostic("live-busy", message, help="call it between two passes"))

    def _seen_nothing(self) -> list[Diagnostic]:
        found = []
        if self._live.failed:
            passes = f"{self._live.failed} pass" + "es" * (self._live.failed > 1)
            message = f"{passes} failed midway: some modules have counted rows that others have not"
            found.append(warning("failed-passes", message))
        if not self._live.outcome.done:
            message = f"no call of `{self.model.name}` was seen"
            help = "run the model inside `with plan:`; a copy of it that was compiled has no hooks"
            found.append(evolve(warning("nothing-seen", message), help=help))
        return found

    def _attributes(self, source: _Facts) -> dict[str, str | int | float]:
        model, outcome = self.model, self._live.outcome
        found = provenance(
            query=self.plan.query.source.text,
            canonical=self.plan.query.canonical,
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
            tokens_spared=0,
            optimize="none",
            batches=outcome.batches,
            share=1.0,
            seconds=outcome.seconds,
            started=self._started,
            ended=datetime.now(UTC),
        )
        return {**found, "passes_failed": self._live.failed}


@define(eq=False)
class _Facts:
    """What is known of data that came by."""

    live: Live
    total: int | None = None
    columns: Sequence[str] | None = ()
    refused: Sequence[Skipped] = ()
    width: int = _WIDTH
    reads_again: bool = False
    feed: Any = field(default=None)

    def work(self, plan: Plan) -> Any:
        """Nothing: somebody else runs the model."""
        raise NotImplementedError

    def facts(self) -> dict[str, str | int]:
        """What the result's attributes say of it."""
        return {
            "data": "<live>",
            "data_fingerprint": self.live.digest.hexdigest(),
            "samples": self.live.samples,
            "tokens_read": self.live.outcome.tokens,
        }


def _for_live(query: Query) -> Query:
    """The query as it is meant for passes that somebody else runs.

    Without `during` all that is fed counts; `during prompt` leaves out what is generated.
    """
    wrong = []
    for spec in query.captures:
        if spec.raw:
            message = "`values` are written by a run of HookQL's own, not by a live plan"
            help = "collect them with hookql.LayerActivationDetector, or use hookql.run"
            wrong.append(Diagnostic("live-values", message, spec.span, query.source, help))
        if spec.during is not None and spec.during.arguments:
            message = "a live plan does not generate: your own call says how"
            help = "write `during generate` without arguments"
            where = spec.during.span
            wrong.append(Diagnostic("live-generate", message, where, query.source, help))
        if spec.into is not None:
            message = "a live plan writes no files by itself"
            help = "leave `into` out, and call `plan.save(...)`"
            wrong.append(Diagnostic("live-into", message, spec.into_span, query.source, help))
    if wrong:
        raise QueryError(wrong)
    if any(spec.during is None or spec.during.phase == "generate" for spec in query.captures):
        return query
    return evolve(query, captures=tuple(map(_prompt_alone, query.captures)))


def _no_text(plan: Plan) -> Diagnostic:
    """That `within` has nothing to look into: a call gives ids alone."""
    wheres = [selector.where for selector in plan.selectors if selector.where is not None]
    nodes = [node for whole in (*wheres, *plan.columns) for node in walk(whole)]
    span = next(node.span for node in nodes if isinstance(node, ast.Within))
    message = "there is no text to look into: a live plan is shown token ids"
    help = 'look for tokens: `token == "text"`'
    return Diagnostic("no-text", message, span, plan.query.source, help)


def _prompt_alone(spec: CaptureSpec) -> CaptureSpec:
    (other,) = resolve(parse("capture count from output where phase == prompt")).captures
    return evolve(spec, where=joined([spec.where, other.where]))
