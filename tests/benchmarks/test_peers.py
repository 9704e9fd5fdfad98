"""The comparison with peers: its check of numbers, and its count of lines."""

import numpy as np
import pytest

from benchmarks.peers.agreement import AGREES, deviation
from benchmarks.peers.lines import lines_written

TRUTH = {"mean": np.zeros((2, 4)), "std": np.full((2, 4), 2.0)}
RANKED = {
    "top": np.array([[5.0, 9.0], [4.0, 8.0], [3.9999, 7.0]]),
    "token": np.array([[1, 2], [3, 4], [5, 6]]),
    "spread": np.ones(2),
}
SOURCE = '''
import torch

def helper(x):
    """Words."""
    # a remark

    return inner(x)

class Unused:
    pass

def inner(x):
    return x

def task(model):
    """Words."""
    y = helper(model)

    return y + 1
'''


def test_equal_numbers_agree() -> None:
    """The reference agrees with itself, rows and all."""
    assert deviation({**TRUTH, "rows": np.array(3)}, {**TRUTH, "rows": np.array(3)}) == 0
    assert deviation(RANKED, RANKED) == 0


def test_a_wrong_mean_is_told_in_standard_deviations() -> None:
    """Off by 1 where the standard deviation is 2 is half of one."""
    wrong = {**TRUTH, "mean": TRUTH["mean"] + np.eye(2, 4)}
    assert deviation(wrong, TRUTH) == pytest.approx(0.5)


@pytest.mark.parametrize(
    "wrong",
    [
        {"mean": TRUTH["mean"]},
        {**TRUTH, "std": TRUTH["std"][:1]},
        {**TRUTH, "mean": np.full((2, 4), np.nan)},
        {**TRUTH, "rows": np.array(4)},
    ],
    ids=["missing", "shape", "nan", "rows"],
)
def test_what_is_no_answer_never_agrees(wrong: dict[str, np.ndarray]) -> None:
    """Numbers that are missing, misshapen or not finite, and rows too many."""
    assert deviation(wrong, {**TRUTH, "rows": np.array(3)} if "rows" in wrong else TRUTH) > AGREES


def test_other_tokens_count_where_ranks_are_clear() -> None:
    """Tokens of a tie may change places; others may not."""
    tied = {**RANKED, "token": np.array([[1, 2], [5, 4], [3, 6]])}
    clear = {**RANKED, "token": np.array([[7, 2], [3, 4], [5, 6]])}
    assert deviation(tied, RANKED) == 0
    assert deviation(clear, RANKED) == float("inf")


def test_lines_of_a_task_and_of_what_it_needs() -> None:
    """Two of the body, two of each helper: no docstring, remark, blank line or other class."""
    assert lines_written(SOURCE, "task") == 6
    assert lines_written(SOURCE, "inner") == 1
