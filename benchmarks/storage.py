"""`python -m benchmarks.storage`: what raw rows cost on disk, and to read back.

Rows like those of a GPT-2-size residual stream come in irregular batches, as a run hands them over,
and go to a NetCDF file: by itself, and through the writing thread with checksums; then the file is
synced. `numpy.memmap` with a flush and an fsync writes the same rows to the same disk. Only ratios
of interleaved runs mean anything on a shared machine: the contestants take turns, and the median of
the ratios is printed with their range.
"""

from __future__ import annotations

import argparse
import importlib.util
import os
import shutil
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import netCDF4
import numpy as np

from hookql.raw import layout
from hookql.raw.checksums import seal
from hookql.raw.ragged import RaggedFile
from hookql.raw.tables import RawTable, RawVariable
from hookql.raw.writer import Writer

Array = np.ndarray[Any, Any]
WIDTH = 768
SECTOR = 512


def values(rows: int) -> Array:
    """Numbers that compress as activations do: features of different sizes, a few very large."""
    rng = np.random.default_rng(0)
    scale = np.exp(rng.standard_normal(WIDTH)).astype("<f4")
    scale[::97] *= 50
    mean = rng.standard_normal(WIDTH).astype("<f4") * scale
    found = np.empty((rows, WIDTH), "<f4")
    for first in range(0, rows, 10_000):
        drawn = rng.standard_normal((min(10_000, rows - first), WIDTH), np.float32)
        found[first : first + 10_000] = drawn * scale + mean
    return found


def pieces(rows: int) -> Iterator[slice]:
    """Batches of irregular size: 300 to 3,000 tokens, as windows of samples complete."""
    rng = np.random.default_rng(1)
    first = 0
    while first < rows:
        size = min(rows - first, int(rng.integers(300, 3000)))
        yield slice(first, first + size)
        first += size


def synced(path: Path) -> None:
    """Have a file on the disk."""
    with path.open("rb+") as file:
        os.fsync(file.fileno())


def memmap(path: Path, whole: Array) -> None:
    """The limit: a raw file of known size, mapped."""
    mapped = np.memmap(path, "<f4", "w+", shape=whole.shape)
    for piece in pieces(len(whole)):
        mapped[piece] = whole[piece]
    mapped.flush()
    del mapped
    synced(path)


def plain(path: Path, whole: Array) -> None:
    """A raw file, appended to with plain writes."""
    with path.open("wb") as file:
        for piece in pieces(len(whole)):
            file.write(whole[piece].data)
    synced(path)


def table(rows: int | None) -> RawTable:
    """Values of one layer, with the positions of their tokens."""
    return RawTable(
        "t",
        "/",
        {"layer": 1, "obs": rows, "feature": WIDTH, "sample": 1},
        (
            RawVariable("values", "<f4", ("layer", "obs", "feature")),
            RawVariable("position", "<i4", ("obs",)),
            RawVariable("row_size", "<i8", ("sample",)),
        ),
    )


def columns(whole: Array) -> Iterator[dict[str, Array]]:
    """The rows of that table as they come."""
    position = np.arange(len(whole), dtype="<i4")
    for piece in pieces(len(whole)):
        yield {"values:0": whole[piece], "position": position[piece]}
    yield {"row_size": np.array([len(whole)])}


def written(path: Path, whole: Array, known: bool) -> None:
    """HookQL's file alone."""
    file = RaggedFile(path, [table(len(whole) if known else None)])
    for part in columns(whole):
        file.append("t", part)
    file.close()
    synced(path)


def hookql(path: Path, whole: Array, known: bool, compress: str = "none") -> None:
    """The same through the writing thread and with checksums, as in a run."""
    writer = Writer({path: [table(len(whole) if known else None)]}, compress)
    for part in columns(whole):
        writer.append("t", part)
    seal(path, {"/": writer.finish()["t"]})
    synced(path)


def safetensors(path: Path, whole: Array) -> None:
    """All of it in memory first, then one file."""
    from safetensors.numpy import save_file

    save_file({"values": whole}, path)
    synced(path)


