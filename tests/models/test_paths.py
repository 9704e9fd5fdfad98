"""Path patterns against small models: every form, every refusal, and a slow second opinion."""

from __future__ import annotations

import fnmatch
from collections.abc import Callable

import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st
from torch import nn

from hookql.errors import QueryError, Source
from hookql.language import ast
from hookql.language.parser import parse
from hookql.models.classes import is_a
from hookql.models.paths import layer_and_role, match_sites
from tests.tiny import tiny


@pytest.fixture(scope="module")
def gpt2() -> nn.Module:
    """A GPT-2 of four layers."""
    return tiny("gpt2")[0]


@pytest.fixture(scope="module")
def t5() -> nn.Module:
    """An encoder of two layers and a decoder of three."""
    return tiny("t5")[0]


def names(root: nn.Module, sites: str) -> list[str]:
    """The modules that a `from` clause selects."""
    program = parse(f"capture mean from {sites}")
    capture = program.statements[0]
    assert isinstance(capture, ast.Capture)
    found = match_sites(root, capture.sites, capture.excepts, program.source)
    return [match.module for match in found]


def refusal(root: nn.Module, sites: str) -> QueryError:
    """The error that a `from` clause meets."""
    with pytest.raises(QueryError) as caught:
        names(root, sites)
    return caught.value


def blocks(*numbers: int, below: str = "") -> list[str]:
    """Names of GPT-2 blocks, or of what is below them."""
    return [f"transformer.h.{number}{below}" for number in numbers]


@pytest.mark.parametrize(
    ("sites", "expected"),
    [
        ("transformer.h[0:2].attn", blocks(0, 1, below=".attn")),
        ("h[0:2].attn", blocks(0, 1, below=".attn")),
        ("transformer.h.3.attn", blocks(3, below=".attn")),
        ("h[-1]", blocks(3)),
        ("h[::2]", blocks(0, 2)),
        ("h[::-1]", blocks(0, 1, 2, 3)),
        ("h[3,0]", blocks(0, 3)),
        ("h[-3:-1]", blocks(1, 2)),
        ("h[2:]", blocks(2, 3)),
        ("h[*]", blocks(0, 1, 2, 3)),
        ("h[0].{attn,mlp}", ["transformer.h.0.attn", "transformer.h.0.mlp"]),
        ("h[0].attn.c_*", ["transformer.h.0.attn.c_attn", "transformer.h.0.attn.c_proj"]),
        ("h[0].ln_?", ["transformer.h.0.ln_1", "transformer.h.0.ln_2"]),
        ("**.attn", blocks(0, 1, 2, 3, below=".attn")),
        ("h[1].**.c_fc", ["transformer.h.1.mlp.c_fc"]),
        ("**.**.**.c_fc", blocks(0, 1, 2, 3, below=".mlp.c_fc")),
        ("** isa GPT2Block", blocks(0, 1, 2, 3)),
        ("** isa GPT2Bl*", blocks(0, 1, 2, 3)),
        ("h[0].** isa linear except h[0].mlp.**, **.c_proj", blocks(0, below=".attn.c_attn")),
        ("** isa Linear", ["lm_head"]),
        ("** isa LayerNorm except h[*].*", ["transformer.ln_f"]),
        ("lm_head, wte, lm_head", ["transformer.wte", "lm_head"]),
        ("output, input, lm_head", ["", "", "lm_head"]),
    ],
)
def test_forms(gpt2: nn.Module, sites: str, expected: list[str]) -> None:
    """Each form of the Sites table selects what the table says."""
    assert expected == names(gpt2, sites)


def test_every_module_but_the_root_and_bare_lists(gpt2: nn.Module) -> None:
    """`**` alone is every module that computes, in the order of named_modules."""
    expected = [n for n, m in gpt2.named_modules() if n and not isinstance(m, nn.ModuleList)]
    assert expected == names(gpt2, "**")


