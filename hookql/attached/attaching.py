"""`attach`: detectors put on the modules that path patterns name, and taken off again."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any

from attrs import frozen
from torch import nn

from hookql.attached.detector import Detector
from hookql.attached.keys import matches
from hookql.attached.showing import Passes, Seat
from hookql.errors import Diagnostic, HookQLError, UsageError, listing
from hookql.models.hooks import module_calls, root_calls
from hookql.models.load import Model, check_observable
from hookql.models.paths import Match
from hookql.models.ports import PortReader

Given = Detector | Callable[[], Detector]


@contextmanager
def attach(
    model: nn.Module | Model, detectors: Mapping[str, Given | Sequence[Given]]
) -> Iterator[Mapping[str, list[Detector]]]:
    """Show detectors the calls of a model's modules, inside this context.

    Args:
        model: a torch module, or a `Model` of `load_model`.
        detectors: by what can stand after `from` in a query: a path pattern
            (``transformer.h[0:6].attn``, ``** isa Linear except lm_head``), a canonical site
            (``@resid_post[4]``), ``input`` or ``output`` for the model itself, each with a port or
            without. A class, or a function that makes one, is called for each match, so that each
            has a detector of its own; a detector itself is shared by all matches. Or a list.

    Yields:
        The detectors of each matched module, by its full name, in the order they are shown calls.

    The user's passes go on as they would, in train mode, under autocast, in inference mode, with
    gradient checkpointing (what a backward pass runs again is not shown again). HookQL's own passes
    over the model are not shown. Leaving removes exactly these hooks, in whatever order several
    contexts are left.

    Raises:
        QueryError: a key that is wrong or does not fit the model, pointing into it.
        UsageError: what is no detector, or one that cannot stand at several sites.
        ModelError: a model whose hooks are not called (compiled, data parallel, sharded); and from
            within the pass, a detector that raised, returned something or wrote into what it saw.
    """
    root = model.module if isinstance(model, Model) else model
    if not isinstance(root, nn.Module):
        message = f"detectors are attached to a torch module, not to `{type(root).__name__}`"
        raise UsageError(Diagnostic("not-a-model", message))
    check_observable(root)
    seats = _seats(root, detectors)
    passes = Passes(root)
    attention = getattr(getattr(root, "config", None), "_attn_implementation", None)
    with ExitStack() as stack:
        for seat in seats:
            stack.enter_context(_taken(seat.detector, str(seat.match.point)))
        # Before all detectors a pass begins, and after all of them it is over.
        stack.enter_context(root_calls(root, passes.begin, _nothing))
        for seat in seats:
            module = root.get_submodule(seat.match.module)
            reader = PortReader(seat.match.point, module, attention)
            show = Seat(passes, seat.detector, seat.match, reader).show
            stack.enter_context(module_calls(module, seat.match.point.event[0], show))
        stack.enter_context(root_calls(root, _nothing, passes.end))
        yield _by_module(seats)


@frozen(eq=False)
class _Placed:
    """A detector and where it is to stand; ``key`` is the text that says so."""

    key: str
    match: Match
    detector: Detector


def _seats(root: nn.Module, detectors: Mapping[str, Any]) -> list[_Placed]:
    """Every detector with its place, in the order of the mapping; each at a place once."""
    if not isinstance(detectors, Mapping):
        message = "detectors are given by site, as a mapping"
        help = 'write `{"h[0]": MyDetector()}`'
        raise UsageError(Diagnostic("not-a-detector", message, help=help))
    placed: dict[tuple[Any, ...], _Placed] = {}
    for key, given in detectors.items():
        if not isinstance(key, str):
            message = f"a site is a path as text, not {key!r}"
            help = 'write `{"h[0]": MyDetector()}`'
            raise UsageError(Diagnostic("not-a-detector", message, help=help))
        found = matches(root, key)
        for one in given if isinstance(given, list | tuple) else [given]:
            for match in found:
                detector = _made(one, key)
                if type(detector).process_activations is Detector.process_activations:
                    message = f"`{type(detector).__name__}`, given for `{key}`, does nothing"
                    help = "give it a `process_activations(self, module, input, output)`"
                    raise UsageError(Diagnostic("not-a-detector", message, help=help))
                where = (id(detector), match.point, match.view)
                placed.setdefault(where, _Placed(key, match, detector))
    _check_shared(list(placed.values()))
    return list(placed.values())


def _made(given: Any, key: str) -> Detector:
    """A detector that was given, or a fresh one of what makes them."""
    if isinstance(given, Detector):
        return given
    help = "give a Detector, a class of detectors, or a function that makes one"
    if not callable(given):
        message = f"`{key}` is given `{type(given).__name__}`, which is no detector"
        raise UsageError(Diagnostic("not-a-detector", message, help=help))
    name = getattr(given, "__name__", type(given).__name__)
    try:
        made = given()
    except HookQLError:
        raise
    except Exception as error:
        message = f"`{name}`, given for `{key}`, makes no detector when it is called"
        notes = (f"{type(error).__name__}: {error}",)
        takes = isinstance(given, type) and isinstance(error, TypeError)
        advice = f"where it takes arguments, write `lambda: {name}(...)`" if takes else None
        raise UsageError(Diagnostic("not-a-detector", message, help=advice, notes=notes)) from error
    if not isinstance(made, Detector):
        message = f"`{name}`, given for `{key}`, makes no detector but `{type(made).__name__}`"
        raise UsageError(Diagnostic("not-a-detector", message, help=help))
    return made


def _check_shared(placed: Sequence[_Placed]) -> None:
    """Refuse one detector for several sites where its numbers would be of all of them mixed."""
    sites: dict[int, list[_Placed]] = {}
    for each in placed:
        sites.setdefault(id(each.detector), []).append(each)
    for several in sites.values():
        detector = several[0].detector
        names = [*detector._sites, *(f"`{each.match.point}`" for each in several)]
        if detector.shareable or len(names) < 2:
            continue
        kind = type(detector).__name__
        message = f"one {kind} cannot stand at {len(names)} sites: it would mix what they make"
        help = f"give `{kind}` or `lambda: {kind}(...)`, which makes one for each"
        notes = (f"sites: {listing(names, 6)}",)
        raise UsageError(Diagnostic("shared-detector", message, help=help, notes=notes))


@contextmanager
def _taken(detector: Detector, site: str) -> Iterator[None]:
    """A detector knows where it stands, so that nobody puts it elsewhere as well."""
    name = f"`{site}`"
    detector._sites.append(name)
    try:
        yield
    finally:
        detector._sites.remove(name)


def _by_module(seats: Sequence[_Placed]) -> dict[str, list[Detector]]:
    found: dict[str, list[Detector]] = {}
    for seat in seats:
        known = found.setdefault(seat.match.module, [])
        if not any(seat.detector is other for other in known):
            known.append(seat.detector)
    return found


def _nothing(*given: Any) -> None:
    """Nothing is to be done at this end of a pass."""
