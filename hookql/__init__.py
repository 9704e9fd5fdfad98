"""HookQL: a query language for looking inside neural networks.

>>> import hookql
>>> result = hookql.run("capture mean, std from transformer.h[0:6].attn where token != pad")
>>> dict(result["mean"].sizes)
{'layer': 6, 'feature': 112}
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from hookql.api import (
    check,
    compile,
    explain,
    export,
    load,
    load_model,
    run,
    run_all,
    verify,
)
from hookql.errors import (
    AlreadyDone,
    DataError,
    Diagnostic,
    HookQLError,
    HookQLWarning,
    ModelError,
    QueryError,
    Span,
    UsageError,
)
from hookql.extending import column, function, sites
from hookql.statistics import statistic

if TYPE_CHECKING:
    from hookql.attached import (
        BatchAccumulator,
        Detector,
        LayerActivationDetector,
        ModelInputDetector,
        ModelOutputDetector,
        StatisticsDetector,
        attach,
    )
    from hookql.configs import Analysis
    from hookql.training.entry import training_batches

__version__ = "0.1.0"

# What needs torch, or more, is imported when somebody first asks for it.
_LATER = {
    "Analysis": "hookql.configs",
    "BatchAccumulator": "hookql.attached",
    "Detector": "hookql.attached",
    "LayerActivationDetector": "hookql.attached",
    "ModelInputDetector": "hookql.attached",
    "ModelOutputDetector": "hookql.attached",
    "StatisticsDetector": "hookql.attached",
    "attach": "hookql.attached",
    "training_batches": "hookql.training.entry",
}

__all__ = [
    "AlreadyDone",
    "Analysis",
    "BatchAccumulator",
    "DataError",
    "Detector",
    "Diagnostic",
    "HookQLError",
    "HookQLWarning",
    "LayerActivationDetector",
    "ModelError",
    "ModelInputDetector",
    "ModelOutputDetector",
    "QueryError",
    "Span",
    "StatisticsDetector",
    "UsageError",
    "attach",
    "check",
    "column",
    "compile",
    "explain",
    "export",
    "function",
    "load",
    "load_model",
    "run",
    "run_all",
    "sites",
    "statistic",
    "training_batches",
    "verify",
]


def __getattr__(name: str) -> Any:
    if name in _LATER:
        return getattr(import_module(_LATER[name]), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *_LATER})
