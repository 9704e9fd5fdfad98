"""What a statistic is, and the one door through which statistics enter HookQL.

A statistic is an accumulator (the streaming state) and a finish (the number read off it), so that
``mean``, ``var`` and ``std`` share one accumulator. To add one, write a file in this folder, or in
a package of your own that names its module under the entry-point group ``hookql.statistics``::

    @statistic("rms", key="squares", accumulator=Squares, cell_method="root_mean_square")
    def rms(state: Squares) -> Tensor:
        \"\"\"Root mean square, ``sqrt(sum(x ** 2) / n)``.\"\"\"
        return state.mean_square().sqrt()

Nothing here imports torch: ``hookql check`` only needs the names.
"""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Callable, Collection, Hashable, Iterable, Iterator, Mapping
from functools import partial
from typing import TYPE_CHECKING, Any, Protocol, Self, TypeVar

from attrs import evolve, field, frozen

from hookql.language.pieces import check_name, draft, offer, refuse
from hookql.language.plugins import load_plugins

if TYPE_CHECKING:
    from torch import Tensor

    from hookql.statistics.groups import Groups

_OURS = "hookql.statistics."

Given = int | float | tuple[float, ...]  # what a parameter may be


class Accumulator(Protocol):
    """The streaming state of one site, over any number of rows; picklable.

    ``axes`` below are the axes that a row has, such as (feature,) or (head, feature). One with a
    class attribute ``places = True`` is told where rows stand: ``update(rows, places)``.
    """

    def update(self, rows: Tensor) -> None:
        """Take in rows (n, \\*axes), n >= 0, float32 or float64; neither keep nor change them."""

    def merge(self, other: Self) -> None:
        """Take in all that another accumulator of the same axes has seen."""

    def pool(self, axis: int) -> Self:
        """A new accumulator whose rows lack that axis, its numbers counting as more rows."""

    @property
    def nbytes(self) -> int:
        """The memory that the state takes now, in bytes."""


class GroupedAccumulator(Protocol):
    """The streaming states of the groups of one site; what is read off has a leading group axis.

    One with ``places = True`` is told where rows stand: ``update(rows, groups, places)``.
    """

    def update(self, rows: Tensor, groups: Groups) -> None:
        """Take in rows (n, \\*axes), n >= 0, each into its group; ``groups.number`` never falls."""

    def merge(self, other: Self) -> None:
        """Take in another of the same axes and numbering, which may know more or fewer groups."""

    def pool(self, axis: int) -> Self:
        """As an accumulator's; the group axis is not counted."""

    def select(self, index: Tensor) -> Self:
        """A new one of those groups alone, int64 (g,), numbered anew in that order."""

    def grow(self, number: int) -> None:
        """Know at least so many groups, the new ones empty."""

    @property
    def nbytes(self) -> int:
        """The memory that the states take now, in bytes."""


@frozen
class Parameter:
    """A named number that a statistic takes; it must be given where ``default`` is None.

    ``check`` returns None for a value that will do, or what the value must be: ``"0 or more"``.
    ``kind`` is ``number``; ``whole``, an int; or ``rest``, all remaining literals as a tuple, not
    empty, each of which ``check`` sees by itself.
    """

    name: str
    default: Given | None
    check: Callable[[int | float], str | None] = field(default=lambda value: None, eq=False)
    kind: str = "number"


@frozen
class Statistic:
    """One statistic: its name, its parameters, its accumulator and how to read the number off.

    Statistics of one ``key`` share one accumulator: the one made for the greatest ``order`` among
    those wanted, which must serve all of lower order. ``accumulator`` and ``grouped`` are called
    with the parameters named in ``state_parameters`` as keywords; accumulators that differ in
    these are not shared. Without ``grouped`` each group has an accumulator of its own, which is
    slow for many. ``cell_method`` is what CF calls it.

    ``finish(state, **parameters)`` returns float64 of shape ([groups,] \\*axes, \\*dims), on the
    state's device, NaN where nothing was seen; counts are int64, 0 where nothing was seen. It never
    raises. With ``variables`` it returns a dict of these suffixes, "" being the main one.
    ``coordinates(**parameters)`` gives ``{name: (dim, values)}`` along ``dims`` and
    ``attributes(**parameters)`` attributes of the main variable. ``check(**parameters)`` says, in
    one lower-case sentence, what is wrong with parameters that are fine each by itself.
    ``needs = "feature"`` says that a row must have a last axis, which becomes two;
    ``poolable = False`` that ``pool`` is not supported; with ``layers`` ``pool layer`` is all the
    same, which merges. ``raw`` says that the rows themselves are kept: there is no state, neither
    accumulator nor finish are called, and ``dims`` is empty.
    """

    name: str
    doc: str
    parameters: tuple[Parameter, ...]
    accumulator: Callable[..., Any]
    key: str
    order: int
    cell_method: str
    finish: Callable[..., Any]
    origin: str
    grouped: Callable[..., Any] | None = None
    state_parameters: tuple[str, ...] = ()
    dims: tuple[str, ...] = ()
    variables: tuple[str, ...] = ()
    coordinates: Callable[..., dict[str, tuple[str, tuple[float, ...]]]] = lambda **given: {}
    attributes: Callable[..., dict[str, int | float | str]] = lambda **given: {}
    check: Callable[..., str | None] = lambda **given: None
    poolable: bool = True
    needs: str | None = None
    raw: bool = False
    layers: bool = False