def zarr(path: Path, whole: Array) -> None:
    """Zarr 3, uncompressed, in chunks of as many rows as HookQL's."""
    import zarr as package

    chunk = layout.chunk_rows("<f4", (WIDTH,), None)
    array = package.create_array(
        path, shape=whole.shape, chunks=(chunk, WIDTH), dtype="<f4", compressors=None
    )
    for piece in pieces(len(whole)):
        array[piece] = whole[piece]
    for part in path.rglob("*"):
        if part.is_file():
            synced(part)


def in_turn(
    contestants: dict[str, Callable[[Path], None]], folder: Path, repeats: int
) -> tuple[dict[str, list[float]], dict[str, int]]:
    """Seconds of each contestant in each round, and the bytes it leaves; files are removed."""
    seconds: dict[str, list[float]] = {name: [] for name in contestants}
    sizes: dict[str, int] = {}
    names = list(contestants)
    for turn in range(repeats):
        for name in names if turn % 2 else reversed(names):
            path = folder / "file"
            os.sync()
            started = time.perf_counter()
            contestants[name](path)
            seconds[name].append(time.perf_counter() - started)
            parts = [path, *path.rglob("*")] if path.is_dir() else [path]
            sizes[name] = sum(part.stat().st_blocks * SECTOR for part in parts)
            shutil.rmtree(path) if path.is_dir() else path.unlink()
    return seconds, sizes


def told(
    seconds: dict[str, list[float]], sizes: dict[str, int], limits: dict[str, float]
) -> Iterator[str]:
    """A line for each contestant; the first one is what the others are measured by."""
    first = next(iter(seconds))
    for name, took in seconds.items():
        ratios = sorted(a / b for a, b in zip(took, seconds[first], strict=True))
        median = statistics.median(ratios)
        line = f"{name:<36} {statistics.median(took):6.2f} s   {median:5.2f}"
        line += f"  ({ratios[0]:.2f} to {ratios[-1]:.2f})   {sizes[name] / 1e6:8.1f} MB"
        if name in limits:
            line += f"   at most {limits[name]:.2f}  {'ok' if median <= limits[name] else 'OVER'}"
        yield line


def writing(whole: Array, folder: Path, repeats: int) -> None:
    """How long rows take until they are safe."""
    contestants: dict[str, Callable[[Path], None]] = {
        "numpy.memmap": lambda path: memmap(path, whole),
        "plain file": lambda path: plain(path, whole),
        "number of rows known": lambda path: written(path, whole, True),
        "not known": lambda path: written(path, whole, False),
        "known, with thread and checksums": lambda path: hookql(path, whole, True),
        "not known, with thread and checksums": lambda path: hookql(path, whole, False),
    }
    if importlib.util.find_spec("safetensors"):
        contestants["safetensors, from memory"] = lambda path: safetensors(path, whole)
    if importlib.util.find_spec("zarr"):
        contestants["zarr"] = lambda path: zarr(path, whole)
    limits = {"number of rows known": 1.1, "not known": 1.3}
    print(f"writing {whole.nbytes / 1e6:,.0f} MB with fsync, {repeats} rounds")
    print(*told(*in_turn(contestants, folder, repeats), limits), sep="\n")


def compressing(whole: Array, folder: Path, repeats: int) -> None:
    """What each compression costs and saves."""
    contestants: dict[str, Callable[[Path], None]] = {
        f"--compress {compress}": lambda path, c=compress: hookql(path, whole, True, c)
        for compress in layout.FILTERS
    }
    print(f"\ncompressing {whole.nbytes / 1e6:,.0f} MB, {repeats} rounds")
    print(*told(*in_turn(contestants, folder, repeats), {}), sep="\n")


def chunks(whole: Array, folder: Path, repeats: int) -> None:
    """Chunks of other sizes: writing them, and reading single rows at random."""
    contestants: dict[str, Callable[[Path], None]] = {
        f"chunks of at most {size:>9,} bytes": lambda path, s=size: sized(path, whole, s)
        for size in (2**19, 2**16, 2**18, 2**20, 2**21, 2**23)
    }
    print(f"\nchunks, {whole.nbytes / 1e6:,.0f} MB of unknown number of rows, {repeats} rounds")
    print(*told(*in_turn(contestants, folder, repeats), {}), sep="\n")
    rows = np.random.default_rng(2).integers(0, len(whole), 1000)
    for name, write in contestants.items():
        path = folder / "file"
        write(path)
        with netCDF4.Dataset(path) as file:
            file["values"].set_auto_mask(False)
            started = time.perf_counter()
            for row in rows:
                file["values"][0, int(row)]
            took = (time.perf_counter() - started) / len(rows)
        path.unlink()
        print(f"{name:<36} {took * 1e6:6.0f} microseconds a random row")


