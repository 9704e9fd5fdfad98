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
from hookql.configs.runs import Run, check_runs, make_folders, order_of, runs_of
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
    from hookql.optimizer.sharing import Passes


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
        found: dict[str, xarray.DataTree] = {}
        asked = self.asked(overwrite=overwrite, resume=resume)
        for run, finished in asked.each(model=model, tokenizer=tokenizer, progress=progress):
            if isinstance(finished, AlreadyDone):
                if run.output is not None and run.output.is_file():
                    found[run.name] = api.load(run.output)
                continue
            for warning in finished.warnings:
                warnings.warn(str(warning), HookQLWarning, stacklevel=2)
            found[run.name] = finished.tree
        return {run.name: found[run.name] for run in self.runs if run.name in found}

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
        """The same one by one, for the command line; ``say`` as of `hookql.execute.execute`.

        Queries that share a pass over the data come one after another.
        """
        from hookql.together import naming, passes_for, run_each

        loaded, plans = check_runs(self.document, self.runs, lambda: self._model(model, tokenizer))
        make_folders(self.runs)
        orders = [order_of(run) for run in self.runs]
        passes = passes_for(orders, plans, loaded)
        named = {run.name: run for run in self.runs}
        done: list[str] = []  # those whose result is there
        for names, found in run_each(orders, passes, plans, loaded, progress, say):
            run = named[names[0]]
            if isinstance(found, AlreadyDone):
                yield run, found
            elif isinstance(found, HookQLError):
                error = type(found)(run.located.here(found.diagnostics))
                raise naming(error, names, done, list(named)) from found
            else:
                yield run, evolve(found, warnings=run.located.here(found.warnings))
            done += names

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
        passes, lines = self._passes(loaded)
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
            for name, plan in plans.items():
                if len(company := passes.of(name)) > 1:
                    plan["pass_shared_with"] = [other for other in company if other != name]
            return json.dumps(plans, indent=2, ensure_ascii=False) + "\n"
        mark = "%%" if format == "mermaid" else "#"
        shown = [f"{mark} {name}\n{text}" for name, text in said.items()]
        if len(said) > 1:
            ahead = "%% " if format == "mermaid" else ""
            shown.append(f"{mark} passes\n" + "".join(f"{ahead}{line}\n" for line in lines))
        return "\n".join(shown)

    def _passes(self, loaded: Model) -> tuple[Passes, list[str]]:
        """Which queries share a pass, and that in words; none where one is wrong, which is said."""
        from hookql.optimizer.sharing import Passes, described
        from hookql.together import passes_for, plans_of

        orders = [order_of(run) for run in self.runs]
        try:
            plans = plans_of(orders, loaded)
            passes = passes_for(orders, plans, loaded)
        except HookQLError:
            return Passes(tuple((run.name,) for run in self.runs), {}), []
        return passes, described(passes, plans)

    def _model(self, given: torch.nn.Module | Model | None, tokenizer: Any) -> Model:
        """The model of all queries, loaded once."""
        from hookql.loading import get_model

        if given is not None:
            return get_model(given, tokenizer, {})
        settings = self.settings.model
        try:
            options: Any = options_of(settings)
            return api.load_model(settings.name, tokenizer=tokenizer, **options)
        except HookQLError as error:
            raise placed(error, self.document, ("model", "name")) from error


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
