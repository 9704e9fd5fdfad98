"""Configs that mean harm, or mean nothing: refused with words, in little time and memory."""

from __future__ import annotations

import tomllib
import tracemalloc
from collections.abc import Callable
from json import JSONDecodeError
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st

from hookql.configs import Analysis
from hookql.configs.document import Node, from_python
from hookql.configs.from_json import read_json
from hookql.configs.reading import READERS
from hookql.errors import HookQLError, Source, UsageError
from tests.fuzz.test_fuzz import changed, edits

relaxed = settings(
    deadline=None,
    derandomize=True,
    max_examples=100,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)

SEEDS = {
    ".yaml": b"model: demo\ndata: {texts: &t ['a # ${X:-b}', \"\\u00e9\\\n x\"], limit: 3}\n"
    b"queries:\n  a: |\n    capture mean\n      from h[0]\n  b: >-\n   x\n\n   y\n  c: *t\n",
    ".toml": b"outputs = 'x'\ndata.texts = [\"a\\u00e9\", '''b\n''', \"\"\"c\\\n d\"\"\"] # e\n"
    b"[queries.\"a b\"]\nquery = 'capture mean from h[0]'\nd = 2020-01-01 00:00:00\n"
    b"[[x.y]]\nz.q = 1\n",
    ".json": b'{"queries": {"a": "capture\\n mean from \\ud83d\\ude00 h[0]"}, "data": '
    b'{"texts": ["\\/", ""], "limit": 3e0, "x": [null, true, -1.5]}}',
}


def refused(name: str, text: str | bytes) -> HookQLError:
    """What is said of a config of that name."""
    Path(name).write_bytes(text if isinstance(text, bytes) else text.encode())
    with pytest.raises(HookQLError) as caught:
        Analysis.from_file(name)
    return caught.value


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An empty folder to write configs in."""
    monkeypatch.chdir(tmp_path)


BOMB = "a0: &a0 [x, x, x, x, x, x, x, x, x, x]\n" + "".join(
    f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 10)}]\n" for n in range(1, 12)
)


def test_each_says_what_it_is(golden: Callable[[str, str], None]) -> None:
    """Tags that would run code, aliases of aliases, deep nesting, too many values."""
    texts = {
        "tag.yaml": "queries: !!python/object/apply:os.system ['touch owned']\n",
        "word.yaml": "data: !!python/name:os.system\n",
        "own.yaml": "outputs: !include /etc/passwd\n",
        "bomb.yaml": BOMB,
        "deep.yaml": "x: " + "[" * 30 + "]" * 30,
        "deep.json": "[" * 30 + "]" * 30,
        "deep.toml": "x = " + "[" * 30 + "]" * 30,
        "many.yaml": "[" + "1," * 10_001 + "]",
        "many.json": "[" + "1," * 10_001 + "1]",
        "many.toml": "x = [" + "1," * 10_001 + "]",
    }
    shown = [f"{name}\n\n{refused(name, text)}\n" for name, text in texts.items()]
    golden("configs/hostile.txt", "\n----\n\n".join(shown))
    assert not Path("owned").exists()


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("deep.yaml", "[" * 240_000),
        ("maps.yaml", "{a: " * 60_000),
        ("dashes.yaml", "- " * 120_000),
        ("keys.yaml", "? " * 120_000),
        ("deep.json", "[" * 240_000),
        ("objects.json", '{"a":' * 48_000),
        ("deep.toml", "x = " + "[" * 240_000),
        ("tables.toml", "x = " + "{a=" * 80_000),
        ("dotted.toml", ".".join(["a"] * 120_000) + " = 1"),
        ("header.toml", "[" + ".".join(["a"] * 120_000) + "]"),
        ("digits.toml", "x = " + "9" * 240_000),
        ("digits.json", "9" * 240_000),
        ("digits.yaml", "9" * 240_000),
        ("exponent.json", "1e999999999999"),
        ("large.yaml", "x" * 1_000_000),
        ("anchors.yaml", "a: &a [*a, *a]"),
        ("octets.yaml", b"\xff\xfe\x00a"),
        ("bom.json", b"\xef\xbb\xbf"),
    ],
)
def test_nothing_but_words_comes_of_it(name: str, text: str | bytes) -> None:
    """No traceback, no hanging, not much memory."""
    tracemalloc.start()
    error = refused(name, text)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert isinstance(error, UsageError)
    assert peak < 100_000_000


def test_a_hundred_megabytes_are_not_read(tmp_path: Path) -> None:
    """What is longer than a config is refused by its first quarter of a megabyte."""
    with Path("huge.yaml").open("wb") as file:
        file.truncate(10**8)
    tracemalloc.start()
    with pytest.raises(UsageError) as caught:
        Analysis.from_file("huge.yaml")
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert "too-long" == caught.value.code
    assert peak < 10_000_000


def test_python_values_in_themselves() -> None:
    """A list that holds itself is too deep; a key of any kind is a word."""
    round_: list[Any] = []
    round_.append(round_)
    with pytest.raises(UsageError) as caught:
        Analysis.from_dict({"queries": round_})
    assert "too-deep" == caught.value.code
    with pytest.raises(UsageError) as caught:
        Analysis.from_dict({"queries": {"a": ["x"] * 20_000}})
    assert "too-many" == caught.value.code


@relaxed
@given(st.binary(max_size=60) | st.text(max_size=40).map(lambda t: t.encode("utf-8", "replace")),
       st.sampled_from(sorted(READERS)))  # fmt: skip
def test_any_bytes_are_a_config_or_none(data: bytes, ending: str) -> None:
    """Nothing but HookQL's errors comes of them, and they can be shown."""
    fuzzed(data, ending)


