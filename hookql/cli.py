"""The command line: `hookql run | check | explain | modules | fmt | show | export | verify`.

Nothing here imports torch before a command needs it, so that `--help`, `fmt` and `check` answer at
once. Exit codes: 0 done, 1 failed, 2 the query or the usage is wrong, 130 interrupted.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import re
import signal
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, cast

import hookql
from hookql.api import check, explain, parse_query, read_query_file
from hookql.arguments import (
    BEHIND_Q,
    Once,
    add_data,
    add_long_runs,
    add_model,
    add_output,
    add_query,
    add_target,
    refuse,
)
from hookql.errors import Diagnostic, HookQLError, UsageError
from hookql.language.parser import LONGEST
from hookql.language.query import Query
from hookql.options import ModelOptions, RunOptions

_EXAMPLES = """\
examples:
  hookql run examples/first.hq                         the demo model on its own text
  hookql run -q 'capture mean, std from h[*].mlp' --model gpt2 --data texts.jsonl -o mlp.nc
  hookql modules --model gpt2 'h[0].**'                what there is to capture
  hookql explain examples/first.hq --model gpt2        what a run would do
  hookql show mlp.nc                                   a result, as tables
"""

_LIKE_A_QUERY = re.compile(r"\s*(?:#|(?:capture|let)\s)")


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; returns the exit code."""
    with contextlib.suppress(ValueError):  # in another thread than the main one
        signal.signal(signal.SIGTERM, signal.default_int_handler)  # as Ctrl-C
    try:
        options, unknown = _parser().parse_known_args(arguments)
        if unknown:
            refuse(options, unknown)
        return int(options.command(options))
    except HookQLError as error:
        print(error, file=sys.stderr)
        return error.exit_code
    except KeyboardInterrupt:
        print("interrupted: nothing was written", file=sys.stderr)
        return 130
    except BrokenPipeError:
        # The reader (`| head`) has gone; there is nobody left to tell.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="hookql",
        allow_abbrev=False,
        description="A query language for looking inside neural networks.",
        epilog=_EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--version", action="version", version=f"hookql {hookql.__version__}")
    commands = parser.add_subparsers(metavar="COMMAND", required=True)

    run = _command(commands, "run", _run, "run a query over data and save what it asks for")
    add_query(run)
    add_model(run)
    add_data(run)
    add_output(run)
    add_long_runs(run)

    checks = _command(commands, "check", _check, "check a query's syntax and names")
    add_query(checks)
    add_model(checks, default=None)
    add_target(checks)

    explains = _command(commands, "explain", _explain, "say what a run would do; runs no data")
    add_query(explains)
    add_model(explains)
    add_data(explains)
    explains.add_argument("-o", "--output", metavar="FILE.nc", help="where a run would write")
    explains.add_argument("--format", choices=("text", "json", "mermaid"), default="text")

    modules = _command(
        commands, "modules", _modules, "list a model's modules and how to write them"
    )
    modules.add_argument("pattern", nargs="?", help="only modules that match, e.g. 'h[0].**'")
    add_model(modules)

    fmt = _command(commands, "fmt", _fmt, "print a query in its canonical layout")
    fmt.add_argument("files", nargs="+", metavar="FILE", help="query files, or - for stdin")
    action = fmt.add_mutually_exclusive_group()
    action.add_argument("-w", "--write", action="store_true", help="rewrite the files in place")
    action.add_argument("--check", action="store_true", help="exit 1 if a file would change")

    show = _command(commands, "show", _show, "summarise a result file")
    show.add_argument("file", metavar="FILE.nc", help="a file that `hookql run` has written")

    export = _command(commands, "export", _export, "copy raw values into files of other tools")
    export.add_argument("file", metavar="FILE.nc", help="a result with `values`")
    kinds = ("safetensors", "zarr", "parquet", "npy")
    export.add_argument("--to", required=True, choices=kinds, help="the format")
    export.add_argument("-o", "--output", metavar="DIR", help="the folder (default: FILE.FORMAT)")
    export.add_argument(
        "--shard-size", type=float, default=1000, metavar="MB", help="of one file at most (1000)"
    )
    export.add_argument("--overwrite", action="store_true", help="replace an earlier export")

    verify = _command(commands, "verify", _verify, "check that nothing written has changed since")
    verify.add_argument("path", metavar="PATH", help="a result, a checkpoint or an exported folder")
    return parser


