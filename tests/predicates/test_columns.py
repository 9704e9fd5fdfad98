"""Token columns: what a statistic's expression, and the key of a group, read of each token."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import attrs
import numpy as np
import pytest

from hookql.data.batches import Batch, collate
from hookql.data.encode import ROLE, Context
from hookql.data.samples import Field, Sample
from hookql.errors import DataError, QueryError
from hookql.predicates.values import Values
from hookql.predicates.vocabulary import Vocabulary
from tests.data.toys import metaspace
from tests.predicates.asked import column, predicate

VOCABULARY = Vocabulary(metaspace())


def _batch(*rows: dict[str, Any], ids: tuple[int, ...] = (0, 4, 1)) -> Batch:
    """One context of those ids for each row of data, with signals."""
    batch = collate(
        [
            Context(
                np.array(ids),
                np.array([True, *[False] * (len(ids) - 1)]),
                np.zeros(len(ids), int),
                (Sample(i, "", row),),
                chunk=i,
                offset=np.full(len(ids), 10 * i),
                prompt=1,
                roles=np.array(["user", "", "assistant"], ROLE)[: len(ids)],
            )
            for i, row in enumerate(rows or ({},))
        ]
    )
    shape = batch.ids.shape
    loss = Values(
        np.broadcast_to(np.arange(shape[1]) / 2, shape),
        np.broadcast_to(np.arange(shape[1]) < shape[1] - 1, shape),
    )
    return attrs.evolve(batch, signals={"loss": loss})


READ: dict[str, tuple[str, list[Any]]] = {
    "token": ("id", [0, 4, 1]),
    "prev": ("id", [None, 0, 4]),
    "next": ("id", [4, 1, None]),
    "position": ("number", [0, 1, 2]),
    "content_position": ("number", [None, 0, 1]),
    "offset + content_position": ("number", [None, 0.0, 1.0]),
    "chunk": ("number", [0, 0, 0]),
    "length": ("number", [3, 3, 3]),
    "special": ("truth", [True, False, False]),
    "position > 0": ("truth", [False, True, True]),
    "content_position == last": ("truth", [None, False, True]),
    "content_position > 0 or special": ("truth", [True, False, True]),
    "not prev == 0": ("truth", [None, False, True]),
    'token == "Paris"': ("truth", [False, True, False]),
    "prev == none": ("truth", [True, False, False]),
    "isfinite(1 / position)": ("truth", [False, True, True]),
    "loss": ("number", [0.0, 0.5, None]),
    "exp(loss) - 1": ("number", [0.0, np.exp(0.5) - 1, None]),
    "(loss > 0.2) * 3": ("number", [0.0, 3.0, None]),
    "clip(position, 1, 1.5)": ("number", [1.0, 1.0, 1.5]),
    "row.n": ("number", [7, 7, 7]),
    "row.n * 2": ("number", [14.0, 14.0, 14.0]),
    "row.b": ("number", [1, 1, 1]),
    "row.f": ("number", [2.5, 2.5, 2.5]),
    "row.g": ("number", [0, 0, 0]),
    "row.b * position": ("number", [0.0, 1.0, 2.0]),
    "abs(-row.b)": ("number", [1.0, 1.0, 1.0]),
    "row.none": ("number", [None, None, None]),
    'row.s == "x"': ("truth", [True, True, True]),
    "phase": ("word", ["prompt", "generated", "generated"]),
    "step": ("number", [None, 0, 1]),
    "step * 2": ("number", [None, 0.0, 2.0]),
    "role": ("word", ["user", None, "assistant"]),
    'role == "user"': ("truth", [True, None, False]),
    'phase != "prompt" and step < 1': ("truth", [False, True, False]),
}


@pytest.mark.parametrize("text", READ)
def test_values(text: str) -> None:
    """Values, where they are defined, and their kind."""
    row = {"n": 7, "b": True, "f": Field("2.5"), "g": Field("false"), "s": "x"}
    compiled = column(text, VOCABULARY)
    kind, expected = READ[text]
    batch = _batch(row)
    values = compiled(batch)
    assert kind == compiled.kind
    assert (batch.ids.shape, batch.ids.shape) == (values.value.shape, values.defined.shape)
    found = zip(values.value[0].tolist(), values.defined[0].tolist(), strict=True)
    assert expected == [value if defined else None for value, defined in found]


@pytest.mark.parametrize("text", READ)
def test_none(text: str) -> None:
    """A leaf of any kind can be asked whether it is defined, as the plan's masks do."""
    row = {"n": 7, "b": True, "f": Field("2.5"), "g": Field("false"), "s": "x"}
    kept, undefined = predicate(f"({text}) != none", VOCABULARY)(_batch(row))
    assert ([value is not None for value in READ[text][1]], 0) == (kept[0].tolist(), undefined)


