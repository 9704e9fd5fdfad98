"""Groups against a reference that takes one row at a time."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from attrs import evolve
from hypothesis import given, settings
from hypothesis import strategies as st

from hookql.checkpoint.outcome import _fill_table, _of_table
from hookql.data.batches import Batch, batches, collate
from hookql.data.encode import ROLE, Context, Encoder
from hookql.data.samples import Field, Sample
from hookql.errors import DataError
from hookql.predicates.groups import GroupTable
from tests.data.toys import slow
from tests.predicates.asked import column

ROLES = np.array(["user", "assistant", "a narrator"], ROLE)
LABELS = ["x", "y", "a\x00", "1"]
KEYS = ["position", "token", "sample", "row.s", "row.n", "row.b", "chunk", "content_position"]
KEYS += ["phase", "role"]


def _contexts(data: Any) -> list[Context]:
    samples = [
        Sample(i, "ab" * length, {"s": s, "n": n, "b": b})
        for i, (length, s, n, b) in enumerate(data)
    ]
    contexts = Encoder(slow(), 5)(samples)
    return [
        evolve(c, prompt=i % 4, roles=ROLES[(np.arange(len(c.ids)) + i) % 3])
        for i, c in enumerate(contexts)
    ]


def _key(name: str, batch: Batch, row: int, at: int) -> Any:
    """The key of one token, in plain Python."""
    context = batch.contexts[row]
    sample = context.samples[context.owner[at]]
    if name.startswith("row."):
        return sample.row[name[4:]]
    return {
        "position": at,
        "content_position": at,
        "token": int(context.ids[at]),
        "sample": sample.index,
        "chunk": context.chunk,
        "phase": "generated" if at >= (context.prompt or 0) else "prompt",
        "role": str((context.roles if context.roles is not None else ROLES)[at]),
    }[name]


@settings(max_examples=150, deadline=None)
@given(
    st.lists(
        st.tuples(
            st.integers(0, 6),
            st.sampled_from(LABELS),
            st.integers(0, 2) | st.just(1.0) | st.just(0.5),
            st.booleans(),
        ),
        min_size=1,
        max_size=12,
    ),
    st.lists(st.sampled_from(KEYS), min_size=1, max_size=3, unique=True),
    st.integers(0, 2**31),
)
def test_against_reference(data: Any, names: list[str], seed: int) -> None:
    """Numbers are those of a dictionary that meets one row after the other; keys read back."""
    table = GroupTable([column(name) for name in names])
    known: dict[tuple[Any, ...], int] = {}
    generator = np.random.default_rng(seed)
    for batch in batches(_contexts(data), tokens_per_batch=20, window_tokens=40):
        kept = batch.mask & ~batch.special & (generator.random(batch.ids.shape) < 0.7)
        expected = [
            known.setdefault(tuple(_key(n, batch, row, at) for n in names), len(known))
            for row, at in np.argwhere(kept).tolist()
        ]
        index = table.index(batch, kept)
        assert (expected, np.dtype(np.int64)) == (index.tolist(), index.dtype)
        assert len(known) == table.number
    columns = list(zip(*known, strict=True)) or [()] * len(names)
    assert [list(values) for values in columns] == _keys(table)


def _keys(table: GroupTable) -> list[list[Any]]:
    columns = table.keys()
    return [keys.tolist() for keys in columns]


def _one(table: GroupTable, *rows: dict[str, Any]) -> list[int]:
    """The groups of one batch with a token for each row of data."""
    contexts = [
        Context(np.array([3]), np.zeros(1, bool), np.zeros(1, int), (Sample(i, "", r, f"f:{i}"),))
        for i, r in enumerate(rows)
    ]
    batch = collate(contexts)
    return table.index(batch, batch.mask).tolist()


TYPES: dict[str, tuple[list[Any], str, list[Any]]] = {
    "whole": ([3, np.int64(1), 3], "int64", [3, 1]),
    "numbers": ([3, 1.5, 3.0], "float64", [3.0, 1.5]),
    "truths": ([True, np.bool_(False)], "bool", [True, False]),
    "texts": (["b", "a", "b"], "object", ["b", "a"]),
    "fields": ([Field("1"), Field("01")], "object", ["1", "01"]),
    "large": ([2**62 + 1, 2**62], "int64", [2**62 + 1, 2**62]),
}


@pytest.mark.parametrize("name", TYPES)
def test_types(name: str) -> None:
    """Keys of the data have the type of the data, in order of first appearance."""
    values, dtype, expected = TYPES[name]
    table = GroupTable([column("row.k")])
    _one(table, *({"k": value} for value in values))
    (keys,) = table.keys()
    assert (dtype, expected) == (str(keys.dtype), keys.tolist())


def test_nan_is_one_key() -> None:
    """NaN equals nothing, and is still one group, over batches too."""
    table = GroupTable([column("row.k")])
    found = _one(table, {"k": float("nan")}, {"k": 1.0}, {"k": np.float64("nan")})
    assert [0, 1, 0] == found
    assert [0] == _one(table, {"k": float("nan")})


def test_select() -> None:
    """Groups that are let go of are numbered anew when they come again."""
    table = GroupTable([column("row.k"), column("sample")])
    assert [0, 1, 2] == _one(table, {"k": "x"}, {"k": "y"}, {"k": "z"})
    table.select(np.array([2, 0]))
    assert 2 == table.number
    assert [["z", "x"], [2, 0]] == _keys(table)
    assert [1, 2, 0] == _one(table, {"k": "x"}, {"k": "y"}, {"k": "z"})


def test_nothing() -> None:
    """Without a kept row there is no group."""
    table = GroupTable([column("token"), column("row.k")])
    batch = collate(_contexts([(2, "x", 1, True)]))
    index = table.index(batch, np.zeros_like(batch.mask))
    assert ([], np.dtype(np.int64), 0) == (index.tolist(), index.dtype, table.number)
    assert [[], []] == _keys(table)


def _types(table: GroupTable) -> list[str]:
    columns = table.keys()
    return [str(keys.dtype) for keys in columns]


def _of_three(prompt: int) -> Context:
    """Three tokens, each said by another."""
    samples = (Sample(0, "", {}),)
    zeros = np.zeros(3, np.int64)
    return Context(zeros, zeros > 0, zeros, samples, prompt=prompt, roles=ROLES)


def test_words_are_texts() -> None:
    """Phases and roles are keys as texts of the data are, also where no row was kept."""
    table = GroupTable([column("phase"), column("role"), column("step")])
    assert ["object", "object", "int64"] == _types(table)
    batch = collate([_of_three(1)])
    assert [0, 1] == table.index(batch, batch.mask & (batch.generated >= 0)).tolist()
    assert [["generated"] * 2, ["assistant", "a narrator"], [0, 1]] == _keys(table)
    assert ["object", "object", "int64"] == _types(table)


def test_words_go_through_a_checkpoint() -> None:
    """A table that is saved and filled again numbers words as the first one would."""
    table, fresh = (GroupTable([column("role"), column("step")]) for _ in range(2))
    batch = collate([_of_three(0), evolve(_of_three(0), roles=ROLES[::-1])])
    first = table.index(batch, batch.mask)
    _fill_table(fresh, _of_table(table))
    assert first.tolist() == fresh.index(batch, batch.mask).tolist()
    assert (_keys(table), 5) == (_keys(fresh), fresh.number)


def test_many_keys_do_not_overflow() -> None:
    """A product of many large keys stays exact."""
    names = ["token", "position", "sample", "chunk", "offset", "length", "content_position"]
    ids = np.arange(5000) + 2**40
    context = Context(ids, np.zeros(5000, bool), np.zeros(5000, int), (Sample(0, "", {}),))
    batch = collate([context])
    table = GroupTable([column(name) for name in names])
    assert list(range(5000)) == table.index(batch, batch.mask).tolist()
    assert ids.tolist() == table.keys()[0].tolist()


MIXED: dict[str, list[Any]] = {
    "text-number": ["x", 3],
    "number-truth": [1, True],
    "list": [[1, 2]],
    "too-large": [2**70],
}


@pytest.mark.parametrize("name", MIXED)
def test_mixed_types(name: str, golden: Callable[[str, str], None]) -> None:
    """A key of another type than those before it is an error that names the sample."""
    table = GroupTable([column("row.k")])
    with pytest.raises(DataError) as caught:
        _one(table, *({"k": value} for value in MIXED[name]))
    golden(f"predicates/key-{name}.txt", f"{caught.value}\n")


def test_mixed_types_over_batches() -> None:
    """The type is remembered from batch to batch."""
    table = GroupTable([column("row.k")])
    _one(table, {"k": "x"})
    with pytest.raises(DataError, match="mixed-types"):
        _one(table, {"k": 1.0})
