"""The example trains: its loss falls, and latents answer to words."""

from __future__ import annotations

import re
import runpy
from pathlib import Path

import pytest


def test_the_autoencoder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """In 90 steps the loss falls below half of the first one; six latents show eight tokens."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("SAE_STEPS", "90")
    script = Path(__file__).parents[2] / "examples" / "sae.py"
    runpy.run_path(str(script), run_name="__main__")
    printed = capsys.readouterr().out
    losses = [float(found) for found in re.findall(r"loss (\d\.\d+)", printed)]
    assert 7 == len(losses)
    assert losses[-1] < losses[0] / 2
    tops = re.findall(r"^latent +\d+: (.*)$", printed, re.MULTILINE)
    assert [8] * 6 == [len(top.split(" | ")) for top in tops]
