"""Analyses run: the results of their queries, loaded once, checked before anything is run."""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import xarray
from omegaconf import OmegaConf

import hookql
from hookql.commands import parser
from hookql.configs import Analysis, is_config
from hookql.configs.command import check_config, explain_config, print_schema, run_config
from hookql.errors import AlreadyDone, HookQLError

Golden = Callable[[str, str], None]

CONFIG = """\
data: {texts: [one two three, four five]}
outputs: ${HQ_OUT:-out}/results
queries:
  means: capture mean from h[0:2]
  norms:
    file: sub/norms.hq
    output: norms.nc
    data: {path: sub/texts.txt, limit: "${HQ_LIMIT:-2}"}
"""


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A config in a folder of its own, below the current one."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "100")
    for name in ("HQ_OUT", "HQ_LIMIT"):
        monkeypatch.delenv(name, raising=False)
    sub = tmp_path / "configs" / "sub"
    sub.mkdir(parents=True)
    (sub / "norms.hq").write_text("capture mean(norm(x)) from h[*]", encoding="utf-8")
    (sub / "texts.txt").write_text("a b c\nd e\nf g h i\n", encoding="utf-8")
    (sub.parent / "c.yaml").write_text(CONFIG, encoding="utf-8")
    return sub.parent


def written(text: str, name: str = "c.yaml") -> str:
    """The name of a config of that text."""
    path = Path("configs") / name
    path.write_text(text, encoding="utf-8")
    return str(path)


def same(a: xarray.DataTree, b: xarray.DataTree) -> bool:
    """Whether two results have equal numbers and labels."""
    return a.drop_nodes("_checksums", errors="ignore").equals(b)


def test_each_result_is_that_of_its_query() -> None:
    """With paths of the config's folder, in files of their own and in memory."""
    results = Analysis.from_file("configs/c.yaml").run()
    means = hookql.run("capture mean from h[0:2]", texts=["one two three", "four five"])
    norms = hookql.run("capture mean(norm(x)) from h[*]", texts=["a b c", "d e"])
    assert ["means", "norms"] == list(results)
    assert same(means, results["means"])
    assert same(norms, results["norms"])
    assert same(means, hookql.load("configs/out/results/means.nc"))
    assert same(norms, hookql.load("configs/norms.nc"))


def test_variables_have_their_values(monkeypatch: pytest.MonkeyPatch) -> None:
    """In texts, and as numbers where numbers are wanted."""
    monkeypatch.setenv("HQ_OUT", "elsewhere")
    monkeypatch.setenv("HQ_LIMIT", "1")
    analysis = Analysis.from_file("configs/c.yaml")
    data = analysis.settings.queries["norms"].data
    assert data is not None
    assert 1 == data.limit
    assert "configs/elsewhere/results" == analysis.settings.outputs
    monkeypatch.setenv("HQ_OUT", "")
    assert "configs/out/results" == Analysis.from_file("configs/c.yaml").settings.outputs
    literal = {"queries": {"a": "capture mean from h"}, "data": {"texts": ["$${x} $y ${HQ_LIMIT}"]}}
    assert ("${x} $y 1",) == Analysis.from_dict(literal).runs[0].texts


def test_the_three_formats_say_the_same() -> None:
    """One config in YAML, TOML and JSON."""
    toml = """\
data.texts = ["one two three", 'four five']
outputs = "${HQ_OUT:-out}/results"
[queries]
means = "capture mean from h[0:2]"
[queries.norms]
file = "sub/norms.hq"
output = "norms.nc"
data = { path = "sub/texts.txt", limit = 2 }
"""
    as_json = json.dumps(
        {
            "$schema": "hookql.json",
            "data": {"texts": ["one two three", "four five"]},
            "outputs": "${HQ_OUT:-out}/results",
            "queries": {
                "means": "capture mean from h[0:2]",
                "norms": {
                    "file": "sub/norms.hq",
                    "output": "norms.nc",
                    "data": {"path": "sub/texts.txt", "limit": 2},
                },
            },
        }
    )
    expected = Analysis.from_file("configs/c.yaml").settings
    assert expected == Analysis.from_file(written(toml, "c.toml")).settings
    assert expected == Analysis.from_file(written(as_json, "c.json")).settings
    assert [True, True, False] == [is_config(n) for n in ("a.YAML", Path("b.json"), "c.hq")]