def test_linear_is_every_affine_map(gpt2: nn.Module) -> None:
    """`isa linear` finds transformers' Conv1D as well as nn.Linear."""
    expected = [n for n, m in gpt2.named_modules() if type(m).__name__ in {"Conv1D", "Linear"}]
    assert expected == names(gpt2, "** isa linear")


def test_quantised_linear_is_known_by_its_shape_and_name() -> None:
    """A module called ...Linear... with an input and an output width is an affine map."""

    class QuantLinear(nn.Module):
        in_features = out_features = 4

    assert is_a(QuantLinear(), "linear")
    assert not is_a(nn.LayerNorm(4), "linear")


def test_ports_are_kept_apart(gpt2: nn.Module) -> None:
    """One module at two ports is two matches, and `:output` is the port that none means."""
    expected = ["transformer.h.0", "transformer.h.0"]
    assert expected == names(gpt2, "h[0], h[0]:input, h[0]:output")


def test_except_takes_every_port(gpt2: nn.Module) -> None:
    """`except h[0]` without a port takes the module away at all of them."""
    assert ["transformer.h.1"] == names(gpt2, "h[0], h[0]:input, h[1] except h[0]")


def test_shared_modules_have_their_first_name() -> None:
    """A module under two names is selected once, by either name."""
    linear = nn.Linear(2, 2)
    root = nn.ModuleDict({"a": linear, "b": linear})
    assert ["a"] == names(root, "b")
    assert ["a"] == names(root, "a, b")


def test_a_suffix_that_ends_in_one_module_is_not_ambiguous() -> None:
    """Several starting points with the same end are no reason to refuse."""
    shared = nn.Linear(2, 2)
    root = nn.ModuleDict(
        {"left": nn.ModuleDict({"head": shared}), "right": nn.ModuleDict({"head": shared})}
    )
    assert ["left.head"] == names(root, "head")


def test_the_root_is_preferred_to_a_suffix() -> None:
    """A full name is always its own module, whatever else ends like it."""
    root = nn.ModuleDict({"deep": nn.ModuleDict({"a": nn.Linear(1, 1)}), "a": nn.Linear(1, 1)})
    assert ["a"] == names(root, "a")


def test_lists_with_gaps_are_indexed_by_name() -> None:
    """What stands under a number is found by that number, and a missing one is refused."""
    root = nn.Module()
    root.layers = nn.Module()
    for number in ("2", "5"):
        root.layers.add_module(number, nn.Linear(1, 1))
    assert ["layers.2", "layers.5"] == names(root, "layers[*]")
    assert ["layers.5"] == names(root, "layers[-1]")
    assert "index-out-of-range" == refusal(root, "layers[3]").code


REFUSALS = {
    "unknown_child": "transformer.h[0:2].atn",
    "unknown_first": "transformr.h[0]",
    "unknown_suffix": "atn",
    "unknown_deep_suffix": "h[0].mlp.c_fcc",
    "unknown_under_list": "transformer.h.attn",
    "unknown_glob": "h[0].*_projection",
    "unknown_anywhere": "**.atn",
    "unknown_under_leaf": "transformer.wte.x",
    "idle_alternative": "h[*].{attn,mpl}",
    "out_of_range": "h[0:60].attn",
    "out_of_range_negative": "h[-5]",
    "out_of_range_by_name": "transformer.h.4",
    "out_of_range_huge": "h[0:1000000000000]",
    "out_of_range_in_list": "h[0,4]",
    "empty_slice": "h[2:2]",
    "not_a_list": "transformer.wte[0]",
    "no_class": "** isa GPT2Blok",
    "no_linear": "h[*].ln_1 isa linear",
    "ambiguous": "c_fc",
    "bare_list": "transformer.h",
    "idle_except": "h[0] except transformer.h",
    "nothing_left": "h[0:2] except h[*]",
    "several": "h[9], wtee, c_fc except nothing_like_it",
}


@pytest.mark.parametrize("name", REFUSALS)
def test_refusals(gpt2: nn.Module, golden: Callable[[str, str], None], name: str) -> None:
    """What does not fit the model is refused in words that say what would."""
    golden(f"models/paths/{name}.txt", str(refusal(gpt2, REFUSALS[name])) + "\n")


