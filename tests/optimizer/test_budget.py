"""The rule `budget`: which size of batches is chosen, remembered, and used by runs."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import hookql
from hookql import execute
from hookql.engines.local import run as run_local
from hookql.errors import Interrupted
from hookql.models.load import wrap_model
from hookql.optimizer import budget
from hookql.optimizer.budget import found, known, passes, quickest, saves, timed
from hookql.optimizer.remembered import cache_folder, recalled, remember
from hookql.running import batching
from hookql.source import open_source, open_texts
from tests.engines.planted import bound
from tests.tiny import tiny

QUERY = "capture count, mean, std, top(x, k=3) from h[*] where position > 1"
# More than one sample in two has a token that the query wants; 40 of each are short.
TEXTS = [f"sample {n} " + "lorem ipsum " * (n % 4) for n in range(300)]


@pytest.fixture(autouse=True)
def cache(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """An empty cache folder for each test."""
    monkeypatch.setenv("HOOKQL_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture
def measured(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Every run pays, 1,024 tokens are quickest, and here is what was measured."""
    asked: list[int] = []
    seconds = {256: 2.0, 512: 1.5, 1024: 1.0, 2048: 1.1}

    def measure(tokens: int) -> float:
        asked.append(tokens)
        return seconds[tokens]

    def fake(plan: object) -> Callable[[int], float]:
        return measure

    monkeypatch.setattr(budget, "passes", fake)
    monkeypatch.setattr(budget, "_SHARE", 0)
    return asked


def run(**options: Any) -> Any:
    """The run of these tests."""
    model, tokenizer, _ = tiny("gpt2")
    given = {"model": model, "tokenizer": tokenizer, "texts": TEXTS, "progress": False}
    return hookql.run(QUERY, **{**given, **options})


@pytest.mark.parametrize(
    ("seconds", "expected"),
    [
        ({256: 1.0, 512: 2.0}, 256),
        ({256: 1.02, 512: 1.0}, 256),
        ({256: 1.04, 512: 1.0}, 512),
        ({256: 3.0, 512: 1.02, 1024: 1.0}, 512),
    ],
)
def test_the_smallest_of_the_quick_is_taken(seconds: dict[int, float], expected: int) -> None:
    """Within 3 % of the best."""
    assert expected == quickest(seconds)


def test_the_least_of_interleaved_repeats_counts() -> None:
    """The first round warms up, the order turns every time, and a disturbance does not count."""
    asked: list[int] = []
    times = iter([9.0, 9.0, 2.0, 5.0, 4.0, 2.5])

    def measure(tokens: int) -> float:
        asked.append(tokens)
        return next(times)

    assert {256: 4.0, 512: 2.0} == timed(measure, (512, 256), repeats=2)
    assert [256, 512, 512, 256, 256, 512] == asked


def test_what_memory_does_not_suffice_for_is_left_out() -> None:
    """With all that is larger; any other error leaves nothing."""

    def measure(tokens: int) -> float:
        if tokens >= 1024:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return 1.0

    def broken(tokens: int) -> float:
        raise ValueError("the model is broken")

    assert {256: 1.0, 512: 1.0} == timed(measure, (256, 512, 1024, 2048))
    assert {} == timed(broken, (256, 512))


def test_all_batches_of_a_budget_run_and_the_clock_is_asked_around_them() -> None:
    """2,048 tokens in samples of 32: so many passes, left early, and no hook stays behind."""
    case = bound(QUERY, "gpt2")
    ran: list[tuple[int, ...]] = []
    handle = case.module.register_forward_pre_hook(
        lambda module, args, kwargs: ran.append(tuple(kwargs["input_ids"].shape)), with_kwargs=True
    )
    ticks = iter([10.0, 13.0, 20.0, 21.0])
    measure = passes(case.plan, clock=lambda: next(ticks))
    assert (3.0, 1.0) == (measure(512), measure(2048))
    handle.remove()
    assert [(16, 32)] * 4 + [(64, 32)] == ran
    hooks = [len(m._forward_hooks) + len(m._forward_pre_hooks) for m in case.module.modules()]
    assert 0 == sum(hooks)


