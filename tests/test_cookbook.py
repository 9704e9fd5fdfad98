"""The cookbook: each recipe prints what its page shows, and what the page says of it is true.

The claims are held against numbers made without HookQL: one sample at a time, plain hooks, NumPy.
"""

from __future__ import annotations

import contextlib
import io
import json
import re
import runpy
import shlex
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import hookql
from hookql.cli import main
from hookql.demo import text_path
from hookql.models.load import Model, load_model
from tests.test_docs import ROOT, Block, blocks, commands, skeleton
from tests.weights import minilm_folder, smollm2_folder

pytestmark = pytest.mark.xdist_group("cookbook")

PAGE = ROOT / "docs/cookbook.md"
QUERY = re.compile(r"<!-- query: (\w+) -->")
RECIPE = "<!-- recipe -->"
FOLDERS = {
    "HuggingFaceTB/SmolLM2-135M-Instruct": smollm2_folder,
    "sentence-transformers/all-MiniLM-L6-v2": minilm_folder,
}
Rows = dict[str, list[np.ndarray]]


def recipes() -> dict[str, list[Block]]:
    """The recipes by name: the block of the query, and those of what is run with its output."""
    found: dict[str, list[Block]] = {}
    for block in blocks(PAGE):
        if query := QUERY.fullmatch(block.above):
            found[query[1]] = [block]
        elif block.above == RECIPE:
            found[list(found)[-1]].append(block)
    return found


RECIPES = recipes()


# What is run, as the page says it, in a folder that has nothing but the examples.


class Kitchen:
    """Cooks each recipe once; ``folder`` then holds its result."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.cooked: dict[str, list[str]] = {}

    def printed(self, name: str) -> list[str]:
        """The recipe's blocks as they would have to be now."""
        if name not in self.cooked:
            with contextlib.chdir(self.folder):
                self.cooked[name] = [really(block) for block in RECIPES[name][1:]]
        return self.cooked[name]

    def result(self, name: str) -> Any:
        """The file that the recipe leaves, a DataTree."""
        self.printed(name)
        return hookql.load(self.folder / f"{name}.nc")


@pytest.fixture(scope="module")
def kitchen(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Kitchen]:
    """A folder with the examples, where hub names are the weights that the tests have."""
    folder = tmp_path_factory.mktemp("cookbook")
    shutil.copytree(ROOT / "examples", folder / "examples", ignore=shutil.ignore_patterns("*.nc"))
    loaded: dict[tuple[object, ...], Model] = {}

    def from_packages(name: str, **options: Any) -> Model:
        key = (name, *sorted(options.items()))
        if key not in loaded:
            loaded[key] = load_model(str(FOLDERS[name]()) if name in FOLDERS else name, **options)
        return loaded[key]

    def whole(queries: Any, name: str, has_target: bool, **options: Any) -> Model:
        return from_packages(name, **{k: v for k, v in options.items() if v is not None})

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("hookql.loading.load_model", from_packages)
        patch.setattr("hookql.loading.load_for", whole)
        patch.setenv("COLUMNS", "100")
        yield Kitchen(folder)


def really(block: Block) -> str:
    """A block as it would have to be: its commands or Python lines, and what they print now."""
    if block.language == "console":
        return "\n".join(f"$ {c}\n{shell(c)}" for c in commands(block.text))
    shown, namespace = "", dict[str, Any]()
    for line in re.findall(r"^>>> (.*)$", block.text, re.MULTILINE):
        printed = io.StringIO()
        with contextlib.redirect_stdout(printed):
            exec(compile(line, str(PAGE), "single"), namespace)
        shown += f">>> {line}\n{printed.getvalue()}"
    return shown


def shell(command: str) -> str:
    """What `hookql ...` or `python FILE` prints, which must succeed."""
    words = shlex.split(command)
    stream = io.TextIOWrapper(io.BytesIO(), encoding="utf-8", write_through=True)
    with contextlib.redirect_stdout(stream), contextlib.redirect_stderr(stream):
        if words[0] == "python":
            runpy.run_path(words[1], run_name="__main__")
            code = 0
        else:
            code = main(words[1:])
    assert isinstance(stream.buffer, io.BytesIO)
    printed = stream.buffer.getvalue().decode("utf-8")
    assert 0 == code, printed
    return printed


