"""What a family's table says: where each canonical site is, or why there is none."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, TypeAlias

from attrs import frozen
from torch import Tensor

from hookql.models.views import View

# The sites that stand in every block, and those that stand once in a model, in the order of a pass.
MODEL_SITES = ("embed", "final_norm", "unembed", "logits")
BLOCK_SITES = (
    "block",
    "resid_pre",
    "q",
    "k",
    "v",
    "pattern",
    "z",
    "attn_out",
    "attn",
    "resid_mid",
    "mlp_act",
    "mlp_out",
    "mlp",
    "resid_post",
)
CANONICAL_NAMES = ("embed", *BLOCK_SITES, "final_norm", "unembed", "logits")


@frozen
class Heads:
    """How a model counts heads: of queries, of keys and values, and numbers in one."""

    queries: int
    keys: int
    width: int

    @classmethod
    def of(cls, config: Any) -> Heads:
        """As nearly every config says it."""
        queries = config.num_attention_heads
        keys = getattr(config, "num_key_value_heads", None) or queries
        width = getattr(config, "head_dim", None) or config.hidden_size // queries
        return cls(queries, keys, width)


Rule: TypeAlias = Callable[[Heads, Any], View]  # the config comes second


@frozen
class Spot:
    """A module below a block, a port of it, and how its rows are read.

    ``path`` may name several modules with ``|`` between them, of which the first that the block has
    is meant; "" is the block. ``port`` is ``output``, ``input`` or ``pattern``.
    """

    path: str
    port: str = "output"
    rule: Rule | None = None


def at(place: str, rule: Rule | None = None) -> Spot:
    """``at("attn.c_proj:input", by_head)``: the place as a query writes it."""
    path, _, port = place.partition(":")
    return Spot(path, port or "output", rule)


Step: TypeAlias = str | Callable[[Tensor, Any], Tensor]
Sites: TypeAlias = Mapping[str, Spot | str]


@frozen(eq=False)
class Family:
    """One family of models, or one design within it.

    Paths of the whole model are written with ``{base}`` where the base model's name stands, if it
    is inside another. ``sites`` has a spot, or the reason why there is none, for the sites of a
    block. ``head`` is what makes logits of the last block's output, step by step: modules (``?``
    before one that may be absent) and functions of the rows and the config; or the reason why there
    is nothing. ``design`` says how a block adds up: "sequential", "parallel" or "post-norm".
    ``stream`` is "target" where logits are a decoder's while the sites of blocks are the encoder's.
    """

    name: str
    types: tuple[str, ...]  # of config.model_type
    bases: tuple[str, ...]  # where the base model may stand, beside the root itself
    blocks: str
    sites: Sites
    final_norm: str | None
    unembed: str | None
    head: tuple[Step, ...] | str
    design: str = "sequential"
    embeds_positions: bool = False  # whether more than the token's embedding starts the stream
    note: str = ""  # of its design, for what a user may stumble over
    when: Callable[[Any], bool] = lambda config: True
    heads: Callable[[Any], Heads] = Heads.of
    stream: str = (
        "text"  # "target": logits are made by a decoder, canonical blocks are the encoder's
    )
    lens_blocks: str | None = None  # whose last output the head reads, where not `blocks`


# --- how rows are read ----------------------------------------------------------------------------


def by_head(heads: Heads, config: Any) -> View:
    """Rows that are the queries' heads one behind another."""
    return View((heads.queries * heads.width,), heads=heads.queries)


def by_kv_head(heads: Heads, config: Any) -> View:
    """Rows that are the keys' or values' heads one behind another."""
    return View((heads.keys * heads.width,), heads=heads.keys)


def concatenated(part: str) -> Rule:
    """Rows of all queries, then all keys, then all values."""

    def rule(heads: Heads, config: Any) -> View:
        queries, keys = heads.queries, heads.keys
        start, count = {"q": (0, queries), "k": (queries, keys), "v": (queries + keys, keys)}[part]
        shape = (queries + 2 * keys, heads.width)
        return View(shape, 0, start, start + count, count)

    return rule


def interleaved(part: str) -> Rule:
    """Rows by groups: the queries that share a key, then that key, then its value."""

    def rule(heads: Heads, config: Any) -> View:
        each = heads.queries // heads.keys
        start, count = {"q": (0, each), "k": (each, 1), "v": (each + 1, 1)}[part]
        shape = (heads.keys, each + 2, heads.width)
        return View(shape, 1, start, start + count, heads.keys * count)

    return rule


def multiplied_by(name: str) -> Rule:
    """Rows that the model multiplies by a number of its config."""

    def rule(heads: Heads, config: Any) -> View:
        return View((config.hidden_size,), scale=float(getattr(config, name)))

    return rule


PARALLEL = "attention and MLP of a block run side by side: nothing stands between them"
NO_VOCABULARY = "it reads images and has no vocabulary"
