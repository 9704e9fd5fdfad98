"""Config files: their text, and the reader for their ending."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

from hookql.configs.document import LONGEST, Document, Node
from hookql.configs.from_json import read_json
from hookql.configs.from_toml import read_toml
from hookql.configs.from_yaml import read_yaml
from hookql.errors import Diagnostic, Source, Span, UsageError

READERS: Mapping[str, Callable[[Source], Node]] = {
    ".yaml": read_yaml,
    ".yml": read_yaml,
    ".toml": read_toml,
    ".json": read_json,
}
"""The endings of configs, each with its reader."""


def is_config(name: str | Path) -> bool:
    """Whether a file's name says that it is a config."""
    return Path(name).suffix.lower() in READERS


def read_document(path: Path) -> Document:
    """What a config file holds. Raises UsageError where it cannot be read or is no config."""
    reader = READERS.get(path.suffix.lower())
    if reader is None:
        message = f"the ending of `{path}` tells no kind of config"
        help = f"a config is {', '.join(READERS)}"
        raise UsageError(Diagnostic("config-file", message, help=help))
    source = Source(_text(path), str(path))
    if not source.text.strip():
        help = "see `examples/analysis.yaml`, or `hookql schema`"
        raise UsageError(Diagnostic("config-file", f"`{path}` is empty", help=help))
    return Document(reader(source), str(path), source)


def _text(path: Path) -> str:
    try:
        if path.exists() and not path.is_file():
            raise UsageError(Diagnostic("config-file", f"`{path}` is not a regular file"))
        # newline="": a caret counts the characters that stand in the file.
        with path.open(encoding="utf-8-sig", newline="") as file:
            text = file.read(LONGEST + 1)
    except UnicodeDecodeError:
        message = f"`{path}` is not a text file in UTF-8"
        raise UsageError(Diagnostic("config-file", message)) from None
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or error
        message = f"cannot read the config `{path}`: {reason}"
        raise UsageError(Diagnostic("config-file", message)) from None
    if len(text) > LONGEST:
        message = f"a config has at most {LONGEST:,} characters"
        help = "long queries go into .hq files, and texts into a data file"
        source = Source(text[:1000], str(path))
        raise UsageError(Diagnostic("too-long", message, Span(0, 1), source, help))
    return text
