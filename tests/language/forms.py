"""Pairs of text and tree, and the valid corpus: what several tests of the language share."""

from __future__ import annotations

from pathlib import Path

HERE = Path(__file__).parent
QUERIES = (HERE / "corpus.hq").read_text(encoding="utf-8").split("# ---\n")[1:]