def test_from_dict_under_any_key() -> None:
    """A mapping of Python's, and an OmegaConf node whose interpolations lead out of it."""
    whole: dict[str, Any] = {
        "seeds": {"limit": 1},
        "mine": {"hookql": {
            "data": {"texts": ["a b", "c d"], "limit": "${seeds.limit}"},
            "queries": {"a": "capture count from h[0]"},
        }},
    }  # fmt: skip
    node = OmegaConf.create(whole).mine.hookql
    by_omega = Analysis.from_dict(node)
    by_hand: dict[str, Any] = {**whole["mine"]["hookql"]}
    by_hand["data"] = {"texts": ["a b", "c d"], "limit": 1}
    assert Analysis.from_dict(by_hand).settings == by_omega.settings
    expected = hookql.run("capture count from h[0]", texts=["a b"])
    assert same(expected, by_omega.run()["a"])


def test_broken_interpolations_have_words(golden: Golden) -> None:
    """What OmegaConf cannot resolve is an error of ours; the folder of a mapping is given."""
    with pytest.raises(HookQLError) as caught:
        Analysis.from_dict(OmegaConf.create({"queries": "${nowhere}"}))
    golden("configs/omegaconf.txt", f"{caught.value}\n")
    given = {"queries": {"a": "sub/norms.hq"}, "data": "sub/texts.txt", "outputs": {"a": "x.nc"}}
    run = Analysis.from_dict(given, folder="configs").runs[0]
    assert ("configs/sub/texts.txt", Path("configs/x.nc")) == (run.data, run.output)
    assert "capture mean(norm(x)) from h[*]" == run.located.query.source.text


