"""What a run leaves, finished or not: states, tables of groups, and what was counted."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from attrs import define, field, frozen

from hookql.assembly import bytes_a_group, group_tables, make_detectors
from hookql.data.tokens import Skipped
from hookql.detectors import Detector, Place
from hookql.plan import Plan
from hookql.predicates.groups import GroupTable
from hookql.selection import SPAN, PairTable


@frozen
class Generated:
    """What the model wrote behind a sample: its text, how many tokens, whether it came to an end.

    A token that ends it is counted, and not in the text.
    """

    sample: int
    text: str
    tokens: int
    ended: bool


@define(eq=False)
class Outcome:
    """What a run leaves: detectors with their states, and what was counted.

    A run that was left early can be continued with it: ``done`` says where.
    """

    detectors: Mapping[Place, Detector]
    tables: Mapping[object, GroupTable]  # the groups, by (keys, stream)
    pairs: Mapping[object, PairTable]  # the (group, key) pairs of ragged keys, by selector
    group_bytes: Mapping[object, int]  # about what each group holds, likewise
    kept: list[int]  # tokens kept, for each selector that does not ask for a place's values
    undefined: list[int]  # tokens dropped because it was undefined there, likewise
    tokens: int = 0  # tokens that entered the model
    batches: int = 0  # forward passes: a batch that was run in parts has several
    skipped: int = 0  # tokens of batches none of whose rows was wanted, never run
    spared: int = 0  # tokens of batches that ran, which did not: behind what is wanted, or twice
    padding: int = 0
    width: int = 1  # what a chunk's positions are counted in, for `place`
    seconds: float = 0.0
    done: int = 0  # batches of the work that are finished, whether or not they had to be run
    pinned: int = 0  # a checksum of those batches: which tokens they held, in which order
    interrupted: bool = False  # whether the run was asked to stop before the work was done
    fits: int = 0  # the most padded tokens (rows x positions) of a pass that memory sufficed for
    too_large: int | None = None  # the fewest for which it did not
    halved: int = 0  # batches run in parts because memory did not suffice for the whole
    failed: int = 0  # tokens of the contexts that were skipped
    skipped_contexts: list[Skipped] = field(factory=list)  # those that the model failed on
    generated: list[Generated] = field(factory=list)  # in the order of the batches

    @classmethod
    def of(cls, plan: Plan, width: int) -> Outcome:
        """Of a plan, before anything has run."""
        tables = group_tables(plan)
        pairs: dict[object, PairTable] = {}
        detectors = make_detectors(plan, tables, pairs)
        numbers = len(plan.selectors)
        sizes: dict[object, int] = dict(bytes_a_group(plan).items())
        return cls(detectors, tables, pairs, sizes, [0] * numbers, [0] * numbers, width=width)

    def place(self, order: Any) -> tuple[Any, Any, Any]:
        """The (sample, chunk, position) of a row's place in the data, or of an array of them."""
        sample, rest = order // SPAN, order % SPAN
        return sample, rest // self.width, rest % self.width
