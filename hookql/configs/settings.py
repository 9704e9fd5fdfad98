"""What a config may say: the classes that cattrs fills and that the JSON Schema is made from.

Each setting has a default, a type, and words for the editor that shows the schema.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal, NewType, cast

from attrs import Factory, asdict, field, fields, frozen

from hookql.options import RunOptions

Count = NewType("Count", int)
"""A whole number of 1 or more."""
Seconds = NewType("Seconds", float)
"""A number above 0."""
File = NewType("File", str)
"""A path, relative to the folder of the config."""
ModelName = NewType("ModelName", str)
"""A hub name, ``demo``, or the path of a folder or file there is."""
DataName = NewType("DataName", str)
"""A data set's name, or the path of a file or folder there is."""


Rules = NewType("Rules", str)
"""Which rules of the optimiser are used: ``all``, ``none`` or ``+rule,-rule``; or a truth."""


def _says(words: str) -> dict[str, str]:
    return {"says": words}


@frozen
class ModelSettings:
    """The model, and how it is loaded."""

    name: ModelName = field(
        default=ModelName("demo"), metadata=_says("a hub name, a folder, a .gguf file or demo")
    )
    revision: str | None = field(
        default=None, metadata=_says("a branch, tag or commit of a hub model")
    )
    dtype: Literal["auto", "float32", "bfloat16", "float16"] | None = field(
        default=None, metadata=_says("the type of the weights; auto: as they are stored")
    )
    device: str | None = field(default=None, metadata=_says("auto, cpu, cuda or cuda:N"))
    device_map: str | None = field(
        default=None, metadata=_says("how transformers spreads the model, such as auto")
    )
    attn: str | None = field(
        default=None, metadata=_says("the attention implementation: eager, sdpa, ...")
    )
    trust_remote_code: bool = field(
        default=False, metadata=_says("run Python code that comes with the model")
    )
    allow_pickle: bool = field(
        default=False, metadata=_says("load weights from .bin files, which can run code")
    )


@frozen
class DataSettings:
    """What the model is run on."""

    path: DataName | None = field(
        default=None, metadata=_says("a file, a data set's folder or name, or - for stdin")
    )
    texts: list[str] | None = field(default=None, metadata=_says("the samples themselves"))
    column: str | None = field(default=None, metadata=_says("the column that holds the text"))
    split: str | None = field(default=None, metadata=_says("the split of a data set"))
    limit: Count | None = field(default=None, metadata=_says("run only the first so many samples"))
    max_length: Count | None = field(default=None, metadata=_says("tokens a context, at most"))
    overflow: Literal["split", "truncate", "pack", "error"] | None = field(
        default=None, metadata=_says("what becomes of samples longer than a context")
    )
    target: str | None = field(
        default=None, metadata=_says("the column of the decoder's text (encoder-decoder models)")
    )
    chat: bool = field(
        default=False, metadata=_says("the samples are chats: lists of messages, rendered")
    )


@frozen
class RunSettings:
    """How the data is run."""

    batch_size: Count | None = field(default=None, metadata=_says("samples a batch, at most"))
    tokens_per_batch: Count | None = field(
        default=None, metadata=_says("tokens a batch, padding included, at most")
    )
    group_memory: Count | None = field(
        default=None, metadata=_says("megabytes that the groups of `by` may hold")
    )
    compress: Literal["none", "zstd", "zlib"] | None = field(
        default=None, metadata=_says("how raw values are compressed")
    )
    store_dtype: Literal["float32", "float64"] | None = field(
        default=None, metadata=_says("how raw values are stored")
    )
    store: File | None = field(
        default=None,
        metadata=_says("a folder that keeps answers, to be given again without running the model"),
    )
    checkpoint: File | None = field(
        default=None,
        metadata=_says(
            "a folder that keeps what the runs have so far, a folder in it for each query"
        ),
    )
    resume: bool = field(default=False, metadata=_says("go on where the checkpoints end"))
    checkpoint_every: Seconds | None = field(
        default=None, metadata=_says("seconds that a crash may cost")
    )
    on_error: Literal["stop", "skip"] | None = field(
        default=None,
        metadata=_says("what becomes of a sample that the tokenizer or the model fails on"),
    )
    force: bool = field(default=False, metadata=_says("run even if the disk seems too small"))
    into_anywhere: bool = field(
        default=False, metadata=_says("let `into` name files outside the output's folder")
    )
    paranoid: bool = field(
        default=False, metadata=_says("check that nothing that looks at the model writes into it")
    )
    optimize: Rules | None = field(
        default=None, metadata=_says("the optimiser's rules: all, none, or changes: +rule,-rule")
    )
    autocast: Literal["bfloat16", "float16"] | None = field(
        default=None, metadata=_says("run the model's passes in half precision")
    )
    compile: bool = field(
        default=False, metadata=_says("let torch compile the model's parts between hook points")
    )


@frozen
class QuerySettings:
    """One query: its text or its file, where its result goes, and data of its own."""

    query: str | None = field(default=None, metadata=_says("the query itself"))
    file: File | None = field(default=None, metadata=_says("a .hq file with the query"))
    output: File | None = field(default=None, metadata=_says("the result's .nc file"))
    data: DataSettings | None = field(
        default=None, metadata=_says("what this query is run on, instead of `data`")
    )


@frozen
class Settings:
    """A whole config."""

    queries: dict[str, QuerySettings] = field(metadata=_says("the queries, each by its name"))
    model: ModelSettings = field(
        default=Factory(ModelSettings), metadata=_says("the model that all queries look into")
    )
    data: DataSettings | None = field(
        default=None,
        metadata=_says("what the model is run on; the demo model has a text of its own"),
    )
    options: RunSettings = field(
        default=Factory(RunSettings), metadata=_says("how the data is run")
    )
    outputs: File | dict[str, File] | None = field(
        default=None, metadata=_says("a folder for the results (NAME.nc), or a file for each query")
    )
    overwrite: bool = field(default=False, metadata=_says("replace results that exist"))


SHORT: Mapping[type, str] = {ModelSettings: "name", DataSettings: "path", QuerySettings: "query"}
"""The setting that a text stands for where it is given instead of a mapping."""

MAY_BE_EMPTY = frozenset({ModelSettings, RunSettings})
"""Those under whose name nothing may stand, as under ``data:``: all is as by default."""

RENAMED = frozenset({"path", "texts", "name"})
"""Settings that are arguments of a run, and no options."""


def options_of(settings: ModelSettings | DataSettings | RunSettings | None) -> RunOptions:
    """The options that are given there, as `hookql.run` takes them."""
    if settings is None:
        return {}
    given = asdict(settings)
    kept = {n: v for n, v in given.items() if n not in RENAMED and v not in (None, False)}
    return cast(RunOptions, kept)


def names_of(kind: type) -> list[str]:
    """The settings of a class, in order."""
    return [each.name for each in fields(kind)]
