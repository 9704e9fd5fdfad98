"""The plan: a query bound to a model. What will be read where, what is shared, where it stops."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from attrs import frozen

from hookql.detectors import Place
from hookql.errors import Diagnostic
from hookql.expressions import Expression
from hookql.language import ast
from hookql.language.formatter import format_expression
from hookql.language.query import CaptureSpec, Query, StatisticSpec
from hookql.models.feed import Feed
from hookql.models.load import Model
from hookql.models.ports import HookPoint
from hookql.models.probe import Probe
from hookql.models.stopping import leave_of
from hookql.predicates.evaluate import Column, Predicate
from hookql.predicates.vocabulary import Vocabulary
from hookql.statistics import Statistic

USUAL = frozenset({"depth"})
"""The rules of a plan where nobody says which: those that need nothing but the plan."""


@frozen
class Selector:
    """Which rows: those of a mask, perhaps kept apart by the values of keys.

    Selectors that are equal select the same rows and group them by the same numbers.
    """

    where: ast.Expression | None
    keys: tuple[ast.Expression, ...] = ()
    stream: str = "text"  # or "target": the decoder's tokens


@frozen(eq=False)
class Asked:
    """One statistic of a capture at one of its places."""

    spec: StatisticSpec
    statistic: Statistic
    expression: Expression
    selector: int

    @property
    def axes(self) -> tuple[str, ...]:
        """The axes of its result: the expression's."""
        return self.expression.axes.names


@frozen(eq=False)
class Target:
    """One place of a capture, what is asked of it, and where its numbers go."""

    place: Place
    layer: int | None
    role: str
    site: ast.Site
    asked: tuple[Asked, ...]
    selector: int  # of the rows that the capture keeps
    values: Mapping[ast.Expression, Expression]  # what the capture's predicate asks of the place

    @property
    def point(self) -> HookPoint:
        """The hook point of its `x`."""
        return self.place.point


@frozen(eq=False)
class PlannedCapture:
    """One capture: its meaning, its name and its places."""

    spec: CaptureSpec
    name: str
    targets: tuple[Target, ...]
    left_out: tuple[str, ...] = ()  # hook points that a wildcard matched and that cannot be read

    @property
    def selectors(self) -> tuple[int, ...]:
        """The selectors of the rows that it keeps; several only where streams differ."""
        return tuple(dict.fromkeys(target.selector for target in self.targets))

    @property
    def keys(self) -> tuple[ast.Expression, ...]:
        """What its rows are grouped by."""
        return tuple(key.expression for key in self.spec.by)

    @property
    def streams(self) -> bool:
        """Whether its groups are written out as samples complete."""
        return self.keys == (ast.Name("sample"),)


@frozen(eq=False)
class Plan:
    """What will run. Hook points, masks and accumulators stand here once, whoever shares them."""

    query: Query
    model: Model
    feed: Feed
    captures: tuple[PlannedCapture, ...]
    selectors: tuple[Selector, ...]
    predicates: tuple[Predicate | None, ...]  # one for each selector
    columns: Mapping[ast.Expression, Column]  # token leaves and group keys
    there: Mapping[ast.Expression, Predicate]  # whether a key has a value, where it may have none
    vocabulary: Vocabulary | None  # what tokens spell; None where the inputs are no tokens
    logits: HookPoint | None  # where the model's prediction is read, if anything asks for it
    probe: Probe
    stop: int  # the event of the probe's after which nothing more is needed
    share: float  # the share of the forward pass that runs, 0 to 1
    warnings: tuple[Diagnostic, ...]
    rules: frozenset[str] = USUAL  # of the optimiser, that are on
    tokens_per_batch: int | None = None  # None: as is usual on the device

    @property
    def leave(self) -> tuple[str, str] | None:
        """The event at which the pass is left; None: it runs to its end."""
        return leave_of(self.probe.events, self.stop) if "depth" in self.rules else None

    @property
    def points(self) -> tuple[HookPoint, ...]:
        """Every hook point once, in the order of the model's modules."""
        return tuple(self.probe.seen)

    @property
    def streams(self) -> bool:
        """Whether some capture's groups are written out as samples complete."""
        return any(capture.streams for capture in self.captures)

    @property
    def text(self) -> bool:
        """Whether something looks into the samples' text."""
        readers = (*self.predicates, *self.columns.values())
        return any(reader is not None and reader.text for reader in readers)

    def signals(self, selector: int) -> frozenset[str]:
        """What of the model's prediction a selector's rows and groups need."""
        predicate = self.predicates[selector]
        found = frozenset() if predicate is None else predicate.signals
        keys = self.selectors[selector].keys
        return found.union(*(self.columns[key].signals for key in keys))

    def own(self, selector: int) -> bool:
        """Whether a selector's rows differ from place to place: it asks for their values."""
        predicate = self.predicates[selector]
        return predicate is not None and bool(predicate.values)

    def has(self, keys: Sequence[ast.Expression]) -> tuple[Predicate, ...]:
        """Predicates that hold where all these keys have a value."""
        return tuple(self.there[key] for key in keys if key in self.there)

    def wanted(self, place: Place) -> Iterator[Target]:
        """The targets of all captures at a place."""
        for capture in self.captures:
            yield from (target for target in capture.targets if target.place == place)

    def describe_mask(self, number: int) -> str:
        """A mask as the query writes it."""
        where = self.selectors[number].where
        return "every token" if where is None else format_expression(where)
