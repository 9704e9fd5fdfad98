"""`explain`: a plan in words, as JSON or as a Mermaid chart, before any data is run."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from attrs import frozen

from hookql.assembly import bytes_a_row, make_detectors
from hookql.detectors import Detector, Place
from hookql.language.formatter import format_expression
from hookql.models.mixing import Mixing
from hookql.models.ports import HookPoint
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
        },
        "captures": captures,
        "masks": [_mask(plan, number) for number in range(len(plan.selectors))],
        "hook_points": [_point(plan, point) for point in plan.points],
        "stop": {"module": stop or "model", "side": kind, "share": round(plan.share, 4)},
        "prediction": None if plan.logits is None else str(plan.logits),
        "batches": _BATCHES[plan.probe.mixing],
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


def as_text(plan: Plan, coming: Sequence[Outlook] = ()) -> str:
    """The plan in words."""
    facts = describe(plan, coming)
    model = facts["model"]
    runs_on = f"{model['dtype']} on {model['device']}"
    attention = f", {model['attention']} attention" if model["attention"] else ""
    lines = [
        *_block("query", facts["query"].rstrip().splitlines()),
        f"model      {model['name']} ({model['class']}), {runs_on}{attention}",
        "",
    ]
    for capture in facts["captures"]:
        by = f" by {', '.join(capture['by'])}" if capture["by"] else ""
        pool = f", pooled over {', '.join(capture['pool'])}" if capture["pool"] else ""
        what = f"{', '.join(capture['statistics'])}{by}{pool}, mask {capture['mask']}"
        into = f", into {capture['into']}" if capture["into"] else ""
        lines.append(f"capture    {capture['name']}: {what}{into}")
        for role, points in capture["roles"].items():
            lines.append(f"           - {role}: {_count(len(points), 'module')}")
    lines.append("")
    for mask in facts["masks"]:
        users = ", ".join(mask["captures"])
        by = f" by {', '.join(mask['by'])}" if mask["by"] else ""
        lines.append(f"mask {mask['number']}     {mask['where']}{by}  (for {users})")
    points = _count(len(facts["hook_points"]), "hook point")
    lines += ["", f"reads      {points}, each once a batch:"]
    lines += _table(facts["hook_points"])
    said = [f"values     {each}" for each in coming]
    return "\n".join([*lines, "", *_costs(facts), *said]) + "\n"


def _costs(facts: Mapping[str, Any]) -> list[str]:
    stop = facts["stop"]
    share = f"{stop['share']:.0%} of a forward pass runs (estimated from its weights)"
    before = "before" if stop["side"] == "input" else "after"
    size = facts["bytes"]
    lines = [f"stops      {before} {stop['module']}: {share}"]
    waiting = [capture["name"] for capture in facts["captures"] if capture["waits"]]
    if facts["prediction"] is not None:
        whose = ", ".join(waiting) or "what asks for it"
        lines.append(f"waits      {whose}: for the model's prediction, at the end of each pass")
    lines.append(f"batches    {facts['batches']}")
    fixed = f"{_bytes(size['memory'])} of accumulators, however much data is run"
    group = f"{_bytes(size['each_group'])} for each group" if size["each_group"] else ""
    memory = "; ".join(
        part for part in (fixed if size["memory"] or not group else "", group) if part
    )
    written = f"{_bytes(size['written'])} of numbers" + (" a group" if group else "")
    rows = f"{_bytes(size['each_row'])} for each row kept; " if size["each_row"] else ""
    memory += "; some 300 MB of rows until they can be written" if rows else ""
    return [
        *lines,
        f"memory     {memory}",
        f"writes     {rows}{written}, and some 20 kB that say what they are",
    ]


def _block(title: str, lines: list[str]) -> list[str]:
    heads = [title, *[""] * (len(lines) - 1)]
    return [f"{head:<10} {line}".rstrip() for head, line in zip(heads, lines, strict=True)]


def _table(points: list[dict[str, Any]]) -> list[str]:
    rows = []
    for point in points:
        port = "" if point["port"] == "output" else f":{point['port']}"
        times = f", {point['calls']} calls" if point["calls"] > 1 else ""
        shape = " x ".join(map(str, point["shape"]))
        shared = {key for keys in point["accumulators"].values() for key in keys}
        state = f"{shape} {point['dtype']}{times}"
        name = point["module"] + port
        rows.append((name, point["class"], state, ", ".join(sorted(shared))))
    widths = [max(len(row[column]) for row in rows) for column in range(4)]
    padded = [[cell.ljust(w) for cell, w in zip(row, widths, strict=True)] for row in rows]
    return [("           " + "  ".join(row)).rstrip() for row in padded]


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}" + ("" if number == 1 else "s")


def _bytes(number: int) -> str:
    size = float(number)
    for unit in ("bytes", "kB", "MB"):
        if size < 1000:
            return f"{size:.0f} {unit}"
        size /= 1000
    return f"{size:.1f} GB"


def as_json(plan: Plan, coming: Sequence[Outlook] = ()) -> str:
    """The plan as JSON, stable in its keys and their order."""
    return json.dumps(describe(plan, coming), indent=2, ensure_ascii=False) + "\n"


def as_mermaid(plan: Plan, coming: Sequence[Outlook] = ()) -> str:
    """The plan as a Mermaid flow chart: modules, masks, captures."""
    facts = describe(plan, coming)
    lines = ["flowchart LR", f'  data["data"] --> model["{facts["model"]["name"]}"]']
    for number, point in enumerate(facts["hook_points"]):
        port = "" if point["port"] == "output" else f":{point['port']}"
        lines.append(f'  model --> p{number}["{point["module"]}{port}"]')
    for mask in facts["masks"]:
        where = mask["where"].replace('"', "#quot;")
        lines.append(f'  data --> m{mask["number"]}{{{{"{where}"}}}}')
    for number, capture in enumerate(facts["captures"]):
        label = f"{capture['name']}: {', '.join(capture['statistics'])}"
        lines.append(f'  c{number}(["{label}"])')
        lines.append(f"  m{capture['mask']} --> c{number}")
        for index, point in enumerate(facts["hook_points"]):
            if capture["name"] in point["captures"]:
                lines.append(f"  p{index} --> c{number}")
    stop = facts["stop"]
    lines.append(f'  model -. "{stop["share"]:.0%} runs" .-> stop["stop at {stop["module"]}"]')
    return "\n".join(lines) + "\n"


FORMATS: Mapping[str, Callable[[Plan, Sequence[Outlook]], str]] = {
    "text": as_text,
    "json": as_json,
    "mermaid": as_mermaid,
}
