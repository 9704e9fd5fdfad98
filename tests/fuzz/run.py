"""Coverage-guided fuzzing by hand: ``python -m tests.fuzz.run query -max_total_time=300``.

The first argument is a target of `targets` (query, pattern, file), the others are libFuzzer's. It
needs `pip install atheris`. Result files are fuzzed by `test_fuzz.py` alone:
they are read in a process of their own, which is slow and which libFuzzer cannot look into.
"""

from __future__ import annotations

import sys
import tempfile
from functools import partial
from pathlib import Path

import atheris

with atheris.instrument_imports(include=["hookql", "lark", "json", "csv"]):
    from tests.fuzz import targets


def main() -> None:
    """Fuzz the target that the command line names."""
    name = sys.argv.pop(1)
    target = getattr(targets, name)
    if name == "file":
        target = partial(targets.file, folder=Path(tempfile.mkdtemp()))
    targets.query(b"capture mean from h")  # builds the parser, which takes its time
    atheris.Setup(sys.argv, target)
    atheris.Fuzz()


if __name__ == "__main__":
    main()
