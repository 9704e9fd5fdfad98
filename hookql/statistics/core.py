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
from collections.abc import Callable, Iterable, Iterator, Mapping
from importlib.metadata import EntryPoint, entry_points
from typing import TYPE_CHECKING, Any, Protocol, Self, TypeVar

from attrs import field, frozen

from hookql.errors import Diagnostic, HookQLError, UsageError

if TYPE_CHECKING:
    from torch import Tensor

GROUP = "hookql.statistics"


class Accumulator(Protocol):
    """The streaming state of one site, over any number of rows; picklable.

    ``axes`` below are the axes that a row has, such as (feature,) or (head, feature).
    """

    def update(self, rows: Tensor) -> None:
        """Take in rows (n, \\*axes), n >= 0, float32 or float64; neither keep nor change them."""

    def merge(self, other: Self) -> None:
        """Take in all that another accumulator of the same axes has seen."""

    def pool(self, axis: int) -> Self:
        """A new accumulator whose rows lack that axis, its numbers counting as more rows."""


@frozen
class Parameter:
    """A named number that a statistic takes.

    ``check`` returns None for a value that will do, or what the value must be: ``"0 or more"``.
    """

    name: str
    default: int | float
    check: Callable[[int | float], str | None] = field(default=lambda value: None, eq=False)


@frozen
class Statistic:
    """One statistic: its name, its parameters, its accumulator and how to read the number off.

    Statistics of one ``key`` share one accumulator: the one made for the greatest ``order`` among
    those wanted, which must serve all of lower order. ``cell_method`` is what CF calls it.
    ``finish(accumulator, **parameters)`` returns float64 of shape axes (``count``: one int64) on
    the accumulator's device, NaN where nothing was seen; it never raises.
    """

    name: str
    doc: str
    parameters: tuple[Parameter, ...]
    accumulator: Callable[[], Any]
    key: str
    order: int
    cell_method: str
    finish: Callable[..., Tensor]
    origin: str


def accumulators(statistics: Iterable[Statistic]) -> dict[str, Accumulator]:
    """Fresh accumulators that serve all these statistics, one for each key."""
    chosen: dict[str, Statistic] = {}
    for wanted in statistics:
        best = chosen.get(wanted.key)
        if best is None or wanted.order > best.order:
            chosen[wanted.key] = wanted
    return {key: best.accumulator() for key, best in chosen.items()}


Finish = TypeVar("Finish", bound=Callable[..., Any])


def statistic(
    name: str,
    *,
    key: str,
    accumulator: Callable[[], Any],
    cell_method: str,
    order: int = 0,
    parameters: tuple[Parameter, ...] = (),
) -> Callable[[Finish], Finish]:
    """Register the decorated finish function, whose docstring is the statistic's, under a name."""

    def register(finish: Finish) -> Finish:
        origin = f"{finish.__module__}.{finish.__qualname__}"
        known = STATISTICS.registered.get(name)
        if known is not None and known.origin != origin:
            raise UsageError(
                Diagnostic(
                    "statistic-clash",
                    f"two statistics are called `{name}`: {known.origin} and {origin}",
                    help="uninstall or rename one of them",
                )
            )
        doc = (finish.__doc__ or "").strip()
        STATISTICS.registered[name] = Statistic(
            name, doc, parameters, accumulator, key, order, cell_method, finish, origin
        )
        return finish

    return register


class Registry(Mapping[str, Statistic]):
    """Every statistic by name, in alphabetical order; the files are read at the first look."""

    def __init__(self) -> None:
        self.registered: dict[str, Statistic] = {}
        self._loaded = False

    def __getitem__(self, name: str) -> Statistic:
        self._load()
        return self.registered[name]

    def __iter__(self) -> Iterator[str]:
        self._load()
        return iter(sorted(self.registered))

    def __len__(self) -> int:
        self._load()
        return len(self.registered)

    def _load(self) -> None:
        # Set last: a clash must be reported at every look, not only at the first one.
        if self._loaded:
            return
        package = importlib.import_module("hookql.statistics")
        for module in pkgutil.iter_modules(package.__path__, prefix="hookql.statistics."):
            importlib.import_module(module.name)
        for plugin in sorted(entry_points(group=GROUP), key=lambda e: (e.name, e.value)):
            _load_plugin(plugin)
        self._loaded = True


def _load_plugin(plugin: EntryPoint) -> None:
    try:
        plugin.load()
    except HookQLError:
        raise
    except Exception as error:  # whatever a stranger's module does, the user learns whose it is
        package = f" of the package `{plugin.dist.name}`" if plugin.dist is not None else ""
        raise UsageError(
            Diagnostic(
                "broken-plugin",
                f"the statistics plug-in `{plugin.value}`{package} cannot be loaded",
                help="update or uninstall it",
                notes=(f"{type(error).__name__}: {error}",),
            )
        ) from error


STATISTICS = Registry()
