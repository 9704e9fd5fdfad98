"""What the tests of stored answers share: a small run, and proof that no model ran in it."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import Any

import xarray

import hookql
from tests.tiny import tiny

QUERY = "capture mean, std from h[*].attn where position > 0"
TEXTS = ["Hello there", "a second text", "and a third one"]


@contextmanager
def forwards() -> Iterator[list[str]]:
    """The modules' calls while it lasts, by the interpreter itself: a hook would be seen."""
    calls: list[str] = []

    def look(frame: FrameType, event: str, given: Any) -> None:
        if event == "call" and frame.f_code.co_name == "_call_impl":
            calls.append(type(frame.f_locals["self"]).__name__)

    before = sys.getprofile()
    sys.setprofile(look)
    try:
        yield calls
    finally:
        sys.setprofile(before)


def run(store: Path, model: Any = None, tokenizer: Any = None, **options: Any) -> xarray.DataTree:
    """A run with a store, of a small GPT-2 unless said otherwise."""
    if model is None:
        model, tokenizer, _ = tiny("gpt2")
    if not {"texts", "data", "inputs"} & set(options):
        options["texts"] = TEXTS
    query = options.pop("query", QUERY)
    return hookql.run(query, model=model, tokenizer=tokenizer, store=store, **options)


def ran(call: Callable[[], Any]) -> bool:
    """Whether a call runs a model."""
    with forwards() as calls:
        call()
    return bool(calls)


def from_store(tree: xarray.DataTree) -> bool:
    """Whether a result says that it was kept."""
    return "from_store" in tree.attrs


def without(tree: xarray.DataTree) -> xarray.DataTree:
    """A result without what says where it comes from."""
    tree = tree.copy()
    tree.attrs.pop("from_store", None)
    return tree