def test_names_stay_names(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of hubs, unless there is such a file; what lies in the current folder alone is not meant."""
    Path("configs/mine").mkdir()
    Path("other").mkdir()
    monkeypatch.setenv("HOME", "/home/me")
    head = "queries: {a: capture mean from h}\n"
    for model, data, expected in (
        ("gpt2", "owner/name", ("gpt2", "owner/name")),
        ("mine", "mine", ("configs/mine", "configs/mine")),
        ("other", "other", ("./configs/other", "./configs/other")),
        ("./x", "x.jsonl", ("./configs/x", "./configs/x.jsonl")),
        ("~/m", "~/d.txt", ("/home/me/m", "/home/me/d.txt")),
        ("/m", "/d.txt", ("/m", "/d.txt")),
    ):
        analysis = Analysis.from_file(written(f"{head}model: {model}\ndata: {data}"))
        assert expected == (analysis.settings.model.name, analysis.runs[0].data)


def test_the_model_is_loaded_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """For all queries; and not at all where the caller has one."""
    loaded = []
    load = hookql.load_model

    def counting(name: str, **options: Any) -> Any:
        loaded.append(name)
        return load(name, **options)

    monkeypatch.setattr("hookql.api.load_model", counting)
    analysis = Analysis.from_file("configs/c.yaml")
    assert [] == loaded
    analysis.run()
    assert ["demo"] == loaded
    analysis.run(model=load("demo"), overwrite=True)
    assert ["demo"] == loaded


LATE = {
    "options": "data: {texts: [a]}\noptions: {resume: true}\nqueries: {a: capture mean from h}",
    "data": "data: sub/textz.txt\nqueries: {a: capture mean from h}",
    "column": "data: {path: sub/texts.txt,\n  column: txt}\nqueries: {a: capture mean from h}",
    "model": "data: sub/texts.txt\nmodel:\n  name: ./nowhere\nqueries: {a: capture mean from h}",
    "device": "model: {device: tpu}\nqueries: {a: capture mean from h}",
    "binding": "queries:\n  a: capture mean from h[0]\n  b: capture mean from h[99]\n"
    "  c: |\n    capture mean\n      from nowhere\noutputs: out",
    "raw": "queries:\n  a: capture values from h[0]\n  b: capture mean from h[0]",
    "ending": "queries: {a: capture mean from h}\noutputs: {a: a.txt}",
    "into": 'queries: {a: capture mean from h into "../a.nc"}\noutputs: out',
    "file": "queries: {a: capture mean from h}\noutputs: sub/texts.txt",
}


def test_all_is_checked_before_anything_runs(
    golden: Golden, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Options, outputs, data, the model, and every query with it."""
    monkeypatch.setattr("hookql.execute.run_local", None)
    shown = []
    for name, text in LATE.items():
        with pytest.raises(HookQLError) as caught:
            Analysis.from_file(written(text, f"{name}.yaml")).run()
        shown.append(f"{text}\n\n{caught.value}\n")
    golden("configs/late.txt", "\n----\n\n".join(shown))
    assert not Path("configs/out").exists()


def test_results_that_exist_are_refused_before_any_work(
    golden: Golden, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also the second one alone; with `overwrite` they are replaced."""
    Path("configs/norms.nc").write_text("precious", encoding="utf-8")
    with monkeypatch.context() as patch:
        patch.setattr("hookql.api.load_model", None)
        with pytest.raises(HookQLError) as caught:
            Analysis.from_file("configs/c.yaml").run()
    golden("configs/exists.txt", f"{caught.value}\n")
    assert "precious" == Path("configs/norms.nc").read_text(encoding="utf-8")
    Analysis.from_file("configs/c.yaml").run(overwrite=True)
    assert hookql.load("configs/norms.nc").attrs


def test_an_error_while_running_names_the_query(golden: Golden) -> None:
    """And what is finished, and what was not run."""
    Path("configs/bad.jsonl").write_text('{"text": "a"}\n{"text": 3}\n', encoding="utf-8")
    text = """\
outputs: out
data: {texts: [a b]}
options: {optimize: -sharing}
queries:
  first: capture mean from h[0]
  second: {query: 'capture mean from h[0]', data: bad.jsonl}
  third: capture mean from h[0]
"""
    with pytest.raises(HookQLError) as caught:
        Analysis.from_file(written(text)).run()
    golden("configs/midway.txt", f"{caught.value}\n")
    assert ["first.nc"] == [path.name for path in Path("configs/out").iterdir()]


def test_checkpoints_are_a_folder_a_query() -> None:
    """What is finished is not run again: its result comes from its file."""
    text = CONFIG + "options: {checkpoint: ckpt, checkpoint_every: 0.5}\n"
    analysis = Analysis.from_file(written(text))
    first = analysis.run()
    assert ["means", "norms"] == sorted(path.name for path in Path("configs/ckpt").iterdir())
    again = analysis.run(resume=True)
    assert all(same(first[name], again[name]) for name in first)
    each = analysis.asked(overwrite=False, resume=True).each()
    assert [True, True] == [isinstance(finished, AlreadyDone) for _, finished in each]


def test_resumed_from_another_folder(monkeypatch: pytest.MonkeyPatch) -> None:
    """The same config is the same run, wherever the command is given."""
    config = Path(written(CONFIG + "options: {checkpoint: ckpt, checkpoint_every: 0.5}\n"))
    first = Analysis.from_file(config).run()
    Path("elsewhere").mkdir()
    monkeypatch.chdir("elsewhere")
    again = Analysis.from_file(Path("..") / config).run(resume=True)
    assert all(same(first[name], again[name]) for name in first)


def test_resuming_spares_no_file_of_a_run_without_a_checkpoint(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """What is there already, and of no checkpoint, is refused before anything runs."""
    analysis = Analysis.from_file(written(CONFIG + "options: {checkpoint: ckpt}\n"))
    Path("configs/norms.nc").write_text("precious", encoding="utf-8")
    monkeypatch.setattr("hookql.api.load_model", None)
    with pytest.raises(HookQLError) as caught:
        analysis.run(resume=True)
    assert "file-exists" == caught.value.code
    assert "precious" == Path("configs/norms.nc").read_text(encoding="utf-8")


def test_explain_is_that_of_each_query(folder: Path) -> None:
    """As text and as JSON; no output is made."""
    analysis = Analysis.from_file("configs/c.yaml")
    texts = ["one two three", "four five"]
    expected = hookql.explain("capture mean from h[0:2]", texts=texts)
    assert analysis.explain().startswith(f"# means\n{expected}\n# norms\n")
    plans = json.loads(analysis.explain(format="json"))
    alone = hookql.explain("capture mean from h[0:2]", texts=texts, format="json")
    assert json.loads(alone) == plans["means"]
    assert not (folder / "out").exists()


def test_warnings_point_into_the_config() -> None:
    """What a query says of itself while it runs."""
    text = "queries:\n  a: capture mean from h[0] where length > 5 and length < 3\n"
    text += "data: {texts: [a b]}"
    with pytest.warns(hookql.HookQLWarning) as caught:
        Analysis.from_file(written(text)).run()
    assert any("no-rows" in str(each.message) or "empty" in str(each.message) for each in caught)


# The command line's part.


def options(*words: str) -> argparse.Namespace:
    """The options of a command line."""
    return parser("0").parse_args(words)


def test_the_command_prints_each_result(capsys: pytest.CaptureFixture[str], golden: Golden) -> None:
    """Under its name, with the files; where nothing is saved it says so."""
    told: list[Any] = []
    assert 0 == run_config(options("run", "configs/c.yaml", "--quiet"), told.append, told.extend)
    assert ("", "") == capsys.readouterr()
    assert 0 == run_config(
        options("run", "configs/c.yaml", "--overwrite"), told.append, told.extend
    )
    printed = capsys.readouterr().out
    lines = [line for line in printed.splitlines() if line.startswith(("#", "written"))]
    written_to = ["configs/out/results/means.nc", "configs/norms.nc"]
    assert [
        "# means", f"written: {written_to[0]}", "# norms", f"written: {written_to[1]}"
    ] == lines  # fmt: skip
    file = written("queries: {a: 'capture mean from h[0]'}\ndata: {texts: [a b]}", "u.yaml")
    assert 0 == run_config(options("run", file), told.append, told.extend)
    assert "not saved: write `outputs: FOLDER`" in capsys.readouterr().out
    shown = []
    for words in (
        ("run", file, "--quiet"),
        ("run", file, "--model", "gpt2"),
        ("run", file, "--model", "demo"),
        ("run", file, "--text", "x"),
        ("run", file, "-o", "x.nc"),
        ("run", file, "-q", "capture mean from h"),
    ):
        with pytest.raises(HookQLError) as caught:
            run_config(options(*words), told.append, told.extend)
        shown.append(f"hookql {' '.join(words)}\n\n{caught.value}\n")
    golden("configs/command.txt", "\n".join(shown))


def test_the_other_commands(capsys: pytest.CaptureFixture[str]) -> None:
    """`check` needs no model, `explain` prints plans, `schema` a schema."""
    assert 0 == check_config(options("check", "configs/c.yaml"), lambda found: None)
    assert "configs/c.yaml: 2 queries, no errors\n" == capsys.readouterr().out
    assert 0 == explain_config(options("explain", "configs/c.yaml"))
    assert Analysis.from_file("configs/c.yaml").explain() == capsys.readouterr().out
    assert 0 == print_schema()
    assert "A HookQL analysis" == json.loads(capsys.readouterr().out)["title"]


def test_the_example_runs(tmp_path: Path) -> None:
    """examples/analysis.yaml, beside what it names."""
    import shutil

    root = Path(hookql.__file__).parent.parent
    for name in ("analysis.yaml", "first.hq", "passages.txt"):
        shutil.copy(root / "examples" / name, tmp_path / "configs")
    results = Analysis.from_file("configs/analysis.yaml").run()
    assert ["heads", "norms", "surprise"] == list(results)
