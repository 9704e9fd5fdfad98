"""Pieces from outside: statistics, columns, functions and families of other packages.

Importing a module of a package offers its pieces (see `plugins`), as running a cell of a notebook
does. Nothing here imports torch.
"""

from __future__ import annotations

import hashlib
import inspect
import re
from collections.abc import Callable, Collection, Iterator, Mapping
from importlib.metadata import packages_distributions, version
from typing import Any, Generic, NoReturn, TypeVar

from attrs import define, frozen

from hookql.errors import Diagnostic, UsageError, raised_in
from hookql.language import names
from hookql.language.functions import FUNCTIONS
from hookql.language.words import RESERVED

_NAME = re.compile(r"[A-Za-z]\w*", re.ASCII)
OURS = frozenset(
    {
        *names.DEFINED,
        *names.KEYS,
        *names.PHASES,
        *names.SPEAKERS,
        *names.DIMENSIONS,
        *names.RESULT_NAMES,
        *RESERVED,
        *FUNCTIONS,
    }
)
"""The words of HookQL itself, less its statistics, which know themselves."""


@frozen
class Piece:
    """One piece: a ``statistic``, ``column``, ``function`` or ``family``, and whose it is.

    ``origin`` is the full name of the class or function it was made of, ``package`` the
    distribution whose entry point brought it; None where it came otherwise. ``code`` is a hash of
    its source, "" where there is none to be had.
    """

    kind: str
    name: str
    module: str
    origin: str
    package: str | None
    value: Any
    code: str = ""

    @property
    def owner(self) -> str:
        """Whose it is, in words: ``the package `hookql-gini` ``."""
        package = self.package or _package_of(self.module)
        return f"the package `{package}`" if package else f"`{self.module}`"

    def __str__(self) -> str:
        return f"the {self.kind} `{self.name}` of {self.owner}"


PIECES: dict[tuple[str, str], Piece] = {}
"""Every piece by kind and name."""


@define
class _Loading:
    """Which groups have been read, and the package that is being read."""

    done: set[str]
    package: str | None = None


LOADING = _Loading(set())


def check_name(kind: str, name: object) -> None:
    """Raise UsageError for a name that is no text, as where a call was left out."""
    if not isinstance(name, str):
        message = f"the name of a {kind} is a text, not `{type(name).__name__}`"
        help = f'write `@hookql.{kind}("name")` above it'
        raise UsageError(Diagnostic("bad-extension", message, help=help))


def draft(kind: str, name: str, made: Any, value: Any = None) -> Piece:
    """A piece made of a class or function, not yet taken in."""
    module = str(getattr(made, "__module__", None) or type(made).__module__)
    origin = f"{module}.{getattr(made, '__qualname__', name)}"
    try:
        source = inspect.getsource(made)
    except (OSError, TypeError):  # typed into a prompt, or made by no `def`
        source = ""
    known = f"sha256:{hashlib.sha256(source.encode()).hexdigest()[:16]}" if source else ""
    return Piece(kind, name, module, origin, LOADING.package, value, known)


def offer(piece: Piece, others: Collection[str] = ()) -> None:
    """Take in a piece; the same one again takes its own place.

    ``others`` are words of HookQL itself beside `OURS`. Raises UsageError for a name that is none,
    or is taken.
    """
    name = piece.name
    if not _NAME.fullmatch(name):
        refuse(piece, "its name is no word of the language", "write ASCII letters, digits and `_`")
    if name in OURS or name in others:
        _clash(f"{piece} has the name of a word of HookQL itself")
    for (_, taken), other in PIECES.items():
        if taken == name and not (_again(other, piece) and other.kind == piece.kind):
            _clash(f"{other} and {piece} have one name")
    PIECES[piece.kind, name] = piece


def offer_family(piece: Piece, model: str) -> None:
    """Take in a table of canonical sites for models of that class or type."""
    other = PIECES.get(("family", model))
    if other is not None and not _again(other, piece):
        _clash(f"{other} and {piece} are both for `{model}`")
    PIECES["family", model] = piece


def _again(old: Piece, new: Piece) -> bool:
    """Whether a piece is meant to take another's place: what a notebook defines anew is, too."""
    return old.origin == new.origin or old.module == new.module == "__main__"


def _clash(message: str) -> NoReturn:
    help = "rename one of them, or uninstall its package"
    raise UsageError(Diagnostic("name-clash", message, help=help))


def refuse(piece: Piece, why: str, help: str | None = None) -> NoReturn:
    """Raise UsageError for a piece that cannot be used."""
    raise UsageError(Diagnostic("bad-extension", f"{piece} cannot be used: {why}", help=help))


def failed(piece: Piece, doing: str, error: Exception) -> Diagnostic:
    """What is said of a piece that raised an error, and where in its code that was."""
    notes = (f"{type(error).__name__}: {error}{raised_in(error, piece.module)}",)
    return Diagnostic("extension-failed", f"{piece} failed {doing}", notes=notes)


def wrong_result(piece: Piece, message: str, notes: tuple[str, ...] = ()) -> Diagnostic:
    """What is said of a piece whose result is none."""
    return Diagnostic("wrong-result", f"{piece} {message}", notes=notes)


def used_in(text: str) -> dict[str, str]:
    """The pieces that a query's text names, each with whose it is and a hash of its code.

    ``{"statistic gini": "the package `hookql-gini` 1.0, sha256:..."}``; for what a run depends on.
    """
    words = set(re.findall(r"\w+", text))
    found = {}
    for piece in PIECES.values():
        if piece.name in words and piece.kind != "family":
            package = piece.package or _package_of(piece.module)
            number = f" {version(package)}" if package else ""
            known = f", {piece.code}" if piece.code else ""
            found[f"{piece.kind} {piece.name}"] = f"{piece.owner}{number}{known}"
    return found


def _package_of(module: str) -> str | None:
    """The distribution that a module came with, if it came with one."""
    found = packages_distributions().get(module.partition(".")[0])
    return found[0] if found else None


Made = TypeVar("Made")


class Known(Mapping[str, Made], Generic[Made]):
    """A table of HookQL's own things by name, and those made of the pieces of one kind."""

    def __init__(
        self, kind: str, make: Callable[[Piece], Made], has: Callable[[Piece], bool] | None = None
    ) -> None:
        """``make`` of a piece is called once; ``has`` says which pieces are in the table: all."""
        self.own: dict[str, Made] = {}
        self._kind, self._make = kind, make
        self._has = has or (lambda piece: True)
        self._made: dict[str, tuple[Piece, Made]] = {}

    def __getitem__(self, name: str) -> Made:
        if name in self.own:
            return self.own[name]
        piece = PIECES.get((self._kind, name))
        if piece is None or not self._has(piece):
            raise KeyError(name)
        known = self._made.get(name)
        if known is None or known[0] is not piece:
            known = self._made[name] = piece, self._make(piece)
        return known[1]

    def __iter__(self) -> Iterator[str]:
        yield from self.own
        for (kind, name), piece in PIECES.items():
            if kind == self._kind and self._has(piece):
                yield name

    def __len__(self) -> int:
        return sum(1 for _ in self)
