"""The Python face; the command line is built on the same."""

from __future__ import annotations

import re
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Unpack

from hookql.errors import Diagnostic, HookQLError, HookQLWarning, UsageError
from hookql.language.parser import LONGEST, parse
from hookql.language.places import check_into
from hookql.language.query import Query
from hookql.language.resolve import resolve
from hookql.options import ModelOptions, RunOptions, check_options, model_options

if TYPE_CHECKING:
    import torch
    import xarray

    from hookql.live.plan import Compiled
    from hookql.models.load import Model


def run(
    query: str | Path | Query,
    *,
    model: str | Path | torch.nn.Module | Model = "demo",
    data: Any = None,
    texts: Sequence[str] = (),
    inputs: Mapping[str, torch.Tensor] | None = None,
    tokenizer: Any = None,
    output: str | Path | None = None,
    overwrite: bool = False,
    progress: bool | None = None,
    **options: Unpack[RunOptions],
) -> xarray.DataTree:
    """Run a query's model over data and return what it asks for, labelled.

    Args:
        query: the query's text, a ``.hq`` file, or a resolved `Query`.
        model: ``demo``, a hub name, a folder, a ``.gguf`` file, a torch module, or a `Model`.
        data: a file (.txt, .jsonl, .csv, .parquet), a data set's folder or name, a list of texts
            or of dictionaries, or a ``datasets.Dataset``. The demo model has a text of its own.
        texts: samples given directly.
        inputs: model inputs given directly: tensors whose first axis is the samples.
        tokenizer: the tokenizer of a module; a model given by name brings its own.
        output: a NetCDF file to write as well. ``into`` clauses are written beside it.
        overwrite: whether existing files may be replaced.
        progress: show a progress bar on stderr; None: where stderr is a terminal.
        **options: of the data ``column``, ``split``, ``limit``, ``max_length``, ``overflow``
            (split | truncate | pack | error), ``target`` (the column of the decoder's text),
            ``chat`` (samples are messages, which the tokenizer's template makes a text of); of the
            run ``batch_size``, ``tokens_per_batch``, ``group_memory`` (MB that the groups of `by`
            may hold); of raw values ``compress`` (none | zstd | zlib), ``store_dtype`` (float32 |
            float64), ``force`` (run even if the disk seems too small); of long runs ``checkpoint``
            (a folder), ``resume``, ``checkpoint_every`` (seconds), ``on_error`` (stop | skip);
            ``store`` (a folder that keeps answers, which are then given without the model);
            ``into_anywhere`` (let ``into`` leave the output's folder), ``paranoid`` (prove at each
            hook that nothing was written into the model's tensors); ``optimize`` (False, or
            "+rule,-rule": the rules of docs/optimizer.md, all on), ``autocast`` (bfloat16 |
            float16: the passes run in half precision), ``compile`` (torch compiles the model's
            parts between hook points); and for a model given by name
            ``revision``, ``dtype``, ``device``, ``device_map``, ``attn``, ``trust_remote_code``,
            ``allow_pickle``.

    Returns:
        A DataTree as docs/results.md describes. With one capture of one role its variables stand
        at the root: ``run(...)["mean"].sel(layer=3)``.

    Raises:
        HookQLError: with diagnostics. QueryError if the query is wrong, UsageError an option,
            DataError the data, ModelError the model. AlreadyDone where ``resume`` finds a finished
            run: its result is in its files, for `load`.
    """
    from hookql.execute import execute

    if not isinstance(output, str | Path | None):
        message = f"`output` is a file's name, not {type(output).__name__}"
        raise UsageError(Diagnostic("bad-file", message))
    finished = execute(
        parse_query(query),
        model=model,
        data=data,
        texts=texts,
        inputs=inputs,
        tokenizer=tokenizer,
        output=None if output is None else Path(output),
        overwrite=overwrite,
        progress=progress,
        options=options,
    )
    for warning in finished.warnings:
        warnings.warn(str(warning), HookQLWarning, stacklevel=2)
    return finished.tree


