"""What can be wrong with a file that is exported."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from hookql.errors import Diagnostic, HookQLError


@contextmanager
def reading(path: Path) -> Iterator[None]:
    """Whatever the NetCDF library says of a file that is damaged, as one error."""
    try:
        yield
    except (OSError, RuntimeError, ValueError, AttributeError, KeyError, IndexError) as error:
        message = f"cannot read `{path}`: {getattr(error, 'strerror', None) or error}"
        raise HookQLError(Diagnostic("cannot-read", message)) from error


def unlike(path: Path, what: str) -> HookQLError:
    """The error of raw values that do not lie as they should."""
    message = f"`{path}` does not hold raw values as HookQL writes them: {what}"
    return HookQLError(Diagnostic("bad-layout", message))


def damaged(path: Path, what: str) -> HookQLError:
    """The error of a file that is not as it was written."""
    advice = f"`hookql verify {path}` says what else is wrong"
    return HookQLError(Diagnostic("damaged-file", f"`{path}` is damaged: {what}", help=advice))
