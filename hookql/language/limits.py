"""How much a query may ask for: far more than anybody writes, far less than memory holds.

Each of these things costs memory or time once for each other: a site is matched against all
modules, a statistic is kept for every site, a pattern is looked for in all texts.
"""

from __future__ import annotations

from collections import Counter
from typing import Any

from hookql.errors import Diagnostic, Source, Span

IN_A_QUERY = {
    "capture": (1_000, "captures"),
    "statistic": (1_000, "statistics"),
    "site": (1_000, "sites"),
    "regex": (100, "patterns"),
    "index": (10_000, "indices"),
}
"""How many of each a query may have."""

IN_ONE = {
    "path": (100, "steps", "this path"),
    "by": (32, "keys", "this `by`"),
    "pool": (32, "dimensions", "this `pool`"),
    "arguments": (1_000, "arguments", "this call"),
}
"""How many children one node of the parse tree may have."""

LONGEST_PATTERN = 10_000
"""Characters of a regular expression: compiling takes up to a hundredth of a millisecond each."""

_KINDS = {
    "path_site": "site",
    "canonical_site": "site",
    "except_path": "site",
    "integer": "index",
    "slice": "index",
}


def excess(tree: Any, source: Source) -> Diagnostic | None:
    """What a parse tree has too much of, or None; not recursive.

    ``tree`` is duck-typed as in `build`: ``data``, ``children`` and ``meta``.
    """
    seen: Counter[str] = Counter()
    waiting = [tree]
    while waiting:
        node = waiting.pop()
        name = str(node.data)
        kind = _KINDS.get(name, name)
        seen[kind] += 1
        most, many = IN_A_QUERY.get(kind, (0, ""))
        if most and seen[kind] > most:
            return _too_many(f"a query has at most {most:,} {many}", node, source)
        most, many, what = IN_ONE.get(name, (0, "", ""))
        if most and len(node.children) > most:
            return _too_many(f"{what} has more than {most:,} {many}", node, source)
        if name == "regex" and len(node.children[0]) > LONGEST_PATTERN:
            message = f"a pattern has at most {LONGEST_PATTERN:,} characters"
            return _too_many(message, node, source)
        # Turned round, so that the first that is too much is the first of the text.
        waiting += [child for child in reversed(node.children) if not isinstance(child, str)]
    return None


def _too_many(message: str, node: Any, source: Source) -> Diagnostic:
    start = getattr(node.meta, "start_pos", 0)
    end = getattr(node.meta, "end_pos", start + 1)
    return Diagnostic("too-many", message, Span(start, end), source)
