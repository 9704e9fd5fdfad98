"""What is said when a path pattern does not fit a model, and the tree those words speak of."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from attrs import frozen
from torch import nn

from hookql.errors import Diagnostic, Source, Span, did_you_mean, listing, suggest
from hookql.language import ast


class Tree:
    """A model's modules in `named_modules` order, each known by its first name."""

    def __init__(self, root: nn.Module) -> None:
        self.root = root
        self.modules: list[nn.Module] = []
        self._names: dict[int, str] = {}
        self._places: dict[str, int] = {}
        for name, module in root.named_modules():
            self._places[name] = len(self.modules)
            self._names[id(module)] = name
            self.modules.append(module)

    def name(self, module: nn.Module) -> str:
        """The full name, "" for the root."""
        return self._names[id(module)]

    def place(self, name: str) -> int:
        """Where a full name stands in the order."""
        return self._places[name]

    def in_order(self, modules: Iterable[nn.Module]) -> list[nn.Module]:
        """The modules sorted as `named_modules` has them."""
        return sorted(modules, key=lambda module: self._places[self._names[id(module)]])

    def describe(self, module: nn.Module) -> str:
        """`` `transformer.h.0` (GPT2Block)``."""
        kind = type(module).__name__
        return f"the model ({kind})" if module is self.root else f"`{self.name(module)}` ({kind})"


@frozen(eq=False)
class Walk:
    """How far a pattern got from one module.

    ``modules`` is where it ended, empty if it did not; ``taken`` steps led from ``start`` to
    ``here``; ``wrong`` is a container met there and the index outside it, or "empty".
    """

    start: nn.Module
    modules: list[nn.Module]
    taken: int
    here: list[nn.Module]
    wrong: tuple[nn.Module, int | str] | None = None
    steps: tuple[ast.Step, ...] | None = None

    @property
    def reached(self) -> tuple[int, bool]:
        """Larger is further: a wrong index has at least found its container."""
        return self.taken, self.wrong is not None


def children_of(module: nn.Module) -> dict[str, nn.Module]:
    """A module's children by name, those under a second name included."""
    return {name: child for name, child in module._modules.items() if child is not None}


def numbered_children(module: nn.Module) -> dict[int, nn.Module]:
    """The children that are named by a number, as those of a ModuleList or a Sequential are."""
    return {int(n): c for n, c in children_of(module).items() if n.isascii() and n.isdigit()}


def dead_end(tree: Tree, walk: Walk, path: ast.Path, source: Source) -> Diagnostic:
    """The pattern stops at a step: say where, what stands there, and what was likely meant."""
    if walk.taken == len(path.steps):  # only the root itself was left
        message = "the path matches the model itself and nothing below it"
        return Diagnostic("empty-selection", message, path.span, source)
    step = (walk.steps or path.steps)[walk.taken]
    if walk.wrong is not None:
        return _bad_index(tree, step, *walk.wrong, source)
    inside = tree.in_order(walk.here)
    parent = inside[0]
    if isinstance(step, ast.IndexStep):
        message = f"{tree.describe(parent)} is not a list of modules"
        return Diagnostic(
            "not-indexable", message, step.span, source, notes=_children_note(parent, tree)
        )
    if len(inside) > 1 and isinstance(path.steps[walk.taken - 1], ast.AnyDepth):
        return _nowhere_below(tree, step, walk, source)
    wanted = _written(step)
    if isinstance(step, ast.GlobStep) and any(c in wanted for c in "*?"):
        message = f"{tree.describe(parent)} has no child that matches `{wanted}`"
    else:
        message = f"{tree.describe(parent)} has no child `{wanted}`"
    return Diagnostic(
        "unknown-module",
        message,
        step.span,
        source,
        help=_child_help(tree, parent, wanted, walk) or _first_step_help(parent, tree),
        notes=_children_note(parent, tree),
    )


def _first_step_help(parent: nn.Module, tree: Tree) -> str | None:
    """Advice for a path from another family of models: `model.layers[*]` on GPT-2."""
    if parent is not tree.root:
        return None
    return "the blocks of every family are `@block[*]`; `hookql modules` lists all names"


def ambiguous(tree: Tree, walks: list[Walk], path: ast.Path, source: Source) -> Diagnostic:
    """The pattern is a suffix of names below several modules."""
    text = written(path, source)
    names = [tree.name(module) for module in tree.in_order({m for w in walks for m in w.modules})]
    starts = listing([f"`{tree.name(walk.start)}`" for walk in walks], 4)
    return Diagnostic(
        "ambiguous-path",
        f"`{text}` is ambiguous: it can begin at {starts}",
        path.span,
        source,
        help=f"write `**.{text}` for all of them, or begin the path earlier for one",
        notes=(f"it would match {listing(names, 6)}",),
    )


def no_module_of_class(site: ast.PathSite, found: list[nn.Module], source: Source) -> Diagnostic:
    """The path matches, but its class filter keeps nothing."""
    isa = site.isa or ""
    classes = list(dict.fromkeys(type(module).__name__ for module in found))
    bases = [cls.__name__ for module in found for cls in type(module).__mro__[:-1]]
    text = written(site.path, source)
    what = "is an affine map" if isa == "linear" else f"has the class or a base class `{isa}`"
    return Diagnostic(
        "no-module-of-class",
        f"no module that `{text}` matches {what}",
        _class_span(site, source),
        source,
        help=did_you_mean(isa, dict.fromkeys([*classes, *bases])),
        notes=(f"classes: {listing(classes)}",),
    )


