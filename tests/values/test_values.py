"""`values`: every row, bit for bit what a hook sees in the same batch, in the order of the data."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import xarray

import hookql
from tests import oracle
from tests.test_oracle import TEXTS
from tests.tiny import character_tokenizer, tiny
from tests.values.reading import by_sample, labels, watching

SAMPLES = [f"{text} {number}" for number in range(3) for text in TEXTS]


def run(query: str, name: str = "gpt2", **options: Any) -> Any:
    """A query on a tiny model; the values of one capture of one role at the root."""
    model, tokenizer, _ = tiny(name)
    return hookql.run(query, model=model, tokenizer=tokenizer, texts=SAMPLES, **options)


@pytest.mark.real_weights
def test_smollm2_bit_for_bit(smollm2: Any, tmp_path: Path) -> None:
    """Two layers' streams equal what plain hooks see in the same batches, bit for bit."""
    modules = ["model.layers.10", "model.layers.11"]
    texts = [*TEXTS, "The capital of France is Paris. " * 20, ""]
    with watching(smollm2.module, modules) as seen:
        result: Any = hookql.run(
            "capture values from model.layers[10:12] where position > 0",
            model=smollm2,
            texts=texts,
            output=tmp_path / "acts.nc",
            tokens_per_batch=256,
        )
    data = xarray.open_dataset(tmp_path / "acts.nc")
    assert data["values"].dtype == np.float32
    rows = by_sample(data)
    assert len(texts) == len(rows)
    for text, found in zip(texts, rows, strict=True):
        ids = tuple(smollm2.tokenizer(text)["input_ids"])
        for layer, module in enumerate(modules):
            for position in range(1, len(ids)):
                expected = seen[module, ids, position]
                assert expected.tobytes() == found[layer, position - 1].tobytes()
        assert max(0, len(ids) - 1) == found.shape[1]
    assert result["values"].equals(data["values"])
    assert [] == hookql.verify(tmp_path / "acts.nc")


@pytest.mark.real_weights
def test_smollm2_one_sample_at_a_time(smollm2: Any) -> None:
    """The rows are those of each text alone, to 1e-5 of the largest."""
    result: Any = hookql.run("capture values from model.layers[12]", model=smollm2, texts=TEXTS)
    ids = oracle.encode(smollm2.tokenizer, TEXTS)
    alone = oracle.outputs_of(smollm2.module, ["model.layers.12"], ids)["model.layers.12"]
    largest = max(np.abs(rows).max() for rows in alone)
    for expected, found in zip(alone, by_sample(result.isel(layer=0)), strict=True):
        assert expected.shape == found.shape
        assert np.abs(expected - found).max() <= 1e-5 * largest


@pytest.mark.parametrize("name", ["gpt2", "llama", "bert", "bloom", "mamba", "gemma2"])
@pytest.mark.parametrize("options", [{}, {"batch_size": 1}, {"tokens_per_batch": 64}])
def test_families(name: str, options: dict[str, Any]) -> None:
    """Rows of several layers are the oracle's in data order, whatever the batches."""
    model, tokenizer, _ = tiny(name)
    result: Any = hookql.run(
        "capture values from @resid_post[0:2]"
        if name != "mamba"
        else "capture values from backbone.layers[0:2]",
        model=model,
        tokenizer=tokenizer,
        texts=SAMPLES,
        **options,
    )
    ids = oracle.encode(tokenizer, SAMPLES)
    modules = [str(module) for module in result["module"].values]
    alone = oracle.outputs_of(model, modules, ids)
    for number, found in enumerate(by_sample(result)):
        expected = np.stack([alone[module][number] for module in modules])
        assert expected.shape == found.shape
        assert np.abs(expected - found).max() <= 1e-5 * np.abs(expected).max()
    flat = [int(token) for row in ids for token in row[0]]
    assert flat == result["token_id"].values.tolist()


