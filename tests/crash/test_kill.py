"""A few killed runs with the suite; `make crash` kills fifty."""

from __future__ import annotations

import subprocess
import sys


def test_killed_runs_come_out_the_same() -> None:
    """SIGKILL at random moments, a resumed run, and the same files bit for bit."""
    command = [sys.executable, "-m", "tests.crash.kill", "3", "20261123"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert 0 == done.returncode, done.stdout + done.stderr
    assert "3 of 3 runs" in done.stdout
