"""Forward passes that the user runs: each token that is fed counts once, as it was computed."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

import hookql
from tests.generation.plain import assert_close
from tests.live.seen import QUERY, alone, check, ids_of, near, plan_for, recorded
from tests.tiny import tiny

LENGTHS = (7, 3, 5)


def padded(ids: Tensor, side: str) -> tuple[Tensor, Tensor]:
    """Rows of `LENGTHS` tokens, padded on a side with id 0, and their mask."""
    width = ids.shape[1]
    mask = torch.zeros_like(ids)
    for row, length in enumerate(LENGTHS):
        here = slice(width - length, width) if side == "left" else slice(0, length)
        mask[row, here] = 1
    return ids * mask, mask


@pytest.mark.parametrize("dtype", [torch.int64, torch.bool, torch.float32])
@pytest.mark.parametrize("side", ["left", "right", "holes"])
def test_padding(side: str, dtype: torch.dtype) -> None:
    """What is masked is no row, wherever it stands and whatever the mask is made of."""
    model, tokenizer, _ = tiny("gpt2")
    ids, mask = padded(ids_of(3, 7), side if side != "holes" else "right")
    if side == "holes":
        mask[0, 3] = mask[2, 1] = 0
    plan = plan_for(model, tokenizer)
    with plan, recorded(model) as seen, torch.no_grad():
        model(ids, attention_mask=mask.to(dtype))
        model(input_ids=ids, attention_mask=mask.to(dtype))
    rows = np.concatenate([each[mask.bool().numpy()] for each in seen])
    check(plan.result(), rows)


def test_padding_on_the_left_is_the_text_itself() -> None:
    """With positions of their own, left-padded rows are those of each text alone."""
    model, tokenizer, _ = tiny("gpt2")
    ids, mask = padded(ids_of(3, 7), "left")
    places = (mask.cumsum(-1) - 1).clamp(min=0)
    query = "capture mean, count, max from transformer.h[1] by position"
    plan = plan_for(model, tokenizer, query)
    with plan, torch.no_grad():
        model(ids, attention_mask=mask, position_ids=places)
    texts = [row[keep.bool()].tolist() for row, keep in zip(ids, mask, strict=True)]
    rows = [alone(model, [text]) for text in texts]
    node = plan.result().dataset.isel(layer=0)
    assert list(range(7)) == node["position"].values.tolist()
    for place in range(7):
        here = np.stack([r[place] for r in rows if len(r) > place])
        assert len(here) == int(node["count"].sel(position=place))
        assert_close(here.mean(0), node["mean"].sel(position=place))


CONTENT = """
capture mean(surprisal) as m, mean(loss) as l from @resid_post[1] by sample as signals
capture mean from @resid_post[1] where prev == 20 or next == 30 as near
capture count from @resid_post[1] by token as tokens
capture mean from @resid_post[1] where position == -1 by sample as ends
capture top(norm(x), k=3) as t from @resid_post[1] as tops
capture mean(x[key=0]) as k from @pattern[0] as first
capture mean(argmax(lens(x)) == next) as m from @resid_post[-1] as hits
capture mean from @logits as logits
capture mean from @embed as embed
"""


@pytest.mark.parametrize("side", ["left", "right", "none"])
def test_columns(side: str) -> None:
    """Signals, neighbours, places, patterns, lens and logits of passes padded on either side."""
    model, tokenizer, _ = tiny("llama")
    model.config._attn_implementation = "eager"
    ids, mask = padded(ids_of(3, 7, seed=5), side if side != "none" else "right")
    ids[0, 2:4], ids[2, 4] = torch.tensor([20, 30]), 20
    if side == "none":
        mask = torch.ones_like(mask)
    else:
        ids *= mask
    plan = plan_for(model, tokenizer, CONTENT)
    places = (mask.cumsum(-1) - 1).clamp(min=0)
    with plan, torch.no_grad(), recorded(model, "model.layers.1") as seen:
        given: dict[str, Any] = {} if side == "none" else {"attention_mask": mask}
        model(ids, position_ids=places, **given)
    result = plan.result()
    texts = [row[keep.bool()] for row, keep in zip(ids, mask, strict=True)]
    rows = [seen[0][n][keep.bool().numpy()] for n, keep in enumerate(mask)]
    with torch.no_grad():
        outputs = [model(t[None], output_attentions=True) for t in texts]
    logits = [o.logits[0].double() for o in outputs]
    for n, (text, logit) in enumerate(zip(texts, logits, strict=True)):
        loss = -logit.log_softmax(-1)[:-1].gather(1, text[1:, None]).mean()
        node = result["signals/resid_post"].sel(sample=n, layer=1)
        assert_close([loss, loss], [node["m"], node["l"]])
        assert_close(rows[n][-1], result["ends/resid_post"]["mean"].sel(sample=n, layer=1))
    keep = [
        [
            (p > 0 and int(text[p - 1]) == 20) or (p + 1 < len(text) and int(text[p + 1]) == 30)
            for p in range(len(text))
        ]
        for text in texts
    ]
    kept = np.concatenate([r[np.array(k)] for r, k in zip(rows, keep, strict=True)])
    assert len(kept) == int(result["near/resid_post"]["count"])
    assert_close(kept.mean(0), result["near/resid_post"]["mean"].sel(layer=1))
    found, counts = np.unique(torch.cat(texts).numpy(), return_counts=True)
    assert found.tolist() == result["tokens/resid_post"]["token"].values.tolist()
    assert counts.tolist() == result["tokens/resid_post"]["count"].values.tolist()
    norms = np.concatenate([np.linalg.norm(r, axis=-1) for r in rows])
    owners = np.concatenate([[[n, p] for p in range(len(r))] for n, r in enumerate(rows)])
    best = np.argsort(-norms)[:3]
    node = result["tops/resid_post"].dataset.sel(layer=1)
    assert_close(norms[best], node["t"])
    assert owners[best, 0].tolist() == node["t_sample"].values.tolist()
    assert owners[best, 1].tolist() == node["t_position"].values.tolist()
    sinks = np.concatenate([o.attentions[0][0, :, :, 0].T.double().numpy() for o in outputs])
    assert_close(sinks.mean(0), result["first/pattern"]["k"].sel(layer=0))
    hits = torch.cat([(g.argmax(-1)[:-1] == t[1:]) for g, t in zip(logits, texts, strict=True)])
    assert_close(hits.double().mean(), result["hits/resid_post"]["m"].sel(layer=2))
    assert_close(torch.cat(logits).mean(0), result["logits/logits"]["mean"])
    embed = model.get_input_embeddings()(torch.cat(texts)).detach().double().mean(0)
    assert_close(embed, result["embed/embed"]["mean"])


def test_train_mode() -> None:
    """In train mode the rows are those with dropout, and the model stays in its mode."""
    model, tokenizer, _ = tiny("gpt2")
    plan = plan_for(model, tokenizer)
    model.train()
    with plan, recorded(model) as seen:
        model(ids_of(2, 6))
        model(ids_of(2, 6))
    assert model.training
    assert all(module.training for module in model.modules())
    assert (seen[0] != seen[1]).any()
    check(plan.result(), np.concatenate([each.reshape(-1, 32) for each in seen]))


def test_autocast() -> None:
    """Under autocast rows are bfloat16, sums of them are not: 4,000 rows near 100 add up."""
    model, tokenizer, _ = tiny("gpt2")
    with torch.no_grad():
        model.transformer.h[1].mlp.c_proj.bias.add_(100)
    query = "capture mean, var, sum, max, count from transformer.h[1].mlp"
    plan = plan_for(model, tokenizer, query)
    with (
        plan,
        recorded(model, "transformer.h.1.mlp") as seen,
        torch.autocast("cpu", torch.bfloat16),
        torch.no_grad(),
    ):
        for seed in range(2):
            out = model(ids_of(40, 50, seed=seed)).logits
    assert torch.bfloat16 == out.dtype
    rows = np.concatenate([each.reshape(-1, 32) for each in seen])
    assert (rows == torch.from_numpy(rows).bfloat16().double().numpy()).all()
    node = plan.result().dataset.isel(layer=0)
    assert 4000 == int(node["count"])
    # bfloat16 has 8 bits: a sum rounded to it would be off by up to 1 / 256.
    np.testing.assert_allclose(node["sum"], rows.sum(0), rtol=1e-6)
    np.testing.assert_allclose(node["mean"], rows.mean(0), rtol=1e-7)
    np.testing.assert_allclose(node["var"], rows.var(0), rtol=1e-3)
    np.testing.assert_array_equal(rows.max(0), node["max"])


def test_autocast_lens_and_loss() -> None:
    """What is reckoned of rows under autocast is reckoned as without it."""
    model, tokenizer, _ = tiny("gpt2")
    query = "capture mean(lens(x)) as m from @resid_post[-1] as a capture mean(loss) as l from "
    plan = plan_for(model, tokenizer, query + "@resid_post[-1] as b")
    ids = ids_of(4, 9)
    half = torch.autocast("cpu", torch.bfloat16)
    with plan, recorded(model, "transformer.h.3") as seen, torch.no_grad(), half:
        logits = model(ids).logits
    stream = torch.from_numpy(seen[0]).float()
    with torch.no_grad():
        expected = model.lm_head(model.transformer.ln_f(stream)).double().mean((0, 1))
    result = plan.result()
    assert_close(expected, result["a/resid_post"]["m"].sel(layer=3))
    loss = -logits.double().log_softmax(-1)[:, :-1].gather(2, ids[:, 1:, None]).mean()
    assert_close(loss, result["b/resid_post"]["l"].sel(layer=3))


@pytest.mark.parametrize("reentrant", [True, False])
def test_gradient_checkpointing(reentrant: bool) -> None:
    """The recomputed pass is no pass of the user's: every token counts once."""
    model, tokenizer, _ = tiny("gpt2")
    plan = plan_for(model, tokenizer, QUERY + ", transformer.h[1].mlp, transformer.h[2].attn")
    plain = plan_for(model, tokenizer)
    model.train()
    model.config.attn_pdrop = 0
    for module in model.modules():
        if isinstance(module, torch.nn.Dropout):
            module.p = 0.0
    model.gradient_checkpointing_enable({"use_reentrant": reentrant})
    if reentrant:
        model.enable_input_require_grads()
    ids = ids_of(3, 6)
    with plan, plain:
        for _ in range(2):
            model(ids, labels=ids).loss.backward()
    rows = alone(model.eval(), ids.tolist())
    near(plain.result(), np.concatenate([rows, rows]))
    result = plan.result()
    found = [int(node["count"]) for node in result.subtree if "count" in node]
    assert [36] * 3 == found
    assert all(p.grad is not None for p in model.parameters())


