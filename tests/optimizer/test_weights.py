"""Rule `weights`: a part of the weights is read, and every number stays what it was."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import safetensors
import torch
import transformers as hf
from torch import nn

import hookql
from hookql.api import parse_query
from hookql.execute import Finished, execute
from hookql.models.load import load_model
from hookql.optimizer import weights
from tests.tiny import character_tokenizer, tiny
from tests.weights import smollm2_folder

TEXTS = ["hello there", "a", "what is this? It is a longer text.", "abc"] * 2
FAMILIES = [
    "gpt2", "llama", "qwen2", "qwen3", "gemma", "gemma2", "gemma3", "phi3", "opt", "gpt_neox",
    "bloom", "falcon", "bert", "roberta", "t5", "mixtral", "mamba", "gptj", "distilbert",
    "qwen3_moe", "cohere", "bert-mlm",
]  # fmt: skip


@pytest.fixture(autouse=True)
def _however_small(monkeypatch: pytest.MonkeyPatch) -> None:
    """Small models are loaded in part too."""
    monkeypatch.setattr(weights, "SMALL", -1)


def saved(model: nn.Module, folder: Path, shards: str = "20KB") -> str:
    """A model and the tokenizer of characters, saved as shards."""
    model.save_pretrained(folder, max_shard_size=shards)  # type: ignore[operator]
    character_tokenizer().save_pretrained(folder)
    return str(folder)


def run(query: str, folder: str, optimize: str = "all", **options: Any) -> Finished:
    """A run of a model given by name."""
    given: Any = {"optimize": optimize, **options}
    return execute(parse_query(query), model=folder, texts=TEXTS, options=given)


def check_equal(query: str, folder: str) -> Finished:
    """Run it both ways: bitwise the same numbers, the same share. The run with the rule."""
    ours, theirs = run(query, folder), run(query, folder, "-weights")
    assert ours.plan.model.part is not None
    assert theirs.plan.model.part is None
    for node in theirs.tree.subtree:
        for name, values in node.data_vars.items():
            there: Any = ours.tree[node.path.rstrip("/") + f"/{name}"]
            assert values.values.tobytes() == there.values.tobytes(), (node.path, name)
    for fact in ("forward_share", "model_class", "model_dtype"):
        assert theirs.tree.attrs.get(fact) == ours.tree.attrs.get(fact)
    return ours


@pytest.mark.parametrize("family", FAMILIES)
def test_numbers_are_bitwise_the_same(family: str, tmp_path: Path) -> None:
    """Of sharded checkpoints of every kind, blocks and all that is in them."""
    model, _, _ = tiny(family)
    stacks = [n for n, m in model.named_modules() if isinstance(m, nn.ModuleList) and len(m) > 1]
    query = f"""capture mean, std, max from {stacks[0]}[1]:input
                capture mean, values from {stacks[0]}[0].** where position >= 1 as inner"""
    ours = check_equal(query, saved(model, tmp_path))
    part = ours.plan.model.part
    assert part is not None
    assert type(model) is type(ours.plan.model.module)
    assert [n for n, _ in model.named_modules()] == [
        n for n, _ in ours.plan.model.module.named_modules()
    ]
    assert part.read < part.whole


def llama(tied: bool = False, layers: int = 4, **sizes: Any) -> Any:
    """A Llama of a few small layers, seeded."""
    torch.manual_seed(3)
    config = hf.LlamaConfig(
        vocab_size=128,
        max_position_embeddings=64,
        num_hidden_layers=layers,
        tie_word_embeddings=tied,
        **{"hidden_size": 32, "intermediate_size": 48, "num_attention_heads": 4} | sizes,
    )
    return hf.LlamaForCausalLM(config).eval()


@pytest.mark.parametrize("tied", [True, False])
def test_what_is_left_out(tied: bool, tmp_path: Path) -> None:
    """Later blocks, the final norm, the head unless it is the embedding; counted from the end."""
    ours = check_equal("capture mean from layers[-3]", saved(llama(tied), tmp_path))
    assert ours.plan.model.part is not None
    expected = ["model.layers.2", "model.layers.3", "model.norm"] + ["lm_head"] * (not tied)
    assert tuple(expected) == ours.plan.model.part.left_out
    assert ("layers.1" in str(ours.plan.points[0])) is True


def test_within_a_block(tmp_path: Path) -> None:
    """A query on a block's attention does not read its MLP."""
    ours = check_equal("capture mean from layers[1].self_attn", saved(llama(), tmp_path))
    assert ours.plan.model.part is not None
    assert "model.layers.1.mlp" in ours.plan.model.part.left_out


