"""Fixtures that every test may use."""

from __future__ import annotations

import os
import signal
import tempfile
from collections.abc import Callable
from pathlib import Path
from weakref import WeakKeyDictionary

# Before torch and transformers are imported: no test asks a hub, and two workers share two cores.
os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
# Every hook proves that nothing was written into what it was shown.
os.environ.setdefault("HOOKQL_PARANOID", "1")

# What is measured on a machine is kept: never in the user's own folder.
os.environ["HOOKQL_CACHE"] = tempfile.mkdtemp(prefix="hookql-cache-")

import pytest
import torch

from hookql import known
from hookql.models.load import Model, load_model
from tests.weights import minilm_folder, smollm2_folder

if "PYTEST_XDIST_WORKER" in os.environ:
    torch.set_num_threads(1)

# A shell's background jobs ignore Ctrl-C, which some tests send.
if signal.getsignal(signal.SIGINT) == signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)

GOLDEN = Path(__file__).parent / "golden"


def pytest_addoption(parser: pytest.Parser) -> None:
    """`--update-golden` rewrites the golden files instead of comparing with them."""
    parser.addoption("--update-golden", action="store_true", help="rewrite the golden files")


@pytest.fixture(autouse=True)
def nothing_known(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each test tries its models out itself: what it sees never hangs on the tests before it."""
    monkeypatch.setattr(known, "_KNOWN", WeakKeyDictionary())


@pytest.fixture
def golden(request: pytest.FixtureRequest) -> Callable[[str, str], None]:
    """Compare a text with tests/golden/NAME, or rewrite that file under --update-golden."""

    def check(name: str, text: str) -> None:
        path = GOLDEN / name
        if request.config.getoption("--update-golden"):
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text, encoding="utf-8", newline="")
        assert path.exists(), f"no golden file {name}: run pytest --update-golden"
        with path.open(encoding="utf-8", newline="") as file:
            assert file.read() == text

    return check


@pytest.fixture(scope="session")
def smollm2() -> Model:
    """SmolLM2-135M-Instruct, float32."""
    return load_model(str(smollm2_folder()))


@pytest.fixture(scope="session")
def minilm() -> Model:
    """The all-MiniLM-L6-v2 encoder, float32."""
    return load_model(str(minilm_folder()))
