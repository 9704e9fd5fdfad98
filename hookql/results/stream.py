"""`by sample`: what is known of samples once they are complete goes to disk, and out of memory."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
from attrs import evolve, frozen

from hookql.engines.local import Outcome
from hookql.plan import Plan, PlannedCapture
from hookql.raw.tables import Columns, Tables
from hookql.results.captured import SiteResult
from hookql.results.collect import occurring, settle, site_groups, site_result
from hookql.results.spool import Spools

Array = npt.NDArray[Any]
Finished = Mapping[str, tuple[Sequence[SiteResult], Array]]


@frozen(eq=False)
class Stream:
    """Takes finished samples out of a run, sample by sample in the order of the data.

    Each site of a capture is a table, with a column for each of its variables; one more table of
    the capture has the samples' indices.
    """

    plan: Plan

    @property
    def captures(self) -> list[PlannedCapture]:
        """Those whose groups are samples."""
        return [capture for capture in self.plan.captures if capture.streams]

    def write(self, outcome: Outcome, complete: int, tables: Tables) -> None:
        """Write out all samples below an index, and let go of them."""
        settle(self.plan, outcome)
        for capture in self.captures:
            (table,) = self._tables(capture, outcome)
            sample = np.asarray(table.keys()[0], dtype=np.int64)
            groups = occurring(self.plan, capture, outcome)
            groups = groups[sample[groups] < complete]
            groups = groups[np.argsort(sample[groups])]
            if not len(groups):
                continue
            tables.append(_name(capture), {"sample": sample[groups]})
            for number, targets in enumerate(site_groups(self.plan, capture)):
                site = site_result(self.plan, capture, targets, outcome, groups)
                tables.append(_name(capture, number), _columns(site))
        self.forget(outcome, complete)

    def forget(self, outcome: Outcome, complete: int) -> None:
        """Let go of all samples below an index; accumulators must be settled."""
        known = {id(t): t for capture in self.captures for t in self._tables(capture, outcome)}
        for table in known.values():
            left = np.flatnonzero(np.asarray(table.keys()[0], dtype=np.int64) >= complete)
            for detector in outcome.detectors.values():
                for job in detector.jobs.values():
                    if job.table is table:
                        job.keep(left)
            table.select(left)

    def finished(self, outcome: Outcome, spools: Spools) -> Finished:
        """The sites and samples of each capture, once all is written and lies in spools."""
        found = {}
        nothing = np.zeros(0, np.int64)
        for capture in self.captures:
            samples = spools.close(_name(capture)).get("sample")
            if samples is None:
                continue
            sites = [
                _filled(
                    site_result(self.plan, capture, targets, outcome, nothing),
                    spools.close(_name(capture, number)),
                )
                for number, targets in enumerate(site_groups(self.plan, capture))
            ]
            found[capture.name] = sites, np.array(samples)
        return found

    def _tables(self, capture: PlannedCapture, outcome: Outcome) -> list[Any]:
        selectors = [self.plan.selectors[number] for number in capture.selectors]
        return list(
            {id(t): t for s in selectors for t in [outcome.tables[s.keys, s.stream]]}.values()
        )


def _name(capture: PlannedCapture, site: int | None = None) -> str:
    return f"sample:{capture.name}" + ("" if site is None else f":{site}")


def _columns(site: SiteResult) -> Columns:
    """The numbers of some samples, samples first; the calls of a module stand behind them."""
    several = site.calls > 1
    return {
        "count": np.asarray(site.count),
        **{f"counts/{name}": np.asarray(count) for name, count in site.counts.items()},
        **{
            f"variables/{name}": np.moveaxis(array, 1, 0) if several else array
            for name, array in site.variables.items()
        },
    }


def _filled(site: SiteResult, arrays: Mapping[str, Array]) -> SiteResult:
    """A whole site, its numbers mapped from disk."""
    several = site.calls > 1

    def of(kind: str) -> dict[str, Array]:
        return {n.partition("/")[2]: a for n, a in arrays.items() if n.startswith(f"{kind}/")}

    variables = of("variables").items()
    return evolve(
        site,
        count=np.asarray(arrays["count"]),
        counts=of("counts"),
        variables={name: np.moveaxis(a, 1, 0) if several else a for name, a in variables},
    )