def test_a_lens_has_its_head(tmp_path: Path) -> None:
    """Norm and head are read where `lens` applies them, and blocks between are not."""
    query = "capture mean(argmax(lens(x)) == next) as right from @resid_post[1] where next != none"
    ours = check_equal(query, saved(llama(), tmp_path))
    assert ours.plan.model.part is not None
    assert ("model.layers.2", "model.layers.3") == ours.plan.model.part.left_out


@pytest.mark.parametrize(
    "query",
    [
        "capture mean from layers[0] where surprisal > 1",
        "capture mean from @logits",
        "capture mean from lm_head",
        "capture mean from layers[0] during generate(max_new_tokens=2)",
    ],
)
def test_whole_where_all_is_needed(query: str, tmp_path: Path) -> None:
    """What needs the model's end has all of its weights."""
    assert run(query, saved(llama(), tmp_path)).plan.model.part is None


def test_whole_without_depth(tmp_path: Path) -> None:
    """A pass that runs to its end needs its weights."""
    folder = saved(llama(), tmp_path)
    assert run("capture mean from layers[0]", folder, "-depth").plan.model.part is None


def test_mistakes_are_said_as_without(tmp_path: Path) -> None:
    """A wrong path, and weights that are needed and missing; a missing shard."""
    folder = saved(llama(), tmp_path / "right")
    broken = llama()
    del broken.model.layers[0].mlp.up_proj.weight
    lacking = saved(broken, tmp_path / "lacking")
    for query, where in [("layers[9]", folder), ("layers[0].mpl", folder), ("layers[0]", lacking)]:
        said = []
        for rules in ("all", "-weights"):
            with pytest.raises(hookql.HookQLError) as caught:
                run(f"capture mean from {query}", where, rules)
            said.append(str(caught.value))
        assert said[0] == said[1]


def test_identity_is_of_what_was_read(tmp_path: Path) -> None:
    """Another weight that is read makes another identity; one that is not read makes none."""
    query = "capture mean from layers[1]"
    model = llama()
    first = run(query, saved(model, tmp_path / "0")).plan.model.identity()
    assert first == run(query, str(tmp_path / "0")).plan.model.identity()
    with torch.no_grad():
        model.lm_head.weight[0] += 1
    assert first == run(query, saved(model, tmp_path / "1")).plan.model.identity()
    with torch.no_grad():
        model.model.layers[0].mlp.up_proj.weight[0] += 1
    other = run(query, saved(model, tmp_path / "2"))
    assert first != other.plan.model.identity()
    assert "partial:sha256" == other.tree.attrs["model_weights"].rpartition(":")[0]


@pytest.fixture
def counted(monkeypatch: pytest.MonkeyPatch) -> dict[str, int]:
    """The bytes of each tensor that transformers takes out of safetensors files."""
    taken: dict[str, int] = {}

    class Slice:
        def __init__(self, name: str, inner: Any) -> None:
            self.name, self.inner = name, inner

        def __getattr__(self, name: str) -> Any:
            return getattr(self.inner, name)

        def __getitem__(self, index: Any) -> Any:
            found = self.inner[index]
            taken[self.name] = taken.get(self.name, 0) + found.numel() * found.element_size()
            return found

    class Opened:
        def __init__(self, *args: Any, **kwargs: Any) -> None:
            self.inner: Any = safetensors.safe_open(*args, **kwargs)

        def __getattr__(self, name: str) -> Any:
            return getattr(self.inner, name)

        def __enter__(self) -> Any:
            self.inner.__enter__()
            return self

        def __exit__(self, *args: Any) -> Any:
            return self.inner.__exit__(*args)

        def get_slice(self, name: str) -> Slice:
            return Slice(name, self.inner.get_slice(name))

    monkeypatch.setattr("transformers.modeling_utils.safe_open", Opened)
    return taken