def test_inference_mode_then_plain() -> None:
    """Passes in inference mode and plain ones add up in one plan."""
    model, tokenizer, _ = tiny("gpt2")
    plan = plan_for(model, tokenizer)
    with plan, recorded(model) as seen:
        with torch.inference_mode():
            model(ids_of(2, 6))
        model(ids_of(2, 4, seed=1)).logits.sum().backward()
        with torch.inference_mode():
            model(ids_of(1, 6))
            half = plan.result()
        model(ids_of(2, 4, seed=1))
    check(half, np.concatenate([each.reshape(-1, 32) for each in seen[:3]]))
    check(plan.result(), np.concatenate([each.reshape(-1, 32) for each in seen]))


def test_training_is_bitwise_the_same() -> None:
    """Losses and weights of a loop with dropout are those without the plan, bit for bit."""

    def trained(look: bool) -> tuple[list[float], dict[str, Tensor]]:
        model, tokenizer, _ = tiny("gpt2")
        query = "capture mean, std, top(k=3) from transformer.h[*].** isa linear as a "
        query += "capture mean(loss) from @resid_post[0] as b"
        plan = plan_for(model, tokenizer, query) if look else None
        model.train()
        torch.manual_seed(3)
        optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2)
        losses = []
        for step in range(5):
            ids = ids_of(4, 8, seed=step)
            if plan is not None and step == 1:
                plan.__enter__()
            loss = model(ids, labels=ids).loss
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            losses.append(loss.item())
            if plan is not None and step == 2:
                plan.result()
        if plan is not None:
            plan.__exit__(None, None, None)
            assert 128 == plan.result().attrs["tokens_run"]
        return losses, model.state_dict()

    bare, weights = trained(look=False)
    losses, others = trained(look=True)
    assert bare == losses
    assert all(torch.equal(weights[name], others[name]) for name in weights)


