"""`within`: against a reference that marks characters, for tokenizers of every kind."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import Any

import numpy as np
import pytest
import regex
from hypothesis import given, settings
from hypothesis import strategies as st

from hookql.data.batches import Batch, batches, collate
from hookql.data.encode import Context, Encoder
from hookql.data.samples import Sample
from hookql.demo import text_path
from hookql.errors import QueryError
from hookql.language import ast
from hookql.predicates import within as within_module
from hookql.predicates.vocabulary import Vocabulary
from tests.data.toys import byte_bpe, metaspace, slow
from tests.predicates.asked import predicate
from tests.predicates.reference import within
from tests.weights import minilm_folder, smollm2_folder


@cache
def llama() -> Any:
    """Sentencepiece's BPE as Llama's files have it: `▁` for spaces, bytes for what is unknown."""
    import transformers as hf
    from tokenizers import Tokenizer, decoders, models, normalizers

    pieces = ["<unk>", "<s>", *(f"<0x{byte:02X}>" for byte in range(256)), "▁", *"NewYorkParis"]
    vocabulary = {piece: number for number, piece in enumerate(dict.fromkeys(pieces))}
    merges = [("▁", "N"), ("▁N", "e"), ("▁Ne", "w"), ("P", "a"), ("▁", "Pa")]
    for left, right in merges:
        vocabulary[left + right] = len(vocabulary)
    inner = Tokenizer(models.BPE(vocabulary, merges, unk_token="<unk>", byte_fallback=True))
    inner.normalizer = normalizers.Sequence(
        [normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")]
    )
    inner.decoder = decoders.Sequence([decoders.Replace("▁", " "), decoders.ByteFallback()])
    return hf.PreTrainedTokenizerFast(tokenizer_object=inner, unk_token="<unk>")


def _pretrained(folder: Any) -> Any:
    import transformers as hf

    return hf.AutoTokenizer.from_pretrained(folder)


TOKENIZERS: dict[str, Callable[[], Any]] = {
    "bytes": byte_bpe,
    "bytes with ends": lambda: byte_bpe(True),
    "metaspace": metaspace,
    "llama": llama,
    "demo": cache(lambda: _pretrained(text_path().parent)),
    "smollm2": cache(lambda: _pretrained(smollm2_folder())),
    "minilm": cache(lambda: _pretrained(minilm_folder())),
}
NAMES = [
    pytest.param(n, marks=pytest.mark.real_weights) if n in ("smollm2", "minilm") else n
    for n in TOKENIZERS
]
TEXTS = [
    "New York, New  York and new york; NEW YORKERS",
    "In New York. Éa in Paris 北京 🎉🎉 👩‍👩‍👧 x",
    "",
    "no match at all",
    "Paris" * 12,
    "e\u0301 \u00e9 New York",
]
PATTERNS: list[ast.String | ast.Regex] = [
    ast.String("New York"),
    ast.String("aris"),
    ast.String(" Paris"),
    ast.String("🎉"),
    ast.String("京"),
    ast.String("a+."),
    ast.Regex("[Nn]ew +[Yy]ork"),
    ast.Regex("(?i)new york(ers)?"),
    ast.Regex("[A-Za-z]"),
    ast.Regex("x*"),
    ast.Regex("(?<=N)e"),
    ast.Regex("isPa|ParisParis"),
]


def _samples(texts: list[str]) -> list[Sample]:
    return [Sample(i, text, {}) for i, text in enumerate(texts)]


def _compiled(pattern: ast.String | ast.Regex, tokenizer: Any) -> Any:
    from hookql.errors import Source
    from hookql.predicates.evaluate import compile_predicate

    return compile_predicate(ast.Within(pattern), Vocabulary(tokenizer), Source(""))


@pytest.mark.parametrize("overflow", ["split", "truncate", "pack"])
@pytest.mark.parametrize("name", NAMES)
def test_against_reference(name: str, overflow: Any) -> None:
    """Tokens that share a character with a match, wherever contexts and batches are cut."""
    tokenizer = TOKENIZERS[name]()
    encoder = Encoder(tokenizer, 9, overflow, spans=True)
    contexts = list(encoder(_samples(TEXTS)))
    hits = 0
    for pattern in PATTERNS:
        compiled = _compiled(pattern, tokenizer)
        assert compiled.text
        for batch in batches(contexts, tokens_per_batch=40, window_tokens=60):
            kept, undefined = compiled(batch)
            expected = _expected(ast.Within(pattern), batch)
            assert (expected, 0) == (kept.tolist(), undefined)
            hits += int(kept.sum())
    assert hits > 20


def _expected(node: ast.Within, batch: Batch) -> list[list[bool]]:
    width = batch.ids.shape[1]
    rows = [[within(node, c, at) for at in range(len(c.ids))] for c in batch.contexts]
    return [row + [False] * (width - len(row)) for row in rows]


@settings(max_examples=150, deadline=None)
@given(
    st.lists(st.text("ab 🎉é", max_size=14), min_size=1, max_size=6),
    st.sampled_from(["a", "ab", " a", "🎉", "é", "aa"]).map(ast.String)
    | st.sampled_from(["a+", "b?", "(?=a)b|ba", ".", "^a", "a$", " *"]).map(ast.Regex),
    st.sampled_from(["split", "pack"]),
)
def test_made_up_texts(texts: list[str], pattern: Any, overflow: Any) -> None:
    """The same for texts that nobody wrote."""
    contexts = list(Encoder(byte_bpe(), 5, overflow, spans=True)(_samples(texts)))
    compiled = _compiled(pattern, byte_bpe())
    for batch in batches(contexts, tokens_per_batch=12, window_tokens=20):
        assert _expected(ast.Within(pattern), batch) == compiled(batch)[0].tolist()


def _words(text: str, query: str, tokenizer: Any) -> list[str]:
    """The pieces of the text that the kept tokens are from."""
    (context,) = Encoder(tokenizer, None, spans=True)(_samples([text]))
    kept, _ = predicate(query, Vocabulary(tokenizer))(collate([context]))
    assert context.spans is not None
    return [text[a:b] for a, b in context.spans[kept[0]].tolist()]


@pytest.mark.real_weights
def test_smollm2_words() -> None:
    """A match that begins inside a token takes that token; a character of several tokens all."""
    tokenizer = TOKENIZERS["smollm2"]()
    text = "I love New York in spring"
    assert [" New", " York"] == _words(text, 'within "New York"', tokenizer)
    assert [" love", " New"] == _words(text, 'within "ve N"', tokenizer)
    assert [] == _words(text, 'within "new york"', tokenizer)
    assert [" New", " York"] == _words(text, "within /(?i)new york/", tokenizer)
    assert [" 🎉", "🎉", "🎉"] == _words("a 🎉 b", 'within "🎉"', tokenizer)


@pytest.mark.real_weights
def test_minilm_words() -> None:
    """What the tokenizer lowers and strips of accents is still found as the text has it."""
    tokenizer = TOKENIZERS["minilm"]()
    text = "I love New York's Éclairs"
    assert ["New", "York"] == _words(text, 'within "New York"', tokenizer)
    assert "Éclairs" == "".join(_words(text, 'within "Éclairs"', tokenizer))
    assert [] == _words(text, 'within "new york"', tokenizer)


def test_logic() -> None:
    """It is true or false everywhere, special tokens included, so `not` is the rest."""
    (context,) = Encoder(byte_bpe(True), None, spans=True)(_samples(["the word"]))
    batch = collate([context])
    vocabulary = Vocabulary(byte_bpe(True))
    found = {
        text: predicate(text, vocabulary)(batch)[0][0].tolist()
        for text in ('within "the"', 'not within "the"', '(within "the") != none')
    }
    assert {
        'within "the"': [False, True, False, False],
        'not within "the"': [True, False, True, True],
        '(within "the") != none': [True] * 4,
    } == found


def test_each_text_is_searched_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """A long sample's matches are found once, for whoever asks, and let go of when it is over."""
    searched: list[str] = []
    real = within_module.find_all

    def counting(compiled: Any, text: str, *rest: Any) -> Any:
        searched.append(text)
        return real(compiled, text, *rest)

    monkeypatch.setattr(within_module, "find_all", counting)
    texts = ["a b " * 20, "b a", "a", "b a"]
    vocabulary = Vocabulary(byte_bpe())
    asked = [predicate(text, vocabulary) for text in ('within "a"', 'special or within "a"')]
    contexts = Encoder(byte_bpe(), 4, spans=True)(_samples(texts))
    for batch in batches(contexts, tokens_per_batch=8, window_tokens=400):
        for each in asked:
            each(batch)
    assert sorted(set(texts)) == sorted(searched)


