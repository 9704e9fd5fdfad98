"""`by sample`: what is known of samples once they are complete goes to disk, and out of memory."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from attrs import define, evolve, field

from hookql.engines.local import Outcome
from hookql.plan import Plan, PlannedCapture, Target
from hookql.results.captured import SiteResult
from hookql.results.collect import occurring, settle, site_groups, site_result
from hookql.results.spool import Spool

Array = npt.NDArray[Any]


@define(eq=False)
class Stream:
    """Takes finished samples out of a run, sample by sample in the order of the data."""

    plan: Plan
    folder: Path | None = None  # on whose disk the numbers lie meanwhile
    _parts: dict[str, list[_Part]] = field(factory=dict)
    _samples: dict[str, list[Array]] = field(factory=dict)

    @classmethod
    def of(cls, plan: Plan, folder: Path | None) -> Stream | None:
        """A stream for the captures that need one; None where none does."""
        return cls(plan, folder) if any(c.streams for c in plan.captures) else None

    def __call__(self, outcome: Outcome, complete: int) -> None:
        """Write out all samples below an index."""
        settle(self.plan, outcome)
        streams = [capture for capture in self.plan.captures if capture.streams]
        tables = {id(t): t for capture in streams for t in self._tables(capture, outcome)}
        for capture in streams:
            (table,) = self._tables(capture, outcome)
            sample = np.asarray(table.keys()[0], dtype=np.int64)
            groups = occurring(self.plan, capture, outcome)
            groups = groups[sample[groups] < complete]
            groups = groups[np.argsort(sample[groups])]
            if len(groups):
                self._write(capture, outcome, groups)
                self._samples.setdefault(capture.name, []).append(sample[groups])
        for table in tables.values():
            left = np.flatnonzero(np.asarray(table.keys()[0], dtype=np.int64) >= complete)
            for detector in outcome.detectors.values():
                for job in detector.jobs.values():
                    if job.table is table:
                        job.keep(left)
            table.select(left)

    def finished(self, outcome: Outcome) -> Mapping[str, tuple[Sequence[SiteResult], Array]]:
        """The sites and samples of each capture, once the run is over."""
        self(outcome, np.iinfo(np.int64).max)
        found = {}
        for capture in self.plan.captures:
            if capture.name in self._parts:
                sites = [part.result() for part in self._parts[capture.name]]
                found[capture.name] = sites, np.concatenate(self._samples[capture.name])
        return found

    def _tables(self, capture: PlannedCapture, outcome: Outcome) -> list[Any]:
        selectors = [self.plan.selectors[number] for number in capture.selectors]
        return list(
            {id(t): t for s in selectors for t in [outcome.tables[s.keys, s.stream]]}.values()
        )

    def _write(self, capture: PlannedCapture, outcome: Outcome, groups: Array) -> None:
        parts = self._parts.setdefault(
            capture.name,
            [_Part(targets, self.folder) for targets in site_groups(self.plan, capture)],
        )
        for part in parts:
            part.take(site_result(self.plan, capture, part.targets, outcome, groups))


@define(eq=False)
class _Part:
    """One site of a capture: a spool for each of its variables."""

    targets: Sequence[Target]
    folder: Path | None
    spools: dict[tuple[str, str], Spool] = field(factory=dict)
    last: SiteResult | None = None

    def take(self, site: SiteResult) -> None:
        """Append the numbers of some samples."""
        self._append("count", "", np.asarray(site.count))
        for name, count in site.counts.items():
            self._append("counts", name, np.asarray(count))
        for name, array in site.variables.items():
            # Samples first; the calls of the module stand behind them meanwhile.
            self._append("variables", name, np.moveaxis(array, 1, 0) if site.calls > 1 else array)
        self.last = site

    def result(self) -> SiteResult:
        """The whole site, its numbers mapped from disk."""
        assert self.last is not None
        arrays = {key: spool.close() for key, spool in self.spools.items()}
        calls = self.last.calls > 1
        return evolve(
            self.last,
            count=np.asarray(arrays["count", ""]),
            counts={name: a for (kind, name), a in arrays.items() if kind == "counts"},
            variables={
                name: np.moveaxis(a, 1, 0) if calls else a
                for (kind, name), a in arrays.items()
                if kind == "variables"
            },
        )

    def _append(self, kind: str, name: str, rows: Array) -> None:
        if (kind, name) not in self.spools:
            self.spools[kind, name] = Spool(self.folder)
        self.spools[kind, name].append(rows)