def run_all(
    queries: Mapping[str, str | Path | Query],
    *,
    model: str | Path | torch.nn.Module | Model = "demo",
    data: Any = None,
    texts: Sequence[str] = (),
    inputs: Mapping[str, torch.Tensor] | None = None,
    tokenizer: Any = None,
    output: str | Path | None = None,
    overwrite: bool = False,
    progress: bool | None = None,
    **options: Unpack[RunOptions],
) -> dict[str, xarray.DataTree]:
    """Run several queries over the same model and data, in as few passes as that takes.

    Args:
        queries: the queries by name, each as `run` takes it.
        output: a folder, made if it is not there, for each result as ``NAME.nc``.
        **options: as of `run`; ``checkpoint`` is a folder with a checkpoint for each query.

    The other arguments are those of `run`. Returns the result of each query by its name, as `run`
    gives it; ``optimize="-sharing"`` runs one after another. Raises what `run` does: everything is
    checked before the first query runs.
    """
    from hookql.several import run_several

    if not isinstance(queries, Mapping) or not all(map(_is_name, queries)):
        message = "`queries` are queries by name: letters, digits, `_`, `-` and `.`"
        help = 'write `run_all({"means": "capture mean from ..."})`'
        raise UsageError(Diagnostic("bad-option", message, help=help))
    if not isinstance(output, str | Path | None):
        message = f"`output` is a folder's name, not {type(output).__name__}"
        raise UsageError(Diagnostic("bad-file", message))
    folder = None if output is None else Path(output)
    found = run_several(
        {name: parse_query(query, name) for name, query in queries.items()},
        model=model,
        data=data,
        texts=texts,
        inputs=inputs,
        tokenizer=tokenizer,
        folder=folder,
        overwrite=overwrite,
        progress=progress,
        options=options,
    )
    trees: dict[str, xarray.DataTree] = {}
    for name, finished in found:
        if isinstance(finished, HookQLError):  # a checkpoint says that it is done already
            if folder is not None and (folder / f"{name}.nc").is_file():
                trees[name] = load(folder / f"{name}.nc")
            continue
        for warning in finished.warnings:
            warnings.warn(str(warning), HookQLWarning, stacklevel=2)
        trees[name] = finished.tree
    return {name: trees[name] for name in queries if name in trees}


def _is_name(name: object) -> bool:
    """Whether it can name a query, and the file of its result."""
    return isinstance(name, str) and re.fullmatch(r"\w[\w.-]{0,99}", name) is not None


def check(
    query: str | Path | Query,
    *,
    model: str | Path | torch.nn.Module | Model | None = None,
    tokenizer: Any = None,
    target: str | None = None,
    chat: bool = False,
    **options: Unpack[ModelOptions],
) -> Query:
    """Check a query's syntax and names and, with a model, what its sites and literals bind to.

    ``target`` is the column that a run takes the decoder's text from, ``chat`` says that it runs
    chats, as in `run`. Returns the resolved query. Raises QueryError with everything that is wrong.
    """
    resolved = parse_query(query)
    check_into(resolved, anywhere=False)
    if model is not None:
        from hookql.planning import plan_for

        plan_for(resolved, model, tokenizer, target, options, chat)
    return resolved


def compile(query: str | Path | Query) -> Compiled:
    """A query to be bound to a model that you run yourself: ``compile(...).bind(model)``.

    Inside ``with plan:`` it collects from your own forward passes, training loop or ``generate``.
    Raises QueryError with everything that is wrong with it.
    """
    resolved = parse_query(query)
    from hookql.live.plan import Compiled

    return Compiled(resolved)


def explain(
    query: str | Path | Query,
    *,
    model: str | Path | torch.nn.Module | Model = "demo",
    data: Any = None,
    texts: Sequence[str] = (),
    tokenizer: Any = None,
    output: str | Path | None = None,
    format: str = "text",
    **options: Unpack[RunOptions],
) -> str:
    """What running a query would do, as ``text``, ``json`` or ``mermaid``; the model runs no data.

    With ``data`` or ``texts`` they are read and counted, and where the query has `values`, how many
    rows would come, how many bytes, and how many the disk of ``output`` has free. All arguments are
    those of `run`; ``target`` is the column that the run would take the decoder's text from.
    """
    from hookql.execute import said_of_store
    from hookql.explanation import FORMATS
    from hookql.planning import outlook_for, plan_for

    if format not in FORMATS:
        notes = (f"formats: {', '.join(FORMATS)}",)
        raise UsageError(Diagnostic("unknown-format", f"unknown format `{format}`", notes=notes))
    parsed = parse_query(query)
    check_into(parsed, bool(options.get("into_anywhere")))
    stored = said_of_store(parsed, model, tokenizer, data, texts, options)
    if data is None and not texts:
        return FORMATS[format](
            plan_for(
                parsed,
                model,
                tokenizer,
                options.get("target"),
                options,
                chat=bool(options.get("chat")),
                explaining=True,
            ),
            (),
            stored,
        )
    path = None if output is None else Path(output)
    plan, coming = outlook_for(parsed, model, tokenizer, data, texts, path, options)
    return FORMATS[format](plan, coming, stored)


