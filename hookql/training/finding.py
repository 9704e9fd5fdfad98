"""Which rows of a result file are meant: its raw values, chosen by node, variable and layer."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from attrs import frozen

from hookql.errors import DataError, Diagnostic, UsageError, did_you_mean
from hookql.exports.source import opened
from hookql.exports.tables import PLACES, Node
from hookql.training.describing import describe
from hookql.training.rows import Rows

_MOST = 12  # of what there is, how much is listed


@frozen
class Choice:
    """What of a file is asked for; None: whatever there is, if it is only one thing.

    ``node`` is a path as in the tree that `hookql.load` gives, ``layer`` the number of a layer, or
    several whose rows are wanted side by side.
    """

    node: str | None
    variable: str | None
    layer: int | tuple[int, ...] | None


@frozen
class _Found:
    """A variable of rows: its node, its name, and its layers' numbers where it has them."""

    node: str
    variable: str
    layers: tuple[int, ...] | None
    rows: int

    def __str__(self) -> str:
        parts = [f"node={self.node.strip('/')!r}"] if self.node != "/" else []
        parts.append(f"variable={self.variable!r}")
        if self.layers is not None:
            known = ", ".join(map(str, self.layers))
            parts.append(f"layer={known}" if len(self.layers) == 1 else f"layers {known}")
        return ", ".join(parts)


def find(path: Path, choice: Choice, labels: bool) -> Rows:
    """The rows of a file that are asked for.

    Raises UsageError for a file that is none of HookQL's, holds no raw values, not those asked for,
    or more than one kind of them; DataError for one without a row.
    """
    with opened(path) as source:
        there = [found for node in source.nodes for found in _found(node)]
    found = _chosen(path, there, choice)
    layers, single = _layers(path, found, choice.layer)
    if not found.rows:
        message = f"`{path}` has raw values, but of no row: its query kept no token"
        raise DataError(Diagnostic("no-rows", message))
    return describe(path, found.node, found.variable, layers, single, labels)


def _found(node: Node) -> list[_Found]:
    found = []
    for column in node.columns:
        if column.name in (*PLACES, "sample"):
            continue
        layers = None
        if "layer" in column.dims:
            size = column.shape[column.dims.index("layer")]
            labels = node.coordinates.get("layer", range(size))
            assert isinstance(labels, Sequence)
            layers = tuple(int(label) for label in labels)
        found.append(_Found(node.name, column.name, layers, node.rows))
    return found


def _chosen(path: Path, there: Sequence[_Found], choice: Choice) -> _Found:
    """The one variable that is meant, or an error that lists what there is."""
    notes = _listed(there)
    found = list(there)
    wanted: Mapping[str, tuple[str | None, list[str]]] = {
        "node": (choice.node, [each.node.strip("/") or "/" for each in there]),
        "variable": (choice.variable, [each.variable for each in there]),
    }
    for name, (value, known) in wanted.items():
        if value is None:
            continue
        value = value.strip("/") or "/" if name == "node" else value
        if value not in known:
            message = f"`{path}` has no raw values with {name}={value!r}"
            help = did_you_mean(value, known)
            raise UsageError(Diagnostic("no-such-rows", message, help=help, notes=notes))
        found = [
            each for each, at in zip(there, known, strict=True) if at == value and each in found
        ]
    if isinstance(choice.layer, int):
        # Where each layer is a node of its own, its number says which.
        of_layer = [each for each in found if each.layers and choice.layer in each.layers]
        found = of_layer or found
    if len(found) == 1:
        return found[0]
    if not found:
        message = f"`{path}` has no raw values with both this node and this variable"
        raise UsageError(Diagnostic("no-such-rows", message, notes=notes))
    message = f"`{path}` has several kinds of rows: {len(found)} are what is asked for"
    differ = {name: len({getattr(each, name) for each in found}) for name in wanted}
    names = [f"`{name}=`" for name, count in differ.items() if count > 1]
    help = f"say which with {' and '.join(names)}"
    raise UsageError(Diagnostic("which-rows", message, help=help, notes=notes))


def _layers(
    path: Path, found: _Found, wanted: int | tuple[int, ...] | None
) -> tuple[tuple[int, ...] | None, bool]:
    """The indices of the layers that are wanted, and whether it is one that is no axis."""
    numbers = (wanted,) if isinstance(wanted, int) else wanted
    if found.layers is None:
        if numbers is not None:
            message = f"`{found.variable}` of `{path}` has no layers"
            raise UsageError(Diagnostic("no-such-layer", message, help="leave `layer` away"))
        return None, False
    known = ", ".join(map(str, found.layers))
    if numbers is None:
        if len(found.layers) > 1:
            message = f"`{path}` has rows of {len(found.layers)} layers, and one is asked for"
            help = "say which with `layer=`; of a list of layers each row has all of them"
            notes = (f"layers: {known}",)
            raise UsageError(Diagnostic("which-rows", message, help=help, notes=notes))
        return (0,), True
    for number in numbers:
        if number not in found.layers:
            message = f"`{path}` has no layer {number}"
            raise UsageError(Diagnostic("no-such-layer", message, notes=(f"layers: {known}",)))
    return tuple(found.layers.index(number) for number in numbers), isinstance(wanted, int)


def _listed(there: Sequence[_Found]) -> tuple[str, ...]:
    shown = [f"there is {each}" for each in there[:_MOST]]
    more = [f"and {len(there) - _MOST:,} more"] if len(there) > _MOST else []
    return (*shown, *more)
