"""What small runs disprove: equal runs that differ, rows that follow no sample or position, leaks.

Shapes alone do not say it: values do.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

import torch
from attrs import frozen
from torch import Tensor

from hookql.errors import Diagnostic, ModelError
from hookql.models.feed import Feed, Size, TokenFeed
from hookql.models.learning import Seen
from hookql.models.load import Model
from hookql.models.mixing import Mixing, copies, distance, judge, scale
from hookql.models.ports import HookPoint
from hookql.models.precision import resolution
from hookql.models.trial import Held, run_once

Points = Mapping[HookPoint, Seen]

# Exchanging samples leaves rows as they were but for rounding; in units of `scale`.
_ROUNDING = {torch.float64: 1e-2, torch.float32: 1e-2}
# A later token that moves the logits before it by less than this has moved them by rounding.
_UNMOVED = {torch.float64: 5e-4, torch.float32: 5e-4}


def check_repeatable(seen: Iterable[HookPoint], first: Held, again: Held) -> None:
    """Raise ModelError where two equal runs gave different values."""
    for point in seen:
        for a, b in zip(first[point], again[point], strict=True):
            if not torch.equal(_bits(a), _bits(b)):
                message = f"two equal runs give different values at `{point}`: the model is random"
                advice = "a result would not be reproducible; switch its sampling or noise off"
                raise ModelError(Diagnostic("not-repeatable", message, help=advice))


def not_by_sample(
    model: Model, feed: Feed, asked: Size, size: Size, seen: Points, first: Held
) -> dict[HookPoint, str]:
    """The hook points whose rows do not follow when the samples are exchanged.

    Catches what shapes cannot, such as experts' rows that happen to be as many as the tokens.
    """
    inputs = feed.example(asked)
    flipped = {
        n: v.flip(0) if isinstance(v, Tensor) and v.ndim and v.shape[0] == size.batch else v
        for n, v in inputs.items()
    }
    swapped, exact = run_once(model, list(seen), flipped), resolution(model)
    wrong = {}
    for point, info in seen.items():
        positions = size.length(info.layout.stream)
        for before, after in zip(first[point], swapped[point], strict=True):
            a = info.layout.rows(before, size.batch, positions)
            b = info.layout.rows(after, size.batch, positions)
            turned = b.reshape(size.batch, positions, *b.shape[1:]).flip(0).flatten(0, 1)
            if distance(a, turned, scale(a)) > _ROUNDING.get(exact(before), 0.5):
                wrong[point] = "samples"
    return wrong


def not_by_position(
    model: Model, feed: TokenFeed, size: Size, seen: Points, first: Held
) -> dict[HookPoint, str]:
    """The hook points at which another last token changes rows, but not the last one.

    Two other tokens must both show it, and plainly: a row may stand still by itself.
    """
    found, exact = set(seen), resolution(model)
    for number in range(2):
        for stream in ("text", "target"):
            points = [p for p in found if seen[p].layout.stream == stream]
            if not points:
                continue
            changed = run_once(model, points, _other_last(feed, size, stream, number))
            found -= {
                point
                for point in points
                if not any(
                    _last_stands_still(seen[point], size, before, after, exact(before))
                    for before, after in zip(first[point], changed[point], strict=True)
                )
            }
    return dict.fromkeys(found, "positions")


def is_causal(model: Model, feed: TokenFeed, size: Size, logits: Seen, first: Held) -> bool:
    """Whether other tokens at the end leave the logits of those before them as they are."""
    for kept in (size.positions - 1, max(1, size.positions // 2)):
        ids = feed.random_ids(size.batch, size.positions)
        for sample in ids:
            for place in range(kept, size.positions):
                sample[place] = feed.other_id(int(sample[place]), place)
        inputs = feed.unpadded(ids, feed.random_target(size))
        changed = run_once(model, [logits.point], inputs)
        for before, after in zip(first[logits.point], changed[logits.point], strict=True):
            exact = resolution(model)(before)
            if not _same_before(logits, size, kept, before, after, exact):
                return False
    return True


def _same_before(
    logits: Seen, size: Size, kept: int, before: Tensor, after: Tensor, exact: torch.dtype
) -> bool:
    shape = size.batch, size.positions
    a, b = (logits.layout.rows(t, *shape).reshape(*shape, -1)[:, :kept] for t in (before, after))
    if torch.equal(_bits(a), _bits(b)):
        return True
    # Routing another number of tokens to an expert rounds differently.
    return distance(a.flatten(0, 1), b.flatten(0, 1), scale(a.flatten(0, 1))) <= _UNMOVED.get(
        exact, 0.05
    )


def find_mixing(model: Model, feed: Feed, size: Size, seen: Points) -> Mixing:
    """Whether padding, or other samples, change a sample's rows at some hook point."""
    points = list(seen)
    if not points:
        return Mixing.NONE
    if isinstance(feed, TokenFeed):
        runs = _token_trials(model, feed, points)
    else:
        runs = _tensor_trials(model, feed, points, size)
    found = Mixing.NONE
    for point, info in seen.items():
        if any(len(run[point]) != info.calls for run in runs.all):
            raise varying_calls(point, info.calls)
        lengths = runs.lengths[info.layout.stream]
        for call in range(info.calls):
            tensors = [run[point][call] for run in runs.alone]
            others = [run[point][call] for run in (runs.padded, runs.twice, runs.beside)]
            exact = resolution(model)(tensors[0])
            judged = judge(info.layout, lengths, runs.repeats, tensors, *others, exact=exact)
            if judged is Mixing.SAMPLES:
                return judged
            if judged is Mixing.PADDING:
                # Only the text's lengths can be kept equal in a batch, not the target's too.
                if info.layout.stream == "target":
                    return Mixing.SAMPLES
                found = judged
    return found


