"""What raw values cost beside the forward pass: `python -m benchmarks.raw`.

All tokens' residual stream of one middle layer of a GPT-2 of real size goes to a file, synced to
the disk and all, and is compared with the same truncated pass without a hook. Whole runs in turn,
for the thread that writes works beside the model.
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path

import torch
import transformers

from benchmarks.ratios import Work, compared, contexts, prepared, row, truncated
from hookql.api import parse_query
from hookql.binding import bind
from hookql.data.batches import batches
from hookql.engines.local import Outcome, run
from hookql.models.feed import TokenFeed
from hookql.models.load import wrap_model
from hookql.plan import Plan
from hookql.raw.schema import Sizes, shelves, templates
from hookql.results.collect import collect
from hookql.results.netcdf import save
from hookql.results.tree import build_tree
from hookql.running.disk import Disk

QUERY = "capture values from transformer.h[6]"
WIDTH = 1024


def written(plan: Plan, work: Work, samples: int, path: Path) -> None:
    """The run with its file, until it is on the disk."""
    tokens = sum(int(batch.mask.sum()) for batch, _ in work)
    sizes = Sizes({0: tokens}, samples)
    made = {path: shelves(plan, templates(plan, WIDTH), sizes, WIDTH)}
    disk = Disk(plan, made, path.parent, "none", None)
    try:
        disk.begin()
        outcome = Outcome.of(plan, WIDTH)
        run(plan, prepared(work), width=WIDTH, sink=disk, outcome=outcome)
        done = disk.finish(outcome, samples)
        tree = build_tree(collect(plan, outcome, samples=samples), {"hookql_version": "0"})
        save(tree, path, overwrite=True, begun=done.files[path])
    finally:
        disk.close()


def main() -> None:
    """The command line of this benchmark."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--samples", type=int, default=256)
    parser.add_argument("--folder", type=Path, help="where to write (default: temporary files)")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    transformers.logging.set_verbosity_error()
    torch.manual_seed(0)
    module = transformers.GPT2LMHeadModel(transformers.GPT2Config()).eval()
    model = wrap_model(module, name="GPT2Config()")
    feed = TokenFeed(model)
    plan = bind(parse_query(QUERY), model, feed)
    cut = batches(contexts(options.samples), tokens_per_batch=512)
    work: Work = [(batch, feed.for_batch(batch)) for batch in cut]
    with tempfile.TemporaryDirectory(dir=options.folder) as folder:
        path = Path(folder) / "acts.nc"
        ours, theirs = compared(
            [
                lambda: written(plan, work, options.samples, path),
                lambda: truncated(plan, work, module),
            ],
            options.repeats,
        )
        size = path.stat().st_size
    tokens = sum(int(batch.mask.sum()) for batch, _ in work)
    print(f"{tokens:,} tokens in {len(work)} batches, {size / 1e6:,.0f} MB written and synced")
    print(row("raw values of one middle layer", 1.05, ours, theirs))


if __name__ == "__main__":
    main()
