"""The same query again: the same answer, whole, with its warnings and files, and no model run."""

from __future__ import annotations

import subprocess
import sys
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import netCDF4
import pytest
import torch
import xarray

import hookql
from hookql.cli import main
from hookql.models.load import Model
from hookql.stored import entries
from tests.stored.calls import QUERY, TEXTS, forwards, from_store, ran, run, without
from tests.tiny import tiny

Golden = Callable[[str, str], None]
QUERIES = [
    QUERY,
    "capture mean, quantile(x, 0.1, 0.9), top(x, 3) from h[*].mlp by position",
    'capture values from h[0].mlp where token == "e"',
    "capture mean from h[0].attn as one; capture std from h[*].mlp as two",
    "capture hist(norm(x), 5, 0, 9) from @resid_post[*] by sample",
    "capture mean(entropy(softmax(lens(x)))) from @resid_post[*] where surprisal > 1",
    "capture mean from h[0].attn during generate(max_new_tokens=3) where phase == generated",
]


@pytest.mark.parametrize("query", QUERIES)
def test_the_same_again_never_runs_the_model(query: str, tmp_path: Path) -> None:
    """A stored answer is the run's own tree, to the last attribute, and says when it was kept."""
    model, tokenizer, _ = tiny("gpt2")
    first = run(tmp_path, model, tokenizer, query=query)
    with forwards() as calls:
        again = run(tmp_path, model, tokenizer, query=query)
    assert [] == calls
    assert not from_store(first)
    assert again.attrs["from_store"].startswith("answered without running the model; kept 20")
    xarray.testing.assert_identical(first, without(again))


def test_another_object_of_the_same_model_is_the_same(tmp_path: Path) -> None:
    """The address is of what a model is, not of which object it is."""
    run(tmp_path)
    assert from_store(run(tmp_path))


def test_another_process_finds_the_answer(tmp_path: Path) -> None:
    """What one process kept another one is given: sets are told in an order, addresses are not."""
    program = (
        "import sys, hookql\n"
        "tree = hookql.run('capture mean from transformer.h[0]', texts=['Hello'], "
        f"store={str(tmp_path)!r})\n"
        "print('from_store' in tree.attrs)\n"
    )
    said = [
        subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
        for _ in range(2)
    ]
    assert ["False\n", "True\n"] == [each.stdout for each in said]


def test_files_are_written_as_by_the_run(tmp_path: Path) -> None:
    """Of an answer, `-o` and `into` give the files that a run would give, checksums and all."""
    query = 'capture mean from h[0].attn into "attn.nc"; capture std from h[*].mlp as two'
    model, tokenizer, _ = tiny("gpt2")
    given: dict[str, Any] = {"query": query, "model": model, "tokenizer": tokenizer}
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        run(tmp_path / "store", **given, output=tmp_path / name / "out.nc")
    for name in ("attn.nc", "out.nc"):
        first, again = (hookql.load(tmp_path / folder / name) for folder in "ab")
        assert (False, True) == (from_store(first), from_store(again))
        xarray.testing.assert_identical(first, without(again))
        assert [] == hookql.verify(tmp_path / "b" / name)


def test_raw_values_are_copied_out(tmp_path: Path) -> None:
    """A file of raw values comes out of the store whole, and sealed."""
    query = "capture values from h[0].mlp"
    for name in ("a.nc", "b.nc"):
        run(tmp_path / "store", query=query, output=tmp_path / name)
    first, again = (hookql.load(tmp_path / name) for name in ("a.nc", "b.nc"))
    assert from_store(again)
    xarray.testing.assert_identical(first, without(again))
    assert [] == hookql.verify(tmp_path / "b.nc")
    (tmp_path / "b.nc").write_bytes(b"changed")
    assert from_store(run(tmp_path / "store", query=query)), "the user's file is the store's own"


def test_results_are_not_overwritten(tmp_path: Path) -> None:
    """A stored answer replaces no file that a run would not replace."""
    run(tmp_path / "store")
    (tmp_path / "out.nc").write_bytes(b"mine")
    with pytest.raises(hookql.UsageError, match="exists already"):
        run(tmp_path / "store", output=tmp_path / "out.nc")
    assert b"mine" == (tmp_path / "out.nc").read_bytes()
    run(tmp_path / "store", output=tmp_path / "out.nc", overwrite=True)
    assert from_store(hookql.load(tmp_path / "out.nc"))


def test_warnings_are_said_again(tmp_path: Path) -> None:
    """What a run warned of is true of its stored answer."""
    query = 'capture mean from h[0] where token == "Q"'
    said = []
    for _ in range(2):
        with warnings.catch_warnings(record=True) as found:
            warnings.simplefilter("always")
            run(tmp_path, query=query)
        said.append([str(each.message) for each in found])
    assert said[0] == said[1]
    assert any("empty-selection" in each for each in said[0])


def entry(store: Path) -> Path:
    """The only entry of a store."""
    (folder,) = store.glob("??/*")
    return folder


def cut(path: Path) -> None:
    """Leave half of a file."""
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def flip(path: Path) -> None:
    """Change one byte in the middle."""
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)


