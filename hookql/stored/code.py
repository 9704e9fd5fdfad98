"""The code that a model runs: which classes, which functions, and whether they are the package's.

Versions say what a package's files hold. They do not say that somebody has put a function of his
own in the place of one of them, as faster kernels and many notebooks do. So every function is told
by what it was compiled to, and one from outside the installed packages is refused: what it computes
depends on more than can be seen of it.
"""

from __future__ import annotations

import functools
import hashlib
import operator
import sys
import sysconfig
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from types import BuiltinFunctionType, CodeType, FunctionType, MethodType, ModuleType
from typing import Any

from attrs import define, field, frozen

from hookql.stored.telling import Strange

_PACKAGES = ("torch", "transformers")
# What else every class stands on.
_BASES = ("builtins", "typing", "abc", "collections", "collections.abc", "enum", "contextlib")
_NO_CODE = (int, float, bool, str, bytes)
_CODES: dict[int, tuple[CodeType, bytes]] = {}


def from_packages(kind: type) -> bool:
    """Whether a class is torch's or transformers'."""
    return kind.__module__.partition(".")[0] in _PACKAGES


def code_of(kinds: Iterable[type]) -> str:
    """A hash of the code of these classes, of their bases and of the modules they stand in.

    Raises Strange where some of it is not torch's or transformers'.

    The names of some 1,500 modules and classes are gone through: what they stand for is remembered,
    and only looked at again while every name stands for the very same object.
    """
    asked = frozenset(kinds)
    known = _GATHERED.get(asked)
    if known is None or not known.holds():
        found = _gathered(asked)
        known = _Known(found.digest(), _Snapshot.of(found.spaces, found.functions))
        _GATHERED[asked] = known
    constants = "\n".join(_constants(asked))
    return hashlib.sha256(f"{known.digest}\n{constants}".encode()).hexdigest()


def _constants(kinds: Iterable[type]) -> Iterator[str]:
    """The numbers and texts that stand in the classes, and in the modules that define models."""
    spaces: dict[str, Mapping[str, Any]] = {}
    for kind in kinds:
        for base in kind.__mro__:
            spaces[f"{base.__module__}.{base.__qualname__}"] = vars(base)
            if base.__module__.startswith("transformers.models."):
                spaces[base.__module__] = vars(sys.modules[base.__module__])
    for where in sorted(spaces):
        for name, value in spaces[where].items():
            if type(value) in _NO_CODE and not name.startswith("__"):
                yield f"{where}.{name}={value!r}"


def _gathered(kinds: frozenset[type]) -> _Code:
    found = _Code()
    for kind in sorted(kinds, key=lambda kind: (kind.__module__, kind.__qualname__)):
        for base in kind.__mro__:
            if not from_packages(base) and base.__module__ not in _BASES:
                raise Strange(
                    f"`{base.__module__}.{base.__qualname__}` is not code of torch or transformers"
                )
            found.add_class(base)
            found.add_module(base.__module__)
    found.add_module("torch")
    found.add_module("torch.nn.functional")
    found.add_class(sys.modules["torch"].Tensor)
    return found


@frozen(eq=False)
class _Snapshot:
    """What names stood for, by identity; the objects are held, so that none takes another's id."""

    spaces: list[tuple[Any, list[str], list[Any]]]
    functions: list[FunctionType]
    insides: list[Any]

    @classmethod
    def of(cls, spaces: Iterable[Any], functions: Iterable[FunctionType]) -> _Snapshot:
        """The names in these dictionaries, and what these functions are made of, as of now."""
        each = list({id(function): function for function in functions}.values())
        return cls([(s, list(s), list(s.values())) for s in spaces], each, _insides(each))

    def holds(self) -> bool:
        """Whether all of it is as it was."""
        for space, names, values in self.spaces:
            if list(space) != names:
                return False
            untouched = all(map(operator.is_, space.values(), values))
            if not untouched and not all(map(_same, space.values(), values)):
                return False
        return all(map(operator.is_, _insides(self.functions), self.insides))


