"""The demo model and its text, carried by the package; what they are is in README.md beside this.

The folder is the model: `transformers` loads it as it is, offline.
"""

from __future__ import annotations

from importlib.resources import files
from pathlib import Path


def model_path() -> Path:
    """Return the folder of the demo model: a GPT-2 of 8 layers, with its tokenizer and card."""
    return Path(str(files(__name__)))


def text_path() -> Path:
    """Return the demo's text file: English, UTF-8, a sample a line, not trained on."""
    return model_path() / "text.txt"
