"""What cases of a mistake are told, as the text of one golden file."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping
from pathlib import Path

import pytest

from hookql import HookQLError, HookQLWarning

Case = Callable[[pytest.MonkeyPatch], object]


def told(cases: Mapping[str, Case], folder: Path) -> str:
    """`# NAME` and the error or the warnings of each case, run in an empty folder of its own."""
    parts = []
    for name, case in cases.items():
        here = folder / name.replace(" ", "-")
        here.mkdir()
        with pytest.MonkeyPatch.context() as patch, warnings.catch_warnings(record=True) as warned:
            warnings.simplefilter("ignore")
            warnings.simplefilter("always", HookQLWarning)
            patch.chdir(here)
            try:
                case(patch)
                said = "\n".join(str(warning.message) for warning in warned)
            except HookQLError as error:
                said = str(error)
        assert said, f"nothing was said of: {name}"
        parts.append(f"# {name}\n{said.replace(f'{here}/', '')}\n")
    return "\n".join(parts)