@pytest.mark.parametrize("name", RECIPES)
def test_a_recipe_prints_what_the_page_shows(
    name: str, kitchen: Kitchen, request: pytest.FixtureRequest
) -> None:
    """The query is the file's, the output the command's; --update-golden rewrites both."""
    query = (ROOT / "examples" / f"{name}.hq").read_text(encoding="utf-8")
    now = [query, *kitchen.printed(name)]
    if request.config.getoption("--update-golden"):
        text = PAGE.read_text(encoding="utf-8")
        for block, actual in reversed(list(zip(recipes()[name], now, strict=True))):
            text = text[: block.start] + actual + text[block.end :]
        PAGE.write_text(text, encoding="utf-8", newline="")
        return
    assert query == RECIPES[name][0].text
    for block, actual in zip(RECIPES[name][1:], now[1:], strict=True):
        expected, shown = skeleton(block.text)
        printed, measured = skeleton(actual)
        assert expected == printed
        assert shown == pytest.approx(measured, rel=2e-3, abs=2e-6)


def test_there_are_enough_recipes_and_each_is_laid_out() -> None:
    """Sixteen at least, each under a heading of its own, each in canonical layout."""
    assert 16 <= len(RECIPES)
    text = PAGE.read_text(encoding="utf-8")
    assert len(RECIPES) == len(re.findall(r"^## ", text, re.MULTILINE))
    files = [str(ROOT / "examples" / f"{name}.hq") for name in RECIPES]
    assert 0 == main(["fmt", "--check", *files])


# What the page says of it, held against NumPy.


class Told:
    """What modules are given or return, sample by sample, and each sample's ids."""

    def __init__(self, model: Model, texts: list[str], wanted: list[str], attn: bool = False):
        self.seen: Rows = {name: [] for name in wanted}
        self.ids, self.logits, self.patterns = [], [], []
        handles = [self._listen(model.module, name) for name in wanted]
        with torch.no_grad():
            for text in texts:
                ids = model.tokenizer(text, return_tensors="pt")["input_ids"]
                out = model.module(input_ids=ids, **({"output_attentions": True} if attn else {}))
                self.ids.append(ids[0].numpy())
                if hasattr(out, "logits"):
                    self.logits.append(out.logits[0].double().numpy())
                if attn:
                    self.patterns.append([p[0].double().numpy() for p in out.attentions])
        for handle in handles:
            handle.remove()

    def rows(self, name: str) -> np.ndarray:
        """All rows of a module's `NAME:input` or `NAME:output`, float64 (n, features)."""
        return np.concatenate(self.seen[name])

    def _listen(self, module: torch.nn.Module, name: str) -> Any:
        path, _, port = name.partition(":")

        def hook(_: Any, args: Any, kwargs: Any, output: Any) -> None:
            given = args[0] if args else next(iter(kwargs.values()))
            value = given if port == "input" else output
            value = value[0] if isinstance(value, tuple) else value
            self.seen[name].append(value[0].detach().double().numpy())

        return module.get_submodule(path).register_forward_hook(hook, with_kwargs=True)


@pytest.fixture(scope="module")
def demo() -> Told:
    """The demo model on its text."""
    wanted = [f"transformer.h.{i}:output" for i in range(8)]
    wanted += [f"transformer.h.{i}.mlp.c_proj:input" for i in (0, 2, 3, 4)]
    wanted += [f"transformer.h.{i}.mlp:output" for i in range(6)]
    wanted += ["transformer.h.0.mlp.c_fc:input"]
    wanted += [f"transformer.h.{i}.attn.c_proj:input" for i in (0, 7)]
    texts = text_path().read_text(encoding="utf-8").splitlines()
    return Told(load_model("demo"), texts, wanted)


@pytest.fixture(scope="module")
def small(smollm2: Model) -> Told:
    """SmolLM2 on the three passages."""
    wanted = [f"model.layers.{i}:output" for i in range(30)]
    wanted += ["model.layers.0:input", "model.layers.24.mlp.down_proj:input"]
    wanted += ["model.layers.24.self_attn.q_proj:input"]
    return Told(smollm2, passages(), wanted)


def passages() -> list[str]:
    """The three passages."""
    return (ROOT / "examples/passages.txt").read_text(encoding="utf-8").splitlines()