def test_what_was_found_is_let_go_of() -> None:
    """No more is held than what two windows found."""
    texts = ["a" * (i % 7 + 1) + f" {i}" for i in range(50)]
    vocabulary = Vocabulary(byte_bpe())
    compiled = predicate('within "a"', vocabulary)
    finder = vocabulary.matches(ast.String("a"))
    for batch in batches(
        Encoder(byte_bpe(), 4, spans=True)(_samples(texts)), tokens_per_batch=8, window_tokens=8
    ):
        compiled(batch)
        assert len(finder._found) <= 8


def test_the_same_text_again() -> None:
    """A text that comes again after it was let go of is found again."""
    vocabulary = Vocabulary(byte_bpe())
    compiled = predicate('within "a"', vocabulary)
    contexts = list(Encoder(byte_bpe(), None, spans=True)(_samples(["a b", "b", "a b"])))
    found = [
        compiled(batch)[0].any() for batch in batches(contexts, tokens_per_batch=1, window_tokens=1)
    ]
    assert [True, False, True] == found


def test_from_the_end() -> None:
    """A pattern that is matched backwards finds the same tokens."""
    (context,) = Encoder(byte_bpe(), None, spans=True)(_samples(["a bb a"]))
    forth, back = (
        _compiled(ast.Regex(pattern), byte_bpe())(collate([context]))[0].tolist()
        for pattern in ("[ab]+", "(?r)[ab]+")
    )
    assert forth == back
    assert any(forth[0])


