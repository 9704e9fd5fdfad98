"""What `hookql show` says before the tables: what a file holds and how it was made."""

from __future__ import annotations

from collections.abc import Hashable, Iterator, Mapping
from typing import Any

import numpy as np
import xarray

from hookql.results.cells import plural
from hookql.results.rows import main_variables, raw_rows
from hookql.results.terminal import quoted

MOST_SKIPPED = 5
COUNTS = {
    "samples": "sample",
    "tokens_run": "token run",
    "tokens_skipped": "token skipped",
    "tokens_spared": "token spared",
    "tokens_dropped": "token dropped",
    "samples_truncated": "sample truncated",
    "samples_split": "sample split",
    "samples_empty": "sample empty",
}


def facts(tree: xarray.DataTree) -> Iterator[tuple[str, str]]:
    """What is worth reading of the attributes, by a short name."""

    def given(*names: str) -> list[str]:
        return [str(tree.attrs[n]) for n in names if tree.attrs.get(n) not in (None, "", "none")]

    yield "query", str(tree.attrs.get("query", "")).strip()
    yield "model", ", ".join(given("model", "model_class", "dtype_run", "device"))
    yield "data", " · ".join([*given("data"), *_counts(tree.attrs)])
    if early := tree.attrs.get("interrupted"):
        yield "partial", f"left early, {early}: long samples are run first, so this is no fair part"
    for line in _skipped(tree):
        yield "skipped", line
    for line in generated(tree):
        yield "wrote", line
    yield "made", ", ".join(given("ended", "source"))
    for node in tree.subtree:
        if "count" in node.data_vars:
            data = node.to_dataset().drop_dims(["skipped", "generated"], errors="ignore")
            sizes = ", ".join(f"{dim} {size}" for dim, size in data.sizes.items())
            raw = [name for name, _ in raw_rows(data)]
            count = ["count"] if "count" in data else []
            names = ", ".join([*raw, *main_variables(data), *count])
            where = "" if node is tree else f"{node.path[1:]}: "
            yield "holds", f"{where}{names} ({sizes or 'no dimension'})"


def _skipped(tree: xarray.DataTree) -> Iterator[str]:
    """The first of what was left out of the run, and how many more there are."""
    if "skipped_sample" not in tree.data_vars:
        return
    samples = np.atleast_1d(tree.data_vars["skipped_sample"].values).tolist()
    reasons = np.atleast_1d(tree.data_vars["skipped_reason"].values).tolist()
    for sample, reason in list(zip(samples, reasons, strict=True))[:MOST_SKIPPED]:
        yield f"sample {sample}: {reason}"
    if len(samples) > MOST_SKIPPED:
        yield f"and {len(samples) - MOST_SKIPPED:,} more"


def generated(tree: xarray.DataTree) -> Iterator[str]:
    """The first of the texts that the model wrote, and how many more there are."""
    if "generated_text" not in tree.data_vars:
        return
    samples = np.atleast_1d(tree.data_vars["generated_sample"].values).tolist()
    texts = np.atleast_1d(tree.data_vars["generated_text"].values).tolist()
    for sample, text in list(zip(samples, texts, strict=True))[:MOST_SKIPPED]:
        yield f"sample {sample}: {quoted(str(text), 80)}"
    if len(samples) > MOST_SKIPPED:
        yield f"and {len(samples) - MOST_SKIPPED:,} more"


def _counts(attributes: Mapping[Hashable, Any]) -> Iterator[str]:
    for name, words in COUNTS.items():
        if number := int(attributes.get(name) or 0):
            noun, _, rest = words.partition(" ")
            yield f"{number:,} {plural(noun, number)} {rest}".rstrip()


def run_line(attributes: Mapping[Hashable, Any]) -> str:
    """``1.2 s for 36 samples · ran 48 % of the model for 25 % of the tokens``."""
    parts = []
    if "seconds" in attributes:
        samples = attributes.get("samples")
        what = f" for {int(samples):,} {plural('sample', int(samples))}" if samples else ""
        parts.append(f"{float(attributes['seconds']):.3g} s{what}")
    if "forward_share" in attributes and attributes.get("tokens_run", 1):
        ran = f"ran {100 * float(attributes['forward_share']):.0f} % of the model"
        tokens, left_out = (
            sum(int(attributes.get(name, 0)) for name in names)
            for names in (("tokens_run",), ("tokens_skipped", "tokens_spared"))
        )
        share = f"{100 * tokens / (tokens + left_out):.0f}" if left_out else "100"
        parts.append(ran if share == "100" else f"{ran} for {share} % of the tokens")
    line = " · ".join(parts)
    return f"{line}, when the answer was kept" if line and "from_store" in attributes else line
