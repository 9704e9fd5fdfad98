"""HookQL: a query language for looking inside neural networks.

>>> import hookql
>>> result = hookql.run("capture mean, std from transformer.h[0:6].attn where token != pad")
>>> dict(result["mean"].sizes)
{'layer': 6, 'feature': 112}
"""

from hookql.api import (
    HookQLWarning,
    check,
    explain,
    export,
    load,
    load_model,
    run,
    verify,
)
from hookql.errors import (
    AlreadyDone,
    DataError,
    Diagnostic,
    HookQLError,
    ModelError,
    QueryError,
    Span,
    UsageError,
)

__version__ = "0.1.0"

__all__ = [
    "AlreadyDone",
    "DataError",
    "Diagnostic",
    "HookQLError",
    "HookQLWarning",
    "ModelError",
    "QueryError",
    "Span",
    "UsageError",
    "check",
    "explain",
    "export",
    "load",
    "load_model",
    "run",
    "verify",
]