def test_left_padding_changes_nothing() -> None:
    """A tokenizer that pads on the left gives the same rows."""
    model, right, _ = tiny("llama")
    left = character_tokenizer("left")
    query = "capture values from model.layers[1]"
    one, other = (
        hookql.run(query, model=model, tokenizer=tokenizer, texts=SAMPLES)
        for tokenizer in (right, left)
    )
    assert labels(one) == labels(other)
    assert np.allclose(one["values"], other["values"], atol=1e-6)


@pytest.mark.parametrize("overflow", ["split", "pack", "truncate"])
def test_long_samples(overflow: str) -> None:
    """Pieces of a sample stand one behind the other, by chunk and position."""
    model, tokenizer, _ = tiny("gpt2")
    result: Any = hookql.run(
        "capture values from h[1]",
        model=model,
        tokenizer=tokenizer,
        texts=SAMPLES,
        max_length=16,
        overflow=overflow,
        tokens_per_batch=48,
    )
    rows = labels(result)
    places = [row[:3] for row in rows]
    assert sorted(set(places)) == places
    ids = [tokenizer(text)["input_ids"] for text in SAMPLES]
    if overflow == "truncate":
        ids = [row[:16] for row in ids]
    plain = [row[3] for row in rows if row[3] != tokenizer.eos_token_id or overflow != "pack"]
    assert [token for row in ids for token in row] == plain


def test_bfloat16_is_lossless() -> None:
    """Half precision is stored as float32 without losing a bit, and the file says what it was."""
    model, tokenizer, _ = tiny("llama")
    model = model.bfloat16()
    with watching(model, ["model.layers.1"]) as seen:
        result: Any = hookql.run(
            "capture values from model.layers[1]", model=model, tokenizer=tokenizer, texts=SAMPLES
        )
    assert "bfloat16" == result["values"].attrs["dtype_source"]
    for text, found in zip(SAMPLES, by_sample(result.isel(layer=0)), strict=True):
        ids = tuple(tokenizer(text)["input_ids"])
        for position, row in enumerate(found):
            assert seen["model.layers.1", ids, position].tobytes() == row.tobytes()


def test_expressions_beside_each_other() -> None:
    """Several values of one capture share rows; what rounds is float64, what does not float32."""
    result = run(
        "capture values, values(norm(x)) as size, values(x[[3, 1]]) as two, mean from h[2]"
    )
    one: Any = result.isel(layer=0)
    assert {"values": "float32", "size": "float64", "two": "float32"} == {
        name: str(one[name].dtype) for name in ("values", "size", "two")
    }
    rows = one["values"].values.astype(np.float64)
    assert np.allclose(np.linalg.norm(rows, axis=1), one["size"], rtol=1e-12)
    assert np.array_equal(one["values"].values[:, [3, 1]], one["two"].values)
    assert [3, 1] == one["two"][one["two"].dims[-1]].values.tolist()
    assert np.allclose(rows.mean(0), one["mean"], atol=1e-7)


def test_store_dtype() -> None:
    """`store_dtype` widens without loss, and rounds where the user says so."""
    wide, narrow = (
        run("capture values, values(norm(x)) as size from h[2]", store_dtype=dtype)
        for dtype in ("float64", "float32")
    )
    assert "float64" == wide["values"].dtype
    assert "float32" == narrow["size"].dtype
    assert np.array_equal(narrow["values"].values.astype(np.float64), wide["values"].values)
    assert np.array_equal(wide["size"].values.astype(np.float32), narrow["size"].values)


@pytest.mark.parametrize("compress", ["zstd", "zlib"])
def test_compression_loses_nothing(compress: str, tmp_path: Path) -> None:
    """Compressed files hold the same rows."""
    plain = run("capture values from h[0:3]")
    packed = run("capture values from h[0:3]", compress=compress, output=tmp_path / "a.nc")
    assert plain["values"].identical(packed["values"])
    assert xarray.open_dataset(tmp_path / "a.nc")["values"].encoding[compress]


