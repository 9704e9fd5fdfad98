"""`hookql run`, `explain`, `check` and `schema`, where they are about configs."""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable, Sequence

from hookql.configs.analysis import Analysis
from hookql.configs.json_schema import json_schema
from hookql.errors import AlreadyDone, Diagnostic, UsageError, printable

_BESIDE = ("file", "overwrite", "resume", "quiet", "format")


def run_config(
    options: argparse.Namespace,
    say: Callable[[str], None],
    warn: Callable[[Sequence[Diagnostic]], None],
) -> int:
    """Run the config that a command names, and print each result as it comes.

    ``say`` and ``warn`` print lines and warnings on stderr. Raises UsageError for options that the
    config should have, and all that `Analysis` does.
    """
    from hookql.results.table import render

    _only_its_own(options)
    analysis = Analysis.from_file(options.file)
    unsaved = [run.name for run in analysis.runs if run.output is None and run.leaves_some]
    if unsaved and options.quiet:
        message = "the results would be lost: `--quiet` prints no tables, and there are no outputs"
        help = f"write `outputs: FOLDER` into `{options.file}`"
        raise UsageError(Diagnostic("no-output", message, help=help))
    analysis = analysis.asked(overwrite=options.overwrite, resume=options.resume)
    each = analysis.each(
        progress=False if options.quiet else None,
        say=(lambda line: None) if options.quiet else say,
    )
    for run, finished in each:
        if isinstance(finished, AlreadyDone):
            warn(finished.diagnostics)
            continue
        warn(finished.warnings)
        if not options.quiet:
            print(f"# {run.name}")
            print(render(finished.tree))
            for path in finished.written:
                print(f"written: {printable(str(path))}")
            print("", flush=True)
    if unsaved and not options.quiet:
        print(f"not saved: write `outputs: FOLDER` into `{options.file}` to keep them")
    return 0


def explain_config(options: argparse.Namespace) -> int:
    """Print what running a config would do."""
    _only_its_own(options)
    print(Analysis.from_file(options.file).explain(format=options.format), end="")
    return 0


def check_config(options: argparse.Namespace, warn: Callable[[Sequence[Diagnostic]], None]) -> int:
    """Check a config and its queries, without a model."""
    _only_its_own(options)
    analysis = Analysis.from_file(options.file)
    for run in analysis.runs:
        warn(run.located.here(run.located.query.warnings))
    count = len(analysis.runs)
    print(f"{options.file}: {count} quer{'y' if count == 1 else 'ies'}, no errors")
    return 0


def print_schema() -> int:
    """Print the JSON Schema of configs."""
    print(json.dumps(json_schema(), indent=2, ensure_ascii=False))
    return 0


def _only_its_own(options: argparse.Namespace) -> None:
    """Refuse options that a config has settings for."""
    for action in options.parser._actions:
        given = getattr(options, action.dest, action.default)
        was_given = given != action.default or getattr(action, "seen", False)
        if action.dest not in _BESIDE and was_given:
            name = (action.option_strings or [action.dest])[-1]
            message = f"`{name}` does not go with a config, which says all of this itself"
            help = f"write it into `{options.file}`"
            raise UsageError(Diagnostic("config-option", message, help=help))