def test_two_plans() -> None:
    """They see each their own passes, and leave in either order."""
    for first_leaves in (True, False):
        model, tokenizer, _ = tiny("gpt2")
        one, two = plan_for(model, tokenizer), plan_for(model, tokenizer)
        with recorded(model) as seen, torch.no_grad():
            one.__enter__()
            model(ids_of(2, 5))
            two.__enter__()
            model(ids_of(2, 6))
            (one if first_leaves else two).__exit__(None, None, None)
            model(ids_of(2, 7))
            (two if first_leaves else one).__exit__(None, None, None)
            model(ids_of(2, 8))
        flat = [each.reshape(-1, 32) for each in seen]
        check(one.result(), np.concatenate(flat[:2] if first_leaves else flat[:3]))
        check(two.result(), np.concatenate(flat[1:3] if first_leaves else flat[1:2]))


def test_results_stand(tmp_path: Any) -> None:
    """What `result` gave does not change with what comes after; what is saved is the result."""
    model, tokenizer, _ = tiny("gpt2")
    query = "capture mean, max, hist(5, -1, 1), top(k=2), cov, quantile(0.5) from transformer.h[1]"
    plan = plan_for(model, tokenizer, query + " by position")
    with plan, torch.no_grad():
        model(ids_of(2, 5))
        first = plan.result()
        before = first.copy(deep=True)
        model(ids_of(3, 9, seed=1))
        second = plan.result()
        again = plan.result()
        assert first.identical(before)
        assert not second.dataset.equals(first.dataset)
        assert second.dataset.equals(again.dataset)
        plan.reset()
        model(ids_of(2, 5))
    assert plan.result().dataset.equals(first.dataset)
    saved = plan.save(tmp_path / "live.nc")
    loaded = hookql.load(saved)
    for name in first.dataset.data_vars:
        np.testing.assert_array_equal(first[name].values, loaded[name].values)