def test_a_predicate_about_x_has_rows_of_each_layer() -> None:
    """Where layers keep different rows, each has a node of its own."""
    result = run("capture values from h[0:2] where x[0] > 0 as big")
    whole = run("capture values from h[0:2]")
    assert ["transformer.h__layer0", "transformer.h__layer1"] == list(result["big"].children)
    for layer, node in enumerate(result["big"].children.values()):
        rows = whole["values"].values[layer]
        kept = rows[:, 0] > 0
        assert 0 < kept.sum() < len(rows)
        assert np.array_equal(rows[kept], node["values"].values[0])
        expected = [row for row, keep in zip(labels(whole), kept, strict=True) if keep]
        assert expected == labels(node)


def test_captures_and_statistics_share_one_pass(tmp_path: Path) -> None:
    """Values of several captures and statistics come of one forward pass a batch."""
    model, tokenizer, _ = tiny("gpt2")
    passes = 0

    def count(*_: Any) -> None:
        nonlocal passes
        passes += 1

    query = """
    capture mean, std from h[*] as moments
    capture values from h[1] where position == 0 into "first.nc" as first
    capture values from h[3], h[1] where position > 0 as rest
    """
    handle = model.transformer.h[0].register_forward_hook(count)
    result: Any = hookql.run(
        query,
        model=model,
        tokenizer=tokenizer,
        texts=SAMPLES,
        output=tmp_path / "o.nc",
        optimize=False,
    )
    handle.remove()
    probed = passes - int(result.attrs["batches"])  # the probe runs the model too
    passes = 0
    handle = model.transformer.h[0].register_forward_hook(count)
    hookql.check("capture mean from h[*]", model=model, tokenizer=tokenizer, optimize=False)
    handle.remove()
    assert passes == probed
    whole = run("capture values from h[1]")
    first, rest = result["first/transformer.h"], result["rest/transformer.h"]
    starts = np.array([row[2] for row in labels(whole)]) == 0
    assert np.array_equal(whole["values"].values[0][starts], first["values"].values[0])
    at = rest["layer"].values.tolist().index(1)
    assert np.array_equal(whole["values"].values[0][~starts], rest["values"].values[at])
    saved = xarray.open_dataset(tmp_path / "first.nc")
    assert saved["values"].equals(first["values"])


@pytest.mark.parametrize("where", ["random(0, seed=1)", "norm(x) > 1e9", "position == 39"])
def test_few_rows_or_none(where: str) -> None:
    """No row, and a single sample's: the sizes say so."""
    result = run(f"capture values, mean from h[1] where {where}")
    expected = sum(len(text) > 39 for text in SAMPLES) if "39" in where else 0
    assert expected == result.sizes["obs"]
    assert expected == int(result["row_size"].sum())
    assert len(SAMPLES) == result.sizes["sample"]


def test_samples_without_a_row() -> None:
    """An empty sample, and one that the predicate drops, have a size of 0."""
    model, tokenizer, _ = tiny("gpt2")
    result: Any = hookql.run(
        'capture values from h[1] where row.kind == "a"',
        model=model,
        tokenizer=tokenizer,
        data=[
            {"text": "abc", "kind": "b"},
            {"text": "", "kind": "a"},
            {"text": "abcde", "kind": "a"},
            {"text": "x", "kind": "b"},
        ],
    )
    assert [0, 0, 5, 0] == result["row_size"].values.tolist()


def test_data_that_can_be_read_only_once() -> None:
    """Rows that nobody could count beforehand are the same rows."""

    def texts() -> Iterator[str]:
        yield from SAMPLES

    model, tokenizer, _ = tiny("gpt2")
    counted = run("capture values from h[1]")
    streamed: Any = hookql.run(
        "capture values from h[1]", model=model, tokenizer=tokenizer, data=texts()
    )
    assert counted["values"].identical(streamed["values"])
    assert labels(counted) == labels(streamed)


def test_waiting_for_the_prediction() -> None:
    """Rows chosen by the model's own prediction."""
    result = run("capture values from h[1] where surprisal > 3.5")
    whole = run("capture values from h[1]")
    places = {row[:3]: index for index, row in enumerate(labels(whole))}
    index = [places[row[:3]] for row in labels(result)]
    assert 0 < len(index) < len(places)
    assert np.array_equal(whole["values"].values[0][index], result["values"].values[0])


