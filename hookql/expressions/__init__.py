"""Value expressions: what a statistic or a predicate computes from a site's tensors."""

from hookql.expressions.axes import Axes
from hookql.expressions.compile import Expression, Lens, compile_expression, prepare, require_scalar
from hookql.expressions.functions import FUNCTIONS, Function, function
from hookql.expressions.rows import Rows

__all__ = [
    "FUNCTIONS",
    "Axes",
    "Expression",
    "Function",
    "Lens",
    "Rows",
    "compile_expression",
    "function",
    "prepare",
    "require_scalar",
]
