"""The options of the commands, and what argparse leaves out: repeated, empty, unknown ones."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from typing import Any

from hookql.errors import Diagnostic, UsageError, did_you_mean
from hookql.optimizer.rules import RULES

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


def add_query(parser: argparse.ArgumentParser) -> None:
    """The query: a file, or a text."""
    group = parser.add_argument_group("query")
    group.add_argument(
        "file",
        nargs="?",
        metavar="QUERY.hq",
        help="a query file, an analysis config (.yaml, .toml, .json), or - for stdin",
    )
    group.add_argument("-q", "--query", metavar="TEXT", help="the query itself")


def add_model(parser: argparse.ArgumentParser, default: str | None = "demo") -> None:
    """The model and how it is loaded."""
    group = parser.add_argument_group("model")
    said = "default: demo" if default else "default: none, so that nothing is loaded"
    add = group.add_argument
    add(
        "--model",
        default=default,
        metavar="MODEL",
        help=f"a hub name, a folder, a .gguf file or demo ({said})",
    )
    add("--revision", help="a branch, tag or commit of a hub model")
    add("--dtype", help="auto (as stored, the default), float32, bfloat16 or float16")
    add("--device", help="auto (the default), cpu, cuda or cuda:N")
    add("--device-map", help="how transformers spreads the model, e.g. auto (needs accelerate)")
    add("--attn", metavar="KIND", help="attention implementation: eager, sdpa, ...")
    add(
        "--trust-remote-code",
        action="store_true",
        help="run Python code that comes with the model; never done otherwise",
    )
    add(
        "--allow-pickle",
        action="store_true",
        help="load weights from .bin files, which can run code; never done otherwise",
    )


def add_data(parser: argparse.ArgumentParser) -> None:
    """What is run, and in which pieces."""
    group = parser.add_argument_group("data")
    add = group.add_argument
    add(
        "--data",
        metavar="DATA",
        help="a .txt (a sample a line), .jsonl, .csv or .parquet file, a data set's folder or "
        "name, or - for stdin; the demo model has a text of its own",
    )
    add("--text", action="append", default=[], metavar="TEXT", help="a sample; may be repeated")
    add("--column", help="the column that holds the text (default: text, or the only one)")
    add_chat(parser, group)
    add("--split", help="the split of a data set")
    add("--limit", type=int, metavar="N", help="run only the first N samples")
    add("--max-length", type=int, metavar="N", help="tokens a context (default: the model's)")
    add(
        "--overflow",
        choices=("split", "truncate", "pack", "error"),
        help="what becomes of longer samples (default: split, no overlap); pack fills contexts "
        "from successive samples",
    )
    add_target(group)
    add_kernels(group)
    add("--batch-size", type=int, metavar="N", help="at most N samples a batch")
    add("--tokens-per-batch", type=int, metavar="N", help="at most N tokens a batch, with padding")
    add("--group-memory", type=int, metavar="MB", help="what the groups of `by` may hold (1000)")


def add_optimizer(parser: argparse.ArgumentParser) -> None:
    """Which rules may leave out work."""
    group = parser.add_argument_group("optimiser")
    group.add_argument(
        "--optimize",
        metavar="RULES",
        help="+rule,-rule: switch single rules on or off, as in --optimize=-rows; all are on. "
        f"Rules: {', '.join(RULES)}",
    )
    group.add_argument(
        "--no-optimize", action="store_true", help="no rule but those that --optimize=+rule adds"
    )


def add_kernels(group: Any) -> None:
    """How the model computes, otherwise than by itself: faster, and not to the last digit."""
    help = "run the model's passes under autocast: bfloat16, or float16 on a GPU (not exact)"
    group.add_argument("--autocast", choices=("bfloat16", "float16"), help=help)
    help = "let torch compile the parts of the model between hook points (slow to begin)"
    group.add_argument("--compile", action="store_true", help=help)


def add_target(group: Any) -> None:
    """The decoder's text."""
    help = "the column that holds the decoder's text (encoder-decoder models)"
    group.add_argument("--target", metavar="COLUMN", help=help)


def add_output(parser: argparse.ArgumentParser) -> None:
    """Where the result goes."""
    group = parser.add_argument_group("output")
    add = group.add_argument
    add(
        "-o",
        "--output",
        metavar="FILE.nc",
        help="the result file (default: the query file's name with .nc, in this folder; "
        "for a query that is no file, none)",
    )
    add("--overwrite", action="store_true", help="replace files that exist")
    add(
        "--compress",
        choices=("none", "zstd", "zlib"),
        help="how raw values are compressed (none, the default, is the fastest by far)",
    )
    add(
        "--store-dtype",
        choices=("float32", "float64"),
        help="how raw values are stored (default: losslessly, float32 where that is)",
    )
    add("--force", action="store_true", help="run even if the disk seems too small")
    add(
        "--into-anywhere",
        action="store_true",
        help="let `into` name any file, also outside the output's folder",
    )
    add(
        "--paranoid",
        action="store_true",
        help="prove at each hook that nothing was written into the model's tensors (slow)",
    )
    add_store(group)
    add("--quiet", action="store_true", help="no progress, no table")


def add_store(group: Any) -> None:
    """Where answers are kept."""
    help = "keep answers in this folder, and take them from there without running the model"
    group.add_argument("--store", metavar="DIR", help=help)


def add_long_runs(parser: argparse.ArgumentParser) -> None:
    """What keeps a long run from being lost."""
    group = parser.add_argument_group("long runs")
    add = group.add_argument
    add(
        "--checkpoint",
        metavar="DIR",
        help="keep in this folder what the run has so far, to go on after a crash",
    )
    add("--resume", action="store_true", help="go on where the checkpoint ends")
    add(
        "--checkpoint-every",
        type=float,
        metavar="SECONDS",
        help="how much a crash may cost (default: 60)",
    )
    add(
        "--on-error",
        choices=("stop", "skip"),
        help="what becomes of a sample that the tokenizer or the model fails on (default: stop); "
        "skipped ones are listed in the result",
    )


def add_chat(parser: argparse.ArgumentParser, group: Any = None) -> None:
    """Whether the data are chats."""
    (group or parser).add_argument(
        "--chat",
        action="store_true",
        help="the column (default: messages) holds a chat's messages, which the tokenizer's chat "
        "template makes a text of; `role` is who says a token",
    )
