"""Any query, over any corpus, with any of the optimiser's rules gives what it gives without them.

`HOOKQL_SUBSETS_EXAMPLES=5000` runs more of them than the suite does.
"""

from __future__ import annotations

import os
import re
import warnings
from typing import Any
from unittest import mock

import xarray
from hypothesis import HealthCheck, Phase, event, given, note, settings

import hookql
from hookql import work
from hookql.optimizer import prefixes
from tests.optimizer.agree import agree
from tests.optimizer.corpora import Case, cases, double

EXAMPLES = int(os.environ.get("HOOKQL_SUBSETS_EXAMPLES", "50"))
# Who asks for more of them gets others each time, and failing ones made small, which takes minutes.
ASKED = "HOOKQL_SUBSETS_EXAMPLES" in os.environ
SHRINK = [Phase.shrink] if ASKED else []

# Llama's norms and softmax reckon in float32 whatever the model's dtype is.
TOLERANCE = {"gpt2": 1e-9, "bert": 1e-9, "llama": 1e-5}
ZERO = {"gpt2": 1e-12, "bert": 1e-12, "llama": 1e-6}
WIDE = 200  # ranks, more than any corpus here has rows as good as each other
TOP = re.compile(r"\bk=\d+")


@given(cases())
@settings(
    max_examples=EXAMPLES,
    deadline=None,
    derandomize=not ASKED,
    database=None,
    phases=[Phase.explicit, Phase.reuse, Phase.generate, *SHRINK],
    print_blob=True,
    suppress_health_check=list(HealthCheck),
)
def test_any_rules_agree_with_none(case: Case) -> None:
    """The same but for float64's noise."""
    note(f"{case.query.text}\n{case}")
    with_rules, without = run(case, case.optimize), run(case, False)
    wider = None
    if TOP.search(case.query.text):
        wider = run(case, False, TOP.sub(f"k={WIDE}", case.query.text))
    family = case.query.family
    agree(with_rules, without, TOLERANCE[family], ZERO[family], wider)
    if with_rules.attrs["tokens_run"] < without.attrs["tokens_run"]:
        event("less was run")


def run(case: Case, optimize: str | bool, text: str | None = None) -> xarray.DataTree:
    """The result with some rules; prefixes count from 3 tokens on, for those of 32 fill a model."""
    query = case.query
    sizes = {"batch_size": query.batch_size, "tokens_per_batch": case.tokens_per_batch}
    options: dict[str, Any] = {name: size for name, size in sizes.items() if size is not None}
    with (
        warnings.catch_warnings(),
        mock.patch.object(prefixes, "SHORTEST", 3),
        mock.patch.object(work, "WINDOW_CONTEXTS", case.window),
    ):
        warnings.simplefilter("ignore", hookql.HookQLWarning)
        return hookql.run(
            text or query.text,
            model=double(query.family),
            tokenizer=query.subject().tokenizer,
            data=[dict(row) for row in case.rows],
            max_length=query.max_length,
            overflow=query.overflow,
            optimize=optimize,
            progress=False,
            **options,
        )
