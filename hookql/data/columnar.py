"""Parquet files and Hugging Face data sets, a batch of rows at a time (extra ``hookql[data]``)."""

from __future__ import annotations

import importlib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from hookql.data.limits import LONGEST, too_long
from hookql.errors import DataError, Diagnostic, UsageError, did_you_mean, listing

_ROWS = 256
_BATCH = 1 << 28
Records = Iterator[tuple[str | None, Mapping[str, object]]]


def extra(module: str, what: str) -> Any:
    """Import an optional package, or say which extra brings it."""
    try:
        return importlib.import_module(module)
    except ImportError:
        raise UsageError(
            Diagnostic(
                "missing-extra",
                f"{what} needs the package `{module.partition('.')[0]}`, which is not installed",
                help="run `pip install 'hookql[data]'`",
            )
        ) from None


def _rows_at_once(group: Any, name: str) -> int:
    """How many rows of a row group to read at once, so that they take about ``_BATCH`` bytes.

    A text that stands once in a dictionary may be the value of every row: each text may be as long
    as its column is in the file, unfolded. Raises DataError for lists that are far too long.
    """
    columns = [group.column(number) for number in range(group.num_columns)]
    rows = max(1, group.num_rows)
    widest = 0.0
    for column in columns:
        if column.num_values / rows > LONGEST:
            raise too_long(f"{name}, column {column.path_in_schema}")
        size = max(column.total_uncompressed_size, 8 * column.num_values)
        widest += size / (1 if _is_text(column) else rows)
    return max(1, min(_ROWS, int(_BATCH / max(1, widest))))


def _is_text(column: Any) -> bool:
    return bool(column.physical_type == "BYTE_ARRAY" and column.has_dictionary_page)


class Parquet:
    """A Parquet file: its columns, which of them are text, its row count and its rows."""

    def __init__(self, path: Path, name: str) -> None:
        self._arrow = extra("pyarrow", "a Parquet file")
        self._parquet = extra("pyarrow.parquet", "a Parquet file")
        self._path, self._name = path, name
        with self._opened() as file:
            schema = file.schema_arrow
            self.total: int = file.metadata.num_rows
        self.columns = tuple(schema.names)
        types = self._arrow.types
        self.strings = tuple(
            f.name for f in schema if types.is_string(f.type) or types.is_large_string(f.type)
        )

    def records(self) -> Records:
        """Place and columns of each row; memory holds one batch of rows."""
        number = 0
        with self._opened() as file:
            try:
                for group in range(file.num_row_groups):
                    rows = _rows_at_once(file.metadata.row_group(group), self._name)
                    for batch in file.iter_batches(batch_size=rows, row_groups=[group]):
                        for row in batch.to_pylist():
                            yield f"{self._name}, row {number}", row
                            number += 1
            except MemoryError:
                raise too_long(f"{self._name}, row {number}") from None
            except (self._arrow.ArrowException, OSError) as error:
                raise self._broken(error) from None

    def _opened(self) -> Any:
        try:
            return self._parquet.ParquetFile(self._path)
        except (self._arrow.ArrowException, OSError) as error:
            raise self._broken(error) from None

    def _broken(self, error: Exception) -> DataError:
        why = str(error).strip().split("\n")[0]
        return DataError(Diagnostic("bad-parquet", f"{self._name}: not a Parquet file: {why}"))


class Hugging:
    """A `datasets` Dataset or IterableDataset, with the same four faces as `Parquet`."""

    def __init__(self, dataset: Any) -> None:
        self._dataset = dataset
        features: Mapping[str, Any] = getattr(dataset, "features", None) or {}
        names = getattr(dataset, "column_names", None)
        self.columns: tuple[str, ...] | None = tuple(names) if names else None
        self.strings: tuple[str, ...] | None = (
            tuple(n for n, f in features.items() if getattr(f, "dtype", None) in _TEXT)
            if features
            else None
        )
        self.total: int | None = (
            len(dataset) if hasattr(dataset, "__len__") else _announced(dataset)
        )

    def records(self) -> Records:
        """Each row's columns; memory holds one batch of rows."""
        batches = iter(self._dataset.iter(batch_size=_ROWS))
        while True:
            try:
                batch = next(batches, None)
            except Exception as error:
                # A streamed data set reads its files here: a network or a file may fail.
                raise DataError(
                    Diagnostic("bad-dataset", f"the data set cannot be read: {_first(error)}")
                ) from None
            if batch is None:
                return
            names = list(batch)
            for values in zip(*(batch[name] for name in names), strict=True):
                yield None, dict(zip(names, values, strict=True))


