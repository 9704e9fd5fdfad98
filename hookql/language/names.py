"""The words of the language that are no keywords: columns, roles, constants, sites, keys.

Functions have a table of their own, in `functions`.
"""

from __future__ import annotations

COLUMNS = {
    "token": "id",
    "special": "truth",
    "position": "place",
    "content_position": "place",
    "length": "amount",
    "sample": "amount",
    "chunk": "amount",
    "offset": "amount",
    "prev": "id",
    "next": "id",
    "phase": "phase",
    "step": "amount",
    "role": "speaker",
}
"""Each column of a token and the kind of its values (see `kinds`)."""

PHASES = ("prompt", "generated")
"""The values of `phase`, which may stand without quotes beside it."""

SPEAKERS = ("system", "user", "assistant", "tool")
"""Values of `role` that may stand without quotes beside it; a chat may have others."""

LONGEST_ROLE = 32
"""Characters of a value of `role`."""

SIGNALS = ("surprisal", "loss", "prob", "rank", "entropy")
"""Columns of the model's own prediction, all numbers; the first two and the last in nats."""

ROLES = ("pad", "bos", "eos", "unk", "cls", "sep", "mask")
"""What a token can be for its tokenizer; who says it in a chat is the column `role`."""

CONSTANTS = {"true": "truth", "false": "truth", "none": "none", "last": "last"}

VALUES = ("x", "input", "output")
"""The tensors of a site."""

# --- clauses ------------------------------------------------------------------------------------

KEYS = (
    "position",
    "content_position",
    "sample",
    "token",
    "prev",
    "next",
    "chunk",
    "phase",
    "step",
    "role",
)
"""What `by` takes, beside `row.NAME`."""

OFFERED: set[str] = set()
"""Columns of other packages, which `by` takes too (see `pieces`)."""

DIMENSIONS = ("feature", "head", "layer")
"""What `pool` takes."""

# --- sites --------------------------------------------------------------------------------------

PORTS = ("output", "input", "pattern")

CANONICAL = (
    "embed",
    "block",
    "resid_pre",
    "resid_mid",
    "resid_post",
    "attn",
    "mlp",
    "attn_out",
    "mlp_out",
    "mlp_act",
    "q",
    "k",
    "v",
    "z",
    "pattern",
    "final_norm",
    "unembed",
    "logits",
)
"""Sites that mean the same in every model family."""

WHOLE = ("block", "attn_out", "mlp_out")
"""Canonical sites that are whole modules: they have ports, and both `input` and `output`."""

ONCE = ("embed", "final_norm", "unembed", "logits")
"""Canonical sites that a model has once; all others take an index, a number for each block."""

# --- statistics and results ---------------------------------------------------------------------

DEFINED: set[str] = {
    *COLUMNS,
    *SIGNALS,
    *ROLES,
    *CONSTANTS,
    *VALUES,
    "random",
    "row",
}
"""Names that a `let` cannot take."""

TEXTS = {key: f"{key}_text" for key in ("token", "prev", "next")}
"""The coordinates that say what the tokens of a key spell."""

CHECKSUMS = "_checksums"
"""The group of a result's file that has its checksums: nothing else can be called so."""

RESULT_NAMES = frozenset(
    {
        *TEXTS.values(),
        CHECKSUMS,
        "content_position",
        "row_size",
        "skipped",
        "skipped_sample",
        "skipped_chunk",
        "skipped_reason",
        "generated",
        "generated_sample",
        "generated_text",
        "generated_tokens",
        "generated_ended",
        "token_id",
        "chunk",
        "count",
        "layer",
        "call",
        "head",
        "feature",
        "feature_2",
        "position",
        "key",
        "sample",
        "obs",
        "top",
        "bin",
        "quantile",
        "module",
        "vocabulary",
        "bin_lo",
        "bin_hi",
        "nonfinite",
        "first_nonfinite_sample",
        "first_nonfinite_position",
    }
)
"""Dimensions and coordinates of a result, which no variable can be called (`count` can be, by
the statistic itself)."""