def sized(path: Path, whole: Array, size: int) -> None:
    """HookQL's file with chunks of another size."""
    before = layout.CHUNK_BYTES
    layout.CHUNK_BYTES = size
    try:
        hookql(path, whole, False)
    finally:
        layout.CHUNK_BYTES = before


def reading(whole: Array, folder: Path, repeats: int, batch: int = 256) -> None:
    """Shuffled batches of rows, as training on activations wants them; from the page cache."""
    files = {name: folder / name for name in ("known", "unknown", "memmap", "safetensors", "zarr")}
    hookql(files["known"], whole, True)
    hookql(files["unknown"], whole, False)
    memmap(files["memmap"], whole)
    order = np.random.default_rng(3).permutation(len(whole))[: 8 * batch]
    batches = [np.sort(order[first : first + batch]) for first in range(0, len(order), batch)]
    readers: dict[str, Callable[[Array], Array]] = {}
    mapped = np.memmap(files["memmap"], "<f4", "r", shape=whole.shape)
    readers["numpy.memmap"] = lambda rows: mapped[rows]
    opened = [netCDF4.Dataset(files[name]) for name in ("known", "unknown")]
    for name, file in zip(("known", "not known"), opened, strict=True):
        file["values"].set_auto_mask(False)
        readers[f"hookql, {name}, netCDF4"] = lambda rows, f=file: f["values"][0, rows]
    offset = offset_of(files["known"], whole)
    contiguous = np.memmap(files["known"], "<f4", "r", offset, whole.shape)
    readers["hookql, known, mapped in place"] = lambda rows: contiguous[rows]
    if importlib.util.find_spec("safetensors"):
        from safetensors import safe_open

        safetensors(files["safetensors"], whole)
        part = safe_open(files["safetensors"], "numpy").get_slice("values")
        readers["safetensors"] = lambda rows: np.stack([part[int(row)] for row in rows])
    if importlib.util.find_spec("zarr"):
        import zarr as package

        zarr(files["zarr"], whole)
        array = package.open_array(files["zarr"], mode="r")
        readers["zarr"] = lambda rows: array.oindex[rows]
    seconds: dict[str, list[float]] = {name: [] for name in readers}
    for _ in range(repeats):
        for name, reader in readers.items():
            started = time.perf_counter()
            for rows in batches:
                np.testing.assert_array_equal(reader(rows)[0], whole[rows[0]])
            seconds[name].append((time.perf_counter() - started) / len(batches))
    print(f"\nreading shuffled batches of {batch} rows of {len(whole):,}, {repeats} rounds")
    for name, took in seconds.items():
        print(f"{name:<36} {statistics.median(took) * 1e3:8.2f} ms a batch")
    for file in opened:
        file.close()


def offset_of(path: Path, whole: Array) -> int:
    """Where the values of a contiguous variable begin in its file."""
    with path.open("rb") as file:
        return file.read(2**20).index(whole[0].tobytes())


def main(arguments: Sequence[str] | None = None) -> None:
    """The command line of this benchmark."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--rows", type=int, default=200_000, help="of 3,072 bytes each")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--only", choices=("write", "compress", "chunks", "read"))
    parser.add_argument("--folder", type=Path, help="on the disk to measure")
    options = parser.parse_args(arguments)
    whole = values(options.rows)
    with tempfile.TemporaryDirectory(dir=options.folder) as name:
        folder = Path(name)
        few = max(1, options.repeats // 2)
        parts: dict[str, Callable[[], None]] = {
            "write": lambda: writing(whole, folder, options.repeats),
            "compress": lambda: compressing(whole[: len(whole) // 4], folder, few),
            "chunks": lambda: chunks(whole, folder, few),
            "read": lambda: reading(whole, folder, options.repeats),
        }
        for part, measure in parts.items():
            if options.only in (None, part):
                measure()


if __name__ == "__main__":
    main()
