"""Matching path patterns to a model's modules: never a guess, always an order.

A pattern is walked one step at a time over *sets* of modules, so that its cost is the number of
steps times the size of the model, however many ``**`` it holds. A module shared under several
names is one module, known by the first of them.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from attrs import evolve, frozen
from torch import nn

from hookql.errors import Diagnostic, QueryError, Source
from hookql.language import ast
from hookql.models import path_errors as errors
from hookql.models.canonical import token_embedding
from hookql.models.classes import computes, glob, is_a
from hookql.models.path_errors import Tree, Walk, children_of, numbered_children
from hookql.models.ports import HookPoint
from hookql.models.sites import chosen_layers, places
from hookql.models.synonyms import synonym
from hookql.models.views import View


@frozen(eq=False)
class Match:
    """One tensor that a site selects: the module's full name ("" is the model itself) and the port.

    ``view`` is the piece of its rows that is meant, None for all of them. ``layer`` is the first
    index of the path or the block of a canonical site, None where there is none. ``role`` is the
    path without that index and with its port, or the canonical name. ``whole`` says that the match
    is a module, whose `input` and `output` mean something beside each other.
    """

    module: str
    site: ast.Site
    point: HookPoint
    view: View | None = None
    layer: int | None = None
    role: str = "model"
    whole: bool = False

    @classmethod
    def of(cls, module: str, site: ast.PathSite | ast.ModelSite) -> Match:
        """The match of a path, or of the model itself."""
        point = HookPoint.of(module, site)
        layer, role = layer_and_role(module)
        role = role or "model"
        named = role if point.port == "output" else f"{role}:{point.port}"
        whole = isinstance(site, ast.PathSite) and site.port is None
        return cls(module, site, point, None, layer, named, whole)


def match_sites(
    root: nn.Module,
    sites: Sequence[ast.Site],
    excepts: Sequence[ast.PathSite],
    source: Source,
) -> list[Match]:
    """The modules that the sites select, in `named_modules` order, each (module, port) once.

    Only modules that compute are selected: a bare container (`nn.ModuleList`) has no output.

    Raises:
        QueryError: with every diagnostic of every site and ``except``.
    """
    tree = Tree(root)
    problems: list[Diagnostic] = []
    picked: list[Match] = []
    removed: list[tuple[ast.PathSite, list[nn.Module]]] = []
    for site in sites:
        if isinstance(site, ast.ModelSite):
            picked.append(Match.of("", site))
            continue
        try:
            picked += _matches(tree, site, source)
        except QueryError as error:
            problems += error.diagnostics
    for pattern in excepts:
        try:
            removed.append((pattern, _select(tree, pattern, source)))
        except QueryError as error:
            problems += error.diagnostics
    if not problems:
        picked, problems = _subtract(tree, picked, removed, source)
    if problems:
        raise QueryError(problems)
    return _ordered(tree, picked)


def _matches(tree: Tree, site: ast.PathSite | ast.CanonicalSite, source: Source) -> list[Match]:
    """The matches of one site. Raises QueryError where there are none."""
    if isinstance(site, ast.PathSite):
        meant = synonym(tree.root, site, source)
        if meant is None:
            found = _computing(tree, _select(tree, site, source), site, source)
            return [Match.of(tree.name(module), site) for module in found]
        embedding = token_embedding(tree.root) if meant.embedding else None
        if embedding is not None:
            return [Match.of(tree.name(embedding), site)]
        canonical = meant.site
    else:
        canonical = site
    return [
        Match(place.point.module, site, place.point, place.view, place.layer, role, whole)
        for place, whole in places(tree.root, canonical, source)
        for role in [_role(canonical, place.point)]
    ]


def _role(site: ast.CanonicalSite, point: HookPoint) -> str:
    """The bare canonical name, with the port where the query names another than the output."""
    other = site.port is not None and point.port != "output"
    return f"{site.name}:{point.port}" if other else site.name


def layer_and_role(module_name: str) -> tuple[int | None, str]:
    """The first index of a path, and the path without it; later indices stay in the role.

    >>> layer_and_role("transformer.h.3.mlp.c_fc")
    (3, 'transformer.h.mlp.c_fc')
    >>> layer_and_role("encoder.block.0.layer.1")
    (0, 'encoder.block.layer.1')
    >>> layer_and_role("lm_head")
    (None, 'lm_head')
    """
    steps = module_name.split(".")
    for i, step in enumerate(steps):
        if step.isascii() and step.isdigit():
            return int(step), ".".join(steps[:i] + steps[i + 1 :])
    return None, module_name


# --- one pattern ----------------------------------------------------------------------------------


def _select(tree: Tree, site: ast.PathSite, source: Source) -> list[nn.Module]:
    """The modules of one path and its class filter, in order; never the root, never none."""
    found = _match_path(tree, site.path, source)
    if site.isa is None:
        return found
    kept = [module for module in found if is_a(module, site.isa)]
    if not kept:
        raise QueryError(errors.no_module_of_class(site, found, source))
    return kept


def _match_path(tree: Tree, path: ast.Path, source: Source) -> list[nn.Module]:
    """The modules of a path from the root or, where that matches nothing, as a suffix."""
    walk = _walk(tree, tree.root, path.steps)
    if not walk.modules and walk.wrong is None:
        walk = _suffix(tree, walk, path, source)
    if walk.modules:
        walk = _first_idle_choice(tree, walk, path) or walk
    if not walk.modules:
        raise QueryError(errors.dead_end(tree, walk, path, source))
    return walk.modules


def _suffix(tree: Tree, from_root: Walk, path: ast.Path, source: Source) -> Walk:
    """The walk from the one module below which the pattern matches.

    Starting points that end in the same modules are one; those that differ are an error.
    """
    best, anchors = from_root, dict[frozenset[int], Walk]()
    for module in tree.modules[1:]:
        walk = _walk(tree, module, path.steps)
        if walk.modules or walk.wrong is not None:
            key = frozenset(map(id, walk.modules)) or frozenset({-id(module)})
            anchors.setdefault(key, walk)
        if walk.reached > best.reached:
            best = walk
    if len(anchors) > 1 and any(walk.modules for walk in anchors.values()):
        raise QueryError(errors.ambiguous(tree, list(anchors.values()), path, source))
    return next(iter(anchors.values()), best)


def _walk(tree: Tree, start: nn.Module, steps: Sequence[ast.Step]) -> Walk:
    """Follow the steps from one module; stops at the first that leads nowhere."""
    here = [start]
    for i, step in enumerate(steps):
        outcome = _take(step, here)
        if isinstance(outcome, tuple):
            return Walk(start, [], i, here, wrong=outcome)
        if not outcome:
            return Walk(start, [], i, here)
        here = outcome
    modules = [m for m in tree.in_order(here) if m is not tree.root]
    return Walk(start, modules, len(steps), here)


def _take(step: ast.Step, here: list[nn.Module]) -> list[nn.Module] | tuple[nn.Module, int | str]:
    """Where one step leads from a set of modules; or the container and index that are at odds."""
    match step:
        case ast.AnyDepth():
            return _unique(below for module in here for below in module.modules())
        case ast.GlobStep(alternatives):
            fits = glob(alternatives)
            return _unique(c for m in here for name, c in children_of(m).items() if fits(name))
        case ast.NameStep(name) if not _is_index(name):
            return _unique(children_of(m)[name] for m in here if name in children_of(m))
        case ast.NameStep(name):
            items: tuple[int | ast.Slice, ...] = (int(name),)
        case ast.IndexStep(items):
            pass
    found: list[nn.Module] = []
    for module in here:
        numbered = numbered_children(module)
        if not numbered:
            continue
        for item in items:
            chosen = _pick(numbered, item)
            if not isinstance(chosen, list):
                return module, chosen
            found += chosen
    return _unique(found)


def _pick(numbered: dict[int, nn.Module], item: int | ast.Slice) -> list[nn.Module] | int | str:
    """The children an index or a slice names; else the index that is outside, or "empty"."""
    chosen = chosen_layers(item, max(numbered) + 1)
    if isinstance(chosen, int):
        return chosen
    found = [numbered[place] for place in chosen if place in numbered]
    return found or (item if isinstance(item, int) else "empty")


def _first_idle_choice(tree: Tree, walk: Walk, path: ast.Path) -> Walk | None:
    """The failing walk of the first written alternative or index that leads nowhere, if any.

    ``h[*].{attn,mpl}`` matches something, but its `mpl` would be dropped without a word.
    """
    for i, step in enumerate(path.steps):
        choices: list[ast.Step] = []
        if isinstance(step, ast.GlobStep) and len(step.alternatives) > 1:
            choices = [evolve(step, alternatives=(each,)) for each in step.alternatives]
        elif isinstance(step, ast.IndexStep) and len(step.items) > 1:
            choices = [evolve(step, items=(each,)) for each in dict.fromkeys(step.items)]
        for choice in choices:
            steps = (*path.steps[:i], choice, *path.steps[i + 1 :])
            alone = _walk(tree, walk.start, steps)
            if not alone.modules:
                return evolve(alone, steps=steps)
    return None


# --- filters --------------------------------------------------------------------------------------


def _computing(
    tree: Tree, found: list[nn.Module], site: ast.PathSite, source: Source
) -> list[nn.Module]:
    """Without the bare containers, which are never called; an error where nothing else is left."""
    kept = [module for module in found if computes(module)]
    if not kept:
        raise QueryError(errors.never_called(tree, found[0], site, source))
    return kept


def _subtract(
    tree: Tree,
    picked: list[Match],
    removed: list[tuple[ast.PathSite, list[nn.Module]]],
    source: Source,
) -> tuple[list[Match], list[Diagnostic]]:
    """The matches that no ``except`` takes away, and what is wrong with the ``except``s."""
    problems: list[Diagnostic] = []
    left = picked
    for pattern, modules in removed:
        names = {tree.name(module) for module in modules}
        taken = [match for match in picked if _excepted(match, pattern, names)]
        if not taken:
            problems.append(errors.idle_except(tree, pattern, modules, source))
        left = [match for match in left if match not in taken]
    if picked and not left:
        problems.append(errors.nothing_left(removed[0][0], len(picked), source))
    return left, problems


def _excepted(match: Match, pattern: ast.PathSite, names: set[str]) -> bool:
    """Whether an ``except`` takes a match away: any port of the module, or the one it names."""
    point = HookPoint.of(match.module, pattern)
    same_port = pattern.port is None or point == match.point
    return not isinstance(match.site, ast.ModelSite) and match.module in names and same_port


def _ordered(tree: Tree, picked: list[Match]) -> list[Match]:
    """In the order of `named_modules`, each module and port once, for the first site to name it."""
    once: dict[tuple[HookPoint, View | None, str], Match] = {}
    for match in picked:
        once.setdefault((match.point, match.view, match.role), match)
    return sorted(once.values(), key=lambda match: tree.place(match.module))


def _is_index(name: str) -> bool:
    """Whether a step is spelled as `named_modules` spells an index: ``0``, not ``00``."""
    return name.isascii() and name.isdigit() and (name == "0" or name[0] != "0") and len(name) < 20


def _unique(modules: Iterable[nn.Module]) -> list[nn.Module]:
    return list({id(module): module for module in modules}.values())
