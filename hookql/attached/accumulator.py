"""`BatchAccumulator`: a site's rows of many batches, one behind another."""

from __future__ import annotations

from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor, nn

from hookql.attached.copies import Copies
from hookql.attached.detector import Detector
from hookql.attached.rows import same_axes, token_rows
from hookql.errors import Diagnostic, HookQLError, UsageError
from hookql.models.hooks import undisturbed

_ENDINGS = (".safetensors", ".npz", ".npy")


class BatchAccumulator(Detector):
    """Keeps a site's rows, one for each token that is no padding, on the CPU.

    With ``max_rows`` it keeps the first so many; ``metadata`` has ``rows``, how many it keeps, and
    ``seen``, how many there were.
    """

    shareable: ClassVar[bool] = False

    def __init__(self, max_rows: int | None = None, dtype: torch.dtype | str | None = None) -> None:
        """``dtype`` as rows are kept, None for their own. Raises UsageError for a wrong one."""
        whole = isinstance(max_rows, int) and not isinstance(max_rows, bool)
        if max_rows is not None and not (whole and max_rows >= 1):
            message = f"`max_rows` is a whole number from 1, not {max_rows!r}"
            raise UsageError(Diagnostic("bad-rows", message))
        self._most = max_rows
        self._copies = Copies(dtype)
        self._axes: tuple[int, ...] | None = None
        self._rows = self._seen = 0

    def process_activations(self, module: nn.Module, input: tuple[Any, ...], output: Any) -> None:
        """Copy one call's rows, as far as there is room."""
        with undisturbed():
            rows = token_rows(self.call)
        self._axes = same_axes(rows, self._axes)
        kept = rows if self._most is None else rows[: self._most - self._rows]
        if len(kept):
            self._copies.add(kept)
        self._rows += len(kept)
        self._seen += len(rows)
        self.metadata |= {"rows": self._rows, "seen": self._seen}

    def get_captured(self) -> Tensor:
        """The rows (n, \\*axes), in the order they came; an empty tensor before the first.

        They are the detector's own memory: copy them to write into them.
        """
        parts = self._copies.read()
        if len(parts) > 1:  # put together once: both would take the memory twice
            self._copies.clear()
            parts = [torch.cat(parts)]
            self._copies.keep(parts[0])
        return parts[0] if parts else torch.empty(0)

    def clear_captured(self) -> None:
        """Forget the rows."""
        super().clear_captured()
        self._copies.clear()
        self._axes, self._rows, self._seen = None, 0, 0

    def save(self, path: str | Path, overwrite: bool = False) -> Path:
        """Write the rows as ``rows`` to a .safetensors or .npz file, or alone to a .npy file.

        The file appears whole or not at all. NumPy has no bfloat16: such rows are float32 there,
        which holds them exactly. Raises UsageError for another ending or a file that exists.
        """
        path = Path(path)
        if path.suffix not in _ENDINGS:
            message = f"the ending of `{path}` tells no format that rows are saved in"
            notes = (f"endings: {', '.join(_ENDINGS)}",)
            raise UsageError(Diagnostic("unknown-format", message, notes=notes))
        from hookql.raw.files import remove, temporary_beside
        from hookql.results.netcdf import check_target

        check_target(path, overwrite=overwrite)
        temporary = temporary_beside(path)
        try:
            _write(self.get_captured(), temporary, path.suffix)
            temporary.replace(path.resolve())
        except OSError as error:
            message = f"cannot write `{path}`: {error.strerror or error}"
            raise HookQLError(Diagnostic("cannot-write", message)) from error
        finally:
            remove([temporary])
        return path


def _write(rows: Tensor, path: Path, suffix: str) -> None:
    if suffix == ".safetensors":
        from safetensors.torch import save_file

        save_file({"rows": rows.contiguous()}, path)
        return
    array = (rows.float() if rows.dtype == torch.bfloat16 else rows).numpy()
    with path.open("wb") as file:
        if suffix == ".npz":
            np.savez(file, rows=array)
        else:
            np.save(file, array)
