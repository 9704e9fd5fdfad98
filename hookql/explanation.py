"""`explain`: a plan in words, as JSON or as a Mermaid chart, before any data is run."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from hookql.description import describe
from hookql.plan import Plan
from hookql.running.outlook import Outlook


def as_text(plan: Plan, coming: Sequence[Outlook] = (), stored: str | None = None) -> str:
    """The plan in words."""
    facts = describe(plan, coming)
    model = facts["model"]
    runs_on = f"{model['dtype']} on {model['device']}"
    if "autocast" in model:
        runs_on += f" under autocast to {model['autocast']}"
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
    if facts["open"]:
        still = [f"- {each}" for each in facts["open"]]
        said += _block("open", ["until the weights are loaded:", *still])
    said += [] if stored is None else [f"stored     {stored}"]
    return "\n".join([*lines, "", *_costs(facts), *said]) + "\n"


def _costs(facts: Mapping[str, Any]) -> list[str]:
    stop = facts["stop"]
    share = f"{stop['share']:.0%} of a forward pass runs (estimated from its weights)"
    before = "before" if stop["side"] == "input" else "after"
    size = facts["bytes"]
    lines = [f"stops      {before} {stop['module']}: {share}"]
    if facts["generation"] is not None:
        lines = _generating(facts["generation"])
    waiting = [capture["name"] for capture in facts["captures"] if capture["waits"]]
    if facts["prediction"] is not None:
        whose = ", ".join(waiting) or "what asks for it"
        lines.append(f"waits      {whose}: for the model's prediction, at the end of each pass")
    batches = facts["batches"]
    if facts["generation"] is not None:
        batches = batches.replace("on the right", "on the left")
    lines.append(f"batches    {batches}")
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
        *_block("optimises", [f"{name:<11}{said}" for name, said in facts["saves"].items()]),
        f"memory     {memory}",
        f"writes     {rows}{written}, and some 20 kB that say what they are",
    ]


def _generating(facts: Mapping[str, Any]) -> list[str]:
    how = "each sample by itself, drawn by chance" if facts.get("do_sample") else "greedily"
    aside = ("max_new_tokens", "do_sample", "ends")
    given = ", ".join(f"{name} {value}" for name, value in facts.items() if name not in aside)
    new = _count(facts["max_new_tokens"], "token")
    ends = f", or until {' or '.join(facts['ends'])}" if facts["ends"] else ""
    return [
        f"generates  at most {new} behind each prompt{ends}; {how}{f' ({given})' if given else ''}",
        "           each token is fed once, with the cache; the last one is never fed",
    ]


def _block(title: str, lines: list[str]) -> list[str]:
    heads = [title, *[""] * (len(lines) - 1)] if lines else []
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


def as_json(plan: Plan, coming: Sequence[Outlook] = (), stored: str | None = None) -> str:
    """The plan as JSON, stable in its keys and their order."""
    facts = {**describe(plan, coming), **({} if stored is None else {"stored": stored})}
    return json.dumps(facts, indent=2, ensure_ascii=False) + "\n"


def as_mermaid(plan: Plan, coming: Sequence[Outlook] = (), stored: str | None = None) -> str:
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


FORMATS: Mapping[str, Callable[[Plan, Sequence[Outlook], str | None], str]] = {
    "text": as_text,
    "json": as_json,
    "mermaid": as_mermaid,
}
