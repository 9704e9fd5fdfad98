"""Sharing: queries in one pass have the results that they have alone, for the work of one."""

from __future__ import annotations

import json
import signal
from collections.abc import Callable, Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import xarray

import hookql
from hookql import execute, together
from hookql.cli import main
from hookql.configs import Analysis
from hookql.engines import local
from hookql.errors import HookQLError, Interrupted
from hookql.models.lens import Lens
from hookql.models.load import wrap_model
from hookql.optimizer.sharing import Passes, saves
from hookql.statistics.moments import Moments
from tests.tiny import tiny

Golden = Callable[[str, str], None]

DATA = [
    {"text": "Where were you?", "kind": "question", "score": 1},
    {"text": "a", "kind": "letter", "score": 2},
    {"text": "In 1969, two people", "kind": "story", "score": 0.5},
    {"text": "the the", "kind": "words", "score": 3},
    {"text": "aaaa bbbb", "kind": "words", "score": 4},
    {"text": "O, to be! Or was it not to be?", "kind": "question", "score": 5},
]

QUERIES = {
    "plain": "capture mean, std from transformer.h[*]",
    "masked": "capture mean, var, max from transformer.h[1:3] where position > 0",
    "higher": "capture kurtosis, mean from transformer.h.1",
    "count": 'capture count from transformer.h.0 where token == "e"',
    "quantile": "capture quantile(x, 0.5), hist(x, 8, -1, 1) from transformer.h.1.mlp",
    "top": "capture top(x, 3) from @resid_post[1]",
    "values": "capture values, mean from transformer.h.1 where position < 3",
    "position": "capture mean from transformer.h[*] by position",
    "kind": "capture std, count from transformer.h.1 where position > 1 by row.kind",
    "whole": "capture mean from transformer.h.1 where row.score != 0.5 by row.score",
    "halves": "capture mean from transformer.h.1 where position > 8 by row.score",
    "sample": "capture mean, max from transformer.h[0:2] by sample",
    "other sample": "capture rms from transformer.h[0:2] where position > 1 by sample",
    "surprised": "capture mean from transformer.h.2 where surprisal > 4",
    "own": "capture mean from transformer.h[*] where norm(x) > 3",
    "entropy": "capture mean(entropy(softmax(lens(x)))) from transformer.h[*] where position > 0",
    "input": "capture mean(norm(output - input)), max(input) from transformer.h[*].mlp",
    "pooled": "capture mean, std from transformer.h[*] where position > 0 pool layer",
    "pattern": "capture mean, max from @pattern[*] where position > 1",
    "keys": "capture mean(x[key=0]) from @pattern[*] by position",
    "two": "capture mean from transformer.h.0 as a; capture values from transformer.h.1 as b",
    "none": "capture mean from transformer.h.0 where position > 999 by row.kind",
}
GENERATING = {
    "written": "capture mean from transformer.h.1 during generate(max_new_tokens=3)",
    "steps": "capture mean, count from transformer.h.2 by phase during generate(max_new_tokens=3)",
}


@cache
def model() -> Any:
    """A model of four blocks, eager, with a tokenizer of characters."""
    module, tokenizer, _ = tiny("gpt2")
    given: Any = module
    given.set_attn_implementation("eager")
    return wrap_model(module, tokenizer)


@cache
def alone(name: str, batch_size: int | None = None) -> xarray.DataTree:
    """The result of one of the queries, run by itself."""
    query = {**QUERIES, **GENERATING}[name]
    return hookql.run(query, model=model(), data=DATA, batch_size=batch_size)


@pytest.fixture
def forced(monkeypatch: pytest.MonkeyPatch) -> None:
    """All queries share one pass, even where that is more work."""

    def one(orders: Sequence[Any], *rest: Any) -> Passes:
        return Passes((tuple(order.name for order in orders),), {})

    monkeypatch.setattr("hookql.several.passes_for", one)
    monkeypatch.setattr("hookql.together._alone", None)  # nothing may fall back


