"""One run and its store: is there an answer, and is there one to keep?"""

from __future__ import annotations

import contextlib
import os
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import xarray
from attrs import evolve, frozen

from hookql.data.samples import Dataset
from hookql.data.tokens import Skipped
from hookql.engines.outcome import Generated
from hookql.errors import Diagnostic, Source, Span, UsageError
from hookql.language.query import Query
from hookql.models.load import Model
from hookql.options import RunOptions
from hookql.plan import Plan
from hookql.results.captured import CaptureResult
from hookql.results.dataset import has_raw
from hookql.results.netcdf import open_lazily, save
from hookql.results.outputs import Outputs
from hookql.results.tree import build_tree
from hookql.stored.address import Address, address_of, facts_of_model
from hookql.stored.copies import FROM_STORE, put
from hookql.stored.derived import Derived, Look, derive
from hookql.stored.entries import Damaged, Entry, find, place, write
from hookql.stored.families import join
from hookql.stored.telling import Strange

_MAIN = "main"


@frozen(eq=False)
class Answer:
    """What a store gave: the tree, the files written, and what the run then warned of."""

    tree: xarray.DataTree
    written: tuple[Path, ...]
    warnings: tuple[Diagnostic, ...]
    said: str


@frozen(eq=False)
class Asked:
    """A run with a store: the address of its answer, or ``why`` there is none.

    ``entry`` is the answer, if it is there; ``damage`` says what is wrong with one that was.
    """

    store: Path
    query: Query
    model: Model
    options: RunOptions
    address: Address | None
    why: str | None
    entry: Entry | None
    damage: tuple[Diagnostic, ...]

    def answer(self, outputs: Outputs) -> Answer | None:
        """The answer, its files written where the run would have written them; None without.

        Raises what writing a result does.
        """
        if self.entry is None:
            return None
        outputs.check()
        about, folder = self.entry.about, self.entry.folder
        said = f"answered without running the model; kept {about['kept']}"
        tree = open_lazily(folder / about["whole"])
        tree.attrs[FROM_STORE] = said
        written = []
        groups = _groups(self.query, outputs)
        for path in sorted(groups, key=lambda path: path == outputs.main):
            put(folder / about["groups"][groups[path]], path, said, outputs.overwrite)
            written.append(path)
        return Answer(tree, tuple(written), _said_again(about["warnings"], self.query), said)

    def derived(self, bind: Callable[[Look], Plan]) -> tuple[Asked, Derived | None]:
        """The answer as it can be worked out from kept values, if it can; what is damaged is noted.

        ``bind`` makes the query's plan, given what tells it of the model, which is not run.
        """
        if self.address is None or self.entry is not None:
            return self, None
        found = derive(self.store, self.address, self.query, self.options, bind)
        return evolve(self, damage=(*self.damage, *found.damage)), found.derived

    def keep(
        self,
        results: Sequence[CaptureResult],
        attributes: Mapping[str, str | int | float],
        skipped: Sequence[Skipped],
        generated: Sequence[Generated],
        outputs: Outputs,
        warnings: Sequence[Diagnostic],
        read: object,
        values: Mapping[str, Any] | None = None,
    ) -> tuple[Diagnostic, ...]:
        """Keep the answer of a run that ended well; a warning where it cannot be kept.

        ``read`` is the fingerprint of the data that the run read, ``values`` what is said of its
        raw rows. Nothing that is wrong with the store can harm the run: its result is there
        already.
        """
        try:
            address = self._unchanged(skipped, warnings, read)
            trees = results, attributes, skipped, generated
            with _files(self.query, outputs, *trees) as (files, groups):
                about: dict[str, Any] = {
                    "kept": datetime.now(UTC).isoformat(timespec="seconds").replace("+00:00", "Z"),
                    "whole": "whole.nc" if "whole.nc" in files else next(iter(groups.values())),
                    "groups": groups,
                    "warnings": [_plain(each) for each in warnings],
                }
                if values is not None:
                    about |= {"values": values, "tensors": address.tensors}
                write(self.store, address, files, about)
            if values is not None:
                join(self.store, address)
        except Strange as error:
            return (*self.damage, _not_stored(str(error)))
        except OSError as error:
            reason = error.strerror or str(error)
            return (*self.damage, _not_stored(f"`{self.store}`: {reason.lower()}"))
        return self.damage

    def _unchanged(
        self, skipped: Sequence[Skipped], warnings: Sequence[Diagnostic], read: object
    ) -> Address:
        """The address, if the run was of what it says. Raises Strange otherwise."""
        if self.address is None:
            raise Strange(str(self.why))
        if skipped:
            raise Strange("some samples were skipped")
        if self.address.read not in (None, read) or any(w.code == "data-changed" for w in warnings):
            raise Strange("the data changed while it was read")
        for name, fact in facts_of_model(self.query, self.model, self.options)[0].items():
            if self.address.facts[name] != fact:
                raise Strange(f"the {name} changed while the model ran")
        return self.address


