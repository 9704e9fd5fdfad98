"""`explain`: a plan in words, as JSON or as a Mermaid chart, before any data is run."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from typing import Any

from hookql.models.mixing import Mixing
from hookql.models.ports import HookPoint
from hookql.plan import Plan, PlannedCapture

_FLOAT64 = 8


def describe(plan: Plan) -> dict[str, Any]:
    """A plan as plain data: the source of all three formats."""
    model = plan.model
    kind, stop = plan.probe.events[plan.stop]
    captures = [_capture(plan, capture) for capture in plan.captures]
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
        "masks": [
            {
                "number": number + 1,
                "where": plan.describe_mask(number),
                "captures": [c.name for c in plan.captures if c.mask == number],
            }
            for number in range(len(plan.masks))
        ],
        "hook_points": [_point(plan, point) for point in plan.points],
        "stop": {"module": stop or "model", "side": kind, "share": round(plan.share, 4)},
        "batches": _BATCHES[plan.probe.mixing],
        "bytes": {
            "memory": sum(_state_bytes(plan, point) for point in plan.points),
            "written": sum(capture["bytes"] for capture in captures),
        },
    }


_BATCHES = {
    Mixing.NONE: "sorted by length, padded on the right, padding masked",
    Mixing.PADDING: "equal lengths only: padding would change this model's values",
    Mixing.SAMPLES: "every sample alone: others in its batch would change this model's values",
}


def _capture(plan: Plan, capture: PlannedCapture) -> dict[str, Any]:
    statistics = [s.variable for s in capture.spec.statistics]
    roles: dict[str, list[str]] = {}
    size = 0
    for target in capture.targets:
        seen = plan.probe.seen[target.point]
        axes = dict(zip(seen.layout.axes, _row_shape(seen.shape, seen.layout.axes), strict=True))
        kept = {name: n for name, n in axes.items() if name not in capture.spec.pool}
        dims = {**({"call": seen.calls} if seen.calls > 1 else {}), **kept}
        shown = ", ".join(f"{name} {n}" for name, n in dims.items()) or "one number"
        role = f"{target.role} ({shown})"
        if role not in roles or "layer" not in capture.spec.pool:
            size += len(statistics) * _product(dims.values()) * _FLOAT64
        roles.setdefault(role, []).append(str(target.point))
    return {
        "name": capture.name,
        "statistics": statistics,
        "mask": capture.mask + 1,
        "pool": sorted(capture.spec.pool),
        "into": capture.spec.into,
        "roles": roles,
        "bytes": size,
    }


def _point(plan: Plan, point: HookPoint) -> dict[str, Any]:
    seen = plan.probe.seen[point]
    users = [c.name for c in plan.captures if any(t.point == point for t in c.targets)]
    return {
        "module": point.module or "model",
        "class": type(plan.model.module.get_submodule(point.module)).__name__,
        "port": point.port,
        "shape": list(seen.shape),
        "dtype": str(seen.dtype).removeprefix("torch."),
        "calls": seen.calls,
        "captures": users,
        "accumulators": {
            str(mask + 1): sorted({s.key for s in statistics})
            for mask, statistics in plan.wanted(point).items()
        },
    }


def _state_bytes(plan: Plan, point: HookPoint) -> int:
    """About what the accumulators of a hook point hold: two float64 numbers a feature each."""
    seen = plan.probe.seen[point]
    keys = [{s.key for s in statistics} for statistics in plan.wanted(point).values()]
    numbers = _product(_row_shape(seen.shape, seen.layout.axes)) * seen.calls
    return sum(map(len, keys)) * numbers * 2 * _FLOAT64


def _row_shape(shape: tuple[int | str, ...], axes: tuple[str, ...]) -> list[int]:
    sizes = [n for n in shape if isinstance(n, int)]
    return sizes[len(sizes) - len(axes) :]


def _product(numbers: Any) -> int:
    product = 1
    for number in numbers:
        product *= number
    return product


def as_text(plan: Plan) -> str:
    """The plan in words."""
    facts = describe(plan)
    model = facts["model"]
    runs_on = f"{model['dtype']} on {model['device']}"
    attention = f", {model['attention']} attention" if model["attention"] else ""
    lines = [
        *_block("query", facts["query"].rstrip().splitlines()),
        f"model      {model['name']} ({model['class']}), {runs_on}{attention}",
        "",
    ]
    for capture in facts["captures"]:
        pool = f", pooled over {', '.join(capture['pool'])}" if capture["pool"] else ""
        what = f"{', '.join(capture['statistics'])}{pool}, mask {capture['mask']}"
        into = f", into {capture['into']}" if capture["into"] else ""
        lines.append(f"capture    {capture['name']}: {what}{into}")
        for role, points in capture["roles"].items():
            lines.append(f"           - {role}: {_count(len(points), 'module')}")
    lines.append("")
    for mask in facts["masks"]:
        users = ", ".join(mask["captures"])
        lines.append(f"mask {mask['number']}     {mask['where']}  (for {users})")
    points = _count(len(facts["hook_points"]), "hook point")
    lines += ["", f"reads      {points}, each once a batch:"]
    lines += _table(facts["hook_points"])
    stop = facts["stop"]
    share = f"{stop['share']:.0%} of a forward pass runs (estimated from its weights)"
    before = "before" if stop["side"] == "input" else "after"
    size = facts["bytes"]
    lines += [
        "",
        f"stops      {before} {stop['module']}: {share}",
        f"batches    {facts['batches']}",
        f"memory     {_bytes(size['memory'])} of accumulators, however much data is run",
        f"writes     {_bytes(size['written'])} of numbers, and some 20 kB that say what they are",
    ]
    return "\n".join(lines) + "\n"


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


def as_json(plan: Plan) -> str:
    """The plan as JSON, stable in its keys and their order."""
    return json.dumps(describe(plan), indent=2, ensure_ascii=False) + "\n"


def as_mermaid(plan: Plan) -> str:
    """The plan as a Mermaid flow chart: modules, masks, captures."""
    facts = describe(plan)
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


FORMATS: Mapping[str, Callable[[Plan], str]] = {
    "text": as_text,
    "json": as_json,
    "mermaid": as_mermaid,
}
