"""Which axis of a tensor is what: a table of shapes in four runs."""

from __future__ import annotations

import pytest
import torch
from attrs import evolve

from hookql.models.feed import Size
from hookql.models.layout import Layout, Misaligned, find_layout, find_pattern_layout

SIZES = [Size(2, 5, 9), Size(3, 7, 13), Size(2, 11, 9), Size(5, 5, 17)]
HEADS = frozenset({4, 2})


def shapes(*axes: str | int) -> list[tuple[int, ...]]:
    """A tensor's shape in each run; ``B``, ``S``, ``D`` (decoder) and products of them vary."""
    return [
        tuple(
            a if isinstance(a, int) else eval(a, {"B": s.batch, "S": s.positions, "D": s.decoder})
            for a in axes
        )
        for s in SIZES
    ]


ALIGNED = {
    "batch first": (("B", "S", 8), Layout(0, 1, None, ("feature",))),
    "sequence first": (("S", "B", 8), Layout(1, 0, None, ("feature",))),
    "feature first": ((8, "B", "S"), Layout(1, 2, None, ("feature",))),
    "channels between": (("B", 8, "S"), Layout(0, 2, None, ("feature",))),
    "flat": (("B*S", 8), Layout(None, None, 0, ("feature",))),
    "flat last": ((8, "B*S"), Layout(None, None, 1, ("feature",))),
    "one number": (("B", "S"), Layout(0, 1, None, ())),
    "flat, one number": (("B*S",), Layout(None, None, 0, ())),
    "feature of one": (("B", "S", 1), Layout(0, 1, None, ("feature",))),
    "broadcast": ((1, "S", 8), Layout(None, 1, None, ("feature",))),
    "the same for all": (("S", 8), Layout(None, 0, None, ("feature",))),
    "positions alone": (("S",), Layout(None, 0, None, ())),
    "heads after": (("B", "S", 4, 8), Layout(0, 1, None, ("head", "feature"))),
    "heads before": (("B", 4, "S", 8), Layout(0, 2, None, ("head", "feature"))),
    "key-value heads": (("B", 2, "S", 8), Layout(0, 2, None, ("head", "feature"))),
    "flat heads": (("B*S", 4, 8), Layout(None, None, 0, ("head", "feature"))),
    "broadcast heads": ((1, 4, "S", 8), "no axis follows the samples"),
    "no head count": (("B", "S", 3, 8), Layout(0, 1, None, ("axis_0", "feature"))),
    "three axes": (("B", "S", 3, 4, 8), Layout(0, 1, None, ("axis_0", "axis_1", "feature"))),
    "attention scores": (("B", 4, "S", "S"), "two of its axes follow the tokens"),
    "a bias": (("S", "S"), "two of its axes follow the tokens"),
    "a constant": ((1, 8), "no axis follows the tokens"),
    "a scalar": ((), "no axis follows the tokens"),
    "pooled": (("B", 8), "no axis follows the tokens"),
    "two batches": (("B", "B", "S", 8), "two of its axes follow the samples"),
    "experts' rows": (("2*B*S", 8), "one of its axes follows neither"),
    "half the tokens": (("B", "(S+1)//2", 8), "one of its axes follows neither"),
    "an extra position": (("B", "S+1", 8), "one of its axes follows neither"),
    "flat and more": (("B*S", "S"), "its rows are more than the tokens"),
    "twice flat": (("B*S", "B*S"), "its rows are more than the tokens"),
    "decoder": (("B", "D", 8), Layout(0, 1, None, ("feature",), "target")),
    "decoder, flat": (("B*D", 8), Layout(None, None, 0, ("feature",), "target")),
    "decoder's heads": (("B", 4, "D", 8), Layout(0, 2, None, ("head", "feature"), "target")),
    "decoder's attention": (("B", 4, "D", "D"), "two of its axes follow the tokens"),
    "cross attention": (("B", 4, "D", "S"), "one of its axes follows the text's tokens and one"),
}


@pytest.mark.parametrize("case", ALIGNED)
def test_axes_are_found_by_how_they_vary(case: str) -> None:
    """Each kind of tensor gets its layout, or the reason why it has none."""
    axes, expected = ALIGNED[case]
    found = find_layout(shapes(*axes), SIZES, HEADS)
    if isinstance(expected, str):
        assert isinstance(found, Misaligned)
        assert expected in found.reason
    else:
        assert expected == found