def export(
    path: str | Path,
    to: str,
    output: str | Path | None = None,
    *,
    shard_bytes: int = 1_000_000_000,
    overwrite: bool = False,
    progress: bool | None = None,
) -> Path:
    """Copy the raw values of a result file into a folder for other tools; returns the folder.

    Args:
        path: a result with `values`.
        to: ``safetensors``, ``zarr``, ``parquet`` or ``npy``.
        output: the folder; ``acts.safetensors`` beside ``acts.nc`` if it is not given.
        shard_bytes: how much one file of the folder holds at most, of raw values.
        overwrite: whether an earlier export may be replaced.
        progress: show a progress bar on stderr; None: where stderr is a terminal.

    Raises:
        HookQLError: UsageError for a file without raw values or an output that exists.
    """
    from hookql.exports import export as write

    _check_path(path)
    return write(
        Path(path),
        to,
        None if output is None else Path(output),
        shard_bytes=shard_bytes,
        overwrite=overwrite,
        progress=progress,
    )


def verify(path: str | Path) -> list[str]:
    """What of a result file, a checkpoint or an exported folder is not what was written.

    Reads all of it. A sentence for each thing; nothing where all is whole. Raises UsageError for
    what is none of these.
    """
    from hookql.verifying import damage

    _check_path(path)
    return damage(Path(path))


def _check_path(path: object) -> None:
    """A result in memory is no file."""
    if not isinstance(path, str | Path):
        message = f"a result's file is meant, not {type(path).__name__}"
        raise UsageError(Diagnostic("bad-file", message, help="give the path of its file"))


def load(path: str | Path) -> xarray.DataTree:
    """A result that `run` or the command line has written. Raises UsageError if it is none."""
    from hookql.results.netcdf import load as read

    return read(Path(path))


def load_model(
    name: str | Path = "demo", *, tokenizer: Any = None, **options: Unpack[ModelOptions]
) -> Model:
    """A model loaded once, for several queries: what `run`, `check` and `explain` take as `model`.

    ``name`` is ``demo``, a hub name, a folder or a ``.gguf`` file; ``tokenizer`` takes the place of
    the model's own. Raises UsageError for a wrong option, ModelError if it cannot be loaded.
    """
    from hookql.models.load import load_model as read

    check_options(options, ModelOptions)
    return read(str(name), tokenizer=tokenizer, **model_options(options))


def parse_query(query: str | Path | Query, name: str = "<query>") -> Query:
    """A query's meaning, from its text, a ``.hq`` file or an already resolved one.

    A string is a file's name if it ends in ``.hq`` and is one line; ``name`` is what errors call
    any other. Raises QueryError with every error of the query, UsageError for a file that cannot be
    read.
    """
    if isinstance(query, Query):
        return query
    if not isinstance(query, str | Path):
        message = f"a query is its text or its file, not {type(query).__name__}"
        raise UsageError(Diagnostic("no-query", message))
    if isinstance(query, Path) or (query.strip().endswith(".hq") and "\n" not in query.strip()):
        return resolve(parse(read_query_file(Path(query)), str(query)))
    return resolve(parse(query, name))


def read_query_file(path: Path) -> str:
    """The text of a query file. Raises UsageError where it cannot be read."""
    try:
        if path.exists() and not path.is_file():
            message = f"`{path}` is not a regular file"
            raise UsageError(Diagnostic("query-file", message))
        # newline="": a caret counts the characters that stand in the file.
        with path.open(encoding="utf-8-sig", newline="") as file:
            return file.read(LONGEST + 1)  # of more the parser says that it is too much
    except UnicodeDecodeError:
        message = f"`{path}` is not a text file in UTF-8"
    except OSError as error:
        message = f"cannot read the query file `{path}`: {error.strerror or error}"
    raise UsageError(Diagnostic("query-file", message))
