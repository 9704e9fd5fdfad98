"""Hypothesis strategies over the whole syntax tree: whatever the parser can build."""

from __future__ import annotations

from hypothesis import strategies as st

from hookql.language import ast
from hookql.language.words import PATH_RESERVED, RESERVED

LETTERS = "abxyzé_"
PLAIN = st.text("ab cd\"\\/#{}'.\n\té\x00\U0001f600“", max_size=8)

words = st.one_of(
    st.text(LETTERS + "019", min_size=1, max_size=6).filter(lambda w: not w[0].isdigit()),
    st.sampled_from(["x", "token", "position", "input", "output", "last", "asx", "h", "row"]),
    st.sampled_from(["phase", "role", "step", "generated", "user"]),
)
names = words.filter(lambda w: w not in RESERVED)
anything = st.one_of(words, st.sampled_from(sorted(RESERVED)), st.sampled_from(["0", "12"]))
naturals = st.integers(0, 2**63 - 1)
integers = st.integers(-9, 2**63 - 1)

# --- expressions --------------------------------------------------------------------------------

numbers = st.one_of(naturals, st.floats(0, allow_nan=False, allow_infinity=False)).map(ast.Number)
strings = PLAIN.map(ast.String)
# Only what can stand between slashes: no line breaks, a backslash before another character.
regexes = st.lists(
    st.sampled_from(["a", "/", r"\d", r"\\", "[^x]", " ", "#", '"', "(?i)", "é", r"\."]),
).map(lambda parts: ast.Regex("".join(parts)))
name_nodes = names.map(ast.Name)
rows = st.one_of(anything, PLAIN).map(ast.Row)
slices = st.builds(
    ast.Slice,
    st.none() | integers,
    st.none() | integers,
    st.none() | st.integers(-3, -1) | st.integers(1, 3),
)
leaves = st.one_of(
    numbers, strings, name_nodes, rows, st.builds(ast.Within, st.one_of(strings, regexes))
)


def flat(node, operand):
    """`and` and `or`: two operands or more, none of their own kind."""
    operands = st.lists(operand.filter(lambda o: not isinstance(o, node)), min_size=2, max_size=3)
    return operands.map(lambda o: node(tuple(o)))


def arguments(value):
    """The arguments of a call."""
    one = st.builds(ast.Argument, value, st.none() | names)
    return st.lists(one, max_size=3).map(tuple)


def compares(value):
    """Chains of comparisons, one longer than their operators."""
    ops = st.lists(st.sampled_from(["==", "!=", "<", "<=", ">", ">="]), min_size=1, max_size=3)
    return ops.flatmap(
        lambda o: st.builds(
            ast.Compare,
            st.just(tuple(o)),
            st.lists(value, min_size=len(o) + 1, max_size=len(o) + 1).map(tuple),
        )
    )


def larger(value):
    """Every node that has expressions in it."""
    indices = st.one_of(integers, slices, st.lists(integers, min_size=1, max_size=3).map(tuple))
    return st.one_of(
        st.builds(ast.Call, names, arguments(value)),
        st.builds(ast.Subscript, value, indices, st.none() | names),
        st.builds(ast.Unary, st.just("-"), value),
        st.builds(ast.Binary, st.sampled_from(["+", "-", "*", "/", "**"]), value, value),
        compares(value),
        st.builds(
            ast.Membership,
            value,
            st.lists(value, min_size=1, max_size=3).map(tuple),
            st.booleans(),
        ),
        st.builds(ast.Match, value, regexes),
        st.builds(ast.Not, value),
        flat(ast.And, value),
        flat(ast.Or, value),
    )


expressions = st.recursive(leaves, larger, max_leaves=12)

# --- sites --------------------------------------------------------------------------------------

odd_names = PLAIN.map(lambda t: t.replace(".", "")).filter(bool)
name_steps = st.one_of(anything, odd_names, st.sampled_from(sorted(PATH_RESERVED))).map(
    ast.NameStep
)
globs = st.text("ab*?0", min_size=1, max_size=4).filter(lambda t: "**" not in t)
glob_steps = st.one_of(
    st.lists(globs, min_size=2, max_size=3).map(lambda g: ast.GlobStep(tuple(g))),
    globs.map(lambda g: ast.GlobStep((g,))),
)
index_steps = st.lists(st.one_of(integers, slices), min_size=1, max_size=3).map(
    lambda items: ast.IndexStep(tuple(items))
)
first_steps = st.one_of(name_steps, glob_steps, st.just(ast.AnyDepth()))
paths = st.builds(
    lambda first, rest: ast.Path((first, *rest)),
    first_steps,
    st.lists(st.one_of(first_steps, index_steps), max_size=4),
)
ports = st.builds(
    ast.Port, anything | st.sampled_from(["output", "input"]), st.none() | integers | anything
)
classes = st.sampled_from(["Linear", "linear", "*Norm", "GPT2?*", "in"])
path_sites = st.builds(ast.PathSite, paths, st.none() | classes, st.none() | ports)
sites = st.one_of(
    path_sites,
    st.builds(ast.CanonicalSite, anything, st.none() | index_steps, st.none() | ports),
    st.sampled_from(["input", "output"]).map(ast.ModelSite),
)

# --- statements ---------------------------------------------------------------------------------


def some(strategy, least=1):
    """A tuple of a few."""
    return st.lists(strategy, min_size=least, max_size=3).map(tuple)


statistics = st.builds(ast.Statistic, names, st.none() | arguments(expressions), st.none() | names)
captures = st.builds(
    ast.Capture,
    some(statistics),
    some(sites),
    some(st.builds(ast.PathSite, paths, st.none() | classes), least=0),
    st.none() | expressions,
    some(st.one_of(name_nodes, rows), least=0),
    some(name_nodes, least=0),
    st.none() | st.builds(ast.During, names, st.none() | arguments(expressions)),
    st.none() | name_nodes,
    st.none() | strings,
)
lets = st.builds(ast.Let, names, expressions)
programs = some(st.one_of(captures, lets)).map(ast.Program)