def tokens(name: str) -> Callable[[int], str]:
    """The text of an id, in the demo."""
    tokenizer = load_model(name).tokenizer
    return lambda token: str(tokenizer.decode([token]))


def losses(told: Told) -> list[np.ndarray]:
    """For each sample, the loss of the next token, NaN at the last."""
    found = []
    for logits, ids in zip(told.logits, told.ids, strict=True):
        highest = logits.max(1, keepdims=True)
        log = logits - highest - np.log(np.exp(logits - highest).sum(1, keepdims=True))
        found.append(np.append(-log[np.arange(len(ids) - 1), ids[1:]], np.nan))
    return found


def test_dead_neurons(kitchen: Kitchen, demo: Told) -> None:
    """26 neurons of layer 2 and 22 of layer 3 are never above 0, and none of layers 0 and 4."""
    rate = kitchen.result("dead_neurons")["rate"]
    for layer, dead in {0: 0, 2: 26, 3: 22, 4: 0}.items():
        fires = demo.rows(f"transformer.h.{layer}.mlp.c_proj:input") > 0
        assert dead == int((~fires.any(0)).sum())
        assert rate.sel(layer=layer).values == pytest.approx(fires.mean(0), abs=3 / len(fires))
    assert {2, 3} == set(rate["layer"].values[(rate == 0).any("feature").values])


def test_massive_activations(kitchen: Kitchen, small: Told) -> None:
    """From layer 12 two features, at each text's first token, dwarf everything."""
    tree = kitchen.result("massive_activations")
    for layer in range(12, 28, 3):
        sizes = np.abs(small.rows(f"model.layers.{layer}:output")).max(0)
        assert 2 == int((sizes > 1000).sum())
        actual = tree["sizes/resid_post"]["largest"].sel(layer=layer)
        assert actual.values == pytest.approx(sizes, rel=1e-4, abs=1e-5 * sizes.max())
    norms = [np.linalg.norm(rows, axis=1) for rows in small.seen["model.layers.15:output"]]
    places = tree["places/resid_post"].isel(layer=0)
    assert {0, 1, 2} == set(places["tokens_sample"].values[:3])
    assert [0, 0, 0] == places["tokens_position"].values[:3].tolist()
    expected = np.sort(np.concatenate(norms))[::-1][:4]
    assert places["tokens"].values == pytest.approx(expected, rel=1e-4)
    assert expected[2] > 90 * expected[3]


def test_attention_sinks(kitchen: Kitchen) -> None:
    """The first token gets little in layer 0 and 86 % in layer 24."""
    told = Told(load_model(str(smollm2_folder()), attn="eager"), passages(), [], attn=True)
    first = kitchen.result("attention_sinks")["first"]
    for layer, low, high in ((0, 0.07, 0.09), (24, 0.85, 0.87)):
        shares = np.concatenate([sample[layer][:, 1:, 0] for sample in told.patterns], axis=1)
        assert low < shares.mean() < high
        assert first.sel(layer=layer).values == pytest.approx(shares.mean(1), abs=1e-5)


def test_block_influence(kitchen: Kitchen, small: Told) -> None:
    """The first block turns the stream most, then the last; blocks 13 to 15 least, below 0.03."""
    influence = []
    for layer in range(30):
        before = small.rows(f"model.layers.{layer - 1}:output" if layer else "model.layers.0:input")
        after = small.rows(f"model.layers.{layer}:output")
        lengths = np.linalg.norm(before, axis=1) * np.linalg.norm(after, axis=1)
        influence.append((1 - (before * after).sum(1) / lengths).mean())
    actual = kitchen.result("block_influence")["influence"].values
    assert actual == pytest.approx(influence, abs=1e-5)
    ranked = np.argsort(actual)
    assert [29, 0] == ranked[-2:].tolist()
    assert {13, 14, 15} == set(ranked[:3].tolist())
    assert actual[ranked[2]] < 0.03


def test_norm_by_position(kitchen: Kitchen, demo: Told) -> None:
    """The first position has the longest vectors."""
    norms = [np.linalg.norm(rows, axis=1) for rows in demo.seen["transformer.h.7:output"]]
    expected = np.mean([row[:8] for row in norms], axis=0)
    actual = kitchen.result("norm_by_position")["length"].values[0]
    assert actual == pytest.approx(expected, rel=1e-4)
    assert 0 == actual.argmax()
    assert 1.1 < actual[0] / actual[1:].mean() < 1.3