def test_the_decoders_text() -> None:
    """On the decoder's rows it looks into the decoder's text."""
    samples = [Sample(0, "Paris", {"out": "a"}), Sample(1, "a", {"out": "Paris"})]
    encoder = Encoder(metaspace(), None, spans=True, target="out")
    batch = collate(list(encoder(samples)))
    compiled = predicate('within "Paris"', Vocabulary(metaspace()))
    assert batch.target is not None
    assert [[True], [False]] == compiled(batch)[0].tolist()
    assert [[False, False], [False, True]] == compiled(batch.target)[0].tolist()


def test_ids_have_no_text(golden: Callable[[str, str], None]) -> None:
    """Samples that are given as ids have no text to look into."""
    context = Context(np.array([1, 2]), np.zeros(2, bool), np.zeros(2, int), (Sample(0, "", {}),))
    with pytest.raises(QueryError) as caught:
        predicate('position > 0 and within "a"', Vocabulary(metaspace()))(collate([context]))
    golden("predicates/no-text.txt", f"{caught.value}\n")


def test_slow_tokenizers_are_refused(golden: Callable[[str, str], None]) -> None:
    """A tokenizer in pure Python does not say where its tokens are from."""
    with pytest.raises(QueryError) as caught:
        predicate('position > 0 and within "a"', Vocabulary(slow()))
    golden("predicates/needs-offsets.txt", f"{caught.value}\n")


def test_slow_patterns_are_stopped(monkeypatch: pytest.MonkeyPatch) -> None:
    """A pattern that explodes over a text is stopped."""
    monkeypatch.setattr("hookql.predicates.patterns.PATIENCE", 0.05)
    (context,) = Encoder(metaspace(), None, spans=True)(_samples(["a" * 40 + "s"]))
    with pytest.raises(QueryError, match="regex-too-slow"):
        predicate("within /^(a|a)*$/", Vocabulary(metaspace()))(collate([context]))


def test_literals_are_exact() -> None:
    """Signs that mean something in a pattern stand for themselves in a text."""
    text = "a.b a|b [a] (a) a\\b a\nb #a {a} ^$ a&&b a  b \x00"
    tokenizer = byte_bpe()
    for literal in ("a.b", "a|b", "[a]", "(a)", "a\\b", "a\nb", "#a", "{a}", "^$", "a&&b", "  b"):
        compiled = _compiled(ast.String(literal), tokenizer)
        (context,) = Encoder(tokenizer, None, spans=True)(_samples([text]))
        start = text.index(literal)
        assert context.spans is not None
        expected = [a < start + len(literal) and b > start for a, b in context.spans.tolist()]
        if 1 == len(regex.findall(regex.escape(literal), text)):
            assert expected == compiled(collate([context]))[0][0].tolist()