def never_called(tree: Tree, module: nn.Module, site: ast.PathSite, source: Source) -> Diagnostic:
    """Only bare containers matched, which a forward pass never calls."""
    item = "[*]" if numbered_children(module) else ".*"
    return Diagnostic(
        "never-called",
        f"{tree.describe(module)} only holds other modules and is never called",
        site.path.span,
        source,
        help=f"write `{tree.name(module)}{item}` for the modules in it",
    )


def idle_except(
    tree: Tree, pattern: ast.PathSite, modules: list[nn.Module], source: Source
) -> Diagnostic:
    """An ``except`` takes nothing away."""
    first = tree.name(modules[0])
    return Diagnostic(
        "idle-except",
        f"`{written(pattern.path, source)}` takes away nothing: the sites do not select "
        f"{listing([f'`{tree.name(module)}`' for module in modules], 3)}",
        pattern.span,
        source,
        help=f"`{first}.**` is also everything below it" if children_of(modules[0]) else None,
    )


def nothing_left(pattern: ast.PathSite, count: int, source: Source) -> Diagnostic:
    """The ``except``s take everything away."""
    noun = "module" if count == 1 else "modules"
    message = f"`except` takes away all that the sites select ({count} {noun})"
    return Diagnostic("empty-selection", message, pattern.span, source)


def written(path: ast.Path, source: Source) -> str:
    """The path as the source has it, or spelled out where the tree has no source."""
    if path.span.end > path.span.start:
        return source.text[path.span.start : path.span.end]
    text = ""
    for step in path.steps:
        text += (
            _written(step) if isinstance(step, ast.IndexStep) or not text else "." + _written(step)
        )
    return text


# --- their parts ----------------------------------------------------------------------------------


def _bad_index(
    tree: Tree, step: ast.Step, module: nn.Module, index: int | str, source: Source
) -> Diagnostic:
    numbers = numbered_children(module)
    holds = f"holds {len(numbers)} module{'s' if len(numbers) != 1 else ''}"
    if isinstance(index, str):
        message = f"`{_written(step)}` selects nothing of {tree.describe(module)}, which {holds}"
        return Diagnostic("empty-selection", message, step.span, source)
    if len(numbers) == max(numbers) + 1:
        note = f"indices: 0 to {max(numbers)}, or -{len(numbers)} to -1"
    else:
        note = f"indices: {listing([str(n) for n in numbers])}"
    message = f"index {index} is outside {tree.describe(module)}, which {holds}"
    return Diagnostic("index-out-of-range", message, step.span, source, notes=(note,))


def _nowhere_below(tree: Tree, step: ast.Step, walk: Walk, source: Source) -> Diagnostic:
    """After ``**`` any depth was searched: speak of the whole, not of one parent."""
    wanted = _written(step)
    names = dict.fromkeys(name for module in walk.here for name in children_of(module))
    return Diagnostic(
        "unknown-module",
        f"nothing below {tree.describe(tree.in_order(walk.here)[0])} is named `{wanted}`",
        step.span,
        source,
        help=did_you_mean(wanted, names),
        notes=(f"names: {listing([name for name in names if not name.isdigit()])}",),
    )


def _child_help(tree: Tree, parent: nn.Module, wanted: str, walk: Walk) -> str | None:
    numbered = numbered_children(parent)
    for module in numbered.values():
        if wanted in children_of(module):
            return f"write `{tree.name(parent)}[*].{wanted}`"
    near = did_you_mean(wanted, children_of(parent))
    if near is not None or walk.taken > 0:
        return near
    # A bare suffix: the word may be a slip for a name anywhere below.
    parents: dict[str, list[nn.Module]] = {}
    for module in tree.modules:
        for name in children_of(module):
            parents.setdefault(name, []).append(module)
    word = suggest(wanted, parents)
    if word is None:
        return None
    return f"did you mean `{word}`?" if len(parents[word]) == 1 else f"did you mean `**.{word}`?"


def _children_note(parent: nn.Module, tree: Tree) -> tuple[str, ...]:
    names = list(children_of(parent))
    if not names:
        return (f"{tree.describe(parent)} has no children",)
    return (f"children: {listing(names)}",)


def _class_span(site: ast.PathSite, source: Source) -> Span:
    """Where the class name stands: the tree has the site's span only."""
    start = source.text.find(site.isa or "", site.path.span.end, max(site.span.end, 0))
    return site.span if start < 0 else Span(start, start + len(site.isa or ""))


def _written(step: ast.Step) -> str:
    match step:
        case ast.NameStep(name):
            return name
        case ast.GlobStep(alternatives):
            return alternatives[0] if len(alternatives) == 1 else f"{{{','.join(alternatives)}}}"
        case ast.AnyDepth():
            return "**"
        case ast.IndexStep(items):
            return f"[{','.join(map(_item, items))}]"


def _item(item: int | ast.Slice) -> str:
    if isinstance(item, int):
        return str(item)
    parts: Sequence[int | None] = (item.start, item.stop, item.step)
    if parts == (None, None, None):
        return "*"
    text = ":".join("" if part is None else str(part) for part in parts)
    return text[:-1] if item.step is None else text