def test_lens_accuracy(kitchen: Kitchen, demo: Told) -> None:
    """Each layer guesses better than the one before, and the last as the model itself."""
    accuracy = kitchen.result("lens_accuracy")["accuracy"].values
    right = [
        (rows.argmax(1)[:-1] == ids[1:]) for rows, ids in zip(demo.logits, demo.ids, strict=True)
    ]
    assert accuracy[-1] == pytest.approx(np.concatenate(right).mean(), abs=1e-3)
    assert (np.diff(accuracy) > 0).all()


def test_top_tokens(kitchen: Kitchen, demo: Told) -> None:
    """Neuron 99 fires most on ` Neb` and ` Sha`; neuron 5 stays below 0.14."""
    data = kitchen.result("top_tokens").isel(layer=0)
    rows = demo.rows("transformer.h.4.mlp.c_proj:input")
    ids = np.concatenate(demo.ids)
    for neuron in (5, 99):
        best = np.argsort(-rows[:, neuron], kind="stable")[:3]
        actual = data.sel(feature=neuron)
        assert actual["tokens"].values == pytest.approx(rows[best, neuron], rel=1e-4)
        assert ids[best].tolist() == actual["tokens_token"].values.tolist()
    assert [" Neb", " Sha"] == data["tokens_text"].sel(feature=99).values[:2].tolist()
    assert rows[:, 5].max() < 0.14


def test_neurons_of_names(kitchen: Kitchen, demo: Told) -> None:
    """Neuron 52 of layer 3 differs most between capitalised and other words."""
    text = tokens("demo")
    rows, ids = demo.rows("transformer.h.3.mlp.c_proj:input"), np.concatenate(demo.ids)
    tree, means = kitchen.result("neurons_of_names"), {}
    for name, pattern in (("names", "^ [A-Z]"), ("words", "^ [a-z]")):
        kept = np.array([re.search(pattern, text(i)) is not None for i in ids])
        means[name] = rows[kept].mean(0)
        actual = tree[f"{name}/mlp_act"]
        assert int(kept.sum()) == int(actual["count"])
        assert actual["mean"].values[0] == pytest.approx(means[name], abs=1e-5)
    assert 52 == int((means["names"] - means["words"]).argmax())


def test_concept_directions(kitchen: Kitchen, smollm2: Model) -> None:
    """The difference of means puts 7, 7 and 6 of 8 other sentences on their side."""
    lines = (ROOT / "examples/sentiment.jsonl").read_text(encoding="utf-8").splitlines()
    rows = [json.loads(line) for line in lines]
    wanted = [f"model.layers.{layer}:output" for layer in (9, 19, 29)]
    told = Told(smollm2, [row["text"] for row in rows], wanted)
    positive = np.array([row["label"] == "positive" for row in rows])
    fitted = np.array([row["set"] == "fit" for row in rows])
    tree = kitchen.result("concept_directions")
    for name, layer, right in zip(wanted, (9, 19, 29), (7, 7, 6), strict=True):
        last = np.stack([sample[-1] for sample in told.seen[name]])
        means = [last[fitted & (positive == side)].mean(0) for side in (False, True)]
        actual = tree["fit/resid_post"]["mean"].sel(layer=layer, label=["negative", "positive"])
        assert actual.values == pytest.approx(np.stack(means), abs=1e-5 * np.abs(last).max())
        side = (last - (means[0] + means[1]) / 2) @ (means[1] - means[0]) > 0
        assert right == int((side == positive)[~fitted].sum())


def test_surprising_tokens(kitchen: Kitchen, demo: Told) -> None:
    """The MLPs of layers 1 to 3 write more at surprising tokens, those of 4 and 5 less."""
    surprisal = np.concatenate([np.append(np.nan, loss[:-1]) for loss in losses(demo)])
    tree = kitchen.result("surprising_tokens")
    lengths = {name: tree[f"{name}/mlp"] for name in ("unexpected", "expected")}
    kept = {"unexpected": surprisal > 5, "expected": surprisal <= 5}
    for layer, more in {1: True, 2: True, 3: True, 4: False, 5: False}.items():
        norms = np.linalg.norm(demo.rows(f"transformer.h.{layer}.mlp:output"), axis=1)
        for name, data in lengths.items():
            assert float(data["length"].sel(layer=layer)) == pytest.approx(
                norms[kept[name]].mean(), rel=1e-3
            )
        assert more == (norms[kept["unexpected"]].mean() > norms[kept["expected"]].mean())
    assert {2103, 7091} == {int(data["count"]) for data in lengths.values()}