def check_same(expected: xarray.DataTree, found: xarray.DataTree, *, exactly: bool = False) -> None:
    """Labels and counts are equal, and numbers to 1e-5 of their spread, or to the bit."""
    assert list(expected.subtree_with_keys) != []
    one: Any
    other: Any
    for one, other in zip(expected.subtree, found.subtree, strict=True):
        assert one.path == other.path
        assert list(one.variables) == list(other.variables)
        for name in one.variables:
            mine, theirs = one[name], other[name]
            assert (mine.dims, mine.dtype, mine.attrs) == (theirs.dims, theirs.dtype, theirs.attrs)
            if exactly or mine.dtype.kind != "f":
                np.testing.assert_array_equal(mine.values, theirs.values)
            else:
                finite = mine.values[np.isfinite(mine.values)]
                spread = float(finite.std()) if len(finite) else 0.0
                np.testing.assert_allclose(
                    theirs.values, mine.values, rtol=1e-6, atol=1e-5 * spread
                )


RUN = {
    "history", "tokens_run", "tokens_padding", "tokens_skipped", "tokens_spared", "batches",
    "seconds", "started",
    "ended", "pass_shared_with",
}  # fmt: skip


def check_attributes(expected: Mapping[Any, Any], found: Mapping[Any, Any]) -> None:
    """All that is said of a result but how it was run is equal."""
    assert {k: v for k, v in expected.items() if k not in RUN} == {
        k: v for k, v in found.items() if k not in RUN
    }


@pytest.mark.parametrize("first", QUERIES)
def test_two_queries_have_what_each_has_alone(first: str, forced: None) -> None:
    """Pairs of all kinds: numbers, labels, counts and attributes."""
    names = list(QUERIES)
    for step in (1, 3, 8):
        second = names[(names.index(first) + step) % len(names)]
        found = hookql.run_all(
            {"a": QUERIES[first], "b": QUERIES[second]}, model=model(), data=DATA
        )
        for name, query in (("a", first), ("b", second)):
            check_same(alone(query), found[name])
            check_attributes(alone(query).attrs, found[name].attrs)
        assert "b" == found["a"].attrs["pass_shared_with"]


@pytest.mark.parametrize("batch_size", [None, 2])
def test_all_queries_at_once(batch_size: int | None, forced: None, tmp_path: Path) -> None:
    """In one pass, with files: what is in them is what a run alone writes."""
    found = hookql.run_all(
        QUERIES_AS_NAMES, model=model(), data=DATA, output=tmp_path / "out", batch_size=batch_size
    )
    assert list(QUERIES_AS_NAMES) == list(found)
    for name, query in zip(QUERIES_AS_NAMES, QUERIES, strict=True):
        check_same(alone(query, batch_size), found[name])
        check_attributes(alone(query, batch_size).attrs, found[name].attrs)
    for name in ("values", "sample", "kind", "two"):
        file = tmp_path / f"{name}.nc"
        hookql.run(QUERIES[name], model=model(), data=DATA, output=file, batch_size=batch_size)
        saved = hookql.load(tmp_path / "out" / file.name)
        assert [] == hookql.verify(tmp_path / "out" / file.name)
        alike = [
            tree.drop_nodes("_checksums", errors="ignore") for tree in (hookql.load(file), saved)
        ]
        check_same(*alike)
        check_attributes(alike[0].attrs, alike[1].attrs)


QUERIES_AS_NAMES = {name.replace(" ", "_"): query for name, query in QUERIES.items()}


def test_equal_batches_give_equal_bits(forced: None) -> None:
    """Where the arithmetic is the same no bit differs."""
    names = ("plain", "masked", "top", "quantile", "position", "kind", "entropy", "input")
    found = hookql.run_all({n: QUERIES[n] for n in names}, model=model(), data=DATA)
    for name in names:
        check_same(alone(name), found[name], exactly=True)