@pytest.mark.parametrize("name", ["manifest.json", "group0.nc"])
@pytest.mark.parametrize("harm", [cut, flip, Path.unlink], ids=["cut", "flip", "removed"])
def test_damaged_answers_are_worked_out_anew(
    name: str, harm: Callable[[Path], None], tmp_path: Path
) -> None:
    """A damaged entry is no answer: the model runs, which is said, and a whole one is kept."""
    first = run(tmp_path)
    harm(entry(tmp_path) / name)
    with pytest.warns(hookql.HookQLWarning, match="damaged-store"):
        again = run(tmp_path)
    assert not from_store(again)
    assert (first["mean"] == again["mean"]).all()
    assert from_store(run(tmp_path))


def test_an_entry_of_another_question_is_no_answer(tmp_path: Path) -> None:
    """A folder under another's name, its hashes all right, still says what it is the answer to."""
    run(tmp_path)
    one = entry(tmp_path)
    run(tmp_path, texts=["other"])
    (other,) = (each for each in tmp_path.glob("??/*") if each != one)
    for path in one.iterdir():
        path.write_bytes((other / path.name).read_bytes())
    with pytest.warns(hookql.HookQLWarning, match="the answer to something else"):
        assert not from_store(run(tmp_path))


def test_an_empty_folder_in_its_place_is_replaced(tmp_path: Path) -> None:
    """What a person left there does not stay in the way."""
    run(tmp_path)
    folder = entry(tmp_path)
    for path in folder.iterdir():
        path.unlink()
    with pytest.warns(hookql.HookQLWarning, match="damaged-store"):
        run(tmp_path)
    assert from_store(run(tmp_path))


def test_writers_at_once_leave_one_whole_answer(tmp_path: Path) -> None:
    """Two processes that keep the same answer do not disturb each other, nor a third that reads."""
    program = (
        "import hookql\n"
        "for text in 'abc':\n"
        "    tree = hookql.run('capture mean from transformer.h[0]', texts=[text], "
        f"store={str(tmp_path)!r})\n"
    )
    command = [sys.executable, "-W", "error", "-c", program]
    both = [subprocess.Popen(command, stderr=subprocess.PIPE) for _ in range(2)]
    assert [b"", b""] == [each.communicate()[1] for each in both]
    assert 3 == len(list(tmp_path.glob("??/*")))
    assert [] == list(tmp_path.glob(".*")), "unfinished folders are left"