def state_key(statistic: Statistic, parameters: Mapping[str, Any]) -> Hashable:
    """What statistics that share an accumulator have in common."""
    given = tuple(parameters[name] for name in statistic.state_parameters)
    return (statistic.key, *given) if given else statistic.key


def accumulators(
    wanted: Iterable[tuple[Statistic, Mapping[str, Any]] | Statistic], grouped: bool = False
) -> dict[Hashable, Any]:
    """Fresh accumulators that serve all these statistics with these parameters, by state_key.

    A bare statistic stands for one with its parameters' defaults.
    """
    chosen: dict[Hashable, tuple[Statistic, Mapping[str, Any]]] = {}
    for each in wanted:
        if isinstance(each, Statistic):
            each = each, {parameter.name: parameter.default for parameter in each.parameters}
        statistic, parameters = each
        key = state_key(statistic, parameters)
        if key not in chosen or statistic.order > chosen[key][0].order:
            chosen[key] = statistic, parameters
    return {key: _accumulator(*best, grouped) for key, best in chosen.items()}


def _accumulator(statistic: Statistic, parameters: Mapping[str, Any], grouped: bool) -> Any:
    given = {name: parameters[name] for name in statistic.state_parameters}
    if not grouped:
        return statistic.accumulator(**given)
    if statistic.grouped is not None:
        return statistic.grouped(**given)
    from hookql.statistics.each_group import EachGroup

    return EachGroup(partial(statistic.accumulator, **given))


Made = TypeVar("Made", bound=Callable[..., Any])


def statistic(
    name: str,
    *,
    key: str | None = None,
    accumulator: Callable[..., Any] | None = None,
    cell_method: str | None = None,
    order: int = 0,
    parameters: tuple[Parameter, ...] | None = None,
    **more: Any,
) -> Callable[[Made], Made]:
    """Register the decorated class, or finish function, as a statistic; its docstring says what.

    A class is an accumulator with ``update(rows)``, ``merge(other)`` and ``result()``, and with
    ``pool(axis)`` where features or heads can be pooled; docs/extending.md says what each is given.
    It is called with no argument, or with the statistic's parameters by name: those of its
    ``__init__`` unless ``parameters`` says which. Of what else may be given here only
    ``cell_method`` and ``check`` are for classes.

    A function reads the number off the ``accumulator`` and needs ``key`` and ``cell_method`` too;
    ``more`` are the remaining fields of Statistic.

    Raises:
        UsageError: for a name that is taken, or what cannot be a statistic.
    """
    check_name("statistic", name)

    def register(made: Made) -> Made:
        piece = draft("statistic", name, made)
        doc = (made.__doc__ or "").strip()
        if isinstance(made, type):
            from hookql.statistics.offered import of_class

            found = of_class(piece, made, doc, parameters, cell_method or name, **more)
        elif key is None or accumulator is None or cell_method is None:
            refuse(piece, "it is no class", "write a class with `update`, `merge` and `result`")
        else:
            read = made if "grouped" in more else partial(read_off, made)
            given = () if parameters is None else parameters
            found = Statistic(
                name, doc, given, accumulator, key, order, cell_method, read, piece.origin, **more
            )
        if not piece.module.startswith(_OURS):
            offer(evolve(piece, value=made), built_in())
        STATISTICS.registered[name] = found
        return made

    return register


def built_in() -> Collection[str]:
    """The names of HookQL's own statistics."""
    STATISTICS.load_own()
    return [n for n, s in STATISTICS.registered.items() if s.origin.startswith(_OURS)]


def read_off(finish: Callable[..., Any], state: Any, **parameters: Any) -> Any:
    """What is read off an accumulator, or off one for each group."""
    read = getattr(state, "read_each", None)
    return finish(state, **parameters) if read is None else read(finish, **parameters)


class Registry(Mapping[str, Statistic]):
    """Every statistic by name, in alphabetical order; the files are read at the first look."""

    def __init__(self) -> None:
        self.registered: dict[str, Statistic] = {}
        self._own = self._loaded = False

    def __getitem__(self, name: str) -> Statistic:
        self._load()
        return self.registered[name]

    def __iter__(self) -> Iterator[str]:
        self._load()
        return iter(sorted(self.registered))

    def __len__(self) -> int:
        self._load()
        return len(self.registered)

    def load_own(self) -> None:
        """Import HookQL's own."""
        if self._own:
            return
        package = importlib.import_module("hookql.statistics")
        for module in pkgutil.iter_modules(package.__path__, prefix=_OURS):
            importlib.import_module(module.name)
        self._own = True

    def _load(self) -> None:
        if not self._loaded:
            self.load_own()
            load_plugins()
            self._loaded = True


STATISTICS = Registry()
