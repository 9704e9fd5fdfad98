"""What is said of a run's bad days, word for word."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from hookql.data.tokens import Skipped
from hookql.engines.local import Outcome
from hookql.engines.notices import notices
from tests.engines.planted import DATA, bound
from tests.told import told


def outcome(
    halved: int = 0, fits: int = 0, skipped: int = 0, failed: int = 0, chunk: int = 0
) -> Outcome:
    """An outcome in which only the bad days count."""
    found = Outcome({}, {}, {}, {}, [], [], halved=halved, fits=fits, failed=failed)
    found.skipped_contexts = [
        Skipped(3 + n, chunk, "ValueError: no such thing") for n in range(skipped)
    ]
    return found


def test_the_words_of_all_notices(golden: Callable[[str, str], None]) -> None:
    """One of each and many of each."""
    refused = [Skipped(n, -1, "cannot be tokenised: no") for n in range(7)]
    cases = {
        "one batch": notices(outcome(halved=1)),
        "many batches": notices(outcome(halved=1234, fits=256)),
        "one sample": notices(outcome(skipped=1, failed=1)),
        "a later chunk": notices(outcome(skipped=1, failed=12, chunk=2)),
        "many samples": notices(outcome(skipped=8, failed=1900)),
        "a sample refused": notices(outcome(), refused[:1]),
        "many refused": notices(outcome(), refused),
    }
    parts = [f"# {name}\n" + "\n".join(map(str, found)) + "\n" for name, found in cases.items()]
    golden("engines/notices.txt", "\n".join(parts))
    assert [] == notices(outcome())


def test_the_words_of_errors(golden: Callable[[str, str], None], tmp_path: Path) -> None:
    """Data that is not what it was when a run was left."""

    def changed(patch: pytest.MonkeyPatch) -> None:
        case = bound("capture mean from h[0]", "gpt2")
        left = case.run(stop=lambda: True)
        other = bound("capture mean from h[0]", case.module, data=DATA[::-1])
        other.run(outcome=left)

    golden("engines/errors.txt", told({"other data": changed}, tmp_path))
