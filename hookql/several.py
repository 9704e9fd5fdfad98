"""`run_all`: several queries over the same model and data, from Python."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from hookql.errors import Diagnostic, HookQLError, UsageError
from hookql.execute import Finished, check_texts
from hookql.language.places import check_into
from hookql.language.query import Query
from hookql.loading import AnyModel, get_model
from hookql.options import ModelOptions, RunOptions, check_checkpoint, check_options
from hookql.results.outputs import plan_outputs
from hookql.together import Order, check_data, naming, passes_for, plans_of, run_each


def run_several(
    queries: Mapping[str, Query],
    *,
    model: AnyModel,
    data: Any,
    texts: Sequence[str],
    inputs: Mapping[str, Any] | None,
    tokenizer: Any,
    folder: Path | None,
    overwrite: bool,
    progress: bool | None,
    options: RunOptions,
) -> Iterator[tuple[str, Finished | HookQLError]]:
    """Check all, then run them and yield what each has, by name; see `hookql.run_all`.

    Raises what is wrong before the first runs, and the first error of a run, which names its query.
    """
    check_options(options)
    check_checkpoint(options)
    check_texts(texts)
    loading = ModelOptions.__annotations__
    of_run: Any = {name: value for name, value in options.items() if name not in loading}
    orders = []
    for name, query in queries.items():
        mine: Any = dict(of_run)
        if (kept := options.get("checkpoint")) is not None:
            mine["checkpoint"] = Path(kept) / name
        output = None if folder is None else folder / f"{name}.nc"
        orders.append(Order(name, query, data, texts, inputs, output, overwrite, mine))
    if folder is not None:
        _make(folder)
    if (checkpoints := options.get("checkpoint")) is not None:
        _make(Path(checkpoints))
    _check_files(orders)
    loaded = get_model(model, tokenizer, options)
    plans = plans_of(orders, loaded)
    passes = passes_for(orders, plans, loaded)
    check_data(orders, passes, loaded)
    done: list[str] = []
    for names, found in run_each(orders, passes, plans, loaded, progress, None):
        if isinstance(found, HookQLError) and found.exit_code:
            raise naming(found, names, done, list(queries)) from found
        yield names[0], found
        done += names


def _make(folder: Path) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        message = f"the folder `{folder}` cannot be made: {error.strerror}"
        raise UsageError(Diagnostic("no-such-folder", message)) from None


def _check_files(orders: Sequence[Order]) -> None:
    """Refuse files that cannot be written, and one that two queries would write."""
    seen: dict[Path, str] = {}
    for order in orders:
        folder = Path() if order.output is None else order.output.parent
        check_into(order.query, bool(order.options.get("into_anywhere")), folder)
        resumes = bool(order.options.get("resume"))
        outputs = plan_outputs(order.query, order.output, order.overwrite or resumes)
        into = {path for path in outputs.into if path is not None}
        needed = {*into, *([outputs.main] if outputs.main and None in outputs.into else [])}
        for path in sorted(needed):
            if seen.setdefault(path.resolve(), order.name) != order.name:
                whose = seen[path.resolve()]
                message = f"the queries `{whose}` and `{order.name}` both write `{path}`"
                help = "give one of them another name"
                raise UsageError(Diagnostic("same-output", message, help=help))