def test_a_second_run_takes_what_the_first_measured(measured: list[int], cache: Path) -> None:
    """The same batches, so the same bits; measured once."""
    first = run()
    times = len(measured)
    second = run()
    assert times == len(measured) == 4 * 6
    assert (1024, 1024) == (first.attrs["tokens_per_batch"], second.attrs["tokens_per_batch"])
    assert first.attrs["batches"] == second.attrs["batches"]
    for node, other in zip(first.leaves, second.leaves, strict=True):
        assert node.to_dataset().equals(other.to_dataset())
    assert 1 == len(list(cache.iterdir()))


def test_the_rule_changes_nothing_but_the_order_of_sums(measured: list[int]) -> None:
    """With and without: counts exactly, all else to 1e-5 of each feature's deviation."""
    on, off = run(), run(optimize="-budget")
    assert (1024, 512) == (on.attrs["tokens_per_batch"], off.attrs["tokens_per_batch"])
    assert on.attrs["batches"] < off.attrs["batches"]
    for node, other in zip(on.leaves, off.leaves, strict=True):
        assert node["count"].equals(other["count"])
        scale = other["std"].values
        for name in ("mean", "std"):
            difference = np.abs(node[name].values - other[name].values)
            assert (difference <= 1e-5 * scale).all()


@pytest.mark.parametrize(
    "options",
    [
        {"optimize": False},
        {"texts": TEXTS[:200]},
        {"texts": (text for text in TEXTS)},
        {"batch_size": 8},
    ],
    ids=["off", "few", "unknown number", "rows given"],
)
def test_who_does_not_measure(measured: list[int], options: dict[str, Any]) -> None:
    """A rule that is off, few samples or nobody knows how many, a number of rows."""
    if "texts" in options and not isinstance(options["texts"], list):
        options = {"data": options["texts"], "texts": ()}
    assert 512 == run(**options).attrs["tokens_per_batch"]
    assert [] == measured


def test_a_given_number_wins(measured: list[int]) -> None:
    """What the user says is not measured."""
    assert 100 == run(tokens_per_batch=100).attrs["tokens_per_batch"]
    assert [] == measured