def test_pause() -> None:
    """What runs while it looks away does not count."""
    model, tokenizer, _ = tiny("gpt2")
    plan = plan_for(model, tokenizer)
    with plan, recorded(model) as seen, torch.no_grad():
        model(ids_of(2, 5))
        with plan.pause():
            model(ids_of(2, 6))
            model.generate(ids_of(1, 4), max_new_tokens=2, do_sample=False)
        model(ids_of(2, 7))
        plan.pause()
        model(ids_of(2, 8))
        plan.resume()
        model(ids_of(2, 9))
    flat = [each.reshape(-1, 32) for each in seen]
    check(plan.result(), np.concatenate([flat[0], flat[-3], flat[-1]]))
    assert [10, 14, 18] == [len(flat[0]), len(flat[-3]), len(flat[-1])]


class Stop(BaseException):
    """As Ctrl-C is, no Exception."""


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt, Stop])
@pytest.mark.parametrize("where", ["transformer.h.2", "transformer.h.3", "lm_head"])
def test_a_pass_that_fails(error: type[BaseException], where: str) -> None:
    """A pass counts as far as it came, which is said; the ones after it count as ever."""
    model, tokenizer, _ = tiny("gpt2")
    plan = plan_for(model, tokenizer, QUERY.replace("[1]", "[*]"))
    armed: list[int] = []

    def hook(*_: Any) -> None:
        if armed:
            raise error("planted")

    handle = model.get_submodule(where).register_forward_hook(hook)
    with plan, torch.no_grad(), recorded(model) as seen, recorded(model, "transformer.h.3") as late:
        model(ids_of(2, 5))
        armed.append(1)
        with pytest.raises(error):
            model(ids_of(2, 6))
        armed.clear()
        model(ids_of(2, 7))
        model(ids_of(2, 8))
    handle.remove()
    with pytest.warns(hookql.HookQLWarning, match="failed-passes"):
        result = plan.result()
    assert 1 == result.attrs["passes_failed"]
    for layer, outputs in ((1, seen), (3, late)):
        rows = np.concatenate([each.reshape(-1, 32) for each in outputs])
        node = result.dataset.sel(layer=layer)
        assert len(rows) == int(node["count"])
        assert_close(rows.sum(0), node["sum"])