def test_queries_that_generate_alike_share_their_texts() -> None:
    """One call of `generate` a batch; with other arguments it is another pass."""
    found = hookql.run_all(GENERATING, model=model(), data=DATA)
    for name in GENERATING:
        check_same(alone(name), found[name])
        assert "pass_shared_with" in found[name].attrs
    apart = {"a": GENERATING["written"], "b": GENERATING["steps"].replace("=3", "=2")}
    assert all(
        "pass_shared_with" not in tree.attrs
        for tree in hookql.run_all(apart, model=model(), data=DATA).values()
    )


# --- the work -----------------------------------------------------------------------------------


@pytest.fixture
def passes(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """A list with a number for each forward pass over data."""
    ran: list[int] = []
    forward = local._forward

    def counted(*given: Any) -> None:
        ran.append(len(ran))
        forward(*given)

    monkeypatch.setattr(local, "_forward", counted)
    return ran


FOUR = {name: QUERIES[name] for name in ("plain", "masked", "values", "position")}


def test_several_queries_cost_the_passes_of_one(passes: list[int]) -> None:
    """And as many as there are of them where the rule is off."""
    given: dict[str, Any] = {"model": model(), "data": DATA, "batch_size": 2}
    hookql.run(FOUR["plain"], **given)
    one = len(passes)
    assert 3 == one
    passes.clear()
    shared = hookql.run_all(FOUR, optimize="none,+depth,+sharing", **given)
    assert one == len(passes)
    passes.clear()
    apart = hookql.run_all(FOUR, optimize="none,+depth", **given)
    assert 4 * one == len(passes)
    for name in FOUR:
        check_same(apart[name], shared[name], exactly=True)
        assert "pass_shared_with" not in apart[name].attrs


def test_equal_questions_share_accumulators(monkeypatch: pytest.MonkeyPatch) -> None:
    """Mean and deviation of one place in three queries: one accumulator, updated once a batch."""
    updates: list[int] = []
    update = Moments.update

    def counted(self: Moments, rows: torch.Tensor) -> None:
        updates.append(id(self))
        update(self, rows)

    monkeypatch.setattr(Moments, "update", counted)
    three = {
        "a": "capture mean from transformer.h.1 where position > 0",
        "b": "capture std from transformer.h.1 where position > 0",
        "c": "let late = position > 0 capture var, sum from h[1] where late",
    }
    found = hookql.run_all(three, model=model(), data=DATA, batch_size=6)
    assert 1 == int(found["a"].attrs["batches"])
    assert 1 == len(updates)


ENTROPY = "capture mean(entropy(softmax(lens(x)))) from h[1] where {} as {}\n"


@pytest.mark.parametrize(
    ("wheres", "most"),
    [
        # Of the same rows once, of nearly all rows in two ways once over all.
        (("position > 0", "position > 0"), 1),
        (("position > 0", "position >= 0"), 1),
        # Few rows in two ways: twice, and not over all rows.
        (('token == "o"', 'token == "w"'), 2),
    ],
)
def test_an_expression_is_worked_out_no_oftener_than_pays(
    wheres: tuple[str, str], most: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Once for all captures that ask for it; of rare tokens for those alone."""
    texts = ["one two", "in snow", "to know", "at home"]
    query = ENTROPY.format(wheres[0], "a") + ENTROPY.format(wheres[1], "b")
    expected = [
        hookql.run(ENTROPY.format(where, "a"), model=model(), texts=texts) for where in wheres
    ]
    rows: list[int] = []
    lens = Lens.__call__

    def counted(self: Any, x: torch.Tensor, *rest: Any) -> torch.Tensor:
        rows.append(len(x))
        return lens(self, x, *rest)

    monkeypatch.setattr(Lens, "__call__", counted)
    found = hookql.run(query, model=model(), texts=texts)
    assert most == len(rows)
    kept = [int(tree["count"]) for tree in expected]
    assert sum(rows) == (sum(kept) if most == 2 else max(kept))
    for name, tree in zip("ab", expected, strict=True):
        check_same(tree, xarray.DataTree(found[f"{name}/transformer.h"].dataset))


def test_a_query_of_few_tokens_is_not_dragged_along(passes: list[int]) -> None:
    """One deep token of many texts is read by itself, unless a neighbour is as deep."""
    texts = [*(["in snow we know"] * 40), "a zoo"]
    rare = 'capture mean from transformer.h[-1] where token == "z"'
    given: dict[str, Any] = {"model": model(), "texts": texts, "batch_size": 1}
    given["optimize"] = "-duplicates"
    found = hookql.run_all({"rare": rare, "wide": "capture mean from h[0]"}, **given)
    assert 41 + 1 == len(passes)
    assert all("pass_shared_with" not in tree.attrs for tree in found.values())
    passes.clear()
    found = hookql.run_all({"rare": rare, "wide": "capture mean from h[-1]"}, **given)
    assert 41 == len(passes)
    assert "wide" == found["rare"].attrs["pass_shared_with"]


# --- from Python ----------------------------------------------------------------------------------


def test_data_that_can_be_read_once_does_for_all() -> None:
    """A generator's texts, which two runs could not both have."""
    two = {"a": "capture count from h[0]", "b": "capture mean from h[1]"}
    found = hookql.run_all(two, model=model(), data=(each["text"] for each in DATA))
    expected: Any = alone("plain")
    assert int(np.ravel(expected["count"].values)[0]) == int(found["a"]["count"])
    expected = expected["mean"].sel(layer=[1]).values
    np.testing.assert_array_equal(expected, found["b"]["mean"].values)
    assert "b" == found["a"].attrs["pass_shared_with"]


def test_what_is_wrong_with_several_is_said(golden: Golden, tmp_path: Path) -> None:
    """With the query that it is about, before the model runs; files that clash, odd names."""
    mean = "capture mean from h[0]"
    raw = 'capture values from h[0] into "x.nc"'
    shown = []
    wrong: list[tuple[Any, dict[str, Any]]] = [
        ({"good": mean, "bad": "capture meen from h[0]"}, {}),
        ({"good": mean, "unbound": "capture mean from h[9]"}, {}),
        ({"a": raw, "b": raw}, {"output": tmp_path}),
        ({"a/b": mean}, {}),
        ([mean, mean], {}),
        ({"a": mean}, {"output": 3}),
        ({"a": mean}, {"optimize": "-shering"}),
        ({"good": mean, "late": "capture mean from h[0] where row.nowhere == 1"}, {}),
        ({"good": mean, "bad": "capture mean from h[0] where row.kind == 1"}, {"data": DATA}),
    ]
    for queries, given in wrong:
        given = {"data": [{"text": "a"}], **given}
        with pytest.raises(HookQLError) as caught:
            hookql.run_all(queries, model=model(), **given)
        shown.append(f"{queries} {sorted(given)}\n\n{caught.value}\n")
    golden("optimizer/several.txt", "\n".join(shown).replace(str(tmp_path), "FOLDER"))
    assert [] == list(tmp_path.iterdir())


def test_checkpoints_keep_queries_apart(tmp_path: Path) -> None:
    """Each has a folder; what is finished is read from its file."""
    two = {"a": "capture mean from h[0]", "b": "capture mean from h[1]"}
    given: dict[str, Any] = {"model": model(), "data": DATA, "checkpoint": tmp_path / "kept"}
    first = hookql.run_all(two, output=tmp_path / "out", **given)
    assert ["a", "b"] == sorted(path.name for path in (tmp_path / "kept").iterdir())
    again = hookql.run_all(two, output=tmp_path / "out", resume=True, **given)
    for name in two:
        assert "pass_shared_with" not in first[name].attrs
        check_same(first[name], again[name].drop_nodes("_checksums", errors="ignore"))


# --- from configs ---------------------------------------------------------------------------------

CONFIG = """\
data: texts.jsonl
outputs: out
options: {batch_size: 2}
queries:
  means: capture mean, std from h[0:2] where position > 0
  elsewhere: {query: 'capture mean from h[0]', data: {texts: [a b c]}}
  rows: |
    capture values from h[1] where position < 2 into "acts.nc"
    capture count from h[1]
  samples: capture mean(norm(x)) from h[*] by sample
  written: capture mean from h[0] during generate(max_new_tokens=2)
"""


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A config and its data in the current folder."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "100")
    lines = "".join(json.dumps(each) + "\n" for each in DATA)
    (tmp_path / "texts.jsonl").write_text(lines, encoding="utf-8")
    (tmp_path / "c.yaml").write_text(CONFIG, encoding="utf-8")
    return tmp_path


def test_a_config_runs_what_it_can_in_one_pass(
    folder: Path, passes: list[int], capsys: pytest.CaptureFixture[str]
) -> None:
    """By the command line: the files are those of a run one by one, for fewer passes."""
    assert 0 == main(["run", "c.yaml"])
    shared, said = len(passes), capsys.readouterr()
    assert "3 queries in one pass: means, rows, samples\n" in said.err
    headings = [line for line in said.out.splitlines() if line.startswith("# ")]
    assert ["# means", "# rows", "# samples", "# elsewhere", "# written"] == headings
    passes.clear()
    text = CONFIG.replace("batch_size: 2", "batch_size: 2, optimize: none")
    (folder / "one.yaml").write_text(text.replace("outputs: out", "outputs: one"))
    assert 0 == main(["run", "one.yaml", "--quiet"])
    assert (3 + 1, 3 * 3 + 1) == (shared, len(passes))
    names = ["acts", "elsewhere", "means", "rows", "samples", "written"]
    assert names == sorted(path.stem for path in (folder / "out").iterdir())
    for path in (folder / "one").iterdir():
        check_same(hookql.load(path), hookql.load(folder / "out" / path.name), exactly=True)
        assert [] == hookql.verify(folder / "out" / path.name)


def test_explain_says_which_share_a_pass(folder: Path, golden: Golden) -> None:
    """And why others do not; for programs too."""
    text = CONFIG.replace("batch_size: 2", "batch_size: 2, on_error: skip")
    off = CONFIG.replace("batch_size: 2", "optimize: false")
    kept = CONFIG.replace("batch_size: 2", "checkpoint: kept")
    deep = CONFIG + '  rare: capture mean from h[-1] where row.kind == "letter"\n'
    shown = []
    for config in (CONFIG, deep, text, off, kept):
        (folder / "e.yaml").write_text(config, encoding="utf-8")
        analysis = Analysis.from_file("e.yaml")
        shown.append(analysis.explain().partition("# passes\n")[2])
    golden("optimizer/passes.txt", "\n".join(shown))
    plans = json.loads(Analysis.from_file("c.yaml").explain(format="json"))
    assert ["rows", "samples"] == plans["means"]["pass_shared_with"]
    assert "pass_shared_with" not in plans["written"]
    assert "%% together   means, rows" in Analysis.from_file("c.yaml").explain(format="mermaid")


def test_an_error_of_one_query_takes_no_other_along(folder: Path, golden: Golden) -> None:
    """The pass fails for a reason of one query: those before have their files, and it its words."""
    text = CONFIG.replace(
        "  rows: |\n",
        "  wrong: 'capture mean from h[0] where row.late > 1'\n  rows: |\n",
    )
    (folder / "w.yaml").write_text(text, encoding="utf-8")
    rows = [{**each, "late": 2 if number < 5 else "x"} for number, each in enumerate(DATA)]
    lines = "".join(json.dumps(each) + "\n" for each in rows)
    (folder / "texts.jsonl").write_text(lines, encoding="utf-8")
    with pytest.raises(HookQLError) as caught:
        Analysis.from_file("w.yaml").run()
    golden("optimizer/one-fails.txt", f"{caught.value}\n")
    names = ["elsewhere.nc", "means.nc"]
    assert names == sorted(path.name for path in (folder / "out").iterdir())
    # Where nothing had to be looked at beforehand, it is the pass that fails.
    alike = {"good": "capture mean from h[0]", "bad": "capture mean from h[0] where row.late > 1"}
    with pytest.raises(HookQLError) as again:
        Analysis.from_dict({"queries": alike, "data": "texts.jsonl", "outputs": "two"}).run()
    assert caught.value.message == again.value.message
    assert ("this was the query `bad`; finished: good",) == again.value.notes
    assert ["good.nc"] == [path.name for path in (folder / "two").iterdir()]


def test_a_file_that_cannot_be_written_is_one_query_s_error(
    folder: Path, monkeypatch: pytest.MonkeyPatch, golden: Golden
) -> None:
    """The others of the pass are finished first."""
    whole = execute.conclude

    def failing(plan: Any, *given: Any) -> Any:
        if any(capture.streams for capture in plan.captures):
            raise hookql.UsageError(hookql.Diagnostic("no-room", "the disk is full"))
        return whole(plan, *given)

    monkeypatch.setattr("hookql.together.conclude", failing)
    with pytest.raises(HookQLError) as caught:
        Analysis.from_file("c.yaml").run()
    golden("optimizer/one-full.txt", f"{caught.value}\n")
    names = ["acts.nc", "means.nc", "rows.nc"]
    assert names == sorted(path.name for path in (folder / "out").iterdir())


def test_a_pass_that_is_stopped_leaves_what_each_has(
    folder: Path, monkeypatch: pytest.MonkeyPatch, golden: Golden
) -> None:
    """Files of other names, one for each query of the pass and each `into`."""
    take = together._take

    def taking(whole: Any, parts: Any, outcome: Any, batch: Any) -> None:
        take(whole, parts, outcome, batch)
        if outcome.done == 2:
            signal.raise_signal(signal.SIGTERM)

    monkeypatch.setattr("hookql.together._take", taking)
    each = Analysis.from_file("c.yaml").each(say=lambda line: None)
    with pytest.raises(Interrupted) as caught:
        list(each)
    golden("optimizer/stopped.txt", f"{caught.value}\n")
    names = ["means", "rows", "acts", "samples"]
    left = sorted(path.name for path in (folder / "out").iterdir())
    assert all(f"{name}.partial.nc" in left for name in names)
    assert all(".partial" in name for name in left)


def test_saves_says_how_many_passes() -> None:
    """Nothing where nothing is shared."""
    assert saves(Passes((("a",), ("b",)), {})) is None
    assert "2 passes over the data instead of 4" == saves(Passes((("a", "b", "c"), ("d",)), {}))


def test_a_generator_is_not_divided_among_passes(golden: Golden) -> None:
    """Each pass would have had other samples, and with a limit no error would have said so."""
    texts = (row for row in DATA)
    queries = {name: QUERIES[name] for name in ("plain", "count")}
    with pytest.raises(hookql.UsageError) as caught:
        hookql.run_all(queries, model=model(), data=texts, limit=2, optimize="-sharing")
    golden("sharing/read_once.txt", str(caught.value))
    assert len(DATA) == len([*texts])  # and none was taken


@pytest.mark.parametrize("rules", ["all", "-depth"])
def test_what_ran_is_said_by_a_config_too(rules: str) -> None:
    """The share of the model that a query of a pass needs, as of the query by itself."""
    queries = {"a": "capture mean from transformer.h.0", "b": "capture mean from transformer.h.1"}
    config = {"data": {"texts": ["abc"]}, "options": {"optimize": rules}, "queries": queries}
    found = Analysis.from_dict({"model": "demo", **config}).run()
    for name, query in queries.items():
        single = hookql.run(query, texts=["abc"], optimize=rules)
        assert single.attrs["forward_share"] == found[name].attrs["forward_share"]
        assert "pass_shared_with" in found[name].attrs
