"""The syntax tree: what a query says, before anything is known about a model.

Frozen classes named like the grammar's rules. Every node knows its ``span`` in the source; spans
are not compared, so that trees from differently laid out texts are equal.
"""

from __future__ import annotations

from typing import TypeAlias

from attrs import field, frozen

from hookql.errors import NOWHERE, Source, Span


@frozen
class Node:
    """Anything that stands somewhere in the source."""

    span: Span = field(default=NOWHERE, eq=False, repr=False, kw_only=True)


# --- expressions: one ladder for values and predicates; resolve checks the kinds ----------------


@frozen
class Number(Node):
    """``3``, ``0.5``, ``1e-3``; never negative (that is a `Unary`)."""

    value: int | float


@frozen
class String(Node):
    """``"Paris"``, its escapes undone."""

    value: str


@frozen
class Regex(Node):
    """``/^[A-Z]/``: the pattern between the slashes, ``\\/`` undone; flags are inline, ``(?i)``."""

    pattern: str


@frozen
class Name(Node):
    """A bare word: a column, a role, a `let` name, ``x``, ``input``, ``last``, ``none``."""

    id: str


@frozen
class Row(Node):
    """``row.label``: a column of the data."""

    column: str


@frozen
class Argument(Node):
    """``name=value`` or a bare ``value`` (name None) in a call."""

    value: Expression
    name: str | None = None


@frozen
class Call(Node):
    """``norm(x, 1)``, ``random(0.1, seed=0)``."""

    function: str
    arguments: tuple[Argument, ...]


@frozen
class Slice(Node):
    """``a:b:c``, each part optional and possibly negative."""

    start: int | None = None
    stop: int | None = None
    step: int | None = None


@frozen
class Subscript(Node):
    """``x[i]``, ``x[i:j]``, ``x[[i, j]]``, ``x[head=3]``: on a named dimension or on the last."""

    value: Expression
    index: int | Slice | tuple[int, ...]
    dimension: str | None = None


@frozen
class Unary(Node):
    """``-a``."""

    op: str
    operand: Expression


@frozen
class Binary(Node):
    """``a + b`` and its kin: ``+ - * / **``."""

    op: str
    left: Expression
    right: Expression


@frozen
class Compare(Node):
    """``a < b`` or the chain ``a < b <= c``: operands are one more than operators."""

    ops: tuple[str, ...]
    operands: tuple[Expression, ...]


@frozen
class Membership(Node):
    """``a in {b, c}`` and ``a not in {b, c}``."""

    value: Expression
    members: tuple[Expression, ...]
    negated: bool = False


@frozen
class Match(Node):
    """``token ~ /regex/``."""

    value: Expression
    regex: Regex


@frozen
class Within(Node):
    """``within "New York"`` or ``within /regex/``."""

    pattern: String | Regex


@frozen
class Not(Node):
    """``not a``."""

    operand: Expression


@frozen
class And(Node):
    """Two operands or more, flat."""

    operands: tuple[Expression, ...]


@frozen
class Or(Node):
    """Two operands or more, flat."""

    operands: tuple[Expression, ...]


Expression: TypeAlias = (
    Number
    | String
    | Regex
    | Name
    | Row
    | Call
    | Subscript
    | Unary
    | Binary
    | Compare
    | Membership
    | Match
    | Within
    | Not
    | And
    | Or
)

# --- sites --------------------------------------------------------------------------------------


@frozen
class NameStep(Node):
    """One plain name of a path, ``attn``; digits too (``h.0``), which the path prints as named."""

    name: str


@frozen
class GlobStep(Node):
    """A child whose name matches one of the alternatives, each with ``*`` and ``?`` as wildcards.

    ``{attn,mlp}`` has two, ``{q,k}_proj`` is spelled out as ``q_proj`` and ``k_proj``.
    """

    alternatives: tuple[str, ...]


@frozen
class AnyDepth(Node):
    """``**``: any number of steps, none included."""


@frozen
class IndexStep(Node):
    """``[0:6]``, ``[-1]``, ``[0,3,5]``; ``[*]`` is the empty slice ``Slice()``."""

    items: tuple[int | Slice, ...]


Step: TypeAlias = NameStep | GlobStep | AnyDepth | IndexStep


@frozen
class Path(Node):
    """``transformer.h[0:6].attn``: the steps, in order."""

    steps: tuple[Step, ...]


@frozen
class Port(Node):
    """``:output``, ``:output[1]`` (element 1), ``:input.mask`` (element "mask"), ``:pattern``."""

    name: str
    element: int | str | None = None


@frozen
class PathSite(Node):
    """A module path pattern, an optional class filter, an optional port."""

    path: Path
    isa: str | None = None
    port: Port | None = None


@frozen
class CanonicalSite(Node):
    """``@resid_post[4]``; ``name`` without the ``@``."""

    name: str
    index: IndexStep | None = None
    port: Port | None = None


@frozen
class ModelSite(Node):
    """``input`` or ``output``: the model itself."""

    end: str


Site: TypeAlias = PathSite | CanonicalSite | ModelSite


# --- statements ---------------------------------------------------------------------------------


@frozen
class Statistic(Node):
    """``mean``, ``mean(x > 0) as firing_rate``, ``top(x, k=10)``.

    ``arguments`` is None for a bare name and a tuple, perhaps empty, where parentheses stand.
    """

    name: str
    arguments: tuple[Argument, ...] | None = None
    alias: str | None = None


@frozen
class During(Node):
    """``during prompt`` or ``during generate(max_new_tokens=32)``."""

    phase: str
    arguments: tuple[Argument, ...] | None = None


@frozen
class Let(Node):
    """``let content = not special and position >= 1``."""

    name: str
    value: Expression


@frozen
class Capture(Node):
    """One ``capture`` statement; an absent clause is empty or None."""

    statistics: tuple[Statistic, ...]
    sites: tuple[Site, ...]
    excepts: tuple[PathSite, ...] = ()
    where: Expression | None = None
    by: tuple[Expression, ...] = ()
    pool: tuple[Name, ...] = ()
    during: During | None = None
    alias: Name | None = None
    into: String | None = None


Statement: TypeAlias = Let | Capture


@frozen
class Program(Node):
    """A whole query text."""

    statements: tuple[Statement, ...]
    source: Source = field(eq=False, repr=False, default=Source(""))
