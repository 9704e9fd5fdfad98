"""What is said of pieces that are wrong: whose they are, what is wrong, where."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from importlib.metadata import EntryPoint
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

import hookql
from hookql.extending import column, function, sites
from hookql.language import pieces, plugins
from hookql.models.canonical import anatomy
from hookql.statistics import statistic
from tests.extending.made import Spread, pieces_as_before, squash
from tests.extending.test_sites import Home
from tests.extending.test_sites import tell as tell_home
from tests.tiny import character_tokenizer, tiny
from tests.told import Case, told

Golden = Callable[[str, str], None]


def run(query: str) -> object:
    """Run a query on a small GPT-2, with three contexts."""
    texts = ["abcabd abca", "xyz", "hello there"]
    return hookql.run(query, model=tiny("gpt2")[0], tokenizer=character_tokenizer(), texts=texts)


def check(golden: Golden, name: str, cases: Mapping[str, Callable[[], object]], at: Path) -> None:
    """Compare what each case is told, each as of a package `hookql-odd`."""

    def case(inner: Callable[[], object]) -> Case:
        def offered(patch: pytest.MonkeyPatch) -> object:
            with pieces_as_before():
                patch.setattr(pieces.LOADING, "package", "hookql-odd")
                return inner()

        return offered

    text = told({title: case(inner) for title, inner in cases.items()}, at)
    golden(f"extending/{name}.txt", re.sub(r"line \d+ of", "line N of", text))


class Plain:
    """Counts rows."""

    def __init__(self) -> None:
        self.n: Any = None

    def update(self, rows: torch.Tensor) -> None:
        """Take in rows."""
        self.n = torch.full(rows.shape[1:], float(len(rows)))

    def merge(self, other: Any) -> None:
        """Take in another's."""
        self.n += other.n

    def result(self) -> Any:
        """How many."""
        return self.n


def class_with(**methods: Any) -> type:
    """`Plain` with other methods."""
    return type("Odd", (Plain,), {**methods, "__module__": __name__})


def statistic_with(query: str = "capture odd_one(x) from h[0]", **methods: Any) -> object:
    """Offer a statistic with such methods and run a query of it."""
    statistic("odd_one")(class_with(**methods))
    return run(query)


def test_what_cannot_be_offered(golden: Golden, tmp_path: Path) -> None:
    """Errors where a piece is offered: it lacks something, or its name cannot be had."""

    def two_packages() -> None:
        statistic("drift")(Spread)
        pieces.LOADING.package = "hookql-other"
        function("drift")(squash)

    def twice() -> None:
        sites("One", model="home", blocks="layers", sites={})
        pieces.LOADING.package = "hookql-other"
        vars_ = {"sites": sites, "__name__": "elsewhere"}
        exec("sites('Two', model='home', blocks='layers', sites={})", vars_)

    def of_ours() -> object:
        sites("Mine", model="gpt2", blocks="h", sites={})
        return anatomy(tiny("gpt2")[0])

    class NoMerge:
        update = result = Plain.update

    class Texts(Plain):
        def __init__(self, mode: str = "fast") -> None:
            super().__init__()

    cases: dict[str, Callable[[], object]] = {
        "no merge": lambda: statistic("odd_one")(NoMerge),
        "no class": lambda: statistic("odd_one")(squash),
        "a parameter that no query can write": lambda: statistic("odd_one")(Texts),
        "a name that is no word": lambda: statistic("odd-one")(Spread),
        "a keyword": lambda: statistic("where")(Spread),
        "a column of ours": lambda: statistic("position")(Spread),
        "a statistic of ours": lambda: column("mean")(squash),
        "a function of ours": lambda: function("norm")(squash),
        "a dimension of ours": lambda: column("layer")(squash),
        "two packages": two_packages,
        "a kind that is none": lambda: column("odd_one", "text")(squash),
        "axes that are none": lambda: function("odd_one", axes="first")(squash),
        "a number for a name": lambda: statistic(3),  # type: ignore[arg-type]
        "nothing for a name": lambda: column(None),  # type: ignore[arg-type]
        "no call": lambda: statistic(Spread),  # type: ignore[arg-type]
        "parameters that nobody knows": lambda: function("odd_one")(torch.abs),
        "no value": lambda: function("odd_one")(lambda k=3: k),
        "a site that is none": lambda: sites(
            "Mine", model="mine", blocks="layers", sites={"mlp_act": "a", "atn": "b"}
        ),
        "a site that needs no name": lambda: sites(
            "Mine", model="mine", blocks="layers", sites={"resid_post": "a"}
        ),
        "a port that is none": lambda: sites(
            "Mine", model="mine", blocks="layers", sites={"attn": "a:out"}
        ),
        "two tables for one model": twice,
        "a table for a model of ours": of_ours,
    }
    check(golden, "offers", cases, tmp_path)


