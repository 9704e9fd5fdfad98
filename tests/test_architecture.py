"""The shape of the house: who may import whom, and what only one file may do."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import hookql

ROOT = Path(hookql.__file__).parent
# A module may import what stands on its own floor or on a lower one.
FLOORS = [
    ["errors"],
    ["language"],
    ["statistics", "extending"],
    ["expressions"],
    ["data", "predicates", "models", "demo"],
    ["selection"],
    ["jobs"],
    ["detectors"],
    ["plan"],
    ["assembly"],
    ["binding", "binding_errors", "conditions"],
    ["engines"],
    ["optimizer"],
    ["results", "raw", "checkpoint", "exports", "attached", "training"],
    ["options", "source", "given", "work", "progress", "interrupts"],
    ["running", "stored"],
    [
        "known",
        "loading",
        "planning",
        "execute",
        "description",
        "explanation",
        "verifying",
        "live",
        "together",
        "several",
    ],
    ["api"],
    ["configs"],
    ["arguments", "commands", "cli", "", "__main__"],
]
# Where only names are looked up, inside a function, a floor up; and what is imported for types.
EXCEPTIONS = {("language.resolve", "statistics"), ("data", "data")}


def sources() -> list[Path]:
    """Every file of the package."""
    return sorted(ROOT.rglob("*.py"))


def name_of(path: Path) -> str:
    """``models.hooks`` for hookql/models/hooks.py."""
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def floor(name: str) -> int:
    """The floor of a module, by its first part."""
    first = name.partition(".")[0]
    found = [number for number, names in enumerate(FLOORS) if first in names]
    assert found, f"hookql/{first} stands on no floor: add it to FLOORS"
    return found[0]


def imports(tree: ast.Module) -> Iterator[tuple[str, int, bool]]:
    """(module, line, whether it is only for types) of every import, those in functions too."""
    only_types = {
        id(inner)
        for node in ast.walk(tree)
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test)
        for inner in ast.walk(node)
    }
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield alias.name, node.lineno, id(node) in only_types
        elif isinstance(node, ast.ImportFrom):
            assert not node.level, "imports are absolute"
            yield str(node.module), node.lineno, id(node) in only_types


@pytest.mark.parametrize("path", sources(), ids=name_of)
def test_imports_go_downwards(path: Path) -> None:
    """No floor knows what is built on top of it."""
    name = name_of(path)
    for module, line, only_types in imports(ast.parse(path.read_text(encoding="utf-8"))):
        if not module.startswith("hookql") or only_types:
            continue
        wanted = module.removeprefix("hookql").removeprefix(".")
        wanted = wanted if wanted != "grammar" else ""
        if (name, wanted) in EXCEPTIONS or module.startswith("hookql.grammar"):
            continue
        if wanted == "" and name == "cli":
            continue  # its version
        assert floor(wanted) <= floor(name), f"{name}:{line} imports {module}, a floor above it"


def test_the_known_exceptions_are_still_there() -> None:
    """An exception that nothing needs any more is removed from the list."""
    path = ROOT / "language" / "resolve.py"
    found = [m for m, _, _ in imports(ast.parse(path.read_text(encoding="utf-8")))]
    assert "hookql.statistics" in found


def calls(path: Path) -> set[str]:
    """The names of all methods and functions that a file calls or mentions as attributes."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    return {node.attr for node in ast.walk(tree) if isinstance(node, ast.Attribute)}


def test_only_one_file_registers_hooks() -> None:
    """hookql/models/hooks.py keeps the promise of removing them; nobody else may register any."""
    registering = [
        name_of(path)
        for path in sources()
        if any(re.match(r"register_(?!(un)?structure).*hook", call) for call in calls(path))
    ]
    assert ["models.hooks"] == registering


def test_nobody_switches_a_models_mode() -> None:
    """`train()`, `requires_grad_` and gradient modes are changed (and restored) in hooks.py alone.

    But for what proves that nobody wrote into a tensor, which computes without gradients.

    A model that HookQL loads itself is put into evaluation mode once.
    """
    switching = {"train", "requires_grad_", "set_grad_enabled", "no_grad", "inference_mode",
                 "manual_seed_all", "use_deterministic_algorithms"}  # fmt: skip
    found = {name_of(path) for path in sources() if calls(path) & switching}
    assert {"models.hooks", "models.paranoid"} == found
    evaluating = {name_of(path) for path in sources() if "eval" in calls(path)}
    assert {"models.load"} == evaluating


def test_only_the_parser_knows_lark() -> None:
    """Another parser generator would change one file."""
    knowing = {
        name_of(path)
        for path in sources()
        for module, _, _ in imports(ast.parse(path.read_text(encoding="utf-8")))
        if module.partition(".")[0] == "lark"
    }
    assert {"language.parser"} == knowing


@pytest.mark.parametrize("module", ["hookql", "hookql.cli", "hookql.language.resolve",
                                    "hookql.statistics", "hookql.options"])  # fmt: skip
def test_light_modules_import_no_torch(module: str) -> None:
    """What `check` and `fmt` need starts fast, the registry of statistics included."""
    program = (
        f"import sys, {module}\n"
        "from hookql.statistics import STATISTICS\n"
        "sorted(STATISTICS)\n"
        "print([m for m in ('torch', 'transformers', 'xarray', 'netCDF4') if m in sys.modules])\n"
    )
    command = [sys.executable, "-c", program]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert "[]\n" == done.stdout


def public(tree: ast.Module) -> Iterator[ast.FunctionDef | ast.ClassDef]:
    """The public functions and classes at a file's top level."""
    for node in tree.body:
        if isinstance(node, ast.FunctionDef | ast.ClassDef) and not node.name.startswith("_"):
            yield node


@pytest.mark.parametrize("path", sources(), ids=name_of)
def test_everything_public_says_what_it_is(path: Path) -> None:
    """Every file, public function and public class has a docstring."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    assert ast.get_docstring(tree)
    silent = [node.name for node in public(tree) if not ast.get_docstring(node)]
    assert [] == silent


def _tests() -> list[Path]:
    """Every file of tests."""
    return sorted(Path(__file__).parent.rglob("test_*.py"))


@pytest.mark.parametrize("path", _tests(), ids=lambda path: path.stem)
def test_every_test_says_what_it_shows(path: Path) -> None:
    """A test without a docstring is a riddle; one without an assertion shows nothing."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    assert ast.get_docstring(tree)
    found = [
        node
        for node in ast.walk(tree)
        if isinstance(node, ast.FunctionDef) and node.name.startswith("test_")
    ]
    assert [] == [node.name for node in found if not ast.get_docstring(node)]
    names = [node.name for node in found]
    assert [] == sorted({name for name in names if names.count(name) > 1})


def test_the_package_is_complete() -> None:
    """Every folder with Python files is listed for the wheel."""
    text = (ROOT.parent / "pyproject.toml").read_text(encoding="utf-8")
    packages = {p.parent.relative_to(ROOT.parent).as_posix() for p in sources()}
    missing = [p for p in packages if f'"{p.replace("/", ".")}"' not in text]
    assert [] == missing