def _same(new: Any, old: Any) -> bool:
    """Whether a name's new value is no other code: numbers that count something are none."""
    return new is old or (type(new) is type(old) and type(new) in _NO_CODE)


def _insides(functions: list[FunctionType]) -> list[Any]:
    """The code and the defaults of functions, and what they are closed over, one after another."""
    found: list[Any] = [function.__code__ for function in functions]
    found += [function.__defaults__ for function in functions]
    found += [function.__kwdefaults__ for function in functions]
    for function in functions:
        if function.__closure__:
            found += [c.cell_contents if _filled(c) else None for c in function.__closure__]
    return found


@frozen(eq=False)
class _Known:
    digest: str
    snapshot: _Snapshot

    def holds(self) -> bool:
        return self.snapshot.holds()


_GATHERED: dict[frozenset[type], _Known] = {}


@define
class _Code:
    """Code gathered so far, each piece once."""

    lines: list[bytes] = field(factory=list)
    done: set[int] = field(factory=set)
    waiting: list[str] = field(factory=list)
    spaces: list[Any] = field(factory=list)
    functions: list[FunctionType] = field(factory=list)

    def digest(self) -> str:
        """A hash of all of it, of the modules that wait too."""
        while self.waiting:
            self._module(self.waiting.pop())
        return hashlib.sha256(b"\n".join(sorted(self.lines))).hexdigest()

    def add_module(self, name: str) -> None:
        """The functions and classes that a package's module calls by their names."""
        if name not in self.waiting and name.partition(".")[0] in _PACKAGES:
            self.waiting.append(name)

    def _module(self, name: str) -> None:
        module = sys.modules.get(name)
        if not isinstance(module, ModuleType) or id(module) in self.done:
            return
        self.done.add(id(module))
        self.spaces.append(vars(module))
        for own, value in list(vars(module).items()):
            if own.startswith("__"):
                continue
            self._named(f"{name}.{own}", value)
            # One step further: what a model's own module takes from others of transformers.
            origin = getattr(value, "__module__", None)
            code = isinstance(value, FunctionType | type) and isinstance(origin, str)
            if code and str(origin).startswith("transformers."):
                self.add_module(str(origin))

    def add_class(self, kind: type) -> None:
        """A class's own functions."""
        if id(kind) in self.done or kind.__module__ in _BASES:
            return
        self.done.add(id(kind))
        self.spaces.append(vars(kind))
        where = f"{kind.__module__}.{kind.__qualname__}"
        for name, value in list(vars(kind).items()):
            self._named(f"{where}.{name}", value)

    def _named(self, where: str, value: Any) -> None:
        """What a name stands for, as far as that is code."""
        if isinstance(value, type):
            self.lines.append(f"{where}={value.__module__}.{value.__qualname__}".encode())
            if from_packages(value):
                self.add_class(value)
            else:
                _check_class(where, value)
        elif type(value) is dict:
            self.spaces.append(value)
            for key, item in list(value.items()):
                if callable(item):
                    self._named(f"{where}[{key!r}]", item)
        elif isinstance(value, BuiltinFunctionType):
            self.lines.append(f"{where}={value.__module__}.{value.__qualname__}".encode())
        else:
            for function in _functions(value):
                self.functions.append(function)
                self.lines.append(where.encode() + b"=" + _told(where, function))
            if from_packages(type(value)) and type(getattr(value, "__dict__", None)) is dict:
                self.spaces.append(vars(value))
                for name, item in list(vars(value).items()):
                    if type(item) is dict:
                        self._named(f"{where}.{name}", item)


def _functions(value: Any) -> Iterator[FunctionType]:
    """The Python functions that a value calls when it is called, its decorators' too."""
    waiting, seen = [value], set()
    while waiting:
        each = waiting.pop()
        if id(each) in seen:
            continue
        seen.add(id(each))
        if isinstance(each, FunctionType):
            yield each
            closed = each.__closure__ or ()
            inner = [c.cell_contents for c in closed if _filled(c)]
            waiting += [v for v in inner if isinstance(v, FunctionType | functools.partial)]
        elif isinstance(each, staticmethod | classmethod | MethodType):
            waiting.append(each.__func__)
        elif isinstance(each, property):
            waiting += [each.fget, each.fset]
        elif isinstance(each, functools.partial):
            waiting.append(each.func)