def test_statistics_that_go_wrong(golden: Golden, tmp_path: Path) -> None:
    """Errors of an accumulator while it runs."""

    def raises(self: Any, rows: torch.Tensor) -> None:
        raise IndexError("no such bin")

    def no_init(self: Any) -> None:
        raise RuntimeError("no table of words")

    def keeps_a_file(self: Any, rows: torch.Tensor) -> None:
        Plain.update(self, rows)
        self.file = (tmp_path / "rows").open("w")

    cases: dict[str, Callable[[], object]] = {
        "update raises": lambda: statistic_with(update=raises),
        "a class that cannot be made": lambda: statistic_with(__init__=no_init),
        "update writes": lambda: statistic_with(update=lambda self, rows: rows.clamp_(min=0)),
        "result is of another shape": lambda: statistic_with(result=lambda self: self.n.sum()),
        "result is of another dtype": lambda: statistic_with(result=lambda self: self.n > 0),
        "result is nothing": lambda: statistic_with(result=lambda self: None),
        "merge raises": lambda: statistic_with(
            "capture odd_one(x) from h[*] pool layer", merge=lambda self, other: self.n + "1"
        ),
        "no pool": lambda: statistic_with("capture odd_one(x) from h[*] pool feature"),
        "pool gives another thing": lambda: statistic_with(
            "capture odd_one(x) from h[*] pool feature", pool=lambda self, axis: self.n.sum(axis)
        ),
        "nbytes raises": lambda: statistic_with(
            "capture odd_one(x) from h[0] by position", nbytes=property(no_init)
        ),
        "a state that cannot be copied": lambda: statistic_with(
            "capture odd_one(x) from h[*] pool layer", update=keeps_a_file
        ),
        "a parameter that it refuses": lambda: run("capture gini(x, bins=0) from h[0]"),
        "a parameter that is no whole number": lambda: run("capture gini(x, bins=2.5) from h[0]"),
    }
    check(golden, "statistics", cases, tmp_path)


def test_columns_that_go_wrong(golden: Golden, tmp_path: Path) -> None:
    """Errors of a column while it runs."""

    def case(kind: str, read: Callable[[Any], Any]) -> Callable[[], object]:
        query = "capture count from h[0] where odd_one == 3"
        truth = "capture count from h[0] where odd_one"
        return lambda: [column("odd_one", kind)(read), run(truth if kind == "truth" else query)]

    def raises(batch: Any) -> None:
        raise KeyError("no such row")

    def writes(batch: Any) -> Any:
        batch.ids[:] = 0
        return batch.ids

    def writes_a_context(batch: Any) -> Any:
        batch.contexts[0].ids[:] = 0
        return batch.ids

    cases: dict[str, Callable[[], object]] = {
        "it raises": case("number", raises),
        "of another shape": case("number", lambda batch: batch.ids[:, :-1]),
        "numbers for truths": case("truth", lambda batch: batch.ids),
        "floats for ids": case("id", lambda batch: batch.ids / 2),
        "it writes": case("number", writes),
        "it writes into a context": case("number", writes_a_context),
        "rows of several lengths": case("number", lambda batch: [[1], [1, 2]]),
        "bfloat16": case("number", lambda batch: torch.zeros(batch.ids.shape).bfloat16()),
        "texts": case("number", lambda batch: np.full(batch.ids.shape, "a")),
        "defined by numbers": case("number", lambda batch: (batch.ids, batch.ids)),
    }
    check(golden, "columns", cases, tmp_path)


def test_functions_that_go_wrong(golden: Golden, tmp_path: Path) -> None:
    """Errors of a function while it runs."""

    def case(compute: Callable[..., Any], axes: str = "each") -> Callable[[], object]:
        query = "capture mean(odd_one(x)) as m from h[0]"
        return lambda: [function("odd_one", axes=axes)(compute), run(query)]

    def raises(x: torch.Tensor) -> torch.Tensor:
        raise ValueError("no such thing")

    def whole(x: torch.Tensor, k: int = 3) -> torch.Tensor:
        return x * k

    def of_half() -> object:
        function("odd_one")(whole)
        return run("capture mean(odd_one(x, k=2.5)) as m from h[0]")

    cases: dict[str, Callable[[], object]] = {
        "it raises": case(raises),
        "of another shape": case(lambda x: x.sum(-1)),
        "the axis is not taken away": case(lambda x: x, axes="last"),
        "rows are mixed": case(lambda x: x - x.mean(0)),
        "rows are summed": case(lambda x: x.cumsum(0)),
        "the row before is looked at": case(lambda x: torch.cat([x[:1], x[:-1]])),
        "rows are counted": case(lambda x: x + torch.arange(len(x))[:, None]),
        "numbers are mixed": case(lambda x: x - x.mean(-1, keepdim=True)),
        "it writes": case(lambda x: x.mul_(2)),
        "no tensor": case(lambda x: x.sum().item()),
        "complex numbers": case(lambda x: x * 1j),
        "a literal that is no whole number": of_half,
    }
    check(golden, "functions", cases, tmp_path)


def test_tables_and_packages_that_go_wrong(golden: Golden, tmp_path: Path) -> None:
    """Tables that do not fit their model, and packages that cannot be read."""

    def home(query: str, **more: Any) -> object:
        tell_home(**more)
        return hookql.run(query, model=Home().eval(), tokenizer=character_tokenizer(), texts=["a"])

    def broken(group: str) -> object:
        with pytest.MonkeyPatch.context() as patch:
            Path("hookql_lost_here.py").write_text("raise SystemExit('no GPU')")
            patch.syspath_prepend(Path.cwd())
            entry = EntryPoint("extra", "hookql_lost_here", group)
            vars(entry).update(dist=SimpleNamespace(name="hookql-lost"))
            patch.setattr(
                plugins, "entry_points", lambda group: {entry.group: [entry]}.get(group, [])
            )
            patch.setattr(pieces.LOADING, "done", set())
            return home("capture mean from @mlp[0]")

    cases: dict[str, Callable[[], object]] = {
        "no list of blocks": lambda: home("capture mean from @mlp[0]", blocks="blocks"),
        "no heads": lambda: home("capture mean from @z[0]", heads=None),
        "a module that is not there": lambda: home(
            "capture mean from @mlp[0]", sites={"mlp": "thing"}
        ),
        "no head of words": lambda: home("capture mean from @logits", unembed=None),
        "a broken package of columns": lambda: broken("hookql.columns"),
        "a broken package of families": lambda: broken("hookql.families"),
    }
    check(golden, "tables", cases, tmp_path)