def test_a_writer_that_is_stopped_leaves_no_answer(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Until an entry has its name it is none; a failure costs the run nothing."""

    def full(*given: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(entries, "_put", full)
    with pytest.warns(hookql.HookQLWarning, match="no space left"):
        assert not from_store(run(tmp_path))
    assert [] == list(tmp_path.glob("??/*"))
    assert [] == list(tmp_path.glob(".*"))


def once() -> Iterator[str]:
    """Texts that can be read once."""
    yield from TEXTS


@pytest.mark.parametrize(
    ("options", "why"),
    [
        ({"data": once()}, "can be read only once"),
        ({"data": [{"text": "a", "thing": object()}]}, "builtins.object"),
        ({"query": "capture mean from h[0] during generate(max_new_tokens=2, do_sample=true)"},
         "by chance"),
        ({"query": 'capture values from h[0] into "v.nc"; capture mean from h[1]'},
         "several files"),
    ],
)  # fmt: skip
def test_what_cannot_be_known_again_is_not_kept(
    options: dict[str, Any], why: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The run goes on as ever, and says why its answer is not kept."""
    monkeypatch.chdir(tmp_path)
    with pytest.warns(hookql.HookQLWarning, match=why):
        assert not from_store(run(tmp_path / "store", **options))
    assert [] == list((tmp_path / "store").glob("??/*"))


def test_data_is_read_anew(tmp_path: Path) -> None:
    """A file with other contents is other data, whatever its time and size say."""
    import os

    path = tmp_path / "data.txt"
    path.write_text("one\ntwo\n")
    stat = path.stat()
    run(tmp_path / "store", data=path)
    assert from_store(run(tmp_path / "store", data=path))
    path.write_text("one\ntoo\n")
    os.utime(path, ns=(stat.st_atime_ns, stat.st_mtime_ns))
    assert not from_store(run(tmp_path / "store", data=path))


def test_types_of_columns_are_part_of_the_data(tmp_path: Path) -> None:
    """`5` of a CSV file compares as a number and "5" of JSON does not: these are other data."""
    query = "capture mean from h[0] where row.n == 5"
    (tmp_path / "d.csv").write_text("text,n\nHello,5\n")
    run(tmp_path / "store", query=query, data=tmp_path / "d.csv")
    again = [{"text": "Hello", "n": 5}]
    assert not from_store(run(tmp_path / "store", query=query, data=again))
    assert from_store(run(tmp_path / "store", query=query, data=again))
    assert not from_store(run(tmp_path / "store", query=query, data=[{"text": "Hello", "n": 5.0}]))


def test_tensors_are_part_of_the_question(tmp_path: Path) -> None:
    """Model inputs that are given directly are read too."""
    ids = torch.arange(20, 28).reshape(2, 4)
    run(tmp_path, inputs={"input_ids": ids})
    assert from_store(run(tmp_path, inputs={"input_ids": ids.clone()}))
    ids[0, 0] += 1
    assert not from_store(run(tmp_path, inputs={"input_ids": ids}))


def test_a_model_that_changes_while_it_runs_is_not_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An answer belongs to the model before the run only if it is that after it as well."""
    from hookql import execute as execution

    model, tokenizer, _ = tiny("gpt2")
    real = execution.run_local

    def meddling(*given: Any, **named: Any) -> Any:
        model.transformer.h[0].ln_1.weight.data[0] += 1
        return real(*given, **named)

    monkeypatch.setattr(execution, "run_local", meddling)
    with pytest.warns(hookql.HookQLWarning, match="the weights changed while the model ran"):
        run(tmp_path, model, tokenizer)
    assert [] == list(tmp_path.glob("??/*"))


def test_explain_says_what_the_store_has(tmp_path: Path, golden: Golden) -> None:
    """Not there, there, damaged, or never: a line of the plan, and an entry of its JSON."""
    model, tokenizer, _ = tiny("gpt2")
    given: dict[str, Any] = {"model": model, "tokenizer": tokenizer, "texts": TEXTS}
    store = tmp_path / "store"

    def line(**more: Any) -> str:
        return hookql.explain(QUERY, **given, store=store, **more).splitlines()[-1]

    said = [line()]
    assert not store.exists(), "explaining writes nothing"
    run(store, model, tokenizer)
    said.append(line().rpartition(" ")[0])
    assert '"stored": "answered without' in hookql.explain(
        QUERY, **given, store=store, format="json"
    )
    flip(entry(store) / "group0.nc")
    said.append(line())
    model.transformer.h[0].register_forward_hook(lambda *given: None)
    said.append(line())
    golden("stored/explain.txt", "\n".join(said) + "\n")


def test_what_is_said_of_stores(tmp_path: Path, golden: Golden) -> None:
    """The diagnostics, as users read them."""
    model, tokenizer, _ = tiny("gpt2")
    (tmp_path / "file").write_text("")
    with pytest.raises(hookql.UsageError) as wrong:
        run(tmp_path / "file", model, tokenizer)
    said = [str(wrong.value)]
    store = tmp_path / "store"
    run(store, model, tokenizer)
    flip(entry(store) / "group0.nc")
    with pytest.warns(hookql.HookQLWarning) as found:
        run(store, model, tokenizer)
    said += [str(each.message).replace(entry(store).name, "ADDRESS") for each in found]
    said[-1] = said[-1].replace(f"/{entry(store).parent.name}/ADDRESS", "/AB/ADDRESS")
    model.transformer.h[0].register_forward_hook(lambda *given: None)
    with pytest.warns(hookql.HookQLWarning) as found:
        run(store, model, tokenizer)
    said += [str(each.message) for each in found]
    golden("stored/said.txt", "\n\n".join(said).replace(str(tmp_path), "FOLDER") + "\n")


def test_the_command_line_has_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """`--store DIR` on the command line, and `options: {store: DIR}` in a config beside it."""
    monkeypatch.chdir(tmp_path)
    command = ["run", "-q", "capture mean from transformer.h[0]", "--text", "Hello"]
    assert 0 == main([*command, "--store", "kept", "-o", "a.nc"])
    capsys.readouterr()
    assert 0 == main([*command, "--store", "kept", "-o", "b.nc"])
    assert "answered without running the model; kept" in capsys.readouterr().err
    with netCDF4.Dataset("b.nc") as file:
        assert "from_store" in file.ncattrs()
    (tmp_path / "configs").mkdir()
    (tmp_path / "configs" / "c.yaml").write_text(
        "queries: {one: 'capture mean from transformer.h[0]'}\n"
        "data: {texts: [Hello]}\noptions: {store: ../kept}\n"
    )
    found = hookql.Analysis.from_file("configs/c.yaml").run()
    assert from_store(found["one"])


@pytest.mark.real_weights
@pytest.mark.xdist_group("smollm2")
def test_a_real_model_is_answered_without_running(smollm2: Model, tmp_path: Path) -> None:
    """The same on SmolLM2, with an edit past torch's counters that is noticed, and undone."""
    query = "capture mean, std from model.layers[0].self_attn where position > 0"
    given: dict[str, Any] = {"model": smollm2, "query": query, "texts": ["Hello there"]}
    first = run(tmp_path, **given)
    assert not ran(lambda: run(tmp_path, **given))
    xarray.testing.assert_identical(first, without(run(tmp_path, **given)))
    weight = smollm2.module.model.layers[0].self_attn.q_proj.weight
    before = weight.data[5, 7].clone()
    weight.data[5, 7] += 1e-3
    try:
        assert not from_store(run(tmp_path, **given))
    finally:
        weight.data[5, 7] = before
    assert from_store(run(tmp_path, **given))
