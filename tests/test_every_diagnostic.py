"""Every diagnostic has a golden file, so that what users read is looked at and kept."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import hookql
from tests.conftest import GOLDEN

CODE = re.compile(r"[a-z][a-z0-9]*(-[a-z0-9]+)*")
SOURCES = sorted(Path(hookql.__file__).parent.rglob("*.py"))
TREES = [ast.parse(path.read_text(encoding="utf-8")) for path in SOURCES]


def test_every_diagnostic_has_a_golden_file() -> None:
    """A code that no golden file shows is a message that nobody has read."""
    shown: set[str] = set()
    for path in GOLDEN.rglob("*.txt"):
        found = re.findall(r"^(?:error|warning)\[(.+?)\]:", path.read_text("utf-8"), re.MULTILINE)
        shown.update(found)
    assert [] == sorted(codes() - shown)
    assert [] == sorted(shown - codes()), "no source has these, or they are not collected"


def test_codes_can_be_collected() -> None:
    """Each code is a constant where it is given, or one bound to the name `code`."""
    factories = set(makers())
    assert {"Diagnostic", "Slip", "Misspelt", "_usage", "_error", "wrong"} <= factories
    for call, code in given(factories):
        forwarded = isinstance(code, ast.Name | ast.Attribute) and "code" == named(code)
        constant = isinstance(code, ast.Constant) and CODE.fullmatch(str(code.value))
        assert forwarded or constant, ast.unparse(call)


def codes() -> set[str]:
    """Every code that the package can report."""
    direct = [code for _, code in given(set(makers()))]
    found = [node.value for node in (*direct, *bound()) if isinstance(node, ast.Constant)]
    return {str(value) for value in found}


def makers() -> Iterator[str]:
    """The names of what takes a code first: functions of a `code`, classes with it as a field."""
    for tree in TREES:
        for node in ast.walk(tree):
            if isinstance(node, ast.ClassDef) and "code" == first_field(node):
                yield node.name
        yield from (name for name, first in functions(tree) if "code" == first)


def functions(tree: ast.AST) -> Iterator[tuple[str, str | None]]:
    """The functions and methods of a file, with the first parameter of each."""
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef) and node.name != "__init__":
            yield node.name, first_parameter(node)


def first_parameter(function: ast.FunctionDef) -> str | None:
    """The name of a function's first parameter, `self` aside."""
    names = [argument.arg for argument in function.args.args if argument.arg != "self"]
    return names[0] if names else None


def first_field(kind: ast.ClassDef) -> str | None:
    """The first field of an attrs class, or the first parameter of an `__init__`."""
    for node in kind.body:
        if isinstance(node, ast.AnnAssign):
            return named(node.target)
        if isinstance(node, ast.FunctionDef) and node.name == "__init__":
            return first_parameter(node)
    return None


def given(factories: set[str]) -> Iterator[tuple[ast.Call, ast.expr]]:
    """Each call of a maker, with what it is given as the code."""
    for tree in TREES:
        others = {name for name, first in functions(tree) if "code" != first}  # of the same name
        for node in ast.walk(tree):
            if isinstance(node, ast.Call) and named(node.func) in factories - others:
                named_so = [k.value for k in node.keywords if k.arg == "code"]
                yield from ((node, code) for code in [*node.args[:1], *named_so][:1])


def bound() -> Iterator[ast.expr]:
    """What is assigned to the name `code`, also by a condition or by a loop over tuples."""
    for tree in TREES:
        for node in ast.walk(tree):
            if isinstance(node, ast.Assign) and "code" == named(node.targets[0]):
                whole = node.value
                yield from (whole.body, whole.orelse) if isinstance(whole, ast.IfExp) else (whole,)
            match node:
                case ast.For(target=ast.Tuple([ast.Name("code"), *_]), iter=ast.Tuple(rows)):
                    yield from (row.elts[0] for row in rows if isinstance(row, ast.Tuple))


def named(node: ast.expr) -> str | None:
    """The last name of `a.b.name`, or a plain name."""
    if isinstance(node, ast.Attribute):
        return node.attr
    return node.id if isinstance(node, ast.Name) else None