def test_a_module_that_runs_several_times() -> None:
    """ALBERT's shared layer: a row for each call."""
    model, tokenizer, _ = tiny("albert")
    calls: list[list[np.ndarray]] = []
    layer = "encoder.albert_layer_groups.0.albert_layers.0"
    result: Any = hookql.run(
        f"capture values from {layer}", model=model, tokenizer=tokenizer, texts=SAMPLES
    )
    for row in oracle.encode(tokenizer, SAMPLES):
        seen: list[np.ndarray] = []

        def keep(_: Any, __: Any, output: Any, seen: list[np.ndarray] = seen) -> None:
            first = output[0] if isinstance(output, tuple) else output
            seen.append(first.detach().numpy()[0])

        handle = model.get_submodule(layer).register_forward_hook(keep)
        with torch.no_grad():
            model(input_ids=row)
        handle.remove()
        calls.append(seen)
    dims = result["values"].dims
    assert ("call", "obs", "feature") == dims[-3:]
    found = by_sample(result)
    for expected, rows in zip(calls, found, strict=True):
        rows = rows.reshape(len(expected), -1, rows.shape[-1])
        assert np.allclose(np.stack(expected), rows, atol=1e-5)


def test_inputs_without_tokens() -> None:
    """Patches of images are rows as well, without token ids."""
    model, _, _ = tiny("vit")
    size = model.config.image_size
    pixels = torch.randn(5, 3, size, size, generator=torch.Generator().manual_seed(0))
    result: Any = hookql.run(
        "capture values from @resid_post[1]",
        model=model,
        inputs={"pixel_values": pixels},
        batch_size=2,
    )
    assert 5 == result.sizes["sample"]
    assert {-1} == set(result["token_id"].values.tolist())
    sizes = set(result["row_size"].values.tolist())
    assert 1 == len(sizes)
    module = str(result["module"].values[0])
    seen: list[np.ndarray] = []

    def keep(_: Any, __: Any, output: Any) -> None:
        first = output[0] if isinstance(output, tuple) else output
        seen.append(first.numpy().reshape(-1, first.shape[-1]))

    with torch.no_grad():
        handle = model.get_submodule(module).register_forward_hook(keep)
        model(pixel_values=pixels)
        handle.remove()
    assert np.allclose(seen[0], result["values"].values[0], atol=1e-5)


def test_ids_given_directly() -> None:
    """Padded ids, on the left, are rows of their samples."""
    model, tokenizer, _ = tiny("gpt2")
    tokenizer = character_tokenizer("left")
    given = tokenizer(SAMPLES, return_tensors="pt", padding=True)
    one: Any = hookql.run(
        "capture values from h[1]", model=model, tokenizer=tokenizer, inputs=dict(given)
    )
    other = run("capture values from h[1]")
    assert labels(other) == labels(one)
    assert np.allclose(one["values"], other["values"], atol=1e-5)


def test_the_decoder_has_rows_of_its_own() -> None:
    """An encoder's rows and a decoder's, each with its stream's tokens."""
    model, tokenizer, _ = tiny("t5")
    result: Any = hookql.run(
        "capture values from encoder.block[1] as enc\ncapture values from decoder.block[1] as dec",
        model=model,
        tokenizer=tokenizer,
        data=[{"text": text, "out": text[:5]} for text in TEXTS],
        column="text",
        target="out",
    )
    enc, dec = (next(iter(result[name].children.values())) for name in ("enc", "dec"))
    start = model.config.decoder_start_token_id
    for number, text in enumerate(TEXTS):
        mine = [row for row in labels(dec) if row[0] == number]
        expected = [start, *tokenizer(text[:5])["input_ids"]][: len(mine)]
        assert expected == [row[3] for row in mine]
    assert sum(len(tokenizer(text)["input_ids"]) for text in TEXTS) == enc.sizes["obs"]
