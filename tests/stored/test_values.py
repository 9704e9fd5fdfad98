"""Statistics of sites whose values are kept: the model's own numbers, and the model never runs."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import xarray
from torch import nn

import hookql
from hookql.models.load import Model, load_model
from hookql.optimizer import weights
from hookql.stored import derived, rows
from hookql.stored.rows import NotAsKept
from tests.stored.calls import forwards, from_store, ran, run
from tests.stored.test_answers import cut, flip
from tests.tiny import tiny

Golden = Callable[[str, str], None]
DATA = [
    {"text": text, "label": label, "n": n}
    for n, (text, label) in enumerate(
        [
            ("Hello there", "a"),
            ("a second text, a little longer", "b"),
            ("x", "a"),
            ("", "b"),
            ("and a third one, of more words than the others have", "b"),
            ("Hello there", "a"),
        ]
    )
]
COMPUTED = "computed from kept values, without running the model; kept 20"
QUERIES = [
    "capture mean, std, var, min, max, sum, rms, skew, kurtosis from {0}, {1}",
    "capture median, quantile(x, 0.1, 0.9), top(x, 3), bottom(x, 2) from {1}",
    "capture cov, corr, gram from {0}",
    "capture hist(norm(x), 5, 0, 9), mean(x > 0) as rate, count from {0} where position > 2",
    "capture mean, std from {0}, {1} by position",
    "capture mean, top(norm(x), 2) from {1} where row.label == \"b\" by row.label, sample",
    "capture mean(x > 0), max from {0} where norm(x) > {limit} and token != \"e\"",
    "capture mean as one from {0} where length > 11; capture std from {1} by row.n as two",
    "capture mean(argmax(x) == position) as at, mean(x * length) as long from {1}",
    "capture mean, std from {0}, {1} pool layer",
    "capture mean from {1} where row.n > 100",
]  # fmt: skip
SITES = {"gpt2": ("h[0:3].mlp", "h[1].attn"), "llama": ("layers[0:2].mlp", "layers[1].self_attn")}


def keep(store: Path, model: nn.Module, tokenizer: Any, sites: str, **options: Any) -> Any:
    """A run that keeps the values of sites."""
    given = {"data": DATA, **options}
    return run(store, model, tokenizer, query=f"capture values from {sites}", **given)


def check_equal(ours: xarray.DataTree, theirs: xarray.DataTree) -> None:
    """Counts exactly, numbers to 1e-5 of what they are spread over, all else the same."""
    assert [n.path for n in theirs.subtree] == [n.path for n in ours.subtree]
    for node in theirs.subtree:
        there = ours[node.path].to_dataset()
        here = node.to_dataset()
        assert list(here.variables) == list(there.variables)
        for name, values in here.variables.items():
            mine, other = values.values, there[name].values
            assert mine.shape == other.shape
            if mine.dtype.kind == "f":
                finite = mine[np.isfinite(mine)]
                near = 1e-5 * max(float(finite.std()) if len(finite) else 0.0, 1e-3)
                np.testing.assert_allclose(other, mine, rtol=2e-6, atol=near)
            else:
                np.testing.assert_array_equal(mine, other)


@pytest.fixture(scope="module", params=["gpt2", "llama"])
def kept(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Any:
    """A small model with the values of its sites kept: (store, model, tokenizer, sites)."""
    model, tokenizer, _ = tiny(request.param)
    store, sites = tmp_path_factory.mktemp("store"), SITES[request.param]
    keep(store, model, tokenizer, ", ".join(sites))
    return store, model, tokenizer, sites


@pytest.mark.parametrize("query", QUERIES)
@pytest.mark.filterwarnings("ignore::hookql.HookQLWarning")
def test_statistics_come_from_kept_values(query: str, kept: Any) -> None:
    """Every kind of query: the numbers of a run, no module called, and the result says so."""
    store, model, tokenizer, sites = kept
    asked = query.format(*sites, limit=0.6 if "h[" in sites[0] else 0.08)
    with forwards() as calls:
        ours = run(store, model, tokenizer, query=asked, data=DATA)
    assert [] == calls
    assert ours.attrs["from_store"].startswith(COMPUTED)
    assert (0, 0, 0.0) == tuple(
        ours.attrs[name] for name in ("tokens_run", "batches", "forward_share")
    )
    theirs = hookql.run(asked, model=model, tokenizer=tokenizer, data=DATA)
    assert "from_store" not in theirs.attrs
    check_equal(ours, theirs)


def test_the_oracle_agrees(tmp_path: Path) -> None:
    """Float64 sums over the kept file itself: mean, std and count to 1e-5 of each std."""
    model, tokenizer, _ = tiny("gpt2")
    raw = keep(tmp_path, model, tokenizer, "h[0:3].mlp")
    ours = run(
        tmp_path, model, tokenizer, query="capture mean, std from h[0:3].mlp where position > 1",
        data=DATA,
    )  # fmt: skip
    assert ours.attrs["from_store"].startswith(COMPUTED)
    chosen = raw["position"].values > 1
    values = raw["values"].values[:, chosen].astype(np.float64)
    spread = values.std(axis=1)
    assert (ours["count"].values == chosen.sum()).all()
    assert (np.abs(ours["mean"].values - values.mean(axis=1)) < 1e-5 * spread).all()
    assert (np.abs(ours["std"].values - spread) < 1e-5 * spread).all()


def test_batches_of_few_tokens_give_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """However many batches the kept rows come in, the numbers are those of one."""
    model, tokenizer, _ = tiny("gpt2")
    keep(tmp_path, model, tokenizer, "h[0:3].mlp")
    monkeypatch.setattr(derived, "_BYTES", 1)
    query = "capture mean, std, top(x, 3) from h[0:3].mlp by sample"
    with pytest.MonkeyPatch.context() as small:
        small.setattr(derived, "_TOKENS", 1)
        ours = run(tmp_path, model, tokenizer, query=query, data=DATA)
    assert ours.attrs["from_store"].startswith(COMPUTED)
    assert 64 == ours.attrs["tokens_per_batch"]
    check_equal(ours, hookql.run(query, model=model, tokenizer=tokenizer, data=DATA))


@pytest.mark.parametrize("overflow", ["split", "pack"])
def test_texts_in_several_chunks(overflow: str, tmp_path: Path) -> None:
    """Texts longer than a context, and contexts of several texts."""
    model, tokenizer, _ = tiny("gpt2")
    given: dict[str, Any] = {"max_length": 8, "overflow": overflow}
    with pytest.warns(hookql.HookQLWarning) if overflow == "split" else _nothing():
        keep(tmp_path, model, tokenizer, "h[0].mlp", **given)
        query = "capture mean, std, top(x, 3) from h[0].mlp where position > 0 by chunk"
        ours = run(tmp_path, model, tokenizer, query=query, data=DATA, **given)
        theirs = hookql.run(query, model=model, tokenizer=tokenizer, data=DATA, **given)
    assert ours.attrs["from_store"].startswith(COMPUTED)
    check_equal(ours, theirs)


def _nothing() -> Any:
    import contextlib

    return contextlib.nullcontext()


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float64])
def test_other_dtypes(dtype: torch.dtype, tmp_path: Path) -> None:
    """Rows are reduced in the dtype that the model gave them: expressions round as in a run."""
    model, tokenizer, _ = tiny("gpt2")
    model.to(dtype)
    keep(tmp_path, model, tokenizer, "h[0:2].mlp")
    query = "capture mean(x * x), std, max(x + x) from h[0:2].mlp where position > 0"
    ours = run(tmp_path, model, tokenizer, query=query, data=DATA)
    assert ours.attrs["from_store"].startswith(COMPUTED)
    check_equal(ours, hookql.run(query, model=model, tokenizer=tokenizer, data=DATA))


@pytest.mark.parametrize("number", [float("nan"), float("inf")])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.filterwarnings("ignore::hookql.HookQLWarning")
def test_what_is_not_finite_stays_so(number: float, dtype: torch.dtype, tmp_path: Path) -> None:
    """NaN and infinite values are counted, and found where they stand, as in a run."""
    model, tokenizer, _ = tiny("gpt2")
    model.to(dtype)
    with torch.no_grad():
        model.transformer.wpe.weight[5] = number  # type: ignore[union-attr,operator]
    keep(tmp_path, model, tokenizer, "h[0:2]")
    query = "capture mean, max, top(x, 2) from h[0:2]"
    ours = run(tmp_path, model, tokenizer, query=query, data=DATA)
    assert ours.attrs["from_store"].startswith(COMPUTED)
    theirs = hookql.run(query, model=model, tokenizer=tokenizer, data=DATA)
    assert (theirs["nonfinite"] > 0).all()
    check_equal(ours, theirs)


def test_rounded_values_are_not_enough(tmp_path: Path) -> None:
    """Values of float64 that were stored as float32 are no longer what the model gave."""
    model, tokenizer, _ = tiny("gpt2")
    keep(tmp_path, model.double(), tokenizer, "h[0].mlp", store_dtype="float32")
    assert not from_store(
        run(tmp_path, model, tokenizer, query="capture mean from h[0].mlp", data=DATA)
    )


@pytest.mark.parametrize(
    ("where", "asked", "served"),
    [
        ("position > 1", "position > 1", True),
        ("position > 1", "1 < position", False),
        ("position > 1", 'position > 1 and token != "e"', True),
        ('position > 1 and token != "e"', 'token != "e" and position > 1', True),
        ("position > 1", "position > 2", False),
        ("position > 1", None, False),
        ("position > 1", "position > 1 and norm(x) > 0.6", False),
        ("norm(x) > 0.6", "norm(x) > 0.6", False),
        ("surprisal > 1", "surprisal > 1", False),
        (None, "surprisal > 1", False),
    ],
)  # fmt: skip
def test_rows_kept_under_a_condition(
    where: str | None, asked: str | None, served: bool, tmp_path: Path
) -> None:
    """They serve what asks for the very same, and more; not what may need others."""
    model, tokenizer, _ = tiny("gpt2")
    keep(tmp_path, model, tokenizer, "h[0:2].mlp" + (f" where {where}" if where else ""))
    query = "capture mean, std from h[1].mlp" + (f" where {asked}" if asked else "")
    ours = run(tmp_path, model, tokenizer, query=query, data=DATA)
    assert served == from_store(ours)
    check_equal(ours, hookql.run(query, model=model, tokenizer=tokenizer, data=DATA))


@pytest.mark.parametrize(
    ("sites", "query", "served"),
    [
        ("h[0].mlp", "capture mean from h[1].mlp", False),
        ("h[0].mlp", "capture mean from h[0:2].mlp", False),
        ("h[0].mlp", "capture mean from h[0].mlp:input", False),
        ("h[0].mlp:input", "capture mean from h[0].mlp:input", True),
        ("h[0].mlp", "capture mean(norm(x - input)) from h[0].mlp", False),
        ("h[0].mlp, h[0].mlp:input", "capture mean(norm(x - input)) from h[0].mlp", True),
        ("h[0].mlp", "capture mean(surprisal) from h[0].mlp", False),
        ("h[0].mlp", "capture mean from h[0].mlp by next", True),
        ("@resid_post[0]", "capture mean(entropy(softmax(lens(x)))) from @resid_post[0]", False),
        ("@resid_post[0]", "capture mean from h[0]", True),
        ("@q[0:2]", "capture std, mean(norm(x)) from @q[1]", True),
        ("@q[0:2]", "capture std from @k[1]", False),
        ("@q[0:2]", "capture std from h[1].attn.c_attn", False),
        ("h[0:2].attn.c_attn", "capture std, top(norm(x), 2) from @q[1], @v[0]", True),
        ("h[0:3].mlp", "capture mean, values from h[1].mlp where position > 0", True),
        ("h[0:3].mlp", "capture values(norm(x)) as n from h[0:2].mlp", True),
        ("@q[0:2]", "capture values from @q[1] where position > 0", True),
        ("h[0].mlp", "capture mean from h[0].mlp during generate(max_new_tokens=2)", False),
    ],
)  # fmt: skip
@pytest.mark.filterwarnings("ignore::hookql.HookQLWarning")
def test_which_sites_serve(sites: str, query: str, served: bool, tmp_path: Path) -> None:
    """Only what was kept of the very tensor, or a piece of it; whatever else is asked runs."""
    model, tokenizer, _ = tiny("gpt2")
    data = [each for each in DATA if each["text"]]
    keep(tmp_path, model, tokenizer, sites, data=data)
    ours = run(tmp_path, model, tokenizer, query=query, data=data)
    assert served == from_store(ours)
    check_equal(ours, hookql.run(query, model=model, tokenizer=tokenizer, data=data))


def test_values_of_several_answers_serve_together(tmp_path: Path) -> None:
    """One query from values that were kept by two; what was computed is kept as an answer."""
    model, tokenizer, _ = tiny("gpt2")
    keep(tmp_path, model, tokenizer, "h[0].mlp")
    keep(tmp_path, model, tokenizer, "h[1].mlp", compress="zstd")
    query = "capture mean, std from h[0:2].mlp"
    ours = run(tmp_path, model, tokenizer, query=query, data=DATA)
    assert ours.attrs["from_store"].startswith(COMPUTED)
    check_equal(ours, hookql.run(query, model=model, tokenizer=tokenizer, data=DATA))
    again = run(tmp_path, model, tokenizer, query=query, data=DATA)
    assert again.attrs["from_store"].startswith("answered without running the model; kept 20")


def weight_data(model: Any, tokenizer: Any) -> None:
    """An edit that torch does not count."""
    model.transformer.h[0].attn.c_attn.weight.data[3, 3] += 1e-6


def later_weight(model: Any, tokenizer: Any) -> None:
    """An edit of a layer behind the site: another model all the same."""
    model.transformer.h[3].mlp.c_fc.weight.data.mul_(2)


def one_dtype(model: Any, tokenizer: Any) -> None:
    """One weight in another dtype, its name and place the same."""
    model.transformer.wpe.to(torch.float64)


def epsilon(model: Any, tokenizer: Any) -> None:
    """An attribute of a module."""
    model.transformer.h[0].ln_1.eps = 0.1


def hooked(model: Any, tokenizer: Any) -> None:
    """A hook of the user's."""
    model.transformer.h[0].register_forward_hook(lambda *given: None)