def varying_calls(point: HookPoint, calls: int) -> ModelError:
    """The error for a module that runs more or less often than it did in the first small passes."""
    often = "once" if calls == 1 else f"{calls} times"
    message = f"`{point}` ran {often} in each small probing pass, but not so on other inputs"
    help = "capture a module that runs equally often whatever the input, such as one around it"
    return ModelError(Diagnostic("varying-calls", message, help=help))


@frozen(eq=False)
class _Trials:
    """Samples alone, side by side and padded; their lengths in each stream."""

    lengths: dict[str, list[int]]
    repeats: list[int]  # how many copies of a sample each run alone has
    alone: list[Held]
    padded: Held
    twice: Held
    beside: Held

    @property
    def all(self) -> tuple[Held, ...]:
        return (*self.alone, self.padded, self.twice, self.beside)


def _token_trials(model: Model, feed: TokenFeed, points: Sequence[HookPoint]) -> _Trials:
    lengths, target_lengths = feed.trial_lengths(), feed.trial_target_lengths()
    size = Size(len(lengths), lengths[0], target_lengths[0])
    ids, target = feed.random_ids(size.batch, size.positions), feed.random_target(size)
    repeats = [copies(lengths, number) for number in range(len(lengths))]

    def run(rows: list[int], length: int, target_length: int) -> Held:
        wanted = None if target is None else target[rows, :target_length]
        return run_once(model, points, feed.unpadded(ids[rows, :length], wanted))

    def masked(all_ids: Tensor, real: Sequence[int]) -> tuple[Tensor, Tensor]:
        mask = torch.arange(all_ids.shape[1]) < torch.tensor(real)[:, None]
        return all_ids.masked_fill(~mask, feed.pad_id), mask

    padded = feed.inputs(
        *masked(ids, lengths), None if target is None else masked(target, target_lengths)
    )
    alone = [
        run([row] * repeats[row], length, target_lengths[row]) for row, length in enumerate(lengths)
    ]
    return _Trials(
        {"text": lengths, "target": target_lengths},
        repeats,
        alone,
        padded=run_once(model, points, padded),
        twice=run([0, 0], lengths[0], target_lengths[0]),
        beside=run([0, 1], lengths[0], target_lengths[0]),
    )


def _tensor_trials(model: Model, feed: Feed, points: Sequence[HookPoint], size: Size) -> _Trials:
    """Of other inputs: nothing can be padded."""
    alone, twice, beside = (
        run_once(model, points, feed.trial(picks)) for picks in ([0], [0, 0], [0, 1])
    )
    return _Trials({"text": [size.positions]}, [1], [alone], alone, twice, beside)


def _other_last(feed: TokenFeed, size: Size, stream: str, number: int) -> dict[str, object]:
    """The first example with another last token in one stream of its first sample."""
    ids, target = feed.random_ids(size.batch, size.positions), feed.random_target(size)
    changed = target if stream == "target" and target is not None else ids
    changed[0, -1] = feed.other_id(int(changed[0, -1]), number)
    return feed.unpadded(ids, target)


def _last_stands_still(
    info: Seen, size: Size, before: Tensor, after: Tensor, exact: torch.dtype
) -> bool:
    positions = size.length(info.layout.stream)
    a = info.layout.rows(before, size.batch, positions)[:positions]
    b = info.layout.rows(after, size.batch, positions)[:positions]
    by = scale(a)
    moved = [distance(x, y, by) for x, y in zip(a[:, None], b[:, None], strict=True)]
    limit = _ROUNDING.get(exact, 0.5)
    return max(moved) > limit and moved[-1] < limit / 20


def _bits(tensor: Tensor) -> Tensor:
    """Compared as bytes, so that NaN equals itself."""
    return tensor.contiguous().flatten().view(torch.uint8)