def test_inside_a_phrase(kitchen: Kitchen, demo: Told) -> None:
    """Inside `children of Israel` each next token is the model's first guess, and behind not."""
    text, ids = tokens("demo"), np.concatenate(demo.ids)
    loss, right = np.concatenate(losses(demo)), []
    for logits, sample in zip(demo.logits, demo.ids, strict=True):
        right.append(np.append(logits[:-1].argmax(1) == sample[1:], [np.nan]))
    texts = [text(i) for i in ids]
    starts = [i for i in range(len(ids) - 2) if texts[i : i + 3] == [" children", " of", " Israel"]]
    data = kitchen.result("inside_a_phrase")
    for offset, token in enumerate((" children", " of", " Israel")):
        at = np.array(starts) + offset
        group = data.isel(token=data["token_text"].values.tolist().index(token))
        assert float(group["loss"]) == pytest.approx(np.nanmean(loss[at]), rel=1e-3)
        assert float(group["right"]) == pytest.approx(np.nanmean(np.concatenate(right)[at]))
        assert (offset < 2) == (float(group["right"]) == 1)
    entropy = data["entropy"].values
    assert " Israel" == data["token_text"].values[entropy.argmax()]


def test_loss_by_position(kitchen: Kitchen, demo: Told) -> None:
    """The guess behind the first token is the worst of the eight."""
    expected = np.array([loss[:8] for loss in losses(demo)]).mean(0)
    data = kitchen.result("loss_by_position")
    assert data["loss"].values == pytest.approx(expected, rel=1e-4)
    assert 0 == data["loss"].values.argmax() == data["right"].values.argmin()


def test_calibration(kitchen: Kitchen, demo: Told) -> None:
    """The Gram matrix is that of the inputs, and the largest sizes are theirs."""
    rows = demo.rows("transformer.h.0.mlp.c_fc:input")
    data = kitchen.result("calibration")["inputs/transformer.h.mlp.c_fc"].sel(layer=0)
    expected = rows.T @ rows
    assert np.abs(data["gram"].values - expected).max() < 1e-5 * np.diag(expected).max()
    assert data["largest"].values == pytest.approx(np.abs(rows).max(0), rel=1e-4, abs=1e-4)


def test_outlier_channels(kitchen: Kitchen, small: Told) -> None:
    """In layer 24, one channel before attention and 45 before the down projection pass 6."""
    tree = kitchen.result("outlier_channels")
    for part, number in (("self_attn.q_proj", 1), ("mlp.down_proj", 45)):
        sizes = np.abs(small.rows(f"model.layers.24.{part}:input")).max(0)
        actual = tree[f"inputs/model.layers.{part}:input"]["largest"].sel(layer=24)
        assert number == int((sizes > 6).sum())
        assert actual.values == pytest.approx(sizes, abs=1e-4 * sizes.max())


def test_clip_ranges(kitchen: Kitchen, demo: Told) -> None:
    """The quantiles are right to the sketch's bound; the largest is up to three times the last."""
    data = kitchen.result("clip_ranges")
    for layer in (0, 3):
        sizes = np.abs(demo.rows(f"transformer.h.{layer}.mlp.c_proj:input"))
        expected = np.quantile(sizes, [0.5, 0.99, 0.999])
        assert data["size"].sel(layer=layer).values == pytest.approx(expected, rel=0.02)
        assert float(data["largest"].sel(layer=layer)) == pytest.approx(sizes.max(), rel=1e-4)
    beyond = data["largest"] / data["size"].isel(quantile=-1)
    assert 1 < beyond.min() < beyond.max() < 3


