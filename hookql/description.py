"""A plan as plain data: what `explain` says in any format."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from attrs import frozen

from hookql.assembly import bytes_a_row, make_detectors
from hookql.detectors import Detector, Place
from hookql.language.formatter import format_expression
from hookql.models.generation import ends_of
from hookql.models.mixing import Mixing
from hookql.models.ports import HookPoint
from hookql.optimizer.savings import savings
from hookql.plan import Asked, Plan, PlannedCapture, Target
from hookql.running.outlook import Outlook
from hookql.statistics import state_key

_NUMBER = 8  # bytes: float64 or int64


def describe(plan: Plan, coming: Sequence[Outlook] = ()) -> dict[str, Any]:
    """A plan as plain data: the source of all three formats.

    ``coming`` is what raw rows certain data will give.
    """
    model = plan.model
    kind, stop = plan.probe.events[plan.stop]
    sizes = _Sizes.of(plan)
    captures = [_capture(plan, capture, sizes) for capture in plan.captures]
    return {
        "query": plan.query.canonical,
        "model": {
            "name": model.name,
            "class": model.class_name,
            "dtype": model.dtype,
            "device": str(model.device),
            "attention": model.attn,
            **({} if model.autocast is None else {"autocast": model.autocast}),
        },
        "captures": captures,
        "masks": [_mask(plan, number) for number in range(len(plan.selectors))],
        "hook_points": [_point(plan, point) for point in plan.points],
        "stop": {"module": stop or "model", "side": kind, "share": round(plan.share, 4)},
        "prediction": None if plan.logits is None else str(plan.logits),
        "generation": _generation(plan),
        "batches": _BATCHES[plan.probe.mixing],
        "saves": savings(plan),
        "open": list(plan.probe.open),
        "bytes": {
            "memory": sizes.fixed,
            "each_group": sizes.each_group,
            "written": sum(capture["bytes"] for capture in captures),
            "each_row": sum(capture["row_bytes"] for capture in captures),
        },
        "values": [
            {
                "file": str(each.path),
                "rows": each.rows,
                "bytes": each.size,
                "exact": each.exact,
                "free": each.free,
            }
            for each in coming
        ],
    }


def _generation(plan: Plan) -> dict[str, Any] | None:
    """How the model is to generate; None where it does not."""
    during = plan.query.generation
    if during is None:
        return None
    ends = ends_of(plan.model)
    words = getattr(plan.model.tokenizer, "convert_ids_to_tokens", lambda ids: ids)(ends)
    return {**during.arguments, "ends": [str(word) for word in words]}


_BATCHES = {
    Mixing.NONE: "sorted by length, padded on the right, padding masked",
    Mixing.PADDING: "equal lengths only: padding would change this model's values",
    Mixing.SAMPLES: "every sample alone: others in its batch would change this model's values",
}


@frozen(eq=False)
class _Sizes:
    """How large the accumulators are, by making those of the plan with one group each."""

    detectors: Mapping[Place, Detector]
    fixed: int
    each_group: int

    @classmethod
    def of(cls, plan: Plan) -> _Sizes:
        detectors = make_detectors(plan, {}, {})
        fixed = group = 0
        for place, detector in detectors.items():
            axes = {}
            for target in plan.wanted(place):
                for asked in target.asked:
                    sizes = asked.expression.axes.sizes
                    axes[asked.expression.node] = [n for n in sizes if n is not None]
            for number, job in detector.jobs.items():
                job.settle(axes)
                if plan.selectors[number].keys:
                    group += job.nbytes
                else:
                    fixed += job.nbytes
        return cls(detectors, fixed, group)

    def written(self, target: Target, asked: Asked) -> int:
        """The bytes of a statistic's numbers at one place, of one group where it is grouped."""
        if asked.statistic.key == "count":
            return _NUMBER
        if asked.statistic.raw:
            return 0
        job = self.detectors[target.place].jobs[asked.selector]
        state = job.states[0][asked.expression.node][
            state_key(asked.statistic, asked.spec.parameters)
        ]
        found = asked.statistic.finish(state, **asked.spec.parameters)
        tensors = found.values() if isinstance(found, Mapping) else [found]
        numbers: int = sum(tensor.numel() for tensor in tensors)
        return len(job.states) * numbers * _NUMBER


def _capture(plan: Plan, capture: PlannedCapture, sizes: _Sizes) -> dict[str, Any]:
    roles: dict[str, list[str]] = {}
    size = 0
    for target in capture.targets:
        seen = plan.probe.seen[target.point]
        dims: dict[str, int | None] = {"call": seen.calls} if seen.calls > 1 else {}
        for asked in target.asked:
            names = zip(asked.axes, asked.expression.axes.sizes, strict=True)
            dims |= {name: n for name, n in names if name not in capture.spec.pool}
        shown = ", ".join(f"{name} {'*' if n is None else n}" for name, n in dims.items())
        role = f"{target.role} ({shown or 'one number'})"
        pooled = {name: n for a in target.asked for name, n in _pooled(capture, a).items()}
        if role not in roles or "layer" not in capture.spec.pool:
            share = 1
            for n in pooled.values():
                share *= n
            size += sum(sizes.written(target, asked) for asked in target.asked) // share
        roles.setdefault(role, []).append(str(target.point))
    return {
        "name": capture.name,
        "statistics": [s.variable for s in capture.spec.statistics],
        "mask": capture.selectors[0] + 1,
        "by": [key.name for key in capture.spec.by],
        "pool": sorted(capture.spec.pool),
        "into": capture.spec.into,
        "waits": any(plan.signals(number) for number in capture.selectors),
        "roles": roles,
        "bytes": size,
        "row_bytes": bytes_a_row(plan, [capture]),
    }


def _pooled(capture: PlannedCapture, asked: Asked) -> dict[str, int]:
    sizes = zip(asked.axes, asked.expression.axes.sizes, strict=True)
    return {name: n for name, n in sizes if n is not None and name in capture.spec.pool}


def _mask(plan: Plan, number: int) -> dict[str, Any]:
    selector = plan.selectors[number]
    users = [
        capture.name
        for capture in plan.captures
        if any(
            number in (target.selector, *(asked.selector for asked in target.asked))
            for target in capture.targets
        )
    ]
    return {
        "number": number + 1,
        "where": plan.describe_mask(number),
        "by": [format_expression(key) for key in selector.keys],
        "waits": sorted(plan.signals(number)),
        "captures": users,
    }


def _point(plan: Plan, point: HookPoint) -> dict[str, Any]:
    seen = plan.probe.seen[point]
    targets = {
        capture.name: [t for t in capture.targets if _reads(t, point)] for capture in plan.captures
    }
    keys: dict[str, set[str]] = {}
    for of_capture in targets.values():
        for target in of_capture:
            for asked in target.asked:
                keys.setdefault(str(asked.selector + 1), set()).add(asked.statistic.key)
    return {
        "module": point.module or "model",
        "class": type(plan.model.module.get_submodule(point.module)).__name__,
        "port": point.port,
        "shape": list(seen.shape),
        "dtype": str(seen.dtype).removeprefix("torch."),
        "calls": seen.calls,
        "captures": [name for name, found in targets.items() if found],
        "accumulators": {number: sorted(found) for number, found in sorted(keys.items())},
    }


def _reads(target: Target, point: HookPoint) -> bool:
    if target.point == point:
        return True
    expressions = (*(a.expression for a in target.asked), *target.values.values())
    beside = HookPoint(target.point.module, "input")
    return point == beside and any("input" in e.operands for e in expressions)
