"""`Analysis`: a config read, checked and run, from a file or from a mapping of Python's."""

from __future__ import annotations

import json
import os
import warnings
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from attrs import evolve, field, frozen

import hookql.api as api
from hookql.configs.agreement import disagreements
from hookql.configs.document import Document, from_python
from hookql.configs.located import Located, located, placed
from hookql.configs.reading import read_document
from hookql.configs.runs import Run, begin, check_runs, runs_of
from hookql.configs.settings import Settings, options_of
from hookql.configs.structure import structured
from hookql.configs.variables import expanded
from hookql.errors import AlreadyDone, Diagnostic, HookQLError, HookQLWarning, UsageError
from hookql.language.query import Query
from hookql.options import RunOptions

if TYPE_CHECKING:
    import torch
    import xarray

    from hookql.execute import Finished
    from hookql.models.load import Model


@frozen(eq=False)
class Analysis:
    """A model, data and named queries, as docs/configs.md describes them.

    ``settings`` is all that the config says, with variables put in and paths resolved; ``queries``
    are the queries by name, resolved.
    """

    settings: Settings
    runs: tuple[Run, ...] = field(repr=False)
    document: Document = field(repr=False)

    @classmethod
    def from_file(cls, path: str | Path) -> Analysis:
        """The analysis that a .yaml, .yml, .toml or .json file describes; loads no model.

        Relative paths in it lie in its folder. Raises UsageError with everything that is wrong with
        the settings, else with the queries (QueryError), each with its line.
        """
        file = Path(path)
        return _checked(cls, read_document(file), file.parent)

    @classmethod
    def from_dict(cls, config: Mapping[str, Any], *, folder: str | Path | None = None) -> Analysis:
        """The analysis that a mapping describes: plain Python's, or a node of an OmegaConf one.

        ``folder`` is where its relative paths lie; by default the current one. Raises what
        `from_file` does.
        """
        document = Document(from_python(config), "config")
        return _checked(cls, document, None if folder is None else Path(folder))

    @property
    def queries(self) -> Mapping[str, Query]:
        """The queries by name."""
        return {run.name: run.located.query for run in self.runs}

    def run(
        self,
        *,
        model: torch.nn.Module | Model | None = None,
        tokenizer: Any = None,
        overwrite: bool = False,
        resume: bool = False,
        progress: bool | None = None,
    ) -> dict[str, xarray.DataTree]:
        """Run all queries; returns the result of each, as `hookql.run` does, by its name.

        Args:
            model: a model that is loaded already, in place of the one that the config names.
            tokenizer: of a module, or in place of the model's own.
            overwrite: replace results that exist, as `overwrite: true` in the config.
            resume: go on where the checkpoints end, as `resume: true` in the config's `options`.
            progress: show progress bars on stderr; None: where stderr is a terminal.

        Everything is checked before the first query runs: options, outputs, data, and each query
        with the model. A query whose run a checkpoint says is finished is not run again: its result
        is read from its file, where it has one.
        """
        results: dict[str, xarray.DataTree] = {}
        asked = self.asked(overwrite=overwrite, resume=resume)
        for run, finished in asked.each(model=model, tokenizer=tokenizer, progress=progress):
            if isinstance(finished, AlreadyDone):
                if run.output is not None and run.output.is_file():
                    results[run.name] = api.load(run.output)
                continue
            for warning in finished.warnings:
                warnings.warn(str(warning), HookQLWarning, stacklevel=2)
            results[run.name] = finished.tree
        return results

    def asked(self, *, overwrite: bool, resume: bool) -> Analysis:
        """The same analysis, with what its caller asks for besides the config."""
        runs = []
        for run in self.runs:
            options: RunOptions = {**run.options, "resume": True} if resume else run.options
            runs.append(evolve(run, overwrite=run.overwrite or overwrite, options=options))
        return evolve(self, runs=tuple(runs))

    def each(
        self,
        *,
        model: torch.nn.Module | Model | None = None,
        tokenizer: Any = None,
        progress: bool | None = None,
        say: Callable[[str], None] | None = None,
    ) -> Iterator[tuple[Run, Finished | AlreadyDone]]:
        """The same one by one, for the command line; ``say`` as of `hookql.execute.execute`."""
        loaded = check_runs(self.document, self.runs, lambda: self._model(model, tokenizer))
        done: list[str] = []
        for run in self.runs:
            try:
                yield run, begin(run, loaded, progress, say)
            except AlreadyDone as error:
                yield run, error
            except HookQLError as error:
                raise self._in(error, run, done) from error
            done.append(run.name)

    def explain(
        self,
        *,
        model: torch.nn.Module | Model | None = None,
        tokenizer: Any = None,
        format: str = "text",
    ) -> str:
        """What each query would do, one after another; no data is run.

        ``format`` is ``text``, ``json`` (an object of plans by name) or ``mermaid`` (a diagram a
        query). Raises what `run` does, but for outputs that exist.
        """
        loaded = self._model(model, tokenizer)
        said: dict[str, str] = {}
        for run in self.runs:
            try:
                said[run.name] = api.explain(
                    run.located.query,
                    model=loaded,
                    data=run.data,
                    texts=run.texts,
                    output=run.place,
                    format=format,
                    **run.options,
                )
            except HookQLError as error:
                found = type(error)(run.located.here(error.diagnostics))
                raise placed(found, self.document, ("queries", run.name)) from error
        if format == "json":
            plans = {name: json.loads(text) for name, text in said.items()}
            return json.dumps(plans, indent=2, ensure_ascii=False) + "\n"
        mark = "%%" if format == "mermaid" else "#"
        return "\n".join(f"{mark} {name}\n{text}" for name, text in said.items())

    def _model(self, given: torch.nn.Module | Model | None, tokenizer: Any) -> Model:
        """The model of all queries, loaded once."""
        from hookql.execute import get_model

        if given is not None:
            return get_model(given, tokenizer, {})
        settings = self.settings.model
        try:
            options: Any = options_of(settings)
            return api.load_model(settings.name, tokenizer=tokenizer, **options)
        except HookQLError as error:
            raise placed(error, self.document, ("model", "name")) from error

    def _in(self, error: HookQLError, run: Run, done: list[str]) -> HookQLError:
        """The same error, naming the query that it came from."""
        if len(self.runs) == 1:
            return error
        first, *others = error.diagnostics
        left = [r.name for r in self.runs if r.name not in (*done, run.name)]
        note = f"this was the query `{run.name}`"
        note += f"; finished: {', '.join(done)}" if done else ""
        note += f"; not run: {', '.join(left)}" if left else ""
        return type(error)([evolve(first, notes=(*first.notes, note)), *others])


def _checked(kind: type[Analysis], document: Document, folder: Path | None) -> Analysis:
    """The analysis of a document. Raises all that is wrong with it."""
    document, problems = expanded(document, os.environ)
    settings, wrong = structured(document, folder)
    problems += wrong
    if settings is not None:
        problems += disagreements(document, settings)
    if problems or settings is None:
        at = [(each.span.start if each.span else 0) for each in problems]
        ordered = [each for _, each in sorted(zip(at, problems, strict=True), key=lambda p: p[0])]
        raise UsageError(ordered)
    queries = _queries(document, settings)
    return kind(settings, runs_of(document, settings, queries, folder), document)


def _queries(document: Document, settings: Settings) -> dict[str, Located]:
    """All queries; raises what is wrong with any."""
    found: dict[str, Located] = {}
    failed: list[HookQLError] = []
    for name, query in settings.queries.items():
        file = None if query.file is None else Path(query.file)
        try:
            found[name] = located(document, name, query, file)
        except HookQLError as error:
            failed.append(error)
    if failed:
        problems: list[Diagnostic] = [d for error in failed for d in error.diagnostics]
        raise type(failed[0])(problems) from None
    return found