def test_a_fifth_of_the_bytes(tmp_path: Path, counted: dict[str, int]) -> None:
    """Two layers of thirty: what is taken out of the files is what the plan says, and little."""
    folder = saved(llama(layers=30), tmp_path, "100KB")
    assert len([*tmp_path.glob("*.safetensors")]) > 5
    ours = run("capture mean, std from layers[0:2]", folder)
    read = sum(counted.values())
    counted.clear()
    run("capture mean, std from layers[0:2]", folder, "-weights")
    whole = sum(counted.values())
    part = ours.plan.model.part
    assert part is not None
    assert (read, whole) == (part.read, part.whole)
    assert 5 * read <= whole


_CHILD = """
import sys
import hookql, hookql.execute
from hookql.models.feed import TokenFeed
from transformers import AutoModelForCausalLM
small, folder, rules = sys.argv[1:]
options = {"optimize": rules}
query = hookql.api.parse_query("capture mean from layers[0:2]")
hookql.execute.execute(query, model=small, texts=["abc"], options=options)
def peak():  # not ru_maxrss, which a child has from its parent
    with open("/proc/self/status") as file:
        return next(int(line.split()[1]) for line in file if line.startswith("VmHWM"))
before = peak()
hookql.execute.execute(query, model=folder, texts=["abc"], options=options)
print(peak() - before)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux says it in /proc")
def test_peak_memory_shows_it(tmp_path: Path) -> None:
    """Thirty layers of 6 MB: reading two of them takes a fifth of the memory of reading all."""
    small = saved(llama(), tmp_path / "small")
    large = llama(layers=30, hidden_size=256, intermediate_size=1600)
    folder = saved(large, tmp_path / "large", "20MB")
    peaks = {}
    for rules in ("all", "-weights"):
        command = [sys.executable, "-c", _CHILD, small, folder, rules]
        done = subprocess.run(command, capture_output=True, text=True, check=True)
        peaks[rules] = int(done.stdout.split()[-1]) * 1024
    whole = sum(p.numel() * 4 for p in large.parameters())
    assert peaks["-weights"] > 0.8 * whole
    assert peaks["all"] < 0.3 * whole


def test_real_weights(tmp_path: Path) -> None:
    """SmolLM2: the same statistics bit for bit, from its embeddings and two of thirty layers."""
    query = "capture mean, std from model.layers[0:2] capture mean from @attn_out[1] as attention"
    ours = check_equal(query, str(smollm2_folder()))
    assert "reads 142 MB of the 538 MB of weights" == weights.saves(ours.plan)


# --- explain --------------------------------------------------------------------------------------


@pytest.mark.parametrize("family", [f for f in FAMILIES if f != "mamba"])
def test_explained_without_weights_as_with(family: str, tmp_path: Path) -> None:
    """Hook points, shapes, masks, stop, share and bytes are those of the model with its weights."""
    model, _, _ = tiny(family)
    stacks = [n for n, m in model.named_modules() if isinstance(m, nn.ModuleList) and len(m) > 1]
    folder = saved(model, tmp_path)
    query = f"capture mean, std from {stacks[0]}[*], {stacks[0]}[0].** where position >= 1"
    ours, theirs = (
        json.loads(hookql.explain(query, model=folder, format="json", optimize=rules))
        for rules in ("all", "-weights")
    )
    assert len(ours.pop("open")) >= 2
    assert [] == theirs.pop("open")
    # What only the weights can tell: whether samples may be cut or begun from a cache, to begin.
    ours.pop("saves"), theirs.pop("saves")
    assert theirs == ours


BIG = {
    "architectures": ["LlamaForCausalLM"], "model_type": "llama", "hidden_size": 8192,
    "intermediate_size": 28672, "num_hidden_layers": 80, "num_attention_heads": 64,
    "num_key_value_heads": 8, "vocab_size": 128256, "max_position_embeddings": 8192,
    "torch_dtype": "bfloat16", "tie_word_embeddings": False,
}  # fmt: skip


def test_a_model_that_does_not_fit_is_explained(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, golden: Any
) -> None:
    """A config of 70 billion parameters and no weights, by a name that stands in no text."""
    monkeypatch.chdir(tmp_path)
    Path("llama-70b").mkdir()
    Path("llama-70b/config.json").write_text(json.dumps(BIG))
    character_tokenizer().save_pretrained("llama-70b")
    query = "capture mean, std from layers[0:3], layers[1].self_attn:pattern where position >= 1"
    given: Any = {"device": "cpu", "attn": "eager"}
    golden("explain/without_weights.txt", hookql.explain(query, model="llama-70b", **given))
    generating = "capture mean from layers[-1] during generate(max_new_tokens=4)"
    golden(
        "explain/without_weights_generating.txt",
        hookql.explain(generating, model="llama-70b", **given),
    )
    with pytest.raises(hookql.ModelError) as caught:
        hookql.run(query, model="llama-70b", texts=["abc"])
    assert "no-weights" == caught.value.code


def test_nothing_is_read_to_explain(tmp_path: Path, counted: dict[str, int]) -> None:
    """Not one tensor, data or none; and what would be read is said."""
    folder = saved(llama(layers=30), tmp_path)
    assert "stops" in hookql.explain("capture mean from layers[0]", model=folder)
    text = hookql.explain("capture values from layers[0]", model=folder, texts=["abc"])
    assert "open       until the weights are loaded:" in text
    assert {} == counted
    hookql.explain("capture mean from layers[0]", model=folder, optimize="-weights")
    assert len(counted) > 30


def test_what_is_saved_is_known_beforehand(tmp_path: Path) -> None:
    """The line of a plan without weights is that of the run."""
    from hookql.planning import plan_for

    query, folder = parse_query("capture mean from layers[0:2]"), saved(llama(), tmp_path)
    plan = plan_for(query, folder, None, None, {}, explaining=True)
    ours = run(query.source.text, folder)
    assert weights.saves(plan) == weights.saves(ours.plan)
    assert "reads 87 kB of the 173 kB of weights" == weights.saves(plan)
    whole = plan_for(query, folder, None, None, {})
    assert weights.saves(whole) is None


def test_a_model_loaded_once_is_whole(tmp_path: Path) -> None:
    """`load_model` knows no query, and reads everything."""
    model = load_model(saved(llama(), tmp_path))
    assert model.part is None
    assert not any(p.is_meta for p in model.module.parameters())


@pytest.mark.parametrize("said", [True, False])
@pytest.mark.parametrize("dtype", ["auto", "float16"])
@pytest.mark.parametrize("family", ["t5", "llama"])
def test_explained_in_the_dtype_that_is_loaded(
    family: str, dtype: str, said: bool, tmp_path: Path
) -> None:
    """Where the config does not say it, it is the weights'; some of which stay in float32."""
    model, _, _ = tiny(family)
    stacks = [n for n, m in model.named_modules() if isinstance(m, nn.ModuleList) and len(m) > 1]
    folder = saved(model.to(torch.bfloat16), tmp_path)
    config = json.loads((tmp_path / "config.json").read_text())
    if not said:
        del config["dtype"]
    (tmp_path / "config.json").write_text(json.dumps(config))
    query = f"capture mean from {stacks[0]}[0].**"
    ours, theirs = (
        json.loads(hookql.explain(query, model=folder, format="json", optimize=rules, dtype=dtype))
        for rules in ("all", "-weights")
    )
    assert theirs["model"] == ours["model"]
    assert theirs["hook_points"] == ours["hook_points"]


@pytest.mark.parametrize("texts", [(), ("abc",)])
def test_a_pass_that_depends_on_numbers_is_explained_with_them(
    texts: tuple[str, ...], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Then the weights are loaded after all."""
    plain = hf.models.llama.modeling_llama.LlamaMLP.forward

    def forward(self: Any, x: torch.Tensor) -> Any:
        return plain(self, x) if float(x.detach().abs().sum()) >= 0 else x

    monkeypatch.setattr("transformers.models.llama.modeling_llama.LlamaMLP.forward", forward)
    folder = saved(llama(), tmp_path)
    for query in ("capture mean from layers[1]", "capture values from layers[1]"):
        ours, theirs = (
            hookql.explain(query, model=folder, texts=texts, optimize=rules)
            for rules in ("all", "-weights")
        )
        assert theirs == ours
