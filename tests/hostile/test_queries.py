"""Queries from somebody else: bounded in memory and time, and no file outside the output folder."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from hookql.errors import QueryError
from hookql.language.parser import parse
from hookql.language.places import check_into
from hookql.language.resolve import resolve
from hookql.predicates import patterns
from hookql.predicates.patterns import compile_regex, find_all, search

TOO_MANY = {
    "captures": "capture mean from h " * 1_001,
    "statistics": "capture " + ", ".join(f"mean as a{n}" for n in range(1_001)) + " from h",
    "sites": "capture mean from " + ", ".join(["h"] * 1_001),
    "patterns": "capture mean from h where " + " or ".join(["token ~ /a/"] * 101),
    "indices": "capture mean from h[" + ", ".join(["0"] * 10_001) + "]",
    "steps": "capture mean from h" + ".**" * 100,
    "keys": "capture mean from h by " + ", ".join(f"row.a{n}" for n in range(33)),
    "numbers": "capture quantile(x" + "".join(f", {n}" for n in range(1_000)) + ") from h",
    "alternatives": "capture mean from h" + ".{a,b}{a,b}{a,b}{a,b}{a,b}{a,b}{a,b}{a,b}" * 40,
    "pattern": "capture mean from h where token ~ /" + "a" * 10_001 + "/",
}


@pytest.mark.parametrize("what", TOO_MANY)
def test_a_query_asks_for_so_much_and_no_more(
    what: str, golden: Callable[[str, str], None]
) -> None:
    """Whatever costs memory or time for each other thing of the query has a bound."""
    with pytest.raises(QueryError) as caught:
        parse(TOO_MANY[what])
    assert "too-many" == caught.value.code
    golden(f"hostile/too-many-{what}.txt", f"{caught.value}\n")


def test_quoted_paths_are_as_long_as_others() -> None:
    """A path in quotes has its steps in one token."""
    with pytest.raises(QueryError) as caught:
        parse('capture mean from "' + "a." * 101 + 'a"')
    assert "too-long" == caught.value.code


@pytest.mark.parametrize(
    "pattern",
    [
        "((a{1000}){1000}){1000}",
        "(?:(?:a?){3000}){3000}",
        "(?x)(?: a {1000} ) {1000}",
        "a{18446744073709551616}",
        "(?R)?a",
        "(a|(?1))*b",
        "(?P<x>a(?&x)?)",
        "(?P<x>a(?P>x)?)",
        "(" * 5_000 + ")" * 5_000,
    ],
    ids=lambda pattern: pattern[:20],
)
def test_patterns_that_would_fill_the_memory(pattern: str) -> None:
    """Repetitions of repetitions and recursion are refused before they are compiled."""
    with pytest.raises(QueryError) as caught:
        compile_regex(pattern)
    assert "bad-regex" == caught.value.code


@pytest.mark.parametrize(
    "pattern", [r"\d{4}-\d{2}-\d{2}", r"(\d{1,3}\.){3}\d{1,3}", "(?i)(?:a|b){2,}", "a{50000}"]
)
def test_common_patterns_are_fine(pattern: str) -> None:
    """What people write is far from the bound."""
    assert compile_regex(pattern)


def test_a_search_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    """Backtracking ends in an error after a while, or once it has taken the engine's memory."""
    monkeypatch.setattr(patterns, "PATIENCE", 0.2)
    text = "a" * 30
    for run in (
        lambda: find_all(compile_regex("(?:a|aa|aaa)*(?:a|aa)*b|[cd]"), text * 100),
        lambda: search(compile_regex("(a|aa)*[bc]"), text * 100, patterns.time.monotonic() + 0.2),
    ):
        with pytest.raises(QueryError) as caught:
            run()
        assert "regex-too-slow" == caught.value.code


def test_out_of_memory_in_a_search_is_an_error_of_the_query() -> None:
    """The engine's own MemoryError is no crash."""

    class Full:
        def search(self, text: str, timeout: float) -> None:
            raise MemoryError

    with pytest.raises(QueryError) as caught:
        search(Full(), "a", patterns.time.monotonic() + 1)  # type: ignore[arg-type]
    assert "regex-too-slow" == caught.value.code


OUTSIDE = ("/tmp/x.nc", "../x.nc", "a/../../x.nc", "~/x.nc", "C:\\\\x.nc", "..\\\\x.nc")


@pytest.mark.parametrize("file", OUTSIDE)
def test_into_stays_in_the_output_folder(file: str) -> None:
    """Unless the user says that a query may write anywhere."""
    query = resolve(parse(f'capture mean from h into "{file}"'))
    check_into(query, anywhere=True)
    with pytest.raises(QueryError) as caught:
        check_into(query, anywhere=False)
    assert "bad-file" == caught.value.code
    assert caught.value.span is not None


def test_what_is_said_of_a_file_outside(golden: Callable[[str, str], None]) -> None:
    """Every such file at once, each with its place in the query."""
    files = ("../x.nc", "/x.nc", "x.nc")
    query = resolve(parse("\n".join(f'capture mean from h into "{file}"' for file in files)))
    with pytest.raises(QueryError) as caught:
        check_into(query, anywhere=False)
    golden("hostile/into-outside.txt", f"{caught.value}\n")


def test_links_do_not_lead_into_out_of_it(tmp_path: Path) -> None:
    """A link below the output folder that leads out of it, or round in a circle."""
    folder, other = tmp_path / "out", tmp_path / "other"
    folder.mkdir()
    other.mkdir()
    (folder / "link").symlink_to(other)
    (folder / "x.nc").symlink_to(other / "x.nc")
    (folder / "round").symlink_to("round")
    (folder / "inner").mkdir()
    (folder / "fine").symlink_to("inner")
    for file in ("link/y.nc", "x.nc", "round/y.nc"):
        with pytest.raises(QueryError):
            check_into(resolve(parse(f'capture mean from h into "{file}"')), False, folder)
    for file in ("y.nc", "fine/y.nc"):
        check_into(resolve(parse(f'capture mean from h into "{file}"')), False, folder)