def test_two_stacks_are_never_chosen_between(t5: nn.Module) -> None:
    """`block[0]` of an encoder-decoder could be either stack's."""
    error = refusal(t5, "block[0]")
    assert "ambiguous-path" == error.code
    assert "it would match encoder.block.0, decoder.block.0" in error.notes[0]


def test_an_index_that_only_one_stack_has_is_still_ambiguous(t5: nn.Module) -> None:
    """That the encoder is too short for `block[2]` does not make the decoder the one meant."""
    assert "ambiguous-path" == refusal(t5, "block[2]").code
    assert ["decoder.block.2"] == names(t5, "decoder.block[2]")


def test_bounds_hold_for_every_list_that_is_reached(t5: nn.Module) -> None:
    """`**.block[2]` would silently leave the encoder out."""
    error = refusal(t5, "**.block[2]")
    assert ("index-out-of-range", "encoder.block") == (error.code, error.message.split("`")[1])


def test_a_canonical_site_without_an_index_is_not_all_layers(gpt2: nn.Module) -> None:
    """`@attn` alone says no layers, as `h` alone says no block."""
    site = ast.CanonicalSite("attn")
    with pytest.raises(QueryError) as caught:
        match_sites(gpt2, [site], [], Source(""))
    assert "needs-index" == caught.value.code


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("transformer.h.3.mlp.c_fc", (3, "transformer.h.mlp.c_fc")),
        ("encoder.block.0.layer.1", (0, "encoder.block.layer.1")),
        ("lm_head", (None, "lm_head")),
        ("", (None, "")),
        ("7", (7, "")),
    ],
)
def test_layer_and_role(name: str, expected: tuple[int | None, str]) -> None:
    """The first index becomes the layer; later ones stay."""
    assert expected == layer_and_role(name)


# --- a second opinion -----------------------------------------------------------------------------


def small_model() -> nn.Module:
    """Lists in lists, a module shared by two names, a name that occurs at several depths."""
    shared = nn.Linear(1, 1)

    def block() -> nn.Module:
        inner = nn.Sequential(nn.Linear(1, 1), nn.ReLU())
        return nn.Sequential(*[nn.Identity(), nn.Sequential(inner, nn.Linear(1, 1))])

    def named(**parts: nn.Module) -> nn.Module:
        module = nn.Identity()
        for name, part in parts.items():
            module.add_module(name, part)
        return module

    body = named(
        a=named(h=nn.ModuleList([block(), block(), named(a=shared)]), b=nn.ReLU()),
        h=nn.ModuleList([named(a=nn.ReLU(), b=shared), named(b=nn.Linear(1, 1))]),
    )
    return named(m=body, b=shared, ab=named(a=nn.Identity()))


MODEL = small_model()


def reach(module: nn.Module, steps: tuple[ast.Step, ...]) -> set[nn.Module]:
    """Every module a pattern leads to, by plain recursion; IndexError where an index is outside."""
    if not steps:
        return {module}
    step, rest = steps[0], steps[1:]
    children = dict(module._modules)
    if isinstance(step, ast.AnyDepth):
        found = reach(module, rest)
        return found.union(*(reach(child, steps) for child in children.values()))
    if isinstance(step, ast.IndexStep):
        chosen = in_list([c for name, c in children.items() if name.isdigit()], step.items)
    elif isinstance(step, ast.GlobStep):
        chosen = [
            c
            for name, c in children.items()
            if any(fnmatch.fnmatchcase(name, p) for p in step.alternatives)
        ]
    elif step.name.isdigit():
        chosen = in_list([c for n, c in children.items() if n.isdigit()], (int(step.name),))
    else:
        chosen = [children[step.name]] if step.name in children else []
    return set().union(*(reach(child, rest) for child in chosen))