@relaxed
@given(st.sampled_from(sorted(SEEDS)), edits)
def test_changed_configs(ending: str, how: list[tuple[float, bytes, int]]) -> None:
    """The same for what nearly is one."""
    fuzzed(changed(SEEDS[ending], how), ending)


def fuzzed(data: bytes, ending: str) -> None:
    """Read bytes as a config of that ending."""
    path = Path(f"x{ending}")
    path.write_bytes(data)
    try:
        Analysis.from_file(path)
    except HookQLError as error:
        _shown(error)


def _shown(error: HookQLError) -> None:
    """Every error can be shown, without anything that steers the terminal."""
    assert all(c.isprintable() or c == "\n" for c in str(error))


def _twice(error: UsageError) -> None:
    """A key that stands twice, which Python's reader takes."""
    assert "duplicate-key" == error.code


def read_by_others(ending: str, text: str) -> Any:
    """What PyYAML, tomllib or a strict json make of a text; skips what they refuse."""
    try:
        if ending == ".toml":
            return tomllib.loads(text)
        return yaml.safe_load(text)
    except (yaml.YAMLError, ValueError, RecursionError):
        assume(False)


words = st.text(st.characters(codec="utf-8", exclude_characters="\x7f"), max_size=12)
values = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**60), 2**60) | words
    | st.floats(allow_nan=False, allow_infinity=False),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(words, inner, max_size=3),
    max_leaves=12,
)  # fmt: skip


def texts_of(node: Node) -> list[Node]:
    """All texts in a node."""
    inner = node.value.values() if isinstance(node.value, dict) else node.value
    if isinstance(inner, str):
        return [node]
    return [t for each in inner for t in texts_of(each)] if hasattr(inner, "__iter__") else []


def placed_right(source: Source, node: Node) -> bool:
    """Whether each letter of each text stands in the file where it is said to, if it is said."""
    return all(
        text.at is None
        or (
            len(text.at) == len(text.value)
            and all(
                source.text[at] in (c, "\\")
                for c, at in zip(text.value, text.at, strict=True)
                if c.isalnum()
            )
        )
        for text in texts_of(node)
    )


@relaxed
@given(values, st.booleans(), st.sampled_from([None, "|", ">", '"', "'"]), st.integers(20, 80))
def test_yaml_reads_what_pyyaml_wrote(
    value: Any, flow: bool, style: str | None, width: int
) -> None:
    """The same values, and each letter's place, in all the styles that there are."""
    assume(not any(c in str(value) for c in "\x85\u2028\u2029\ufeff"))
    text = yaml.safe_dump(
        value, default_flow_style=flow, default_style=style, width=width, allow_unicode=True
    )
    assume("!!" not in text)  # how it marks numbers that it quotes
    source = Source(text, "x")
    node = READERS[".yaml"](source)
    assert plain(value) == plain(node.plain())
    assert placed_right(source, node)


def plain(value: Any) -> Any:
    """A value, where YAML 1.2 and 1.1 agree on it: numbers by what they are equal to."""
    if isinstance(value, dict):
        return {str(k): plain(v) for k, v in value.items()}
    if isinstance(value, list):
        return [plain(each) for each in value]
    return value


@relaxed
@given(values, st.booleans(), st.sampled_from([None, 2]))
def test_json_reads_what_python_wrote(value: Any, escape: bool, indent: int | None) -> None:
    """The same values, and each letter's place."""
    import json

    source = Source(json.dumps(value, ensure_ascii=escape, indent=indent), "x")
    node = read_json(source)
    assert value == node.plain()
    assert placed_right(source, node)


@relaxed
@given(st.sampled_from(sorted(SEEDS)), edits)
def test_json_refuses_what_python_refuses(ending: str, how: list[tuple[float, bytes, int]]) -> None:
    """And nothing else, but for keys that stand twice and numbers of hundreds of digits."""
    import json

    text = changed(SEEDS[".json"], how).decode("utf-8", "replace")
    try:
        expected = json.loads(text, parse_constant=lambda name: json.loads("!"))
    except JSONDecodeError:
        with pytest.raises(UsageError):
            read_json(Source(text, "x"))
        return
    try:
        actual = read_json(Source(text, "x")).plain()
    except UsageError as error:
        _twice(error)
    else:
        assert expected == actual


@relaxed
@given(edits)
def test_toml_has_values_and_places(how: list[tuple[float, bytes, int]]) -> None:
    """The values are tomllib's; the places are right, and are there."""
    text = changed(SEEDS[".toml"], how).decode("utf-8", "replace")
    expected = read_by_others(".toml", text)
    source = Source(text, "x")
    node = READERS[".toml"](source)
    assert expected == node.plain()
    assert placed_right(source, node)
    missing = [key for key in node.value if key not in node.keys]
    assert [] == missing


def test_plain_python_is_read_as_it_is() -> None:
    """Tuples are lists, paths are texts."""
    node = from_python({"a": (1, Path("x")), "b": {"c": None}})
    assert {"a": [1, "x"], "b": {"c": None}} == node.plain()
