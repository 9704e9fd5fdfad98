"""What a wrong query is told: one golden file a topic, each code somewhere in them."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from hookql.errors import QueryError
from hookql.language.parser import parse
from hookql.language.resolve import resolve

HERE = Path(__file__).parent
TOPICS = sorted(path.stem for path in HERE.glob("wrong/*.txt"))
LANGUAGE = HERE.parent.parent / "hookql" / "language"
REFERENCE = HERE.parent.parent / "docs" / "language.md"


def queries(topic):
    """The wrong queries of a topic, one a line; `\\n`, `\\t` and `\\0` written as such."""
    lines = (HERE / "wrong" / f"{topic}.txt").read_text(encoding="utf-8").splitlines()
    escapes = {"⏎": "\n", "⇥": "\t", "␀": "\0"}
    return ["".join(escapes.get(c, c) for c in line) for line in lines]


def said(query):
    """All that is said about a query, errors or warnings."""
    try:
        return "\n\n".join(map(str, resolve(parse(query)).warnings))
    except QueryError as error:
        return str(error)


@pytest.mark.parametrize("topic", TOPICS)
def test_what_is_said(topic, golden):
    """The rendered text of every wrong query."""
    blocks = [f"=== {query}\n{said(query)}\n" for query in queries(topic)]
    golden(f"language/{topic}.txt", "\n".join(blocks))


def test_each_query_is_wrong():
    """No query among the wrong ones passes without a word."""
    assert [query for topic in TOPICS for query in queries(topic) if not said(query)] == []


def test_every_code_is_shown_and_documented():
    """Each code in the source has an example here and a row in the reference; pieces aside."""
    files = [path for path in LANGUAGE.glob("*.py") if path.name not in ASIDE]
    source = "".join(path.read_text(encoding="utf-8") for path in files)
    spelled = set(re.findall(r'"([a-z]+(?:-[a-z]+)+)"', source)) | {"syntax"}
    shown = "\n".join(said(query) for topic in TOPICS for query in queries(topic))
    seen = set(re.findall(r"^(?:error|warning)\[([a-z-]+)\]", shown, re.M))
    # These take a query too long or too broken to be a line of a file.
    seen |= {"empty-query", "too-long", "too-many"}
    table = REFERENCE.read_text("utf-8").partition("\n## Diagnostics\n")[2]
    documented = set(re.findall(r"^\| `([a-z-]+)` \|", table, re.M))
    assert spelled - NO_CODES == seen
    assert seen == documented


NO_CODES = {"utf-8"}
ASIDE = ("pieces.py", "plugins.py")  # what they say is of packages, not of queries


def test_queries_without_a_line():
    """The codes whose queries are empty, too long or undecodable."""
    codes = []
    for query in ("", " # nothing\n;", "x" * 1_000_001, "capture \udcff"):
        with pytest.raises(QueryError) as caught:
            parse(query)
        codes.append(caught.value.code)
    assert codes == ["empty-query", "empty-query", "too-long", "bad-character"]