def in_list(modules: list[nn.Module], items: tuple[int | ast.Slice, ...]) -> list[nn.Module]:
    """Python's own indexing, made strict."""
    chosen = []
    for item in items if modules else ():
        if isinstance(item, int):
            chosen.append(modules[item])
            continue
        if item.start is not None:
            modules[item.start]
        if item.stop is not None and abs(item.stop) > len(modules):
            raise IndexError
        part = modules[item.start : item.stop : item.step]
        if not part:
            raise IndexError
        chosen += part
    return chosen


def slow_match(steps: tuple[ast.Step, ...]) -> list[str] | None:
    """What a pattern matches in MODEL, or None where it must be refused."""
    outcomes = []
    for _, module in MODEL.named_modules(remove_duplicate=False):
        try:
            outcome = reach(module, steps) - {MODEL}
        except IndexError:
            outcome = None
        if outcome is None or outcome:
            outcomes.append((module, outcome))
        if module is MODEL and outcomes:
            break
    distinct = {None if o is None else frozenset(o) for _, o in outcomes}
    if not outcomes or None in distinct or len(distinct) > 1:
        return None
    start, found = outcomes[0]
    for i, step in enumerate(steps):
        for single in singles(step):
            if not reach(start, (*steps[:i], single, *steps[i + 1 :])) - {MODEL}:
                return None
    found = {m for m in found if not isinstance(m, nn.ModuleList)}
    return [name for name, module in MODEL.named_modules() if module in found] or None


def singles(step: ast.Step) -> list[ast.Step]:
    """A step's written choices, each as a step of its own."""
    if isinstance(step, ast.GlobStep):
        return [ast.GlobStep((each,)) for each in step.alternatives]
    if isinstance(step, ast.IndexStep):
        return [ast.IndexStep((each,)) for each in step.items]
    return []


small = st.integers(-4, 4)
optional = st.none() | small
slices = st.builds(ast.Slice, optional, optional, st.sampled_from([None, 1, 2, -1]))
step_names = st.sampled_from(["a", "b", "h", "m", "ab", "0", "1", "2", "x"])
globs = st.sampled_from(["*", "?", "a*", "b", "h", "*b", "x*"])
steps_ = st.one_of(
    st.builds(ast.NameStep, step_names),
    st.builds(ast.GlobStep, st.lists(globs, min_size=1, max_size=2).map(tuple)),
    st.just(ast.AnyDepth()),
    st.builds(ast.IndexStep, st.lists(small | slices, min_size=1, max_size=2).map(tuple)),
    st.just(ast.IndexStep((ast.Slice(),))),
)


@settings(max_examples=1500, deadline=None)
@given(st.lists(steps_, min_size=1, max_size=4).map(tuple))
@example((ast.AnyDepth(), ast.AnyDepth(), ast.NameStep("b")))
@example((ast.NameStep("h"), ast.IndexStep((ast.Slice(),)), ast.NameStep("a")))
def test_agrees_with_plain_recursion(steps: tuple[ast.Step, ...]) -> None:
    """The walk over sets finds what trying every path one by one finds, and refuses the same."""
    site = ast.PathSite(ast.Path(steps))
    found: list[str] | None
    try:
        found = [match.module for match in match_sites(MODEL, [site], [], Source(""))]
    except QueryError as error:
        found, words = None, str(error)
    else:
        words = "none needed"
    assert words
    assert slow_match(steps) == found


def test_many_wildcards_do_not_multiply() -> None:
    """Twenty `**` over a deep model are twenty walks, not a walk for every way to divide it."""
    root: nn.Module = nn.Linear(1, 1)
    for _ in range(60):
        root = nn.Sequential(root, nn.Identity())
    steps = (*[ast.AnyDepth()] * 20, ast.NameStep("1"))
    found = match_sites(root, [ast.PathSite(ast.Path(steps))], [], Source(""))
    assert 60 == len(found)


def test_matching_leaves_the_model_alone(gpt2: nn.Module) -> None:
    """No hook is added and no weight is touched."""
    before = {n: p.clone() for n, p in gpt2.named_parameters()}
    names(gpt2, "** isa linear")
    assert all(torch.equal(before[n], p) for n, p in gpt2.named_parameters())
    assert 0 == sum(len(m._forward_hooks) for m in gpt2.modules())