def _command(commands: Any, name: str, command: Any, help: str) -> argparse.ArgumentParser:
    parser: argparse.ArgumentParser = commands.add_parser(
        name, help=help, description=help, allow_abbrev=False
    )
    parser.set_defaults(command=command, parser=parser)
    # Everything that says no action of its own, in its groups too.
    parser.register("action", None, Once)
    return parser


def _run(options: argparse.Namespace) -> int:
    if options.file == "-" and options.data == "-":
        message = "the query and the data cannot both come in on stdin"
        help = "put the query behind `-q` or into a file"
        raise UsageError(Diagnostic("stdin-twice", message, help=help))
    query = _query(options)
    output = _output(options)
    left = any(capture.into is None for capture in query.captures)
    unsaved = output is None and left
    if unsaved and any(capture.into is None and capture.raw for capture in query.captures):
        message = "raw values have to go into a file, and none is given"
        raise UsageError(Diagnostic("no-output", message, help="give `-o FILE.nc`"))
    if unsaved and options.quiet:
        message = "the result would be lost: `--quiet` prints no table, and there is no output"
        raise UsageError(Diagnostic("no-output", message, help="give `-o FILE.nc`"))
    from hookql.execute import execute
    from hookql.results.table import render

    finished = execute(
        query,
        model=options.model,
        data=options.data,
        texts=options.text,
        output=output,
        overwrite=options.overwrite,
        progress=False if options.quiet else None,
        say=(lambda line: None) if options.quiet else _say,
        options=_run_options(options),
    )
    _warn(finished.warnings)
    if options.output is not None and not left:
        message = f"nothing is left for the output `{output}`: every capture has an `into`"
        notes = ("what `into` names is written beside it",)
        _warn([Diagnostic("unused-output", message, notes=notes, severity="warning")])
    if not options.quiet:
        print(render(finished.tree))
        for path in finished.written:
            print(f"written: {path}")
        if unsaved:
            print("not saved: give -o FILE.nc to keep it")
    return 0


def _check(options: argparse.Namespace) -> int:
    query = check(
        _query(options), model=options.model, target=options.target, **_model_options(options)
    )
    _warn(query.warnings)
    count = len(query.captures)
    bound = f", and binds to {options.model}" if options.model else ""
    print(f"{query.source.name}: {count} capture{'' if count == 1 else 's'}, no errors{bound}")
    return 0


def _explain(options: argparse.Namespace) -> int:
    query = _query(options)
    _warn(query.warnings)
    text = explain(
        query,
        model=options.model,
        data=options.data,
        texts=options.text,
        output=options.output,
        format=options.format,
        **_run_options(options),
    )
    print(text, end="")
    return 0


def _modules(options: argparse.Namespace) -> int:
    from hookql.execute import get_model
    from hookql.models.tree import render_modules

    model = get_model(options.model, None, _model_options(options))
    print(render_modules(model, options.pattern), end="")
    return 0


def _fmt(options: argparse.Namespace) -> int:
    from hookql.language.formatter import format_text

    changed = False
    errors: list[Diagnostic] = []
    for name in options.files:
        try:
            before = _stdin() if name == "-" else read_query_file(Path(name))
            after = format_text(before, "<stdin>" if name == "-" else name)
        except HookQLError as error:
            errors += error.diagnostics
            continue
        changed |= before != after
        if options.check:
            if before != after:
                print(f"would reformat {name}")
        elif options.write and name != "-":
            if before != after:
                Path(name).write_text(after, encoding="utf-8", newline="\n")
                print(f"reformatted {name}")
        else:
            print(after, end="")
    if errors:
        raise UsageError(errors)
    return 1 if options.check and changed else 0


