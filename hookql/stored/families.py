"""Families: answers that share everything but the query, found by what they share.

``DIR/values/abcd.../`` has an empty file for each answer with `values`, named by its address. It
says only where to look: what the answer depends on is read off its own manifest, and compared with
what is asked, fact by fact.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from attrs import frozen

from hookql.stored.address import Address
from hookql.stored.entries import Damaged, about, told
from hookql.stored.modules import Tensors

_FOLDER = "values"
# Options that say how a result is written, and how much memory groups may take.
_OUTPUT = frozenset({"compress", "store_dtype", "group_memory"})


@frozen
class Relative:
    """An answer of the family: its folder, and what its manifest says; its files are not read."""

    folder: Path
    about: Mapping[str, Any]


def join(store: Path, address: Address) -> None:
    """Have a kept answer found by its family. Raises OSError."""
    folder = store / _FOLDER / _name(address.facts)
    folder.mkdir(parents=True, exist_ok=True)
    (folder / address.name).touch()


def relatives(store: Path, address: Address) -> Iterator[tuple[Path, Relative | Damaged]]:
    """The answers of the family of an address, those that are damaged with what is wrong.

    The model is the same if its tensors are. One that was loaded in part has only those in memory
    that its query needs: what a place gave depends on none that either of the two is without, so
    those that both have must be equal.
    """
    folder = store / _FOLDER / _name(address.facts)
    names: list[str] = []
    with contextlib.suppress(OSError):
        names = sorted(path.name for path in folder.iterdir())
    for name in names:
        entry = store / name[:2] / name
        if not re.fullmatch("[0-9a-f]{64}", name) or not entry.is_dir():
            continue  # it was removed
        try:
            facts, said = told(entry), about(entry)
            same = Address(facts, None).name == name and _shared(facts) == _shared(address.facts)
        except Damaged as error:
            yield entry, error
            continue
        if not same:
            yield entry, Damaged("it is the answer to something else")
        elif _agree(said.get("tensors"), address.tensors):
            yield entry, Relative(entry, said)


def _shared(facts: Mapping[str, str]) -> dict[str, Any]:
    found: dict[str, Any] = {n: f for n, f in facts.items() if n not in ("query", "weights")}
    options = json.loads(found["options"])
    found["options"] = {n: said for n, said in options.items() if n not in _OUTPUT}
    return found


def _name(facts: Mapping[str, str]) -> str:
    return hashlib.sha256(json.dumps(_shared(facts), sort_keys=True).encode()).hexdigest()


def _agree(kept: Sequence[Sequence[str | None]] | None, asked: Tensors) -> bool:
    """Whether two models have the same tensors, and those equal that both have in memory."""
    return (
        kept is not None
        and len(kept) == len(asked)
        and all(
            (name, kind) == (of[0], of[1]) and (None in (lies, of[2]) or lies == of[2])
            for (name, kind, lies), of in zip(kept, asked, strict=True)
        )
    )
