"""The rules `rows` and `duplicates`: what is not run, and that nobody can tell."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import pytest
import torch
import xarray

import hookql
from hookql.data.batches import Feeding
from hookql.engines import local
from hookql.models.feed import TokenFeed
from hookql.models.load import wrap_model
from hookql.optimizer import rows
from hookql.plan import Plan
from tests.optimizer.agree import agree
from tests.tiny import _DESIGNS, NAMES, tiny

TEXTS = [
    "the cat sat on the mat and there was no end of it",
    "a dog",
    "the cat sat on the mat and there was no end of it",
    "hello",
    "the cat sat on the roof",
    "no pets here",
    "",
    "the cat",
]
FAMILIES = [name for name in (*NAMES, *_DESIGNS) if name != "vit"]
ENCODERS = ("bert", "roberta", "albert", "xlm_roberta", "distilbert")
QUERIES = [
    "capture mean, std, min from {0} where position < 4",
    'capture mean, std, top(k=2) from {0} where token == "c"',
    'capture mean, count from {0} where next == "t" by position',
    "capture mean, std from {0} where length < 6 or position in {{1, 3}} by sample",
    "capture mean(abs(x)), max(x) from {0} where position >= 2; "
    'capture mean(abs(x)) from {0} where token == "h"',
]


def block_of(module: Any) -> str:
    """A block in the middle of the model, as a query names it."""
    lists = [n for n, m in module.named_modules() if isinstance(m, torch.nn.ModuleList)]
    return f"{lists[0]}[-1]"


def both(query: str, model: Any, tokenizer: Any, **given: Any) -> list[xarray.DataTree]:
    """The results with all rules and with none."""
    given = {"texts": TEXTS, "progress": False, **given}
    return [
        hookql.run(query, model=model, tokenizer=tokenizer, optimize=rules, **given)
        for rules in (None, False)
    ]


@pytest.mark.filterwarnings("ignore::hookql.HookQLWarning")
@pytest.mark.parametrize("name", FAMILIES)
def test_every_family(name: str) -> None:
    """In float64, so that a wrong row shows; some reckon parts of it in float32 all the same."""
    module, tokenizer, _ = tiny(name)
    if not name.endswith(("moe", "mixtral")):  # whose experts know no float64
        module.double()
    site = "encoder.block[1]" if "t5" in name else block_of(module)
    for query in QUERIES:
        agree(*both(query.format(site), module, tokenizer), tolerance=1e-6)


@pytest.mark.parametrize("name", FAMILIES)
def test_who_is_cut(name: str) -> None:
    """Decoders are, by what they do; encoders and models that run several texts are not."""
    module, tokenizer, _ = tiny(name)
    site = "encoder.block[1]" if "t5" in name else block_of(module)
    query = hookql.check(f"capture mean from {site} where position < 3")
    from hookql.binding import bind

    model = wrap_model(module, tokenizer)
    plan = bind(query, model, TokenFeed(model), rules=frozenset({"rows"}))
    expected = not name.startswith(ENCODERS) and "t5" not in name
    assert expected == rows.cuts(plan)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("name", ["llama", "gpt2", "mixtral", *ENCODERS, "bert-mlm"])
def test_who_is_cut_in_half_precision(name: str, dtype: torch.dtype) -> None:
    """No encoder: what later tokens do to a row is little in its coarse numbers, and not noise."""
    from hookql.binding import bind

    module, tokenizer, _ = tiny(name)
    lists = [n for n, m in module.named_modules() if isinstance(m, torch.nn.ModuleList)]
    model = wrap_model(module.to(dtype), tokenizer)
    for place in (0, -1):
        query = hookql.check(f"capture mean from {lists[0]}[{place}] where position < 3")
        plan = bind(query, model, TokenFeed(model), rules=frozenset({"rows"}))
        assert (not name.startswith(ENCODERS)) == rows.cuts(plan)


Fed = Callable[..., list[int]]


@pytest.fixture
def fed(monkeypatch: pytest.MonkeyPatch) -> Fed:
    """The number of ids that the demo model is fed in each pass over some texts."""
    seen: list[int] = []
    forward = local._forward

    def note(plan: Plan, inputs: Mapping[str, Any]) -> None:
        seen.append(inputs["input_ids"].numel())
        forward(plan, inputs)

    monkeypatch.setattr(local, "_forward", note)

    def run(query: str, texts: list[str], **given: Any) -> list[int]:
        seen.clear()
        hookql.run(query, texts=texts, progress=False, **given)
        return list(seen)

    return run


def test_only_what_is_needed_runs(fed: Fed) -> None:
    """Four tokens of a long text, once however often it comes; nothing of what has no match."""
    long = "The old house on the hill had been empty for years, and nobody went there."
    query = "capture mean from transformer.h[1] where position < 4"
    assert [4] == fed(query, [long] * 7)
    assert [4 * 7] == fed(query, [long[n:] for n in range(0, 21, 3)])
    rare = 'capture mean from transformer.h[1] where token == " hill"'
    assert 1 == len(fed(rare, [long, *["nothing at all"] * 50]))


def test_one_rule_at_a_time(fed: Fed) -> None:
    """Each saves by itself what it says."""
    long = "The old house on the hill had been empty for years, and nobody went there."
    query = "capture mean from transformer.h[1] where position < 4"
    texts = [long, long]
    whole = fed(query, texts, optimize=False)
    assert [8] == fed(query, texts, optimize="none,+rows")
    assert [whole[0] // 2] == fed(query, texts, optimize="none,+duplicates")


def test_what_the_file_says() -> None:
    """Tokens that were spared are told, and all that was read was looked at."""
    query = "capture mean from transformer.h[1] where position < 4"
    tree, plain = both(query, "demo", None, texts=["The old house on the hill"] * 3)
    assert 4 == tree.attrs["tokens_run"]
    whole = plain.attrs["tokens_run"]
    assert whole == tree.attrs["tokens_run"] + tree.attrs["tokens_spared"]
    assert 0 == plain.attrs["tokens_spared"]
    assert "none" == plain.attrs["optimize"]


def test_a_feeding_in_parts() -> None:
    """Where each token is among those that are fed, of all contexts and of some."""
    ids = torch.arange(6).reshape(2, 3).numpy()
    mask = torch.tensor([[1, 1, 1], [1, 0, 0]]).bool().numpy()
    feeding = Feeding(ids, mask, torch.tensor([0, 1, 0]).numpy())
    assert [[0, 1, 2, -1], [3, -1, -1, -1], [0, 1, 2, -1]] == feeding.flat(4).tolist()
    part = feeding.part(slice(1, 2))
    assert [[3]] == part.ids.tolist()
    assert [[0, -1]] == part.flat(2).tolist()
