"""Bad configs, and how they are reported: with file, line and what would help."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

import pytest

from hookql.configs import Analysis
from hookql.errors import HookQLError

Golden = Callable[[str, str], None]

HEAD = "queries: {a: capture mean from h}\n"
GOOD = "queries:\n  a: capture mean from h[0]\n"


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty folder to write configs in, without variables of ours."""
    monkeypatch.chdir(tmp_path)
    for name in ("HQ_LAYER", "HQ_FOLDER"):
        monkeypatch.delenv(name, raising=False)
    return tmp_path


def said(name: str, text: str) -> str:
    """What is said of a config of that name and text, before anything runs."""
    Path(name).write_bytes(text.encode("utf-8", "surrogateescape"))
    with pytest.raises(HookQLError) as caught:
        Analysis.from_file(name)
    assert 2 == caught.value.exit_code
    # What there is to choose from grows with the language.
    return re.sub(r"\n *= note: (columns|statistics): .*", "", str(caught.value)) + "\n"


def all_said(ending: str, texts: list[str]) -> str:
    """The same of several, each behind its text."""
    shown = [f"{text.strip()}\n\n{said(f'c{ending}', text)}" for text in texts]
    return "\n----\n\n".join(shown)


EVERYTHING = """\
model: {name: demo, dtyp: auto, dtype: float23}
data:
  path: x.jsonl
  limit: yes
  chat: on
  batch_size: 3
  texts: [a, 1]
options:
  batch_size: 0
  tokens_per_batch: 1_000
  checkpoint_every: -.inf
  on_error: ignore
  resume: 1
outputs: [results]
overwrit: true
queries:
  a: capture mean from h[${HQ_LAYER}]
  b: {query: 3, quer: x}
  c: [capture]
"""

EVERYTHING_TOML = """\
outputs = 3
"data" = {texts = [
  "a # b", 'c\\d', # x
  1979-05-27
], limit = "3"}
overwrit = true
[model]
name = "demo"
dtypee = 1
dtype = "float23"
[queries.b]
query = true
outpt.x = 2024-01-01
[[options]]
x = 1
"""

EVERYTHING_JSON = """\
{"$schema": "schema.json",
 "queries": {"a": "capture mean from h[0]", "b": {"quer": null}},
 "model": {"dtype": "float\\u00323", "trust_remote_code": "yes"},
 "data": {"limit": 1.0, "max_length": 99999999999999999999, "texts": {}},
 "options": null, "overwrite": null}
"""


@pytest.mark.parametrize(
    ("name", "text"),
    [("all.yaml", EVERYTHING), ("all.toml", EVERYTHING_TOML), ("all.json", EVERYTHING_JSON)],
)
def test_everything_wrong_is_reported_at_once(golden: Golden, name: str, text: str) -> None:
    """Unknown settings and wrong types, each with its line and a suggestion."""
    golden(f"configs/{name}.txt", said(name, text))


def test_from_python_too(golden: Golden) -> None:
    """A mapping has no lines, so its settings are named in full."""
    bad = {
        "queries": {"a": "capture meen from h[0]", 1: object(), "b": {"data": {"limit": True}}},
        "modell": "demo",
        "data": {"limit": 2.5, "overflow": "cut"},
    }
    with pytest.raises(HookQLError) as caught:
        Analysis.from_dict(bad)
    with pytest.raises(HookQLError) as twice:
        Analysis.from_dict({"queries": {1: "capture mean from h", "1": "capture std from h"}})
    golden("configs/python.txt", f"{caught.value}\n\n{twice.value}\n")


def test_queries_are_wrong_where_they_are_written(golden: Golden) -> None:
    """In plain, quoted, folded and literal texts, and in a file of their own."""
    Path("own.hq").write_text("capture mean\n  frm h[0]\n", encoding="utf-8")
    text = """\
queries:
  plain: capture mean from transformer.h[0:6].attn where tokne != pad
  'single': 'capture mean from h[0] where row.a == ''b'' and nothing'
  double: "capture m\\u0065en \\
     from h[0] where row.x == \\"a\\" and nothing"
  folded: >-
    capture mean
    from h[0]
    where posi > 1
  literal: |
    # the norms
    capture rms
      from h[*] where poistion > 0
  anchored: &first capture mean from h[0] where foo
  again: *first
  file: own.hq
  missing: {file: ./nowhere.hq}
  empty: ""
  unfinished: capture mean from
"""
    golden("configs/queries.txt", said("queries.yaml", text))


def test_queries_in_toml_and_json(golden: Golden) -> None:
    """The same through the escapes of the other two."""
    toml = """\
[queries]
a = \"\"\"
capture mean
  from h[0] where foo == 1\"\"\"
b = "capture \\u006dean from h[0] where \\"a\\" == bar"
c.query = '''
capture mean from h[0]
  where baz == 3
'''
"""
    json = (
        '{"queries": {"a": "capture mean\\n  from h[0] where \\"\\ud83d\\ude00\\" == foo",\n'
        ' "b": "capture mean from h[0] where bar"}}'
    )
    golden("configs/queries-toml.txt", said("queries.toml", toml))
    golden("configs/queries-json.txt", said("queries.json", json))