def test_dtypes() -> None:
    """Whole numbers stay int64, truths bool, all that is reckoned float64."""
    kinds = {"token": "int64", "position > 1": "bool", "position + 1": "float64", "row.n": "int64"}
    kinds |= {"step": "int64", "phase": "<U32", "role": "<U32"}
    found = {text: str(column(text)(_batch({"n": 1})).value.dtype) for text in kinds}
    assert kinds == found


def test_a_text_is_no_number(golden: Callable[[str, str], None]) -> None:
    """A column of texts cannot be reckoned with: the sample is named."""
    with pytest.raises(DataError) as caught:
        column("row.s")(_batch({"s": 1}, {"s": "x"}))
    golden("predicates/column-text.txt", f"{caught.value}\n")


def test_what_it_needs() -> None:
    """Signals, values and the text are told, so that the plan can bring them."""
    compiled = predicate('surprisal > 1 and (norm(x) > x[3] or within "a")', VOCABULARY)
    asked = column("loss * rank + position", VOCABULARY)
    assert (frozenset({"surprisal"}), True) == (compiled.signals, compiled.text)
    assert ["Call", "Subscript"] == [type(value).__name__ for value in compiled.values]
    inside = predicate('abs(x[3] - prob) > 1 or clip(x[3] * (within "a"), 0, 1) > 0', VOCABULARY)
    assert (frozenset({"prob"}), True) == (inside.signals, inside.text)
    assert (frozenset({"loss", "rank"}), (), False) == (asked.signals, asked.values, asked.text)


def test_values_of_a_module() -> None:
    """A module's numbers compare with numbers, columns and ids; truths come as 0 and 1."""
    texts = {
        "argmax(lens(x)) == next": [True, False, False],
        "x[3] > position": [True, False, False],
        "x[3] * 2 + 1 == 2": [True, False, False],
        "0.1 < x[3] <= 0.5": [True, True, False],
        "norm(x) > 1 or position == 0": [True, False, True],
        "isfinite(norm(x))": [True, False, False],
        "(x > 0)[3] or position == 2": [False, True, True],
        "(x > 0)[3] == special": [False, False, True],
        "not isfinite(norm(x)) and special == false": [False, True, True],
    }
    given = {
        "argmax(lens(x))": [4, 2, 3],
        "x[3]": [0.5, 0.25, np.nan],
        "norm(x)": [0, 0, 5],
        "isfinite(norm(x))": [1, 0, 0],
        "(x > 0)[3]": [0, 1, 0],
    }
    values: dict[Any, Values] = {
        leaf: Values(np.array([numbers], dtype=np.float32), np.array(True))
        for text, numbers in given.items()
        for leaf in predicate(f"({text}) * 1 == 1", None).values
    }
    batch = attrs.evolve(_batch(), values=values)
    found = {text: predicate(text, VOCABULARY)(batch)[0][0].tolist() for text in texts}
    assert texts == found


def test_float32_is_compared_as_it_is() -> None:
    """0.1 in float32 is not 0.1: what is compared is the number that the model had."""
    compiled = predicate("x[3] == 0.1 or x[3] < 0.1", None)
    value = Values(np.full((1, 3), 0.1, np.float32), np.array(True))
    kept, _ = compiled(attrs.evolve(_batch(), values={compiled.values[0]: value}))
    assert [False] * 3 == kept[0].tolist()


def test_unknown_columns(golden: Callable[[str, str], None]) -> None:
    """A key that the data does not have is an error of the query."""
    with pytest.raises(QueryError) as caught:
        column("row.lable", columns=("label", "text"))
    golden("predicates/column-unknown.txt", f"{caught.value}\n")
