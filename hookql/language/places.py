"""Where `into` may write: below the output folder, unless the user lets a query write anywhere."""

from __future__ import annotations

from pathlib import Path, PurePosixPath, PureWindowsPath

from hookql.errors import Diagnostic, QueryError
from hookql.language.query import CaptureSpec, Query


def check_into(query: Query, anywhere: bool, folder: Path | None = None) -> None:
    """Refuse `into` files outside the output folder, as far as their names say so.

    With ``folder``, the output folder, also those that a symbolic link below it leads out.

    Raises:
        QueryError: with each of them, unless ``anywhere``.
    """
    if anywhere:
        return
    problems = []
    for capture in query.captures:
        wrong = capture.into and (_named_outside(capture.into) or _led_outside(capture, folder))
        if wrong:
            message = f"this file's path {wrong}"
            help = (
                "name the file alone, and its folder with the output; or, if you trust the query, "
                "`--into-anywhere` (from Python: into_anywhere=True)"
            )
            span = capture.into_span
            problems.append(Diagnostic("bad-file", message, span, query.source, help))
    if problems:
        raise QueryError(problems)


def _named_outside(path: str) -> str | None:
    posix, windows = PurePosixPath(path), PureWindowsPath(path)
    if posix.is_absolute() or windows.drive or windows.root or path.startswith("~"):
        return "is not relative to the output folder"
    if ".." in (*posix.parts, *windows.parts):
        return "leads out of the output folder"
    return None


def _led_outside(capture: CaptureSpec, folder: Path | None) -> str | None:
    if folder is None or capture.into is None:
        return None
    try:
        inside = (folder / capture.into).resolve().is_relative_to(folder.resolve())
    except (OSError, RuntimeError):  # links that lead round in a circle
        inside = False
    return None if inside else "leads out of the output folder by a link"
