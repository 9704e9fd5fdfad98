"""Tables of canonical sites for models that HookQL does not know."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import hookql
from hookql.errors import QueryError
from hookql.extending import sites
from hookql.models.load import wrap_model
from hookql.models.tree import render_modules
from tests.tiny import character_tokenizer

TEXTS = ["abcabd abca", "xyz", "hello there"]


class Half(nn.Module):
    """An MLP, or attention that looks at the mean of what came before, by two heads."""

    def __init__(self, mixes: bool) -> None:
        super().__init__()
        self.mixes = mixes
        self.up, self.down = nn.Linear(8, 12), nn.Linear(12, 8)

    def forward(self, x: Tensor) -> Tensor:
        """(B, S, 8) to (B, S, 8)."""
        up = self.up(x)
        if self.mixes:
            up = up.cumsum(1) / torch.arange(1, x.shape[1] + 1)[None, :, None]
        return self.down(up.relu())


class Block(nn.Module):
    """Two halves that add to the stream."""

    def __init__(self) -> None:
        super().__init__()
        self.look, self.think, self.norm = Half(True), Half(False), nn.LayerNorm(8)

    def forward(self, x: Tensor) -> Tensor:
        """(B, S, 8) to (B, S, 8)."""
        x = x + self.look(x)
        return x + self.think(self.norm(x))


class Home(nn.Module):
    """A language model made at home, without a config."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.embed = nn.Embedding(128, 8)
        self.layers = nn.ModuleList(Block() for _ in range(3))
        self.norm, self.head = nn.LayerNorm(8), nn.Linear(8, 128)

    def forward(self, input_ids: Tensor) -> Tensor:
        """Logits (B, S, 128) of ids (B, S)."""
        x = self.embed(input_ids)
        for layer in self.layers:
            x = layer(x)
        return self.head(self.norm(x))


def tell(**more: Any) -> None:
    """Tell where the sites of `Home` are."""
    given = {
        "model": Home,
        "blocks": "layers",
        "sites": {
            "attn": "look",
            "mlp": "think",
            "resid_mid": "norm:input",
            "mlp_act": "think.down:input",
            "z": "look.down:input",
        },
        "final_norm": "norm",
        "unembed": "head",
        "heads": lambda model: (2, 2, 6),
        **more,
    }
    sites("Home", **given)


def run(query: str) -> Any:
    """Run a query on a `Home`."""
    return hookql.run(query, model=Home().eval(), tokenizer=character_tokenizer(), texts=TEXTS)


def test_canonical_names_are_the_tables() -> None:
    """Each site has the numbers of the path that the table gives."""
    tell()
    for name, path in {
        "attn[*]": "layers[*].look",
        "resid_mid[*]": "layers[*].norm:input",
        "mlp_act[1]": "layers[1].think.down:input",
        "resid_pre[0]": "layers[0]:input",
        "resid_post[*]": "layers[*]",
        "final_norm": "norm",
        "logits": "output",
    }.items():
        site, module = run(f"capture mean from @{name}"), run(f"capture mean from {path}")
        assert np.array_equal(module["mean"].values, site["mean"].values), name


def test_heads_are_told_apart() -> None:
    """`@z` has an axis of heads, as in every family."""
    tell()
    found = run("capture mean from @z[*]")["mean"]
    whole = run("capture mean from layers[*].look.down:input")["mean"]
    assert {"layer": 3, "head": 2, "feature": 6} == dict(found.sizes)
    assert np.array_equal(whole.values, found.values.reshape(3, 12))


def test_the_lens_reads_the_last_block_as_the_model_does() -> None:
    """The logit lens of the last block's output has the model's own predictions."""
    tell()
    result = run("capture mean(argmax(lens(x))) as guess from @resid_post[-1]")
    logits = run("capture mean(argmax(x)) as guess from @logits")
    assert logits["guess"].item() == result["guess"].item()


def test_the_last_word_holds() -> None:
    """Told again, as by a reload, a table takes its own place."""
    tell()
    tell(sites={"mlp": "think"})
    with pytest.raises(QueryError) as caught:
        run("capture mean from @attn[*]")
    expected = "there is no `@attn` in this Home model: its table does not say where"
    assert expected == caught.value.message


def test_modules_prints_it() -> None:
    """`hookql modules` has the names beside the paths, and says whose table that is."""
    tell()
    text = render_modules(wrap_model(Home().eval(), None))
    assert "canonical sites (Home, 3 layers):" in text
    assert "its table is from" in text