_TEXT = ("string", "large_string")


def _announced(dataset: Any) -> int | None:
    """The number of rows that a streamed data set's own card announces."""
    splits = getattr(getattr(dataset, "info", None), "splits", None) or {}
    split = splits.get(str(getattr(dataset, "split", "")))
    return getattr(split, "num_examples", None) or None


def one_split(data: Any, split: str | None, name: str) -> Any:
    """One split of a DatasetDict; the only one where none is named.

    Raises:
        UsageError: where there is no such split, or there are several and none is named.
    """
    names = list(data)
    if split is None and len(names) == 1:
        return data[names[0]]
    if split in data:
        return data[split]
    notes = (f"splits: {listing(names)}",)
    if split is None:
        help = f"name one with --split {names[0]}" if names else None
        message = f"{name} has several splits"
        raise UsageError(Diagnostic("needs-split", message, help=help, notes=notes))
    message = f"{name} has no split `{split}`"
    raise UsageError(
        Diagnostic("unknown-split", message, help=did_you_mean(split, names), notes=notes)
    )


def is_saved(folder: Path) -> bool:
    """Whether a folder was written by ``save_to_disk``."""
    return (folder / "dataset_dict.json").exists() or (folder / "state.json").exists()


def load_saved(folder: Path, split: str | None, name: str) -> Any:
    """The data set that ``save_to_disk`` wrote to a folder, memory-mapped."""
    datasets = extra("datasets", "a data set folder")
    try:
        data = datasets.load_from_disk(str(folder))
    except Exception as error:
        raise DataError(
            Diagnostic("bad-dataset", f"{name}: the data set cannot be loaded: {_first(error)}")
        ) from None
    if isinstance(data, dict):
        return one_split(data, split, name)
    if split is not None and str(data.split or "") != split:
        raise UsageError(
            Diagnostic(
                "unknown-split",
                f"{name} has no split `{split}`",
                help="leave --split out: the folder holds one data set",
            )
        )
    return data


def load_named(name: str, split: str | None) -> Any:
    """A data set of the hub by its name: streamed, or from the local cache where offline."""
    datasets = extra("datasets", f"the data set `{name}`")
    hub = extra("huggingface_hub", f"the data set `{name}`")
    reachable = _ask(hub, name)
    try:
        data = _load(datasets, name, reachable)
    except Exception as error:
        if not reachable:
            raise _unreachable(name) from None
        raise DataError(
            Diagnostic("bad-dataset", f"the data set `{name}` cannot be loaded: {_first(error)}")
        ) from None
    return one_split(data, split, f"the data set `{name}`") if isinstance(data, dict) else data


def _ask(hub: Any, name: str) -> bool:
    """Whether the hub answers for a data set: one question, a short wait, no retries."""
    try:
        hub.HfApi().dataset_info(name, timeout=5)
    except hub.errors.GatedRepoError:
        raise DataError(
            Diagnostic(
                "gated-dataset",
                f"the data set `{name}` is only for those who were granted access",
                help="ask for access on its page and log in with `hf auth login`",
            )
        ) from None
    except (hub.errors.RepositoryNotFoundError, hub.errors.HFValidationError):
        raise DataError(
            Diagnostic(
                "unknown-data",
                f"there is no file or folder `{name}`, and the hub has no such data set, or it is "
                "private",
                help='check the spelling; to run a text itself, use --text "..."',
            )
        ) from None
    except Exception:
        # No network, an offline switch, a proxy's refusal: the cache may still have it.
        return False
    return True


def _load(datasets: Any, name: str, reachable: bool) -> Any:
    if reachable:
        return datasets.load_dataset(name, streaming=True)
    config = datasets.config
    before = config.HF_HUB_OFFLINE
    config.HF_HUB_OFFLINE = True
    try:
        return datasets.load_dataset(name)
    finally:
        config.HF_HUB_OFFLINE = before


def _unreachable(name: str) -> DataError:
    return DataError(
        Diagnostic(
            "hub-unreachable",
            f"there is no file or folder `{name}`, and the hub cannot be reached to look for a "
            "data set of that name",
            help="download it where there is a network, `save_to_disk` it, and give that folder",
        )
    )


def _first(error: Exception) -> str:
    return (str(error).strip() or type(error).__name__).split("\n")[0]
