"""The runs of an analysis, one for each query: checked together, then run one after another."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from attrs import frozen

from hookql.configs.agreement import output_of
from hookql.configs.document import Document, Where
from hookql.configs.located import Located, placed
from hookql.configs.settings import DataSettings, Settings, options_of
from hookql.errors import Diagnostic, HookQLError, UsageError
from hookql.language.places import check_into
from hookql.options import RunOptions, check_checkpoint, check_options

if TYPE_CHECKING:
    from hookql.models.load import Model
    from hookql.plan import Plan
    from hookql.together import Order


@frozen(eq=False)
class Run:
    """One query with all that its run takes, but for the model; ``at`` is where its data is named.

    ``output`` is None where the config names no file.
    """

    name: str
    located: Located
    data: str | None
    texts: tuple[str, ...]
    at: Where
    output: Path | None
    overwrite: bool
    options: RunOptions

    @property
    def place(self) -> Path | None:
        """The output, while its folder is not made yet in the folder that it will be made in."""
        if self.output is None:
            return None
        there = next((f for f in self.output.parents if f.is_dir()), self.output.parent)
        return there / self.output.name

    @property
    def leaves_some(self) -> bool:
        """Whether a capture has no file of its own by `into`."""
        return any(capture.into is None for capture in self.located.query.captures)


def runs_of(
    document: Document, settings: Settings, queries: Mapping[str, Located], folder: Path | None
) -> tuple[Run, ...]:
    """The runs, in the order of the config. Raises UsageError where files of theirs clash."""
    runs = tuple(_run(settings, name, each, folder or Path()) for name, each in queries.items())
    problems = list(clashes(document, runs))
    if problems:
        raise UsageError(problems)
    return runs


def _run(settings: Settings, name: str, located: Located, folder: Path) -> Run:
    own = settings.queries[name].data
    data = settings.data if own is None else own
    data = DataSettings() if data is None else data
    above: Where = ("data",) if own is None else ("queries", name, "data")
    options: RunOptions = {**options_of(data), **options_of(settings.options)}
    if settings.options.checkpoint is not None:
        options["checkpoint"] = Path(settings.options.checkpoint) / name
    return Run(
        name=name,
        located=located,
        data=data.path,
        texts=tuple(data.texts or ()),
        at=(*above, "path" if data.path is not None else "texts"),
        output=_output(settings, name, located, folder),
        overwrite=settings.overwrite,
        options=options,
    )


def _output(settings: Settings, name: str, located: Located, folder: Path) -> Path | None:
    """The file of a run's result.

    Where every capture has an `into`, it is a file that will not be written, in the folder where
    they are.
    """
    output = output_of(settings, name)
    into = {capture.into for capture in located.query.captures}
    if None in into:
        return output
    place = folder if output is None else output.parent
    free = f"{name}.nc"
    while free in into:
        free = f"_{free}"
    return place / free


def clashes(document: Document, runs: Sequence[Run]) -> Iterator[Diagnostic]:
    """Files that two of the runs would write, and `into` files without a folder to be in."""
    seen: dict[str, str] = {}
    for run in runs:
        captures = run.located.query.captures
        if run.output is None:
            into = next((capture for capture in captures if capture.into is not None), None)
            if into is not None:
                message = "`into` writes beside the output, and this query has none"
                source, help = run.located.query.source, "write `outputs: FOLDER` at the top"
                wrong = Diagnostic("no-output", message, into.into_span, source, help)
                yield from run.located.here([wrong])
            continue
        names = {run.output.name if each.into is None else each.into for each in captures}
        for path in sorted(run.output.parent / name for name in names):
            real = os.path.realpath(path)
            if seen.setdefault(real, run.name) != run.name:
                message = f"the queries `{seen[real]}` and `{run.name}` both write `{path}`"
                span = document.key(("queries", run.name))
                help = "give one of them another name"
                yield document.wrong("same-output", message, span, help)


def check_runs(
    document: Document, runs: Sequence[Run], model: Callable[[], Model]
) -> tuple[Model, dict[str, Plan]]:
    """Find what is wrong with any run before the first begins; the model, and the plans by name.

    Options, outputs and data are looked at before ``model`` is called, which loads it; then every
    query is bound to it. Raises HookQLError with all that one of these steps finds.
    """
    gathered(runs, lambda run: _check_options(document, run))
    gathered(runs, lambda run: _check_outputs(document, run))
    opened: dict[Where, Any] = {}
    gathered(runs, lambda run: _open(document, run, opened))
    loaded = model()
    plans: dict[str, Plan] = {}
    gathered(runs, lambda run: _bind(document, run, opened[run.at], loaded, plans))
    return loaded, plans


def gathered(runs: Sequence[Run], check: Callable[[Run], None]) -> None:
    """Check all runs; raises what is wrong with any, as one error of the first one's kind."""
    failed: list[HookQLError] = []
    for run in runs:
        try:
            check(run)
        except HookQLError as error:
            failed.append(error)
    if failed:
        found = dict.fromkeys(each for error in failed for each in error.diagnostics)
        raise type(failed[0])(found) from failed[0]


