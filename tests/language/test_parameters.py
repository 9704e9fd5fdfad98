"""The numbers that statistics take, with statistics made up for it."""

from __future__ import annotations

import pytest

import hookql.statistics
from hookql.errors import QueryError
from hookql.language.parser import parse
from hookql.language.resolve import resolve
from hookql.statistics import Parameter, Statistic


def made_up(name, *parameters, **more):
    """A statistic of these parameters that is never computed."""
    return Statistic(name, "", parameters, list, name, 0, name, list, "here", **more)


def _share(value):
    return None if 0 <= value <= 1 else "from 0 to 1"


def _apart(lo, hi, **others):
    return None if lo < hi else "`lo` is below `hi`"


KNOWN = {
    statistic.name: statistic
    for statistic in (
        made_up("mean"),
        made_up("quantile", Parameter("q", None, _share, "rest")),
        made_up(
            "hist",
            Parameter("bins", 10, kind="whole"),
            Parameter("lo", None),
            Parameter("hi", None),
            check=_apart,
        ),
        made_up("top", Parameter("k", 10, kind="whole"), variables=("", "order")),
        made_up("corr", needs="feature", poolable=False),
    )
}


def read(monkeypatch, text):
    """The statistics of a query, or the messages that it gets."""
    monkeypatch.setattr(hookql.statistics, "STATISTICS", KNOWN)
    try:
        return resolve(parse(text)).captures[0].statistics
    except QueryError as error:
        return [(d.code, d.message) for d in error.diagnostics]


FINE = {
    "quantile(0.5)": ({"q": (0.5,)}, "quantile_0_5"),
    "quantile(abs(x), 0.5, 1)": ({"q": (0.5, 1.0)}, "quantile_abs_x_0_5_1"),
    "quantile(x, q=0.25)": ({"q": (0.25,)}, "quantile_0_25"),
    "hist(lo=-1, hi=2)": ({"bins": 10, "lo": -1, "hi": 2}, "hist_lo_minus_1_hi_2"),
    "hist(x, 5, 0, 2.5)": ({"bins": 5, "lo": 0, "hi": 2.5}, "hist_bins_5_lo_0_hi_2_5"),
    "hist(hi=2, lo=1, bins=3.0)": ({"bins": 3, "lo": 1, "hi": 2}, "hist_hi_2_lo_1_bins_3"),
    "top(k=3)": ({"k": 3}, "top_k_3"),
    "top(x[[5, 99]], k=10)": ({"k": 10}, "top_x_5_99_k_10"),
    "corr(x[0:3])": ({}, "corr_x_0_to_3"),
}


@pytest.mark.parametrize("statistic", FINE)
def test_parameters_that_are_fine(monkeypatch, statistic):
    """All parameters are there, whole ones as int, the rest as a tuple of floats."""
    (spec,) = read(monkeypatch, f"capture {statistic} from h")
    assert (dict(spec.parameters), spec.variable) == FINE[statistic]
    assert all(type(spec.parameters[n]) is int for n in ("k", "bins") if n in spec.parameters)
    assert all(type(q) is float for q in spec.parameters.get("q", ()))


WRONG = {
    "quantile": [("missing-parameter", "`quantile` needs `q`")],
    "quantile(x, 0.5, 2)": [("bad-parameter", "`q` of `quantile` must be from 0 to 1")],
    "quantile(0.5, 0.50)": [("duplicate-parameter", "`0.5` is given twice")],
    "quantile(q=0.5, 0.9)": [("unknown-parameter", "`quantile` takes no more numbers")],
    "quantile(0.9, q=0.5)": [("duplicate-parameter", "`q` is given twice")],
    "quantile(q=0.5, q=0.9)": [("duplicate-parameter", "`q` is given twice")],
    "hist": [("missing-parameter", "`hist` needs `lo` and `hi`")],
    "hist(5, 0)": [("missing-parameter", "`hist` needs `hi`")],
    "hist(2.5, 0, 1)": [("bad-parameter", "`bins` of `hist` must be a whole number")],
    "hist(lo=1, hi=0)": [("bad-parameter", "`lo` is below `hi`")],
    "hist(5, 0, 1, 2)": [("unknown-parameter", "`hist` takes no more numbers")],
    "hist(x, bin=5)": [("unknown-parameter", "`hist` has no parameter `bin`")],
    "mean as top": [("reserved-name", "a result's own `top` has this name")],
    "top(k=x)": [("bad-parameter", "`k` of `top` must be a whole number")],
    "top as t, mean as t_sample": [
        ("duplicate-variable", "two statistics of this capture are called `t_sample`")
    ],
    "corr(position)": [("wrong-kind", "`corr` is of a vector, and this is one number a token")],
}


@pytest.mark.parametrize("statistic", WRONG)
def test_parameters_that_are_wrong(monkeypatch, statistic):
    """Each mistake is one message."""
    assert read(monkeypatch, f"capture {statistic} from h") == WRONG[statistic]


def test_what_cannot_be_pooled(monkeypatch):
    """A statistic that says so is refused with `pool`."""
    said = read(monkeypatch, "capture mean, corr from h pool layer")
    assert said == [("not-poolable", "`corr` cannot be pooled")]
