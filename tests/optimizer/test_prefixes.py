"""The rule `prefixes`: what samples begin with runs once, and nobody can tell."""

from __future__ import annotations

import random
import time
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
import torch
import transformers as hf

import hookql
from hookql.binding import bind
from hookql.data.batch import Ints
from hookql.data.cutting import Fed
from hookql.data.encode import Context
from hookql.data.samples import Sample
from hookql.models.feed import TokenFeed
from hookql.models.load import Model, wrap_model
from hookql.optimizer import prefixes
from tests.optimizer.agree import agree
from tests.optimizer.test_rows import ENCODERS, FAMILIES, block_of
from tests.tiny import character_tokenizer, tiny

TEXT = "the cat sat on a mat and dog ran under house while rain fell over hill"
WORDS = TEXT.split()
WINDOWED = ("gemma2", "gemma3", "window", "capped")


def corpus(header: int, samples: int, longest: int, seed: int = 0) -> list[str]:
    """Texts that begin with the same words, half of them with more in common; and some others."""
    draw = random.Random(seed)

    def words(number: int) -> str:
        return " ".join(draw.choice(WORDS) for _ in range(number))

    first = words(header)
    second = f"{first} {words(header)}"
    made = [f"{first} {words(draw.randint(1, longest))}" for _ in range(samples)]
    made += [f"{second} {words(draw.randint(1, longest))}" for _ in range(samples)]
    return [*made, first, made[0], "the cat", *["a dog ran"] * 3, ""]


QUERIES = [
    "capture mean, std, count, max from {0}",
    "capture mean, std from {0} where position > 36",
    "capture mean(x), count from {0} by position where next != none",
    "capture mean(x) from {0} by sample",
    "capture mean(abs(x)) from {0} where norm(x) > 1; capture mean(abs(x)) from {0}",
]


@pytest.mark.filterwarnings("ignore::hookql.HookQLWarning")
@pytest.mark.parametrize("query", QUERIES)
def test_the_demo_model(query: str) -> None:
    """All rules, all but this one, and none: the same; and it ran less."""
    query = query.format("transformer.h[4]")
    texts = corpus(60, 40, 12)
    every, without, none = (
        hookql.run(query, texts=texts, progress=False, optimize=rules)
        for rules in ("all", "-prefixes", "none")
    )
    agree(every, none)
    agree(without, none)
    assert every.attrs["tokens_run"] < 0.7 * without.attrs["tokens_run"]
    looked_at = [
        sum(tree.attrs[f"tokens_{name}"] for name in ("run", "spared", "skipped"))
        for tree in (every, without, none)
    ]
    assert [looked_at[0]] * 3 == looked_at


@pytest.mark.filterwarnings("ignore::hookql.HookQLWarning")
def test_smollm2(smollm2: Model) -> None:
    """Real weights, rotary positions, grouped heads."""
    query = "capture mean, std from model.layers[3:5].mlp where not special"
    given: Any = {"model": smollm2, "texts": corpus(60, 8, 12), "tokens_per_batch": 64}
    trees = [hookql.run(query, progress=False, optimize=o, **given) for o in ("all", "none")]
    agree(*trees)
    assert trees[0].attrs["tokens_run"] < 0.6 * trees[1].attrs["tokens_run"]


@pytest.mark.parametrize("name", FAMILIES)
def test_every_family(name: str) -> None:
    """Those that compute from a cache what they compute without do, and agree; others do not."""
    module, tokenizer, _ = tiny(name)
    site = "encoder.block[1]" if "t5" in name else block_of(module)
    query = hookql.check(f"capture mean, std from {site}")
    model = wrap_model(module, tokenizer)
    plan = bind(query, model, TokenFeed(model), rules=frozenset({"prefixes"}))
    if name.startswith(ENCODERS) or "t5" in name or any(word in name for word in WINDOWED):
        assert not prefixes.continues(plan)
    texts = [f"{'the cat sat on the mat and there was no'[:36]}{n:b}" for n in range(64)]
    trees = [
        hookql.run(query, model=model, texts=texts, progress=False, tokens_per_batch=64, optimize=o)
        for o in ("none,+prefixes", "none")
    ]
    agree(*trees)
    less = trees[0].attrs["tokens_run"] < trees[1].attrs["tokens_run"]
    assert prefixes.continues(plan) == less


