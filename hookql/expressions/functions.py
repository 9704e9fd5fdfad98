"""What a function of expressions is, and the registry through which functions enter.

To add one of HookQL's own, write it in a file of this folder with ``@function(...)``::

    @function("cos", values=2, axes="last", unseen=is_zero)
    def cos(a: Tensor, b: Tensor) -> Tensor:
        \"\"\"``sum(a * b) / (norm(a) * norm(b))``.\"\"\"

It is given tensors with the row's axis first, which broadcast against each other, and returns one.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, TypeVar

from attrs import frozen
from torch import Tensor

from hookql.expressions.offered import guarded
from hookql.expressions.rows import Term
from hookql.language.pieces import Known, Piece
from hookql.statistics.core import Parameter

if TYPE_CHECKING:
    from hookql.extending import OfferedFunction


def never(term: Term) -> bool:
    """No value at unseen keys leaves the result as it is."""
    return False


def is_zero(term: Term) -> bool:
    """Exactly 0 stands at the keys that a query cannot see."""
    return term.hidden == 0


@frozen
class Function:
    """A function: its name, what it takes and gives, and how it is computed.

    It takes ``values`` expressions, then the literals of ``parameters``. ``axes`` is ``each``
    (number by number), ``last`` (takes the last axis away) or ``along`` (keeps it); for the latter
    two the last axis of every value is the same and stands last. ``kind`` is of the result.
    Values come as float64; where ``exact`` says that nothing is rounded, as float32 or float64.
    ``unseen`` tells whether a ragged value may be taken, its unseen keys as they are.
    """

    name: str
    doc: str
    compute: Callable[..., Tensor]
    values: int = 1
    parameters: tuple[Parameter, ...] = ()
    axes: str = "each"
    kind: str = "number"
    exact: bool = False
    unseen: Callable[[Term], bool] = never
    check: Callable[..., str | None] = lambda **given: None

    @property
    def arity(self) -> tuple[int, int]:
        """The fewest and the most arguments."""
        needed = sum(parameter.default is None for parameter in self.parameters)
        return self.values + needed, self.values + len(self.parameters)


def _made(piece: Piece) -> Function:
    """A function that somebody offers."""
    offered: OfferedFunction = piece.value
    return Function(
        piece.name,
        offered.doc,
        guarded(piece),
        offered.values,
        offered.parameters,
        offered.axes,
    )


FUNCTIONS: Known[Function] = Known("function", _made)
"""Every function by name; `lens` aside, which a model brings."""

Compute = TypeVar("Compute", bound=Callable[..., Tensor])


def function(
    name: str,
    *,
    values: int = 1,
    parameters: tuple[Parameter, ...] = (),
    axes: str = "each",
    kind: str = "number",
    exact: bool = False,
    unseen: Callable[[Term], bool] = never,
    check: Callable[..., str | None] = lambda **given: None,
) -> Callable[[Compute], Compute]:
    """Register the decorated function, whose docstring gives the formula, under a name."""

    def register(compute: Compute) -> Compute:
        doc = (compute.__doc__ or "").strip()
        FUNCTIONS.own[name] = Function(
            name, doc, compute, values, parameters, axes, kind, exact, unseen, check
        )
        return compute

    return register