AGREEMENT = [
    "queries: {}",
    "model: gpt2\n" + GOOD,
    "model: gpt2\ndata: {limit: 3}\n" + GOOD,
    GOOD + "data: {path: a.txt, texts: [a]}",
    GOOD + "data: {texts: []}",
    "queries: {a: {output: a.nc}, b: {query: capture mean from h, file: b.hq}}",
    "queries: {a/b: capture mean from h, ../c: capture mean from h, .d: capture mean from h}",
    GOOD + "data: '-'\n",
    "queries: {a: capture mean from h, b: capture mean from h}\ndata: '-'\n",
    "queries: {a: capture mean from h, b: {query: capture mean from h, data: '-'}}\ndata: '-'\n",
    GOOD + "outputs: {b: x.nc, a: a.nc, aa: y.nc}",
    "queries:\n  a: {query: capture mean from h, output: x.nc}\noutputs: {a: x.nc}",
    "queries:\n  a: capture mean from h\n  b: capture mean from h\noutputs: {a: x.nc, b: ./x.nc}",
    'queries:\n  a: capture mean from h into "x.nc"\n  b: {file: b.hq}\noutputs: out',
    'queries:\n  a: |\n    capture mean from h\n    capture std from h into "x.nc"',
    "data: ''\n" + GOOD,
    "queries:",
    "outputs: out",
    "[1, 2]",
    "capture mean from h",
]


def test_settings_that_do_not_agree(golden: Golden) -> None:
    """Each is right by itself."""
    Path("b.hq").write_text('capture mean from h into "x.nc"', encoding="utf-8")
    wrong = [text for text in AGREEMENT if text != GOOD + "data: '-'\n"]
    golden("configs/agreement.txt", all_said(".yaml", wrong))
    Path("c.yaml").write_text(GOOD + "data: '-'\n", encoding="utf-8")
    assert "-" == Analysis.from_file("c.yaml").runs[0].data


def test_syntax(golden: Golden) -> None:
    """Texts that are no YAML, JSON or TOML."""
    yaml = [
        "queries:\n  a: [capture",
        "queries:\n  a: capture\n b: c",
        "a: b: c",
        "queries: 'open",
        "a: \x07",
        "a: 1\n---\nb: 2",
        "a: *nothing",
        "a: &x {b: *x}",
        "? [a, b]\n: c",
        "? *x\n: c",
        "a: 1\nqueries: {}\na: 2",
        "%YAML 9\n---\na",
        '"\\UFFFFFFFF": 1',
        "@a: 1",
    ]
    json = [
        "{",
        "{'a': 1}",
        '{"a": NaN}',
        '{"a": 01}',
        '{"a": 1,}',
        '{"a" 1}',
        '{"a": "\\x"}',
        '{"a": "\n"}',
        '{"a": 1} {}',
        '{"a": 1, "a": 2}',
        "[1 2]",
        "# no comments",
    ]
    toml = ["a = 1\n[b]\nc = 1\n[b]\nd = 1", "x = {a = 1, 'a' = 2}", "a.b = 1\n[a]\nb = 2"]
    toml += ["a = ", "a = 1\na = 2", "[a\nb = 1", "a = 'x", "queries.a = {b = 1,\n}", "= 1"]
    golden("configs/syntax-yaml.txt", all_said(".yaml", yaml))
    golden("configs/syntax-json.txt", all_said(".json", json))
    golden("configs/syntax-toml.txt", all_said(".toml", toml))


def test_files(golden: Golden) -> None:
    """Files that cannot be read as configs."""
    Path("folder.yaml").mkdir()
    Path("latin.yaml").write_bytes(b"a: \xe9")
    Path("empty.yaml").write_text(" \n", encoding="utf-8")
    Path("comment.yaml").write_text("# nothing\n", encoding="utf-8")
    Path("a.ini").write_text("a", encoding="utf-8")
    Path("long.json").write_text('{"a": "' + "x" * 250_000 + '"}', encoding="utf-8")
    names = ["folder.yaml", "latin.yaml", "empty.yaml", "comment.yaml", "a.ini", "long.json"]
    shown = []
    for name in [*names, "nowhere.toml", "nul\0.yaml"]:
        with pytest.raises(HookQLError) as caught:
            Analysis.from_file(name)
        shown.append(str(caught.value))
    golden("configs/files.txt", "\n\n".join(shown) + "\n")


def test_variables(golden: Golden, monkeypatch: pytest.MonkeyPatch) -> None:
    """Variables that are not set or not written as one, and a number that is none."""
    monkeypatch.setenv("HQ_FOLDER", "three")
    texts = [
        "queries: {a: 'capture mean from h[${HQ_LAYER}]'}\noutputs: ${HQ_FOLDERS}/x",
        "queries: {a: 'capture mean from h[${1}]', b: 'capture ${', c: '${HQ_FOLDER:x}'}",
        GOOD + "data: {texts: [a], limit: '${HQ_FOLDER}'}",
        "queries: {a: 'capture mean from ${HQ_LAYER:-h[0]} where ${HQ_FOLDER} == 1 and none'}",
    ]
    golden("configs/variables.txt", all_said(".yaml", texts))