def _show(options: argparse.Namespace) -> int:
    from hookql.results.table import summary

    print(summary(hookql.load(options.file)))
    return 0


def _export(options: argparse.Namespace) -> int:
    if not 0 < options.shard_size < float("inf"):
        message = f"`--shard-size` must be a number of megabytes, not {options.shard_size}"
        raise UsageError(Diagnostic("bad-option", message))
    folder = hookql.export(
        options.file,
        options.to,
        options.output,
        shard_bytes=max(1, int(options.shard_size * 1_000_000)),
        overwrite=options.overwrite,
    )
    print(f"written: {folder}")
    return 0


def _verify(options: argparse.Namespace) -> int:
    found = hookql.verify(options.path)
    for sentence in found:
        print(sentence, file=sys.stderr)
    if not found:
        print(f"{options.path}: whole")
    return 1 if found else 0


def _query(options: argparse.Namespace) -> Query:
    """The query of a command: exactly one of a file, stdin and --query."""
    if options.file is None and options.query is None:
        advice = "give a query file, or one like `-q 'capture mean from transformer.h[*].attn'`"
        raise UsageError(Diagnostic("no-query", "there is no query", help=advice))
    if options.file is not None and options.query is not None:
        message = "give a query file or `--query`, not both"
        is_data = hasattr(options, "data") and not options.file.endswith(".hq")
        hint = f"write `--data {options.file}` if it is the data" if is_data else None
        raise UsageError(Diagnostic("two-queries", message, help=hint))
    if options.query is not None:
        return _resolved(options.query, "<query>")
    if options.file == "-":
        return _resolved(_stdin(), "<stdin>")
    if re.search(r"\s", options.file) and not os.path.exists(options.file):
        message = f"there is no query file `{options.file}`"
        if _LIKE_A_QUERY.match(options.file):
            message = "a query stands where the name of a query file should"
        raise UsageError(Diagnostic("query-file", message, help=BEHIND_Q))
    return parse_query(Path(options.file))


def _resolved(text: str, name: str) -> Query:
    from hookql.language.parser import parse
    from hookql.language.resolve import resolve

    return resolve(parse(text, name))


def _stdin() -> str:
    try:
        # Of more characters than it takes the parser says that it is too much.
        return sys.stdin.buffer.read(4 * LONGEST + 4).decode("utf-8-sig", "strict")
    except UnicodeDecodeError:
        message = "what comes in on stdin is not text in UTF-8"
        raise UsageError(Diagnostic("query-file", message)) from None


def _output(options: argparse.Namespace) -> Path | None:
    """The output that is given, else `first.nc` in the current folder for `queries/first.hq`; None
    for a query that is no file."""
    if options.output is not None:
        output = Path(options.output)
        if output.name == ".nc":
            message = f"the output `{output}` has no name in front of `.nc`"
            raise UsageError(Diagnostic("bad-file", message))
        return output
    named = options.file is not None and options.file != "-"
    return Path(Path(options.file).stem + ".nc") if named else None


def _model_options(options: argparse.Namespace) -> ModelOptions:
    return cast(ModelOptions, _given(options, ModelOptions))


def _run_options(options: argparse.Namespace) -> RunOptions:
    return cast(RunOptions, _given(options, RunOptions))


def _given(options: argparse.Namespace, kind: type) -> dict[str, Any]:
    """The options of that kind that a command has."""
    return {name: getattr(options, name) for name in kind.__annotations__ if hasattr(options, name)}


def _say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


def _warn(warnings: Sequence[Diagnostic]) -> None:
    for warning in warnings:
        print(warning, file=sys.stderr)


if __name__ == "__main__":
    sys.exit(main())
