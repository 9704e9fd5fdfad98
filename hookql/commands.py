"""The commands of the command line, each with its options."""

from __future__ import annotations

import argparse
from typing import Any

from hookql.arguments import (
    Once,
    add_chat,
    add_data,
    add_long_runs,
    add_model,
    add_optimizer,
    add_output,
    add_query,
    add_target,
)

_EXAMPLES = """\
examples:
  hookql run examples/first.hq                         the demo model on its own text
  hookql run -q 'capture mean, std from h[*].mlp' --model gpt2 --data texts.jsonl -o mlp.nc
  hookql modules --model gpt2 'h[0].**'                what there is to capture
  hookql explain examples/first.hq --model gpt2        what a run would do
  hookql show mlp.nc                                   a result, as tables
  hookql run -q 'capture values from @resid_post[4]' -o acts.nc --checkpoint ckpt
                                                       raw activations, safe from crashes
  hookql export acts.nc --to safetensors               the same for other tools
"""


def parser(version: str) -> argparse.ArgumentParser:
    """The parser of the whole command line; ``command`` of what it reads is the command's name."""
    whole = argparse.ArgumentParser(
        prog="hookql",
        allow_abbrev=False,
        description="A query language for looking inside neural networks.",
        epilog=_EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    whole.add_argument("--version", action="version", version=f"hookql {version}")
    commands = whole.add_subparsers(metavar="COMMAND", required=True)

    run = _command(commands, "run", "run a query over data and save what it asks for")
    add_query(run)
    add_model(run)
    add_data(run)
    add_output(run)
    add_optimizer(run)
    add_long_runs(run)

    checks = _command(commands, "check", "check a query's syntax and names")
    add_query(checks)
    add_model(checks, default=None)
    add_target(checks)
    add_chat(checks)

    explains = _command(commands, "explain", "say what a run would do; runs no data")
    add_query(explains)
    add_model(explains)
    add_data(explains)
    add_optimizer(explains)
    explains.add_argument("-o", "--output", metavar="FILE.nc", help="where a run would write")
    explains.add_argument("--store-dtype", choices=("float32", "float64"), help="as of run")
    explains.add_argument("--format", choices=("text", "json", "mermaid"), default="text")

    modules = _command(commands, "modules", "list a model's modules and how to write them")
    modules.add_argument("pattern", nargs="?", help="only modules that match, e.g. 'h[0].**'")
    add_model(modules)

    fmt = _command(commands, "fmt", "print a query in its canonical layout")
    fmt.add_argument("files", nargs="+", metavar="FILE", help="query files, or - for stdin")
    action = fmt.add_mutually_exclusive_group()
    action.add_argument("-w", "--write", action="store_true", help="rewrite the files in place")
    action.add_argument("--check", action="store_true", help="exit 1 if a file would change")

    _command(commands, "schema", "print the JSON Schema of analysis configs, for editors")

    show = _command(commands, "show", "summarise a result file")
    show.add_argument("file", metavar="FILE.nc", help="a file that `hookql run` has written")

    export = _command(commands, "export", "copy raw values into files of other tools")
    export.add_argument("file", metavar="FILE.nc", help="a result with `values`")
    kinds = ("safetensors", "zarr", "parquet", "npy")
    export.add_argument("--to", required=True, choices=kinds, help="the format")
    export.add_argument("-o", "--output", metavar="DIR", help="the folder (default: FILE.FORMAT)")
    export.add_argument(
        "--shard-size", type=float, default=1000, metavar="MB", help="of one file at most (1000)"
    )
    export.add_argument("--overwrite", action="store_true", help="replace an earlier export")

    verify = _command(commands, "verify", "check that nothing written has changed since")
    verify.add_argument("path", metavar="PATH", help="a result, a checkpoint or an exported folder")
    return whole


def _command(commands: Any, name: str, help: str) -> argparse.ArgumentParser:
    parser: argparse.ArgumentParser = commands.add_parser(
        name, help=help, description=help, allow_abbrev=False
    )
    parser.set_defaults(command=name, parser=parser)
    # Everything that says no action of its own, in its groups too.
    parser.register("action", None, Once)
    return parser
