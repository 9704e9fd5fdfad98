"""What is said of runs that go wrong: the model on the data, its inputs, files, plug-ins."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from importlib.metadata import EntryPoint
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import datasets
import pytest
import torch
import transformers
import xarray
from torch import Tensor, nn

import hookql
from hookql.data.read import open_data
from hookql.language import pieces, plugins
from hookql.models.load import wrap_model
from hookql.models.tree import render_modules
from hookql.results.netcdf import save
from hookql.results.tree import build_tree
from hookql.statistics import core
from hookql.statistics.moments import Moments
from tests.extending.made import pieces_as_before
from tests.models.test_mixing import Sorted, Twice
from tests.models.test_probe import Broken, Noisy
from tests.results import made
from tests.statistics.test_registry import PLUGIN
from tests.test_observe_only import Poisoned, probe_without_one_sample
from tests.tiny import character_tokenizer, tiny
from tests.told import told

Patch = pytest.MonkeyPatch
Golden = Callable[[str, str], None]
QUERY = "capture mean from h[0]"


def run(model: nn.Module, query: str = QUERY, **options: Any) -> object:
    """Run a query on one text, unless the options say what else."""
    if not {"texts", "data", "inputs"} & set(options):
        options["texts"] = ["Hello there"]
    return hookql.run(query, model=model.eval(), tokenizer=character_tokenizer(), **options)


def gpt2(query: str = QUERY, **options: Any) -> object:
    """Run a query on a small GPT-2."""
    return run(tiny("gpt2")[0], query, **options)


class Changing(nn.Module):
    """Exchanges its layer for an equal one whenever it runs."""

    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Embedding(128, 8)
        self.layer = nn.Linear(8, 8)

    def forward(self, input_ids: Tensor) -> Tensor:
        """Run, and be another afterwards."""
        x = self.layer(self.embed(input_ids))
        self.layer, layer = nn.Linear(8, 8), self.layer
        self.layer.load_state_dict(layer.state_dict())
        return x


def big_bird() -> nn.Module:
    """Its block-sparse attention does not survive a short input."""
    config = transformers.BigBirdConfig(
        vocab_size=128, hidden_size=32, num_hidden_layers=1, num_attention_heads=4,
        intermediate_size=48, attention_type="block_sparse", block_size=4, num_random_blocks=1,
    )  # fmt: skip
    return transformers.BigBirdModel(config)


def test_models_that_cannot_be_run(golden: Golden, tmp_path: Path) -> None:
    """In the probe or on the data."""

    def on_the_data(patch: Patch, error: Exception) -> object:
        def happens() -> None:
            raise error

        probe_without_one_sample(patch)
        model = tiny("gpt2")[0]
        model.transformer.h[1].mlp = Poisoned(model.transformer.h[1].mlp, happens)
        return run(model, "capture mean from h[3]")

    def detector(patch: Patch) -> object:
        def update(*_: object) -> None:
            raise RuntimeError("CUDA out of memory")

        patch.setattr(Moments, "update", update)
        return gpt2()

    def short(positions: int) -> object:
        config = transformers.GPT2Config(
            n_layer=1, n_embd=8, n_head=2, vocab_size=128, n_positions=positions
        )
        return run(transformers.GPT2LMHeadModel(config), texts=["a"])

    def nan(count: int) -> object:
        model = tiny("gpt2")[0]
        with torch.no_grad():
            model.transformer.h[0].mlp.c_proj.bias[:count] = torch.nan
        return run(model, "capture mean from h[0].mlp", texts=["a"])

    cases = {
        "it fails in the probe": lambda _: run(Broken(), "capture mean from embed"),
        "it fails on the data": lambda p: on_the_data(p, ValueError("no such thing")),
        "it needs too much memory": lambda p: on_the_data(p, RuntimeError("CUDA out of memory")),
        "a statistic fails": detector,
        "a context of two tokens": lambda _: short(2),
        "a context of one token": lambda _: short(1),
        "random": lambda _: run(Noisy(), "capture mean from noise"),
        "it exchanges its modules": lambda _: run(Changing(), "capture mean from embed"),
        "it exchanges its attention": lambda _: run(big_bird(), "capture mean from layer[0]"),
        "it runs a module more often": lambda _: run(
            Twice(), "capture mean from layer", texts=["x" * 20]
        ),
        "one value is no number": lambda _: nan(1),
        "many values are no numbers": lambda _: nan(3),
    }
    golden("diagnostics/runs.txt", told(cases, tmp_path))


def test_modules_that_cannot_be_captured(golden: Golden, tmp_path: Path) -> None:
    """Named ones are errors, those of a wildcard are left out; patterns are sites alone."""
    bert = tiny("bert")[0]
    wrapped = wrap_model(tiny("gpt2")[0])
    cases = {
        "rows that are no tokens": lambda _: run(bert, "capture mean from pooler.dense"),
        "rows in another order": lambda _: run(Sorted(), "capture mean from inner"),
        "one is left out": lambda _: run(bert, "capture mean from ** isa Linear"),
        "several are left out": lambda _: run(bert, "capture mean from ** isa Dropout"),
        "a pattern with a clause": lambda _: render_modules(wrapped, "h[0] where true"),
        "a pattern of two captures": lambda _: render_modules(wrapped, "h[0] capture max from h"),
    }
    golden("diagnostics/capturing.txt", told(cases, tmp_path))


def test_arguments(golden: Golden, tmp_path: Path) -> None:
    """Options, texts and inputs that would be misread."""
    ids = torch.full((2, 3), 20)
    holes = {"input_ids": ids, "attention_mask": torch.tensor([[1, 0, 1], [1, 1, 1]])}
    padded = {"inputs_embeds": torch.ones(1, 2, 32), "attention_mask": torch.tensor([[1, 0]])}
    uneven = {"inputs_embeds": torch.ones(2, 3, 32), "position_ids": torch.ones(3, 3)}
    pixels: dict[str, Any] = {"inputs": {"pixel_values": torch.ones(2, 3, 32, 32)}}
    texts: Any = "a string"
    cases: dict[str, Callable[[Patch], object]] = {
        "an unknown option": lambda _: gpt2(batchsize=3),
        "one text": lambda _: gpt2(texts=texts),
        "an unknown input": lambda _: run(Noisy(), inputs={"input_id": ids}),
        "a mask of another shape": lambda _: gpt2(
            inputs={"input_ids": ids, "attention_mask": torch.ones(2, 4)}
        ),
        "a mask with holes": lambda _: gpt2(inputs=holes),
        "padding without ids": lambda _: gpt2(inputs=padded),
        "inputs of two sizes": lambda _: gpt2(inputs=uneven),
        "tokens of pixels": lambda _: run(
            tiny("vit")[0], "capture mean from layers[0] where token == 3", **pixels
        ),
        "texts that are cut": lambda _: gpt2(texts=["abc", ""], max_length=2, overflow="truncate"),
        "texts that are split": lambda _: gpt2(texts=["abc", "def"], max_length=2),
    }
    golden("diagnostics/arguments.txt", told(cases, tmp_path))


def test_files(golden: Golden, tmp_path: Path) -> None:
    """Files that cannot be written or read, and data that breaks off."""
    tree = build_tree([made.capture(made.site())], made.attributes())

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    def forbidden(*_: object, **__: object) -> None:
        raise PermissionError

    def unwritable(patch: Patch) -> object:
        patch.setattr("os.access", lambda *_: False)
        return save(tree, "a.nc")

    def somebody_elses(_: Patch) -> object:
        xarray.Dataset({"t": ("x", [1.0])}).to_netcdf("other.nc", engine="netcdf4")
        return hookql.load("other.nc")

    def breaking() -> Iterator[dict[str, str]]:
        yield {"text": "a"}
        raise ConnectionError("the connection was lost")

    def twice(_: Patch) -> object:
        data = open_data(iter(["a"]))
        return [list(data), list(data)]

    def locked(patch: Patch) -> object:
        Path("a.txt").write_text("a")
        data = open_data("a.txt")
        patch.setattr(Path, "open", lambda *_, **__: forbidden_file())
        return list(data)

    def forbidden_file() -> None:
        raise PermissionError(13, "Permission denied")

    def damaged(_: Patch) -> object:
        datasets.Dataset.from_dict({"text": ["a"]}).save_to_disk("saved")
        next(Path("saved").glob("*.arrow")).unlink()
        return open_data("saved")

    cases = {
        "the file is there": lambda _: [Path("a.nc").touch(), save(tree, "a.nc")],
        "no right to write": unwritable,
        "the disk is full": lambda p: [p.setattr("os.fsync", full), save(tree, "a.nc")],
        "no right to read a result": lambda p: [
            Path("a.nc").touch(), p.setattr("os.access", lambda *_: False), hookql.load("a.nc"),
        ],
        "a file of somebody else": somebody_elses,
        "no right to read data": locked,
        "data that can be read once": twice,
        "a data set without its data": damaged,
        "a data set that breaks off": lambda _: list(
            open_data(datasets.IterableDataset.from_generator(breaking))
        ),
    }  # fmt: skip
    text = re.sub(r"(: the data set cannot be loaded: ).*", r"\1(its words)", told(cases, tmp_path))
    golden("diagnostics/files.txt", text)


def test_plugins(golden: Golden, tmp_path: Path) -> None:
    """Statistics of other packages that cannot be loaded, or take a name that is taken."""

    def plugin(name: str, text: str) -> Callable[[Patch], object]:
        def case(patch: Patch) -> object:
            registry = core.Registry()
            registry.registered.update(core.STATISTICS.registered)
            Path(f"{name}.py").write_text(text)
            patch.syspath_prepend(Path.cwd())
            patch.setattr(core, "STATISTICS", registry)
            entries = [EntryPoint("extra", name, "hookql.statistics")]
            vars(entries[0]).update(dist=SimpleNamespace(name=name.replace("_", "-")))
            found = {"hookql.statistics": entries}
            patch.setattr(plugins, "entry_points", lambda group: found.get(group, []))
            patch.setattr(pieces.LOADING, "done", set())
            with pieces_as_before():
                return len(registry)

        return case

    assert "mean" in core.STATISTICS
    cases = {
        "a package that is missing": plugin("hookql_lost", "import no_such_module_anywhere"),
        "a name that is taken": plugin("hookql_twin", PLUGIN.format(name="mean")),
    }
    golden("diagnostics/plugins.txt", told(cases, tmp_path))