def _check_options(document: Document, run: Run) -> None:
    try:
        check_options(run.options)
        check_checkpoint(run.options)
    except UsageError as error:
        raise placed(error, document, ("options",)) from None
    try:
        check_into(run.located.query, bool(run.options.get("into_anywhere")))
    except HookQLError as error:
        raise type(error)(run.located.here(error.diagnostics)) from None


def _check_outputs(document: Document, run: Run) -> None:
    from hookql.checkpoint import begun
    from hookql.results.outputs import plan_outputs

    query = run.located.query
    if run.output is None and any(c.raw and c.into is None for c in query.captures):
        message = f"raw values have to go into a file, and the query `{run.name}` has none"
        span = document.key(("queries", run.name))
        help = "write `outputs: FOLDER` at the top"
        raise UsageError(document.wrong("no-output", message, span, help))
    if run.output is not None and run.output.suffix == ".nc" and not run.output.parent.exists():
        return  # the folder is made when all has been checked, and holds nothing yet
    # Only what a checkpoint of the run's own has written may be there.
    kept = run.options.get("checkpoint")
    resumed = bool(run.options.get("resume")) and kept is not None and begun(Path(kept))
    try:
        plan_outputs(query, run.output, run.overwrite or resumed)
    except UsageError as error:
        raise placed(error, document, _named(document, run)) from None


def _named(document: Document, run: Run) -> Where:
    """Where a run's output is named, or else the run."""
    whole = document.root.value
    own: Where = ("queries", run.name, "output")
    if document.key(own) != document.key(own[:-1]):
        return own
    return ("outputs", run.name) if "outputs" in whole else own[:-1]


def _open(document: Document, run: Run, opened: dict[Where, Any]) -> None:
    """Open the data of a run, once for all that share it."""
    from hookql.source import open_texts

    if run.at in opened:
        return
    opened[run.at] = None
    try:
        opened[run.at] = open_texts(run.data, run.texts, None, run.options)
    except HookQLError as error:
        raise placed(error, document, run.at) from None


def _bind(document: Document, run: Run, dataset: Any, model: Model, plans: dict[str, Plan]) -> None:
    from hookql.binding import bind
    from hookql.known import known_or_probed
    from hookql.models.precision import with_autocast
    from hookql.optimizer.rules import chosen
    from hookql.source import open_source

    model = with_autocast(model, run.options.get("autocast"))
    rules = chosen(run.options.get("optimize"))
    try:
        source = open_source(model, dataset, None, run.options)
    except HookQLError as error:
        raise placed(error, document, run.at) from None
    try:
        query = run.located.query
        plans[run.name] = bind(query, model, source.feed, source.columns, rules, known_or_probed)
    except HookQLError as error:
        raise type(error)(run.located.here(error.diagnostics)) from None


def order_of(run: Run) -> Order:
    """A run as `hookql.together` takes it."""
    from hookql.together import Order

    return Order(
        name=run.name,
        query=run.located.query,
        data=run.data,
        texts=run.texts,
        inputs=None,
        output=run.output,
        overwrite=run.overwrite,
        options=run.options,
    )


def make_folders(runs: Sequence[Run]) -> None:
    """Make the folders that outputs and checkpoints will lie in."""
    for run in runs:
        for folder in (run.output, run.options.get("checkpoint")):
            if folder is not None:
                _make(Path(folder).parent)


def _make(folder: Path) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        message = f"the folder `{folder}` cannot be made: {error.strerror}"
        raise UsageError(Diagnostic("no-such-folder", message)) from None