def replaced(model: Any, tokenizer: Any) -> None:
    """A module in the place of another."""
    model.transformer.h[0].ln_2 = nn.Identity()


def padding_side(model: Any, tokenizer: Any) -> None:
    """A setting of the tokenizer's."""
    tokenizer.padding_side = "left"


def token_added(model: Any, tokenizer: Any) -> None:
    """A tokenizer with one more token."""
    tokenizer.add_tokens(["zz"])


def nothing(model: Any, tokenizer: Any) -> None:
    """No change."""


@pytest.mark.parametrize(
    ("change", "more", "served"),
    [
        (nothing, {}, True),
        *((change, {}, False) for change in (weight_data, later_weight, one_dtype, epsilon, hooked,
                                             replaced, padding_side, token_added)),
        (nothing, {"data": DATA[1:]}, False),
        (nothing, {"data": [{**DATA[0], "n": 7}, *DATA[1:]]}, False),
        (nothing, {"data": DATA[::-1]}, False),
        (nothing, {"max_length": 8}, False),
        (nothing, {"limit": 2}, False),
        (nothing, {"optimize": "none"}, False),
        (nothing, {"on_error": "skip"}, False),
        (nothing, {"compress": "zlib", "group_memory": 100, "store_dtype": "float64"}, True),
    ],
)  # fmt: skip
@pytest.mark.filterwarnings("ignore::hookql.HookQLWarning")
def test_values_of_anything_else_never_serve(
    change: Callable[[Any, Any], None], more: dict[str, Any], served: bool, tmp_path: Path
) -> None:
    """A change of model, tokenizer, data or options: the model runs, and gives its own numbers."""
    model, tokenizer, _ = tiny("gpt2")
    keep(tmp_path, model, tokenizer, "h[*].mlp")
    change(model, tokenizer)
    given: dict[str, Any] = {"query": "capture mean from h[1].mlp", "data": DATA, **more}
    found: list[Any] = []
    try:
        called = ran(lambda: found.append(run(tmp_path, model, tokenizer, **given)))
    except hookql.HookQLError:  # what was changed does not even run: then nothing was served
        assert not served
        return
    assert (served, not served) == (from_store(found[0]), called)


