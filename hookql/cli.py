"""The command line: `hookql run | check | explain | modules | fmt | schema | show | export ...`.

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
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, cast

import hookql
from hookql import commands
from hookql.api import check, explain, parse_query, read_query_file
from hookql.arguments import BEHIND_Q, refuse
from hookql.errors import Diagnostic, HookQLError, UsageError, printable
from hookql.language.parser import LONGEST
from hookql.language.query import Query
from hookql.options import ModelOptions, RunOptions

_LIKE_A_QUERY = re.compile(r"\s*(?:#|(?:capture|let)\s)")


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; returns the exit code."""
    with contextlib.suppress(ValueError):  # in another thread than the main one
        for name in ("SIGTERM", "SIGHUP"):  # as Ctrl-C
            number = getattr(signal, name, None)
            if number is not None and signal.getsignal(number) == signal.SIG_DFL:
                signal.signal(number, signal.default_int_handler)
    given = None
    try:
        options, unknown = commands.parser(hookql.__version__).parse_known_args(arguments)
        given = options
        if unknown:
            refuse(options, unknown)
        return _COMMANDS[options.command](options)
    except HookQLError as error:
        print(error, file=sys.stderr)
        return error.exit_code
    except KeyboardInterrupt:
        print(f"interrupted: {_left(given)}", file=sys.stderr)
        return 130
    except BrokenPipeError:
        # The reader (`| head`) has gone; there is nobody left to tell.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0


def _left(options: argparse.Namespace | None) -> str:
    """What a command leaves that was stopped at once."""
    folder = getattr(options, "checkpoint", None)
    if folder is not None and (Path(folder) / "manifest.json").is_file():
        return f"`{folder}` has what was saved so far; go on with `--resume`"
    return "nothing was written"


def _run(options: argparse.Namespace) -> int:
    if _is_config(options):
        from hookql.configs.command import run_config

        return run_config(options, _say, _warn)
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
            print(f"written: {printable(str(path))}")
        if unsaved:
            print("not saved: give -o FILE.nc to keep it")
    return 0


def _check(options: argparse.Namespace) -> int:
    if _is_config(options):
        from hookql.configs.command import check_config

        return check_config(options, _warn)
    query = check(
        _query(options),
        model=options.model,
        target=options.target,
        chat=options.chat,
        **_model_options(options),
    )
    _warn(query.warnings)
    count = len(query.captures)
    bound = f", and binds to {options.model}" if options.model else ""
    print(f"{query.source.name}: {count} capture{'' if count == 1 else 's'}, no errors{bound}")
    return 0


def _explain(options: argparse.Namespace) -> int:
    if _is_config(options):
        from hookql.configs.command import explain_config

        return explain_config(options)
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
    from hookql.loading import get_model
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


def _schema(options: argparse.Namespace) -> int:
    from hookql.configs.command import print_schema

    return print_schema()


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
    print(f"written: {printable(str(folder))}")
    return 0


def _verify(options: argparse.Namespace) -> int:
    found = hookql.verify(options.path)
    for sentence in found:
        print(printable(sentence), file=sys.stderr)
    if not found:
        print(f"{printable(options.path)}: whole")
    return 1 if found else 0


def _is_config(options: argparse.Namespace) -> bool:
    """Whether the file is an analysis config and no query."""
    endings = (".yaml", ".yml", ".toml", ".json")
    return options.file is not None and options.file.lower().endswith(endings)


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
    given = _given(options, RunOptions)
    if getattr(options, "no_optimize", False):
        given["optimize"] = ",".join(word for word in ("none", given["optimize"]) if word)
    return cast(RunOptions, given)


def _given(options: argparse.Namespace, kind: type) -> dict[str, Any]:
    """The options of that kind that a command has."""
    return {name: getattr(options, name) for name in kind.__annotations__ if hasattr(options, name)}


def _say(line: str) -> None:
    print(printable(line), file=sys.stderr, flush=True)


def _warn(warnings: Sequence[Diagnostic]) -> None:
    for warning in warnings:
        print(warning, file=sys.stderr)


_COMMANDS: Mapping[str, Callable[[argparse.Namespace], int]] = {
    "run": _run,
    "check": _check,
    "explain": _explain,
    "modules": _modules,
    "fmt": _fmt,
    "schema": _schema,
    "show": _show,
    "export": _export,
    "verify": _verify,
}


if __name__ == "__main__":
    sys.exit(main())
