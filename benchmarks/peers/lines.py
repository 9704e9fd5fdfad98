"""How many lines of code a task took its user: read from the contestant's source."""

from __future__ import annotations

import ast


def lines_written(source: str, task: str) -> int:
    """Lines of a task's body and of every function or class of the file that it needs.

    The task's own `def` line, blank lines, comments and docstrings do not count. What the task
    needs is counted once and whole; so is what that needs. Imports and loading are not counted.
    """
    tree = ast.parse(source)
    kinds = ast.FunctionDef | ast.ClassDef
    known = {node.name: node for node in tree.body if isinstance(node, kinds)}
    needed, waiting = [task], [task]
    while waiting:
        for node in ast.walk(known[waiting.pop()]):
            if isinstance(node, ast.Name) and node.id in known and node.id not in needed:
                needed.append(node.id)
                waiting.append(node.id)
    text = source.splitlines()
    counted: set[int] = set()
    for name in needed:
        node = known[name]
        first = node.body[0].lineno if name == task else node.lineno
        spoken = {
            line
            for part in ast.walk(node)
            if isinstance(part, kinds) and ast.get_docstring(part) is not None
            for line in range(part.body[0].lineno, (part.body[0].end_lineno or 0) + 1)
        }
        counted |= set(range(first, (node.end_lineno or first) + 1)) - spoken
    return sum(1 for n in counted if text[n - 1].strip() and text[n - 1].strip()[0] != "#")
