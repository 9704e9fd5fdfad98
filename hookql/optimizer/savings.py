"""What the rules save in a plan, for `explain`."""

from __future__ import annotations

from hookql.optimizer import budget, depth, duplicates, prefixes, rows, weights
from hookql.plan import Plan

_RULES = {
    "depth": depth.saves,
    "weights": weights.saves,
    "rows": rows.saves,
    "duplicates": duplicates.saves,
    "prefixes": prefixes.saves,
    "budget": budget.saves,
}


def savings(plan: Plan) -> dict[str, str]:
    """What each rule that does something saves, in words, by the rule's name."""
    found = {name: saves(plan) for name, saves in _RULES.items()}
    return {name: said for name, said in found.items() if said is not None}
