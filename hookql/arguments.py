"""What argparse leaves out: options that are repeated or empty, and words that nobody takes."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from typing import Any

from hookql.errors import Diagnostic, UsageError, did_you_mean

BEHIND_Q = "a query in the command itself goes behind `-q`"


class Once(argparse.Action):
    """An option of one value: it is neither repeated, which would drop the first, nor empty."""

    seen = False

    def __call__(
        self,
        parser: argparse.ArgumentParser,
        namespace: argparse.Namespace,
        values: Any,
        option_string: str | None = None,
    ) -> None:
        if values == "" and self.dest != "query":
            message = f"`{option_string or self.metavar}` is an empty text"
            help = "a variable of the shell that is not set is empty"
            raise UsageError(Diagnostic("empty-option", message, help=help))
        if self.seen and option_string:
            message = f"`{option_string}` is given twice, and takes one value"
            advice = None
            if self.dest == "data":
                advice = "several files are one on stdin: `cat a.txt b.txt | hookql run … --data -`"
            if self.dest == "query":
                advice = "one query holds several captures"
            raise UsageError(Diagnostic("repeated-option", message, help=advice))
        self.seen = option_string is not None
        setattr(namespace, self.dest, values)


def refuse(options: argparse.Namespace, unknown: Sequence[str]) -> None:
    """Say what is left over, in the words of the command that was called."""
    message = f"unrecognized arguments: {' '.join(unknown)}"
    if getattr(options, "file", None) in ("capture", "let"):
        message += f" ({BEHIND_Q}, in quotation marks)"
    option = next((word.partition("=")[0] for word in unknown if word.startswith("--")), None)
    known = [name for name in options.parser._option_string_actions if name.startswith("--")]
    close = did_you_mean(option, known) if option else None
    parser_error = options.parser.error  # leaves with exit code 2
    parser_error(f"{message}; {close}" if close else message)
