"""The words of the language that are no keywords: columns, roles, constants, functions.

What a later version builds stands here too, so that it is refused by name and not as unknown.
"""

from __future__ import annotations

COLUMNS = {
    "token": "id",
    "special": "truth",
    "position": "place",
    "content_position": "place",
    "length": "amount",
    "sample": "amount",
    "prev": "id",
    "next": "id",
}
"""Each column of a token and the kind of its values (see `kinds`)."""

ROLES = ("pad", "bos", "eos", "unk", "cls", "sep", "mask")
CONSTANTS = {"true": "truth", "false": "truth", "none": "none", "last": "last"}
FUNCTIONS = ("random",)
DIMENSIONS = ("feature", "head", "layer")
"""What `pool` takes."""

PORTS = ("output", "input")

LATER_COLUMNS = (
    "chunk",
    "offset",
    "phase",
    "step",
    "role",
    "surprisal",
    "loss",
    "prob",
    "rank",
    "entropy",
)
VALUES = ("x", "input", "output")
"""The tensors of a site; a statistic takes `x`, all else about them comes later."""

LATER_FUNCTIONS = (
    "abs",
    "sqrt",
    "square",
    "exp",
    "log",
    "relu",
    "sign",
    "clip",
    "isfinite",
    "isnan",
    "norm",
    "dot",
    "cos",
    "argmax",
    "entropy",
    "kl",
    "softmax",
    "lens",
)
LATER_STATISTICS = (
    "skew",
    "kurtosis",
    "median",
    "quantile",
    "hist",
    "top",
    "bottom",
    "cov",
    "corr",
    "gram",
    "values",
)

DEFINED = frozenset({*COLUMNS, *ROLES, *CONSTANTS, *LATER_COLUMNS, *VALUES, *FUNCTIONS, "row"})
"""Names that a `let` cannot take."""

RESULT_NAMES = frozenset(
    {
        "count",
        "layer",
        "call",
        "head",
        "feature",
        "position",
        "key",
        "sample",
        "obs",
        "top",
        "bin",
        "quantile",
        "module",
    }
)
"""Dimensions and coordinates of a result, which no variable can be called (`count` can be, by
the statistic itself)."""
