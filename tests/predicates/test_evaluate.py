"""Predicates against a slow reference, batch independence, and every diagnostic."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import attrs
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hookql.data.batches import Batch, batches, collate
from hookql.data.encode import ROLE, Context, Encoder
from hookql.data.samples import Field, Sample
from hookql.errors import DataError, QueryError, Source
from hookql.language import ast, names
from hookql.language.parser import parse
from hookql.language.values import value_leaves
from hookql.language.walk import walk
from hookql.predicates.columns import COLUMNS
from hookql.predicates.evaluate import Predicate, compile_predicate
from hookql.predicates.values import Values
from hookql.predicates.vocabulary import Vocabulary
from tests.data.toys import byte_bpe, metaspace, slow
from tests.predicates.reference import Reference

VOCABULARY = Vocabulary(metaspace())
TEXTS = ["<unk>", "a", " a", "Paris", " Paris", " ", "P", "aris", "s"]


def _where(text: str) -> tuple[ast.Expression, Source]:
    program = parse(f"capture mean from a where {text}", "query.hq")
    (capture,) = program.statements
    assert isinstance(capture, ast.Capture)
    assert capture.where is not None
    return capture.where, program.source


def _compile(text: str, vocabulary: Vocabulary | None = VOCABULARY, **options: Any) -> Predicate:
    where, source = _where(text)
    return compile_predicate(where, vocabulary, source, **options)


# --- against the reference ----------------------------------------------------------------------

INTEGERS = st.integers(0, 9)
NUMBERS = st.builds(ast.Number, INTEGERS)
ENDS = NUMBERS | st.builds(lambda n: ast.Unary("-", ast.Number(n)), st.integers(1, 9))
LAST = st.just(ast.Name("last")) | st.builds(
    lambda n: ast.Binary("-", ast.Name("last"), ast.Number(n)), st.integers(0, 3)
)
NONE = st.just(ast.Name("none"))
EQUAL = st.sampled_from(["==", "!="])
ORDER = st.sampled_from(["==", "!=", "<", "<=", ">", ">="])
ID_COLUMNS = st.sampled_from(["token", "prev", "next"]).map(ast.Name)
POSITIONS = st.sampled_from(["position", "content_position"]).map(ast.Name)
COUNTS = st.sampled_from(["length", "sample", "chunk", "offset", "step"]).map(ast.Name)
PHASE, ROLE_OF = st.just(ast.Name("phase")), st.just(ast.Name("role"))
PHASES = st.sampled_from(["prompt", "generated"]).map(ast.String)
SPEAKERS = st.sampled_from(["user", "assistant", "the narrator"]).map(ast.String)
SIGNALS = ("surprisal", "loss", "prob", "rank", "entropy")
X = ast.Argument(ast.Name("x"))
LEAVES: tuple[ast.Expression, ...] = (
    ast.Call("norm", (X,)),
    ast.Subscript(ast.Name("x"), 3),
    ast.Call("argmax", (ast.Argument(ast.Call("lens", (X,))),)),
)
FINITE = ast.Call("isfinite", (ast.Argument(LEAVES[1]),))
LEAF = st.sampled_from(LEAVES)
REAL = st.sampled_from(SIGNALS).map(ast.Name) | LEAF
TOKEN_REAL = st.sampled_from([*SIGNALS, "position", "content_position"]).map(ast.Name)
CALLS = st.one_of(
    st.builds(
        lambda name, value: ast.Call(name, (ast.Argument(value),)),
        st.sampled_from(["abs", "square", "relu", "sign"]),
        TOKEN_REAL,
    ),
    st.builds(
        lambda value, lo, hi: ast.Call(
            "clip", (ast.Argument(value), ast.Argument(lo), ast.Argument(hi))
        ),
        TOKEN_REAL,
        st.integers(0, 2).map(ast.Number),
        st.integers(2, 5).map(ast.Number),
    ),
)
TESTS = st.builds(
    lambda name, value: ast.Call(name, (ast.Argument(value),)),
    st.sampled_from(["isfinite", "isnan"]),
    TOKEN_REAL,
) | st.just(FINITE)
TOKENS = st.sampled_from(["a", " a", "Paris", " Paris", "<unk>", "aris", " "]).map(ast.String)
IDS = st.builds(ast.Number, st.integers(0, 8))
ROLES = st.sampled_from(["unk", "bos", "eos", "cls", "sep", "mask", "pad"]).map(ast.Name)
WORDS = st.sampled_from(["x", "y", "1"]).map(ast.String)
REGEXES = st.sampled_from(["^ ", "P", "aris$", "^a|s$", "(?i)p"]).map(ast.Regex)


def _pair(left: Any, op: Any, right: Any) -> st.SearchStrategy[ast.Expression]:
    return st.builds(lambda a, o, b: ast.Compare((o,), (a, b)), left, op, right)


def _in(value: Any, members: Any) -> st.SearchStrategy[ast.Expression]:
    sets = st.lists(members, min_size=1, max_size=3).map(tuple)
    return st.builds(ast.Membership, value, sets, st.booleans())


def _row(name: str) -> st.SearchStrategy[ast.Row]:
    return st.just(ast.Row(name))


CHAIN = st.builds(
    lambda a, x, b, o, p: ast.Compare((o, p), (a, x, b)), ENDS, POSITIONS, ENDS | LAST, ORDER, ORDER
)
ATOMS = st.one_of(
    st.sampled_from(["special", "true", "false"]).map(ast.Name),
    _row("b"),
    _pair(ID_COLUMNS, EQUAL, TOKENS | IDS | ROLES | NONE),
    _pair(TOKENS | IDS, EQUAL, ID_COLUMNS),
    _pair(st.just(ast.Name("token")), EQUAL, st.sampled_from(["prev", "next"]).map(ast.Name)),
    _in(ID_COLUMNS, TOKENS | IDS | ROLES | NONE),
    _pair(POSITIONS, ORDER, ENDS | LAST),
    _pair(POSITIONS, EQUAL, NONE),
    _pair(REAL | CALLS, ORDER, REAL | CALLS | NUMBERS | POSITIONS | _row("n")),
    _pair(LEAF, EQUAL, ID_COLUMNS),
    _pair(st.builds(ast.Binary, st.sampled_from("+-*"), REAL, NUMBERS), ORDER, REAL),
    _in(REAL, NUMBERS | POSITIONS),
    _pair(TOKEN_REAL | CALLS, EQUAL, NONE),
    _pair(st.builds(lambda a, b: ast.Compare((">",), (a, b)), POSITIONS, NUMBERS), EQUAL, NONE),
    _pair(st.builds(ast.Not, TESTS), EQUAL, NONE | st.just(ast.Name("true"))),
    TESTS,
    _pair(ENDS | LAST, ORDER, POSITIONS),
    _in(POSITIONS, ENDS | LAST | NONE),
    CHAIN,
    _pair(COUNTS, ORDER, NUMBERS),
    _pair(
        st.builds(ast.Binary, st.sampled_from("+-*"), POSITIONS, NUMBERS | _row("n")),
        ORDER,
        COUNTS | NUMBERS,
    ),
    _pair(_row("n"), ORDER, NUMBERS | COUNTS),
    _in(_row("n"), NUMBERS | NONE),
    _pair(_row("s"), ORDER, WORDS),
    _pair(_row("s"), EQUAL, NONE),
    _in(_row("s"), WORDS | NONE),
    _pair(_row("f"), ORDER, NUMBERS),
    _pair(_row("f"), EQUAL, WORDS | NONE),
    _pair(_row("n"), ORDER, _row("f")),
    _pair(_row("b"), EQUAL, st.sampled_from(["true", "false", "special", "none"]).map(ast.Name)),
    _pair(PHASE, EQUAL, PHASES | NONE),
    _pair(SPEAKERS, EQUAL, ROLE_OF),
    _pair(ROLE_OF | COUNTS, EQUAL, NONE),
    _in(ROLE_OF, SPEAKERS | NONE),
    _in(PHASE, PHASES),
    st.builds(ast.Match, ID_COLUMNS | _row("s") | ROLE_OF, REGEXES),
    st.builds(
        lambda rate, seed: ast.Call(
            "random", (ast.Argument(ast.Number(rate)), ast.Argument(ast.Number(seed), "seed"))
        ),
        st.floats(0, 1),
        st.integers(0, 2**70),
    ),
)
PREDICATES = st.recursive(
    ATOMS,
    lambda inner: st.one_of(
        st.builds(ast.Not, inner),
        st.builds(ast.And, st.lists(inner, min_size=2, max_size=3).map(tuple)),
        st.builds(ast.Or, st.lists(inner, min_size=2, max_size=3).map(tuple)),
    ),
    max_leaves=5,
)


def _optional(**columns: Any) -> st.SearchStrategy[dict[str, Any]]:
    return st.fixed_dictionaries({}, optional={k: v | st.none() for k, v in columns.items()})


ROWS = _optional(
    n=st.integers(0, 9) | st.sampled_from([2.5, 1e9]),
    s=st.sampled_from(["x", "y", "Paris"]),
    b=st.booleans(),
    f=st.sampled_from(["3", "4.0", "1e1", ""]).map(Field),
)


@st.composite
def corpora(draw: Any) -> list[Context]:
    """Contexts of up to nine tokens, some of several samples."""
    contexts, index, chat = [], 0, draw(st.booleans())
    for _ in range(draw(st.integers(1, 5))):
        ids = draw(st.lists(st.integers(0, 8), min_size=1, max_size=9))
        packed = draw(st.integers(1, 3))
        owner = sorted(draw(st.lists(st.integers(0, packed - 1), min_size=9, max_size=9)))
        special = draw(st.lists(st.booleans(), min_size=9, max_size=9))
        samples = tuple(Sample(index + i, "", draw(ROWS)) for i in range(packed))
        said = st.sampled_from(["", "user", "assistant", "aris", "Paris"])
        roles = np.array(draw(st.lists(said, min_size=9, max_size=9)), ROLE)[: len(ids)]
        index += packed
        contexts.append(
            Context(
                np.array(ids),
                np.array(special[: len(ids)]),
                np.array(owner[: len(ids)]),
                samples,
                draw(st.integers(0, 2)),
                earlier=draw(st.integers(0, 2)),
                offset=np.array(draw(st.lists(INTEGERS, min_size=9, max_size=9))[: len(ids)]),
                prompt=draw(st.none() | st.integers(0, len(ids))),
                roles=roles if chat else None,
            )
        )
    return contexts


FLOATS = (None, None, 0.0, 1.0, 2.0, 3.0, 5.0, 0.5, -1.0, np.inf, np.nan)


def _given(seed: int, contexts: list[Context]) -> dict[int, dict[Any, list[Any]]]:
    """Signals and values of each context: one number, or none, a token."""
    generator = np.random.default_rng(seed)

    def some(choices: tuple[Any, ...]) -> list[Any]:
        return [choices[i] for i in generator.integers(len(choices), size=9)]

    return {
        id(context): {
            **{name: some(FLOATS) for name in (*SIGNALS, *LEAVES)},
            FINITE: some((0.0, 1.0)),
        }
        for context in contexts
    }


def _with(batch: Batch, given: dict[int, dict[Any, list[Any]]]) -> Batch:
    """The batch with these signals and values in it, and NaN in padding."""

    def values(name: Any) -> Values:
        value = np.full(batch.ids.shape, np.nan)
        defined = np.zeros(batch.ids.shape, np.bool_)
        for row, context in enumerate(batch.contexts):
            for at, number in enumerate(given[id(context)][name][: len(context.ids)]):
                value[row, at] = 7 if number is None else number
                defined[row, at] = number is not None
        return Values(value, defined)

    return attrs.evolve(
        batch,
        signals={name: values(name) for name in SIGNALS},
        values={leaf: values(leaf) for leaf in (*LEAVES, FINITE)},
    )


@settings(max_examples=800, deadline=None)
@given(PREDICATES, corpora(), st.integers(0, 2**31))
def test_against_reference(expression: ast.Expression, contexts: list[Context], seed: int) -> None:
    """Kept tokens, and the number of undefined ones, are those of the slow evaluator."""
    given = _given(seed, contexts)
    predicate = compile_predicate(expression, VOCABULARY, Source(""))
    kept, undefined = predicate(_with(collate(contexts, 3), given))
    reference = Reference(TEXTS, {"unk": 0}, given)
    expected = [
        [reference(expression, context, at) for at in range(len(context.ids))]
        for context in contexts
    ]
    found = [row[: len(c.ids)].tolist() for row, c in zip(kept, contexts, strict=True)]
    assert [[value is True for value in row] for row in expected] == found
    assert sum(row.count(None) for row in expected) == undefined
    assert not (kept & ~collate(contexts).mask).any()
    assert kept.dtype == np.bool_
    mentioned = {node.id for node in walk(expression) if isinstance(node, ast.Name)}
    assert mentioned & set(SIGNALS) == predicate.signals
    assert set(value_leaves(expression)) == set(predicate.values)


def _kept(predicate: Predicate, found: list[Batch]) -> tuple[set[tuple[int, int, int]], int]:
    """(sample, chunk, position) of every kept token, and how many were undefined."""
    kept: set[tuple[int, int, int]] = set()
    missed = 0
    for batch in found:
        mask, undefined = predicate(batch)
        missed += undefined
        kept |= {
            (int(batch.sample[row, at]), batch.contexts[row].chunk, at)
            for row, at in np.argwhere(mask).tolist()
        }
    return kept, missed


WORDS_TEXT = [("a Paris s aris " * (i % 7))[: i * 3] for i in range(40)]
INDEPENDENT = [
    "random(0.3, seed=7)",
    "position == -2 or content_position in {0, last}",
    'token in {"Paris", "a"} and next != none',
    "row.n > 3 or prev == unk",
    "length > 4 and sample < 30",
]


@pytest.mark.parametrize("overflow", ["split", "pack"])
@pytest.mark.parametrize("text", INDEPENDENT)
def test_batches_do_not_matter(text: str, overflow: Any) -> None:
    """The same tokens are kept whatever the batches are."""
    samples = [Sample(i, t, {"n": i % 6} if i % 4 else {}) for i, t in enumerate(WORDS_TEXT)]
    contexts = list(Encoder(metaspace(), 8, overflow)(samples))
    predicate = _compile(text)
    alone = _kept(predicate, [collate([context]) for context in contexts])
    assert alone[0]
    for budget, rows, pad in ((64, None, 0), (4096, None, 4), (40, 3, 1)):
        cut = batches(reversed(contexts), tokens_per_batch=budget, batch_size=rows, pad_id=pad)
        assert alone == _kept(predicate, list(cut))


# --- single facts -------------------------------------------------------------------------------


def _batch(*rows: dict[str, Any], ids: tuple[int, ...] = (0, 4, 1), **options: Any) -> Batch:
    """One context of those ids for each row of data."""
    special = np.array(options.get("special", [False] * len(ids)))
    return collate(
        [
            Context(np.array(ids), special, np.zeros(len(ids), int), (Sample(i, "", row),))
            for i, row in enumerate(rows or ({},))
        ]
    )


FACTS: list[tuple[str, list[bool], int]] = [
    ("token != pad", [True, True, True], 0),
    ("token == pad", [False, False, False], 0),
    ("next == pad", [False, False, False], 1),
    ("prev == none", [True, False, False], 0),
    ("prev != unk", [False, False, True], 1),
    ("not prev == unk", [False, False, True], 1),
    ("not (prev == unk and special)", [True, True, True], 0),
    ("prev in {none, unk}", [True, True, False], 0),
    ("prev not in {unk}", [False, False, True], 1),
    ("position >= -2", [False, True, True], 0),
    ("position < -9", [False, False, False], 0),
    ("position >= -9", [True, True, True], 0),
    ("position + 1 == last", [False, True, False], 0),
    ("position - last == 0", [False, False, True], 0),
    ("0 < position < last", [False, True, False], 0),
    ("position == 0.5 * 2", [False, True, False], 0),
    ("position / 0 > 0", [False, True, True], 0),
    ("2 ** position == 4", [False, False, True], 0),
    ('token == "Paris"', [False, True, False], 0),
    ("token ~ /^ ?P/", [False, True, False], 0),
    ("token < 2", [True, False, True], 0),
    ("special == false", [True, True, True], 0),
    ("(position > 0) == (token == 1)", [True, False, True], 0),
    ("chunk == 0 and offset == 0", [True, True, True], 0),
    ("sqrt(position) < 1.2 and exp(position) > 2 and log(position) == 0", [False, True, False], 0),
    ("abs(log(position)) > 1", [True, False, False], 0),
    ("isfinite(1 / position)", [False, True, True], 0),
    ("not isnan(0 / position)", [False, True, True], 0),
    ("random(1)", [True, True, True], 0),
    ("random(0)", [False, False, False], 0),
    ("row.anything == none", [True, True, True], 0),
    ("row.anything ~ /a/", [False, False, False], 3),
]


@pytest.mark.parametrize(("text", "expected", "undefined"), FACTS)
def test_facts(text: str, expected: list[bool], undefined: int) -> None:
    """What a predicate keeps of three tokens: `<unk>`, ` Paris`, `a`."""
    kept, missed = _compile(text)(_batch())
    assert (expected, undefined) == (kept[0].tolist(), missed)


def test_row_types() -> None:
    """Numbers, texts, booleans, large integers and CSV fields of the data."""
    batch = _batch(
        {"n": 2**60 + 1, "s": "x", "b": True, "f": Field("07"), "g": Field("true"), "l": [1]},
        {"n": np.int64(3), "s": "y", "b": np.bool_(False), "f": Field("7.0"), "g": Field("")},
    )
    expected = {
        f"row.n == {2**60 + 1}": [True, False],
        f"row.n == {2**60}": [False, False],
        "row.n < 3.5": [False, True],
        'row.s == "x"': [True, False],
        'row.s in {"x", "y"}': [True, True],
        "row.b": [True, False],
        "row.b == false": [False, True],
        "row.f == 7": [True, True],
        'row.f == "7.0"': [False, True],
        "row.f + 1 == 8": [True, True],
        "row.g": [True, False],
        "row.g == none": [False, True],
        "row.l != none": [True, False],
        "row.n == row.n": [True, True],
        "row.f == row.f": [True, True],
    }
    found = {text: _compile(text)(batch)[0][:, 0].tolist() for text in expected}
    assert expected == found


MIXED = {
    "text-number": ("row.x > 3", "text"),
    "number-text": ('row.x == "3"', 3),
    "boolean-number": ("row.x == 1", True),
    "field-number": ("row.x > 3", Field("n/a")),
    "list": ("row.x == 1", [1, 2]),
    "bare-number": ("row.x", 1),
    "regex-number": ("row.x ~ /a/", 5),
    "arithmetic-text": ("row.x * 2 > position", "text"),
    "rows": ("row.x == row.y", "text"),
    "boolean-order": ("row.x < row.x", True),
}


@pytest.mark.parametrize("name", MIXED)
def test_mixed_types(name: str, golden: Callable[[str, str], None]) -> None:
    """A value of the data of another type is an error that names the sample."""
    text, value = MIXED[name]
    with pytest.raises(DataError) as caught:
        _compile(text)(_batch({"y": 1}, {"x": value, "y": 1}))
    golden(f"predicates/mixed-{name}.txt", f"{caught.value}\n")


def test_key() -> None:
    """Predicates that say the same have equal keys, however they are laid out."""
    assert _compile("position>1").key == _compile("(position  >  1)").key
    assert _compile("position>1").key != _compile("position>2").key


def test_rate_is_kept() -> None:
    """`random` keeps about its share, different tokens for different seeds."""
    batch = _batch(*[{}] * 100, ids=(1,) * 100)
    one, two = (_compile(f"random(0.25, seed={seed})")(batch)[0] for seed in (1, 2))
    assert abs(one.mean() - 0.25) < 0.02
    assert abs((one & two).mean() - 0.0625) < 0.015
    assert 0 < (one != two).sum()


PINNED = ["#####.#..#.#.#.#", ".#....#...#..#.."]


def test_random_is_pinned() -> None:
    """The very tokens that a seed keeps never change."""
    kept = _compile("random(0.5, seed=0)")(_batch({}, {}, ids=(1,) * 16))[0]
    shown = ["".join("#" if k else "." for k in row) for row in kept]
    assert PINNED == shown


def test_every_column_has_a_document() -> None:
    """Each registered column says what it is, and those of the language are there."""
    assert {*names.COLUMNS, *names.SIGNALS} == set(COLUMNS)
    assert all(column.read.__doc__ for column in COLUMNS.values())


# --- diagnostics --------------------------------------------------------------------------------

WRONG: dict[str, str] = {
    "no-such-token": 'token == "New York"',
    "no-such-token-in-set": 'token in {"a", "Rome", "b"}',
    "exact": 'token == " aris"',
    "empty": 'token == ""',
    "unknown-id": "token == 9 or token in {1, 99} or prev == 1.5 or next == -1",
    "unknown-row": "row.lable == 3 and row.text ~ /a/",
    "bad-regex": "token ~ /a(b/",
    "bad-regex-row": "row.text ~ /[/",
    "order": 'token < "a" or prev < none or special > true or row.label < true',
    "kinds": 'position == "a" or length == unk or special == 1 or row.label == eos',
    "last": "length == last",
    "rate": "random(1.5) or random(0.5, seed=0.5) or random(0.5, sed=1) or random(position)",
    "not-a-predicate": "position and token",
    "no-axis": "position[3] > 1 or norm(position) > 2 or clip(position, 1) > 2",
    "empty-within": 'within ""',
    "bad-regex-within": "within /a(b/",
    "unknown-name": "positon > 3",
    "words": 'phase == 1 or role == eos or role > "a" or role + 1 > 2 or phase or role == row.text',
}


@pytest.mark.parametrize("name", WRONG)
def test_diagnostics(name: str, golden: Callable[[str, str], None]) -> None:
    """Everything that is wrong with a predicate is said at once, where it stands."""
    with pytest.raises(QueryError) as caught:
        _compile(WRONG[name], columns=("text", "label"))
    golden(f"predicates/{name}.txt", f"{caught.value}\n")


def test_without_tokenizer(golden: Callable[[str, str], None]) -> None:
    """Without a tokenizer ids still work; texts, roles and patterns say what they need."""
    kept, _ = _compile("token in {4, 999999} and token != pad", None)(_batch())
    assert [False, True, False] == kept[0].tolist()
    with pytest.raises(QueryError) as caught:
        _compile('token == "a" or prev in {eos, "b"} or token ~ /a/ or within "a"', None)
    golden("predicates/needs-tokenizer.txt", f"{caught.value}\n")


def test_slow_pattern(monkeypatch: pytest.MonkeyPatch, golden: Callable[[str, str], None]) -> None:
    """A pattern that explodes is stopped, over the vocabulary and over the data."""
    monkeypatch.setattr("hookql.predicates.patterns.PATIENCE", 0.05)
    monkeypatch.setattr("hookql.predicates.vocabulary.PATIENCE", 0.05)
    monkeypatch.setattr("hookql.predicates.searches.PATIENCE", 0.05)
    hostile = Vocabulary(metaspace())
    hostile.texts = ["a" * 40 + "b"]
    with pytest.raises(QueryError) as caught:
        _compile("token ~ /^(a|a)*$/", hostile)
    golden("predicates/regex-too-slow.txt", f"{caught.value}\n")
    with pytest.raises(QueryError, match="regex-too-slow"):
        _compile("row.x ~ /^(a|a)*$/")(_batch({"x": "a" * 40 + "b"}))


def test_ids_beyond_the_tokenizer() -> None:
    """Ids that a model was given directly and no token has match no pattern."""
    kept, undefined = _compile("token ~ /a/")(_batch(ids=(1, 500)))
    assert ([True, False], 0) == (kept[0].tolist(), undefined)


# --- the vocabulary -----------------------------------------------------------------------------


def test_metaspace_texts() -> None:
    """`▁` is a space, also where the decoder would drop the first one."""
    assert TEXTS == VOCABULARY.texts


def test_byte_level_texts() -> None:
    """`Ġ` is a space; bytes that are no character are U+FFFD; a special token is itself."""
    tokenizer = byte_bpe()
    vocabulary = Vocabulary(tokenizer)
    ids = tokenizer.get_vocab()
    found = vocabulary.text([ids["Ġthe"], ids["the"], ids["ð"], ids["Ċ"], 0, 10**6])
    assert [" the", "the", "\ufffd", "\n", "<|end|>", ""] == found
    assert {ids["Ġthe"], ids["the"]} == set(vocabulary.ids_of("the").tolist())
    assert [ids["Ġthe"]] == vocabulary.ids_of(" the").tolist()
    assert [0] == vocabulary.role_ids("eos").tolist()
    assert [] == vocabulary.role_ids("cls").tolist()


def test_texts_join_to_the_text() -> None:
    """The token texts of an encoded text, put together, are the text."""
    text = "In the beginning was Paris, and\tthe\n\nrain 123"
    ids = byte_bpe()(text)["input_ids"]
    assert text == "".join(Vocabulary(byte_bpe()).text(ids))


def test_slow_texts() -> None:
    """A tokenizer in pure Python is decoded token by token."""
    vocabulary = Vocabulary(slow())
    assert ["a", " ", "</s>"] == vocabulary.text([ord("a") + 3, ord(" ") + 3, 1])
    assert [ord("a") + 3] == vocabulary.ids_of("a").tolist()


@pytest.mark.real_weights
def test_wordpiece_texts() -> None:
    """A WordPiece word has a space before it, its continuation has none."""
    from transformers import AutoTokenizer

    from tests.weights import minilm_folder

    tokenizer = AutoTokenizer.from_pretrained(minilm_folder())
    vocabulary = Vocabulary(tokenizer)
    ids = tokenizer.get_vocab()
    assert [" paris", "ing", "[CLS]"] == vocabulary.text([ids["paris"], ids["##ing"], ids["[CLS]"]])
    assert [ids["paris"]] == vocabulary.ids_of(" paris").tolist()
    assert {ids["##s"], ids["s"]} == set(vocabulary.ids_of("s").tolist())
    with pytest.raises(QueryError, match='did you mean `"paris"`'):
        _compile('token == "Paris"', vocabulary)