def test_a_pass_that_fails_before_its_sites() -> None:
    """Nothing of it counts, and nothing is said."""
    model, tokenizer, _ = tiny("gpt2")
    plan = plan_for(model, tokenizer)
    with plan, recorded(model) as seen, torch.no_grad():
        model(ids_of(2, 5))
        with pytest.raises(IndexError):
            model(torch.full((2, 3), 500))
        model(ids_of(2, 7))
    result = plan.result()
    assert 0 == result.attrs["passes_failed"]
    check(result, np.concatenate([each.reshape(-1, 32) for each in seen]))


def test_own_runs_do_not_count() -> None:
    """`hookql.run`, `check` and `bind` on the same model inside the `with` leave no trace."""
    model, tokenizer, _ = tiny("gpt2")
    plan = plan_for(model, tokenizer)
    with plan, torch.no_grad():
        with recorded(model) as seen:
            model(ids_of(2, 5))
        inside = hookql.run(QUERY, model=model, tokenizer=tokenizer, texts=["Hello", "you"])
        hookql.run(
            QUERY + " during generate(max_new_tokens=3)",
            model=model,
            tokenizer=tokenizer,
            texts=["Hello", "you"],
        )
        hookql.check(QUERY, model=model, tokenizer=tokenizer)
        plan_for(model, tokenizer)
        with recorded(model) as more:
            model(ids_of(2, 6))
    check(plan.result(), np.concatenate([e.reshape(-1, 32) for e in (*seen, *more)]))
    outside = hookql.run(QUERY, model=model, tokenizer=tokenizer, texts=["Hello", "you"])
    assert outside.dataset.equals(inside.dataset)


def test_arguments_by_place() -> None:
    """Ids and mask are read where they stand: GPT-2 takes a cache and then the mask."""
    model, tokenizer, _ = tiny("gpt2")
    ids, mask = padded(ids_of(3, 7), "right")
    plan = plan_for(model, tokenizer)
    with plan, recorded(model) as seen, torch.no_grad():
        model(ids, None, mask)
    check(plan.result(), seen[0][mask.bool().numpy()])


def test_nothing_seen_is_said() -> None:
    """A plan through which nothing went gives an empty result and a warning."""
    model, tokenizer, _ = tiny("gpt2")
    plan = plan_for(model, tokenizer)
    with plan:
        pass
    with pytest.warns(hookql.HookQLWarning, match="nothing-seen"):
        result = plan.result()
    assert 0 == int(result["count"])


def test_positions_of_ones_own() -> None:
    """Position embeddings that a call gives each sample, and those that all samples share."""
    model, tokenizer, _ = tiny("gpt2")
    plan = plan_for(model, tokenizer, "capture mean, count from transformer.wpe")
    places = torch.tensor([[0, 1, 2, 3], [5, 6, 7, 9]])
    with plan, torch.no_grad():
        model(ids_of(2, 4))
        model(ids_of(2, 4), position_ids=places)
    table = model.transformer.wpe.weight.detach().double()
    rows = torch.cat([table[:4], table[:4], table[places.reshape(-1)]])
    assert 16 == int(plan.result()["count"])
    assert_close(rows.mean(0), plan.result()["mean"].values.ravel())