def _filled(cell: Any) -> bool:
    try:
        cell.cell_contents  # noqa: B018
    except ValueError:
        return False
    return True


def function_told(where: str, value: Any) -> bytes:
    """What a function that a module holds as an attribute computes. Raises Strange if unknown."""
    if isinstance(value, BuiltinFunctionType):
        return f"{value.__module__}.{value.__qualname__}".encode()
    return b"|".join(_told(where, function) for function in _functions(value))


def _told(where: str, function: FunctionType) -> bytes:
    code = function.__code__
    if not _installed(code.co_filename, function):
        name = f"{function.__module__}.{function.__qualname__}"
        raise Strange(f"`{where}` is `{name}`, which is no code of an installed package")
    plain = (function.__defaults__ or (), function.__kwdefaults__ or {})
    return _code_bytes(code) + repr([_shown(v) for v in _values(plain)]).encode()


def _values(given: tuple[Any, dict[str, Any]]) -> list[Any]:
    return [*given[0], *given[1].items()]


def _shown(value: Any) -> str:
    """A default as text; of one whose text would be an address, its kind."""
    text = repr(value)
    return type(value).__qualname__ if " at 0x" in text or len(text) > 1000 else text


def _code_bytes(made: CodeType) -> bytes:
    """What a function was compiled to, remembered with it so that no other takes its id."""
    known = _CODES.get(id(made))
    if known is not None:
        return known[1]
    digest = hashlib.sha256(f"{made.co_qualname}:{made.co_firstlineno}:".encode())
    digest.update(made.co_code)
    digest.update(repr((made.co_names, made.co_varnames, made.co_freevars)).encode())
    for constant in made.co_consts:
        inner = isinstance(constant, CodeType)
        digest.update(_code_bytes(constant) if inner else _constant(constant))
    _CODES[id(made)] = made, digest.digest()
    return digest.digest()


def _constant(value: Any) -> bytes:
    """A constant of compiled code; a frozen set's members in an order."""
    if isinstance(value, frozenset):
        return f"frozenset{sorted(map(repr, value))}".encode()
    if isinstance(value, tuple):
        return b"(" + b",".join(_constant(item) for item in value) + b")"
    return f"{type(value).__name__}{value!r}".encode()


@functools.cache
def _roots() -> tuple[str, ...]:
    """Where installed code lies."""
    paths = sysconfig.get_paths()
    found = [paths[name] for name in ("stdlib", "platstdlib", "purelib", "platlib")]
    for package in (*_PACKAGES, "hookql"):
        found += list(getattr(sys.modules.get(package), "__path__", ()))
    resolved = {str(Path(each).resolve()) for each in found}
    return tuple(f"{each}/" for each in sorted({*found, *resolved}))


def _installed(file: str, function: FunctionType) -> bool:
    if file.startswith("<"):  # a data class's: as the module that it is made for
        made_for = str(function.__globals__.get("__name__"))
        if made_for.startswith("namedtuple_"):
            return True
        module = sys.modules.get(made_for)
        own = getattr(module, "__file__", None)
        frozen = file.startswith("<frozen ")
        return frozen or (own is not None and own.startswith(_roots()))
    return file.startswith(_roots())


def _check_class(where: str, kind: type) -> None:
    """Refuse a class of the user's own that stands in the place of one of a package."""
    module = sys.modules.get(kind.__module__)
    file = getattr(module, "__file__", None)
    built_in = module is not None and file is None and kind.__module__ != "__main__"
    if not built_in and not (file is not None and file.startswith(_roots())):
        name = f"{kind.__module__}.{kind.__qualname__}"
        raise Strange(f"`{where}` is `{name}`, which is no code of an installed package")