def test_after_memory_ran_out(monkeypatch: pytest.MonkeyPatch) -> None:
    """Batches in halves go on from the same cache."""
    from hookql.engines import local

    forward, failed = local._forward, []

    def short(plan: Any, inputs: Any) -> None:
        if inputs["input_ids"].shape[0] > 5:
            failed.append(1)
            raise MemoryError
        forward(plan, inputs)

    query, texts = "capture mean, std, count from transformer.h[2]", corpus(60, 40, 12)
    whole = hookql.run(query, texts=texts, progress=False)
    monkeypatch.setattr(local, "_forward", short)
    with pytest.warns(hookql.HookQLWarning):
        halved = hookql.run(query, texts=texts, progress=False)
    assert failed
    agree(whole, halved)


def fed(rows: Sequence[Sequence[int]]) -> list[Fed]:
    """Contexts of these ids, each to be fed whole."""
    made = []
    for number, row in enumerate(rows):
        ids = np.array(row, np.int64)
        none = np.zeros(len(ids), np.int64)
        made.append(Fed(len(ids), [Context(ids, none > 0, none, (Sample(number, "", {}),))]))
    return made


def found(rows: Sequence[Sequence[int]], tokens: int = 0) -> list[tuple[int, int]]:
    """The length of each prefix that is found, and how many go on from it."""
    together, rest = prefixes._found(fed(rows), tokens, lambda length: 0)
    together_sizes: list[tuple[Ints, list[Fed]]] = together
    sizes = [(len(prefix), len(members)) for prefix, members in together_sizes]
    assert len(rows) == sum(members for _, members in sizes) + len(rest)
    for prefix, members in together:
        for one in members:
            assert (one.contexts[0].ids[: len(prefix)] == prefix).all()
            assert one.end > len(prefix)
    return sizes


def test_what_is_found() -> None:
    """Long enough, often enough, and the choice that spares the most."""
    head, longer = list(range(40)), list(range(90))
    assert [] == found([[*head, 100], [*head, 101]])
    assert [(40, 3)] == found([[*head, 100], [*head, 101], [*head, 102]])
    assert [] == found([[*head[:20], n] for n in range(9)])
    assert [] == found([[*head, n] for n in range(9)], tokens=400)
    assert [(39, 4)] == found([[*head, 100], [*head, 101], [*head, 102], head])
    one, other = [[*longer, n] for n in range(5)], [[*head, 99, n] for n in range(5)]
    assert [(90, 5), (41, 5)] == sorted(found([*one, *other]), reverse=True)
    assert [(40, 9)] == found([*one[:2], *[[*head, 99, n] for n in range(7)]])


def test_chains_of_prefixes() -> None:
    """Each a beginning of the next, many of them: neither slow nor too deep."""
    assert found([list(range(n)) for n in range(33, 600)])


def test_many_of_one_prefix() -> None:
    """Time grows with the window, not with its square."""
    started = time.process_time()
    assert [(40, 8000)] == found([[*range(40), 100 + n] for n in range(8000)])
    assert time.process_time() - started < 5


class Unmasked(torch.nn.Module):
    """Attends as if nothing were cached wherever nothing is masked."""

    def __init__(self) -> None:
        super().__init__()
        self.config = hf.PretrainedConfig(num_hidden_layers=1)
        self.words, self.places = torch.nn.Embedding(128, 16), torch.nn.Embedding(128, 16)
        self.mixed, self.block = torch.nn.Linear(16, 48), torch.nn.Identity()

    def forward(
        self,
        input_ids: Any,
        attention_mask: Any = None,
        position_ids: Any = None,
        past_key_values: Any = None,
        use_cache: bool = False,
    ) -> Any:
        rows, width = input_ids.shape
        if position_ids is None:
            position_ids = torch.arange(width).expand(rows, -1)
        x = self.words(input_ids) + self.places(position_ids)
        q, k, v = (part[:, None] for part in self.mixed(x).chunk(3, -1))
        if past_key_values is not None:
            k, v = past_key_values.update(k, v, 0)
        attend = torch.nn.functional.scaled_dot_product_attention
        if bool((attention_mask == 1).all()):
            return self.block(attend(q, k, v, is_causal=width > 1)[:, 0] + x)
        seen = torch.ones(k.shape[2], k.shape[2], dtype=torch.bool).tril()[-width:]
        seen = seen[None, None] & (attention_mask[:, None, None] == 1)
        return self.block(attend(q, k, v, attn_mask=seen)[:, 0] + x)


def test_a_cache_that_goes_wrong_without_padding() -> None:
    """Is not used."""
    torch.manual_seed(0)
    model = wrap_model(Unmasked().eval(), character_tokenizer())
    query = hookql.check("capture mean from block")
    plan = bind(query, model, TokenFeed(model), rules=frozenset({"prefixes"}))
    assert not prefixes.continues(plan)