def _entry(store: Path) -> Path:
    """The entry that has values."""
    (pointer,) = store.glob("values/*/*")
    return store / pointer.name[:2] / pointer.name


@pytest.mark.parametrize("name", ["manifest.json", "group0.nc"])
@pytest.mark.parametrize("harm", [cut, flip, Path.unlink], ids=["cut", "flip", "removed"])
def test_damaged_values_run_the_model(
    name: str, harm: Callable[[Path], None], tmp_path: Path
) -> None:
    """Values that are not whole serve nobody, which is said; the answer is then kept itself."""
    model, tokenizer, _ = tiny("gpt2")
    keep(tmp_path, model, tokenizer, "h[*].mlp")
    harm(_entry(tmp_path) / name)
    given: dict[str, Any] = {"query": "capture mean from h[1].mlp", "data": DATA}
    with pytest.warns(hookql.HookQLWarning, match="damaged-store"):
        assert not from_store(run(tmp_path, model, tokenizer, **given))
    assert from_store(run(tmp_path, model, tokenizer, **given))


def test_values_that_were_removed_are_none(tmp_path: Path) -> None:
    """A user may delete what he likes: no warning, the model runs."""
    import shutil

    model, tokenizer, _ = tiny("gpt2")
    keep(tmp_path, model, tokenizer, "h[*].mlp")
    shutil.rmtree(_entry(tmp_path))
    given: dict[str, Any] = {"query": "capture mean from h[1].mlp", "data": DATA}
    assert not from_store(run(tmp_path, model, tokenizer, **given))


