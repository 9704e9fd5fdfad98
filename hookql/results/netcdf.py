"""Results as NetCDF files: written whole or not at all, read back as they were."""

from __future__ import annotations

import contextlib
import errno
import os
import shutil
from pathlib import Path

import xarray

from hookql.errors import Diagnostic, HookQLError, UsageError
from hookql.raw.checksums import seal
from hookql.raw.files import Begun, temporary_beside
from hookql.raw.room import full
from hookql.results.foreign import NotReadable, declared_bytes

LARGE = 2**30  # bytes of a file


def check_target(path: str | Path, *, overwrite: bool = False) -> None:
    """Raise UsageError unless a result could be saved there; better before a run than after it."""
    path = Path(path)
    try:
        str(path).encode()
        folder = path.resolve().parent
        path.stat()
    except FileNotFoundError:
        pass
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or "its name is no text in UTF-8"
        message = f"`{path}` cannot be the name of a result: {reason[:1].lower()}{reason[1:]}"
        raise _usage("bad-file", message) from None
    if path.is_dir():
        raise _usage("not-a-file", f"`{path}` is a folder")
    if path.exists() and not path.is_file():
        raise _usage("not-a-file", f"`{path}` is not a regular file")
    if path.exists() and not overwrite:
        advice = "give another name, or `--overwrite` (from Python: overwrite=True)"
        raise _usage("file-exists", f"`{path}` exists already", advice)
    if not folder.is_dir():
        raise _usage("no-such-folder", f"there is no folder `{path.parent}` to write `{path}` in")
    if not os.access(folder, os.W_OK | os.X_OK):
        message = f"the folder `{path.parent}` cannot be written to"
        raise _usage("not-writable", message, "give a file in another folder")


def save(
    tree: xarray.DataTree,
    path: str | Path,
    overwrite: bool = False,
    begun: Begun | None = None,
    token: str | None = None,
) -> None:
    """Write a tree to a NetCDF-4 file, uncompressed, under a temporary name until it is whole.

    Whatever happens meanwhile, a file that was there stays as it was and no temporary file is left.
    ``begun`` is a file that has the raw rows already, to which the rest of the tree is added;
    ``token`` as of `temporary_beside`.
    Raises UsageError where `check_target` does, HookQLError if writing fails (a full disk).
    """
    check_target(path, overwrite=overwrite)
    target = Path(path).resolve()  # so that a link stays one, to the new file
    temporary = temporary_beside(target, token) if begun is None else begun.path
    try:
        if begun is None:
            _plain(tree).to_netcdf(
                temporary, engine="netcdf4", format="NETCDF4", encoding=_unfilled(tree)
            )
        else:
            _add(_plain(tree), begun)
        seal(temporary, {} if begun is None else begun.checksums)
        _sync(temporary)
        check_target(path, overwrite=overwrite)
        if target.exists():
            shutil.copymode(target, temporary)
        os.replace(temporary, target)
        _sync_folder(target.parent)
    except (OSError, RuntimeError) as error:  # netCDF's own errors are RuntimeErrors
        reason = getattr(error, "strerror", None) or str(error)
        if full(target.parent):  # which netCDF calls an "HDF error", or "permission denied"
            reason = os.strerror(errno.ENOSPC)
        message = f"cannot write `{path}`: {reason}"
        raise HookQLError(Diagnostic("cannot-write", message)) from error
    finally:
        temporary.unlink(missing_ok=True)


def load(path: str | Path) -> xarray.DataTree:
    """A saved tree: in memory, its file closed again; of a large one, read as it is used.

    Variables that take more than ``LARGE`` bytes together stay on disk until they are looked at, so
    that their file must stay. The file may be anybody's: a process of its own reads it first, which
    costs about 0.3 s. Raises UsageError for a file that is missing, no NetCDF or not HookQL's.
    """
    path = Path(path)
    if os.path.isdir(path):  # unlike Path's, False for what no file can be called
        raise _usage("not-netcdf", f"`{path}` is a folder, not a NetCDF file")
    if not os.path.isfile(path):
        raise _usage("no-such-file", f"there is no file `{path}`")
    if not os.access(path, os.R_OK):
        raise _usage("cannot-read", f"you have no permission to read `{path}`")
    try:
        # What it declares counts, not the file's size: a hole takes no room on a disk.
        small = declared_bytes(path, LARGE) <= LARGE
        tree = xarray.open_datatree(path, engine="netcdf4")
        if small:
            with tree:
                tree.load()
    except PermissionError as error:
        raise _usage("cannot-read", f"you have no permission to read `{path}`") from error
    except NotReadable as error:
        raise _usage("not-netcdf", f"`{path}` {error}") from error
    except Exception as error:  # xarray meets damage in as many ways as there are
        raise _usage("not-netcdf", f"`{path}` is not a whole NetCDF file") from error
    if "hookql_version" not in tree.attrs:
        tree.close()
        raise _usage(
            "not-hookql",
            f"`{path}` is a NetCDF file, but not one that HookQL wrote",
            "open it with xarray.open_dataset",
        )
    return _plain(_shown(tree))


def _shown(tree: xarray.DataTree) -> xarray.DataTree:
    """Without the checksums, which are for `hookql verify`."""
    shown: xarray.DataTree = tree.drop_nodes("_checksums", errors="ignore")
    return shown


def open_lazily(path: Path) -> xarray.DataTree:
    """A file that was just written: in memory, of a large one read as it is used."""
    tree = xarray.open_datatree(path, engine="netcdf4")
    if path.stat().st_size <= LARGE:
        with tree:
            tree.load()
    return _plain(_shown(tree))


def _add(tree: xarray.DataTree, begun: Begun) -> None:
    """Put all of a tree into a file, but for the rows that it has already."""
    encodings = _unfilled(tree)
    for node in tree.subtree:
        data = node.to_dataset(inherit=False)
        there = begun.variables.get(node.path, frozenset())
        encoding = {n: e for n, e in encodings[node.path].items() if n not in there}
        data.drop_vars(there).to_netcdf(
            begun.path, mode="a", group=node.path, engine="netcdf4", encoding=encoding
        )


def _plain(tree: xarray.DataTree) -> xarray.DataTree:
    """The tree without what xarray remembers of the file it came from."""
    plain: xarray.DataTree = tree.map_over_datasets(lambda data: data.drop_encoding())
    return plain


def _unfilled(tree: xarray.DataTree) -> dict[str, dict[str, dict[str, None]]]:
    """An encoding without fill values, for every number is there and NaN means NaN."""
    return {
        node.path: {
            str(name): {"_FillValue": None}
            for name, values in node.to_dataset(inherit=False).variables.items()
            if values.dtype.kind == "f"
        }
        for node in tree.subtree
    }


def _sync(path: Path) -> None:
    """Have the file on the disk before it takes the place of another."""
    with path.open("rb+") as file:
        os.fsync(file.fileno())


def _sync_folder(folder: Path) -> None:
    """Have a new name on the disk as well; not every system knows how."""
    with contextlib.suppress(OSError):
        number = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(number)
        finally:
            os.close(number)


def _usage(code: str, message: str, advice: str | None = None) -> UsageError:
    return UsageError(Diagnostic(code, message, help=advice))
