"""The grammar itself: no conflicts, its lists of keywords agree, and who may import what."""

from __future__ import annotations

import itertools
import re
import subprocess
import sys
from importlib import resources

import pytest

from hookql.language.expected import KEYWORDS
from hookql.language.parser import _automaton, parse
from hookql.language.words import PATH_RESERVED, RESERVED
from tests.language.forms import HERE, QUERIES

GRAMMAR = resources.files("hookql.grammar").joinpath("hookql.lark").read_text("utf-8")
ROOT = HERE.parent.parent


def test_the_grammar_has_no_conflicts():
    """Lark's strict mode, which refuses conflicts that it else resolves in silence."""
    pytest.importorskip("interegular")
    from lark import Lark

    strict = Lark(GRAMMAR, parser="lalr", lexer="contextual", strict=True)
    assert len(QUERIES) == sum(strict.parse(query).data == "start" for query in QUERIES)


def _collisions(terminals, states):
    """Pairs of terminals of one state, and a text that both could begin with; by brute force."""
    alphabet = 'a1_.*?/"\\=!<~:@({[},-+ #\n'
    texts = {"".join(t) for n in (1, 2, 3) for t in itertools.product(alphabet, repeat=n)}
    texts |= {word + end for word in RESERVED for end in ("", *"a1.([:{*? ")}
    patterns = {name: re.compile(regex) for name, regex in terminals.items()}
    found = {}
    for text in sorted(texts):
        fit = {name for name, pattern in patterns.items() if pattern.match(text)}
        for state in states:
            both = sorted(fit & state)
            if len(both) > 1:
                found.setdefault(tuple(both), text)
    return found


def test_no_state_takes_one_text_as_two_terminals():
    """What a text is never hangs on the order of patterns; lark's strict mode misses some."""
    automaton = _automaton()
    terminals = automaton.terminals
    states = {
        frozenset(row) & set(terminals) | automaton.ignored for row in automaton.actions.values()
    }
    assert _collisions(terminals, states) == {}
    assert set(_collisions(terminals, [{"NAME", "WORD", "STAR"}])) == {("NAME", "WORD")}


def test_the_lists_of_keywords_agree():
    """The grammar's exclusions and the words of the formatter and the errors are the same."""
    lists = {
        terminal: frozenset(
            re.search(rf"^{terminal}: /\(\?!\(\?:([\w|]+)\)", GRAMMAR, re.M)[1].split("|")
        )
        for terminal in ("NAME", "CLASS", "FIRST_STEP")
    }
    expected = {"NAME": RESERVED, "CLASS": PATH_RESERVED, "FIRST_STEP": PATH_RESERVED}
    assert expected == lists
    assert set(KEYWORDS) == set(re.findall(r"^(_[A-Z]+): /[a-z]+\(\?!\\w\)/", GRAMMAR, re.M))


def test_only_the_parser_imports_lark():
    """One file knows lark, so that another parser would be one file."""
    files = (ROOT / "hookql").rglob("*.py")
    importers = [
        f.name for f in files if re.search(r"^\s*(from|import) lark", f.read_text("utf-8"), re.M)
    ]
    assert importers == ["parser.py"]


def test_the_language_needs_no_torch():
    """Parsing, resolving and formatting start without torch, numpy and transformers."""
    names = sorted(p.stem for p in (ROOT / "hookql/language").glob("[a-z]*.py"))
    code = "\n".join(
        [
            "import sys",
            *(f"import hookql.language.{name}" for name in names),
            "from hookql.language import formatter, parser, resolve",
            "query = 'capture mean, std from h where token ~ /a/ and random(0.5)'",
            "resolve.resolve(parser.parse(query)); formatter.format_text(query)",
            "print(sorted({'torch', 'numpy', 'transformers', 'xarray'} & set(sys.modules)))",
        ]
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT
    )
    assert done.stdout == "[]\n"


def test_the_examples_of_the_reference_parse():
    """Every block of docs/language.md that is tagged as HookQL."""
    text = (ROOT / "docs" / "language.md").read_text("utf-8")
    blocks = re.findall(r"```hookql\n(.*?)```", text, re.S)
    assert len(blocks) >= 5
    assert all(parse(block).statements for block in blocks)
