"""The rule `depth`: the forward pass is left behind the last module that is needed.

Which event that is, the plan says (`Plan.leave`); the engine's last hook leaves there.
"""

from __future__ import annotations

from hookql.plan import Plan


def saves(plan: Plan) -> str | None:
    """What the rule saves, in words."""
    if "depth" not in plan.rules or plan.leave is None or plan.query.generation is not None:
        return None
    return f"{1 - plan.share:.0%} of the forward pass is left out (estimated from its weights)"
