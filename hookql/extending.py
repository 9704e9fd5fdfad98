"""The doors for pieces of queries: columns, functions, canonical names; and that of statistics.

Nothing here imports torch.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from typing import Any, TypeVar

from attrs import evolve, frozen

from hookql.errors import did_you_mean
from hookql.language import names
from hookql.language.functions import FUNCTIONS, Function
from hookql.language.pieces import (
    LOADING,
    Piece,
    check_name,
    draft,
    offer,
    offer_family,
    refuse,
)
from hookql.statistics.core import Parameter, built_in, statistic
from hookql.statistics.offered import parameters_of, signature_of

__all__ = ["column", "function", "sites", "statistic"]

Made = TypeVar("Made", bound=Callable[..., Any])

_KINDS = ("number", "truth", "id")
_AXES = ("each", "last", "along")
_VALUES = {1: "x", 2: "input, output"}
_MADE = ("block", "resid_pre", "resid_post")  # of `blocks` itself
_SITES = tuple(site for site in names.CANONICAL if site not in (*names.ONCE, *_MADE))


@frozen
class OfferedColumn:
    """A column: what its values are, and what reads them from a `Batch`."""

    kind: str
    read: Callable[[Any], Any]


@frozen
class OfferedFunction:
    """A function of tensors: of so many values, then of parameters; ``axes`` as of `function`."""

    doc: str
    compute: Callable[..., Any]
    values: int
    parameters: tuple[Parameter, ...]
    axes: str


@frozen(eq=False)
class OfferedFamily:
    """A table of canonical sites, as `sites` is told it."""

    model: str
    blocks: str
    sites: Mapping[str, str]
    final_norm: str | None
    unembed: str | None
    head: tuple[Any, ...]
    heads: Callable[[Any], tuple[int, int, int]] | None


def column(name: str, kind: str = "number") -> Callable[[Made], Made]:
    """Register the decorated function as a column of tokens, for `where`, `by` and expressions.

    Args:
        name: what queries call it.
        kind: ``number``; ``truth``, true or false; or ``id``, ids of tokens, which are compared
            with texts as `token` is.

    The function takes a `Batch` of B contexts of at most S tokens and returns an array that fits
    (B, S): integers or floats, bools, or integers; or two, ``(values, defined)``, the second of
    them bool, False where there is no value. What it says of a token must not depend on which other
    contexts are in the batch.

    Raises:
        UsageError: for a name that is taken, or a kind that is none.
    """
    check_name("column", name)

    def register(read: Made) -> Made:
        piece = draft("column", name, read, OfferedColumn(kind, read))
        if kind not in _KINDS:
            refuse(piece, f"there is no kind `{kind}`", "kinds: number, truth, id")
        offer(piece, built_in())
        names.COLUMNS[name] = kind
        names.DEFINED.add(name)
        names.OFFERED.add(name)
        return read

    return register


def function(name: str, axes: str = "each") -> Callable[[Made], Made]:
    """Register the decorated function of tensors as a function of expressions.

    Its parameters without a default are values, tensors of float64 with one row a token first;
    those with a number as their default are literals. ``axes`` says what it does to a row:

    - ``each``: works number by number; tensors broadcast against each other, and so does a result;
    - ``last``: takes the last axis away, as `norm`;
    - ``along``: keeps the last axis, as `softmax`.

    A row's result must not depend on the other rows.

    Raises:
        UsageError: for a name that is taken, or a function that cannot be called so.
    """
    check_name("function", name)

    def register(compute: Made) -> Made:
        piece = draft("function", name, compute)
        if axes not in _AXES:
            refuse(piece, f"there are no axes `{axes}`", "axes: each, last, along")
        given = signature_of(piece, compute)
        values = [p for p in given if p.default is p.empty and p.kind is p.POSITIONAL_OR_KEYWORD]
        literals = parameters_of(piece, [p for p in given if p not in values])
        if not values:
            refuse(piece, "it takes no value: each of its parameters has a default")
        doc = inspect.getdoc(compute) or ""
        made = OfferedFunction(doc, compute, len(values), literals, axes)
        offer(evolve(piece, value=made), built_in())
        usage = _VALUES.get(len(values), ", ".join("x" for _ in values))
        FUNCTIONS[name] = Function(
            f"{name}({usage})",
            len(values),
            axes != "each",
            literals=tuple(parameter.name for parameter in literals),
            optional=len(literals),
        )
        return compute

    return register


def sites(
    name: str,
    *,
    model: type | str,
    blocks: str,
    sites: Mapping[str, str],
    final_norm: str | None = None,
    unembed: str | None = None,
    head: tuple[str | Callable[..., Any], ...] | None = None,
    heads: Callable[[Any], tuple[int, int, int]] | None = None,
) -> None:
    """Register where the canonical sites are in models of a class, or of a type of config.

    Args:
        name: what messages call the family.
        model: the class, the full name of one (``package.module.Class``), or a config's
            ``model_type``.
        blocks: the path of the `ModuleList` of blocks; `@block`, `@resid_pre` and `@resid_post`
            are its modules, their input and their output.
        sites: for each other site of a block its path below the block, with a port:
            ``{"mlp_act": "mlp.down:input"}``; ``|`` stands between alternatives.
        final_norm, unembed: the paths of those modules.
        head: what makes logits of the last block's output, for `lens`: paths, and functions of the
            rows and the config; ``(final_norm, unembed)`` unless given.
        heads: gives a model's (heads of queries, heads of keys, numbers in one), for `@q`, `@k`,
            `@v` and `@z`; read from the config unless given.

    Raises:
        UsageError: for a name or a model that is taken, or a site or port that does not exist.
    """
    frame = inspect.currentframe()
    caller = frame.f_back if frame is not None else None
    module = str(caller.f_globals.get("__name__", "")) if caller is not None else ""
    whole = head if head is not None else (final_norm, unembed) if unembed else ()
    steps = tuple(step for step in whole if step is not None)
    kind = model if isinstance(model, str) else f"{model.__module__}.{model.__qualname__}"
    table = OfferedFamily(kind, blocks, dict(sites), final_norm, unembed, steps, heads)
    piece = Piece("family", name, module, f"{module}.{name}", LOADING.package, table)
    for site, place in table.sites.items():
        port = place.partition(":")[2] or "output"
        if site not in _SITES:
            help = did_you_mean(site, _SITES) or f"sites: {', '.join(_SITES)}"
            if site in names.CANONICAL:
                help = f"`@{site}` follows from `blocks`, `final_norm` and `unembed`"
            refuse(piece, f"there is no site `{site}` to be named in a block", help)
        if port not in names.PORTS:
            refuse(piece, f"there is no port `:{port}`", f"ports: {', '.join(names.PORTS)}")
    offer_family(piece, kind)
