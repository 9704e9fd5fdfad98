"""Statistics by hand in queries: as right, as mergeable and as durable as HookQL's own."""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import hookql
from hookql.checkpoint.state import dump
from hookql.errors import QueryError
from hookql.statistics import STATISTICS, accumulators, statistic
from hookql.statistics.groups import Groups
from hookql.statistics.offered import Offered
from tests.crash.kill import content
from tests.extending.made import Spread
from tests.running.test_long_runs import crashed
from tests.running.test_long_runs import run as long_run
from tests.tiny import tiny

TEXTS = [f"{n} quick brown foxes" + " jump" * (n % 5) for n in range(24)]


def run(query: str, **options: Any) -> Any:
    """Run a query on a small GPT-2."""
    model, tokenizer, _ = tiny("gpt2")
    given = {"model": model, "tokenizer": tokenizer, "texts": TEXTS, **options}
    return hookql.run(query, **given)


def rows(site: str, **options: Any) -> Any:
    """The raw rows of a site."""
    return run(f"capture values from {site}", **options)["values"].values[0].astype(np.float64)


def gini(x: np.ndarray, bins: int = 64, top: float = 1) -> np.ndarray:
    """The coefficient by its definition, of numbers put into the middles of bins."""
    middles = (np.clip((x / top * bins).astype(int), 0, bins - 1) + 0.5) * top / bins
    apart = np.abs(middles[:, None] - middles[None]).mean((0, 1))
    return np.asarray(apart / (2 * middles.mean(0)))


def test_a_class_of_a_few_lines_is_a_statistic() -> None:
    """`capture gini(abs(x))` equals the definition on the raw rows."""
    found = run("capture gini(abs(x)) from h[1]")["gini_abs_x"].values[0]
    np.testing.assert_allclose(gini(np.abs(rows("h[1]"))), found, atol=1e-12)


def test_parameters_are_those_of_init() -> None:
    """By name, by place and by default; each set has an accumulator of its own."""
    result = run("capture gini(abs(x), bins=5), gini(abs(x), 5, 0.5) as by_place from h[1]")
    x = np.abs(rows("h[1]"))
    np.testing.assert_allclose(gini(x, 5), result["gini_abs_x_bins_5"].values[0], atol=1e-12)
    np.testing.assert_allclose(gini(x, 5, 0.5), result["by_place"].values[0], atol=1e-12)


def test_results_do_not_depend_on_batches() -> None:
    """Whatever is in a batch, what is read off is the same."""
    query = "capture spread, gini(abs(x)) from h[*]"
    whole, split = run(query), run(query, batch_size=1)
    assert np.array_equal(whole["gini_abs_x"], split["gini_abs_x"])
    np.testing.assert_allclose(whole["spread"], split["spread"], rtol=1e-4)


@pytest.mark.parametrize("pool", ["feature", "layer", "layer, feature"])
def test_pooling_takes_axes_together(pool: str) -> None:
    """A class with `pool` pools features; layers are merged."""
    result = run(f"capture spread, max, min from h[*] pool {pool}")
    expected = result["max"] - result["min"]
    np.testing.assert_allclose(expected.values, result["spread"].values, rtol=1e-12)


def test_layers_are_merged_without_pool() -> None:
    """A class without `pool` can still be merged over layers."""
    found = run("capture gini(abs(x)) from h[0:2] pool layer")["gini_abs_x"].values
    both = np.concatenate([rows("h[0]"), rows("h[1]")])
    np.testing.assert_allclose(gini(np.abs(both)), found, atol=1e-12)


def test_groups_are_kept_apart() -> None:
    """`by position` and `by sample` equal the definition on those rows alone."""
    values = run("capture values from h[1]")
    result = run("capture gini(abs(x)) from h[1] by position")
    at = values["position"].values
    for position in (0, 3, 11):
        x = np.abs(values["values"].values[0][at == position].astype(np.float64))
        found = result["gini_abs_x"].sel(position=position).values[0]
        np.testing.assert_allclose(gini(x), found, atol=1e-12)
    samples = run("capture spread, max, min from h[1] by sample")
    expected = samples["max"] - samples["min"]
    np.testing.assert_allclose(expected.values, samples["spread"].values, rtol=1e-12)


def test_nothing_seen_is_nan() -> None:
    """A statistic of no rows has its axes and no numbers, though its class never ran."""
    with pytest.warns(hookql.HookQLWarning):
        result = run("capture gini(abs(x)), max from h[1] where position > 1000")
    assert result["max"].shape == result["gini_abs_x"].shape
    assert np.isnan(result["gini_abs_x"].values).all()


def test_it_is_saved_and_loaded(tmp_path: Path) -> None:
    """The file has the numbers, and says what they are."""
    result = run("capture gini(abs(x)) from h[1]", output=tmp_path / "a.nc")
    loaded = hookql.load(tmp_path / "a.nc")
    assert np.array_equal(result["gini_abs_x"], loaded["gini_abs_x"])
    assert "gini" in loaded["gini_abs_x"].attrs["cell_methods"]