def test_values_under_another_name_are_none(tmp_path: Path) -> None:
    """A pointer to an answer of other data is found out by that answer's own facts."""
    model, tokenizer, _ = tiny("gpt2")
    keep(tmp_path, model, tokenizer, "h[*].mlp")
    keep(tmp_path, model, tokenizer, "h[*].mlp", data=DATA[1:])
    one, other = tmp_path.glob("values/*/*")
    (one.parent / other.name).touch()
    (other.parent / one.name).touch()
    one.unlink()
    other.unlink()
    given: dict[str, Any] = {"query": "capture mean from h[1].mlp", "data": DATA}
    with pytest.warns(hookql.HookQLWarning, match="the answer to something else"):
        assert not from_store(run(tmp_path, model, tokenizer, **given))


def test_rows_found_out_while_they_are_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Files that go bad under a run: it begins again, with the model, and says so."""
    model, tokenizer, _ = tiny("gpt2")
    keep(tmp_path, model, tokenizer, "h[*].mlp")

    def bad(*given: object) -> None:
        raise NotAsKept("it cannot be read: HDF error")

    monkeypatch.setattr(rows.Rows, "__call__", bad)
    query = "capture mean from h[1].mlp by sample"
    with pytest.warns(hookql.HookQLWarning, match="stored values are damaged"):
        ours = run(tmp_path, model, tokenizer, query=query, data=DATA)
    assert not from_store(ours)
    check_equal(ours, hookql.run(query, model=model, tokenizer=tokenizer, data=DATA))


@pytest.fixture
def small_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    """Small models are loaded in part too."""
    monkeypatch.setattr(weights, "SMALL", -1)


@pytest.mark.usefixtures("small_parts")
@pytest.mark.parametrize("first", ["part", "whole"])
def test_models_loaded_in_part_share_values(first: str, tmp_path: Path) -> None:
    """A query on fewer layers reads fewer weights: those it has are equal, and the values serve."""
    model, tokenizer, _ = tiny("llama")
    folder = tmp_path / "model"
    model.save_pretrained(folder)  # type: ignore[operator]
    tokenizer.save_pretrained(folder)
    whole: Any = load_model(str(folder))
    assert whole.part is None
    store, query = tmp_path / "store", "capture mean from layers[0].mlp"
    keep(store, str(folder) if first == "part" else whole, None, "layers[0:2].mlp")  # type: ignore[arg-type]
    for number, given in enumerate((str(folder), whole)):
        asked = query.replace("mean", f"mean, quantile(x, 0.{number + 1})")
        ours = run(store, given, None, query=asked, data=DATA)
        assert ours.attrs["from_store"].startswith(COMPUTED)
    check_equal(ours, hookql.run(asked, model=whole, data=DATA))
    with torch.no_grad():
        model.model.layers[0].mlp.up_proj.weight[1, 1] += 1  # type: ignore[union-attr,index]
    model.save_pretrained(folder)  # type: ignore[operator]
    for given in (str(folder), load_model(str(folder))):
        assert not from_store(run(store, given, None, query=query, data=DATA))
        query = query.replace("mean", "std")


def test_explain_says_that_values_serve(tmp_path: Path, golden: Golden) -> None:
    """The store's line of the plan, of values that serve and of values that are damaged."""
    model, tokenizer, _ = tiny("gpt2")
    given: dict[str, Any] = {"model": model, "tokenizer": tokenizer, "data": DATA}
    keep(tmp_path, model, tokenizer, "h[*].mlp")

    def line(query: str) -> str:
        return hookql.explain(query, **given, store=tmp_path).splitlines()[-1]

    said = [line("capture mean from h[1].mlp").rpartition(" ")[0]]
    said.append(line("capture mean from h[1].attn"))
    flip(_entry(tmp_path) / "group0.nc")
    said.append(line("capture mean from h[1].mlp"))
    with pytest.warns(hookql.HookQLWarning) as found:
        run(tmp_path, model, tokenizer, query="capture mean from h[1].mlp", data=DATA)
    entry = _entry(tmp_path)
    (text,) = (str(each.message) for each in found if "damaged" in str(each.message))
    text = text.replace(str(entry), "FOLDER/store/AB/ADDRESS")
    golden("stored/values.txt", "\n".join([*said, text]) + "\n")


@pytest.mark.real_weights
@pytest.mark.xdist_group("smollm2")
def test_a_real_model(smollm2: Model, tmp_path: Path) -> None:
    """SmolLM2: the statistics of two layers from their values, and of an edited model not."""
    given: dict[str, Any] = {"model": smollm2, "texts": ["The capital of France is Paris.", "No."]}
    run(tmp_path, query="capture values from model.layers[0:2]", **given)
    query = "capture mean, std, top(x, 2) from model.layers[0:2] where position > 0"
    ours = run(tmp_path, query=query, **given)
    assert ours.attrs["from_store"].startswith(COMPUTED)
    check_equal(ours, hookql.run(query, **given))
    weight = smollm2.module.model.layers[0].self_attn.q_proj.weight
    before = weight.data[5, 7].clone()
    weight.data[5, 7] += 1e-3
    try:
        assert not from_store(run(tmp_path, query=query.replace("std", "var"), **given))
    finally:
        weight.data[5, 7] = before