def ask(
    query: Query,
    model: Model,
    dataset: Dataset | None,
    inputs: Mapping[str, Any] | None,
    options: RunOptions,
    make: bool = True,
) -> Asked | None:
    """Look an answer up; None where no store is asked for. The model is not run, the data is read.

    The store's folder is made where it is not there, unless ``make`` is False.

    Raises UsageError for a store that cannot be one, DataError where the data cannot be read.
    """
    given = options.get("store")
    if given is None:
        return None
    store = Path(given).expanduser()
    _check_store(store, make)
    entry, address, why = None, None, None
    damage: tuple[Diagnostic, ...] = ()
    try:
        address = address_of(query, model, dataset, inputs, options)
        entry = find(store, address)
    except Strange as error:
        why = str(error)
    except RecursionError:
        why = "something of the model or the data holds itself"
    except Damaged as error:
        assert address is not None
        message = f"the stored answer `{place(store, address)}` is damaged: {error}"
        help = "it is worked out and kept anew"
        damage = (Diagnostic("damaged-store", message, help=help, severity="warning"),)
    return Asked(store, query, model, options, address, why, entry, damage)


def outlook(asked: Asked | None, derived: Derived | None = None) -> str | None:
    """What `explain` says of the store, on a line; None where none is asked for."""
    if asked is None:
        return None
    if asked.why is not None:
        return f"the answer will not be kept: {asked.why}"
    if derived is not None:
        return derived.said
    if asked.entry is None:
        damaged = "damaged" if asked.damage else "not there"
        return f"{damaged}: the model runs, and the answer is kept"
    return f"answered without running the model; kept {asked.entry.about['kept']}"


def _check_store(store: Path, make: bool) -> None:
    try:
        if make or os.path.lexists(store):
            store.mkdir(parents=True, exist_ok=True)
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        message = f"`{store}` cannot be a store: {reason[:1].lower()}{reason[1:]}"
        help = "give a folder: `--store DIR` (from Python: store=...)"
        raise UsageError(Diagnostic("bad-store", message, help=help)) from None


def _groups(query: Query, outputs: Outputs) -> dict[Path, str]:
    """The files that a run writes, and which group of captures each takes."""
    found: dict[Path, str] = {}
    for spec, into in zip(query.captures, outputs.into, strict=True):
        path = outputs.main if into is None else into
        if path is not None:
            found[path] = _group(spec.into)
    return found


def _group(into: str | None) -> str:
    return _MAIN if into is None else f"into {into}"


@contextlib.contextmanager
def _files(
    query: Query,
    outputs: Outputs,
    results: Sequence[CaptureResult],
    attributes: Mapping[str, str | int | float],
    skipped: Sequence[Skipped],
    generated: Sequence[Generated],
) -> Iterator[tuple[dict[str, Path], dict[str, str]]]:
    """The files to keep by name, and the name of each group's; `whole.nc` has all groups."""
    by_group: dict[str, list[CaptureResult]] = {}
    for result, spec in zip(results, query.captures, strict=True):
        by_group.setdefault(_group(spec.into), []).append(result)
    groups = {group: f"group{number}.nc" for number, group in enumerate(by_group)}
    if any(map(has_raw, results)):
        if len(groups) > 1:
            raise Strange("its raw values and its other captures go into several files")
        (path,) = outputs.members(results)
        yield dict.fromkeys(groups.values(), path), groups
        return
    with tempfile.TemporaryDirectory(prefix="hookql-") as folder:
        trees = {groups[group]: of for group, of in by_group.items()}
        if len(groups) > 1:
            trees["whole.nc"] = list(results)
        files = {name: Path(folder) / name for name in trees}
        for name, of in trees.items():
            save(build_tree(of, attributes, skipped, generated), files[name])
        yield files, groups


def _plain(each: Diagnostic) -> dict[str, Any]:
    """A warning as JSON can hold it."""
    source = None if each.source is None else [each.source.text, each.source.name]
    span = None if each.span is None else [each.span.start, each.span.end]
    said = {"code": each.code, "message": each.message, "help": each.help}
    return {**said, "notes": list(each.notes), "span": span, "source": source}


def _said_again(warnings: Sequence[Mapping[str, Any]], query: Query) -> tuple[Diagnostic, ...]:
    """The warnings of the run; they point into today's query where that is the same text."""
    found = []
    for each in warnings:
        source = None if each["source"] is None else Source(*each["source"])
        if source is not None and source.text == query.source.text:
            source = query.source
        span = None if each["span"] is None else Span(*each["span"])
        code, message, help = each["code"], each["message"], each["help"]
        found.append(Diagnostic(code, message, span, source, help, tuple(each["notes"]), "warning"))
    return tuple(found)


def _not_stored(why: str) -> Diagnostic:
    return Diagnostic("not-stored", f"the answer is not kept: {why}", severity="warning")