def test_a_checkpoint_holds_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A run that breaks off and is resumed gives the same file, bit for bit, groups included."""
    query = "capture gini(abs(x)) from h[*] as a\ncapture spread from h[1] by position as b"
    long_run(tmp_path / "alone", query)
    folder = tmp_path / "broken"
    crashed(monkeypatch, 4, folder, query, checkpoint=tmp_path / "kept")
    long_run(folder, query, checkpoint=tmp_path / "kept", resume=True)
    assert content(tmp_path / "alone" / "out.nc") == content(folder / "out.nc")


def test_memory_is_that_of_its_tensors() -> None:
    """The counts of 64 bins of 3 features, in int64."""
    (state,) = accumulators([STATISTICS["gini"]]).values()
    assert 0 == state.nbytes
    state.update(torch.ones(5, 3))
    assert 64 * 3 * 8 == state.nbytes


def test_rows_that_are_kept_or_changed_are_copies() -> None:
    """The memory of rows is used again; what a class keeps of them stays what it was."""
    first = Offered("spread", Spread, scale=1)
    block = torch.tensor([[1.0, 2.0]])
    first.update(block)
    block.fill_(100)
    assert [0.0, 0.0] == first.result().tolist()
    assert torch.float64 == first.state.low.dtype


def test_selected_groups_are_copies() -> None:
    """What is read of one group at one moment does not change with what comes later."""
    (state,) = accumulators([STATISTICS["spread"]], grouped=True).values()
    groups = Groups(np.array([0, 0, 1]), 2)
    state.update(torch.tensor([[1.0], [4.0], [9.0]]), groups)
    chosen = state.select(torch.tensor([0]))
    state.update(torch.tensor([[50.0], [1.0], [1.0]]), groups)
    assert [[3.0]] == STATISTICS["spread"].finish(chosen, scale=1).tolist()
    assert [[49.0], [8.0]] == STATISTICS["spread"].finish(state, scale=1).tolist()


def test_it_can_be_pickled() -> None:
    """An accumulator goes to another process and back."""
    state = Offered("spread", Spread, scale=2)
    state.update(torch.tensor([[1.0], [4.0]]))
    assert [6.0] == pickle.loads(pickle.dumps(state)).result().tolist()


def test_a_wrong_parameter_is_said_at_once() -> None:
    """What `__init__` refuses is an error of the query, before any model is loaded."""
    with pytest.raises(QueryError) as caught:
        hookql.check("capture gini(x, bins=0) from h[1]")
    assert "bad-parameter" == caught.value.code
    assert "there must be a bin" in caught.value.message


def test_a_name_given_anew_leaves_what_runs_alone() -> None:
    """A notebook defines a class again: states that were made before stay of the old one."""
    old, new = (type(name, (Spread,), {"__module__": "__main__"}) for name in ("Old", "New"))
    statistic("mine")(old)
    (state,) = accumulators([STATISTICS["mine"]]).values()
    statistic("mine")(new)
    state.update(torch.ones(2, 3))
    assert old is type(state.state)
    (state,) = accumulators([STATISTICS["mine"]]).values()
    state.update(torch.ones(2, 3))
    assert new is type(state.state)


@pytest.mark.parametrize("doc", [None, "", "; and more", "\n"])
def test_a_class_without_words_is_called_by_its_name(doc: str | None) -> None:
    """Its docstring says what it is; without one the name does."""
    statistic("wordless")(type("Wordless", (Spread,), {"__doc__": doc, "__module__": __name__}))
    assert "wordless" == run("capture wordless from h[0]")["wordless"].attrs["long_name"]


def test_a_class_inside_a_function_is_resumed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its module does not have it; the statistic does."""

    class Inner(Spread):
        """Spread."""

    statistic("inner")(Inner)
    query = "capture inner from h[*] as a\ncapture inner from h[1] by position as b"
    long_run(tmp_path / "alone", query)
    folder = tmp_path / "broken"
    crashed(monkeypatch, 4, folder, query, checkpoint=tmp_path / "kept")
    long_run(folder, query, checkpoint=tmp_path / "kept", resume=True)
    assert content(tmp_path / "alone" / "out.nc") == content(folder / "out.nc")


def test_a_state_of_a_class_that_nobody_finds_is_not_checkpointed(tmp_path: Path) -> None:
    """What could not be read back is refused when it is written."""

    class Part:
        """A part of the state."""

    class Whole(Spread):
        """Spread."""

        def __init__(self) -> None:
            super().__init__()
            self.part = Part()

    statistic("whole")(Whole)
    with pytest.raises(hookql.HookQLError) as caught:
        dump(tmp_path / "state", Whole())
    assert "not-resumable" == caught.value.code
    assert "Part" in caught.value.message