def test_a_run_measures_once_it_is_long_enough(
    measured: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    """From the tokens that will enter the model: a rare word is a short run."""
    model, tokenizer, _ = tiny("gpt2")
    tokens = sum(len(text) for text in TEXTS)
    first = sum(len(text) for text in TEXTS[:256])
    monkeypatch.setattr(batching, "least", lambda device: first * len(TEXTS) // 256 + 1)
    assert 512 == run().attrs["tokens_per_batch"]
    monkeypatch.setattr(batching, "least", lambda device: first * len(TEXTS) // 256)
    assert 1024 == run().attrs["tokens_per_batch"]
    rare = hookql.run(
        'capture mean from h[0] where token == "7"',
        model=model, tokenizer=tokenizer, texts=TEXTS, progress=False,
    )  # fmt: skip
    assert 512 == rare.attrs["tokens_per_batch"]
    assert tokens > rare.attrs["tokens_run"] > 0


@pytest.mark.parametrize("rules", ["all", "-duplicates", "-rows", "-rows,-duplicates"])
def test_the_tokens_that_will_run_are_counted(rules: str) -> None:
    """Of samples that are cut behind their last wanted token, and of equal ones once."""
    texts = ["a long beginning", "a short one", "a", "a long story"] * 3
    model, tokenizer, _ = tiny("gpt2")
    wrapped = wrap_model(model, tokenizer)
    source = open_source(wrapped, open_texts(None, texts, None, {}), None, {})
    query = hookql.api.parse_query("capture mean from h[0] where position < 7")
    plan = execute.bound(query, wrapped, source, {"optimize": rules})
    given = {"model": model, "tokenizer": tokenizer, "texts": texts, "optimize": rules}
    ran = hookql.run(query.source.text, **given, progress=False).attrs["tokens_run"]
    assert ran == batching._run_of(plan, source.first(plan, 256))


def test_a_resumed_run_goes_on_with_its_batches(
    measured: list[int], cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Though the cache is gone, and another size would be quickest now."""
    whole = run(output=tmp_path / "whole.nc")
    where = {"checkpoint": tmp_path / "kept", "output": tmp_path / "out.nc"}
    with monkeypatch.context() as patch:
        asked = iter(range(10_000))

        def stopped(*given: Any, **options: Any) -> Any:
            return run_local(*given, **{**options, "stop": lambda: next(asked) >= 1})

        patch.setattr("hookql.execute.run_local", stopped)
        with pytest.raises(Interrupted):
            run(**where, checkpoint_every=1e-9)
    for path in cache.iterdir():
        path.unlink()
    monkeypatch.setattr(budget, "passes", lambda plan: lambda tokens: float(tokens))
    resumed = run(**where, resume=True)
    assert 1024 == resumed.attrs["tokens_per_batch"]
    assert [] == list(cache.iterdir())
    for node, other in zip(whole.leaves, resumed.leaves, strict=True):
        assert node.to_dataset().equals(other.to_dataset())


def test_an_unwritable_cache_is_no_error(
    measured: list[int], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """A file where the folder should be: measured, and not remembered."""
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("HOOKQL_CACHE", str(tmp_path / "file"))
    assert 1024 == run().attrs["tokens_per_batch"]
    assert known(bound(QUERY, "gpt2").plan) is None


@pytest.mark.parametrize("text", ["", "[", '{"tokens_per_batch": 3}', "[1]", "{}"])
def test_a_damaged_file_counts_as_absent(text: str, cache: Path) -> None:
    """It is measured anew, and kept."""
    plan = bound(QUERY, "gpt2").plan
    assert 256 == found(plan, lambda tokens: float(tokens))
    (path,) = cache.iterdir()
    path.write_text(text)
    assert known(plan) is None
    assert 2048 == found(plan, lambda tokens: 1 / tokens)
    assert [path] == list(cache.iterdir())
    assert 2048 == known(plan)


def test_a_number_that_nobody_tried_is_measured_anew(cache: Path) -> None:
    """Whoever wrote it: a batch of 10**12 tokens would be the end of the machine."""
    plan = bound(QUERY, "gpt2").plan
    found(plan, lambda tokens: float(tokens))
    (path,) = cache.iterdir()
    facts = {**json.loads(path.read_text()), "tokens_per_batch": 10**12}
    path.write_text(json.dumps(facts))
    assert known(plan) is None
    assert 2048 == found(plan, lambda tokens: 1 / tokens)


def test_the_first_of_two_processes_is_believed(cache: Path) -> None:
    """Both measured: what is kept already stands."""
    assert {"tokens_per_batch": 256, "key": {"a": 1}} == remember(
        "budget", {"a": 1}, {"tokens_per_batch": 256}
    )
    assert 256 == remember("budget", {"a": 1}, {"tokens_per_batch": 512})["tokens_per_batch"]
    assert recalled("budget", {"a": 2}) is None


def test_another_depth_or_number_of_threads_is_measured_by_itself() -> None:
    """What is remembered is of one model, stop, machine and number of threads."""
    plan = bound(QUERY, "gpt2").plan
    found(plan, lambda tokens: float(tokens))
    assert 256 == known(plan)
    assert known(bound("capture mean from h[0]", "gpt2").plan) is None
    threads = torch.get_num_threads()
    torch.set_num_threads(threads + 1)
    try:
        assert known(plan) is None
    finally:
        torch.set_num_threads(threads)


def test_what_explain_says() -> None:
    """What a long run would do, and what was measured; nothing of texts that are written."""
    plan = bound(QUERY, "gpt2").plan
    assert (
        "runs of 2 million tokens or more measure which batches are fastest; others take 512 tokens"
    ) == saves(plan)
    found(plan, lambda tokens: {256: 4.0, 512: 3.0, 1024: 2.0, 2048: 2.0}[tokens])
    assert (
        "runs of 2 million tokens or more take batches of 1,024 tokens, as measured on this "
        "machine: 1.50 times as fast as 512"
    ) == saves(plan)


def test_where_the_cache_lies(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Our own variable, the system's, or the home's folder for caches."""
    assert tmp_path / "cache" == cache_folder()
    monkeypatch.delenv("HOOKQL_CACHE")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert tmp_path / "hookql" == cache_folder()
    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.delenv("LOCALAPPDATA", raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    assert tmp_path / ".cache" / "hookql" == cache_folder()


def test_without_hard_links_it_is_remembered_too(
    cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Some file systems have none; nothing but the file is left there."""

    def link(*names: Any) -> None:
        raise PermissionError(1, "Operation not permitted")

    monkeypatch.setattr("os.link", link)
    remember("budget", {"a": 1}, {"tokens_per_batch": 512})
    assert {"tokens_per_batch": 512, "key": {"a": 1}} == recalled("budget", {"a": 1})
    assert 1 == len([*cache_folder().iterdir()])
