"""The chart of the README: how many times HookQL's time the others take, as an SVG file."""

from __future__ import annotations

import math
from collections.abc import Mapping
from html import escape

from benchmarks.peers.environments import CONTESTANTS
from benchmarks.peers.models import NAMES
from benchmarks.peers.report import Row
from benchmarks.peers.tasks import TASKS

# Colours that stand apart on white and on black, for eyes that see few colours too (Okabe and Ito).
COLOURS = {
    "with_hookql": "#0072b2",
    "by_expert": "#009e73",
    "by_hand": "#8c8c8c",
    "with_nnsight": "#e69f00",
    "with_transformer_lens": "#d55e00",
    "with_mi_crow": "#cc79a7",
}
LEFT, WIDTH, TOP, STEP = 300, 880, 76, 26
STYLE = """<style>
text { font: 13px system-ui, sans-serif; fill: #1f2328; }
.small { font-size: 11px; }
line { stroke: #1f2328; stroke-opacity: 0.15; }
@media (prefers-color-scheme: dark) {
  text { fill: #e6edf3; }
  line { stroke: #e6edf3; stroke-opacity: 0.2; }
}
</style>"""


def chart(results: Mapping[str, Mapping[str, Row]]) -> str:
    """A dot for each contestant and task, on a logarithmic scale, a panel for each model.

    The background is transparent and the ink follows the reader's colour scheme.
    """
    found = [
        (model, task, name, ratio)
        for model, tasks in results.items()
        for task, cells in tasks.items()
        for name, ratio in ratios(cells).items()
    ]
    low = min([0.5, *(ratio for *_, ratio in found)])
    high = max([10.0, *(ratio for *_, ratio in found)]) * 1.2

    def across(ratio: float) -> float:
        share = (math.log(ratio) - math.log(low)) / (math.log(high) - math.log(low))
        return LEFT + share * (WIDTH - LEFT - 20)

    rows = sum(len(tasks) + 2 for tasks in results.values())
    height = TOP + rows * STEP
    ticks = [10.0**power for power in range(math.ceil(math.log10(low)), 1 + int(math.log10(high)))]
    parts = [
        '<text x="10" y="20">Time, as a multiple of HookQL\'s (less is faster)</text>',
        legend(),
    ]
    for tick in ticks:
        x = across(tick)
        parts.append(f'<line x1="{x:.0f}" x2="{x:.0f}" y1="{TOP - 6}" y2="{height - 30}"/>')
        parts.append(f'<text class="small" x="{x:.0f}" y="{height - 14}" text-anchor="middle">')
        parts.append(f"{tick:g}</text>")
    y = TOP
    for model, tasks in results.items():
        y += STEP
        parts.append(f'<text x="10" y="{y}" font-weight="bold">{escape(NAMES[model])}</text>')
        for task, cells in tasks.items():
            y += STEP
            parts.append(f'<text x="10" y="{y}" class="small">{escape(TASKS[task].title)}</text>')
            parts.append(f'<line x1="{LEFT}" x2="{WIDTH - 20}" y1="{y - 4}" y2="{y - 4}"/>')
            for name, ratio in ratios(cells).items():
                parts.append(dot(across(ratio), y - 4, name, ratio))
        y += STEP // 2
    head = (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" '
        f'width="{WIDTH}" height="{height}" role="img" aria-label="Time beside HookQL\'s">'
    )
    return "\n".join([head, STYLE, *parts, "</svg>\n"])


def ratios(cells: Row) -> dict[str, float]:
    """How many times HookQL's time each contestant took that has an answer."""
    ours = cells["with_hookql"].median if "with_hookql" in cells else None
    if not ours:
        return {}
    return {name: cell.median / ours for name, cell in cells.items() if cell.median is not None}


def dot(x: float, y: float, name: str, ratio: float) -> str:
    """One contestant's mark, with its name and ratio for who points at it."""
    title = f"<title>{escape(CONTESTANTS[name])}: {ratio:.2f}</title>"
    return f'<circle cx="{x:.1f}" cy="{y}" r="6" fill="{COLOURS[name]}">{title}</circle>'


def legend() -> str:
    """The contestants and their colours, in one line."""
    parts, x = [], 16
    for name, colour in COLOURS.items():
        parts.append(f'<circle cx="{x}" cy="42" r="6" fill="{colour}"/>')
        parts.append(f'<text class="small" x="{x + 12}" y="46">{escape(CONTESTANTS[name])}</text>')
        x += 40 + 8 * len(CONTESTANTS[name])
    return "\n".join(parts)