PATTERNS = {
    "of a text": (("B", 4, "S", "S"), Layout(0, 2, None, ("head", "key"))),
    "of a target": (("B", 4, "D", "D"), Layout(0, 2, None, ("head", "key"), "target")),
    "across": (("B", 4, "D", "S"), "their queries are the target's tokens and their keys the text"),
    "a bias for all samples": ((1, 4, "S", "S"), "their axes are not (batch, head, query, key)"),
    "a window": (("B", "S", 4, 8), "their axes are not (batch, head, query, key)"),
}


@pytest.mark.parametrize("case", PATTERNS)
def test_patterns_have_queries_heads_and_keys(case: str) -> None:
    """Rows are the queries; whose tokens they are is told."""
    axes, expected = PATTERNS[case]
    found = find_pattern_layout(shapes(*axes), SIZES)
    if isinstance(expected, str):
        assert isinstance(found, Misaligned)
        assert expected in found.reason
    else:
        assert expected == found


def test_rows_of_a_pattern_are_its_queries() -> None:
    """Row ``b * S + q`` is (head, key) of query q, and its key axis has no size of its own."""
    layout = Layout(0, 2, None, ("head", "key"))
    weights = torch.arange(3 * 4 * 7 * 7).reshape(3, 4, 7, 7)
    rows = layout.rows(weights, 3, 7)
    assert (21, 4, 7) == rows.shape
    assert torch.equal(weights[1, :, 5], rows[1 * 7 + 5])
    assert ("batch", 4, "position", "key") == layout.describe(weights.shape)


@pytest.mark.parametrize("size", [2, 3, 5, 7, 11])
def test_a_feature_axis_as_large_as_a_batch_is_a_feature(size: int) -> None:
    """Sizes that happen to equal a batch's or a length's in one run confuse nothing."""
    assert Layout(0, 1, None, ("feature",)) == find_layout(shapes("B", "S", size), SIZES, HEADS)
    assert Layout(1, 0, None, ("feature",)) == find_layout(shapes("S", "B", size), SIZES, HEADS)


def test_a_varying_number_of_axes_is_refused() -> None:
    """A tensor that is squeezed in some runs."""
    found = find_layout([(2, 5, 8), (3, 7, 8), (2, 8), (5, 5, 8)], SIZES, HEADS)
    assert Misaligned("its number of axes varies") == found


def test_inputs_of_one_fixed_size() -> None:
    """A model with a fixed number of positions: only one that has one position a sample."""
    one = [Size(2, 1), Size(3, 1), Size(2, 1), Size(5, 1)]
    assert Layout(0, None, None, ("feature",)) == find_layout(
        [(s.batch, 8) for s in one], one, HEADS
    )
    fixed = [Size(2, 9), Size(3, 9), Size(2, 9), Size(5, 9)]
    found = find_layout([(s.batch, 9, 8) for s in fixed], fixed, HEADS)
    assert isinstance(found, Misaligned)
    assert "cannot be told from its other axes" in found.reason


@pytest.mark.parametrize(
    "case", [c for c, (_, e) in ALIGNED.items() if isinstance(e, Layout) and len(e.axes) < 3]
)
def test_rows_are_the_tokens_sample_by_sample(case: str) -> None:
    """Row ``b * S + s`` holds what the tensor has for sample b at position s."""
    axes, layout = ALIGNED[case]
    assert isinstance(layout, Layout)
    size = evolve(SIZES[1], positions=SIZES[1].length(layout.stream))
    shape = shapes(*axes)[1]
    tensor = torch.arange(torch.Size(shape).numel()).reshape(shape)
    rows = layout.rows(tensor, size.batch, size.positions)
    assert size.batch * size.positions == rows.shape[0]
    for b in range(size.batch):
        for s in range(size.positions):
            index: list[object] = [slice(None)] * len(shape)
            if layout.flat is not None:
                index[layout.flat] = b * size.positions + s
            if layout.batch is not None:
                index[layout.batch] = b
            if layout.position is not None:
                index[layout.position] = s
            wanted = tensor[tuple(index)].reshape(rows.shape[1:])
            assert torch.equal(wanted, rows[b * size.positions + s])


def test_batch_first_rows_are_a_view() -> None:
    """The common layout costs no copy."""
    tensor = torch.zeros(3, 7, 8)
    rows = Layout(0, 1, None, ("feature",)).rows(tensor, 3, 7)
    assert tensor.data_ptr() == rows.data_ptr()


def test_a_layout_describes_a_shape() -> None:
    """Names stand where sizes vary."""
    assert ("position", "batch", 8) == Layout(1, 0, None, ("feature",)).describe((5, 2, 8))
    assert ("batch*position", 8) == Layout(None, None, 0, ("feature",)).describe((10, 8))
    assert (1, "position", 8) == Layout(None, 1, None, ("feature",)).describe((1, 5, 8))