def test_nonfinite(kitchen: Kitchen) -> None:
    """The layer that was damaged is the one where what goes in is finite and what comes out not."""
    model = load_model("demo")
    with torch.no_grad():
        model.module.get_parameter("transformer.h.5.mlp.c_proj.bias")[7] = torch.inf
    with pytest.warns(hookql.HookQLWarning):
        result = hookql.run(kitchen.folder / "examples/nonfinite.hq", model=model, limit=10)
    found = {}
    for role in ("transformer.h.attn", "transformer.h.mlp"):
        data = result[f"attn_mlp/{role}"].to_dataset()
        arises = (data["before"] == 0) & (data["behind"] > 0)
        found[role] = data["layer"].values[arises.values].tolist()
    assert {"transformer.h.attn": [], "transformer.h.mlp": [5]} == found
    assert 971 == int(data["behind"].sel(layer=5))


def test_anisotropy(kitchen: Kitchen, demo: Told) -> None:
    """The square of the centre is the mean cosine: highest at layer 2, lowest at the last."""
    centre = kitchen.result("anisotropy")["centre"]
    cosine = (centre**2).sum("feature")
    for layer in (2, 7):
        rows = demo.rows(f"transformer.h.{layer}:output")
        unit = rows / np.linalg.norm(rows, axis=1, keepdims=True)
        some = unit[:: len(unit) // 500]
        assert centre.sel(layer=layer).values == pytest.approx(unit.mean(0), abs=1e-5)
        assert float(cosine.sel(layer=layer)) == pytest.approx((some @ some.T).mean(), abs=0.03)
    assert (2, 7) == (cosine.values.argmax(), cosine.values.argmin())


def test_kurtosis(kitchen: Kitchen, demo: Told) -> None:
    """Every layer's tails are heavier than a Gaussian's, layer 2's the most."""
    expected = []
    for layer in range(8):
        rows = demo.rows(f"transformer.h.{layer}:output")
        rows = rows - rows.mean()
        expected.append((rows**4).mean() / (rows**2).mean() ** 2 - 3)
    actual = kitchen.result("kurtosis")["kurtosis"].values
    assert actual == pytest.approx(expected, rel=1e-3)
    assert actual.min() > 0
    assert 2 == actual.argmax()


def test_sentence_embeddings(kitchen: Kitchen, minilm: Model) -> None:
    """Each sentence's nearest neighbour is its pair, and no others are near."""
    lines = (ROOT / "examples/sentences.jsonl").read_text(encoding="utf-8").splitlines()
    means = []
    for line in lines:
        given = minilm.tokenizer(json.loads(line)["text"], return_tensors="pt")
        with torch.no_grad():
            means.append(minilm.module(**given).last_hidden_state[0].double().numpy().mean(0))
    actual = kitchen.result("sentence_embeddings")["mean"].values[0]
    assert actual == pytest.approx(np.stack(means), abs=1e-5)
    unit = np.stack(means) / np.linalg.norm(means, axis=1, keepdims=True)
    cosines = unit @ unit.T - 2 * np.eye(6)
    assert [1, 0, 3, 2, 5, 4] == cosines.argmax(1).tolist()
    assert 0.52 <= cosines.max(1).min().round(2)
    assert np.sort(cosines, axis=1)[:, -2].max() < 0.05


def test_head_sizes(kitchen: Kitchen, demo: Told) -> None:
    """Layer 0's fourth head gives five times what the first two do; the last layer's first most."""
    size = kitchen.result("head_sizes")["size"]
    for layer in (0, 7):
        rows = demo.rows(f"transformer.h.{layer}.attn.c_proj:input").reshape(-1, 4, 28)
        expected = np.linalg.norm(rows, axis=2).mean(0)
        assert size.sel(layer=layer).values == pytest.approx(expected, rel=1e-3)
    assert 5 == round(float(size[0, 3] / size[0, :2].mean()))
    assert 0 == size.sel(layer=7).values.argmax()


def test_attention_entropy(kitchen: Kitchen) -> None:
    """The heads of the first two layers look most widely."""
    texts = text_path().read_text(encoding="utf-8").splitlines()
    told = Told(load_model("demo", attn="eager"), texts, [], attn=True)
    expected = []
    for layer in range(8):
        rows = [sample[layer][:, 1:] for sample in told.patterns]
        each = [-(p * np.log(np.where(p > 0, p, 1))).sum(2) for p in rows]
        expected.append(np.concatenate(each, axis=1).mean(1))
    spread = kitchen.result("attention_entropy")["spread"].values
    assert spread == pytest.approx(np.stack(expected), abs=1e-4)
    assert spread[:2].mean(1).min() > spread[2:].mean(1).max()
