"""Plug-ins: modules that installed packages name under entry points, and what goes wrong there."""

from __future__ import annotations

import threading
from importlib.metadata import EntryPoint, entry_points

from hookql.errors import Diagnostic, HookQLError, UsageError
from hookql.language.pieces import LOADING

WORDS = ("hookql.statistics", "hookql.columns", "hookql.functions")
"""Entry-point groups whose pieces are words of a query; they are read before any query is."""

FAMILIES = "hookql.families"
"""The group of tables of canonical sites, which are read when a model's are asked for."""

_LOCK = threading.RLock()


def load_plugins(*groups: str) -> None:
    """Import what installed packages name under these groups, or `WORDS`; once, if all goes well.

    Raises UsageError for a package that cannot be imported, or whose pieces cannot be used.
    """
    with _LOCK:
        missing = [group for group in groups or WORDS if group not in LOADING.done]
        if not missing:
            return
        LOADING.done.update(missing)  # a package that asks for statistics is not read again
        try:
            found = [p for group in missing for p in entry_points(group=group)]
            for plugin in sorted(found, key=lambda p: (p.group, p.name, p.value)):
                _load(plugin)
        except BaseException:
            # An error is told at every look, not only at the first.
            LOADING.done.difference_update(missing)
            raise


def _load(plugin: EntryPoint) -> None:
    before = LOADING.package
    LOADING.package = None if plugin.dist is None else plugin.dist.name
    try:
        plugin.load()
    except HookQLError:
        raise
    except (Exception, SystemExit) as error:  # whatever it does, the user learns whose it is
        package = f" of the package `{plugin.dist.name}`" if plugin.dist is not None else ""
        what = plugin.group.removeprefix("hookql.")
        raise UsageError(
            Diagnostic(
                "broken-plugin",
                f"the {what} plug-in `{plugin.value}`{package} cannot be loaded",
                help="update or uninstall it",
                notes=(f"{type(error).__name__}: {error}",),
            )
        ) from error
    finally:
        LOADING.package = before
