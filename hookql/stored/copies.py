"""Result files out of a store: copies of what was kept that say where they come from."""

from __future__ import annotations

import os
from pathlib import Path

import netCDF4

from hookql.errors import Diagnostic, HookQLError
from hookql.raw.checksums import reseal
from hookql.raw.files import temporary_beside
from hookql.results.netcdf import check_target
from hookql.stored.entries import copy

FROM_STORE = "from_store"
"""The attribute that says of a result that it was kept: when, and how it comes again."""


def put(kept: Path, target: Path, said: str, overwrite: bool) -> None:
    """Copy a kept file to where a result is wanted, with ``from_store`` at its root.

    Whole or not at all. Raises UsageError as `check_target`, HookQLError if it cannot be written.
    """
    check_target(target, overwrite=overwrite)
    real = target.resolve()
    made = temporary_beside(real)
    try:
        copy(kept, made)
        with netCDF4.Dataset(made, "a") as file:
            file.setncattr(FROM_STORE, said)
            reseal(file)
        with made.open("rb+") as written:
            os.fsync(written.fileno())
        check_target(target, overwrite=overwrite)
        os.replace(made, real)
    except (OSError, RuntimeError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise HookQLError(
            Diagnostic("cannot-write", f"cannot write `{target}`: {reason}")
        ) from error
    finally:
        made.unlink(missing_ok=True)
